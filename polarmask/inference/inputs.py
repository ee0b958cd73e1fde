"""Paths, PIL images, arrays and tensors as the image tensors that a detector takes."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..data.images import read_image
from ..data.images.pixels import Channels

ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor

EXPECTED = (
    "expected a path, a PIL image, an array of shape (H, W), (H, W, 1) or (H, W, 3), or a tensor of shape (H, W), "
    "(1, H, W) or (3, H, W), uint8, uint16 or floating point"
)
PLAIN_MODES = {"L", "F", "I;16", "I;16L", "I;16B"}  # of PIL: one channel, whose numbers are the image's


def as_image(image: ImageLike, channels: Channels | None = None) -> Tensor:
    """One image as a tensor of shape (3, H, W), float32, red, green, blue.

    Integers are divided by the largest value of their type, so that they go from 0 to 1; floating-point values stay as
    they are. Grey is repeated.

    Parameters
    ----------
    image : str, Path, PIL.Image.Image, array or Tensor
        A file is read by :func:`polarmask.data.images.read_image`. A PIL image is turned upright as its EXIF
        orientation says, as files are, and loses its transparency. Arrays are of shape (H, W), (H, W, 1) or (H, W, 3),
        tensors of shape (H, W), (1, H, W) or (3, H, W); both uint8, uint16 or of a floating-point type.
    channels : sequence of 1 to 3 int or str, optional
        Of files: which channels become red, green and blue.

    Returns
    -------
    Tensor
        On the device of ``image``.

    Raises
    ------
    TypeError
        If it is something else, or of another dtype.
    ValueError
        If its shape is another, it has no pixels, or values are not finite.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> as_image(np.full((2, 4), 255, np.uint8)).shape
    torch.Size([3, 2, 4])
    """
    if isinstance(image, str | Path):
        return _from_file(image, channels)
    if isinstance(image, Image.Image):
        image = _pixels_of(image)
    if isinstance(image, np.ndarray):
        tensor = _from_array(image)
    elif isinstance(image, Tensor):
        tensor = image if image.dim() != 2 else image[None]
        if tensor.dim() != 3 or tensor.shape[0] not in (1, 3):
            raise ValueError(f"{EXPECTED}, got a tensor of shape {tuple(image.shape)}{_advice(tuple(image.shape))}")
    else:
        raise TypeError(f"{EXPECTED}, got {_named(image)}")
    return _checked(tensor)


def as_images(images: Any) -> list[Any] | None:
    """The images of a list, a tuple or a batch, (B, 3, H, W) or an array (B, H, W, 3); None for a single image."""
    if isinstance(images, list | tuple):
        return list(images)
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return list(images)
    return None


def _from_file(path: str | Path, channels: Channels | None) -> Tensor:
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"expected an image file, got the folder {path}; polarmask.predict takes folders")
    if not path.is_file():
        raise FileNotFoundError(f"expected an image file, got {path}, where there is none")
    return read_image(path, channels)


def _pixels_of(image: Image.Image) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode in PLAIN_MODES:
        return np.asarray(image)
    if image.mode == "I":  # 32 bits; most often it holds 16
        raise TypeError(f"{EXPECTED}, got a PIL image of mode I; convert it to I;16, or pass an array")
    return np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))


def _from_array(array: np.ndarray) -> Tensor:
    pixels = array if array.ndim != 2 else array[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"{EXPECTED}, got an array of shape {array.shape}{_advice(array.shape, is_array=True)}")
    if array.dtype.kind not in "fu" or (array.dtype.kind == "u" and array.dtype.itemsize > 2):
        raise TypeError(f"{EXPECTED}, got an array of {array.dtype}")
    if array.dtype.kind == "f":
        pixels = pixels.astype(np.float32)  # also long double, which torch has not
    native = pixels.astype(pixels.dtype.newbyteorder("="))  # torch takes neither foreign bytes nor negative strides
    return torch.from_numpy(native).permute(2, 0, 1)


def _checked(image: Tensor) -> Tensor:
    """(1 or 3, H, W) of any dtype as (3, H, W) float32."""
    if image.layout != torch.strided or image.is_meta:
        raise TypeError(f"{EXPECTED}, got a tensor of layout {image.layout} on {image.device}")
    if image.numel() == 0:
        raise ValueError(f"expected an image of at least one pixel, got shape {tuple(image.shape)}")
    if image.dtype in (torch.uint8, torch.uint16):
        image = image.float() / torch.iinfo(image.dtype).max
    elif image.is_floating_point():
        image = image.detach().float()
        if not image.isfinite().all():
            raise ValueError("expected finite values, got NaN or infinity")
    else:
        raise TypeError(f"{EXPECTED}, got a tensor of {image.dtype}")
    return image.expand(3, -1, -1)


def _advice(shape: tuple[int, ...], is_array: bool = False) -> str:
    """What to do with a shape whose channels are somewhere else."""
    if len(shape) == 3 and is_array and shape[0] in (1, 3):
        return "; put the channels last: array.transpose(1, 2, 0)"
    if len(shape) == 3 and not is_array and shape[2] in (1, 3):
        return "; put the channels first: tensor.permute(2, 0, 1)"
    if len(shape) == 3 and min(shape[0], shape[2]) <= 16:
        return "; choose three channels"
    return ""


def _named(value: Any) -> str:
    text = repr(value)
    kind = type(value).__name__
    return kind if len(text) > 40 else f"{kind} {text}"
