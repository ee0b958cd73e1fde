"""Instances of an image as the formats hold them: rings of vertices, or run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from polarmask_ops import RLE, Outlines, outlines_from_polygons, outlines_from_rle

Boxes: TypeAlias = Literal["error", "ignore", "rectangle"]
Parts: TypeAlias = Literal["largest", "all", "split"]
Rings: TypeAlias = list[np.ndarray]  # of shape (V, 2) float32, pixels
EIGHT = np.ones((3, 3), int)  # parts that touch at a corner are one


class AnnotationError(ValueError):
    """An annotation that cannot be used. ``kind`` is a key of :data:`polarmask.data.problems.ERRORS`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass
class Instances:
    """What is annotated in an image, in the order of its file.

    Attributes
    ----------
    size : (int, int)
        Height and width of the image.
    ids : list
        What the file calls each instance.
    labels : list of int
        From 0.
    crowd : list of bool
        Neither objects nor background.
    ignored : set of int
        Positions of crowds that are never background, whatever ``data.crowd`` is, since they hold objects.
    rings : dict of int to Rings
        By position, of those that are polygons.
    masks : list of RLE
        Of the others, in the order of ``masked``, their positions.
    problems : list of (id, AnnotationError)
        Annotations that are left out.
    stated : dict of int to dict
        By position, what the file states of the instance and was checked: ``area``, ``bbox`` (x, y, width and
        height) and ``segmentation``, as COCO's JSON holds them.
    doubts : list of (int, str)
        Positions, and a word for a table of what is wrong there, though the instance can be used.
    """

    size: tuple[int, int]
    ids: list[Any] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    ignored: set[int] = field(default_factory=set)
    rings: dict[int, Rings] = field(default_factory=dict)
    masks: list[RLE] = field(default_factory=list)
    masked: list[int] = field(default_factory=list)
    problems: list[tuple[Any, AnnotationError]] = field(default_factory=list)
    stated: dict[int, dict[str, Any]] = field(default_factory=dict)
    doubts: list[tuple[int, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, id: Any, label: int, shape: Rings | RLE, crowd: bool = False) -> None:
        """Appends an instance."""
        if isinstance(shape, RLE):
            self.masks.append(shape)
            self.masked.append(len(self.ids))
        else:
            self.rings[len(self.ids)] = shape
        self.ids.append(id)
        self.labels.append(label)
        self.crowd.append(crowd)

    def add_box(self, id: Any, label: int, box: Sequence[float], policy: Boxes, crowd: bool = False) -> None:
        """Appends an annotation that has a box (x, y, width, height; pixels) and no outline, as ``data.boxes`` says.

        Raises
        ------
        AnnotationError
            If ``policy`` is error, or the box has no area.
        """
        left, top, width, height = box
        if policy == "error":
            raise AnnotationError(
                "no segmentation", "expected an outline, got a box alone; set data.boxes to ignore or to rectangle"
            )
        if not (width > 0 and height > 0):
            raise AnnotationError("no segmentation", f"expected an outline or a box of some size, got {list(box)}")
        right, bottom = left + width, top + height
        ring = [left, top, right, top, right, bottom, left, bottom]
        if policy == "ignore":
            self.ignored.add(len(self))
        self.add(id, label, checked_rings([ring]), crowd or policy == "ignore")

    @staticmethod
    def of_masks(ids: list[Any], labels: list[int], masks: RLE) -> Instances:
        """Those of a label image, without crowds."""
        positions = list(range(len(ids)))
        return Instances(masks.size, ids, labels, [False] * len(ids), masks=[masks], masked=positions)

    def select(self, positions: Sequence[int]) -> Instances:
        """Some of the instances, in rising order, with their shapes alone."""
        place = {n: k for k, n in enumerate(positions)}
        rows = [row for row, n in enumerate(self.masked) if n in place]
        return Instances(
            self.size,
            [self.ids[n] for n in positions],
            [self.labels[n] for n in positions],
            [self.crowd[n] for n in positions],
            rings={place[n]: rings for n, rings in self.rings.items() if n in place},
            masks=[RLE.cat(self.masks)[torch.tensor(rows)]] if rows else [],
            masked=[place[self.masked[row]] for row in rows],
        )

    def outlines(self, parts: Parts) -> tuple[Outlines, Tensor]:
        """Outlines, and of which instance each is, (K,) int64: k itself, unless parts are split.

        Crowds are always all of their parts.
        """
        found: list[Outlines] = []
        owners: list[int] = []
        rle = RLE.cat(self.masks) if self.masks else None
        for keep in ("all", "largest"):
            wanted = [(parts == "all" or crowd) == (keep == "all") for crowd in self.crowd]
            pieces = [
                (n, piece)
                for n, rings in self.rings.items()
                if wanted[n]
                for piece in ([[ring] for ring in rings] or [[]] if parts == "split" and not self.crowd[n] else [rings])
            ]
            if pieces:
                found.append(outlines_from_polygons([piece for _, piece in pieces], keep=keep))
                owners += [n for n, _ in pieces]
            rows = [row for row, n in enumerate(self.masked) if wanted[n]]
            if rle is not None and rows:
                masks, of = rle[torch.tensor(rows)], rows
                if keep == "largest" and parts == "split":
                    masks, piece_of = split(masks)
                    of = [rows[k] for k in piece_of]
                found.append(outlines_from_rle(masks, keep=keep))
                owners += [self.masked[row] for row in of]
        owner = torch.tensor(owners, dtype=torch.int64)
        order = owner.argsort(stable=True)
        return Outlines.cat(found or [outlines_from_polygons([])])[order], owner[order]


def labels_to_rle(labels: np.ndarray) -> tuple[np.ndarray, RLE]:
    """The values of a label image but 0, rising, and the masks of their pixels; without a bitmap for each.

    Examples
    --------
    >>> values, rle = labels_to_rle(np.array([[0, 70000, 7], [0, 70000, 7]]))
    >>> values.tolist(), rle.areas().tolist()
    ([7, 70000], [2, 2])
    """
    flat = labels.T.ravel()
    bounds = np.r_[0, np.flatnonzero(flat[1:] != flat[:-1]) + 1, len(flat)] if len(flat) else np.zeros(1, np.int64)
    begin, end = bounds[:-1], bounds[1:]
    matter = flat[begin] != 0
    begin, end = begin[matter], end[matter]
    values, owner = np.unique(flat[begin], return_inverse=True)
    order = np.argsort(owner, kind="stable")
    begin, end, owner = begin[order], end[order], owner[order]
    first = np.r_[True, owner[1:] != owner[:-1]][: len(owner)]
    gaps = begin - np.where(first, 0, np.r_[0, end[:-1]][: len(owner)])
    rest = len(flat) - end[np.r_[first[1:], True][: len(owner)]]  # behind the last run of each; 0 is not written
    offsets = np.r_[0, np.cumsum(2 * np.bincount(owner, minlength=len(values)) + (rest > 0))]
    counts = np.empty(offsets[-1], np.int32)
    counts[offsets[1:][rest > 0] - 1] = rest[rest > 0]
    place = 2 * np.arange(len(owner)) + np.r_[0, np.cumsum(rest > 0)][owner]
    counts[place], counts[place + 1] = gaps, end - begin
    size = (labels.shape[0], labels.shape[1])
    return values, RLE(torch.from_numpy(counts), torch.from_numpy(offsets), size)


def split(rle: RLE) -> tuple[RLE, list[int]]:
    """The 8-connected parts of masks, and the mask of each part; masks without pixels stay as they are."""
    whole, largest = (outlines_from_rle(rle, keep=keep).offsets.diff() for keep in ("all", "largest"))
    several = (whole != largest).tolist()  # sides that are not the largest part's, or a hole's
    pieces: list[RLE] = []
    owners: list[int] = []
    for n in range(len(rle)):
        piece = rle[n]
        if several[n]:
            bitmap = piece.to_masks()[0].numpy()
            piece = labels_to_rle(ndimage.label(bitmap, EIGHT)[0])[1]
        pieces.append(piece)
        owners += [n] * len(piece)
    return (RLE.cat(pieces) if pieces else rle), owners


def checked_rings(rings: Sequence[Any]) -> Rings:
    """Rings of at least three vertices and finite coordinates, flat or (V, 2).

    Raises
    ------
    AnnotationError
    """
    return [_vertices(ring) for ring in rings]


def _vertices(ring: Any) -> np.ndarray:
    try:
        numbers = np.array(ring)
        with np.errstate(over="ignore"):
            vertices = numbers.astype(np.float32)
    except (OverflowError, TypeError, ValueError) as error:
        raise AnnotationError("broken", f"expected a polygon of numbers, got {ring!r:.80}") from error
    if numbers.size and numbers.dtype.kind not in "iuf":  # NumPy would read text as numbers
        raise AnnotationError("broken", f"expected a polygon of numbers, got {ring!r:.80}")
    if vertices.ndim == 1 and len(vertices) % 2 == 0:
        vertices = vertices.reshape(-1, 2)
    if vertices.ndim != 2 or vertices.shape[1] != 2:
        raise AnnotationError("broken", f"expected x, y, x, y, … in a polygon, got shape {vertices.shape}")
    if len(vertices) < 3:
        raise AnnotationError(
            "broken", f"expected polygons of at least three vertices (x1, y1, x2, y2, …), got {ring!r:.80}"
        )
    if not np.isfinite(vertices).all():
        raise AnnotationError("not finite", "expected finite coordinates, got NaN or infinity")
    return vertices
