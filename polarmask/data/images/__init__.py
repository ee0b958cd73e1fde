"""Image files and label images as tensors and arrays: of any format, any depth, any channels."""

from .reading import (
    DARK,
    SUFFIXES,
    DataError,
    LargeTiff,
    check_channels,
    image_remarks,
    image_size,
    inside,
    is_float,
    is_turned,
    read_image,
    read_labels,
)

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
