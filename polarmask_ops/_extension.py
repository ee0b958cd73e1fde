"""Loads ``polarmask_ops._C``, which registers the ops; says what is wrong where it cannot, and how to mend it.

``POLARMASK_BACKEND=simt`` loads ``_C_simt`` in its place: the CUDA kernels, emulated, for tests (see tests/simt).
"""

import importlib
import os
from types import ModuleType

import torch

_HOW = "Rebuild it: `pip install --no-build-isolation --force-reinstall --no-deps .` in a checkout of polarmask."


def load() -> ModuleType:
    if os.environ.get("POLARMASK_BACKEND") == "simt":
        return importlib.import_module("_C_simt")
    try:
        return importlib.import_module("polarmask_ops._C")
    except ModuleNotFoundError as error:
        if error.name != "polarmask_ops._C":
            raise
        raise ImportError(f"polarmask_ops: the compiled extension polarmask_ops._C is missing. {_HOW}") from error
    except ImportError as error:
        raise ImportError(
            f"polarmask_ops: the compiled extension polarmask_ops._C does not load with torch {torch.__version__}: "
            f"{error}. {_HOW}"
        ) from error


_C = load()
