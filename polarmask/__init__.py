"""PolarMask: the reference model, its trainer, evaluation and prediction."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config, load_config
    from .detector import Detector, load
    from .evaluation import evaluate
    from .model import PolarHead, PolarMask
    from .prediction import predict
    from .trainer import train

__all__ = ["Config", "Detector", "PolarHead", "PolarMask", "evaluate", "load", "load_config", "predict", "train"]

# Modules by the names that they define. They are imported when a name is first used: torch alone takes seconds, and
# programs set environment variables before it.
_HOMES = {
    "Config": "config",
    "load_config": "config",
    "Detector": "detector",
    "load": "detector",
    "evaluate": "evaluation",
    "PolarHead": "model",
    "PolarMask": "model",
    "predict": "prediction",
    "train": "trainer",
}
_MODULES = ("audit", "config", "data", "detector", "evaluation", "model", "prediction", "tiles", "trainer")


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
    """A module of this package; an ImportError that names the extra where one of its dependencies is missing."""
    try:
        return importlib.import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "polarmask", "polarmask_ops"):
            raise
        raise ImportError(
            f'polarmask needs its extra: pip install "polarmask[train]" (missing: {missing})', name=missing
        ) from error
