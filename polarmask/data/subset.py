"""Some of the images of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .images import DataError
from .sample import Sample

if TYPE_CHECKING:
    from . import DataSet

SPLIT = 2  # keeps this stream of random numbers apart from those of the order and of the augmentation


class Subset:
    """Some of the images of a data set, which keep their ids.

    Parameters
    ----------
    data : DataSet
    which : int or sequence of int
        The first so many, or all where there are fewer; or their indices.

    Attributes
    ----------
    data : DataSet
        The whole; never a Subset itself.
    indices : list of int
        Of the images in it.
    """

    def __init__(self, data: DataSet, which: int | Sequence[int]) -> None:
        self.indices = list(range(min(which, len(data))) if isinstance(which, int) else which)
        self.data: DataSet = data
        if isinstance(data, Subset):
            self.data, self.indices = data.data, [data.indices[index] for index in self.indices]
        self.categories = data.categories

    @property
    def checked(self) -> bool:
        """Whether :func:`check_data` has logged what is left out."""
        return getattr(self.data, "checked", False)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"Subset: expected an index below {len(self)}, got {index}")
        return self.data[self.indices[index]]

    def image_id(self, index: int) -> int | str:
        """What the whole data set calls the image."""
        return self.data.image_id(self.indices[index])

    def ground_truth(self, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """The whole data set's ground truth, of these images."""
        chosen = self.indices if indices is None else [self.indices[index] for index in indices]
        return self.data.ground_truth(chosen)

    def fingerprint(self) -> dict[str, Any]:
        """The whole data set's fingerprint, with a digest of the chosen indices."""
        digest = hashlib.sha256(repr(self.indices).encode()).hexdigest()
        return {**self.data.fingerprint(), "subset": digest, "images": len(self)}


def split_indices(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train and to evaluate on: disjoint, all of them, drawn by the seed, at least one of each.

    Examples
    --------
    >>> train, test = split_indices(10, 0.2, seed=0)
    >>> len(train), len(test), sorted(train + test) == list(range(10))
    (8, 2, True)

    Raises
    ------
    DataError
        If there are fewer than two images.
    """
    if count < 2:
        raise DataError(f"data.val_fraction: expected at least two images to divide, got {count}")
    test = min(max(round(count * fraction), 1), count - 1)
    order = np.random.default_rng([SPLIT, seed]).permutation(count)
    return sorted(order[test:].tolist()), sorted(order[:test].tolist())
