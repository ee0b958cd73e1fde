"""Torch ops for instance masks as rays: polar targets, Polar IoU, rasterization, polygon NMS."""

from ._extension import _C
from .outlines import Outlines
from .polar_iou import polar_centerness, polar_iou, polar_iou_loss

__all__ = ["Outlines", "polar_centerness", "polar_iou", "polar_iou_loss"]
__version__ = _C.build_info()["version"]
