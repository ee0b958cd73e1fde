"""Outlines from polygons, bitmaps and run lengths. Their fakes lie in ``outlines.py``, beside those of the methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _arguments, _ragged
from .outlines import Outlines
from .rle import RLE
from .rle import checked as checked_rle

_KEEP = ("largest", "all")


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
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
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
    """Return the vertices of a ring, shape (V, 2)."""
    if not isinstance(ring, Tensor):
        try:
            # torch.from_numpy warns about arrays that are not writable.
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
