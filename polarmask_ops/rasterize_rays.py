"""Rays as polygons, boxes, masks, COCO RLE and label images, by the rules of ``rasterize.py``."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _arguments
from ._extension import _C
from .rasterize import RULES, checked_order
from .rle import RLE


def rays_to_polygons(centers: Tensor, rays: Tensor) -> Tensor:
    """Vertices of star polygons: where the rays end.

    Parameters
    ----------
    centers : Tensor, shape (N, 2), float
        x, y of the centres in pixels.
    rays : Tensor, shape (N, R), float
        Ray lengths in pixels, R from 3 to 1024; negative ones count as 0. Ray k points along (cos 2πk/R, sin 2πk/R), y
        down.

    Returns
    -------
    Tensor, shape (N, R, 2), float32 (float64 for float64)
        Computed in double precision and rounded once. Differentiable in both, twice; negative rays get no gradient.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes or devices do not fit.

    Examples
    --------
    >>> rays_to_polygons(torch.tensor([[5.0, 5.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    tensor([[[6., 5.], [5., 7.], [2., 5.], [5., 1.]]])
    """
    polygons: Tensor = torch.ops.polarmask.rays_to_polygons(
        *_arguments.floats("rays_to_polygons", centers=centers, rays=rays)
    )
    return polygons


def rays_to_boxes(centers: Tensor, rays: Tensor) -> Tensor:
    """Boxes around star polygons.

    Parameters
    ----------
    centers, rays : Tensor
        As for :func:`rays_to_polygons`.

    Returns
    -------
    Tensor, shape (N, 4), float32 (float64 for float64)
        x0, y0, x1, y1 of the vertices; NaN where a vertex is. Differentiable; vertices that tie share the gradient.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes or devices do not fit.

    Examples
    --------
    >>> rays_to_boxes(torch.tensor([[5.0, 5.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    tensor([[2., 1., 6., 7.]])
    """
    op = "rays_to_boxes"
    centers, rays = _arguments.floats(op, centers=centers, rays=rays)
    if rays.dim() != 2 or centers.shape != (rays.shape[0], 2) or not _C.MIN_RAYS <= rays.shape[1] <= _C.MAX_RAYS:
        raise ValueError(
            f"{op}: expected centers of shape (N, 2) and rays of shape (N, R), R from {_C.MIN_RAYS} to {_C.MAX_RAYS}, "
            f"got {tuple(centers.shape)} and {tuple(rays.shape)}"
        )
    polygons = torch.ops.polarmask.rays_to_polygons(centers, rays)
    return torch.cat([polygons.amin(1), polygons.amax(1)], 1)


def rays_to_masks(centers: Tensor, rays: Tensor, size: tuple[int, int], *, scale: Tensor | None = None) -> Tensor:
    """Bitmaps of star polygons; equal to ``polygons_to_masks(rays_to_polygons(centers, rays) * scale, size)``.

    Parameters
    ----------
    centers, rays : Tensor
        As for :func:`rays_to_polygons`.
    size : (H, W)
        Of the image; H * W < 2**31.
    scale : Tensor, shape (2,) or (N, 2), float, optional
        Factors of the vertices' x and y: for images that were resized without keeping their aspect ratio.

    Returns
    -------
    Tensor, shape (N, H, W), bool

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes, devices or ``size`` do not fit.

    Examples
    --------
    >>> rays_to_masks(torch.tensor([[1.5, 1.5]]), torch.ones(1, 4), (3, 3)).int()
    tensor([[[0, 1, 0],
             [0, 1, 0],
             [0, 0, 0]]], dtype=torch.int32)
    """
    op = "rays_to_masks"
    shapes = _rays(op, centers, rays, scale)
    masks: Tensor = torch.ops.polarmask.rays_to_masks(*shapes, *_arguments.image_size(op, size))
    return masks


def rays_to_rle(
    centers: Tensor, rays: Tensor, size: tuple[int, int], *, rule: str = "center", scale: Tensor | None = None
) -> RLE:
    """COCO RLE of star polygons; equal to ``polygons_to_rle(rays_to_polygons(centers, rays) * scale, size)``.

    Parameters
    ----------
    centers, rays : Tensor
        As for :func:`rays_to_polygons`.
    size, rule
        As for :func:`polygons_to_rle`.
    scale
        As for :func:`rays_to_masks`.

    Returns
    -------
    RLE
        On a GPU the host waits once, to learn its length.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes, devices, ``size`` or ``rule`` do not fit.

    Examples
    --------
    >>> rays_to_rle(torch.tensor([[2.0, 2.0]]), torch.full((1, 4), 1.5), (4, 4)).to_coco()
    [{'size': [4, 4], 'counts': b'52203'}]
    """
    op = "rays_to_rle"
    size = _arguments.image_size(op, size)
    shapes = _rays(op, centers, rays, scale)
    coco = _arguments.choice(op, "rule", rule, RULES) == "coco"
    counts, offsets = torch.ops.polarmask.rays_to_rle(*shapes, *size, coco)
    return RLE(counts, offsets, size)


def rays_to_labels(
    centers: Tensor,
    rays: Tensor,
    size: tuple[int, int],
    *,
    order: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Label image of star polygons; equal to ``polygons_to_labels(rays_to_polygons(centers, rays) * scale, size)``.

    Parameters
    ----------
    centers, rays : Tensor
        As for :func:`rays_to_polygons`.
    size, order
        As for :func:`polygons_to_labels`.
    scale
        As for :func:`rays_to_masks`.

    Returns
    -------
    Tensor, shape (H, W), int32

    Raises
    ------
    TypeError
        If a dtype does not fit.
    ValueError
        If shapes, devices or ``size`` do not fit.
    IndexError
        If ``order`` holds what is no index of a row (on the CPU).

    Examples
    --------
    >>> rays_to_labels(torch.tensor([[1.0, 1.0], [3.0, 1.0]]), torch.full((2, 4), 1.5), (2, 4))
    tensor([[1, 1, 2, 2],
            [1, 1, 2, 2]], dtype=torch.int32)
    """
    op = "rays_to_labels"
    shapes = _rays(op, centers, rays, scale)
    labels: Tensor = torch.ops.polarmask.rays_to_labels(
        *shapes, *_arguments.image_size(op, size), checked_order(op, order, rays=shapes[1])
    )
    return labels


def _rays(op: str, centers: Tensor, rays: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    if scale is None:
        centers, rays = _arguments.floats(op, centers=centers, rays=rays)
        return centers, rays, None
    centers, rays, scale = _arguments.floats(op, centers=centers, rays=rays, scale=scale)
    if scale.shape == (2,):
        scale = scale.expand(rays.shape[0], 2)
    if scale.dim() != 2:
        raise ValueError(f"{op}: expected scale of shape (2,) or (N, 2), got {tuple(scale.shape)}")
    return centers, rays, scale
