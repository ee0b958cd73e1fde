"""What the readers of image files share: their errors and limits, upright pixels, and the choice of channels."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)  # where Pillow refuses: a small file may unpack to any size
UPSIDE_DOWN, MIRRORED = {3, 4, 7, 8}, {2, 3, 6, 7}  # EXIF orientations, after exchanging the axes from 5 on

Channels: TypeAlias = Sequence[int | str]
T = TypeVar("T")


class DataError(ValueError):
    """A file that is not what a data set should hold; its name is in the message."""


class PixelsError(DataError):
    """An image whose header is in order and whose pixels cannot be read, which no look at headers finds."""


@dataclass
class Pixels:
    """What an image file holds.

    Attributes
    ----------
    values : array, shape (H, W) or (H, W, C)
        Upright, in the file's type.
    names : list of str
        What the file calls its channels; empty where it has no names.
    remarks : list of (str, str)
        What was left out or taken for granted: a kind, and a sentence.
    """

    values: np.ndarray
    names: list[str] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)


def guarded(path: Path, read: Callable[[Path], T]) -> T:
    """``read(path)``; whatever it raises comes out as a DataError with the name of the file.

    Readers raise exceptions of any type for broken or hostile files.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: expected an image file, found {'no file' if path.exists() else 'nothing'}")
        if not path.stat().st_size:
            raise DataError(f"{path}: expected an image file, got an empty one (0 bytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images, whose size is checked here
            return read(path)
    except DataError:
        raise
    except (Exception, MemoryError) as error:
        raise DataError(f"{path}: cannot be read as an image: {type(error).__name__}: {error!s:.200}") from error


def check_numbers(path: Path, dtype: np.dtype) -> None:
    """Raises DataError unless the pixels are numbers."""
    if dtype.kind not in "buif":
        raise DataError(f"{path}: expected pixels that are numbers, got {dtype}")


def check_pixels(path: Path, *shape: int, limit: int = MAX_PIXELS) -> None:
    """Raises DataError unless the number of pixels is from 1 to ``limit``."""
    if not 0 < np.prod([float(side) for side in shape]) <= limit:
        raise DataError(f"{path}: expected from 1 to {limit} pixels, got {' × '.join(map(str, shape))}")


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, C) as the EXIF orientation says that it is to be shown."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if orientation in UPSIDE_DOWN else 1, :: -1 if orientation in MIRRORED else 1]


def chosen_channels(path: Path, channels: Channels | None, count: int, names: Sequence[str] = ()) -> list[int]:
    """Which of ``count`` channels become red, green and blue.

    Raises
    ------
    DataError
        If the file has no such channels, or more than three and nothing says which.
    """
    if channels is None:
        if count > 3:
            named = f" ({', '.join(names):.200})" if names else ""
            raise DataError(
                f"{path}: expected at most 3 channels, got {count}{named}; data.channels (of predict: --channels) "
                "says which become red, green and blue, such as [0,1,2]"
            )
        return list(range(count))
    numbers: list[int] = []
    for channel in channels:
        if isinstance(channel, str):
            if list(names).count(channel) != 1:
                there = f"channels {', '.join(names):.200}" if names else "a file without names of channels"
                raise DataError(f"{path}: expected one channel called {channel!r:.80}, got {there}")
            numbers.append(list(names).index(channel))
        else:
            numbers.append(channel)
    if not 1 <= len(numbers) <= 3 or not all(0 <= number < count for number in numbers):
        raise DataError(f"{path}: expected up to 3 channels from 0 to {count - 1}, got {list(channels)}")
    return numbers


def as_image(path: Path, pixels: np.ndarray, chosen: Sequence[int]) -> Tensor:
    """Channels of pixels (H, W) or (H, W, C) as (3, H, W) float32, integers from 0 to 1 by the range of their type."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    scale = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    image = torch.from_numpy(pixels[..., list(chosen)].astype(np.float32)).permute(2, 0, 1) / scale
    if not torch.isfinite(image).all():
        raise DataError(f"{path}: expected finite values, got NaN or infinity")
    if len(chosen) == 1:
        return image.expand(3, -1, -1)
    if len(chosen) == 2:
        image = torch.cat([image, torch.zeros_like(image[:1])])
    return image.contiguous()
