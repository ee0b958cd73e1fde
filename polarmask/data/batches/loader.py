"""Training batches: which samples, in which order, with which augmentation follows from (seed, epoch, index) alone."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...common.stop import ignore_stop_signals
from ...config import Config
from .. import DataSet
from ..formats.files import log_left_out
from ..images import DataError
from ..sample import Sample
from .augment import augment
from .sampler import StepSampler, repeat_factors

AUGMENT = 1  # keeps this stream of random numbers apart from the order's
TRIES = 1000  # the program stops after so many unusable images in a row


class Augmented(Dataset[Sample]):
    """A data set, each image several times, augmented from a generator keyed by (seed, epoch, index).

    Another image replaces one without instances unless ``data.keep_empty``, and one that cannot be read if
    ``data.invalid`` is skip.
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
        """The image of an index, or another one if it cannot be read and ``data.invalid`` is skip."""
        for _ in range(TRIES):
            try:
                return self.data[index]
            except DataError as error:
                if self.config.data.invalid == "raise":
                    raise
                log_left_out(self.data, error, f"{error}; another image takes its place")
            index = int(rng.integers(len(self.data)))
        raise DataError(f"expected images that can be read, found none among {TRIES}")

    def _another(self, rng: np.random.Generator) -> Sample:
        return self._read(int(rng.integers(len(self.data))), rng)


def collate(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Any]], list[int | str]]:
    """Images and targets, as the model takes them, and the images' ids."""
    return (
        [sample.image for sample in samples],
        [sample.target() for sample in samples],
        [sample.image_id for sample in samples],
    )


def batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of an epoch.

    Raises
    ------
    DataError
        In its own words, without the traceback that torch puts around the error of a worker.
    """
    try:
        yield from loader
    except DataError as error:
        *_, last = str(error).strip().splitlines()
        words = last.removeprefix(f"{DataError.__module__}.{DataError.__qualname__}: ")
        raise DataError(words) from error


def training_loader(
    data: DataSet, config: Config, rank: int = 0, processes: int = 1
) -> tuple[DataLoader[Any], StepSampler]:
    """The batches of an epoch that a process gets; set ``epoch`` of the sampler before each."""
    augmented = Augmented(data, config)
    repeats, groups = np.ones(len(data)), np.zeros(len(data), dtype=int)
    if config.data.group_by_aspect or config.data.repeat_rare:
        truth = data.ground_truth()
        indices = {data.image_id(index): index for index in range(len(data))}
        there = [indices[image["id"]] for image in truth["images"]]  # not those that are left out
        if config.data.group_by_aspect:
            groups[there] = [image["width"] > image["height"] for image in truth["images"]]
        if config.data.repeat_rare:
            categories: defaultdict[int | str, set[int]] = defaultdict(set)
            for entry in truth["annotations"]:
                categories[entry["image_id"]].add(entry["category_id"])
            present = [sorted(categories[image["id"]]) for image in truth["images"]]
            repeats[there] = repeat_factors(present, config.data.repeat_rare)
    sampler = StepSampler(
        np.tile(repeats, config.data.repeat).tolist(),
        np.tile(groups, config.data.repeat).tolist(),
        config.optim.batch_size,
        config.seed,
        rank=rank,
        processes=processes,
        parts=config.optim.accumulate,
    )
    loader = DataLoader(
        augmented,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=config.data.workers,
        worker_init_fn=ignore_stop_signals,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, sampler
