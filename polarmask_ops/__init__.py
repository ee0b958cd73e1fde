"""Torch ops for instance masks as rays: polar targets, Polar IoU, rasterization, polygon NMS."""

from ._extension import _C
from .outlines import Outlines

__all__ = ["Outlines"]
__version__ = _C.build_info()["version"]
