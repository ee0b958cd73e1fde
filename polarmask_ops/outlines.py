"""Boundaries of instances as directed segments: what the targets are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _arguments, _fakes, _ragged, _vmap
from .rle import RLE
from .rle import checked as checked_rle

_KEEP = ("largest", "all")


@dataclass(frozen=True, eq=False)
class Outlines:
    """Boundaries of M instances, as directed segments in any order.

    An instance's segments run around its matter with Σ(x0·y1 − x1·y0) > 0 (clockwise on the screen) and around its
    holes the other way. Nothing asks for their order: area and centroid are sums, the end of a ray is a maximum.

    Parameters
    ----------
    segments : Tensor, shape (S, 4), float
        x0, y0, x1, y1 in pixels; pixel (row i, column j) is the square [j, j + 1) × [i, i + 1).
    offsets : Tensor, shape (M + 1,), int64
        Instance m owns ``segments[offsets[m]:offsets[m + 1]]``.

    Notes
    -----
    A pytree, known to ``torch.export``. So that any tree of two leaves can be built, the constructor checks nothing;
    every function of it does.

    Examples
    --------
    >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]], [[1, 1, 3, 1, 3, 3]]])
    >>> len(outlines), outlines.areas().tolist()
    (2, [8.0, 2.0])
    >>> outlines[1].translate(10, 0).boxes()
    tensor([[11.,  1., 13.,  3.]])
    """

    segments: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    def __getitem__(self, index: _ragged.Index) -> Outlines:
        """The instances of an int, slice, index or bool tensor, again as Outlines.

        On a GPU the host waits once, to learn the length; for a bool tensor twice.
        """
        segments, offsets = checked("Outlines", self)
        return Outlines(*_ragged.select("Outlines", segments, offsets, index))

    @staticmethod
    def cat(items: Sequence[Outlines]) -> Outlines:
        """The instances of several Outlines, one after the other."""
        if not items:
            raise ValueError("Outlines.cat: expected at least one Outlines, got no items")
        parts = [checked("Outlines.cat", item) for item in items]
        _arguments.same_device("Outlines.cat", **{f"items[{k}]": offsets for k, (_, offsets) in enumerate(parts)})
        segments = torch.cat([segments for segments, _ in parts])
        return Outlines(segments, _ragged.cat([offsets for _, offsets in parts]))

    def scale(self, sx: float, sy: float) -> Outlines:
        """x · sx, y · sy, as when the image is resized."""
        return self._affine("Outlines.scale", [[sx, 0, 0], [0, sy, 0]])

    def hflip(self, width: float) -> Outlines:
        """x becomes width − x, as when an image of that width is mirrored."""
        return self._affine("Outlines.hflip", [[-1, 0, width], [0, 1, 0]])

    def translate(self, dx: float, dy: float) -> Outlines:
        """x + dx, y + dy, as when a crop is cut at (−dx, −dy); follow it with ``clip``."""
        return self._affine("Outlines.translate", [[1, 0, dx], [0, 1, dy]])

    def affine(self, matrix: Sequence[Sequence[float]] | Tensor) -> Outlines:
        """(x, y, 1) multiplied by a matrix of shape (2, 3), or (3, 3) with the last row 0, 0, 1.

        Matrices that mirror swap the ends of the segments, so that matter stays on the same side of them. The matrix is
        read on the host.
        """
        rows = torch.as_tensor(matrix, dtype=torch.float64)
        if rows.shape not in ((2, 3), (3, 3)) or rows[2:].tolist() not in ([], [[0, 0, 1]]):
            raise ValueError(
                "Outlines.affine: expected matrix of shape (2, 3), or (3, 3) with the last row 0, 0, 1, got "
                f"{rows.tolist()}"
            )
        return self._affine("Outlines.affine", rows[:2].tolist())

    def _affine(self, op: str, rows: Sequence[Sequence[float]]) -> Outlines:
        segments, offsets = checked(op, self)
        (a, b, c), (d, e, f) = rows
        if a * e - b * d < 0:
            segments = segments[:, [2, 3, 0, 1]]
        x, y = segments[:, 0::2], segments[:, 1::2]
        return Outlines(torch.stack([a * x + b * y + c, d * x + e * y + f], 2).flatten(1), offsets)

    def clip(self, size: tuple[int, int]) -> Outlines:
        """Cut by the rectangle of an image (H, W), exactly: areas are those of the parts inside.

        Where matter is cut the boundary is closed along the border of the image. What lies outside leaves no segments;
        points (``boundary="pixels"``) stay when they lie in the rectangle or on its border. The length of the result
        depends on the data: on a GPU the host waits once to learn it. Not differentiable.
        """
        op = "Outlines.clip"
        segments, offsets = checked(op, self)
        size = _arguments.image_size(op, size)
        return Outlines(*torch.ops.polarmask.outlines_clip(segments.detach(), offsets, *size))

    def to(self, *args: Any, **kwargs: Any) -> Outlines:
        """As ``Tensor.to``; a dtype is the segments' alone."""
        segments = self.segments.to(*args, **kwargs)
        return Outlines(segments, self.offsets.to(segments.device, non_blocking=kwargs.get("non_blocking", False)))

    def pin_memory(self) -> Outlines:
        """In page-locked memory, from where copies to the GPU need not wait."""
        return Outlines(self.segments.pin_memory(), self.offsets.pin_memory())

    def areas(self) -> Tensor:
        """Signed areas in square pixels, (M,): matter minus holes; rings that overlap count twice.

        The sums are taken in double in one fixed order, and are 0 where nothing but rounding is left. Without segments
        0; where a vertex is not finite the area is not finite either. Not differentiable.
        """
        return self._moments("Outlines.areas")[0]

    def centroids(self) -> Tensor:
        """Centres of mass in pixels, (M, 2) x, y.

        Where the area is 0, the mean of the segments' midpoints weighted by length, and of points the plain mean.
        Without segments NaN. Not differentiable.
        """
        return self._moments("Outlines.centroids")[1]

    def boxes(self) -> Tensor:
        """The smallest boxes around the segments, (M, 4) x0, y0, x1, y1; without segments zeros. NaN is passed over."""
        segments, offsets = checked("Outlines.boxes", self)
        boxes: Tensor = torch.ops.polarmask.outlines_boxes(segments.detach(), offsets)
        return boxes

    def _moments(self, op: str) -> tuple[Tensor, Tensor]:
        segments, offsets = checked(op, self)
        moments: tuple[Tensor, Tensor] = torch.ops.polarmask.outlines_moments(segments.detach(), offsets, op)
        return moments


torch.export.register_dataclass(Outlines, serialized_type_name="polarmask_ops.Outlines")
torch.serialization.add_safe_globals([Outlines])  # torch.load(weights_only=True) reads them


def checked(op: str, outlines: Outlines) -> tuple[Tensor, Tensor]:
    """Segments, at least float32, and offsets: what ops take in place of Outlines."""
    if not isinstance(outlines, Outlines):
        raise TypeError(f"{op}: expected outlines to be Outlines, got {type(outlines).__name__}")
    (segments,) = _arguments.floats(op, **{"outlines.segments": outlines.segments})
    offsets = _arguments.int64(op, "outlines.offsets", outlines.offsets)
    if segments.dim() != 2 or segments.shape[1] != 4:
        raise ValueError(f"{op}: expected outlines.segments of shape (S, 4), got {tuple(segments.shape)}")
    if offsets.dim() != 1 or offsets.shape[0] < 1:
        raise ValueError(f"{op}: expected outlines.offsets of shape (M + 1,), got {tuple(offsets.shape)}")
    _arguments.same_device(op, **{"outlines.segments": segments, "outlines.offsets": offsets})
    return segments, offsets


def outlines_from_polygons(polygons: Sequence[Sequence[Any]], *, keep: str = "largest") -> Outlines:
    """Outlines of instances given by their rings, as in COCO's annotations.

    Parameters
    ----------
    polygons : list of M lists of rings
        A ring is flat, [x0, y0, x1, y1, …], or of shape (V, 2): a list, an array or a tensor; in pixels, closed by
        itself, clockwise or not. Rings without area, or with a vertex that is not finite, count for nothing. An
        instance may have an empty list of rings.
    keep : {"largest", "all"}
        ``"largest"`` keeps the ring of the largest area of each instance; ties: the lowest index. ``"all"`` keeps every
        ring, and means their union: each is oriented around matter (COCO's polygons have no holes). Overlaps are not
        dissolved: areas count them twice, and ``outlines_to_masks``, even-odd, leaves them out.

    Returns
    -------
    Outlines
        Of M instances, one segment a side; repeated vertices make none. On the tensors' device, in the common dtype of
        tensors and arrays, at least float32; lists count as float32. On a GPU the host waits once, to learn the length.

    Raises
    ------
    TypeError
        If ``polygons`` is not a list of lists of rings of numbers.
    ValueError
        If a ring has fewer than 3 vertices, as the points of a ring have where a list of rings is expected, or a box;
        an odd number of coordinates or another shape; if rings lie on different devices, or ``keep`` is unknown.

    Examples
    --------
    >>> outlines_from_polygons([[[0, 0, 0, 2, 3, 2]]]).segments  # turned around matter
    tensor([[0., 0., 3., 2.],
            [0., 2., 0., 0.],
            [3., 2., 0., 2.]])
    """
    op = "outlines_from_polygons"
    _arguments.choice(op, "keep", keep, _KEEP)
    if not isinstance(polygons, (list, tuple)):
        raise TypeError(f"{op}: expected polygons to be a list of lists of rings, got {type(polygons).__name__}")
    for m, rings in enumerate(polygons):
        if not isinstance(rings, (list, tuple)):
            raise TypeError(f"{op}: expected polygons[{m}] to be a list of rings, got {type(rings).__name__}")
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite
        rings = [
            _ring(op, f"polygons[{m}][{k}]", ring) for m, rings in enumerate(polygons) for k, ring in enumerate(rings)
        ]
    devices = {ring.device for ring in rings} or {torch.device("cpu")}
    if len(devices) > 1:
        raise ValueError(f"{op}: expected all rings on one device, got {', '.join(sorted(map(str, devices)))}")
    (device,) = devices
    vertices = torch.cat([torch.empty(0, 2, dtype=torch.float32, device=device), *rings])
    ring_offsets, polygon_offsets = _offsets(rings, device), _offsets(polygons, device)
    largest = keep == "largest"
    return Outlines(*torch.ops.polarmask.outlines_from_polygons(vertices, ring_offsets, polygon_offsets, largest))


def outlines_from_masks(
    masks: Tensor, *, boxes: Tensor | None = None, keep: str = "largest", boundary: str = "edges"
) -> Outlines:
    """Outlines of instances given by bitmaps.

    Parameters
    ----------
    masks : Tensor, shape (M, H, W), bool or uint8
        Bitmaps; what is not 0 is inside.
    boxes : Tensor, shape (M, 4), float, optional
        x0, y0, x1, y1 in pixels. Only pixels that touch an instance's box, its border included, are looked at, the
        others are outside: with the boxes of the instances, which data sets have, the time is that of reading these and
        does not grow with the image. x1 and y1 may be the last pixel's index or one more. No pixel touches a box with
        x1 < x0 or y1 < y0, or a NaN.
    keep : {"largest", "all"}
        ``"largest"`` keeps the 8-connected component that has the largest area with its holes filled; ties: the one
        whose first pixel in row-major order comes first. A hole is 4-connected background that does not reach the
        border of the image; what lies in it is filled too. ``"all"`` keeps everything as it is, holes included.
    boundary : {"edges", "pixels"}
        ``"edges"``: the sides of the pixels, joined as long as they go straight on. ``"pixels"``: a segment of length 0
        at the centre (j + ½, i + ½) of each border pixel, one with a side on the outside: as a set, the contour of the
        released PolarMask, which counts from pixel centres and so has (j, i). For ``method="binned"``.

    Returns
    -------
    Outlines
        Of M instances, float32. Masks without pixels have no segments. On a GPU the host waits once, for the length.

    Raises
    ------
    TypeError
        If ``masks`` is not a bool or uint8 tensor, or ``boxes`` not of a floating-point dtype.
    ValueError
        If the shape is not (M, H, W), ``boxes`` have another shape or device, or ``keep`` or ``boundary`` is unknown.

    Notes
    -----
    The released code takes the largest contour by the area through the pixels' centres, which may be another component
    where two are nearly as large.

    Examples
    --------
    >>> masks = torch.tensor([[[0, 1, 1], [0, 1, 1]]], dtype=torch.bool)
    >>> outlines_from_masks(masks).segments
    tensor([[1., 0., 3., 0.],
            [1., 2., 1., 0.],
            [3., 2., 1., 2.],
            [3., 0., 3., 2.]])
    """
    op = "outlines_from_masks"
    _arguments.choice(op, "keep", keep, _KEEP)
    _arguments.choice(op, "boundary", boundary, ("edges", "pixels"))
    _arguments.dtype(op, "masks", masks, torch.bool, torch.uint8)
    if boxes is not None:
        boxes = _arguments.float32(op, "boxes", boxes).detach()
        _arguments.same_device(op, masks=masks, boxes=boxes)
    return Outlines(*torch.ops.polarmask.outlines_from_masks(masks, boxes, keep == "largest", boundary == "pixels"))


def outlines_from_rle(rle: RLE, *, keep: str = "largest") -> Outlines:
    """Outlines of instances given by run lengths, straight from the runs.

    Parameters
    ----------
    rle : RLE
        M masks; runs of length 0 may stand anywhere.
    keep : {"largest", "all"}
        As for ``outlines_from_masks``.

    Returns
    -------
    Outlines
        Per instance the same set of segments as ``outlines_from_masks(rle.to_masks(), keep=keep)``. On a GPU the host
        waits once, to learn the length; counts that do not fit make no segments there.

    Raises
    ------
    TypeError
        If ``rle`` is not an RLE.
    ValueError
        If counts are negative or do not sum to H * W, or ``keep`` is unknown.

    Notes
    -----
    On the CPU time and memory grow with the number of counts, and not with the image. On a GPU they grow with
    M · W + T too, some 40 bytes for each of the W columns of each instance.

    Examples
    --------
    >>> rle = RLE.from_coco([{"size": [2, 3], "counts": [2, 4]}])
    >>> outlines_from_rle(rle).boxes()
    tensor([[1., 0., 3., 2.]])
    """
    op = "outlines_from_rle"
    _arguments.choice(op, "keep", keep, _KEEP)
    if not isinstance(rle, RLE):
        raise TypeError(f"{op}: expected rle to be an RLE, got {type(rle).__name__}")
    return Outlines(*torch.ops.polarmask.outlines_from_rle(*checked_rle(op, rle), keep == "largest"))


def _ring(op: str, name: str, ring: Any) -> Tensor:
    """Vertices (V, 2)."""
    if not isinstance(ring, Tensor):
        try:
            # Writable, else torch warns.
            dtype = None if isinstance(ring, np.ndarray) else np.float32
            ring = torch.from_numpy(np.require(ring, dtype, ["C", "W"]))
        except (OverflowError, TypeError, ValueError) as error:
            raise TypeError(f"{op}: expected {name} to be a ring of numbers, got {ring!r:.80}") from error
    vertices: Tensor = ring.detach()
    if vertices.dtype not in (*_arguments.FLOATS, *_arguments.INTEGERS):
        raise TypeError(f"{op}: expected {name} of a floating-point or integer dtype, got {vertices.dtype}")
    if vertices.dim() == 1 and vertices.shape[0] % 2 == 0:
        vertices = vertices.reshape(-1, 2)
    if vertices.dim() != 2 or vertices.shape[1] != 2:
        raise ValueError(
            f"{op}: expected {name} of shape (V, 2), or flat with an even number of coordinates, got shape "
            f"{tuple(vertices.shape)}; polygons are a list of rings for each instance"
        )
    if vertices.shape[0] < 3:
        raise ValueError(
            f"{op}: expected {name} to have at least 3 vertices, got {vertices.shape[0]}: {ring!r:.80}; each "
            "instance is a list of rings [x0, y0, x1, y1, x2, y2, …], not a list of points and not a box"
        )
    return vertices


def _offsets(parts: Sequence[Any], device: torch.device) -> Tensor:
    return _ragged.from_lengths(torch.tensor([len(part) for part in parts], dtype=torch.int64)).to(device)


@_fakes.register("outlines_moments")
def _outlines_moments_fake(segments: Tensor, offsets: Tensor, caller: str) -> tuple[Tensor, Tensor]:
    count = offsets.shape[0] - 1
    return segments.new_empty(count), segments.new_empty(count, 2)


@_fakes.register("outlines_boxes")
def _outlines_boxes_fake(segments: Tensor, offsets: Tensor) -> Tensor:
    return segments.new_empty(offsets.shape[0] - 1, 4)


@_fakes.register("outlines_clip")
def _outlines_clip_fake(segments: Tensor, offsets: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    return _ragged.fake(offsets, offsets.shape[0] - 1, segments.dtype, 4)


@_fakes.register("outlines_from_polygons")
def _outlines_from_polygons_fake(
    vertices: Tensor, ring_offsets: Tensor, polygon_offsets: Tensor, largest: bool
) -> tuple[Tensor, Tensor]:
    return _ragged.fake(polygon_offsets, polygon_offsets.shape[0] - 1, vertices.dtype, 4)


@_fakes.register("outlines_from_masks")
def _outlines_from_masks_fake(
    masks: Tensor, boxes: Tensor | None, largest: bool, border: bool
) -> tuple[Tensor, Tensor]:
    return _ragged.fake(masks, masks.shape[0], torch.float32, 4)


@_fakes.register("outlines_from_rle")
def _outlines_from_rle_fake(
    counts: Tensor, offsets: Tensor, height: int, width: int, largest: bool
) -> tuple[Tensor, Tensor]:
    return _ragged.fake(offsets, offsets.shape[0] - 1, torch.float32, 4)


for _name in ("outlines_moments", "outlines_boxes"):
    _vmap.register(_name)
for _name in ("outlines_clip", "outlines_from_polygons", "outlines_from_masks", "outlines_from_rle"):
    _vmap.refuse(_name)
