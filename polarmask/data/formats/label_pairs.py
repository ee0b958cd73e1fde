"""Pairs images with label images by their names and folders."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ..images import SUFFIXES, DataError
from .files import list_images

IMAGE_FOLDERS = {"images", "pngimages"}  # in lower case; the second of each are Penn-Fudan's
LABEL_FOLDERS = {"masks", "labels", "pedmasks"}
IMAGE_ENDINGS = ("_img", "_image")
LABEL_ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label")  # the first is Cellpose's
CELLPOSE = "_seg"  # NAME_seg.npy holds pickled objects
SPLITS = {
    "train",
    "train2017",
    "val",
    "val2017",
    "valid",
    "validation",
    "test",
}  # folders of a split are no part of "."


@dataclass
class Pairs:
    """The files of a split.

    Attributes
    ----------
    pairs : list of (Path, Path or list of Path)
        Images, and the label image of each, or a mask for each object.
    images, labels : list of Path
        What has no counterpart.
    pickled : list of Path
        Files of Cellpose, which are not read.
    left_out : list of Path
        Of formats that are not read.
    """

    pairs: list[tuple[Path, Path | list[Path]]] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    pickled: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)


@dataclass
class _Group:
    """Files that may belong together: those of a folder, or of ``images`` and ``masks`` in it."""

    images: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)


def find_pairs(root: Path, split: str) -> Pairs:
    """Pairs the images and label images of a split, within each folder.

    Raises
    ------
    DataError
        If several label images may belong to an image, or several images to a label image.
    """
    found = Pairs()
    groups: defaultdict[PurePath, _Group] = defaultdict(_Group)
    files: list[tuple[Path, PurePath]] = []
    for folder, below in _folders(root, split):
        listing = list_images(folder, {*SUFFIXES, ".npy"})
        files += [(path, below / path.relative_to(folder)) for path in listing.images]
        found.left_out += listing.left_out
    if split == ".":
        files = [(path, place) for path, place in files if not _of_split(place)]
    has_folder = any(_folder_of(place, LABEL_FOLDERS) is not None for _, place in files)
    for path, place in files:
        ending = _ending(path, LABEL_ENDINGS)
        is_label, where = bool(ending), place.parent
        if has_folder:
            of_label, of_image = _folder_of(place, LABEL_FOLDERS), _folder_of(place, IMAGE_FOLDERS)
            inner = max((n for n in (of_label, of_image) if n is not None), default=None)
            if inner is not None:
                is_label = inner == of_label
                where = PurePath(*place.parts[:inner], *place.parts[inner + 1 : -1])
        if path.suffix.lower() == ".npy" and not is_label:
            (found.pickled if _ending(path, (CELLPOSE,)) else found.left_out).append(path)
        else:
            (groups[where].labels if is_label else groups[where].images).append(path)
    for where in sorted(groups):
        _pair(groups[where], where, found)
    found.pairs.sort()
    return found


def has_label_images(root: Path, split: str) -> bool:
    """Whether the folder of a split holds label images, in folders up to three deep: a root may be a whole disk."""
    for folder, below in _folders(root, split):
        for path in list_images(folder, {*SUFFIXES, ".npy"}, depth=3).images:
            place = below / path.relative_to(folder)
            if split == "." and _of_split(place):
                continue
            if _folder_of(place, LABEL_FOLDERS) is not None or _ending(path, (*LABEL_ENDINGS, CELLPOSE)):
                return True
    return False


def _folders(root: Path, split: str) -> Iterator[tuple[Path, PurePath]]:
    """SPLIT; or images/SPLIT and masks/SPLIT, which are taken for SPLIT/images and SPLIT/masks."""
    if (root / split).is_dir():
        yield root / split, PurePath()
    elif root.is_dir():
        for folder in sorted(root.iterdir()):
            if folder.name.lower() in IMAGE_FOLDERS | LABEL_FOLDERS and (folder / split).is_dir():
                yield folder / split, PurePath(folder.name)


def _of_split(place: PurePath) -> bool:
    first, *others = (part.lower() for part in place.parts[:-1]) if len(place.parts) > 1 else ("",)
    return first in SPLITS or (first in IMAGE_FOLDERS | LABEL_FOLDERS and bool(others) and others[0] in SPLITS)


def _folder_of(place: PurePath, names: set[str]) -> int | None:
    """The position, in a path's parts, of the last folder that has one of these names."""
    return max((n for n, part in enumerate(place.parts[:-1]) if part.lower() in names), default=None)


def _stem(path: Path) -> str:
    stem = path.stem
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem


def _ending(path: Path, endings: tuple[str, ...]) -> str:
    stem = _stem(path).lower()
    return next((ending for ending in endings if stem.endswith(ending) and stem != ending), "")


def _name(path: Path, endings: tuple[str, ...]) -> str:
    """The name that an image and its label image share."""
    stem = _stem(path)
    return stem[: len(stem) - len(_ending(path, endings))]


def _pair(group: _Group, where: PurePath, found: Pairs) -> None:
    """First those of the same name, then those of the same name but for what it ends with."""
    images, labels = list(group.images), list(group.labels)
    pairs: list[tuple[Path, Path]] = []
    for exact in (True, False):
        by_name: defaultdict[str, _Group] = defaultdict(_Group)
        for path in images:
            by_name[_stem(path) if exact else _name(path, IMAGE_ENDINGS)].images.append(path)
        for path in labels:
            by_name[_stem(path) if exact else _name(path, LABEL_ENDINGS)].labels.append(path)
        if not exact:  # an image may not have one label image of its very name, and another one
            for image, label in pairs:
                other = by_name.get(_name(image, IMAGE_ENDINGS))
                if other is not None and other.labels:
                    raise _ambiguous([image], [label, *other.labels])
        for same in by_name.values():
            if same.images and same.labels:
                if len(same.images) + len(same.labels) > 2:
                    raise _ambiguous(same.images, same.labels)
                pairs.append((same.images[0], same.labels[0]))
        paired = {path for pair in pairs for path in pair}
        images = [path for path in images if path not in paired]
        labels = [path for path in labels if path not in paired]
    if not pairs and len(images) == 1 and labels and where.parts:
        found.pairs.append((images[0], labels))
        return
    found.pairs += pairs
    found.images += images
    found.labels += labels


def _ambiguous(images: list[Path], labels: list[Path]) -> DataError:
    one, other = (", ".join(path.name for path in paths) for paths in (images, labels))
    return DataError(f"{images[0].parent}: expected one label image for an image, got {other} for {one}")
