"""Readers of image files and label images."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from torch import Tensor

from .pixels import Channels, DataError, Pixels, as_image, check_numbers, check_pixels, chosen_channels, guarded
from .tiff import (
    LOSSY,
    TRANSPARENT,
    is_tiff,
    read_tiff,
    tiff_channels,
    tiff_dtype,
    tiff_orientation,
    tiff_size,
)

TIFF = {".tif", ".tiff", ".lsm"}
SUFFIXES = {  # in lower case
    *(
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".bmp",
        ".dib",
        ".webp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ),
    *(".jp2", ".j2k", ".jpf", ".jpx"),
    *TIFF,
}
UPRIGHT = {  # what undoes an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SINGLE = ("L", "I", "F", "I;16", "I;16B", "I;16L")  # Pillow's modes of one channel of numbers
DARK = 1 / 16  # of the range of a type: what 12 bits reach in 16


def read_image(path: Path, channels: Channels | None = None) -> Tensor:
    """An image file as (3, H, W), float32, integers from 0 to 1 by the range of their type.

    It is turned upright by its EXIF or TIFF orientation. The format is recognised by the content, not by the suffix.

    Parameters
    ----------
    path : Path
        8-, 16- or 32-bit integers or floats; grey, colour, or, in TIFF, any number of channels. Transparency is left
        out.
    channels : sequence of 1 to 3 int or str, optional
        What becomes red, green and blue, counted from 0 or by the names that the file has: one is repeated, with two
        blue is 0. By default all that there are, up to three. The planes of a TIFF stack are channels if this is given.

    Raises
    ------
    DataError
        If the file is missing, empty, broken, too large, no single image, without such channels, of more than three
        channels where ``channels`` is not given, or its values are not finite.
    """
    return _image(path, _read(path, stack=channels is not None), channels)


def image_remarks(path: Path, channels: Channels | None = None, stretched: bool = False) -> list[tuple[str, str]]:
    """What :func:`read_image` leaves out of a file or takes for granted: kinds and sentences, none for most files.

    Parameters
    ----------
    path : Path
    channels : sequence of 1 to 3 int or str, optional
    stretched : bool
        Whether ``data.percentiles`` is set, so that the range of the values does not matter.
    """
    pixels = _read(path, stack=channels is not None)
    remarks = list(pixels.remarks)
    low, high = (float(value) for value in _image(path, pixels, channels).aminmax())
    if not stretched and (low < -1e-3 or high > 1 + 1e-3):
        remarks.append(("value range", f"expected values from 0 to 1, got {low:.3g} to {high:.3g}; {STRETCH}"))
    elif not stretched and 0 < high <= DARK:
        remarks.append(("value range", f"its values reach {high:.2g} of the range of their type; {STRETCH}"))
    return [(kind, f"{path}: {sentence}") for kind, sentence in remarks]


STRETCH = "data.percentiles, such as [1,99.8], stretches them"


def read_labels(path: Path) -> np.ndarray:
    """A label image as int64 (H, W): 0 is background, every other value an instance, or below 0 an ignored region.

    Raises
    ------
    DataError
        If the file is missing, empty, broken, too large, no single plane, stored as JPEG, or holds other values than
        integers.
    """
    values = _read_array(path) if path.suffix.lower() == ".npy" else _read(path, labels=True).values
    if values.ndim != 2:
        raise DataError(f"{path}: expected a label image of shape (H, W), {ONE_CHANNEL}, got shape {values.shape}")
    with np.errstate(invalid="ignore"):
        labels = values.astype(np.int64)
    if (labels != values).any():
        raise DataError(f"{path}: expected labels that are integers, got {values.dtype} with other values")
    return labels


ONE_CHANNEL = "where the pixels of an object have a number of its own"


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, upright as :func:`read_image` gives it; only the header is read."""

    def size(path: Path) -> tuple[int, int]:
        if is_tiff(path):
            return tiff_size(path)
        with Image.open(path) as image:
            check_pixels(path, image.height, image.width)
            return (image.width, image.height) if _orientation(image) >= 5 else (image.height, image.width)

    return guarded(path, size)


def check_channels(path: Path, channels: Channels | None = None) -> None:
    """Raises the DataError that :func:`read_image` would raise for the channels of a file; only the header is read."""

    def count(path: Path) -> tuple[int, list[str]]:
        if is_tiff(path):
            return tiff_channels(path, channels is not None)
        with Image.open(path) as image:
            return 1 if image.mode in (*SINGLE, "1") else 3, []

    chosen_channels(path, channels, *guarded(path, count))


def is_float(path: Path) -> bool:
    """Whether the pixels of an image file are floats; only the header is read."""
    return guarded(path, lambda path: is_tiff(path) and tiff_dtype(path).kind == "f")


def is_turned(path: Path) -> bool:
    """Whether the orientation of an image file exchanges its height and width."""

    def turned(path: Path) -> bool:
        if is_tiff(path):
            return tiff_orientation(path) >= 5
        with Image.open(path) as image:
            return _orientation(image) >= 5

    return guarded(path, turned)


def inside(folder: Path, name: Any) -> Path:
    """The path of a file that an annotation names, which must not lead out of the folder.

    Links are followed, since whoever made them can write into the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{folder}: expected the name of a file, got {name!r:.80}")
    parts = Path(name.replace("\\", "/")).parts
    if Path(name).is_absolute() or ".." in parts or not parts or ":" in parts[0]:
        raise DataError(f"{folder}: expected the name of a file in this folder, got {name!r:.200}")
    return folder.joinpath(*parts)


def _image(path: Path, pixels: Pixels, channels: Channels | None) -> Tensor:
    values = pixels.values.astype(np.float32) if pixels.values.dtype == np.bool_ else pixels.values
    count = values.shape[2] if values.ndim == 3 else 1
    return as_image(path, values, chosen_channels(path, channels, count, pixels.names))


def _read(path: Path, *, labels: bool = False, stack: bool = False) -> Pixels:
    def pixels(path: Path) -> Pixels:
        return read_tiff(path, labels=labels, stack=stack) if is_tiff(path) else _pillow(path, labels)

    found = guarded(path, pixels)
    check_numbers(path, found.values.dtype)
    return found


def _pillow(path: Path, labels: bool) -> Pixels:
    with Image.open(path) as file:
        check_pixels(path, file.height, file.width)
        frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)  # MPO: a photo and its previews
        if frames > 1:
            raise DataError(f"{path}: expected one image, got {frames} frames")
        if labels and file.format in ("JPEG", "MPO"):
            raise DataError(f"{path}: {LOSSY}")
        remarks = []
        if file.format == "PNG" and file.mode in ("RGB", "RGBA", "LA") and ";16" in str(file.tile):
            remarks.append(("reduced depth", "16 bits of colour are read as 8; save it as TIFF to keep them"))
        turn = UPRIGHT.get(_orientation(file))
        image = file if turn is None else file.transpose(turn)
        if image.mode == "1":
            return Pixels(np.asarray(image.convert("L")), remarks=remarks)
        if image.mode in (*SINGLE, *(("P",) if labels else ())):
            values = np.asarray(image)
            return Pixels(values.astype(np.uint16) if file.format == "PPM" and values.dtype == np.int32 else values)
        if labels:
            raise DataError(f"{path}: expected a label image of one channel, {ONE_CHANNEL}, got mode {image.mode}")
        if "A" in image.getbands():
            low, high = image.getchannel("A").getextrema()
            remarks += [TRANSPARENT] if low != high else []
        return Pixels(np.asarray(image.convert("RGB")), remarks=remarks)


def _read_array(path: Path) -> np.ndarray:
    """An array that NumPy saved; nothing is unpickled."""

    def read(path: Path) -> np.ndarray:
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "Python objects" not in str(error):
                raise
            expected = "expected an array of numbers, got Python objects, which are not unpickled"
            raise DataError(f"{path}: {expected}; save the labels as TIFF") from error
        check_pixels(path, *values.shape)
        check_numbers(path, values.dtype)
        return np.asarray(values)

    return guarded(path, read)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, from 1; only the header is read."""
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF is no reason not to see the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
