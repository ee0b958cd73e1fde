"""Image files, label images among them, from whoever wrote them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
TIFF = {".tif", ".tiff"}
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)  # where Pillow refuses: a small file may unpack to any size
MAX_LARGE_PIXELS = 2**31 - 1  # which label images are counted with
MAX_CHANNELS = 16  # an axis without a name that is longer than this is not taken for channels


class DataError(ValueError):
    """A file that is not what a data set should hold; its name is in the message."""


def read_image(path: Path, channels: Sequence[int] | None = None) -> Tensor:
    """An image file as (3, H, W), float32, integers from 0 to 1 by the range of their type.

    Parameters
    ----------
    path : Path
        8-, 16- or 32-bit integers or floats; grey, colour, or, in TIFF, any number of channels.
    channels : sequence of 1 to 3 int, optional
        What becomes red, green and blue, counted from 0: one is repeated, with two blue is 0. By default the first
        three, or what there is.

    Raises
    ------
    DataError
        If the file is missing, broken, too large, no single image, without such channels, or its values are not finite.
    """
    return _as_image(path, _read(path, labels=False), channels)


class LargeTiff:
    """A TIFF of any size, of which a part at a time becomes an image.

    Where it is not compressed it stays on disk; else it is held in memory, in its own type.

    Parameters
    ----------
    path : Path
    channels : sequence of 1 to 3 int, optional
        See :func:`read_image`, which also says what is raised.

    Attributes
    ----------
    size : (int, int)
        Height and width.
    """

    def __init__(self, path: Path, channels: Sequence[int] | None = None) -> None:
        self.path, self.channels = path, channels
        self.pixels: np.ndarray = _guarded(path, _large)
        self.size: tuple[int, int] = self.pixels.shape[:2]

    def __getitem__(self, window: tuple[slice, slice]) -> Tensor:
        """Rows and columns, (3, h, w) float32."""
        return _as_image(self.path, np.ascontiguousarray(self.pixels[window]), self.channels)


def read_labels(path: Path) -> np.ndarray:
    """A label image as int64 (H, W): 0 is background, every other value an instance.

    Raises
    ------
    DataError
        If the file is missing, broken, too large, no single plane, or holds other values than integers from 0.
    """
    pixels = _read(path, labels=True)
    if pixels.ndim != 2:
        raise DataError(f"{path}: expected a label image of shape (H, W), got {pixels.shape}")
    with np.errstate(invalid="ignore"):
        labels = pixels.astype(np.int64)
    if (labels != pixels).any() or labels.min(initial=0) < 0:
        raise DataError(f"{path}: expected labels that are integers from 0, got {pixels.dtype} with other values")
    return labels


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, of which only the header is read."""

    def shape(path: Path) -> tuple[int, int]:
        if path.suffix.lower() in TIFF:
            with tifffile.TiffFile(path) as file:
                shape, axes = _plane(path, file)
                return shape[axes.index("Y")], shape[axes.index("X")]
        with Image.open(path) as image:
            return image.height, image.width

    return _guarded(path, shape)


def inside(folder: Path, name: Any) -> Path:
    """The path of a file that an annotation names, which must not lead out of the folder.

    Links are followed: who made them owns the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{folder}: expected the name of a file, got {name!r:.80}")
    parts = Path(name.replace("\\", "/")).parts
    if Path(name).is_absolute() or ".." in parts or ":" in parts[0]:
        raise DataError(f"{folder}: expected the name of a file in this folder, got {name!r:.200}")
    return folder.joinpath(*parts)


def _as_image(path: Path, pixels: np.ndarray, channels: Sequence[int] | None) -> Tensor:
    """Pixels (H, W) or (H, W, C) as (3, H, W)."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    count = pixels.shape[2]
    chosen = list(channels) if channels is not None else list(range(1 if count < 2 else min(count, 3)))
    if not 1 <= len(chosen) <= 3 or not all(0 <= channel < count for channel in chosen):
        raise DataError(f"{path}: expected up to 3 channels from 0 to {count - 1}, got {chosen}")
    scale = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    image = torch.from_numpy(pixels[..., chosen].astype(np.float32)).permute(2, 0, 1) / scale
    if not torch.isfinite(image).all():
        raise DataError(f"{path}: expected finite values, got NaN or infinity")
    if len(chosen) == 1:
        return image.expand(3, -1, -1)
    if len(chosen) == 2:
        image = torch.cat([image, torch.zeros_like(image[:1])])
    return image.contiguous()


def _large(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        shape, axes = _plane(path, file, MAX_LARGE_PIXELS)
        series = file.series[0]
        on_disk = series.dataoffset is not None
        values = tifffile.memmap(path, mode="r") if on_disk else series.asarray()
    order = [axes.index("Y"), axes.index("X"), *(k for k, axis in enumerate(axes) if axis not in "YX")]
    return values.reshape(shape).transpose(order)


def _read(path: Path, labels: bool) -> np.ndarray:
    """Pixels (H, W) or (H, W, C)."""

    def pixels(path: Path) -> np.ndarray:
        if path.suffix.lower() in TIFF:
            with tifffile.TiffFile(path) as file:
                shape, axes = _plane(path, file)
                try:
                    values = file.series[0].asarray().reshape(shape)
                except ValueError as error:
                    if "imagecodecs" not in str(error):
                        raise
                    return _pillow(path, labels)  # knows LZW and JPEG by itself
            order = [axes.index("Y"), axes.index("X"), *(k for k, axis in enumerate(axes) if axis not in "YX")]
            return values.transpose(order)
        return _pillow(path, labels)

    values = _guarded(path, pixels)
    if values.dtype.kind not in "buif":
        raise DataError(f"{path}: expected pixels that are numbers, got {values.dtype}")
    return values.astype(np.float32) if values.dtype == np.bool_ and not labels else values


def _guarded(path: Path, read: Any) -> Any:
    """Readers of hostile files raise anything: it comes out as a DataError with the name of the file."""
    if not path.is_file():
        raise DataError(f"{path}: expected an image file, found {'no file' if path.exists() else 'nothing'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow on large images, which are looked at below
            return read(path)
    except DataError:
        raise
    except (Exception, MemoryError) as error:
        raise DataError(f"{path}: cannot be read as an image: {type(error).__name__}: {error!s:.200}") from error


def _pillow(path: Path, labels: bool) -> np.ndarray:
    with Image.open(path) as image:
        _check_pixels(path, image.height, image.width)
        plain = ("L", "I", "F", "I;16", "I;16B", "I;16L", *(("P",) if labels else ()))
        if image.mode in plain:
            return np.asarray(image)
        if labels and image.mode != "1":
            raise DataError(f"{path}: expected a label image of one channel, got mode {image.mode}")
        return np.asarray(image.convert("L" if image.mode == "1" else "RGB"))


def _plane(path: Path, file: tifffile.TiffFile, max_pixels: int = MAX_PIXELS) -> tuple[list[int], str]:
    """Shape and axes of the one image in a TIFF: Y, X, and perhaps channels, in any order."""
    series = file.series[0]
    named = [(side, axis) for side, axis in zip(series.shape, series.axes, strict=True) if side != 1 or axis in "YX"]
    shape, axes = [side for side, _ in named], "".join(axis for _, axis in named)
    if len(file.series) > 1 or axes.count("Y") != 1 or axes.count("X") != 1 or len(axes) > 3:
        raise DataError(f"{path}: expected one image, got {len(file.series)} of axes {series.axes}, {series.shape}")
    (other,) = set(axes) - set("YX") or {"C"}
    if other not in "CS" and (other in "ZT" or shape[axes.index(other)] > MAX_CHANNELS):
        raise DataError(f"{path}: expected one image, got a stack of shape {series.shape}, axes {series.axes}")
    _check_pixels(path, *shape, limit=max_pixels)
    return shape, axes


def _check_pixels(path: Path, *shape: int, limit: int = MAX_PIXELS) -> None:
    if not 0 < np.prod([float(side) for side in shape]) <= limit:
        raise DataError(f"{path}: expected from 1 to {limit} pixels, got {' × '.join(map(str, shape))}")
