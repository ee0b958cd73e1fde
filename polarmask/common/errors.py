"""How the programs report a user's error: in one sentence, once for all processes."""

import os
import sys
import traceback

# What a user can mend. Everything else is a fault of this package and keeps its traceback.
ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError)


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
    """Returns true if this repository's packages raised the error: their messages are complete sentences."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return not frames or frames[-1][0].f_globals.get("__name__", "").startswith("polarmask")


def say(text: str) -> None:
    """Prints a line to stderr, once for all processes of torchrun that would print the same line."""
    if _is_first(text):
        print(text, file=sys.stderr, flush=True)


def _is_first(text: str) -> bool:
    """Returns true if no other process has printed the text.

    Before the processes are connected, only the first of each host prints.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        store = distributed.distributed_c10d._get_default_store()
        return bool(store.add(f"polarmask said: {text}", 1) == 1)
    except Exception:  # a line that is printed twice is better than none
        return True
