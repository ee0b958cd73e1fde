"""Rays, polygons and outlines as masks, COCO RLE and label images.

One rule everywhere: an edge owns column j when x0 <= j + 1/2 < x1 (its ends ordered by x); its height y there is
interpolated in double precision and toggles the column from row ceil(y - 1/2) on; a pixel is inside when it is toggled
an odd number of times. So masks, RLE and labels agree bit for bit, rays give what their polygons give, and shapes that
share an edge leave neither gap nor overlap. A shape with a NaN or infinite coordinate is empty, like one with fewer
than three vertices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _arguments, _fakes, _ragged, _vmap
from .outlines import Outlines, checked
from .rle import RLE

RULES = ("center", "coco")


def polygons_to_masks(polygons: Tensor, size: tuple[int, int]) -> Tensor:
    """Bitmaps of polygons: the pixels whose centres they contain, by the even-odd rule.

    Parameters
    ----------
    polygons : Tensor, shape (N, V, 2), float
        Vertices x, y in pixels, in either direction.
    size : (H, W)
        Of the image; H * W < 2**31.

    Returns
    -------
    Tensor, shape (N, H, W), bool

    Raises
    ------
    TypeError
        If ``polygons`` is not a floating-point tensor.
    ValueError
        If its shape or ``size`` does not fit.

    Examples
    --------
    >>> polygons_to_masks(torch.tensor([[[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]]]), (3, 3)).int()
    tensor([[[1, 1, 0],
             [1, 0, 0],
             [0, 0, 0]]], dtype=torch.int32)
    """
    op = "polygons_to_masks"
    (polygons,) = _arguments.floats(op, polygons=polygons)
    masks: Tensor = torch.ops.polarmask.polygons_to_masks(polygons, *_arguments.image_size(op, size))
    return masks


def polygons_to_rle(polygons: Tensor, size: tuple[int, int], *, rule: str = "center") -> RLE:
    """COCO RLE of polygons, without a bitmap: time and memory do not grow with the image's area.

    Parameters
    ----------
    polygons : Tensor, shape (N, V, 2), float
        Vertices x, y in pixels, in either direction.
    size : (H, W)
        Of the image; H * W < 2**31.
    rule : {"center", "coco"}
        ``"center"``: the masks of :func:`polygons_to_masks`. ``"coco"``: byte for byte what ``frPyObjects`` of
        pycocotools gives for three or more vertices; coordinates beyond ±10⁶, where it overflows, are clipped.

    Returns
    -------
    RLE
        On a GPU the host waits once, to learn its length.

    Raises
    ------
    TypeError
        If ``polygons`` is not a floating-point tensor.
    ValueError
        If its shape, ``size`` or ``rule`` does not fit.

    Examples
    --------
    >>> square = torch.tensor([[[1.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 3.0]]])
    >>> polygons_to_rle(square, (4, 4)).counts
    tensor([5, 2, 2, 2, 5], dtype=torch.int32)
    >>> polygons_to_rle(square, (4, 4), rule="coco").to_coco()
    [{'size': [4, 4], 'counts': b'52203'}]
    """
    op = "polygons_to_rle"
    size = _arguments.image_size(op, size)
    (polygons,) = _arguments.floats(op, polygons=polygons)
    coco = _arguments.choice(op, "rule", rule, RULES) == "coco"
    counts, offsets = torch.ops.polarmask.polygons_to_rle(polygons, *size, coco)
    return RLE(counts, offsets, size)


def polygons_to_labels(polygons: Tensor, size: tuple[int, int], *, order: Tensor | None = None) -> Tensor:
    """Label image of polygons, drawn one over the other.

    Parameters
    ----------
    polygons : Tensor, shape (N, V, 2), float
        Vertices x, y in pixels, in either direction.
    size : (H, W)
        Of the image; H * W < 2**31.
    order : Tensor, shape (K,), int32 or int64, optional
        The polygons to draw, first to last; the last one stays on top. By default 0 … N − 1. For what NMS keeps, best
        first, pass ``keep.flip(0)``.

    Returns
    -------
    Tensor, shape (H, W), int32
        n + 1 where polygon n is on top, 0 where none is.

    Raises
    ------
    TypeError
        If a dtype does not fit.
    ValueError
        If a shape, device or ``size`` does not fit.
    IndexError
        If ``order`` holds what is no index of a polygon (on the CPU).

    Examples
    --------
    >>> squares = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]]).repeat(2, 1, 1)
    >>> squares[1] += 1
    >>> polygons_to_labels(squares, (3, 3), order=torch.tensor([1, 0]))
    tensor([[1, 1, 0],
            [1, 1, 2],
            [0, 2, 2]], dtype=torch.int32)
    """
    op = "polygons_to_labels"
    (polygons,) = _arguments.floats(op, polygons=polygons)
    labels: Tensor = torch.ops.polarmask.polygons_to_labels(
        polygons, *_arguments.image_size(op, size), checked_order(op, order, polygons=polygons)
    )
    return labels


def outlines_to_masks(outlines: Outlines, size: tuple[int, int]) -> Tensor:
    """Bitmaps of outlines: ragged shapes of any number of rings, such as COCO's ground truth.

    Parameters
    ----------
    outlines : Outlines
        M instances; all pieces of an instance count together, by the even-odd rule.
    size : (H, W)
        Of the image; H * W < 2**31.

    Returns
    -------
    Tensor, shape (M, H, W), bool

    Raises
    ------
    TypeError
        If a dtype does not fit.
    ValueError
        If shapes, devices, offsets or ``size`` do not fit.

    Examples
    --------
    >>> segments = torch.tensor([[0.0, 0.0, 3.0, 0.0], [3.0, 0.0, 0.0, 3.0], [0.0, 3.0, 0.0, 0.0]])
    >>> outlines_to_masks(Outlines(segments, torch.tensor([0, 3])), (2, 2)).int()
    tensor([[[1, 1],
             [1, 0]]], dtype=torch.int32)
    """
    op = "outlines_to_masks"
    masks: Tensor = torch.ops.polarmask.outlines_to_masks(*checked(op, outlines), *_arguments.image_size(op, size))
    return masks


def outlines_to_rle(outlines: Outlines, size: tuple[int, int]) -> RLE:
    """COCO RLE of outlines, without a bitmap.

    Parameters
    ----------
    outlines, size
        As for :func:`outlines_to_masks`, whose masks these are.

    Returns
    -------
    RLE
        On a GPU the host waits once, to learn its length.

    Raises
    ------
    TypeError
        If a dtype does not fit.
    ValueError
        If shapes, devices, offsets or ``size`` do not fit.

    Examples
    --------
    >>> segments = torch.tensor([[0.0, 0.0, 3.0, 0.0], [3.0, 0.0, 0.0, 3.0], [0.0, 3.0, 0.0, 0.0]])
    >>> outlines_to_rle(Outlines(segments, torch.tensor([0, 3])), (2, 2)).counts
    tensor([0, 3, 1], dtype=torch.int32)
    """
    op = "outlines_to_rle"
    size = _arguments.image_size(op, size)
    counts, offsets = torch.ops.polarmask.outlines_to_rle(*checked(op, outlines), *size)
    return RLE(counts, offsets, size)


def outlines_to_labels(outlines: Outlines, size: tuple[int, int], *, order: Tensor | None = None) -> Tensor:
    """Label image of outlines, drawn one over the other.

    Parameters
    ----------
    outlines, size
        As for :func:`outlines_to_masks`.
    order
        As for :func:`polygons_to_labels`.

    Returns
    -------
    Tensor, shape (H, W), int32

    Raises
    ------
    TypeError
        If a dtype does not fit.
    ValueError
        If shapes, devices, offsets or ``size`` do not fit.
    IndexError
        If ``order`` holds what is no index of an instance (on the CPU).

    Examples
    --------
    >>> segments = torch.tensor([[0.0, 0.0, 3.0, 0.0], [3.0, 0.0, 0.0, 3.0], [0.0, 3.0, 0.0, 0.0]])
    >>> outlines_to_labels(Outlines(segments, torch.tensor([0, 3])), (2, 2))
    tensor([[1, 1],
            [1, 0]], dtype=torch.int32)
    """
    op = "outlines_to_labels"
    segments, offsets = checked(op, outlines)
    labels: Tensor = torch.ops.polarmask.outlines_to_labels(
        segments, offsets, *_arguments.image_size(op, size), checked_order(op, order, **{"outlines.segments": segments})
    )
    return labels


def checked_order(op: str, order: Tensor | None, **shapes: Tensor) -> Tensor | None:
    if order is None:
        return None
    order = _arguments.int64(op, "order", order)
    _arguments.same_device(op, **shapes, order=order)
    return order


@_fakes.register("rays_to_polygons")
def _rays_to_polygons_fake(centers: Tensor, rays: Tensor) -> Tensor:
    return rays.new_empty(*rays.shape, 2)


def _save_rays(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _rays_to_polygons_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    # Written with torch ops, so that autograd can differentiate it again.
    (rays,) = ctx.saved_tensors
    origin, unit = rays.new_zeros(1, 2), rays.new_ones(1, rays.shape[1])
    directions = torch.ops.polarmask.rays_to_polygons(origin, unit)
    return grad.sum(1), torch.where(rays >= 0, (grad * directions).sum(2), 0)


torch.library.register_autograd("polarmask::rays_to_polygons", _rays_to_polygons_backward, setup_context=_save_rays)


@_fakes.register("polygons_to_masks")
def _polygons_to_masks_fake(polygons: Tensor, height: int, width: int) -> Tensor:
    return polygons.new_empty((polygons.shape[0], height, width), dtype=torch.bool)


@_fakes.register("polygons_to_rle")
def _polygons_to_rle_fake(polygons: Tensor, height: int, width: int, coco: bool) -> tuple[Tensor, Tensor]:
    return _ragged.fake(polygons, polygons.shape[0], torch.int32)


@_fakes.register("polygons_to_labels")
def _polygons_to_labels_fake(polygons: Tensor, height: int, width: int, order: Tensor | None) -> Tensor:
    return polygons.new_empty((height, width), dtype=torch.int32)


@_fakes.register("rays_to_masks")
def _rays_to_masks_fake(centers: Tensor, rays: Tensor, scale: Tensor | None, height: int, width: int) -> Tensor:
    return rays.new_empty((rays.shape[0], height, width), dtype=torch.bool)


@_fakes.register("rays_to_rle")
def _rays_to_rle_fake(
    centers: Tensor, rays: Tensor, scale: Tensor | None, height: int, width: int, coco: bool
) -> tuple[Tensor, Tensor]:
    return _ragged.fake(rays, rays.shape[0], torch.int32)


@_fakes.register("rays_to_labels")
def _rays_to_labels_fake(
    centers: Tensor, rays: Tensor, scale: Tensor | None, height: int, width: int, order: Tensor | None
) -> Tensor:
    return rays.new_empty((height, width), dtype=torch.int32)


@_fakes.register("outlines_to_masks")
def _outlines_to_masks_fake(segments: Tensor, offsets: Tensor, height: int, width: int) -> Tensor:
    return segments.new_empty((offsets.shape[0] - 1, height, width), dtype=torch.bool)


@_fakes.register("outlines_to_rle")
def _outlines_to_rle_fake(segments: Tensor, offsets: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    return _ragged.fake(segments, offsets.shape[0] - 1, torch.int32)


@_fakes.register("outlines_to_labels")
def _outlines_to_labels_fake(
    segments: Tensor, offsets: Tensor, height: int, width: int, order: Tensor | None
) -> Tensor:
    return segments.new_empty((height, width), dtype=torch.int32)


_vmap.register("rays_to_polygons", rows=(0, 1))
_vmap.register("polygons_to_masks", rows=(0,))
_vmap.register("rays_to_masks", rows=(0, 1, 2))
for _name in ("polygons_to_labels", "rays_to_labels", "outlines_to_masks", "outlines_to_labels"):
    _vmap.register(_name)
for _name in ("polygons_to_rle", "rays_to_rle", "outlines_to_rle"):
    _vmap.refuse(_name)
