"""PolarMask: the reference model, its trainer, evaluation and prediction."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config, load_config
    from .evaluation import evaluate
    from .inference import Detector, load, predict
    from .model import PolarHead, PolarMask
    from .model.released import convert
    from .training import train
    from .training.ablation import ablate

__all__ = [
    "Config",
    "Detector",
    "PolarHead",
    "PolarMask",
    "ablate",
    "convert",
    "evaluate",
    "load",
    "load_config",
    "predict",
    "train",
]

# The modules of the public names. A module is imported when one of its names is first used, since torch alone takes
# seconds to load, and programs set environment variables before that.
_HOMES = {
    "ablate": "training.ablation",
    "Config": "config",
    "load_config": "config",
    "Detector": "inference",
    "load": "inference",
    "evaluate": "evaluation",
    "PolarHead": "model",
    "PolarMask": "model",
    "convert": "model.released",
    "predict": "inference",
    "train": "training",
}
_MODULES = ("audit", "config", "data", "evaluation", "inference", "model", "training")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(_import(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return _import(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


def _import(name: str) -> Any:
    with _naming_the_extra():
        return importlib.import_module(f".{name}", __name__)


@contextmanager
def _naming_the_extra() -> Iterator[None]:
    """Turns the error of a missing dependency into an ImportError that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "polarmask", "polarmask_ops"):
            raise
        raise ImportError(
            f'polarmask needs its extra: pip install "polarmask[train]" (missing: {missing})', name=missing
        ) from error
