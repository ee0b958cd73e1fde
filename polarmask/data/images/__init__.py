"""Image files and label images as tensors and arrays: of any format, any depth, any channels."""

from .pixels import DataError
from .reading import (
    DARK,
    SUFFIXES,
    check_channels,
    image_remarks,
    image_size,
    inside,
    is_float,
    is_turned,
    read_image,
    read_labels,
)
from .tiff import LargeTiff

__all__ = [
    "DARK",
    "SUFFIXES",
    "DataError",
    "LargeTiff",
    "check_channels",
    "image_remarks",
    "image_size",
    "inside",
    "is_float",
    "is_turned",
    "read_image",
    "read_labels",
]
