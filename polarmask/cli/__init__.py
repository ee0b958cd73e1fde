"""The command line: ``polarmask PROGRAM``, which is the same as ``python -m polarmask.PROGRAM``.

Each program is a module of this package with a ``main``. It parses its options first and imports torch only then, so
that ``--help`` and a wrong option are answered at once, and so that ``ENVIRONMENT`` is set before torch is loaded.
"""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import polarmask

from ..common.errors import ERRORS, say, sentence

PROGRAMS = {
    "train": "train a detector, evaluate it, and write weights, metrics and pictures",
    "evaluate": "measure mask and box AP of a detector",
    "predict": "find the instances of any images",
    "audit": "look at a data set: its problems, and what rays can reach",
    "convert": "convert weights of the released PolarMask",
    "ablate": "repeat the paper's ablations",
}
# OpenMP's threads sleep while they wait for work. By default they spin, which slows everything down where the cores are
# shared: predicting 50 images beside another program took 71 s instead of 11.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
FAILED = 2  # exit status of a user's error
INTERRUPTED = 130


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs the program that the first argument names, and exits.

    Parameters
    ----------
    args : sequence of str, optional
        By default ``sys.argv`` without its first entry. Without arguments, or with ``--help`` alone, the list of
        programs is printed.
    """
    given = list(sys.argv[1:] if args is None else args)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0)
    program, *rest = given
    if program not in PROGRAMS:
        near = difflib.get_close_matches(program, PROGRAMS, n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        say(f"polarmask: expected a program, one of {', '.join(PROGRAMS)}, got {program!r}{advice}")
        sys.exit(FAILED)
    run(program, rest)


def usage() -> str:
    """What ``polarmask --help`` prints."""
    programs = "\n".join(f"  {name:<9} {about}" for name, about in PROGRAMS.items())
    return (
        "usage: polarmask PROGRAM [OPTIONS]\n\n"
        f"programs:\n{programs}\n\n"
        "polarmask PROGRAM --help lists the options; python -m polarmask.PROGRAM is the same as polarmask PROGRAM."
    )


def run(program: str, args: Sequence[str]) -> NoReturn:
    """Runs ``main`` of a module of this package as a program, and exits.

    A user's error ends with one sentence on stderr and exit status 2; ``--traceback`` also shows where it was raised.
    Of torchrun's processes that fail for the same reason one prints it. The status is what ``main`` returns, 130 after
    Ctrl-C.

    Parameters
    ----------
    program : str
        The module's name, such as ``train``.
    args : sequence of str
        The program's arguments.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    shows_traceback = "--traceback" in args
    try:
        with polarmask._naming_the_extra():
            module = importlib.import_module(f"polarmask.cli.{program}")
            status = module.main([arg for arg in args if arg != "--traceback"])
    except KeyboardInterrupt:
        if shows_traceback:
            traceback.print_exc()
        say("interrupted")
        status = INTERRUPTED
    except Exception as error:
        if not isinstance(error, ERRORS) and type(error).__name__ != "OutOfMemoryError":  # torch's
            raise
        if shows_traceback:
            traceback.print_exc()
        say(sentence(error))
        status = FAILED
    sys.exit(status)
