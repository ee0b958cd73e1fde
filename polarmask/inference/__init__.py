"""A trained network at work: detectors, images of any kind and size, and what is written and drawn of detections."""

from .detector import Detector, load
from .prediction import predict

__all__ = ["Detector", "load", "predict"]
