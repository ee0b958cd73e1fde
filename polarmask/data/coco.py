"""COCO's JSON: polygons and run-length encoded masks, crowds, several parts, holes."""

import hashlib
import json
import reprlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from polarmask_ops import RLE, outlines_to_rle

from ..config import DataConfig
from .files import Files, logger
from .images import DataError, image_size, inside, is_turned
from .instances import AnnotationError, Instances, Rings, checked_rings
from .json_index import entries

COCO_LIMIT = 1e6  # pixels: evaluation programs crash on larger coordinates, and on polygons of two vertices


class Coco(Files):
    """A JSON file of COCO's format and a folder of images.

    Labels count the categories in the order of their ids. Of the file the places of its entries are kept, 32 bytes an
    annotation, and the categories: entries are read when they are asked for.

    Parameters
    ----------
    root : str or Path
        The file; its images lie beside it, or in SPLIT where it is ``annotations/instances_SPLIT.json``. Or a folder
        that holds ``annotations/instances_SPLIT.json`` and ``SPLIT/``, or ``SPLIT/_annotations.coco.json``.
    split : str, optional
        Of a folder, such as ``train2017``.
    config : DataConfig, optional
        ``images`` names the folder of the images where it is another one.
    """

    format = "COCO JSON"

    def __init__(self, root: str | Path, split: str | None = None, config: DataConfig | None = None) -> None:
        super().__init__(config or DataConfig())
        root = Path(root)
        self.file = root if split is None else annotation_file(root, split)
        self.folder = Path(self.config.images) if self.config.images else _image_folder(self.file)
        categories: list[Any] = []
        images, annotations, ids = array("q"), array("q"), array("q")  # places: begin, end, key of the image's id
        for entry in entries(self.file):
            value = entry.value if isinstance(entry.value, dict) else {}
            if entry.key == "categories":
                categories.append(entry.value)
            elif entry.key == "images":
                images.extend((entry.begin, entry.end, _key(value.get("id"))))
            elif entry.key == "annotations":
                annotations.extend((entry.begin, entry.end, _key(value.get("image_id"))))
                ids.append(_key(value.get("id")))
        self.categories = _categories(self.file, categories)
        self.label = {category: n for n, category in enumerate(self.categories)}
        self._images = np.array(images, np.int64).reshape(-1, 3)
        places = np.array(annotations, np.int64).reshape(-1, 3)
        self._annotations = places[np.argsort(places[:, 2], kind="stable")]
        values, counts = np.unique(np.array(ids, np.int64), return_counts=True)
        self._repeated = set(values[counts > 1].tolist()) if (counts > 1).any() else set()

    def __len__(self) -> int:
        return len(self._images)

    def path(self, index: int) -> Path:
        return inside(self.folder, self.image(index).get("file_name"))

    def image(self, index: int) -> dict[str, Any]:
        """The entry of an image."""
        begin, end, _ = self._images[index].tolist()
        return self._entry(begin, end)

    def image_id(self, index: int) -> int | str:
        return self.image(index).get("id")  # type: ignore[return-value]

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        image = self.image(index)
        stated = (image.get("height", size[0]), image.get("width", size[1]))
        if stated != size:
            path = self.path(index)
            why = ""
            if stated == size[::-1] and is_turned(path):
                why = ", as the image is without its orientation tag: annotate what is shown, or remove the tag"
            raise DataError(f"{path}: expected height and width {size} in {self.file}, got {stated}{why}")
        found = Instances(size)
        for entry in self.annotations(index):
            id, crowd = entry.get("id", "without id"), bool(entry.get("iscrowd", 0))
            try:
                if entry.get("category_id") not in self.label or isinstance(entry["category_id"], bool):
                    raise AnnotationError(
                        "unknown category", f"expected a category of the file, got {entry.get('category_id')!r:.80}"
                    )
                found.add(id, self.label[entry["category_id"]], _shape(entry.get("segmentation"), size), crowd)
                if "bbox" in entry:
                    found.stated[len(found) - 1] = {"bbox": entry["bbox"]}
            except AnnotationError as problem:
                found.problems.append((id, problem))
            except TypeError:  # a category that cannot be looked up
                found.problems.append((id, AnnotationError("unknown category", "expected a number, got a list")))
        return found

    def annotations(self, index: int) -> Iterator[dict[str, Any]]:
        """The annotations of an image."""
        key = self._images[index, 2]
        first, last = np.searchsorted(self._annotations[:, 2], [key, key + 1] if key < 2**63 - 1 else [key, key])
        for begin, end, _ in self._annotations[first:last].tolist():
            yield self._entry(begin, end)

    def problems(self) -> Iterator[tuple[str, str]]:
        keys, counts = np.unique(self._images[:, 2], return_counts=True)
        repeated = set(keys[counts > 1].tolist())
        for index in np.flatnonzero(np.isin(self._images[:, 2], list(repeated))).tolist() if repeated else []:
            yield "duplicate image id", f"{self.file}: image {self.image(index).get('id')!r} is not the only one"
        lost = ~np.isin(self._annotations[:, 2], keys)
        for begin, end, _ in self._annotations[lost].tolist():
            entry = self._entry(begin, end)
            image = f"image {entry.get('image_id')!r:.80}, which is not there"
            yield "unknown image", f"{self.file}: annotation {entry.get('id')!r:.80} is of {image}"
        if self._repeated:
            for begin, end, _ in self._annotations.tolist():
                id = self._entry(begin, end).get("id")
                if _key(id) in self._repeated:
                    yield "duplicate annotation id", f"{self.file}: annotation {id!r} is not the only one"

    def ground_truth(self, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """The file's content, annotations with new ids; sizes of images and areas, boxes and crowd flags of annotations
        where it lacks them.

        What cannot be read stops the program or is left out, as ``invalid`` says.
        """
        content: dict[str, Any] = json.loads(self.file.read_bytes())
        sizes: dict[Any, tuple[int, int]] = {}
        images, annotations = [], []
        for index, image in enumerate(content["images"]):
            with self._leaving_out(f"image {index}"):
                image = {**image} if {"height", "width"} <= set(image) else {**image, **self._size(index)}
                sizes[image["id"]] = (image["height"], image["width"])
                images.append(image)
        for n, entry in enumerate(content["annotations"]):
            with self._leaving_out(f"annotation {entry.get('id', n) if isinstance(entry, dict) else n}"):
                annotations.append(self._completed(entry, n, sizes[entry["image_id"]]))
        if indices is not None:
            ids = {self.image_id(index) for index in indices}
            images = [image for image in images if image["id"] in ids]
            annotations = [entry for entry in annotations if entry["image_id"] in ids]
        return {**content, "images": images, "annotations": annotations}

    def _completed(self, entry: dict[str, Any], n: int, size: tuple[int, int]) -> dict[str, Any]:
        shape = _shape(entry.get("segmentation"), size)
        self.label[entry["category_id"]]
        entry = {**entry, "id": n + 1}  # evaluation programs lose what has an id twice, or 0
        complete = {"area", "bbox", "iscrowd"} <= set(entry)
        usual = isinstance(shape, RLE) or all(len(ring) > 2 and np.abs(ring).max() < COCO_LIMIT for ring in shape)
        if complete and usual:
            return entry
        one = Instances(size)
        one.add(0, 0, shape)
        mask = outlines_to_rle(one.outlines("all")[0], size)
        left, top, right, bottom = mask.boxes()[0].tolist()
        box = [left, top, right - left, bottom - top]
        entry = {"area": int(mask.areas()[0]), "bbox": box, "iscrowd": 0, **entry}
        return entry if usual else {**entry, "segmentation": mask.to_coco()[0]}

    @contextmanager
    def _leaving_out(self, what: str) -> Iterator[None]:
        try:
            yield
        except (AnnotationError, DataError, AttributeError, KeyError, TypeError) as error:
            message = f"{self.file}: {what}: {type(error).__name__}: {error!s:.200}"
            if self.config.invalid == "raise":
                raise DataError(message) from error
            logger.warning("%s; left out", message)

    def _size(self, index: int) -> dict[str, int]:
        height, width = image_size(self.path(index))
        return {"height": height, "width": width}

    def _entry(self, begin: int, end: int) -> dict[str, Any]:
        with self.file.open("rb") as file:
            file.seek(begin)
            value = json.loads(file.read(end - begin))
        return value if isinstance(value, dict) else {}


def annotation_file(root: Path, split: str) -> Path:
    """Where a folder has the annotations of a split; the first name where it has none."""
    places = [f"annotations/instances_{split}.json", f"{split}/_annotations.coco.json"]
    if split != ".":
        places += [f"annotations/{split}.json", f"instances_{split}.json", f"{split}.json"]
    found = (root / place for place in places if (root / place).is_file())
    return next(found, root / places[0])


def _image_folder(file: Path) -> Path:
    split = file.stem.removeprefix("instances_")
    folder = file.parent.parent / split
    return folder if file.parent.name == "annotations" and folder.is_dir() else file.parent


def _categories(file: Path, found: list[Any]) -> dict[int, str]:
    wrong = [each for each in found if not isinstance(each, dict) or type(each.get("id")) is not int]
    if wrong or not found:
        raise DataError(
            f"{file}: expected categories with an integer id each, got {reprlib.repr(wrong) if wrong else 'none'}"
        )
    names = {each["id"]: str(each.get("name", each["id"])) for each in sorted(found, key=lambda each: each["id"])}
    if len(names) < len(found):
        raise DataError(
            f"{file}: expected categories of different ids, got {reprlib.repr(sorted(each['id'] for each in found))}"
        )
    return names


def _key(id: Any) -> int:
    """Ids of any kind as 64 bits, integers as they are."""
    if type(id) is int and abs(id) < 2**62:
        return id
    return int.from_bytes(hashlib.blake2b(repr(id).encode(), digest_size=8).digest(), "little", signed=True) | 2**62


def _shape(segmentation: Any, size: tuple[int, int]) -> Rings | RLE:
    if isinstance(segmentation, list):
        return checked_rings(segmentation)
    if not isinstance(segmentation, dict):
        raise AnnotationError("no segmentation", f"expected a segmentation, got {segmentation!r:.80}")
    try:
        mask = RLE.from_coco([segmentation])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AnnotationError("broken", f"expected a run-length encoded mask, got {error!s:.200}") from error
    if mask.size != size:
        raise AnnotationError("wrong size", f"expected a mask of the image's size {size}, got {mask.size}")
    return mask
