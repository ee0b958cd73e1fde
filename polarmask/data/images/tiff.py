"""TIFFs of microscopes: channels in any order and with names, and files of any size of which parts are read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree

import numpy as np
import tifffile
from PIL import ExifTags, Image
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC
from torch import Tensor

from .pixels import (
    MAX_PIXELS,
    MIRRORED,
    UPSIDE_DOWN,
    Channels,
    DataError,
    Pixels,
    as_image,
    check_numbers,
    check_pixels,
    chosen_channels,
    guarded,
    upright,
)

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF in both byte orders
MAX_LARGE_PIXELS = 2**31 - 1  # which label images are counted with
CACHE = 2**28  # bytes of decoded strips or tiles: those that a row of windows of a large image meets
LARGEST_PIECE = 2**30  # bytes; twice as many are needed while it is decoded
CONVERTED = (PHOTOMETRIC.PALETTE, PHOTOMETRIC.SEPARATED, PHOTOMETRIC.YCBCR, PHOTOMETRIC.CIELAB)  # to RGB, by Pillow
ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG)

Window: TypeAlias = tuple[slice, slice]  # rows and columns


def is_tiff(path: Path) -> bool:
    """Returns true if a file begins with the bytes of a TIFF, whatever its suffix."""
    with path.open("rb") as file:
        return file.read(4) in MAGIC


def read_tiff(path: Path, *, labels: bool = False, stack: bool = False) -> Pixels:
    """The one image of a TIFF.

    Parameters
    ----------
    path : Path
    labels : bool
        Whether it is a label image, whose values are kept as they are stored.
    stack : bool
        Whether the planes of a stack may be taken as channels.

    Raises
    ------
    DataError
        If there is no such image, or a codec is missing. Broken files raise anything: see :func:`guarded`.
    """
    with tifffile.TiffFile(path) as file:
        layout = Layout.of(path, file, MAX_PIXELS, stack or labels)
        if labels and layout.page.compression in JPEG:
            raise DataError(f"{path}: {LOSSY}")
        if not labels and layout.page.photometric in CONVERTED:
            return Pixels(_by_pillow(path, layout))
        try:
            values = layout.series.asarray().reshape(layout.shape)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            values = _by_pillow(path, layout)
        else:
            values = upright(layout.channels_last(values), layout.orientation)
            if layout.inverted and not labels:  # tifffile writes masks of bool as they are, and says that 0 is white
                values = _inverted(values)
        remarks = []
        if stack and layout.other not in "CS":
            planes = f"the {layout.count} planes of a stack of axes {layout.series.axes} are taken as channels"
            remarks.append(("stack of planes", planes))
        if layout.alpha and values.ndim == 3:
            if not labels and np.ptp(values[..., -1]):
                remarks.append(TRANSPARENT)
            values = values[..., :-1]
        return Pixels(values, layout.names(file), remarks)


LOSSY = "expected labels in a format that keeps them as they are, such as PNG or TIFF, got JPEG, which changes values"
TRANSPARENT = ("transparency", "the transparency of its pixels is left out")


def tiff_size(path: Path) -> tuple[int, int]:
    """Height and width, upright."""
    with tifffile.TiffFile(path) as file:
        layout = Layout.of(path, file, MAX_PIXELS, stack=True)
        return layout.size[::-1] if layout.orientation >= 5 else layout.size


def tiff_channels(path: Path, stack: bool) -> tuple[int, list[str]]:
    """The number of channels and their names, if there are any; raises DataError as :func:`read_tiff` does."""
    with tifffile.TiffFile(path) as file:
        layout = Layout.of(path, file, MAX_LARGE_PIXELS, stack)
        return 3 if layout.page.photometric in CONVERTED else layout.count, layout.names(file)


def tiff_dtype(path: Path) -> np.dtype:
    """The type of the pixels."""
    with tifffile.TiffFile(path) as file:
        return np.dtype(file.series[0].dtype)


def tiff_orientation(path: Path) -> int:
    """As EXIF counts, from 1."""
    with tifffile.TiffFile(path) as file:
        return _orientation(file)


@dataclass
class Layout:
    """How the one image of a TIFF lies in its file.

    Attributes
    ----------
    series : tifffile.TiffPageSeries
    shape : list of int
        Without axes of length 1.
    axes : str
        Of ``shape``: Y, X, and perhaps one other, in any order.
    other : str
        The axis that is not Y or X; C where there is none.
    orientation : int
    alpha : bool
        Whether the last channel is transparency.
    """

    series: tifffile.TiffPageSeries
    shape: list[int]
    axes: str
    other: str
    orientation: int
    alpha: bool

    @staticmethod
    def of(path: Path, file: tifffile.TiffFile, max_pixels: int, stack: bool) -> "Layout":
        """Raises DataError unless there is one image, or a stack of planes where that is allowed."""
        series = file.series[0]
        named = [
            (side, axis) for side, axis in zip(series.shape, series.axes, strict=True) if side != 1 or axis in "YX"
        ]
        shape, axes = [side for side, _ in named], "".join(axis for _, axis in named)
        others = [each for each in file.series[1:] if not each.keyframe.is_reduced]  # other than thumbnails
        if others or axes.count("Y") != 1 or axes.count("X") != 1 or len(axes) > 3:
            raise DataError(f"{path}: expected one image, got {1 + len(others)} of axes {series.axes}, {series.shape}")
        (other,) = set(axes) - set("YX") or {"C"}
        if other not in "CS" and not stack:
            raise DataError(
                f"{path}: expected one image, got a stack of shape {series.shape}, axes {series.axes}; if its planes "
                "are channels, data.channels (of predict: --channels) says which become red, green and blue, such as "
                "[0,1,2]"
            )
        check_pixels(path, *shape, limit=max_pixels)
        page = series.keyframe
        alpha = other == "S" and len(page.extrasamples) == 1 and page.extrasamples[0] in ALPHA and len(axes) == 3
        return Layout(series, shape, axes, other, _orientation(file), alpha)

    @property
    def page(self) -> tifffile.TiffPage:
        """The page whose tags hold for the whole image."""
        return self.series.keyframe

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as stored."""
        return self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]

    @property
    def count(self) -> int:
        """Channels, without transparency."""
        return (self.shape[self.axes.index(self.other)] if len(self.axes) == 3 else 1) - self.alpha

    @property
    def inverted(self) -> bool:
        """Whether the value 0 is shown white."""
        return self.page.photometric == PHOTOMETRIC.MINISWHITE

    def channels_last(self, pixels: np.ndarray) -> np.ndarray:
        """As (H, W) or (H, W, C)."""
        rest = (k for k, axis in enumerate(self.axes) if axis not in "YX")
        return pixels.transpose([self.axes.index("Y"), self.axes.index("X"), *rest])

    def names(self, file: tifffile.TiffFile) -> list[str]:
        """What OME's or ImageJ's metadata call the channels; empty where they do not name each."""
        found: list[str] = []
        if file.is_ome and file.ome_metadata:
            tree = ElementTree.fromstring(file.ome_metadata)
            found = [each.get("Name", "") for each in tree.iter() if each.tag.rpartition("}")[2] == "Channel"]
        elif file.is_imagej:
            found = list(map(str, (file.imagej_metadata or {}).get("Labels") or []))
        return found if len(found) == self.count and all(found) else []


class LargeTiff:
    """A TIFF of any size, of which a part at a time is read and becomes an image.

    Where its pixels lie in the file as they do in memory they are mapped while a part is copied. Else the strips or
    tiles that a part meets are decoded, and the latest of them kept: ``CACHE`` bytes, or one of each plane where that
    is more. What only Pillow can decode is read as a whole.

    Parameters
    ----------
    path : Path
    channels : sequence of 1 to 3 int or str, optional
        See :func:`polarmask.data.images.read_image`, which also says what is raised. DataError too where strips or
        tiles are larger than ``LARGEST_PIECE``, such as a large image compressed as a single strip.

    Attributes
    ----------
    size : (int, int)
        Height and width.
    """

    def __init__(self, path: Path, channels: Channels | None = None) -> None:
        self.path = path
        count, names = guarded(path, lambda path: tiff_channels(path, channels is not None))
        self.chosen = chosen_channels(path, channels, count, names)
        self.size: tuple[int, int]
        self.size, self._read = guarded(path, _in_parts)

    def __getitem__(self, window: Window) -> Tensor:
        """Rows and columns, (3, h, w) float32."""
        pixels = guarded(self.path, lambda _: np.ascontiguousarray(self._read(window)))
        return as_image(self.path, pixels, self.chosen)


def _in_parts(path: Path) -> tuple[tuple[int, int], Callable[[Window], np.ndarray]]:
    """Height and width of a TIFF, and what reads a window of it, (h, w) or (h, w, C)."""
    with tifffile.TiffFile(path) as file:
        layout = Layout.of(path, file, MAX_LARGE_PIXELS, stack=True)
        size, orientation, series = layout.size, layout.orientation, layout.series
        shown = size[::-1] if orientation >= 5 else size
        check_numbers(path, series.dtype)
        if layout.page.photometric in CONVERTED:
            return shown, _by_pillow(path, layout).__getitem__
        offset = series.dataoffset
        if offset is None:
            try:
                return shown, _turned(_Pieces(path, series, size), shown, orientation, layout.inverted)
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                return shown, _by_pillow(path, layout).__getitem__
        kind = np.dtype(series.dtype).newbyteorder(file.byteorder)

        def mapped(window: Window) -> np.ndarray:
            # Mapped anew for each window: what has been read leaves the process's memory with the map.
            pixels = np.memmap(path, kind, "r", offset, tuple(layout.shape))
            return layout.channels_last(pixels)[window]

        mapped((slice(0), slice(0)))  # raises where the file is too short
        return shown, _turned(mapped, shown, orientation, layout.inverted)


def _turned(
    read: Callable[[Window], np.ndarray], shown: tuple[int, int], orientation: int, inverted: bool
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
        pixels = upright(read((columns, rows) if orientation >= 5 else (rows, columns)), orientation)
        return _inverted(pixels) if inverted else pixels

    return window


def _inverted(pixels: np.ndarray) -> np.ndarray:
    """Black and white exchanged."""
    if pixels.dtype == np.bool_:
        return ~pixels
    return (np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1) - pixels


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
                    if pixels is not None:  # pieces that the file leaves out are 0
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


def _by_pillow(path: Path, layout: Layout) -> np.ndarray:
    """Pixels that tifffile cannot decode by itself or does not convert to RGB, (H, W) or (H, W, C), upright.

    Raises
    ------
    DataError
        If Pillow cannot decode them either, or only some of the planes or bits.
    """
    page, dtype = layout.page, layout.series.dtype
    convert = page.photometric in CONVERTED
    coded = f"{PHOTOMETRIC(page.photometric).name}, {COMPRESSION(page.compression).name}"
    about = f"{path}: {dtype} of shape {layout.series.shape}, {coded}"
    advice = "save it as RGB" if convert else "decoding it needs another package: pip install imagecodecs"
    if layout.size[0] * layout.size[1] > MAX_PIXELS or len(layout.series.pages) > 1:
        raise DataError(f"{about}: {advice}")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB") if convert else image)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{about}: {advice} (Pillow: {error!s:.80})") from error
    if convert:
        return pixels
    if pixels.dtype.itemsize < dtype.itemsize or pixels.size != layout.series.size:
        raise DataError(f"{about}: {advice} (Pillow reads {pixels.dtype} of shape {pixels.shape} only)")
    return pixels.astype(dtype)  # Pillow reads unsigned 32-bit integers as signed ones, and smaller ones as larger


def _orientation(file: tifffile.TiffFile) -> int:
    value = file.series[0].keyframe.tags.valueof(ExifTags.Base.Orientation)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
