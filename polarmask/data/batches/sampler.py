"""The images of each step of an epoch, as a function of (seed, epoch): all processes compute the same order."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

ORDER = 0  # keeps this stream of random numbers apart from the augmentation's


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The batches of one process, as lists of (epoch, index).

    A step's images do not depend on the number of processes or on how many parts gradients are accumulated over: each
    process gets its share of every part.

    Parameters
    ----------
    repeats : sequence of float
        How often each image is shown in an epoch, on average; the number of steps is the same in every epoch.
    groups : sequence of int
        Of each image. Steps have images of one group, but for the last ones, where groups are used up.
    batch_size : int
        Images in a step. Where there are fewer, a step has all of them; what is left over at the end is dropped.
    seed : int
    rank, processes, parts : int
        This process, how many there are, and the parts of a step.

    Attributes
    ----------
    epoch : int
        Set it before each epoch.
    skip : int
        Steps of the next epoch to leave out; back to 0 after it has begun.

    Raises
    ------
    ValueError
        If the images of a step cannot be divided evenly.
    """

    def __init__(
        self,
        repeats: Sequence[float],
        groups: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        processes: int = 1,
        parts: int = 1,
    ) -> None:
        self.bounds = np.cumsum(repeats)
        self.groups = np.asarray(groups)
        self.images = int(self.bounds[-1] + 1e-6) if len(self.bounds) else 0
        self.batch_size = max(min(batch_size, self.images), 1)
        self.steps = self.images // self.batch_size
        self.seed, self.rank, self.processes, self.parts = seed, rank, processes, parts
        self.epoch = self.skip = 0
        if self.images and self.batch_size % (processes * parts):
            raise ValueError(
                f"StepSampler: expected a batch size that is a multiple of processes * parts ({processes} * {parts}), "
                f"got {self.batch_size}"
            )

    def __len__(self) -> int:
        return (self.steps - self.skip) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        begin, self.skip = self.skip, 0
        share = self.processes * self.parts
        for batch in self.batches()[begin:]:
            for part in range(self.parts):
                yield [(self.epoch, index) for index in batch[part * self.processes + self.rank :: share]]

    def batches(self) -> list[list[int]]:
        """The images of each step of the epoch, of all processes."""
        rng = np.random.default_rng([ORDER, self.seed, self.epoch])
        # Evenly spaced over the repeats, so that each image comes that often, rounded down or up at random.
        at = rng.random() + np.arange(self.images)
        shown = np.minimum(np.searchsorted(self.bounds, at, side="right"), len(self.bounds) - 1)
        batches: list[list[int]] = []
        waiting: defaultdict[int, list[int]] = defaultdict(list)
        for index in rng.permutation(shown)[: self.steps * self.batch_size].tolist():
            group = waiting[int(self.groups[index])]
            group.append(index)
            if len(group) == self.batch_size:
                batches.append(group.copy())
                group.clear()
        rest = [index for _, group in sorted(waiting.items()) for index in group]
        return batches + [rest[n : n + self.batch_size] for n in range(0, len(rest), self.batch_size)]


def repeat_factors(categories: Sequence[Sequence[int]], threshold: float) -> list[float]:
    """How often to show each image so that rare categories come often enough.

    ``categories`` are those of each image. A category in a share f of the images asks for sqrt(threshold / f) showings,
    and at least one; an image is shown as often as its rarest category asks (LVIS, Gupta et al. 2019, section B).
    """
    images_with: defaultdict[int, int] = defaultdict(int)
    for present in categories:
        for category in set(present):
            images_with[category] += 1
    factor = {c: max(1.0, (threshold * len(categories) / n) ** 0.5) for c, n in images_with.items()}
    return [max((factor[category] for category in present), default=1.0) for present in categories]
