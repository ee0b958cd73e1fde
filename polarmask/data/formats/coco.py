"""COCO's JSON: polygons and run-length encoded masks, crowds, several parts, holes."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...config import DataConfig
from ..images import DataError, is_turned
from ..instances import AnnotationError, Instances
from . import coco_entries
from .coco_entries import integral, shown
from .coco_images import ImageFinder, annotation_file, image_folders
from .files import Files, logger
from .json_index import entries

NAMED = 5  # entries that an error names
PIECE = 1 << 20  # bytes


class Coco(Files):
    """A JSON file of COCO's format and a folder of images.

    Labels count the categories in the order of their ids. Of the file the places of its entries are kept, 32 bytes an
    annotation, and the categories: entries are read when they are asked for.

    Parameters
    ----------
    root : str or Path
        The file; its images lie beside it, in ``images``, or in SPLIT where it is ``instances_SPLIT.json`` or
        ``SPLIT.json``, perhaps in a folder ``annotations``; :class:`ImageFinder` says what names may look like. Or a
        folder that holds such a file, or ``SPLIT/_annotations.coco.json``.
    split : str, optional
        Of a folder, such as ``train2017``.
    config : DataConfig, optional
        ``images`` names the folder of the images where it is another one.

    Raises
    ------
    DataError
        If the file is no JSON with images, annotations and categories; or, unless ``invalid`` is skip, if an image has
        no id.
    """

    format = "COCO JSON"

    def __init__(self, root: str | Path, split: str | None = None, config: DataConfig | None = None) -> None:
        super().__init__(config or DataConfig())
        self.file = Path(root) if split is None else annotation_file(Path(root), split)
        self.finder = ImageFinder(self._folders(Path(root)), self._names)
        categories: list[Any] = []
        used: set[int | None] = set()
        images, annotations = array("q"), array("q")  # begin, end, key of the image's id
        ids, broken = array("q"), array("q")  # keys of annotations' ids; begin, end, position
        positions = {"images": 0, "annotations": 0}
        unknown: list[str] = []
        for key, begin, end, value in entries(self.file, ("images", "annotations", "categories")):
            if key == "categories":
                categories.append(value)
            elif key == "images":
                try:
                    images.extend((begin, end, _key(coco_entries.image_id(_id_of(value, "id")))))
                except ValueError as error:
                    unknown.append(f"entry {positions[key]} of images: {error}")
                positions[key] += 1
            elif key == "annotations":
                try:
                    annotations.extend((begin, end, _key(coco_entries.image_id(_id_of(value, "image_id")))))
                except ValueError:
                    broken.extend((begin, end, positions[key]))
                else:
                    used.add(integral(value.get("category_id")))
                    if value.get("id") is not None:
                        ids.append(_key(value["id"]))
                positions[key] += 1
        self._without_id(unknown)
        self.categories = coco_entries.categories(self.file, categories, used)
        self.label = {category: n for n, category in enumerate(self.categories)}
        self._images = np.array(images, np.int64).reshape(-1, 3)
        places = np.array(annotations, np.int64).reshape(-1, 3)
        self._annotations = places[np.argsort(places[:, 2], kind="stable")]
        self._latest: tuple[int, dict[str, Any]] | None = None  # the image's entry that was read last
        self._broken = np.array(broken, np.int64).reshape(-1, 3)
        self._repeated = _repeated(np.array(ids, np.int64))
        if self.config.invalid == "skip":
            self._without_repeated_images()

    def __len__(self) -> int:
        return len(self._images)

    def path(self, index: int) -> Path:
        """The file of an image, looked for by :class:`ImageFinder`; raises DataError if it is not found."""
        try:
            return self.finder.find(self._image(index).get("file_name"))
        except DataError as error:
            raise DataError(f"{self.file}: image {self.image_id(index)!r}: {error}") from error

    @property
    def where(self) -> Path:
        """The JSON file."""
        return self.file

    def name(self, index: int) -> str:
        """The image's ``file_name``."""
        return str(self._image(index).get("file_name"))

    def image_id(self, index: int) -> int | str:
        """The image's ``id``, an integer or text."""
        return coco_entries.image_id(self._image(index).get("id"))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width as the JSON file states them, or else as the image has them."""
        return self._stated_size(index) or super().size(index)

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """What is annotated in an image.

        Raises
        ------
        DataError
            If the JSON file states another height and width than ``size``.
        """
        stated = self._stated_size(index)
        if stated not in (None, size):
            path = self.path(index)
            why = ""
            if stated == size[::-1] and is_turned(path):
                why = ", as the image is without its orientation tag: annotate what is shown, or remove the tag"
            raise DataError(f"{path}: expected height and width {size} in {self.file}, got {stated}{why}")
        found = Instances(size)
        key = self._images[index, 2]
        first, last = np.searchsorted(self._annotations[:, 2], [key, key + 1] if key < 2**63 - 1 else [key, key])
        for entry in self._entries(self._annotations[first:last]):
            try:
                coco_entries.add_annotation(found, entry, self.label, self.config)
            except AnnotationError as problem:
                found.problems.append((entry.get("id", "without id"), problem))
        return found

    def problems(self) -> Iterator[tuple[str, str]]:
        """Ids that occur twice, annotations of images that are not there, and annotations without an image's id."""
        keys = self._images[:, 2]
        repeated = np.isin(keys, list(_repeated(keys)))
        for image in self._entries(self._images[repeated]):
            yield "duplicate image id", f"{self.file}: image {image.get('id')!r} is not the only one"
        yield from self._lost(~np.isin(self._annotations[:, 2], keys), keys)
        for entry, position in zip(self._entries(self._broken), self._broken[:, 2].tolist(), strict=True):
            place = f"{self.file}: annotation {entry.get('id', f'without id, entry {position} of the list')!r:.80}"
            got = shown(entry["image_id"]) if "image_id" in entry else "none"
            yield "broken", f"{place}: expected an object with an image_id that is an integer or text, got {got}"
        if self._repeated:
            for entry in self._entries(self._annotations):
                if entry.get("id") is not None and _key(entry["id"]) in self._repeated:
                    yield "duplicate annotation id", f"{self.file}: annotation {entry['id']!r} is not the only one"

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of :class:`Files`, with the JSON file's SHA-256 for the annotations."""
        digest = hashlib.sha256()
        with self.file.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return {**super().fingerprint(), "annotations": digest.hexdigest()}

    def _lost(self, lost: np.ndarray, keys: np.ndarray) -> Iterator[tuple[str, str]]:
        """Annotations of images that are not there."""
        there = set(keys.tolist()) if lost.any() else set()
        for entry in self._entries(self._annotations[lost]):
            id, place = entry["image_id"], f"{self.file}: annotation {entry.get('id')!r:.80}"
            other = str(integral(id)) if not isinstance(id, str) else int(id) if _is_number(id) else None
            if other is not None and _key(other) in there:
                yield "other image id", f"{place} has the image_id {id!r:.80}, but the image's id is {other!r}"
            else:
                yield "unknown image", f"{place} is of image {id!r:.80}, which is not there"
        if lost.all() and len(lost):
            yield "no image", f"{self.file}: expected annotations of the images in the file, got {len(lost)} of others"

    def _folders(self, root: Path) -> list[Path]:
        if not self.config.images:
            return image_folders(self.file) or [self.file.parent]
        given = Path(self.config.images)
        below = (root if root.is_dir() else root.parent) / given
        return [given if given.is_dir() or not below.is_dir() else below]

    def _without_id(self, unknown: list[str]) -> None:
        """Raises a DataError for images without an id, or logs them."""
        if not unknown:
            return
        more = f", and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        message = f"{self.file}: {'; '.join(unknown[:NAMED])}{more}"
        if self.config.invalid == "raise":
            raise DataError(message)
        logger.warning("%s; left out", message)

    def _without_repeated_images(self) -> None:
        """Leaves out images that share an id, since their annotations cannot be told apart."""
        repeated = np.isin(self._images[:, 2], list(_repeated(self._images[:, 2])))
        if repeated.any():
            ids = {image.get("id") for image in self._entries(self._images[repeated][:NAMED])}
            self._images = self._images[~repeated]
            logger.warning("%s: %d images share ids, such as %s; left out", self.file, repeated.sum(), ids)

    def _names(self) -> Iterator[Any]:
        return (image.get("file_name") for image in self._entries(self._images))

    def _stated_size(self, index: int) -> tuple[int, int] | None:
        try:
            return coco_entries.image_size(self._image(index))
        except ValueError as error:
            raise DataError(f"{self.file}: image {self.image_id(index)!r}: {error}") from error

    def _image(self, index: int) -> dict[str, Any]:
        """The entry of an image."""
        if self._latest is None or self._latest[0] != index:
            self._latest = index, next(self._entries(self._images[index : index + 1]))
        return self._latest[1]

    def _entries(self, places: np.ndarray) -> Iterator[dict[str, Any]]:
        """The entries at some places; an empty one for what is no object."""
        if len(places):
            with self.file.open("rb", buffering=0) as file:
                for begin, end, _ in places.tolist():
                    yield self._entry(os.pread(file.fileno(), end - begin, begin))

    def _entry(self, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text.decode())
        except ValueError as error:
            raise DataError(f"{self.file}: has changed since it was opened") from error
        return value if isinstance(value, dict) else {}


def _id_of(entry: Any, name: str) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object, got {shown(entry)}")
    return entry.get(name)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


def _repeated(keys: np.ndarray) -> set[int]:
    values, counts = np.unique(keys, return_counts=True)
    return set(values[counts > 1].tolist())


def _key(id: Any) -> int:
    """Ids of any kind as 64 bits, integers as they are."""
    if type(id) is int and abs(id) < 2**62:
        return id
    return int.from_bytes(hashlib.blake2b(repr(id).encode(), digest_size=8).digest(), "little", signed=True) | 2**62
