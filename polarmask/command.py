"""What all programs share: how they start, and how their errors end.

No module that takes long to import is imported here: what stands in ``ENVIRONMENT`` must be set before torch is loaded.
"""

import os
import sys
import traceback
from types import ModuleType
from typing import Any

import polarmask

# Threads that wait for work sleep. By default OpenMP's keep a core busy, which slows everything down where the cores
# are shared: predicting 50 images beside another program took 71 s instead of 11.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
FAILED = 2  # exit status of a user's error
INTERRUPTED = 130
# What a user can mend. Everything else is a fault of ours and keeps its traceback.
ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)


def run(module: str) -> None:
    """Runs ``main`` of a module of polarmask as a program, and exits.

    A user's error ends with one sentence on stderr and exit status 2; ``--traceback`` also shows where it was raised.
    Of torchrun's processes that fail for the same reason one prints it. The status is what ``main`` returns, 130 after
    Ctrl-C.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    shows_traceback = "--traceback" in sys.argv
    sys.argv = [arg for arg in sys.argv if arg != "--traceback"]
    try:
        status = polarmask._import(module).main()
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


def sentence(error: BaseException) -> str:
    """An exception in one line.

    Examples
    --------
    >>> sentence(FileNotFoundError(2, "No such file or directory", "weights"))
    'weights: No such file or directory'
    """
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    elif _is_ours(error):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error} (--traceback shows where)"
    return " ".join(text.split()) or type(error).__name__


def _is_ours(error: BaseException) -> bool:
    """Whether the innermost frame is in this repository's packages, which raise complete sentences."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return not frames or frames[-1][0].f_globals.get("__name__", "").startswith("polarmask")


def say(text: str) -> None:
    """Prints a line to stderr, once for all processes of torchrun that say the same."""
    if _is_first(text):
        print(text, file=sys.stderr, flush=True)


def _is_first(text: str) -> bool:
    """Whether no other process has said it. Before processes know each other, the first of each host speaks."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        store = distributed.distributed_c10d._get_default_store()
        return bool(store.add(f"polarmask said: {text}", 1) == 1)
    except Exception:  # twice is better than never
        return True


class Program(ModuleType):
    """The module of a program that has the name of a function: it can be called like the function.

    ``import polarmask.train`` puts the module in the place of the function ``polarmask.train``.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(polarmask._import(polarmask._HOMES[name]), name)(*args, **kwargs)
