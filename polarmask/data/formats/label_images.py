"""Folders of images and label images, as StarDist and Cellpose have them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from polarmask_ops import RLE

from ...config import DataConfig
from ..images import DataError, read_labels
from ..instances import AnnotationError, Instances, labels_to_rle
from .files import Files, not_read
from .label_pairs import Pairs, find_pairs
from .label_parts import parts_of, seem_interpolated

PICKLED = "Cellpose's NAME_seg.npy is not read, for loading it runs code: save the masks as PNG or TIFF in Cellpose"
WITH_PARTS = {
    "largest": "is trained on as one object, by its largest part",
    "all": "is trained on as one object, of all its parts",
}


class LabelImages(Files):
    """Images with label images, in which every instance has a value of its own and 0 is background.

    The values are what annotations are called, whatever their size and gaps. Regions with values below 0 are ignored,
    neither objects nor background.

    Parameters
    ----------
    root : str or Path
        Holds SPLIT, or is itself the folder.
    split : str, optional
        A folder with ``images/NAME.tif`` and ``masks/NAME.tif`` (or ``labels``), or with both side by side, or with
        such folders in it; or the folders ``images/SPLIT`` and ``masks/SPLIT``. An image may be called NAME_img, a
        label image NAME_masks, NAME_cp_masks, NAME_mask, NAME_labels or NAME_label, and be a .npy of a plain array.
        ``ID/images`` with one image and ``ID/masks`` with a mask for each object are read too.
    config : DataConfig, optional

    Raises
    ------
    DataError
        If no image has a label image, or one has several.
    """

    format = "label images"
    categories = {1: "object"}  # noqa: RUF012

    def __init__(self, root: str | Path, split: str | None = None, config: DataConfig | None = None) -> None:
        super().__init__(config or DataConfig())
        self.root = Path(root)
        self.found = find_pairs(self.root, split or ".")
        self.pairs = self.found.pairs
        if not self.pairs:
            raise DataError(f"{self.root / (split or '.')}: {_why_no_pairs(self.found)}")

    def __len__(self) -> int:
        return len(self.pairs)

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.pairs[index][0]

    def name(self, index: int) -> str:
        """The image's path below the root."""
        return self.path(index).relative_to(self.root).as_posix()

    @property
    def where(self) -> Path:
        """The root."""
        return self.root

    def sources(self, index: int) -> list[Path]:
        """The label image of an image, or its masks where each instance has a file."""
        labels = self.pairs[index][1]
        return labels if isinstance(labels, list) else [labels]

    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """The instances of a label image: one for each value, of which negative ones are ignored."""
        path = self.pairs[index][1]
        if isinstance(path, list):
            return _of_masks(path, size)
        values, rle = labels_to_rle(_labels(path, size))
        found = Instances.of_masks(values.tolist(), [0] * len(values), rle)
        found.crowd = (values < 0).tolist()
        found.ignored = set(np.flatnonzero(values < 0).tolist())
        return found

    def problems(self) -> Iterator[tuple[str, str]]:
        """Images and label images that have no counterpart, and files that are not read."""
        pickled = {path.with_name(path.name.removesuffix("_seg.npy")) for path in self.found.pickled}
        for path in self.found.images:
            why = f" ({PICKLED})" if path.with_suffix("") in pickled else ""
            yield "no label image", f"{path}: no label image belongs to it{why}"
        for path in self.found.labels:
            yield "no image of labels", f"{path}: no image belongs to it"
        yield from not_read(self.found.left_out)

    def remarks(self, index: int, found: Instances) -> Iterator[tuple[str, str]]:
        """Label images that seem to be interpolated, and values that have several parts."""
        objects = [n for n, crowd in enumerate(found.crowd) if not crowd]
        if not objects or isinstance(self.pairs[index][1], list):
            return
        parts = parts_of(RLE.cat(found.select(objects).masks))
        path = self.sources(index)[0]
        if seem_interpolated(parts):
            yield (
                "interpolated labels",
                f"{path}: most values are those of specks and lines, as if it had been resized with interpolation; "
                "resize labels by the nearest neighbour",
            )
        several = np.flatnonzero(parts.count > 1)
        if len(several) and self.config.parts != "split":
            made = WITH_PARTS[self.config.parts]
            if len(objects) == 1:
                about = f"its only value, {found.ids[objects[0]]}, has {parts.count[0]} parts and {made}"
            else:
                value = found.ids[objects[several[0]]]
                about = f"{len(several)} of {len(objects)} values have several parts, such as {value}; each {made}"
            yield (
                "several parts",
                f"{path}: {about} (data.parts={self.config.parts}); data.parts=split trains on each part as an object",
            )


def _why_no_pairs(found: Pairs) -> str:
    if found.pickled:
        return f"expected images and label images, found no label image that can be read; {PICKLED}"
    if found.images or found.labels:
        there = [
            f"{len(paths)} {what} ({', '.join(path.name for path in paths[:3])}{', …' if len(paths) > 3 else ''})"
            for paths, what in ((found.images, "images"), (found.labels, "label images"))
            if paths
        ]
        return (
            f"expected an image and a label image of one name, such as images/a.tif and masks/a.tif, or a.tif and "
            f"a_masks.tif; found no such pair among {' and '.join(there)}"
        )
    return "expected images and label images, found none"


def _labels(path: Path, size: tuple[int, int]) -> np.ndarray:
    labels = read_labels(path)
    if labels.shape != size:
        raise DataError(f"{path}: expected labels of the image's size {size}, got {labels.shape}")
    return labels


def _of_masks(paths: list[Path], size: tuple[int, int]) -> Instances:
    """An instance of each mask; its file is its id."""
    found = Instances(size)
    for path in paths:
        values, mask = labels_to_rle(_labels(path, size))
        if len(values) == 1:
            found.add(path.name, 0, mask)
        else:
            expected = f"expected a mask of one object, 0 and another value, got {len(values)} values beside 0"
            found.problems.append((path.name, AnnotationError("broken", expected)))
    return found
