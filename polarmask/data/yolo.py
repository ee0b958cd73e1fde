"""YOLO's segmentation format: a text file for each image, and a data.yaml."""

import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..config import DataConfig
from .files import Files, list_images
from .images import SUFFIXES, DataError, inside
from .instances import AnnotationError, Instances, checked_rings

NAMES = ("data.yaml", "data.yml", "dataset.yaml")


class Yolo(Files):
    """Images, and for each a text file with a line for an instance: its class and a polygon in shares of the sides.

    The annotations of ``…/images/NAME.jpg`` are ``…/labels/NAME.txt``; without such a file there is no instance.
    The annotation of line 3 is called 3.

    Parameters
    ----------
    root : str or Path
        A YAML file with ``names`` and, for each split, a folder of images, several, or a text file that lists images;
        ``path`` is what they are relative to, the file's folder by default. Or a folder that holds a data.yaml.
    split : str, optional
        ``train`` by default.
    config : DataConfig, optional
    """

    format = "YOLO segmentation"

    def __init__(self, root: str | Path, split: str | None = None, config: DataConfig | None = None) -> None:
        super().__init__(config or DataConfig())
        self.file = yaml_file(Path(root))
        content = read_yaml(self.file)
        names = content.get("names")
        named = dict(enumerate(names)) if isinstance(names, list) else names
        if (
            not isinstance(named, dict)
            or not named
            or not all(type(n) is int and n >= 0 and isinstance(name, (str, int, float)) for n, name in named.items())
        ):
            # Not as Python writes it in full: aliases make a small file as long as they like.
            raise DataError(f"{self.file}: expected names of classes, a list or by number, got {reprlib.repr(names)}")
        self.categories = {n: str(named[n]) for n in sorted(named)}
        self.label = {number: n for n, number in enumerate(self.categories)}
        self.images = self._images(content, split or "train")

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> Path:
        return self.images[index]

    def sources(self, index: int) -> list[Path]:
        return [label_file(self.images[index])]

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        found = Instances(size)
        path = label_file(self.images[index])
        if not path.exists():
            return found
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as text: {error!s:.200}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    label, ring = self._line(line.split())
                    found.add(number, label, checked_rings([ring * [size[1], size[0]]]))
                except AnnotationError as problem:
                    found.problems.append((f"{path.name}:{number}", problem))
        return found

    def _line(self, words: list[str]) -> tuple[int, np.ndarray]:
        """Label, and vertices in shares of the image's sides."""
        try:
            numbers = np.array(words, dtype=np.float64)
        except ValueError as error:
            raise AnnotationError("broken", f"expected numbers, got {' '.join(words)!r:.80}") from error
        if float(numbers[0]) not in self.label:
            raise AnnotationError("unknown category", f"expected a class of {self.file.name}, got {words[0]!r:.80}")
        if len(numbers) % 2 == 0 or len(numbers) < 7:
            kind = "a box" if len(numbers) == 5 else f"{len(numbers) - 1} numbers"
            raise AnnotationError("broken", f"expected x, y of at least three vertices, got {kind}")
        return self.label[int(numbers[0])], numbers[1:].reshape(-1, 2)

    def _images(self, content: dict[str, Any], split: str) -> list[Path]:
        path = content.get("path") or "."
        if not isinstance(path, str):
            raise DataError(f"{self.file}: expected path to be a folder, got {reprlib.repr(path)}")
        base = self.file.parent / path
        given = content.get(split)
        images: list[Path] = []
        for name in given if isinstance(given, list) else [given]:
            if not isinstance(name, str):
                raise DataError(
                    f"{self.file}: expected {split} to be a folder or a list of folders, got {reprlib.repr(given)}"
                )
            place = base / name
            if not place.exists() and name.startswith("../"):
                place = base / name.removeprefix("../")  # as written by a widely used export
            if place.is_dir():
                images += list_images(place).images
            elif place.is_file() and place.suffix == ".txt":
                folder = place.parent
                listed = (line.strip().removeprefix("./") for line in place.read_text().splitlines())
                images += [inside(folder, line) for line in listed if Path(line).suffix.lower() in SUFFIXES]
            else:
                raise DataError(f"{self.file}: expected {split} to be a folder or a .txt file, got {place}")
        return images


def yaml_file(root: Path) -> Path:
    if root.is_file():
        return root
    return next((root / name for name in NAMES if (root / name).is_file()), root / NAMES[0])


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as YAML: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content


def label_file(image: Path) -> Path:
    """The last folder called images becomes labels; without one the file lies beside the image."""
    parts = list(image.parts)
    for n in range(len(parts) - 2, -1, -1):
        if parts[n] == "images":
            parts[n] = "labels"
            break
    return Path(*parts).with_suffix(".txt")
