"""PolarMask: the reference model, its trainer, evaluation and prediction."""

from .config import Config, load_config
from .detector import Detector, load
from .model import PolarHead, PolarMask

__all__ = ["Config", "Detector", "PolarHead", "PolarMask", "load", "load_config"]
