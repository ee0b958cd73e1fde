"""Instances in PNGs, as Pascal VOC has them."""

from pathlib import Path

import numpy as np

from ...config import DataConfig
from ..images import DataError, inside, read_labels
from ..instances import AnnotationError, Instances, labels_to_rle
from .files import Files, list_images, read_text

FOLDERS = ("JPEGImages", "SegmentationObject", "SegmentationClass")
VOID = 255  # the borders between objects
CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


class Voc(Files):
    """A folder like Pascal VOC's: JPEGImages, SegmentationObject, SegmentationClass, ImageSets/Segmentation.

    The pixels of an instance have one value in SegmentationObject; most of them say its class in SegmentationClass.
    Void pixels are a crowd, neither object nor background: one of each class that the image shows, for COCO's
    evaluation compares class by class.

    Parameters
    ----------
    root : str or Path
    split : str, optional
        A file ``ImageSets/Segmentation/SPLIT.txt``; ``train`` by default.
    config : DataConfig, optional

    Notes
    -----
    Class names are VOC's, or stand line by line in ``labelmap.txt``, background first; what follows a colon is passed
    over.
    """

    format = "VOC instance PNGs"

    def __init__(self, root: str | Path, split: str | None = None, config: DataConfig | None = None) -> None:
        super().__init__(config or DataConfig())
        self.root = Path(root)
        self.categories = dict(enumerate(_names(self.root / "labelmap.txt"), 1))
        for needed in FOLDERS:
            if not (self.root / needed).is_dir():
                raise DataError(f"{self.root}: expected folders {', '.join(FOLDERS)}, found no {needed}")
        listed = list_file(self.root, split or "train")
        folder = self.root / FOLDERS[0]
        self.suffixes: dict[str, str] = {}
        for path in list_images(folder).images:
            name = path.relative_to(folder).with_suffix("").as_posix()
            self.suffixes[name] = ", ".join([*filter(None, [self.suffixes.get(name)]), path.suffix])
        lines = [line.strip() for line in read_text(listed).splitlines()]
        self.names = [self._name(line) for line in lines if line]
        for name in self.names:
            inside(folder, name)
        if not self.names:
            raise DataError(f"{listed}: expected names of images, a line each, found none")
        several = [name for name in self.names if ", " in self.suffixes.get(name, "")]
        if several:
            raise DataError(f"{folder}: expected one image called {several[0]}, got {self.suffixes[several[0]]}")

    @property
    def where(self) -> Path:
        """The root."""
        return self.root

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """The file of an image in JPEGImages; it may be missing."""
        name = self.names[index]
        return self.root / "JPEGImages" / f"{name}{self.suffixes.get(name, '.jpg')}"

    def _name(self, line: str) -> str:
        """The image that a line names: with or without its suffix, and perhaps before other columns."""
        for name in (line, line.split()[0]):
            for each in (name, name.removesuffix(Path(name).suffix)):
                if each in self.suffixes:
                    return each
        return line.split()[0]

    def sources(self, index: int) -> list[Path]:
        """The PNGs of an image with its objects and their classes."""
        return [self.root / folder / f"{self.names[index]}.png" for folder in FOLDERS[1:]]

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """The objects of an image, each of the class of most of its pixels; void pixels are ignored."""
        objects, classes = (self._labels(folder, index, size) for folder in FOLDERS[1:])
        void = (objects == VOID) | (classes == VOID)
        objects[void] = 0
        matter = objects > 0
        values, owner = np.unique(objects[matter], return_inverse=True)
        votes = np.zeros((len(values), VOID + 1), np.int64)
        np.add.at(votes, (owner, np.minimum(classes[matter], VOID)), 1)
        numbers = votes.argmax(1)
        unknown = (numbers < 1) | (numbers > len(self.categories))
        objects[np.isin(objects, values[unknown])] = 0
        ids, masks = labels_to_rle(objects)
        found = Instances.of_masks(ids.tolist(), (numbers[~unknown] - 1).tolist(), masks)
        for value, number in zip(values[unknown].tolist(), numbers[unknown].tolist(), strict=True):
            expected = f"expected a class from 1 to {len(self.categories)}, got {number}"
            found.problems.append((value, AnnotationError("unknown category", expected)))
        if void.any():
            for label in sorted(set(found.labels)):
                found.add("void", label, labels_to_rle(void.astype(np.int64))[1], crowd=True)
        return found

    def _labels(self, folder: str, index: int, size: tuple[int, int]) -> np.ndarray:
        path = self.root / folder / f"{self.names[index]}.png"
        labels = read_labels(path)
        if labels.shape != size:
            raise DataError(f"{path}: expected labels of the image's size {size}, got {labels.shape}")
        if labels.min() < 0:
            raise DataError(f"{path}: expected labels from 0 to {VOID}, got {labels.min()}")
        return labels


def list_file(root: Path, split: str) -> Path:
    """The file that lists the images of a split."""
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def _names(labelmap: Path) -> list[str]:
    if not labelmap.is_file():
        return CLASSES
    lines = (line.split(":")[0].strip() for line in read_text(labelmap).splitlines())
    names = [name for name in lines if name and not name.startswith("#")]
    if len(names) < 2:
        raise DataError(f"{labelmap}: expected a line for the background and one for each class, got {names}")
    return names[1:]
