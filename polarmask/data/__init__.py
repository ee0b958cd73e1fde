"""Data sets, and batches of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, overload

from ..config import DataConfig
from .check import check_categories, check_data, mark_checked
from .formats.coco import Coco
from .formats.coco_images import annotation_file
from .formats.files import Files, log_left_out
from .formats.label_images import LabelImages
from .formats.label_pairs import has_label_images
from .formats.voc import Voc, list_file
from .formats.yolo import Yolo
from .formats.yolo_files import read_yaml, yaml_file
from .images import DataError
from .nuclei import Nuclei
from .sample import Sample
from .shapes import Shapes
from .subset import Subset, split_indices

__all__ = [
    "Coco",
    "DataError",
    "DataSet",
    "Files",
    "LabelImages",
    "Nuclei",
    "Sample",
    "Shapes",
    "Subset",
    "Voc",
    "Yolo",
    "build_data",
    "check_categories",
    "check_data",
    "data_to_evaluate",
    "mark_checked",
    "open_data",
    "readable",
]

SPLITS = {"train": ("train2017", "train", "."), "test": ("val2017", "val", "valid", "test")}


class DataSet(Protocol):
    """The interface of data sets for the trainer and the evaluation."""

    categories: dict[int, str]  # names by the id that results are written with; labels count them from 0

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def image_id(self, index: int) -> int | str:
        """The image's id in results and in the ground truth."""

    def ground_truth(self, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """Images, annotations and categories as COCO's JSON holds them; of all images or of some."""

    def fingerprint(self) -> dict[str, Any]:
        """Plain values that change with the images' names, the annotations and the categories."""


def readable(data: DataSet, invalid: str, indices: Sequence[int] | None = None) -> Iterator[tuple[int, Sample]]:
    """Indices and samples, of all by default; what cannot be read is logged and left out where ``invalid`` is skip."""
    for index in range(len(data)) if indices is None else indices:
        try:
            sample = data[index]
        except DataError as error:
            if invalid == "raise":
                raise
            log_left_out(data, error, f"{error}; left out")
        else:
            yield index, sample


@overload
def build_data(config: DataConfig, part: Literal["train"], seed: int = 0) -> DataSet: ...


@overload
def build_data(config: DataConfig, part: Literal["test"], seed: int = 0) -> DataSet | None: ...


def build_data(config: DataConfig, part: Literal["train", "test"], seed: int = 0) -> DataSet | None:
    """The images to train on, or those to evaluate on.

    With ``val_fraction`` both are parts of the training images, whatever else is there. Without it, the images to
    evaluate on are those of ``test``, or of the first split with one of the usual names; None where there is neither.

    Raises
    ------
    DataError
        If there are no such data, or both ``val_fraction`` and ``test`` are given.
    """
    if config.val_fraction:
        if config.test is not None:
            raise DataError(
                f"data: expected val_fraction or test, got both ({config.val_fraction} and {config.test}): the images "
                f"to evaluate on are either a share of the training images or a split of their own"
            )
        whole = _open_part(config, "train", seed)
        assert whole is not None
        train, test = split_indices(len(whole), config.val_fraction, seed)
        return Subset(whole, train if part == "train" else test)
    return _open_part(config, part, seed)


def data_to_evaluate(config: DataConfig, seed: int = 0) -> DataSet:
    """``build_data(config, "test", seed)``, or a DataError where that is None."""
    data = build_data(config, "test", seed)
    if data is None:
        raise DataError(
            f"{config.root}: expected images to evaluate on, found none: set data.test to a split or a JSON file, or "
            f"data.val_fraction to a share of the training images"
        )
    return data


def _open_part(config: DataConfig, part: Literal["train", "test"], seed: int) -> DataSet | None:
    """Opens the images of a part; returns None if those to evaluate on are neither named nor found."""
    if config.dataset == "nuclei":
        return Nuclei(part)
    if config.dataset == "shapes":
        count = config.count if part == "train" else max(config.count // 10, 1)
        return Shapes(count, config.size, seed=seed, part=part)
    split = config.train if part == "train" else config.test
    if part == "train" or split is not None:
        return open_data(config.root, [split] if split else SPLITS[part], config)
    # A single JSON file holds the training images; it is evaluated on only if data.test names it.
    return None if _is_json(Path(config.root)) else _find(Path(config.root), SPLITS["test"], config)


def open_data(root: str | Path, splits: Sequence[str] = SPLITS["train"], config: DataConfig | None = None) -> Files:
    """The data set that a path leads to, whatever its format.

    Parameters
    ----------
    root : str or Path
        A JSON file (:class:`Coco`), a YAML file or a folder with a data.yaml (:class:`Yolo`), a folder with
        SegmentationObject (:class:`Voc`), or one of the folders that :class:`Coco` and :class:`LabelImages` tell of.
    splits : sequence of str
        Of a folder or a YAML file: the first that is there. One that ends with .json is the path of a JSON file,
        relative to ``root`` (or to its folder, where it is a file) or as given.
    config : DataConfig, optional

    Raises
    ------
    DataError
        If there is no such data set.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root}: expected a data set (data.root), found no file or folder of this name")
    found = _find(root, splits, config)
    if found is None:
        raise DataError(
            f"{root}: expected a COCO JSON file, a YOLO data.yaml, or a folder with annotations/instances_SPLIT.json, "
            f"SPLIT.json, instances_SPLIT.json, SPLIT/_annotations.coco.json, data.yaml, "
            f"ImageSets/Segmentation/SPLIT.txt, SPLIT/images and SPLIT/masks, or SPLIT/*_masks.tif, with SPLIT one of "
            f"{', '.join(splits)}"
        )
    return found


def _find(root: Path, splits: Sequence[str], config: DataConfig | None) -> Files | None:
    """The first of the splits, or None where there is none."""
    for split in splits:
        if split.lower().endswith(".json"):
            return Coco(_json_file(root, split), None, config)
    if _is_json(root):
        return Coco(root, None, config)
    is_yolo = _is_yaml(root) or yaml_file(root).is_file()
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
    return None


def _is_json(root: Path) -> bool:
    return root.suffix.lower() == ".json" and root.is_file()


def _is_yaml(root: Path) -> bool:
    return root.suffix.lower() in (".yaml", ".yml") and root.is_file()


def _json_file(root: Path, name: str) -> Path:
    tried = [(root.parent if root.is_file() else root) / name, Path(name)]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise DataError(f"{name}: expected a JSON file, found none; tried {tried[0]} and {tried[1].absolute()}")
    return found
