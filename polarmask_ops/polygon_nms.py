"""IoU of polygons and of stars given by rays, and greedy NMS with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _arguments, _fakes, _vmap

_METRICS = ("iou", "iomin")


def polygon_areas(polygons: Tensor) -> Tensor:
    """Areas of polygons.

    Parameters
    ----------
    polygons : Tensor, shape (N, V, 2), float
        Vertices x, y in pixels, in either direction around.

    Returns
    -------
    Tensor, shape (N,), float32 (float64 for float64)
        Square pixels, summed in double. 0 for fewer than 3 vertices and for NaN or infinite ones. For self-crossing
        polygons the absolute sum of signed areas. Not differentiable.

    Raises
    ------
    TypeError
        If ``polygons`` is not a floating-point tensor.
    ValueError
        If its shape is not (N, V, 2).

    Examples
    --------
    >>> polygon_areas(torch.tensor([[[0.0, 0.0], [4.0, 0.0], [4.0, 3.0]]]))
    tensor([6.])
    """
    (polygons,) = _arguments.floats("polygon_areas", polygons=polygons)
    areas: Tensor = torch.ops.polarmask.polygon_areas(polygons.detach())
    return areas


def polygon_iou(a: Tensor, b: Tensor, *, metric: str = "iou", paired: bool = False) -> Tensor:
    """IoU of polygons, convex or not.

    Parameters
    ----------
    a : Tensor, shape (N, V, 2), float
        Vertices x, y in pixels, in either direction around.
    b : Tensor, shape (M, W, 2), float
        The same; N = M when ``paired``.
    metric : {"iou", "iomin"}
        What the intersection is divided by: the area of the union, or the smaller area.
    paired : bool
        Whether to compare row by row instead of all with all.

    Returns
    -------
    Tensor, shape (N, M), or (N,) when paired, float32 (float64 for float64)
        In [0, 1]. 0 for polygons without area, with fewer than 3 vertices, or with NaN or infinite ones. For simple
        polygons exact, up to snapping the vertices of a pair to 2⁻²⁴ of their joint extent, and exactly 1 for one with
        itself; for self-crossing ones unspecified within [0, 1]. Not differentiable.

    Raises
    ------
    TypeError
        If ``a`` or ``b`` is not a floating-point tensor.
    ValueError
        If their shapes or ``metric`` are not as above.

    Notes
    -----
    A pair whose boxes overlap takes V · W steps of some 4 ns on one core: two polygons of 40,000 vertices take 6 s.
    Masks are compared faster then.

    Examples
    --------
    >>> square = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]]])
    >>> polygon_iou(square, torch.cat([square, square + 2]))
    tensor([[1.0000, 0.1429]])
    """
    a, b = _arguments.floats("polygon_iou", a=a, b=b)
    iou: Tensor = torch.ops.polarmask.polygon_iou(a.detach(), b.detach(), _is_iomin("polygon_iou", metric), paired)
    return iou


def rays_iou(
    centers_a: Tensor,
    rays_a: Tensor,
    centers_b: Tensor,
    rays_b: Tensor,
    *,
    metric: str = "iou",
    paired: bool = False,
) -> Tensor:
    """IoU of the polygons that rays span, for any two centres.

    Parameters
    ----------
    centers_a, centers_b : Tensor, shape (N, 2) and (M, 2), float
        x, y in pixels; N = M when ``paired``.
    rays_a, rays_b : Tensor, shape (N, R) and (M, Q), float
        Ray lengths in pixels, R and Q from 3 to 1024; ray k of R points along (cos 2πk/R, sin 2πk/R). Negative ones
        count as 0.
    metric : {"iou", "iomin"}
        What the intersection is divided by: the area of the union, or the smaller area.
    paired : bool
        Whether to compare row by row instead of all with all.

    Returns
    -------
    Tensor, shape (N, M), or (N,) when paired, float32 (float64 for float64)
        In [0, 1], to rounding; exactly 1 for a shape with itself. 0 for shapes without area, or with NaN or infinite
        numbers. Not differentiable; for the loss of shapes around one centre see `polar_iou`.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If a shape or ``metric`` is not as above.

    Examples
    --------
    >>> centers, rays = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.ones(2, 4)  # squares with diagonal 2
    >>> rays_iou(centers, rays, centers, rays)
    tensor([[1.0000, 0.1429],
            [0.1429, 1.0000]])
    """
    op = "rays_iou"
    centers_a, rays_a, centers_b, rays_b = _arguments.floats(
        op, centers_a=centers_a, rays_a=rays_a, centers_b=centers_b, rays_b=rays_b
    )
    iou: Tensor = torch.ops.polarmask.rays_iou(
        centers_a.detach(), rays_a.detach(), centers_b.detach(), rays_b.detach(), _is_iomin(op, metric), paired
    )
    return iou


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
        polygons.detach(), _scores(op, scores, polygons=polygons), iou_threshold, _is_iomin(op, metric), max_output
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
        _is_iomin(op, metric),
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
        _is_iomin(op, metric),
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
        _is_iomin(op, metric),
        max_output,
    )
    return keep


def _scores(op: str, scores: Tensor, **others: Tensor) -> Tensor:
    """The scores, at least float32, on the device of the other arguments."""
    (given,) = _arguments.floats(op, scores=scores)
    _arguments.same_device(op, **others, scores=given)
    return given.detach()


def _is_iomin(op: str, metric: str) -> bool:
    return _arguments.choice(op, "metric", metric, _METRICS) == "iomin"


@_fakes.register("polygon_areas")
def _fake_areas(polygons: Tensor) -> Tensor:
    return polygons.new_empty(polygons.shape[0])


@_fakes.register("polygon_iou")
def _fake_polygon_iou(a: Tensor, b: Tensor, iomin: bool, paired: bool) -> Tensor:
    return a.new_empty(a.shape[0]) if paired else a.new_empty(a.shape[0], b.shape[0])


@_fakes.register("rays_iou")
def _fake_rays_iou(
    centers_a: Tensor, rays_a: Tensor, centers_b: Tensor, rays_b: Tensor, iomin: bool, paired: bool
) -> Tensor:
    return rays_a.new_empty(rays_a.shape[0]) if paired else rays_a.new_empty(rays_a.shape[0], rays_b.shape[0])


def _fake_nms(shapes: Tensor, *args: Any) -> Tensor:
    max_output = args[-1]
    length = torch.library.get_ctx().new_dynamic_size() if max_output is None else max_output
    return shapes.new_empty(length, dtype=torch.int64)


for _name in ("polygon_nms", "batched_polygon_nms", "rays_nms", "batched_rays_nms"):
    _fakes.register(_name)(_fake_nms)
    _vmap.register(_name, length="max_output")

_vmap.register("polygon_areas", rows=(0,))
_vmap.register("polygon_iou")
_vmap.register("rays_iou")
