"""PolarMask: the reference model, its trainer, evaluation and prediction."""

from .config import Config, load_config
from .detector import Detector, load
from .evaluation import evaluate
from .model import PolarHead, PolarMask
from .prediction import predict
from .trainer import train

__all__ = ["Config", "Detector", "PolarHead", "PolarMask", "evaluate", "load", "load_config", "predict", "train"]
