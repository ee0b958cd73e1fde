"""Checks of a data set before the first step, for the audit and training alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from polarmask_ops import RLE, Outlines

from ..config import DataConfig
from .formats.files import Files, logger
from .images import DataError, check_channels, image_remarks, image_size, is_float, read_image
from .instances import Instances
from .problems import ERRORS, WARNINGS, Note, Problems
from .sample import fit
from .subset import Subset

if TYPE_CHECKING:
    from . import DataSet

NOTHING = "no instances to train on"
LOOKED_AT = 10  # images whose pixels are read, to check the range of their values


def check_image(data: Files, index: int, note: Note, *, decode: bool = False) -> Instances | None:
    """Reads the instances of an image and notes its problems; returns None if it cannot be read.

    Parameters
    ----------
    data : Files
    index : int
    note : callable
        Is given a key of ERRORS and a sentence that names the file, for each problem.
    decode : bool
        Whether the image is read as a whole, or only its header. One of floats is read in any case: it may hold NaN.
    """
    try:
        path = data.path(index)
        if decode or is_float(path):
            image = read_image(path, data.config.channels)
            size = (image.shape[1], image.shape[2])
        else:
            check_channels(path, data.config.channels)
            size = image_size(path)
    except DataError as error:
        note("unreadable image", str(error))
        return None
    try:
        found = data.instances(index, size)
    except DataError as error:
        note("unreadable annotations", str(error))
        return None
    for id, problem in found.problems:
        note(problem.kind, f"{path}: annotation {id}: {problem}")
    for kind, sentence in data.remarks(index, found):
        note(kind, sentence)
    return found


@dataclass
class Trained:
    """The instances of an image in the network's frame, before augmentation.

    Attributes
    ----------
    outlines : Outlines
        Of K shapes: of each instance's largest part, of all parts, or of each part, as ``data.parts`` says; cut at the
        image's borders.
    owner : Tensor, shape (K,), int64
        The instance of each.
    rows : Tensor, shape (N,), int64
        Those that are trained on: no crowds, and no smaller than ``min_area`` and ``min_side``.
    left_out : list of (str, int)
        Kinds of WARNINGS, and the instances that are not trained on for that reason.
    size : (int, int)
        Height and width.
    factors : (float, float)
        From the image's x and y to the network's.
    """

    outlines: Outlines
    owner: Tensor
    rows: Tensor
    left_out: list[tuple[str, int]]
    size: tuple[int, int]
    factors: tuple[float, float]


def trained(found: Instances, config: DataConfig, whole: Outlines | None = None) -> Trained:
    """The instances of an image as training uses them; ``whole`` is ``found.outlines("all")[0]``, if it is known."""
    size, factors = _frame(found.size, config)
    whole = found.outlines("all")[0] if whole is None else whole
    outlines, owner = found.outlines(config.parts)
    areas, inside = whole.areas(), whole.clip(found.size).areas()
    left_out = [("empty", n) for n in torch.nonzero(areas <= 0)[:, 0].tolist()]
    left_out += [("outside", n) for n in torch.nonzero((areas > 0) & (inside <= 0))[:, 0].tolist()]
    outlines = outlines.scale(*factors).clip(size)
    areas, boxes = outlines.areas(), outlines.boxes()
    large = (areas >= config.min_area) & ((boxes[:, 2:] - boxes[:, :2]).amax(1) >= config.min_side) & (areas > 0)
    crowd = torch.tensor(found.crowd, dtype=torch.bool)[owner]
    left_out += [("too small", int(owner[n])) for n in torch.nonzero(~large & (areas > 0) & ~crowd)[:, 0].tolist()]
    return Trained(outlines, owner, torch.nonzero(large & ~crowd)[:, 0], left_out, size, factors)


def check_data(data: DataSet, part: Literal["train", "test"]) -> None:
    """Checks the header of every image and every annotation, before the first step or evaluation.

    Pixels are read of images of floats, which may hold NaN, and of about ten others.

    Problems that do not stop training (annotations without area, beside their image, of images that are not there, …)
    are logged in one warning, with counts and the first places.

    Parameters
    ----------
    data : DataSet
        Generated data, which are not read from files, need no checks.
    part : {"train", "test"}
        The use of the data. Training data must hold instances.

    Raises
    ------
    DataError
        With every kind of problem that stops training (``ERRORS``), how often and where; unless ``data.invalid`` is
        skip: then a warning says the same, and what is wrong is left out.
    """
    name = {"train": "the training data", "test": "the data to evaluate on"}[part]
    if len(data) == 0:
        raise DataError(f"{name}: expected images, got none{_place(data)}")
    whole, indices = _files(data)
    if whole is None:
        return
    problems = Problems()
    for kind, where in whole.problems():
        problems.note(kind, where)
    count, crowds, readable = 0, 0, 0
    looked_at = set(_spread(indices))
    for index in indices:
        found = check_image(whole, index, problems.note, decode=index in looked_at)
        if found is None:
            continue
        readable += 1
        crowds += sum(found.crowd)
        doubtful = _doubtful(found, whole.config)
        count += len(found) - sum(found.crowd) - len(doubtful)
        if doubtful:
            chosen = found.select(doubtful)
            frame = trained(chosen, whole.config)
            count += len(frame.rows if part == "train" else doubtful)
            for kind, n in frame.left_out:
                if part == "train" or kind != "too small":  # nothing is too small to be evaluated on
                    problems.note(kind, f"{whole.name(index)}: annotation {chosen.ids[n]}")
        for n, kind in found.doubts:
            problems.note(kind, f"{whole.name(index)}: annotation {found.ids[n]}")
    for kind, sentence in pixel_remarks(whole, indices):
        problems.note(kind, sentence)
    where = _place(data)
    if errors := problems.summary(ERRORS):
        if whole.config.invalid == "raise":
            raise DataError(f"{name}{where}: {errors}; data.invalid=skip leaves them out")
        logger.warning("%s%s: left out: %s", name, where, errors)
    if readable == 0:
        raise DataError(f"{name}{where}: expected images, found none that can be read")
    if count == 0 and part == "train":
        raise DataError(f"{name}{where}: {NOTHING}{why_nothing(crowds, problems)}")
    if count == 0:
        logger.warning("%s%s: no instances to find, so that AP is -1", name, where)
    if warnings := problems.summary(WARNINGS):
        logger.warning("%s%s: %s", name, where, warnings)
    mark_checked(data)


def mark_checked(data: DataSet) -> None:
    """Keeps the readers of this process from logging again what :func:`check_data` has logged."""
    whole, _ = _files(data)
    if whole is not None:
        whole.checked = True


def pixel_remarks(data: Files, indices: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Remarks on the pixels of some images, evenly spread, which are read as a whole: a kind and a sentence each."""
    for index in _spread(indices):
        with suppress(DataError):  # check_image, which reads the same images, has noted it
            yield from image_remarks(data.path(index), data.config.channels, data.config.percentiles is not None)


def _spread(indices: Sequence[int]) -> Sequence[int]:
    return indices[:: max(len(indices) // LOOKED_AT, 1)]


def why_nothing(crowds: int, problems: Problems) -> str:
    """Why there are no instances to train on, and which option helps."""
    if crowds:
        return f": {crowds} are crowds; data.crowd=instance trains on them"
    return f" ({left_out})" if (left_out := problems.summary(WARNINGS)) else ""


def check_categories(train: DataSet, test: DataSet) -> None:
    """Raises a DataError where ``test`` has a category, by id and name, that ``train`` has not.

    Examples
    --------
    >>> from polarmask.data import Shapes
    >>> check_categories(Shapes(2), Shapes(1, part="test"))
    """
    unknown = dict(sorted(set(test.categories.items()) - set(train.categories.items())))
    if unknown:
        raise DataError(
            f"the data to evaluate on{_place(test)}: expected the categories of the training data, {train.categories}, "
            f"got also {unknown}"
        )


def _files(data: DataSet) -> tuple[Files | None, Sequence[int]]:
    """The files of a data set, and which images of them it has."""
    whole, indices = (data.data, data.indices) if isinstance(data, Subset) else (data, range(len(data)))
    return whole if isinstance(whole, Files) else None, indices


def _place(data: DataSet) -> str:
    files, _ = _files(data)
    return f" ({files.where})" if files is not None else ""


def _frame(size: tuple[int, int], config: DataConfig) -> tuple[tuple[int, int], tuple[float, float]]:
    """Height and width of an image in the network's frame, and the factors of x and y."""
    target = size if config.resize is None else fit(size, config.resize, config.keep_aspect)
    return target, (target[1] / size[1], target[0] / size[0])


def _doubtful(found: Instances, config: DataConfig) -> list[int]:
    """Positions of the instances, other than crowds, that may be too small to be trained on.

    :func:`trained` decides exactly, but takes milliseconds for an image. Lower bounds of areas and sides show for most
    instances that they are far larger than ``min_area``.
    """
    _, (fx, fy) = _frame(found.size, config)
    bounds = {n: _least_of_rings(rings, found.size) for n, rings in found.rings.items()}
    runs = zip(found.masked, _longest_runs(found.masks), strict=True)
    bounds |= {n: (run / 2, run / 2) for n, run in runs}  # a run may reach into the next column
    return [
        n
        for n, (area, side) in sorted(bounds.items())
        if not found.crowd[n]
        and (
            (config.parts == "split" and len(found.rings.get(n, [])) != 1)
            or not (area * fx * fy > 2 * config.min_area and side * min(fx, fy) > config.min_side)
        )
    ]


def _least_of_rings(rings: list[np.ndarray], size: tuple[int, int]) -> tuple[float, float]:
    """Lower bounds of the area and of the longer side that the largest part of a polygon has in its image."""
    areas, boxes = [], []
    for ring in rings:
        x, y = ring.astype(np.float64).T
        areas.append(abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1])) / 2)
        boxes.append((*ring.min(0).tolist(), *ring.max(0).tolist()))
    largest = int(np.argmax(areas))
    left, top, right, bottom = boxes[largest]
    width, height = right - left, bottom - top
    beyond_x = max(-left, 0.0) + max(right - size[1], 0.0)
    beyond_y = max(-top, 0.0) + max(bottom - size[0], 0.0)
    area = 2 * areas[largest] - sum(areas) - beyond_x * height - beyond_y * width
    return area, max(width - beyond_x, height - beyond_y)


def _longest_runs(masks: list[RLE]) -> Iterator[int]:
    """The longest run of pixels of each mask."""
    for rle in masks:
        counts, offsets = rle.counts.numpy(), rle.offsets.tolist()
        for begin, end in pairwise(offsets):
            yield int(counts[begin + 1 : end : 2].max(initial=0))
