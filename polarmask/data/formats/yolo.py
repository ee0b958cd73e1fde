"""YOLO's segmentation format: a text file for each image, and a data.yaml."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...config import DataConfig
from ..images import DataError
from ..instances import AnnotationError, Instances, checked_rings
from .files import Files, not_read, read_text
from .yolo_files import class_names, find_images, label_file, left_over_labels, read_yaml, yaml_file

BEYOND = 0.01  # vertices may lie outside of their image by this share of a side; farther ones seem to be in pixels


class Yolo(Files):
    """Images, and for each a text file with a line for an instance: its class and a polygon in shares of the sides.

    The annotations of ``…/images/NAME.jpg`` are ``…/labels/NAME.txt``; without such a file there is no instance.
    The annotation of line 3 is called 3. A line of a class and four numbers is a box, of which ``data.boxes`` says what
    becomes.

    Parameters
    ----------
    root : str or Path
        A YAML file with ``names`` and, for each split, a folder of images, several, or a text file that lists images;
        ``path`` is what they are relative to, the file's folder by default. Or a folder that holds a data.yaml.
    split : str, optional
        ``train`` by default.
    config : DataConfig, optional

    Raises
    ------
    DataError
        If the YAML file does not name classes and images that are there, or no image has a file of labels.
    """

    format = "YOLO segmentation"

    def __init__(self, root: str | Path, split: str | None = None, config: DataConfig | None = None) -> None:
        super().__init__(config or DataConfig())
        self.file = yaml_file(Path(root))
        content = read_yaml(self.file)
        self.categories = class_names(self.file, content)
        self.label = {number: n for n, number in enumerate(self.categories)}
        self.found = find_images(self.file, content, split or "train")
        self.images = self.found.images
        self.unlabelled = [image for image in self.images if not label_file(image).exists()]
        if len(self.unlabelled) == len(self.images) and any(image.is_file() for image in self.images):
            raise DataError(
                f"{self.file}: expected files of labels, found none for the {len(self.images)} images of "
                f"{split or 'train'}; that of {self.images[0]} would be {label_file(self.images[0])}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.images[index]

    def name(self, index: int) -> str:
        """The image's path below the folder of data.yaml, or its name where it lies elsewhere."""
        path, folder = self.images[index], self.file.parent
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name

    @property
    def where(self) -> Path:
        """The file data.yaml."""
        return self.file

    def sources(self, index: int) -> list[Path]:
        """The label file of an image; it may be missing."""
        return [label_file(self.images[index])]

    def problems(self) -> Iterator[tuple[str, str]]:
        """Images without a label file, folders that lie elsewhere than stated, and files that are not read."""
        for image in self.unlabelled:
            yield "no label file", f"{image}: there is no {label_file(image)}"
        for path in left_over_labels(self.found):
            yield "no image of labels", f"{path}: no image belongs to it"
        for sentence in self.found.moved:
            yield "other place", sentence
        yield from not_read(self.found.left_out)

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """The instances in the lines of a label file, and none where there is no file."""
        found = Instances(size)
        path = label_file(self.images[index])
        if not path.exists():
            return found
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if line.strip():
                try:
                    self._add(found, number, line.split())
                except AnnotationError as problem:
                    found.problems.append((f"{path.name}:{number}", problem))
        return found

    def _add(self, found: Instances, number: int, words: list[str]) -> None:
        """The instance of a line."""
        try:
            numbers = np.array(words, dtype=np.float64)
        except ValueError as error:
            raise AnnotationError("broken", f"expected numbers, got {' '.join(words)!r:.80}") from error
        if float(numbers[0]) not in self.label:
            expected = f"expected a class of {self.file.name}, one of {sorted(self.label)!r:.80}"
            raise AnnotationError("unknown category", f"{expected}, got {words[0]!r:.80}")
        label, shares = self.label[int(numbers[0])], numbers[1:]
        if len(shares) != 4 and (len(shares) % 2 or len(shares) < 6):
            raise AnnotationError("broken", f"expected x, y of at least three vertices, got {len(shares)} numbers")
        if not np.isfinite(shares).all():
            raise AnnotationError("not finite", "expected finite coordinates, got NaN or infinity")
        low, high = shares.min(), shares.max()
        if low < -BEYOND or high > 1 + BEYOND:
            raise AnnotationError(
                "broken", f"expected coordinates in shares of the image's sides from 0 to 1, got {low:g} to {high:g}"
            )
        height, width = found.size
        points = shares.reshape(-1, 2) * [width, height]
        if len(points) == 2:
            (x, y), (w, h) = points.tolist()
            found.add_box(number, label, (x - w / 2, y - h / 2, w, h), self.config.boxes)
        else:
            found.add(number, label, checked_rings([points]))
