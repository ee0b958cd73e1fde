"""Parts of the instances of a label image, and what they tell of how it was made."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from polarmask_ops import RLE

THIN = 0.6  # area over perimeter, in pixels, up to 2 × 2 pixels or a line; a square of 3 × 3 has 0.75


@dataclass
class Parts:
    """The 8-connected parts of M masks.

    Attributes
    ----------
    count : array, shape (M,), int
    thin : array, shape (M,), int
        Parts that are lines, or specks of a few pixels.
    """

    count: np.ndarray
    thin: np.ndarray


def parts_of(masks: RLE) -> Parts:
    """Counts the parts of each mask, run by run: the number of pixels does not matter.

    Examples
    --------
    >>> import torch
    >>> parts_of(RLE.from_masks(torch.tensor([[[1, 0, 1], [0, 0, 1]]], dtype=torch.bool))).count.tolist()
    [2]
    """
    column, top, bottom, owner = _runs(masks)
    height = masks.size[0] + 2  # keeps the last row of a column apart from the first one of the next
    begin, end = column * height + top, column * height + bottom
    # In each mask, the runs of the next column whose rows touch those of a run, at a corner too.
    span = (masks.size[1] + 2) * height
    begins, ends = owner * span + begin, owner * span + end
    first = np.searchsorted(ends, begins + height, "left")
    last = np.searchsorted(begins, ends + height, "right")
    counts = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(begin)), counts)
    two = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    graph = coo_array((np.ones(len(one), bool), (one, two)), shape=(len(begin), len(begin)))
    number, part = connected_components(graph, directed=False)
    shared = np.minimum(bottom[one], bottom[two]) - np.maximum(top[one], top[two])
    sides = np.bincount(part[one], np.maximum(shared, 0), number)  # between pixels of neighbouring columns
    area = np.bincount(part, bottom - top, number)
    perimeter = 2 * (np.bincount(part, minlength=number) + area - sides)
    of = np.zeros(number, np.int64)
    of[part] = owner
    return Parts(
        np.bincount(of, minlength=len(masks)), np.bincount(of, area < THIN * perimeter, len(masks)).astype(int)
    )


def seem_interpolated(parts: Parts) -> bool:
    """Whether most instances consist of specks and lines, as after resizing a label image as if it were a picture."""
    specks = (parts.thin == parts.count) & (parts.count > 0)
    scattered = specks & (parts.count > 1)
    total = len(parts.count)
    return int((parts.thin >= 3).sum()) >= max(3, total / 2) or (
        int(specks.sum()) >= total / 2 and int(scattered.sum()) >= max(3, total / 5)
    )


def _runs(masks: RLE) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Column, first row, row behind the last, and mask of each run of pixels, cut where a column ends."""
    height = masks.size[0]
    counts, offsets = masks.counts.numpy().astype(np.int64), masks.offsets.numpy()
    owner = np.repeat(np.arange(len(masks)), np.diff(offsets))
    before = np.cumsum(counts) - counts
    begin = before - before[np.minimum(offsets[:-1], max(len(counts) - 1, 0))][owner] if len(counts) else before
    place = np.arange(len(counts)) - offsets[:-1][owner]
    matter = (place % 2 == 1) & (counts > 0)
    begin, owner = begin[matter], owner[matter]
    end = begin + counts[matter]
    first, last = begin // height, (end - 1) // height
    pieces = last - first + 1
    of = np.repeat(np.arange(len(begin)), pieces)
    column = first[of] + np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    top = np.maximum(begin[of] - column * height, 0)
    bottom = np.minimum(end[of] - column * height, height)
    return column, top, bottom, owner[of]
