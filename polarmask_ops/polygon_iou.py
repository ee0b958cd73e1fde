"""Areas and IoU of polygons, and of stars given by rays around any two centres."""

from __future__ import annotations

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
    iou: Tensor = torch.ops.polarmask.polygon_iou(a.detach(), b.detach(), is_iomin("polygon_iou", metric), paired)
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
        centers_a.detach(), rays_a.detach(), centers_b.detach(), rays_b.detach(), is_iomin(op, metric), paired
    )
    return iou


def is_iomin(op: str, metric: str) -> bool:
    """Check ``metric`` and return whether intersections are divided by the smaller area."""
    return _arguments.choice(op, "metric", metric, _METRICS) == "iomin"


@_fakes.register_meta("polygon_areas")
def _polygon_areas_fake(polygons: Tensor) -> Tensor:
    return polygons.new_empty(polygons.shape[0])


@_fakes.register_meta("polygon_iou")
def _polygon_iou_fake(a: Tensor, b: Tensor, iomin: bool, paired: bool) -> Tensor:
    return a.new_empty(a.shape[0]) if paired else a.new_empty(a.shape[0], b.shape[0])


@_fakes.register_meta("rays_iou")
def _rays_iou_fake(
    centers_a: Tensor, rays_a: Tensor, centers_b: Tensor, rays_b: Tensor, iomin: bool, paired: bool
) -> Tensor:
    return rays_a.new_empty(rays_a.shape[0]) if paired else rays_a.new_empty(rays_a.shape[0], rays_b.shape[0])


_vmap.register("polygon_areas", rows=(0,))
_vmap.register("polygon_iou")
_vmap.register("rays_iou")
