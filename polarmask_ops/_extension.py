"""Loads ``polarmask_ops._C``, which registers the ops, or raises an ImportError that says how to mend the installation.

``POLARMASK_BACKEND=simt`` loads ``_C_simt`` instead: the CUDA kernels, emulated for tests (see tests/simt).
"""

import importlib
import os
import re
from pathlib import Path
from types import ModuleType

import torch

_OLDEST_TORCH = (2, 13)  # keep equal to setup.py
_HOW = (
    "Rebuild it against this torch: `pip install --upgrade setuptools ninja pybind11`, then "
    "`pip install --no-build-isolation --force-reinstall --no-deps .` in a checkout of polarmask."
)


def check_torch(version: str) -> None:
    """Raise ImportError where torch is older than the stable ABI that the extension is built for."""
    release = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if release < _OLDEST_TORCH:
        oldest = "torch >= {}.{}".format(*_OLDEST_TORCH)
        raise ImportError(
            f"polarmask_ops: expected {oldest}, got torch {version}; `pip install --upgrade torch` brings a newer one"
        )


def load() -> ModuleType:
    if os.environ.get("POLARMASK_BACKEND") == "simt":
        return importlib.import_module("_C_simt")
    check_torch(torch.__version__)
    try:
        return importlib.import_module("polarmask_ops._C")
    except ModuleNotFoundError as error:
        if error.name != "polarmask_ops._C":
            raise
        raise ImportError(
            f"polarmask_ops: the compiled extension polarmask_ops._C is missing. {_hiding_sources()}{_HOW}"
        ) from error
    except ImportError as error:
        cuda = f"with CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise ImportError(
            f"polarmask_ops: the compiled extension polarmask_ops._C does not load with torch {torch.__version__} "
            f"({cuda}): {error}. {_HOW}"
        ) from error


def _hiding_sources() -> str:
    """Return a hint if the package was imported from a checkout, whose sources hide an installed package."""
    package = Path(__file__).parent
    if not (package.parent / "setup.py").is_file():
        return ""
    return f"These are the sources in {package.parent}: if polarmask is installed, start Python in another folder. "


_C = load()
