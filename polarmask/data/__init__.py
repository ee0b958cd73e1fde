"""Data sets, and batches of them."""

from typing import Any, Literal, Protocol

from ..config import DataConfig
from .coco import Coco
from .nuclei import Nuclei
from .sample import Sample
from .shapes import Shapes

__all__ = ["Coco", "DataSet", "Nuclei", "Sample", "Shapes", "build_data"]


class DataSet(Protocol):
    """What the trainer and the evaluation ask of a data set."""

    categories: dict[int, str]  # names by the id that results are written with; labels count them from 0

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def ground_truth(self) -> dict[str, Any]:
        """Images, annotations and categories as COCO's JSON holds them."""


def build_data(config: DataConfig, part: Literal["train", "test"], seed: int = 0) -> DataSet:
    """The images to train on, or those to evaluate on."""
    if config.dataset == "nuclei":
        return Nuclei(part)
    if config.dataset == "shapes":
        count = config.count if part == "train" else max(config.count // 10, 1)
        return Shapes(count, config.size, seed=seed, part=part)
    return Coco(config.root, config.train if part == "train" else config.test)
