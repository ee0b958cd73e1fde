"""Collects the problems of a data set and the IoU that rays can reach, before anything is trained."""

import csv
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polarmask_ops import Outlines, cast_rays, rays_to_polygons

from ..common.files import writing
from ..config import Config
from ..data import Files
from ..data.check import NOTHING, check_image, pixel_remarks, trained, why_nothing
from ..data.instances import Instances
from ..data.problems import ERRORS, Problems
from .geometry import ceilings, claimed, contains, crosses

RAYS = (16, 24, 36, 72, 128)
WORST = 12  # instances of the lowest IoU that are shown
SHOWN_FROM = 256.0  # square pixels: in smaller instances pixels limit the IoU more than rays do
BEYOND = 1.0  # pixels by which an annotation may reach out of its image, or differ from its stated box
BINS = 4  # bins per octave of the histograms
OCTAVES = 20


@dataclass
class ClassAudit:
    """Sums over the instances of a class, so that memory does not grow with their number."""

    instances: int = 0
    crowds: int = 0
    small: int = 0  # below 32² pixels
    large: int = 0  # from 96² pixels on
    parts: int = 0  # instances of several parts, or with holes
    outside: int = 0  # centroids that are not in their instance
    measured: int = 0
    ceiling: np.ndarray = field(default_factory=lambda: np.zeros(len(RAYS)))  # sums of IoU
    sides: np.ndarray = field(default_factory=lambda: np.zeros(BINS * OCTAVES, np.int64))  # log2 of the shorter side
    reach: np.ndarray = field(
        default_factory=lambda: np.zeros(BINS * OCTAVES, np.int64)
    )  # of the box from the centroid

    def __add__(self, other: "ClassAudit") -> "ClassAudit":
        return ClassAudit(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def means(self) -> np.ndarray:
        """Mean IoU for each of RAYS."""
        return self.ceiling / max(self.measured, 1)


@dataclass(order=True)
class Worst:
    """An instance of a low IoU."""

    priority: float  # −IoU
    number: int
    image: int = field(compare=False)
    id: Any = field(compare=False)
    category: str = field(compare=False)
    outlines: Outlines = field(compare=False)  # original pixels
    polygon: Tensor = field(compare=False)  # (R, 2), what the rays reach


@dataclass
class Audit:
    """What :func:`audit` finds."""

    data: Files
    config: Config
    images: int = 0
    empty_images: int = 0
    classes: dict[str, ClassAudit] = field(default_factory=dict)
    noted: Problems = field(default_factory=Problems)
    points: int = 0  # that are assigned to some instance
    contested: int = 0  # that could be assigned to several
    worst: list[Worst] = field(default_factory=list)
    seen: int = 0  # instances that were compared with them

    @property
    def total(self) -> ClassAudit:
        """The sums over all classes."""
        return sum(self.classes.values(), ClassAudit())

    @property
    def problems(self) -> Counter[str]:
        """How often each kind of problem was found."""
        return self.noted.counts

    @property
    def examples(self) -> dict[str, list[str]]:
        """Some places of each kind."""
        return self.noted.examples

    @property
    def reasons(self) -> list[str]:
        """Why training may not start."""
        found = self.noted.of(ERRORS) if self.config.data.invalid == "raise" else []
        total = self.total
        if total.measured == 0:
            found.append(NOTHING + why_nothing(total.crowds, self.noted))
        return found


def audit(
    data: Files,
    config: Config,
    problems: Path | None = None,
    decode: bool = True,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> Audit:
    """Audits every image and annotation of a data set, in memory that does not grow with their number.

    Parameters
    ----------
    data : Files
    config : Config
        Sizes are those of the network's input, after ``data.resize``; the points are those of ``model.strides``,
        ``ranges`` and ``center_radius``; ``data.parts`` says what is trained on.
    problems : Path, optional
        A CSV file that is written, with a row for each problem: kind and place.
    decode : bool
        Whether images are read as a whole, or only their headers.
    progress : callable
        Wraps the iterator over the images, to show progress.

    Notes
    -----
    The ceiling of R rays is the IoU of an instance, with all of its parts and holes, and of the polygon that rays from
    the centroid of what is trained on reach: no detector can do better there. It is counted in pixels, as COCO does,
    for instances up to 1,024 pixels in size.
    """
    result = Audit(data, config, classes={name: ClassAudit() for name in data.categories.values()})
    with ExitStack() as stack:
        rows = None
        if problems is not None:
            temporary = stack.enter_context(writing(problems))
            rows = csv.writer(stack.enter_context(temporary.open("w", newline="", errors="backslashreplace")))
            rows.writerow(["kind", "place"])

        def note(kind: str, where: str) -> None:
            result.noted.note(kind, where)
            if rows is not None:
                rows.writerow([kind, where])

        for kind, where in data.problems():
            note(kind, where)
        for kind, where in pixel_remarks(data, range(len(data))) if decode else ():
            note(kind, where)
        for index in progress(iter(range(len(data)))):
            _image(result, index, decode, note)
    result.worst.sort(reverse=True)
    return result


def _image(result: Audit, index: int, decode: bool, note: Callable[[str, str], None]) -> None:
    data = result.data
    result.images += 1
    found = check_image(data, index, note, decode=decode)
    if found is None:
        return
    path, size = data.path(index), found.size

    def at(n: int) -> str:
        return f"{path}: annotation {found.ids[n]}"

    result.empty_images += len(found) == 0
    whole, _ = found.outlines("all")
    _check(found, whole, size, lambda kind, n: note(kind, at(n)))
    _measure(result, index, found, whole, lambda kind, n: note(kind, at(n)))


def _check(found: Instances, whole: Outlines, size: tuple[int, int], note: Callable[[str, int], None]) -> None:
    """Notes the problems of single annotations."""
    areas, boxes, inside = whole.areas().double(), whole.boxes().double(), whole.clip(size).areas()
    limits = torch.tensor([size[1], size[0]])
    reach = torch.maximum(-boxes[:, :2], boxes[:, 2:] - limits).amax(1)
    for n in torch.nonzero((areas > 0) & (inside > 0) & (reach > BEYOND))[:, 0].tolist():
        note("out of image", n)
    for n, rings in found.rings.items():
        crossing = crosses(rings)
        if crossing is not False:
            note("not checked" if crossing is None else "self-crossing", n)
    for n, kind in found.doubts:
        note(kind, n)
    for n, stated in found.stated.items():
        if "bbox" in stated:
            left, top, width, height = map(float, stated["bbox"])
            want = torch.tensor([left, top, left + width, top + height], dtype=torch.float64)
            if not bool((boxes[n] - want).abs().max() <= BEYOND + 1):  # COCO's own boxes are rounded, by up to a pixel
                note("box differs", n)
    _, first = np.unique(_fingerprints(found, whole), axis=0, return_index=True)
    repeated = np.setdiff1d(np.flatnonzero(areas.numpy() > 0), first)
    for n in repeated.tolist():
        note("duplicate", n)


def _fingerprints(found: Instances, whole: Outlines) -> np.ndarray:
    """Numbers that two instances share only if one repeats the other."""
    columns = [whole.boxes(), whole.areas()[:, None], whole.centroids().nan_to_num(), whole.offsets.diff()[:, None]]
    return np.column_stack([np.array(found.labels, np.float64), *(column.double().numpy() for column in columns)])


def _measure(result: Audit, index: int, found: Instances, whole: Outlines, note: Callable[[str, int], None]) -> None:
    """Adds sizes, IoU ceilings and points of an image's instances, in the network's frame."""
    config = result.config
    frame = trained(found, config.data, whole)
    for kind, n in frame.left_out:
        note(kind, n)
    reference = frame.outlines if config.data.parts == "split" else whole.scale(*frame.factors).clip(frame.size)
    several = (whole.offsets.diff() != found.outlines("largest")[0].offsets.diff()).tolist()
    names = list(result.data.categories.values())
    for n, (label, is_crowd) in enumerate(zip(found.labels, found.crowd, strict=True)):
        of = result.classes[names[label]]
        of.instances += 1
        of.crowds += is_crowd
        of.parts += several[n] and not is_crowd
    rows = frame.rows
    if not len(rows):
        return
    shapes, reference, owner = frame.outlines[rows], reference[rows], frame.owner[rows]
    areas, boxes, centers = shapes.areas(), shapes.boxes(), shapes.centroids()
    sides = boxes[:, 2:] - boxes[:, :2]
    reach = torch.cat([centers - boxes[:, :2], boxes[:, 2:] - centers], 1).amax(1)
    claims = claimed(boxes, centers, frame.size, config)
    result.points += int((claims.counts > 0).sum())
    result.contested += int((claims.counts > 1).sum())
    for n in np.flatnonzero(claims.of_instance == 0).tolist():
        note("no point", int(owner[n]))
    rays = [cast_rays(centers, shapes, torch.arange(len(rows)), count) for count in RAYS]
    ious = np.stack([ceilings(reference, centers, each) for each in rays], 1)
    lost = ~contains(shapes, centers)
    labels = np.array(found.labels)[owner.numpy()]
    for label in np.unique(labels).tolist():
        of, mine = result.classes[names[label]], labels == label
        of.measured += int(mine.sum())
        of.small += int((areas.numpy()[mine] < 32**2).sum())
        of.large += int((areas.numpy()[mine] >= 96**2).sum())
        of.outside += int(lost.numpy()[mine].sum())
        of.ceiling += ious[mine].sum(0)
        of.sides += _histogram(sides.amin(1).numpy()[mine])
        of.reach += _histogram(reach.numpy()[mine])
    shown = nearest_rays(config.model.num_rays)
    back = torch.tensor([1 / frame.factors[0], 1 / frame.factors[1]])
    for n in np.flatnonzero(areas.numpy() >= SHOWN_FROM).tolist():
        key = (-float(ious[n, shown]), result.seen)
        if len(result.worst) < WORST or key > (result.worst[0].priority, result.worst[0].number):
            polygon = rays_to_polygons(centers[n : n + 1], rays[shown][n : n + 1])[0] * back
            entry = Worst(
                *key, index, found.ids[int(owner[n])], names[labels[n]], reference[n].scale(*back.tolist()), polygon
            )
            (heapq.heappush if len(result.worst) < WORST else heapq.heapreplace)(result.worst, entry)
        result.seen += 1


def nearest_rays(count: int) -> int:
    """The index of the number in RAYS that is nearest to ``count``."""
    return int(np.abs(np.array(RAYS) - count).argmin())


@dataclass
class Suggestion:
    """A network for the data."""

    num_rays: int
    strides: list[int]
    ranges: list[tuple[float, float]]


def suggest(result: Audit) -> Suggestion:
    """Rays, strides and ranges for what is there.

    As few rays as come within 0.025 of the ceiling of the most. The finest stride is half of the shorter side that nine
    in ten instances exceed, a power of two from 4 to 16; the range of a level ends at eight times its stride,
    as in FCOS, and levels are added until nine in ten instances are in a range.
    """
    total = result.total
    means = total.means()
    num_rays = RAYS[int(np.flatnonzero(means >= means.max() - 0.025)[0])]
    stride = int(np.clip(2 ** np.floor(np.log2(max(_quantile(total.sides, 0.1) / 2, 1))), 4, 16))
    strides = [stride]
    while 8 * strides[-1] < _quantile(total.reach, 0.9) and len(strides) < 5:
        strides.append(2 * strides[-1])
    bounds: Sequence[float] = [-1, *(8 * each for each in strides[:-1]), 1e8]
    return Suggestion(num_rays, strides, list(pairwise(bounds)))


def bin_edges() -> np.ndarray:
    """The edges of the histograms' bins, in pixels."""
    return 2 ** (np.arange(BINS * OCTAVES + 1) / BINS)


def _histogram(values: np.ndarray) -> np.ndarray:
    bins = np.floor(BINS * np.log2(np.maximum(values, 1))).astype(np.int64)
    return np.bincount(np.clip(bins, 0, BINS * OCTAVES - 1), minlength=BINS * OCTAVES)


def _quantile(histogram: np.ndarray, share: float) -> float:
    if not histogram.sum():
        return 1.0
    return float(bin_edges()[np.searchsorted(np.cumsum(histogram), share * histogram.sum()) + 1])
