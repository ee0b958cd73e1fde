"""Greedy non-maximum suppression of polygons and of stars given by rays."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _arguments, _fakes, _vmap
from .polygon_iou import is_iomin


def polygon_nms(
    polygons: Tensor, scores: Tensor, iou_threshold: float, *, metric: str = "iou", max_output: int | None = None
) -> Tensor:
    """Keep the best of overlapping polygons.

    Greedy: from the highest score down, a polygon is kept unless it overlaps a kept one by more than the threshold.

    Parameters
    ----------
    polygons : Tensor, shape (N, V, 2), float
        Vertices x, y in pixels, in either direction around. Computed in double.
    scores : Tensor, shape (N,), float
        Equal scores keep the lower index. +inf is legal, NaN is never kept.
    iou_threshold : float
        From 0 to 1. A pair is suppressed when ``inter > iou_threshold * union``, so never at 1.
    metric : {"iou", "iomin"}
        What the overlap is measured against: the union, or the smaller area.
    max_output : int, optional
        The result then has this length, padded with -1: one shape for ``torch.compile`` and ``torch.vmap``, no work
        below the last one kept, and no waiting for a GPU; without it the call waits for one, once, to learn the length.

    Returns
    -------
    Tensor, shape (K,) or (max_output,), int64
        Indices of the polygons kept, by falling score. Polygons without area overlap nothing: they
        are kept and suppress nothing. Polygons with NaN or infinite vertices are never kept and suppress nothing. Not
        differentiable.

    Raises
    ------
    TypeError
        If ``polygons`` or ``scores`` is not a floating-point tensor.
    ValueError
        If a shape, the threshold, the metric or max_output is not as above.

    Notes
    -----
    Overlaps are exact for simple polygons, up to snapping the vertices to 2⁻²⁴ of the extent of the pair. Polygons
    wider or taller than 1e150 count as not finite. Memory grows with N; on the CPU, time grows with the number of pairs
    whose boxes overlap, while a GPU looks at the boxes of all pairs of a kept and a later polygon.

    Examples
    --------
    >>> square = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    >>> polygons = torch.stack([square, square + 0.5, square + 3])
    >>> polygon_nms(polygons, torch.tensor([0.6, 0.9, 0.8]), 0.5)
    tensor([1, 2])
    """
    op = "polygon_nms"
    (polygons,) = _arguments.floats(op, polygons=polygons)
    keep: Tensor = torch.ops.polarmask.polygon_nms(
        polygons.detach(), _scores(op, scores, polygons=polygons), iou_threshold, is_iomin(op, metric), max_output
    )
    return keep


def batched_polygon_nms(
    polygons: Tensor,
    scores: Tensor,
    idxs: Tensor,
    iou_threshold: float,
    *,
    metric: str = "iou",
    max_output: int | None = None,
) -> Tensor:
    """Keep the best of overlapping polygons, category by category.

    Parameters
    ----------
    idxs : Tensor, shape (N,), int32 or int64
        Categories, any values: only polygons of equal ones suppress each other, as in ``torchvision.ops.batched_nms``.
    polygons, scores, iou_threshold, metric, max_output
        See `polygon_nms`; without max_output it waits for a GPU once, to learn the length.

    Returns
    -------
    Tensor, shape (K,) or (max_output,), int64
        Indices of the polygons kept, by falling score over all categories.

    Raises
    ------
    TypeError, ValueError
        As `polygon_nms`, and if ``idxs`` is not an int32 or int64 tensor of shape (N,).

    Examples
    --------
    >>> square = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    >>> polygons = torch.stack([square, square, square])
    >>> batched_polygon_nms(polygons, torch.tensor([0.6, 0.9, 0.8]), torch.tensor([7, 7, 1]), 0.5)
    tensor([1, 2])
    """
    op = "batched_polygon_nms"
    (polygons,) = _arguments.floats(op, polygons=polygons)
    idxs = _arguments.int64(op, "idxs", idxs)
    keep: Tensor = torch.ops.polarmask.batched_polygon_nms(
        polygons.detach(),
        _scores(op, scores, polygons=polygons, idxs=idxs),
        idxs,
        iou_threshold,
        is_iomin(op, metric),
        max_output,
    )
    return keep


def rays_nms(
    centers: Tensor,
    rays: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    metric: str = "iou",
    max_output: int | None = None,
) -> Tensor:
    """Keep the best of overlapping stars given by their rays.

    Parameters
    ----------
    centers : Tensor, shape (N, 2), float
        x, y in pixels.
    rays : Tensor, shape (N, R), float
        Ray lengths in pixels, R from 3 to 1024; ray k points along (cos 2πk/R, sin 2πk/R). Negative ones count as 0.
    scores, iou_threshold, metric, max_output
        See `polygon_nms`; without max_output it waits for a GPU once, to learn the length.

    Returns
    -------
    Tensor, shape (K,) or (max_output,), int64
        Indices of the stars kept, by falling score. Stars without area overlap nothing: they are
        kept and suppress nothing. Stars with NaN or infinite numbers are never kept and suppress nothing. Not
        differentiable.

    Raises
    ------
    TypeError
        If ``centers``, ``rays`` or ``scores`` is not a floating-point tensor.
    ValueError
        If a shape, the threshold, the metric or max_output is not as above.

    Notes
    -----
    The same result as `polygon_nms` of the decoded polygons, up to pairs within 1e-6 of the threshold, but faster: the
    exact overlap of two stars takes R steps, that of two polygons R².

    Examples
    --------
    >>> centers = torch.tensor([[5.0, 5.0], [5.5, 5.0], [20.0, 5.0]])
    >>> rays_nms(centers, torch.full((3, 36), 4.0), torch.tensor([0.6, 0.9, 0.8]), 0.5)
    tensor([1, 2])
    """
    op = "rays_nms"
    centers, rays = _arguments.floats(op, centers=centers, rays=rays)
    keep: Tensor = torch.ops.polarmask.rays_nms(
        centers.detach(),
        rays.detach(),
        _scores(op, scores, centers=centers),
        iou_threshold,
        is_iomin(op, metric),
        max_output,
    )
    return keep


def batched_rays_nms(
    centers: Tensor,
    rays: Tensor,
    scores: Tensor,
    idxs: Tensor,
    iou_threshold: float,
    *,
    metric: str = "iou",
    max_output: int | None = None,
) -> Tensor:
    """Keep the best of overlapping stars given by their rays, category by category.

    Parameters
    ----------
    idxs : Tensor, shape (N,), int32 or int64
        Categories, any values: only stars of equal ones suppress each other, as in ``torchvision.ops.batched_nms``.
    centers, rays, scores, iou_threshold, metric, max_output
        See `rays_nms`; without max_output it waits for a GPU once, to learn the length.

    Returns
    -------
    Tensor, shape (K,) or (max_output,), int64
        Indices of the stars kept, by falling score over all categories.

    Raises
    ------
    TypeError, ValueError
        As `rays_nms`, and if ``idxs`` is not an int32 or int64 tensor of shape (N,).

    Examples
    --------
    >>> centers, rays = torch.zeros(3, 2), torch.ones(3, 36)
    >>> batched_rays_nms(centers, rays, torch.tensor([0.6, 0.9, 0.8]), torch.tensor([7, 7, 1]), 0.5, max_output=4)
    tensor([ 1,  2, -1, -1])
    """
    op = "batched_rays_nms"
    centers, rays = _arguments.floats(op, centers=centers, rays=rays)
    idxs = _arguments.int64(op, "idxs", idxs)
    keep: Tensor = torch.ops.polarmask.batched_rays_nms(
        centers.detach(),
        rays.detach(),
        _scores(op, scores, centers=centers, idxs=idxs),
        idxs,
        iou_threshold,
        is_iomin(op, metric),
        max_output,
    )
    return keep


def _scores(op: str, scores: Tensor, **others: Tensor) -> Tensor:
    """The scores, at least float32, on the device of the other arguments."""
    (given,) = _arguments.floats(op, scores=scores)
    _arguments.same_device(op, **others, scores=given)
    return given.detach()


def _kept(shapes: Tensor, max_output: int | None) -> Tensor:
    length = torch.library.get_ctx().new_dynamic_size() if max_output is None else max_output
    return shapes.new_empty(length, dtype=torch.int64)


@_fakes.register("polygon_nms")
def _polygon_nms_fake(
    polygons: Tensor, scores: Tensor, iou_threshold: float, iomin: bool, max_output: int | None
) -> Tensor:
    return _kept(polygons, max_output)


@_fakes.register("batched_polygon_nms")
def _batched_polygon_nms_fake(
    polygons: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, iomin: bool, max_output: int | None
) -> Tensor:
    return _kept(polygons, max_output)


@_fakes.register("rays_nms")
def _rays_nms_fake(
    centers: Tensor, rays: Tensor, scores: Tensor, iou_threshold: float, iomin: bool, max_output: int | None
) -> Tensor:
    return _kept(rays, max_output)


@_fakes.register("batched_rays_nms")
def _batched_rays_nms_fake(
    centers: Tensor,
    rays: Tensor,
    scores: Tensor,
    idxs: Tensor,
    iou_threshold: float,
    iomin: bool,
    max_output: int | None,
) -> Tensor:
    return _kept(rays, max_output)


for _name in ("polygon_nms", "batched_polygon_nms", "rays_nms", "batched_rays_nms"):
    _vmap.register(_name, length="max_output")
