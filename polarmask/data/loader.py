"""Training batches: which samples, in which order, with which augmentation follows from (seed, epoch, index) alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import Config
from . import DataSet
from .augment import augment
from .files import logger
from .images import DataError
from .sample import Sample

ORDER, AUGMENT = 0, 1  # keep the two streams of random numbers apart
TRIES = 1000  # images that may be unfit in a row


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) pairs in an order that is a function of (seed, epoch)."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([ORDER, self.seed, self.epoch]).permutation(self.length)
        return ((self.epoch, int(index)) for index in order)


class Augmented(Dataset[Sample]):
    """A data set, each image several times, augmented from a generator keyed by (seed, epoch, index).

    Another image takes the place of one without instances, where those are not wanted, and of one that cannot be read,
    where that is not to stop the program.
    """

    def __init__(self, data: DataSet, config: Config) -> None:
        self.data, self.config = data, config

    def __len__(self) -> int:
        return len(self.data) * self.config.data.repeat

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        rng = np.random.default_rng([AUGMENT, self.config.seed, epoch, index])
        index %= len(self.data)
        for _ in range(TRIES):
            sample = augment(self._read(index, rng), self.config.data, rng, lambda: self._another(rng))
            if len(sample.labels) or self.config.data.keep_empty:
                return sample
            index = int(rng.integers(len(self.data)))
        raise DataError(f"expected images with instances, found none among {TRIES}")

    def _read(self, index: int, rng: np.random.Generator) -> Sample:
        """That image, or another where it cannot be read."""
        for _ in range(TRIES):
            try:
                return self.data[index]
            except DataError as error:
                if self.config.data.invalid == "raise":
                    raise
                logger.warning("%s; another image takes its place", error)
            index = int(rng.integers(len(self.data)))
        raise DataError(f"expected images that can be read, found none among {TRIES}")

    def _another(self, rng: np.random.Generator) -> Sample:
        return self._read(int(rng.integers(len(self.data))), rng)


def collate(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Images and targets, as the model takes them."""
    return [sample.image for sample in samples], [sample.target() for sample in samples]


def training_loader(data: DataSet, config: Config) -> tuple[DataLoader[Any], EpochSampler]:
    """Batches of an epoch; set ``epoch`` of the sampler before each."""
    augmented = Augmented(data, config)
    sampler = EpochSampler(len(augmented), config.seed)
    loader = DataLoader(
        augmented,
        batch_size=config.optim.batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=config.data.workers,
        drop_last=len(augmented) > config.optim.batch_size,
    )
    return loader, sampler
