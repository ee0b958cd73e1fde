"""Training targets of a detector: rays from points to outlines, and the instance that each point is assigned to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _arguments, _fakes, _vmap
from .outlines import Outlines, checked
from .outlines_from import outlines_from_masks

FCOS_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, math.inf))

BACKGROUND = -1
IGNORED = -2

_METHODS = ("last", "first", "binned")
_LARGEST = torch.finfo(torch.float32).max


class PolarTargets(NamedTuple):
    """Training targets for the L = Σ h·w points of B images. Those of points without an instance are zero.

    Parameters
    ----------
    instance : Tensor, shape (B, L), int64
        The instance that each point is assigned to, counted over the whole batch; :data:`BACKGROUND` (−1) and
        :data:`IGNORED` (−2, background inside a crowd) at the other points.
    labels : Tensor, shape (B, L), int64
        The label of that instance; −1 and −2 as for ``instance``.
    boxes : Tensor, shape (B, L, 4), float32
        Distances to the left, top, right and bottom side of its box, pixels.
    rays : Tensor, shape (B, L, R), float32
        Distances to its outline, pixels.
    centerness : Tensor, shape (B, L), float32
        sqrt(shortest ray / longest ray).

    Examples
    --------
    >>> masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    >>> masks[0, 2:14, 2:14] = 1
    >>> image = {"masks": masks, "labels": torch.tensor([5])}
    >>> encode_targets([(2, 2)], [8], [image], regress_ranges=[(0, 64)]).labels
    tensor([[5, 5, 5, 5]])
    """

    instance: Tensor
    labels: Tensor
    boxes: Tensor
    rays: Tensor
    centerness: Tensor

    @property
    def positive(self) -> Tensor:
        """Where points are assigned to an instance, shape (B, L), bool.

        Returns
        -------
        Tensor, shape (B, L), bool
            ``instance >= 0``.

        Examples
        --------
        >>> image = {"masks": torch.ones(1, 8, 8, dtype=torch.uint8), "labels": torch.tensor([0])}
        >>> encode_targets([(1, 2)], [8], [image], regress_ranges=[(0, 64)]).positive
        tensor([[ True, False]])
        """
        return self.instance >= 0


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
        The outline of each point, from 0 to M − 1.
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
    targets: Sequence[Mapping[str, Any]],
    *,
    num_rays: int = 36,
    regress_ranges: Sequence[Sequence[float]] = FCOS_RANGES,
    center_radius: float = 1.5,
    method: str = "last",
    min_distance: float = 1e-6,
) -> PolarTargets:
    """Assign the points of a batch's feature maps to instances, given as torchvision's data sets give them.

    A point is positive for an instance when it lies strictly inside the box and less than ``center_radius`` strides
    from the centroid, in x and in y, and its largest box distance lies in the level's range, both ends included. Of
    several such instances it is assigned to the one with the smallest box, of equal ones to the first.

    Parameters
    ----------
    level_shapes : sequence of (int, int)
        Height and width of each feature map. Its points lie at ((j + ½)·stride, (i + ½)·stride), row after row; the
        levels follow each other to L = Σ h·w points an image.
    strides : sequence of int
        Pixels between the points of each level.
    targets : sequence of B dicts
        The M instances of each image, M = 0 included. Keys that are not listed here are not read.

        - ``"labels"``: Tensor, shape (M,), int32 or int64; any numbers.
        - ``"outlines"``: Outlines, in pixels; or ``"masks"``: Tensor, shape (M, H, W), bool or uint8, of which the
          largest component counts, as :func:`outlines_from_masks` takes it. With both, ``"outlines"`` is used.
        - ``"boxes"``: Tensor, shape (M, 4), float, optional; x0, y0, x1, y1 in pixels. By default the
          boxes of the outlines.
        - ``"iscrowd"`` or ``"ignore"``: Tensor, shape (M,), bool or integer, optional. Instances with another value
          than 0 are never positive, and background points inside them are marked :data:`IGNORED`.
    num_rays, method, min_distance
        As in :func:`cast_rays`.
    regress_ranges : sequence of (float, float)
        Least and largest box distance of the points of each level, pixels; the least first.
    center_radius : float
        Strides, above 0; infinite: the whole box.

    Returns
    -------
    PolarTargets
        Dense, in fixed shapes, on the device of the labels. Not differentiable. On a GPU the host waits where masks are
        given, once an image.

    Raises
    ------
    TypeError
        If ``targets`` is not a sequence of dicts, or a dtype or type is wrong.
    ValueError
        If there is no image, a key is missing, the entries of an image differ in length or device, or a shape or an
        option is wrong.

    See Also
    --------
    encode_ragged_targets : the same from the tensors of a whole batch, with centres and areas to choose.

    Notes
    -----
    Source: FCOS, section 3 (arXiv 1904.01355) with centre sampling; PolarMask, section 3.3 (arXiv 1909.13226).

    Examples
    --------
    >>> masks = torch.zeros(1, 8, 16, dtype=torch.uint8)
    >>> masks[0, :, :8] = 1
    >>> full = {"masks": masks, "labels": torch.tensor([7]), "iscrowd": torch.tensor([0])}
    >>> empty = {"masks": masks[:0], "labels": torch.tensor([], dtype=torch.int64)}
    >>> targets = encode_targets([(1, 2)], [8], [full, empty], num_rays=4, regress_ranges=[(0, 64)])
    >>> targets.labels, targets.rays[0]
    (tensor([[ 7, -1],
             [-1, -1]]), tensor([[4., 4., 4., 4.],
             [0., 0., 0., 0.]]))
    """
    op = "encode_targets"
    if isinstance(targets, (Tensor, str, Mapping)) or not isinstance(targets, Sequence):
        raise TypeError(
            f"{op}: expected targets to be a list with a dict for each image, got {type(targets).__name__}; "
            "encode_ragged_targets takes the tensors of a whole batch"
        )
    if not targets:
        raise ValueError(f"{op}: expected targets of at least one image, got none")
    images = [_instances(op, f"targets[{n}]", target) for n, target in enumerate(targets)]
    _arguments.same_device(op, **{f"targets[{n}]": image.labels for n, image in enumerate(images)})
    counts = torch.tensor([0, *(image.labels.shape[0] for image in images)])
    return encode_ragged_targets(
        level_shapes,
        strides,
        boxes=torch.cat([image.boxes for image in images]),
        labels=torch.cat([image.labels for image in images]),
        outlines=Outlines.cat([image.outlines for image in images]),
        image_offsets=counts.to(images[0].labels.device, non_blocking=True).cumsum(0),
        num_rays=num_rays,
        regress_ranges=regress_ranges,
        center_radius=center_radius,
        ignore=torch.cat([image.ignore for image in images]),
        method=method,
        min_distance=min_distance,
    )


def encode_ragged_targets(
    level_shapes: Sequence[Sequence[int]],
    strides: Sequence[int],
    *,
    boxes: Tensor,
    labels: Tensor,
    outlines: Outlines,
    image_offsets: Tensor,
    num_rays: int = 36,
    regress_ranges: Sequence[Sequence[float]] = FCOS_RANGES,
    center_radius: float = 1.5,
    centers: Tensor | None = None,
    areas: Tensor | None = None,
    ignore: Tensor | None = None,
    method: str = "last",
    min_distance: float = 1e-6,
) -> PolarTargets:
    """Assign the points of a batch's feature maps to instances, given as the tensors of a whole batch.

    :func:`encode_targets` calls this function; the rule is the same. It does not wait for a GPU, so that it can be
    captured in a CUDA graph.

    Parameters
    ----------
    level_shapes, strides, num_rays, regress_ranges, center_radius, method, min_distance
        As in :func:`encode_targets`.
    boxes : Tensor, shape (M, 4), float
        x0, y0, x1, y1 in pixels (COCO's ``bbox`` is x0, y0, width, height); ``outlines.boxes()`` fits the outlines.
    labels : Tensor, shape (M,), int32 or int64
        Any numbers.
    outlines : Outlines
        M boundaries in pixels. An instance without segments is never positive.
    image_offsets : Tensor, shape (B + 1,), int32 or int64
        Image b has the instances ``image_offsets[b]:image_offsets[b + 1]``.
    centers : Tensor, shape (M, 2), float, optional
        Pixels; by default the outlines' centroids.
    areas : Tensor, shape (M,), float, optional
        Any unit; by default the boxes' areas. The smallest wins. Negative or not finite: never positive.
    ignore : Tensor, shape (M,), bool, optional
        Crowds: never positive; background points inside the outline (even-odd; the box where it has no segments) are
        marked :data:`IGNORED`.

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
    >>> targets = encode_ragged_targets(
    ...     [(1, 2)], [8], boxes=torch.tensor([[0.0, 0, 8, 8]]), labels=torch.tensor([7]),
    ...     outlines=Outlines(square, torch.tensor([0, 4])), image_offsets=torch.tensor([0, 1]),
    ...     num_rays=4, regress_ranges=[(0, 64)], centers=torch.tensor([[4.0, 4.0]]),
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
            level_shapes=_arguments.integers(op, "level_shapes", _pairs(op, "level_shapes", level_shapes)),
            strides=_arguments.integers(op, "strides", strides),
            regress_ranges=[
                _finite(op, "regress_ranges", bound) for bound in _pairs(op, "regress_ranges", regress_ranges)
            ],
            boxes=boxes,
            labels=labels,
            segments=segments.float().detach(),
            offsets=offsets,
            image_offsets=image_offsets,
            centers=centers,
            areas=areas,
            ignore=ignore,
            num_rays=num_rays,
            center_radius=_finite(op, "center_radius", center_radius),
            method=method,
            min_distance=_arguments.number(op, "min_distance", min_distance),
        )
    )


class _Instances(NamedTuple):
    """The instances of one image."""

    outlines: Outlines
    labels: Tensor  # (M,) int64
    boxes: Tensor  # (M, 4) float32
    ignore: Tensor  # (M,) bool


def _instances(op: str, name: str, target: Mapping[str, Any]) -> _Instances:
    if not isinstance(target, Mapping):
        raise TypeError(f"{op}: expected {name} to be a dict, got {type(target).__name__}")
    if "labels" not in target or ("outlines" not in target and "masks" not in target):
        raise ValueError(
            f"{op}: expected {name} to have 'labels', and 'outlines' or 'masks', got the keys {sorted(target)}"
        )
    labels = _arguments.int64(op, f"{name}['labels']", target["labels"])
    if labels.dim() != 1:
        raise ValueError(f"{op}: expected {name}['labels'] of shape (M,), got {tuple(labels.shape)}")
    if "outlines" in target:
        outlines, source = target["outlines"], "outlines"
        offsets = checked(op, outlines)[1]
    else:
        source = "masks"
        masks = _arguments.dtype(op, f"{name}['masks']", target["masks"], torch.bool, torch.uint8)
        if masks.dim() != 3:
            raise ValueError(f"{op}: expected {name}['masks'] of shape (M, H, W), got {tuple(masks.shape)}")
        outlines = outlines_from_masks(masks)
        offsets = outlines.offsets
    _same_count(op, f"{name}['{source}']", len(outlines), f"{name}['labels']", labels)
    if "boxes" not in target:
        boxes = outlines.boxes()
    else:
        boxes = _arguments.float32(op, f"{name}['boxes']", target["boxes"])
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{op}: expected {name}['boxes'] of shape (M, 4), got {tuple(boxes.shape)}")
        _same_count(op, f"{name}['boxes']", boxes.shape[0], f"{name}['labels']", labels)
    ignore = torch.zeros_like(labels, dtype=torch.bool)
    for key in ("iscrowd", "ignore"):
        if key in target:
            given = _arguments.dtype(op, f"{name}['{key}']", target[key], torch.bool, *_arguments.INTEGERS)
            if given.shape != labels.shape:
                raise ValueError(
                    f"{op}: expected {name}['{key}'] of the shape of labels, {tuple(labels.shape)}, got "
                    f"{tuple(given.shape)}"
                )
            _arguments.same_device(op, **{f"{name}['labels']": labels, f"{name}['{key}']": given})
            ignore = ignore | (given != 0)
    _arguments.same_device(
        op, **{f"{name}['labels']": labels, f"{name}['{source}']": offsets, f"{name}['boxes']": boxes}
    )
    return _Instances(outlines, labels, boxes.float(), ignore)


def _same_count(op: str, name: str, count: int, other: str, labels: Tensor) -> None:
    if count != labels.shape[0]:
        raise ValueError(f"{op}: expected {name} of as many instances as {other}, {labels.shape[0]}, got {count}")


def _finite(op: str, name: str, value: float) -> float:
    """Replace infinity, which AOTInductor cannot store, by float32's largest number, which compares alike here."""
    return max(min(_arguments.number(op, name, value), _LARGEST), -_LARGEST)  # NaN is kept


def _pairs(op: str, name: str, pairs: Sequence[Sequence[Any]]) -> list[Any]:
    """Flatten the pairs to one list, as the op's schema takes them."""
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
