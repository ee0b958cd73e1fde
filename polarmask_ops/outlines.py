"""Boundaries of instances as directed segments, from which training targets are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import _arguments, _fakes, _ragged, _vmap


@dataclass(frozen=True, eq=False)
class Outlines:
    """Boundaries of M instances, as directed segments in any order.

    An instance's segments run around its matter with Σ(x0·y1 − x1·y0) > 0 (clockwise on the screen) and around its
    holes the other way. Their order does not matter: area and centroid are sums, the length of a ray is a maximum.

    Attributes
    ----------
    segments : Tensor, shape (S, 4), float
        x0, y0, x1, y1 in pixels; pixel (row i, column j) is the square [j, j + 1) × [i, i + 1).
    offsets : Tensor, shape (M + 1,), int64
        Instance m has ``segments[offsets[m]:offsets[m + 1]]``.

    Notes
    -----
    Outlines are a pytree that ``torch.export`` knows. The constructor checks nothing, so that pytrees can be rebuilt
    from any two leaves; every function that takes Outlines checks them.

    Examples
    --------
    >>> from polarmask_ops import outlines_from_polygons
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
        """Select instances.

        Parameters
        ----------
        index : int, slice, or Tensor of integers or bool
            Which of the M instances; a bool tensor has shape (M,).

        Returns
        -------
        Outlines
            On a GPU the host waits once for the length, for a bool tensor twice.

        Raises
        ------
        IndexError
            If ``index`` does not fit M instances.
        TypeError, ValueError
            If segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> squares = outlines_from_polygons([[[0, 0, 4, 0, 4, 4, 0, 4]], [[0, 0, 2, 0, 2, 2, 0, 2]]])
        >>> squares[1].areas(), len(squares[torch.tensor([True, False])])
        (tensor([4.]), 1)
        """
        segments, offsets = checked("Outlines", self)
        return Outlines(*_ragged.select("Outlines", segments, offsets, index))

    @staticmethod
    def cat(items: Sequence[Outlines]) -> Outlines:
        """Concatenate the instances of several Outlines.

        Parameters
        ----------
        items : sequence of Outlines
            At least one; all on one device.

        Returns
        -------
        Outlines
            In the common dtype of the segments.

        Raises
        ------
        TypeError, ValueError
            If there is no item, or an item is not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import Outlines, outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> len(Outlines.cat([outlines, outlines]))
        2
        """
        if not items:
            raise ValueError("Outlines.cat: expected at least one Outlines, got no items")
        parts = [checked("Outlines.cat", item) for item in items]
        _arguments.same_device("Outlines.cat", **{f"items[{k}]": offsets for k, (_, offsets) in enumerate(parts)})
        segments = torch.cat([segments for segments, _ in parts])
        return Outlines(segments, _ragged.cat([offsets for _, offsets in parts]))

    def scale(self, sx: float, sy: float) -> Outlines:
        """Multiply x by sx and y by sy, as when the image is resized.

        Parameters
        ----------
        sx, sy : float
            Negative factors mirror, and the segments keep matter on the same side.

        Returns
        -------
        Outlines

        Raises
        ------
        TypeError, ValueError
            If segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.scale(2, 0.5).boxes()
        tensor([[0., 0., 8., 1.]])
        """
        return self._affine("Outlines.scale", [[sx, 0, 0], [0, sy, 0]])

    def hflip(self, width: float) -> Outlines:
        """Replace x by width − x, as when an image of that width is mirrored.

        Parameters
        ----------
        width : float
            Pixels.

        Returns
        -------
        Outlines

        Raises
        ------
        TypeError, ValueError
            If segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.hflip(10).boxes()
        tensor([[ 6.,  0., 10.,  2.]])
        """
        return self._affine("Outlines.hflip", [[-1, 0, width], [0, 1, 0]])

    def translate(self, dx: float, dy: float) -> Outlines:
        """Add dx to x and dy to y, as when a crop is cut at (−dx, −dy); :meth:`clip` then cuts at its border.

        Parameters
        ----------
        dx, dy : float
            Pixels.

        Returns
        -------
        Outlines

        Raises
        ------
        TypeError, ValueError
            If segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.translate(1, -1).boxes()
        tensor([[ 1., -1.,  5.,  1.]])
        """
        return self._affine("Outlines.translate", [[1, 0, dx], [0, 1, dy]])

    def affine(self, matrix: Sequence[Sequence[float]] | Tensor) -> Outlines:
        """Multiply (x, y, 1) by a matrix.

        Parameters
        ----------
        matrix : Tensor or nested sequence, shape (2, 3), or (3, 3) with the last row 0, 0, 1
            Read on the host. A matrix that mirrors swaps the ends of the segments, so that matter stays on the same
            side of them.

        Returns
        -------
        Outlines

        Raises
        ------
        TypeError, ValueError
            If ``matrix`` has another shape or last row, or segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.affine([[0, 1, 0], [1, 0, 5]]).boxes()  # x and y change places
        tensor([[0., 5., 2., 9.]])
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
        """Cut the instances at the border of an image, exactly: areas are those of the parts inside.

        Parameters
        ----------
        size : (H, W)
            Of the image; H * W < 2**31.

        Returns
        -------
        Outlines
            Where matter is cut the boundary is closed along the border of the image. Instances outside have no
            segments; points (``boundary="pixels"``) stay when they lie in the rectangle or on its border. Not
            differentiable. On a GPU the host waits once for the length.

        Raises
        ------
        TypeError, ValueError
            If ``size`` is wrong, or segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.translate(-1, 0).clip((2, 2)).areas()
        tensor([4.])
        """
        op = "Outlines.clip"
        segments, offsets = checked(op, self)
        size = _arguments.image_size(op, size)
        return Outlines(*torch.ops.polarmask.outlines_clip(segments.detach(), offsets, *size))

    def to(self, *args: Any, **kwargs: Any) -> Outlines:
        """Convert the dtype of the segments, or move both tensors to another device.

        Parameters
        ----------
        *args, **kwargs
            As for ``Tensor.to``. The offsets stay int64.

        Returns
        -------
        Outlines

        Raises
        ------
        TypeError, RuntimeError
            As ``Tensor.to``.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.to(torch.float64).segments.dtype
        torch.float64
        """
        segments = self.segments.to(*args, **kwargs)
        return Outlines(segments, self.offsets.to(segments.device, non_blocking=kwargs.get("non_blocking", False)))

    def pin_memory(self) -> Outlines:
        """Copy to page-locked memory, from which copies to a GPU need not wait.

        Returns
        -------
        Outlines

        Raises
        ------
        RuntimeError
            Where torch finds no accelerator.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> pinned = outlines.pin_memory() if torch.cuda.is_available() else outlines
        >>> len(pinned)
        1
        """
        return Outlines(self.segments.pin_memory(), self.offsets.pin_memory())

    def areas(self) -> Tensor:
        """Compute the signed areas: matter minus holes; rings that overlap count twice.

        Returns
        -------
        Tensor, shape (M,), the dtype of the segments, at least float32
            Square pixels. Summed in double in one fixed order; 0 where only rounding errors are left, and for instances
            without segments. Not finite where a vertex is not finite. Not differentiable.

        Raises
        ------
        TypeError, ValueError
            If segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.areas()
        tensor([8.])
        """
        return self._moments("Outlines.areas")[0]

    def centroids(self) -> Tensor:
        """Compute the centres of mass.

        Returns
        -------
        Tensor, shape (M, 2), the dtype of the segments, at least float32
            x, y in pixels. Where the area is 0, the mean of the segments' midpoints weighted by length, and for points
            the plain mean. NaN for instances without segments. Not differentiable.

        Raises
        ------
        TypeError, ValueError
            If segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.centroids()
        tensor([[2., 1.]])
        """
        return self._moments("Outlines.centroids")[1]

    def boxes(self) -> Tensor:
        """Compute the smallest boxes around the segments.

        Returns
        -------
        Tensor, shape (M, 4), the dtype of the segments, at least float32
            x0, y0, x1, y1 in pixels; zeros for instances without segments. NaN coordinates are skipped. Not
            differentiable.

        Raises
        ------
        TypeError, ValueError
            If segments or offsets are not as in :class:`Outlines`.

        Examples
        --------
        >>> from polarmask_ops import outlines_from_polygons
        >>> outlines = outlines_from_polygons([[[0, 0, 4, 0, 4, 2, 0, 2]]])
        >>> outlines.boxes()
        tensor([[0., 0., 4., 2.]])
        """
        segments, offsets = checked("Outlines.boxes", self)
        boxes: Tensor = torch.ops.polarmask.outlines_boxes(segments.detach(), offsets)
        return boxes

    def _moments(self, op: str) -> tuple[Tensor, Tensor]:
        segments, offsets = checked(op, self)
        moments: tuple[Tensor, Tensor] = torch.ops.polarmask.outlines_moments(segments.detach(), offsets, op)
        return moments


torch.export.register_dataclass(Outlines, serialized_type_name="polarmask_ops.Outlines")
torch.serialization.add_safe_globals([Outlines])  # so that torch.load(weights_only=True) accepts them


def checked(op: str, outlines: Outlines) -> tuple[Tensor, Tensor]:
    """Check Outlines; return their segments, at least float32, and their offsets, as the ops take them."""
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
