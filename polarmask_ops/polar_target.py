"""What a detector learns from: rays from points to outlines, and which points learn which instance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _arguments, _fakes, _vmap
from .outlines import Outlines, checked

FCOS_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf))

_METHODS = ("last", "first", "binned")
_LARGEST = torch.finfo(torch.float32).max


class PolarTargets(NamedTuple):
    """What B images teach the L = Σ h·w points of their levels; zero where a point learns no instance.

    ``instance`` (B, L) int64 counts the instances of the whole batch; it and ``labels`` (B, L) int64 are −1 for
    background and −2 where it is ignored, so positive points are those with ``instance >= 0``. ``boxes`` (B, L, 4) are
    the distances to the left, top, right and bottom side, ``rays`` (B, L, R) those to the outline, in pixels;
    ``centerness`` (B, L) is sqrt(shortest ray / longest ray); all float32.
    """

    instance: Tensor  # (B, L) int64 into the batch's instances, −1 background, −2 ignored
    labels: Tensor  # (B, L) int64, −1 background, −2 ignored
    boxes: Tensor  # (B, L, 4) float32, pixels: distances to the left, top, right and bottom side
    rays: Tensor  # (B, L, R) float32, pixels
    centerness: Tensor  # (B, L) float32, sqrt(shortest ray / longest ray)


def cast_rays(
    origins: Tensor,
    outlines: Outlines,
    instance: Tensor,
    num_rays: int = 36,
    *,
    method: str = "last",
    min_distance: float = 1e-6,
) -> Tensor:
    """Distances from points to an outline, along rays at equal angles.

    Parameters
    ----------
    origins : Tensor, shape (P, 2), float
        x and y in pixels.
    outlines : Outlines
        M boundaries, their segments in pixels.
    instance : Tensor, shape (P,), int32 or int64
        The outline that each point looks at, from 0 to M − 1.
    num_rays : int
        R, from 3 to 1024. Ray k points along (cos 2πk/R, sin 2πk/R), y down.
    method : {"last", "first", "binned"}
        ``"last"``: the farthest crossing of the ray with the outline, PolarMask's rule. ``"first"``: the nearest, for
        points that must not see past the first exit. ``"binned"``: the rule of PolarMask's released code, for parity:
        the farthest start of a segment within the ray's degree, or else 1, −1, 2, −2, 3 or −3 degrees aside, 0
        included; R is a divisor of 360, divisible by 4 and at most 40.
    min_distance : float
        At least 0, pixels. The one of rays that meet nothing, and the smallest (but for ``"binned"``).

    Returns
    -------
    Tensor, shape (P, R), the common float dtype, at least float32
        Pixels. Computed in double and rounded once. Rays and segments are closed: a ray meets an end that it touches,
        and both ends of a segment it runs along; a point on the outline meets it at 0. Flips of coordinates on integers
        (or halves, …) change nothing but the order. Segments with NaN or infinite coordinates are never met. Not
        differentiable.

    Raises
    ------
    TypeError
        If a dtype is wrong.
    ValueError
        If a shape, ``num_rays``, ``method`` or ``min_distance`` is wrong, or ``outlines.offsets`` do not rise.
    IndexError
        If an ``instance`` does not exist.

    Notes
    -----
    Source: PolarMask, section 3.3 (arXiv 1909.13226).

    Each point looks at all segments of its outline, some 7 ns a segment on one core: 10,000 points of one outline of
    100,000 segments take 7 s. Outlines of data sets have tens to hundreds.

    Examples
    --------
    >>> square = torch.tensor([[0.0, 0, 4, 0], [4, 0, 4, 4], [4, 4, 0, 4], [0, 4, 0, 0]])
    >>> outlines = Outlines(square, torch.tensor([0, 4]))
    >>> cast_rays(torch.tensor([[1.0, 2.0]]), outlines, torch.tensor([0]), 4)
    tensor([[3., 2., 1., 2.]])
    """
    op = "cast_rays"
    segments, offsets = checked(op, outlines)
    origins, segments = _arguments.floats(op, origins=origins, segments=segments)
    instance = _arguments.int64(op, "instance", instance)
    _arguments.same_device(op, origins=origins, instance=instance)
    _arguments.choice(op, "method", method, _METHODS)
    distance = _arguments.number(op, "min_distance", min_distance)
    distances: Tensor = torch.ops.polarmask.cast_rays(
        origins.detach(), segments.detach(), offsets, instance, num_rays, method, distance
    )
    return distances


def encode_targets(
    level_shapes: Sequence[Sequence[int]],
    strides: Sequence[int],
    boxes: Tensor,
    labels: Tensor,
    outlines: Outlines,
    image_offsets: Tensor,
    *,
    num_rays: int = 36,
    regress_ranges: Sequence[Sequence[float]] = FCOS_RANGES,
    center_radius: float = 1.5,
    centers: Tensor | None = None,
    areas: Tensor | None = None,
    ignore: Tensor | None = None,
    method: str = "last",
    min_distance: float = 1e-6,
) -> PolarTargets:
    """Assign the points of a batch's feature maps to instances, and give each what it learns.

    A point is positive for an instance when it lies strictly inside the box and less than ``center_radius`` strides
    from the centre, in x and in y, and its largest box distance lies in the level's range, both ends included. Of
    several instances it takes the one with the smallest area, of equal ones the first.

    Parameters
    ----------
    level_shapes : sequence of (int, int)
        Height and width of each feature map. Its points lie at ((j + ½)·stride, (i + ½)·stride), row after row; the
        levels follow each other to L = Σ h·w points an image.
    strides : sequence of int
        Pixels between the points of each level.
    boxes : Tensor, shape (M, 4), float
        x0, y0, x1, y1 in pixels (COCO's ``bbox`` is x0, y0, width, height); ``outlines.boxes()`` fits the outlines.
    labels : Tensor, shape (M,), int32 or int64
        Any numbers.
    outlines : Outlines
        M boundaries in pixels. An instance without segments is never positive.
    image_offsets : Tensor, shape (B + 1,), int32 or int64
        Image b owns the instances ``image_offsets[b]:image_offsets[b + 1]``.
    num_rays, method, min_distance
        As in :func:`cast_rays`.
    regress_ranges : sequence of (float, float)
        Least and largest box distance learnt on each level, pixels; the least first.
    center_radius : float
        Strides, above 0; infinite: the whole box.
    centers : Tensor, shape (M, 2), float, optional
        Pixels; by default the outlines' centroids.
    areas : Tensor, shape (M,), float, optional
        Any unit; by default the boxes' areas. Negative or not finite: never positive.
    ignore : Tensor, shape (M,), bool, optional
        Crowds: never positive; background points inside the outline (even-odd; the box where it has no segments) are
        marked −2.

    Returns
    -------
    PolarTargets
        Dense, in fixed shapes. Coordinates and areas are rounded to float32 first, whatever their dtype, so that the
        assignment does not depend on it; rays are computed in double from there. Instances with NaN or infinite boxes,
        centres or areas are never positive. Not differentiable.

    Raises
    ------
    TypeError
        If a dtype is wrong.
    ValueError
        If a shape or an option is wrong, or offsets do not rise from 0 to the number of what they divide.

    Notes
    -----
    Source: FCOS, section 3 (arXiv 1904.01355) with centre sampling; PolarMask, section 3.3 (arXiv 1909.13226).

    Examples
    --------
    >>> square = torch.tensor([[0.0, 0, 8, 0], [8, 0, 8, 8], [8, 8, 0, 8], [0, 8, 0, 0]])
    >>> targets = encode_targets(
    ...     [(1, 2)], [8], torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([7]), Outlines(square, torch.tensor([0, 4])),
    ...     torch.tensor([0, 1]), num_rays=4, regress_ranges=[(0, 64)], centers=torch.tensor([[4.0, 4.0]]),
    ... )
    >>> targets.labels, targets.rays
    (tensor([[ 7, -1]]), tensor([[[4., 4., 4., 4.],
             [0., 0., 0., 0.]]]))
    """
    op = "encode_targets"
    segments, offsets = checked(op, outlines)
    if centers is None:
        centers = torch.ops.polarmask.outlines_moments(segments.detach(), offsets, op)[1]
    _arguments.choice(op, "method", method, _METHODS)
    boxes = _arguments.float32(op, "boxes", boxes).detach()
    labels = _arguments.int64(op, "labels", labels)
    image_offsets = _arguments.int64(op, "image_offsets", image_offsets)
    centers = _arguments.float32(op, "centers", centers).detach()
    areas = None if areas is None else _arguments.float32(op, "areas", areas).detach()
    ignore = None if ignore is None else _arguments.dtype(op, "ignore", ignore, torch.bool)
    rows = {"outlines.segments": segments, "labels": labels, "image_offsets": image_offsets}
    _arguments.same_device(op, boxes=boxes, **rows, centers=centers, areas=areas, ignore=ignore)
    return PolarTargets(
        *torch.ops.polarmask.encode_targets(
            _arguments.integers(op, "level_shapes", _pairs(op, "level_shapes", level_shapes)),
            _arguments.integers(op, "strides", strides),
            [_finite(op, "regress_ranges", bound) for bound in _pairs(op, "regress_ranges", regress_ranges)],
            boxes,
            labels,
            segments.float().detach(),
            offsets,
            image_offsets,
            centers,
            areas,
            ignore,
            num_rays,
            _finite(op, "center_radius", center_radius),
            method,
            _arguments.number(op, "min_distance", min_distance),
        )
    )


def _finite(op: str, name: str, value: float) -> float:
    """Infinity as float32's largest number, which means the same here: AOTInductor cannot store it in a graph."""
    return max(min(_arguments.number(op, name, value), _LARGEST), -_LARGEST)  # NaN stays


def _pairs(op: str, name: str, pairs: Sequence[Sequence[Any]]) -> list[Any]:
    """One flat list, as the op's schema has it."""
    try:
        rows = [tuple(pair) for pair in pairs]
    except TypeError as error:
        raise TypeError(f"{op}: expected {name} to be a sequence of pairs, got {pairs!r:.80}") from error
    for pair in rows:
        if len(pair) != 2:
            raise ValueError(f"{op}: expected {name} to hold pairs, got {pair}")
    return [each for pair in rows for each in pair]


@_fakes.register("cast_rays")
def _cast_rays_fake(
    origins: Tensor,
    segments: Tensor,
    offsets: Tensor,
    instance: Tensor,
    num_rays: int,
    method: str,
    min_distance: float,
) -> Tensor:
    return origins.new_empty(origins.shape[0], num_rays)


@_fakes.register("encode_targets")
def _encode_targets_fake(
    level_shapes: list[int],
    strides: list[int],
    regress_ranges: list[float],
    boxes: Tensor,
    labels: Tensor,
    segments: Tensor,
    offsets: Tensor,
    image_offsets: Tensor,
    centers: Tensor,
    areas: Tensor | None,
    ignore: Tensor | None,
    num_rays: int,
    center_radius: float,
    method: str,
    min_distance: float,
) -> tuple[Tensor, ...]:
    shape = (
        image_offsets.shape[0] - 1,
        sum(height * width for height, width in zip(level_shapes[::2], level_shapes[1::2], strict=True)),
    )
    return (
        labels.new_empty(shape),
        labels.new_empty(shape),
        boxes.new_empty(*shape, 4),
        boxes.new_empty(*shape, num_rays),
        boxes.new_empty(shape),
    )


_vmap.register("cast_rays", rows=(0, 3))
_vmap.register("encode_targets")
