"""What a careful reader finds in a data set, written from the formats' documentation without polarmask's readers.

Everything is *plain* (it must be used as it is), *unclear* (two readers may differ: it may be used, or refused, or left
out and said) or *bad* (it must be refused, or left out and said).
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage
from shapely.geometry import Polygon, box

from .made import MadeSet

PLAIN, UNCLEAR, BAD = "plain", "unclear", "bad"
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"}
OTHER_SUFFIXES = {".jp2", ".lsm", ".npy"}
SMALLEST = 1.0  # square pixels: instances with less are not trained on by default


@dataclass
class Seen:
    """An image."""

    path: Path | None  # None where its name says nothing
    status: str = PLAIN
    why: str = ""
    size: tuple[int, int] = (0, 0)
    pixels: np.ndarray | None = None  # (H, W, 3) from 0 to 1, where it is plain what they are
    areas: list[float | None] = field(default_factory=list)  # of plain instances; None: not known
    annotations: int = 0  # plain ones: instances before they are split into parts
    crowds: int = 0
    unclear: int = 0  # annotations
    bad: int = 0

    def spoil(self, status: str, why: str) -> None:
        """Lowers what the image counts as, and keeps the first reason for the lowest."""
        if (PLAIN, UNCLEAR, BAD).index(status) > (PLAIN, UNCLEAR, BAD).index(self.status):
            self.status, self.why = status, why

    def add(self, areas: list[float | None]) -> None:
        """A plain annotation by the areas, within the image, of the instances that it is trained as."""
        if any(area is not None and area < SMALLEST for area in areas):
            self.bad += 1
        else:
            self.areas += areas
            self.annotations += 1


@dataclass
class Reading:
    """A split of a data set."""

    images: list[Seen] = field(default_factory=list)
    status: str = PLAIN
    why: str = ""
    orphans: int = 0  # annotations of no image
    say: list[str] = field(default_factory=list)  # what must at least be mentioned
    categories: dict[Any, str] = field(default_factory=dict)  # of COCO's JSON

    def spoil(self, status: str, why: str) -> "Reading":
        if (PLAIN, UNCLEAR, BAD).index(status) > (PLAIN, UNCLEAR, BAD).index(self.status):
            self.status, self.why = status, why
        return self

    @property
    def is_plain(self) -> bool:
        """Whether there is no reason to refuse it."""
        clean = not any(seen.status != PLAIN or seen.unclear or seen.bad for seen in self.images)
        return self.status == PLAIN and clean and not self.orphans and not self.say and bool(self.images)


def split_of(made: MadeSet, part: str) -> str:
    given = made.options.get(part)
    return given if given is not None else getattr(made, part)


# Pictures.


def look(path: Path, options: dict[str, Any]) -> Seen:
    """The picture of an image."""
    seen = Seen(path)
    if not path.is_file():
        seen.spoil(BAD, "no such file")
        return seen
    try:
        tiff = path.suffix.lower() in (".tif", ".tiff")
        pixels = _tiff(path, seen) if tiff else _pillow(path, seen)
    except Exception as error:
        seen.spoil(BAD, f"{type(error).__name__}: {error}")
        return seen
    if seen.status == BAD or pixels is None:
        return seen
    seen.size = pixels.shape[:2]
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        seen.spoil(BAD, "NaN or infinity")
        return seen
    if pixels.dtype.kind == "c":
        seen.spoil(BAD, "complex numbers")
        return seen
    channels = options.get("channels")
    count = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels is not None and not (1 <= len(channels) <= 3 and all(0 <= channel < count for channel in channels)):
        seen.spoil(BAD, f"channels {channels} of {count}")
        return seen
    if channels is None and count not in (1, 3):
        seen.spoil(UNCLEAR if count < 5 else BAD, f"{count} channels")
        return seen
    if channels is not None and (len(channels) == 2 or count > 4):
        seen.spoil(UNCLEAR, "channels by number")
        return seen
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels[..., channels if channels is not None else range(count)]
    scale = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else 1.0
    seen.pixels = np.broadcast_to(pixels.astype(np.float64) / scale, (*pixels.shape[:2], 3))
    return seen


def _pillow(path: Path, seen: Seen) -> np.ndarray:
    with Image.open(path) as image:
        image.load()
        if getattr(image, "n_frames", 1) > 1:
            seen.spoil(BAD, "several frames")
        known = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "BMP": (".bmp",), "WEBP": (".webp",)}
        if path.suffix.lower() not in known.get(image.format or "", ()):
            seen.spoil(UNCLEAR, f"{image.format} in {path.suffix}")
        if image.mode in ("L", "I;16", "F", "RGB"):
            return np.asarray(image)
        if image.mode == "I":
            seen.spoil(UNCLEAR, "32 bits")
            return np.asarray(image)
        return np.asarray(image.convert("L" if image.mode in ("1", "LA") else "RGB"))


def _tiff(path: Path, seen: Seen) -> np.ndarray | None:
    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            seen.spoil(BAD, f"{len(file.series)} series")
            return None
        series, page = file.series[0], file.pages[0]
        axes = [axis for axis, side in zip(series.axes, series.shape, strict=True) if side > 1 or axis in "YX"]
        pixels = series.asarray()
        pixels = pixels.reshape(
            [side for axis, side in zip(series.axes, series.shape, strict=True) if side > 1 or axis in "YX"]
        )
        colour = page.photometric.name
    if not pixels.size or sorted(set(axes) & set("YX")) != ["X", "Y"] or len(axes) > 3:
        seen.spoil(BAD, f"axes {axes}")
        return None
    if len(axes) == 3:
        (other,) = set(axes) - set("YX")
        count = pixels.shape[axes.index(other)]
        if other in "ZT" or (other not in "CS" and count > 4):
            seen.spoil(BAD, f"a stack of {count}")
            return None
        if other not in "CS":
            seen.spoil(UNCLEAR, f"{count} pages")
        pixels = np.moveaxis(pixels, axes.index(other), -1)
    if colour == "PALETTE" or colour == "SEPARATED":
        pixels = np.asarray(Image.open(path).convert("RGB"))
    elif colour == "MINISWHITE" and pixels.dtype != bool:
        pixels = np.iinfo(pixels.dtype).max - pixels
    elif pixels.ndim == 3 and pixels.shape[2] == 2 and page.extrasamples:
        seen.spoil(UNCLEAR, "an alpha channel in TIFF")
    elif pixels.ndim == 3 and pixels.shape[2] == 4 and colour == "RGB":
        seen.spoil(UNCLEAR, "a fourth sample")
    if pixels.dtype == bool:
        return np.asarray(Image.open(path).convert("L"))
    if pixels.dtype.kind == "i":
        seen.spoil(UNCLEAR, "signed integers")
    return pixels


def must_say_range(seen: Seen, percentiles: Any) -> str | None:
    """Whether the values of a picture are in no range that a network expects, and are not stretched either."""
    if percentiles is not None or seen.pixels is None:
        return None
    if seen.pixels.max() > 1.001 or seen.pixels.min() < -0.001:
        return f"values from {seen.pixels.min():.3g} to {seen.pixels.max():.3g}"
    return None


# Areas.


def areas_of_rings(rings: list[np.ndarray], size: tuple[int, int], parts: str) -> list[float | None]:
    """Of what is trained on, in the image."""
    frame = box(0, 0, size[1], size[0])
    shapes = [Polygon(ring) for ring in rings]
    if all(shape.area < 1e-6 for shape in shapes):
        return [0.0]  # a line
    if not all(shape.is_valid for shape in shapes) or any(
        a.intersects(b) for n, a in enumerate(shapes) for b in shapes[n + 1 :]
    ):
        return [None] * (len(rings) if parts == "split" else 1)
    inside = [shape.intersection(frame).area for shape in shapes]
    if parts == "split":
        return list(inside)
    if parts == "all":
        return [sum(inside)]
    return [inside[int(np.argmax([shape.area for shape in shapes]))]]


def areas_of_mask(mask: np.ndarray, parts: str) -> list[float | None]:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    every = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(float).tolist()
    if parts == "split":
        return every or [0.0]
    return [sum(every) if parts == "all" else max(every, default=0.0)]


# Label images.


def read_label_image(path: Path, seen: Seen) -> np.ndarray | None:
    """int64 (H, W), −1 for what is ignored; None where there is no such thing."""
    try:
        if path.suffix == ".npy":
            pixels = np.load(path, allow_pickle=False)
        elif path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as file:
                pixels = file.asarray()
                if file.pages[0].compression.name == "JPEG":
                    seen.spoil(BAD, "labels as JPEG")
        else:
            with Image.open(path) as image:
                if image.format not in ("PNG", "BMP"):
                    seen.spoil(BAD if image.format == "JPEG" else UNCLEAR, f"labels as {image.format}")
                if image.mode == "LA":
                    seen.spoil(UNCLEAR, "labels with alpha")
                    pixels = np.asarray(image)[..., 0]
                else:
                    pixels = np.asarray(image)
    except Exception as error:
        seen.spoil(BAD, f"labels: {type(error).__name__}")
        return None
    if pixels.ndim != 2:
        seen.spoil(BAD, f"labels of shape {pixels.shape}")
        return None
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels).all() and (pixels == np.floor(pixels)).all()):
        seen.spoil(BAD, "labels that are no integers")
        return None
    if seen.size != pixels.shape:
        seen.spoil(BAD, f"labels of size {pixels.shape}")
        return None
    pixels = pixels.astype(np.int64)
    if pixels.min() < -1:
        seen.spoil(BAD, "labels below −1")
    return pixels


def read_labels(made: MadeSet, part: str) -> Reading:
    """Folders of images and label images; FOLDER/images and FOLDER/masks, or NAME and NAME_masks."""
    reading = Reading()
    folder = made.folder / split_of(made, part)
    if split_of(made, part) == "..":
        reading.spoil(UNCLEAR, "all splits at once")
    parts = made.options.get("parts", "largest")
    beside = made.format == "labels beside"
    images = folder if beside else folder / "images"
    if not images.is_dir():  # a folder of such folders is read too
        below = any(path.is_dir() for path in folder.rglob("images"))
        return reading.spoil(UNCLEAR if below else BAD, f"no folder {images}")
    files = [path for path in sorted(images.rglob("*")) if is_visible(path, images)]
    others = [path for path in files if path.suffix.lower() in OTHER_SUFFIXES]
    if any(path.suffix != ".npy" for path in others):
        reading.say.append(f"{others[0].name} is left out")
    files = [path for path in files if path.suffix.lower() in SUFFIXES]
    # FOLDER/day/masks is a layout of its own.
    endings = ("_cp_masks", "_masks", "_mask", "_labels", "_label", "_seg")
    masks: dict[str, list[Path]] = {}
    places = files + others if beside else sorted(path for path in (folder / "masks").rglob("*"))
    for path in places:
        ending = next((each for each in endings if path.stem.endswith(each)), None)
        usable = path.suffix.lower() in SUFFIXES | {".npy"} and is_visible(path, folder)
        if usable and (not beside or ending):
            masks.setdefault(path.stem.removesuffix(ending or ""), []).append(path)
    used = set()
    for path in files:
        if beside and any(path.stem.endswith(ending) for ending in endings):
            continue
        seen = look(path, made.options)
        reading.images.append(seen)
        stem = path.stem.removesuffix("_img") if beside else path.stem
        found = masks.get(stem, [])
        used.add(stem)
        if not found:
            seen.spoil(BAD, "no label image")
            continue
        if len(found) > 1:
            seen.spoil(UNCLEAR, "several label images")
        mask = found[0]
        usual = "_masks" if beside else ""
        if mask.stem != stem + usual or mask.suffix == ".npy" or "day 1" in (*mask.parts, *path.parts):
            seen.spoil(UNCLEAR, f"label image {mask.name}")
        if seen.status == BAD:
            continue
        values = read_label_image(mask, seen)
        if values is not None and seen.status != BAD:
            _add_values(values, seen, reading, parts)
    lost = sum(len(paths) for stem, paths in masks.items() if stem not in used)
    if lost:
        reading.say.append(f"{lost} label images without an image")
    return reading


def _add_values(values: np.ndarray, seen: Seen, reading: Reading, parts: str) -> None:
    numbers = [int(value) for value in np.unique(values) if value > 0]
    for value in numbers:
        mask = values == value
        seen.add(areas_of_mask(mask, parts))
        pieces = ndimage.label(mask, np.ones((3, 3)))[1]
        if len(numbers) == 1 and pieces > 1 and parts == "largest":
            reading.say.append(f"one value of {pieces} parts")


def is_visible(path: Path, below: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(below).parts)


# Pascal VOC.


def read_voc(made: MadeSet, part: str) -> Reading:
    reading = Reading()
    listed = made.folder / "ImageSets" / "Segmentation" / f"{split_of(made, part)}.txt"
    try:
        text = listed.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return reading.spoil(BAD, f"{listed.name}: {type(error).__name__}")
    classes = 20
    labelmap = made.folder / "labelmap.txt"
    if labelmap.exists():
        try:
            lines = labelmap.read_bytes().decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            return reading.spoil(UNCLEAR, "labelmap.txt")
        names = [line.split(":")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
        classes = len(names) - 1
        if classes < 1 or names[0] != "background" or len(set(names)) < len(names):
            return reading.spoil(BAD if classes < 1 else UNCLEAR, "labelmap.txt")
    for line in text.splitlines():
        words = line.split()
        if words:
            reading.images.append(_voc_image(made, words, classes))
    return reading


def _voc_image(made: MadeSet, words: list[str], classes: int) -> Seen:
    name = words[0]
    parts = made.options.get("parts", "largest")
    found = [path for path in (made.folder / "JPEGImages").glob("*") if path.stem == name and path.suffix in SUFFIXES]
    if not found:
        found = [path for path in (made.folder / "JPEGImages").glob("*") if path.stem == name]
    if not found and Path(name).suffix in SUFFIXES:
        seen = _voc_image(made, [Path(name).stem], classes)
        seen.spoil(UNCLEAR, "a name with its suffix")
        return seen
    if not found or "/" in name:
        return Seen(made.folder / "JPEGImages" / f"{name}.jpg", BAD, "no such image")
    seen = look(found[0], made.options)
    if len(found) > 1:
        seen.spoil(UNCLEAR, "several images of that name")
    if len(words) > 1:
        seen.spoil(UNCLEAR, "a second column")
    arrays = []
    for folder in ("SegmentationObject", "SegmentationClass"):
        path = made.folder / folder / f"{name}.png"
        values = read_label_image(path, seen) if seen.status != BAD else None
        if values is None:
            return seen
        arrays.append(values)
    objects, kinds = arrays
    void = (objects == 255) | (kinds == 255)
    if objects.min() < 0 or kinds.min() < 0:
        seen.spoil(UNCLEAR, "values below 0")
    for value in np.unique(objects[~void & (objects > 0)]).tolist():
        mask = (objects == value) & ~void
        votes = np.bincount(kinds[mask], minlength=2)
        winner = int(votes.argmax())
        if (votes == votes.max()).sum() > 1:
            seen.unclear += 1
        elif not 1 <= winner <= classes:
            seen.bad += 1
        else:
            seen.add(areas_of_mask(mask, parts))
    return seen


def finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
