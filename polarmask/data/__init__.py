"""Data sets, and batches of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from ..config import DataConfig
from .coco import Coco, annotation_file
from .files import Files, logger
from .images import DataError
from .label_images import LabelImages, has_label_images
from .nuclei import Nuclei
from .sample import Sample
from .shapes import Shapes
from .voc import Voc, list_file
from .yolo import Yolo, read_yaml, yaml_file

__all__ = [
    "Coco",
    "DataError",
    "DataSet",
    "Files",
    "LabelImages",
    "Nuclei",
    "Sample",
    "Shapes",
    "Voc",
    "Yolo",
    "build_data",
    "open_data",
    "readable",
]

SPLITS = {"train": ("train2017", "train", "."), "test": ("val2017", "val", "valid", "test")}


class DataSet(Protocol):
    """What the trainer and the evaluation ask of a data set."""

    categories: dict[int, str]  # names by the id that results are written with; labels count them from 0

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def ground_truth(self) -> dict[str, Any]:
        """Images, annotations and categories as COCO's JSON holds them."""


def readable(data: DataSet, invalid: str, indices: Sequence[int] | None = None) -> Iterator[tuple[int, Sample]]:
    """Indices and samples, of all by default; what cannot be read is logged and left out where ``invalid`` is skip."""
    for index in range(len(data)) if indices is None else indices:
        try:
            sample = data[index]
        except DataError as error:
            if invalid == "raise":
                raise
            logger.warning("%s; left out", error)
        else:
            yield index, sample


def build_data(config: DataConfig, part: Literal["train", "test"], seed: int = 0) -> DataSet:
    """The images to train on, or those to evaluate on."""
    if config.dataset == "nuclei":
        return Nuclei(part)
    if config.dataset == "shapes":
        count = config.count if part == "train" else max(config.count // 10, 1)
        return Shapes(count, config.size, seed=seed, part=part)
    split = config.train if part == "train" else config.test
    return open_data(config.root, [split] if split else SPLITS[part], config)


def open_data(
    root: str | Path, splits: list[str] | tuple[str, ...] = SPLITS["train"], config: DataConfig | None = None
) -> Files:
    """The data set that a path leads to, whatever its format.

    Parameters
    ----------
    root : str or Path
        A JSON file (:class:`Coco`), a YAML file or a folder with a data.yaml (:class:`Yolo`), a folder with
        SegmentationObject (:class:`Voc`), or one of the folders that :class:`Coco` and :class:`LabelImages` tell of.
    splits : sequence of str
        Of a folder or a YAML file: the first that is there.
    config : DataConfig, optional

    Raises
    ------
    DataError
        If there is no such data set.
    """
    root = Path(root)
    suffix = root.suffix.lower() if root.is_file() else ""
    if suffix == ".json":
        return Coco(root, None, config)
    is_yolo = suffix in (".yaml", ".yml") or yaml_file(root).is_file()
    content = read_yaml(yaml_file(root)) if is_yolo else {}
    for split in splits:
        if content.get(split):
            return Yolo(root, split, config)
        if is_yolo:
            continue
        if annotation_file(root, split).is_file():
            return Coco(root, split, config)
        if list_file(root, split).is_file():
            return Voc(root, split, config)
        if has_label_images(root, split):
            return LabelImages(root, split, config)
    raise DataError(
        f"{root}: expected a COCO JSON file, a YOLO data.yaml, or a folder with annotations/instances_SPLIT.json, "
        f"data.yaml, ImageSets/Segmentation/SPLIT.txt, SPLIT/images and SPLIT/masks, or SPLIT/*_masks.tif, with SPLIT "
        f"one of {', '.join(splits)}"
    )
