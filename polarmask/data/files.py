"""What all data sets in files share, whatever their format."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..config import DataConfig
from .images import SUFFIXES, DataError, image_size, read_image
from .instances import Instances
from .sample import Sample
from .truth import coco_truth

logger = logging.getLogger("polarmask.data")


class Files(ABC):
    """Images and annotations in files.

    A format says which images there are and what is annotated in each; it is found by its path with
    :func:`polarmask.data.open_data`.

    Parameters
    ----------
    config : DataConfig
        Its ``channels``, ``parts``, ``invalid`` and ``crowd``.
    """

    format: str
    categories: dict[int, str]  # names by the id that results are written with; labels count them from 0

    def __init__(self, config: DataConfig) -> None:
        self.config = config

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def path(self, index: int) -> Path:
        """The file of an image; raises DataError where its name leads out of the folder."""

    @abstractmethod
    def instances(self, index: int, size: tuple[int, int]) -> Instances:
        """What is annotated in an image of that height and width; raises DataError if that cannot be read."""

    def image_id(self, index: int) -> int:
        """What results call an image."""
        return index + 1

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the data set as a whole: a word for a table, and a sentence that names the place."""
        return iter(())

    def __getitem__(self, index: int) -> Sample:
        """An image and its instances.

        Raises
        ------
        DataError
            If the image or an annotation of it cannot be read. With ``invalid="skip"`` annotations are left out and
            logged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{type(self).__name__}: expected an index below {len(self)}, got {index}")
        path = self.path(index)
        image = read_image(path, self.config.channels)
        found = self.instances(index, (image.shape[1], image.shape[2]))
        for annotation, problem in found.problems:
            message = f"{path}: annotation {annotation}: {problem}"
            if self.config.invalid == "raise":
                raise DataError(message)
            logger.warning("%s; left out", message)
        outlines, owner = found.outlines(self.config.parts)
        crowd = torch.tensor(found.crowd, dtype=torch.bool)[owner]
        sample = Sample(
            image=image,
            outlines=outlines,
            labels=torch.tensor(found.labels, dtype=torch.int64)[owner],
            ignore=crowd,
            image_id=self.image_id(index),
        )
        return sample.select(~crowd) if self.config.crowd == "background" else sample

    def ground_truth(self) -> dict[str, Any]:
        """Images, annotations and categories as COCO's JSON holds them: instances with all of their parts."""
        return coco_truth(self._whole(), self.categories)

    def _whole(self) -> Iterator[Sample]:
        for index in range(len(self)):
            try:
                size = image_size(self.path(index))
                found = self.instances(index, size)
            except DataError:
                if self.config.invalid == "raise":
                    raise
                continue
            yield Sample(
                image=torch.zeros(()).expand(3, *size),  # takes no memory, is only asked for its size
                outlines=found.outlines("all")[0],
                labels=torch.tensor(found.labels, dtype=torch.int64),
                ignore=torch.tensor(found.crowd, dtype=torch.bool),
                image_id=self.image_id(index),
            )


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, in the order of their names."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def find_split(root: Path, names: list[str], test: Any) -> str | None:
    """The first of the names for which the format finds its files."""
    return next((name for name in names if test(root, name)), None)
