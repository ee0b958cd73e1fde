"""Image files, label images among them, from whoever wrote them."""

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tifffile
import torch
from PIL import ExifTags, Image
from torch import Tensor

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
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**27)  # where Pillow refuses: a small file may unpack to any size
MAX_LARGE_PIXELS = 2**31 - 1  # which label images are counted with
CACHE = 2**28  # bytes of decoded strips or tiles: those that a row of windows of a large image meets
LARGEST_PIECE = 2**30  # bytes; twice as many are needed while it is decoded
UPRIGHT = {  # what undoes an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UPSIDE_DOWN, MIRRORED = {3, 4, 7, 8}, {2, 3, 6, 7}  # orientations, after exchanging the axes from 5 on
MAX_CHANNELS = 16  # an axis without a name that is longer than this is not taken for channels


class DataError(ValueError):
    """A file that is not what a data set should hold; its name is in the message."""


def read_image(path: Path, channels: Sequence[int] | None = None) -> Tensor:
    """An image file as (3, H, W), float32, integers from 0 to 1 by the range of their type.

    It is turned upright as its EXIF orientation says, or TIFF's.

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
    """A TIFF of any size, of which a part at a time is read and becomes an image.

    Where its pixels lie in the file as they do in memory they are mapped while a part is copied. Else the strips or
    tiles that a part meets are decoded, and the latest of them kept: ``CACHE`` bytes, or one of each plane where that
    is more. What only Pillow can decode is read as a whole.

    Parameters
    ----------
    path : Path
    channels : sequence of 1 to 3 int, optional
        See :func:`read_image`, which also says what is raised. DataError too where strips or tiles are larger than
        ``LARGEST_PIECE``, such as a large image compressed as a single strip.

    Attributes
    ----------
    size : (int, int)
        Height and width.
    """

    def __init__(self, path: Path, channels: Sequence[int] | None = None) -> None:
        self.path, self.channels = path, channels
        self.size: tuple[int, int]
        self.size, self._read = _guarded(path, _in_parts)

    def __getitem__(self, window: tuple[slice, slice]) -> Tensor:
        """Rows and columns, (3, h, w) float32."""
        pixels = _guarded(self.path, lambda _: np.ascontiguousarray(self._read(window)))
        return _as_image(self.path, pixels, self.channels)


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
    """Height and width of an image file, upright as :func:`read_image` gives it; only the header is read."""

    def shape(path: Path) -> tuple[int, int]:
        if path.suffix.lower() in TIFF:
            with tifffile.TiffFile(path) as file:
                shape, axes = _plane(path, file)
                size = shape[axes.index("Y")], shape[axes.index("X")]
                return size[::-1] if _tiff_orientation(file) >= 5 else size
        with Image.open(path) as image:
            return (image.width, image.height) if _orientation(image) >= 5 else (image.height, image.width)

    return _guarded(path, shape)


def is_turned(path: Path) -> bool:
    """Whether the orientation of an image file exchanges its height and width."""

    def turned(path: Path) -> bool:
        if path.suffix.lower() in TIFF:
            with tifffile.TiffFile(path) as file:
                return _tiff_orientation(file) >= 5
        with Image.open(path) as image:
            return _orientation(image) >= 5

    return _guarded(path, turned)


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


Window: TypeAlias = tuple[slice, slice]  # rows and columns


def _in_parts(path: Path) -> tuple[tuple[int, int], Callable[[Window], np.ndarray]]:
    """Height and width of a TIFF, and what reads a window of it, (h, w) or (h, w, C)."""
    with tifffile.TiffFile(path) as file:
        shape, axes = _plane(path, file, MAX_LARGE_PIXELS)
        size = (shape[axes.index("Y")], shape[axes.index("X")])
        orientation = _tiff_orientation(file)
        shown = size[::-1] if orientation >= 5 else size
        series = file.series[0]
        _check_numbers(path, series.dtype)
        if series.dataoffset is None:
            try:
                return shown, _turned(_Pieces(path, series, size), shown, orientation)
            except ValueError as error:
                if "imagecodecs" not in str(error) or size[0] * size[1] > MAX_PIXELS:
                    raise
                return shown, _pillow(path, labels=False).__getitem__
        kind = np.dtype(series.dtype).newbyteorder(file.byteorder)

        def mapped(window: Window) -> np.ndarray:
            # Mapped anew for each window: what has been read leaves the process's memory with the map.
            pixels = np.memmap(path, kind, "r", series.dataoffset, tuple(shape))
            return _channels_last(pixels, axes)[window]

        mapped((slice(0), slice(0)))  # raises where the file is too short
        return shown, _turned(mapped, shown, orientation)


def _turned(
    read: Callable[[Window], np.ndarray], shown: tuple[int, int], orientation: int
) -> Callable[[Window], np.ndarray]:
    """Reads windows of the upright image, of height and width ``shown``, from what reads them as it is stored."""

    def mirrored(part: slice, length: int) -> slice:
        where = range(length)[part]
        return slice(length - 1 - where[-1], length - where[0], part.step) if where else slice(0)

    def window(window: Window) -> np.ndarray:
        rows, columns = window
        if orientation in UPSIDE_DOWN:
            rows = mirrored(rows, shown[0])
        if orientation in MIRRORED:
            columns = mirrored(columns, shown[1])
        return _upright(read((columns, rows) if orientation >= 5 else (rows, columns)), orientation)

    return window


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, C) as it is to be shown."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if orientation in UPSIDE_DOWN else 1, :: -1 if orientation in MIRRORED else 1]


class _Pieces:
    """Windows of a TIFF in strips or tiles."""

    def __init__(self, path: Path, series: tifffile.TiffPageSeries, size: tuple[int, int]) -> None:
        self.path, self.size = path, size
        first = series.keyframe
        self.decode, self.tables = first.decode, first.jpegtables
        self.planes = first.samplesperpixel if first.planarconfig == 2 else 1  # of a page, each in pieces of its own
        self.samples = first.samplesperpixel // self.planes
        self.piece = (first.tilelength, first.tilewidth) if first.is_tiled else (first.rowsperstrip, first.imagewidth)
        self.piece = (min(self.piece[0], size[0]), self.piece[1])
        self.pages = [(page.dataoffsets, page.databytecounts) for page in series.pages if page is not None]
        self.dtype = series.dtype
        pieces = self.planes * int(np.prod([-(-side // step) for side, step in zip(size, self.piece, strict=True)]))
        channels = len(self.pages) * first.samplesperpixel
        if channels != series.size // (size[0] * size[1]) or any(len(each[0]) != pieces for each in self.pages):
            raise DataError(f"{path}: expected pages of {pieces} strips or tiles each, for {series.size} values in all")
        end = max(max(map(sum, zip(offsets, counts, strict=True))) for offsets, counts in self.pages)
        if end > path.stat().st_size:
            raise DataError(f"{path}: expected a file of at least {end} bytes, got {path.stat().st_size}")
        one = int(np.prod([float(side) for side in self.piece])) * self.samples * self.dtype.itemsize
        of_all_planes = one * self.planes * len(self.pages)
        if of_all_planes > LARGEST_PIECE:
            raise DataError(
                f"{path}: expected strips or tiles of at most {LARGEST_PIECE} bytes, of all planes together, got "
                f"{of_all_planes}: such a file cannot be read in parts; write it again, uncompressed or in tiles"
            )
        self.decoded = lru_cache(max(CACHE, of_all_planes) // max(one, 1))(self._decoded)
        self.decoded(0, 0)  # raises where the codec is missing

    def __call__(self, window: Window) -> np.ndarray:
        rows, columns = (np.arange(side)[part] for side, part in zip(self.size, window, strict=True))
        layers = len(self.pages) * self.planes
        result = np.zeros((layers, len(rows), len(columns), self.samples), self.dtype)
        height, width = self.piece
        down, across = (-(-side // step) for side, step in zip(self.size, self.piece, strict=True))
        for i in np.unique(rows // height).tolist():
            to_rows = rows // height == i
            for j in np.unique(columns // width).tolist():
                to_columns = columns // width == j
                there = np.ix_(rows[to_rows] - i * height, columns[to_columns] - j * width)
                for layer in range(layers):
                    page, plane = divmod(layer, self.planes)
                    pixels = self.decoded(page, (plane * down + i) * across + j)
                    if pixels is not None:  # what is missing is 0
                        result[layer][np.ix_(to_rows, to_columns)] = pixels[there]
        return result[0] if layers == 1 else result[..., 0].transpose(1, 2, 0)

    def _decoded(self, page: int, index: int) -> np.ndarray | None:
        """A strip or tile, (h, w, samples)."""
        offset, count = (of[index] for of in self.pages[page])
        if not count:
            return None
        with self.path.open("rb") as file:
            file.seek(offset)
            pixels = self.decode(file.read(count), index, jpegtables=self.tables)[0]
        return None if pixels is None else pixels[0]


def _channels_last(pixels: np.ndarray, axes: str) -> np.ndarray:
    """As (H, W) or (H, W, C)."""
    return pixels.transpose([axes.index("Y"), axes.index("X"), *(k for k, axis in enumerate(axes) if axis not in "YX")])


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
                orientation = _tiff_orientation(file)
            return _upright(_channels_last(values, axes), orientation)
        return _pillow(path, labels)

    values = _guarded(path, pixels)
    _check_numbers(path, values.dtype)
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
    with Image.open(path) as file:
        _check_pixels(path, file.height, file.width)
        turn = UPRIGHT.get(_orientation(file))
        image = file if turn is None else file.transpose(turn)
        plain = ("L", "I", "F", "I;16", "I;16B", "I;16L", *(("P",) if labels else ()))
        if image.mode in plain:
            return np.asarray(image)
        if labels and image.mode != "1":
            raise DataError(f"{path}: expected a label image of one channel, got mode {image.mode}")
        return np.asarray(image.convert("L" if image.mode == "1" else "RGB"))


def _orientation(image: Image.Image) -> int:
    """By EXIF, from 1; what stands in the header only: no pixel is read."""
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF is no reason not to see the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _tiff_orientation(file: tifffile.TiffFile) -> int:
    value = file.series[0].keyframe.tags.valueof("Orientation")
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


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


def _check_numbers(path: Path, dtype: np.dtype) -> None:
    if dtype.kind not in "buif":
        raise DataError(f"{path}: expected pixels that are numbers, got {dtype}")


def _check_pixels(path: Path, *shape: int, limit: int = MAX_PIXELS) -> None:
    if not 0 < np.prod([float(side) for side in shape]) <= limit:
        raise DataError(f"{path}: expected from 1 to {limit} pixels, got {' × '.join(map(str, shape))}")
