"""Polygons that torchvision's v2 transforms move together with the image."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import Transform
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import register_kernel
from torchvision.transforms.v2.functional._geometry import _compute_affine_output_size, _get_inverse_affine_matrix

from polarmask_ops import Outlines

from .sample import Sample, kept


class Polygons(tv_tensors.TVTensor):
    """The outlines of an image's instances, as a TVTensor.

    torchvision's geometric transforms move them with the image, exactly: by the map from pixel areas to pixel areas
    that the image's own kernel follows. What a transform pushes out of the image is cut off. Those without a closed
    form (elastic) raise.

    Parameters
    ----------
    outlines : Outlines
        Of M instances, in pixels.
    canvas_size : (int, int)
        Height and width of the image.

    Notes
    -----
    As a tensor they are the segments, (S, 4); ``outlines`` and ``canvas_size`` are what they were made from.
    :class:`SanitizeInstances` belongs at the end of a pipeline.

    Examples
    --------
    >>> from torchvision.transforms import v2
    >>> from polarmask_ops import outlines_from_polygons
    >>> polygons = Polygons(outlines_from_polygons([[[0, 0, 4, 0, 4, 2]]]), canvas_size=(10, 20))
    >>> v2.functional.horizontal_flip(polygons).outlines.boxes().tolist()
    [[16.0, 0.0, 20.0, 2.0]]
    """

    offsets: Tensor
    canvas_size: tuple[int, int]

    def __new__(cls, outlines: Outlines, *, canvas_size: Sequence[int]) -> "Polygons":
        return cls._of(outlines.segments, outlines.offsets, canvas_size)

    @classmethod
    def _of(cls, segments: Tensor, offsets: Tensor, canvas_size: Sequence[int]) -> "Polygons":
        polygons = segments.as_subclass(cls)
        polygons.offsets = offsets
        height, width = canvas_size
        polygons.canvas_size = (int(height), int(width))
        return polygons

    @classmethod
    def _wrap_output(cls, output: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """What ``clone``, ``to``, ``detach`` and the like give."""
        like = next(each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Polygons))
        if isinstance(output, Tensor) and output.shape == like.shape:
            return cls._of(output.as_subclass(Tensor), like.offsets.to(output.device), like.canvas_size)
        return output

    @property
    def outlines(self) -> Outlines:
        """The polygons as :class:`polarmask_ops.Outlines`, which share their memory."""
        return Outlines(self.as_subclass(Tensor), self.offsets)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Polygons._of, (self.as_subclass(Tensor), self.offsets, self.canvas_size)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return self._make_repr(offsets=self.offsets.tolist(), canvas_size=self.canvas_size)


class SanitizeInstances(Transform):
    """Cuts polygons at the image's borders and drops instances of which too little is left, with all that is theirs.

    In the dict that holds the :class:`Polygons`, the sample itself or its target, boxes become the polygons' extents;
    boxes, masks and the entries named in ``fields`` keep the same instances. torchvision's SanitizeBoundingBoxes leaves
    polygons as they are.

    Parameters
    ----------
    min_area : float
        In square pixels, of what lies in the image.
    min_side : float
        Instances whose width and height are both smaller go.
    fields : sequence of str
        Further entries with a row for each instance.

    Raises
    ------
    TypeError
        If a sample has no dict with Polygons.
    ValueError
        If an entry has another number of instances.
    """

    def __init__(
        self, min_area: float = 1.0, min_side: float = 0.0, fields: Sequence[str] = ("labels", "ignore", "iscrowd")
    ) -> None:
        super().__init__()
        self.min_area, self.min_side, self.fields = min_area, min_side, tuple(fields)

    def forward(self, *inputs: Any) -> Any:
        """The sample, a dict or a tuple or list with such a dict, without the instances that are too small."""
        sample = inputs if len(inputs) > 1 else inputs[0]
        if isinstance(sample, dict) and _name_of_polygons(sample) is not None:
            return self._sanitized(sample)
        if isinstance(sample, (tuple, list)):
            holds = [isinstance(each, dict) and _name_of_polygons(each) is not None for each in sample]
            if any(holds):
                return type(sample)(
                    self._sanitized(each) if held else each for each, held in zip(sample, holds, strict=True)
                )
        raise TypeError(f"SanitizeInstances: expected a dict with Polygons, got {type(sample).__name__}")

    def _sanitized(self, entries: dict[str, Any]) -> dict[str, Any]:
        polygons = entries[_name_of_polygons(entries) or ""]
        outlines, keep = kept(polygons.outlines, polygons.canvas_size, self.min_area, self.min_side)
        result = dict(entries)
        for name, entry in entries.items():
            if isinstance(entry, Polygons):
                result[name] = Polygons(outlines, canvas_size=polygons.canvas_size)
            elif isinstance(entry, tv_tensors.BoundingBoxes):
                self._check(name, entry, len(keep))
                result[name] = _boxes(outlines, entry)
            elif isinstance(entry, tv_tensors.Mask) or name in self.fields:
                self._check(name, entry, len(keep))
                rows = entry.as_subclass(Tensor)[keep]
                result[name] = tv_tensors.wrap(rows, like=entry) if isinstance(entry, tv_tensors.TVTensor) else rows
        return result

    def _check(self, name: str, entry: Tensor, count: int) -> None:
        if entry.shape[0] != count:
            raise ValueError(f"SanitizeInstances: expected {name} of {count} instances, got {entry.shape[0]}")


def _boxes(outlines: Outlines, like: tv_tensors.BoundingBoxes) -> tv_tensors.BoundingBoxes:
    boxes = tv_tensors.BoundingBoxes(
        outlines.boxes().to(like.dtype), format="XYXY", canvas_size=like.canvas_size, device=like.device
    )
    return F.convert_bounding_box_format(boxes, new_format=like.format)


def to_tv(sample: Sample) -> dict[str, Any]:
    """A sample as torchvision's transforms take it: image, boxes, labels, polygons, ignore, image_id."""
    size = sample.size
    return {
        "image": tv_tensors.Image(sample.image),
        "boxes": tv_tensors.BoundingBoxes(sample.outlines.boxes(), format="XYXY", canvas_size=size),
        "labels": sample.labels,
        "polygons": Polygons(sample.outlines, canvas_size=size),
        "ignore": sample.ignore,
        "image_id": sample.image_id,
    }


def from_tv(entries: dict[str, Any]) -> Sample:
    """The inverse of :func:`to_tv`: what :func:`polarmask.data.batches.loader.collate` makes targets from."""
    return Sample(
        image=entries["image"].as_subclass(Tensor),
        outlines=entries["polygons"].outlines,
        labels=entries["labels"],
        ignore=entries["ignore"],
        image_id=entries["image_id"],
    )


def _name_of_polygons(entries: dict[str, Any]) -> str | None:
    return next((name for name, entry in entries.items() if isinstance(entry, Polygons)), None)


# The kernels. Pixel (i, j) is the square [j, j + 1) × [i, i + 1), and so it is for the kernels of images, which sample
# at (j + ½, i + ½) with align_corners=False.


def _canvas_after(functional: Any, polygons: Polygons, *args: Any, **kwargs: Any) -> tuple[int, int]:
    """The size that torchvision gives an image of the same size."""
    nothing = tv_tensors.BoundingBoxes(torch.zeros(1, 4), format="XYXY", canvas_size=polygons.canvas_size)
    return functional(nothing, *args, **kwargs).canvas_size


def _affine(polygons: Polygons, rows: Sequence[Sequence[float]], size: tuple[int, int], clip: bool = True) -> Polygons:
    outlines = polygons.outlines.affine(rows)
    return Polygons(outlines.clip(size) if clip else outlines, canvas_size=size)


def _about_centers(
    polygons: Polygons,
    matrix: np.ndarray,
    center: Sequence[float] | None,
    shift: Sequence[float],
    size: tuple[int, int],
) -> Polygons:
    """A linear map about a point, and the middle of the canvas to the middle of the new one."""
    middle = np.array([polygons.canvas_size[1], polygons.canvas_size[0]]) / 2
    fixed = middle if center is None else np.array(center, np.float64)
    new_middle = np.array([size[1], size[0]]) / 2
    offset = fixed + shift - matrix @ fixed + new_middle - middle
    return _affine(polygons, np.column_stack([matrix, offset]).tolist(), size)


@register_kernel(F.get_size, Polygons)
def _get_size(polygons: Polygons) -> list[int]:
    return list(polygons.canvas_size)


@register_kernel(F.to_dtype, Polygons)
def _to_dtype(polygons: Polygons, dtype: torch.dtype = torch.float32, scale: bool = False) -> Polygons:
    if not dtype.is_floating_point:
        raise TypeError(f"to_dtype: expected a floating-point dtype for Polygons, got {dtype}")
    return Polygons(polygons.outlines.to(dtype), canvas_size=polygons.canvas_size)


@register_kernel(F.horizontal_flip, Polygons)
def _horizontal_flip(polygons: Polygons) -> Polygons:
    return Polygons(polygons.outlines.hflip(polygons.canvas_size[1]), canvas_size=polygons.canvas_size)


@register_kernel(F.vertical_flip, Polygons)
def _vertical_flip(polygons: Polygons) -> Polygons:
    return _affine(polygons, [[1, 0, 0], [0, -1, polygons.canvas_size[0]]], polygons.canvas_size, clip=False)


@register_kernel(F.resize, Polygons)
def _resize(polygons: Polygons, size: Any, max_size: int | None = None, **_: Any) -> Polygons:
    new = _canvas_after(F.resize, polygons, size, max_size=max_size)
    (height, width), (new_height, new_width) = polygons.canvas_size, new
    return _affine(polygons, [[new_width / width, 0, 0], [0, new_height / height, 0]], new, clip=False)


@register_kernel(F.affine, Polygons)
def _affine_kernel(
    polygons: Polygons,
    angle: float,
    translate: Sequence[float],
    scale: float,
    shear: Any,
    center: Sequence[float] | None = None,
    **_: Any,
) -> Polygons:
    shears = [shear, 0.0] if isinstance(shear, (int, float)) else list(shear) * (2 if len(shear) == 1 else 1)
    turn, (shear_x, shear_y) = math.radians(angle), map(math.radians, shears)
    cos, sin = math.cos(turn), math.sin(turn)
    along_y, along_x = np.array([[1, 0], [-math.tan(shear_y), 1]]), np.array([[1, -math.tan(shear_x)], [0, 1]])
    matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ along_y @ along_x
    return _about_centers(polygons, matrix, center, list(translate), polygons.canvas_size)


@register_kernel(F.rotate, Polygons)
def _rotate(
    polygons: Polygons, angle: float, expand: bool = False, center: Sequence[float] | None = None, **_: Any
) -> Polygons:
    size = polygons.canvas_size
    angle %= 360  # as the image's kernel does, to the last bit
    if expand and center is None and angle in (90, 270):
        size = (size[1], size[0])  # the image's kernel turns it without resampling
    elif expand and (center is not None or angle not in (0, 180)):
        # torchvision's boxes get another size than its images, a pixel less.
        height, width = size
        about = [0.0, 0.0] if center is None else [center[0] - width / 2, center[1] - height / 2]
        inverse = _get_inverse_affine_matrix(about, -angle, [0.0, 0.0], 1.0, [0.0, 0.0])
        size = _compute_affine_output_size(inverse, width, height)[::-1]
    turn = -math.radians(angle)  # counter-clockwise on the screen, where y points down
    cos, sin = math.cos(turn), math.sin(turn)
    return _about_centers(polygons, np.array([[cos, -sin], [sin, cos]]), center, [0.0, 0.0], size)


@register_kernel(F.pad, Polygons)
def _pad(polygons: Polygons, padding: Any, padding_mode: str = "constant", **_: Any) -> Polygons:
    if padding_mode != "constant":
        raise ValueError(f"pad: expected padding_mode constant for Polygons, got {padding_mode}")
    sides = [padding] if isinstance(padding, int) else list(padding)
    left, top = sides[0], sides[1 if len(sides) > 1 else 0]
    outlines = polygons.outlines
    if min(sides) < 0:  # cuts
        outlines = outlines.clip(polygons.canvas_size)
    size = _canvas_after(F.pad, polygons, padding)
    return Polygons(outlines.translate(left, top), canvas_size=size)


@register_kernel(F.crop, Polygons)
def _crop(polygons: Polygons, top: int, left: int, height: int, width: int) -> Polygons:
    return Polygons(polygons.outlines.translate(-left, -top).clip((height, width)), canvas_size=(height, width))


@register_kernel(F.center_crop, Polygons)
def _center_crop(polygons: Polygons, output_size: Any) -> Polygons:
    height, width = _canvas_after(F.center_crop, polygons, output_size)
    # The image's kernel pads first where it is too small, and rounds otherwise than when it cuts.
    top, left = (
        -((new - old) // 2) if new > old else round((old - new) / 2)
        for old, new in zip(polygons.canvas_size, (height, width), strict=True)
    )
    return _crop(polygons, top, left, height, width)


@register_kernel(F.resized_crop, Polygons)
def _resized_crop(polygons: Polygons, top: int, left: int, height: int, width: int, size: Any, **_: Any) -> Polygons:
    return _resize(_crop(polygons, top, left, height, width), size)


@register_kernel(F.perspective, Polygons)
def _perspective(
    polygons: Polygons,
    startpoints: Sequence[Sequence[float]] | None,
    endpoints: Sequence[Sequence[float]] | None,
    coefficients: Sequence[float] | None = None,
    **_: Any,
) -> Polygons:
    if coefficients is None:
        if startpoints is None or endpoints is None:
            raise ValueError("perspective: expected startpoints and endpoints, or coefficients")
        coefficients = _perspective_coefficients(startpoints, endpoints)
    forth = np.linalg.inv(np.array([*coefficients, 1.0]).reshape(3, 3))
    size = polygons.canvas_size
    outlines = project(polygons.outlines.clip(size), forth / forth[2, 2])
    return Polygons(outlines.clip(size), canvas_size=size)


@register_kernel(F.elastic, Polygons)
def _elastic(polygons: Polygons, *_: Any, **__: Any) -> Polygons:
    raise NotImplementedError("elastic: expected a transform that maps lines to lines for Polygons")


def project(outlines: Outlines, matrix: np.ndarray) -> Outlines:
    """Outlines after a projective map, exact: straight sides stay straight.

    Parameters
    ----------
    outlines : Outlines
    matrix : array, shape (3, 3)
        Multiplies (x, y, 1).

    Raises
    ------
    ValueError
        If a vertex lies on the map's horizon or beyond it.
    """
    segments = outlines.segments
    points = torch.cat([segments.reshape(-1, 2).double(), segments.new_ones(2 * len(segments), 1).double()], 1)
    moved = points @ torch.from_numpy(matrix).to(points.device).T
    if (moved[:, 2] <= 0).any():
        raise ValueError("perspective: expected polygons on this side of the map's horizon")
    vertices = (moved[:, :2] / moved[:, 2:]).to(segments.dtype)
    mirrored = np.linalg.det(matrix) < 0
    pairs = vertices.reshape(-1, 2, 2)
    return Outlines((pairs.flip(1) if mirrored else pairs).reshape(-1, 4), outlines.offsets)


def _perspective_coefficients(start: Sequence[Sequence[float]], end: Sequence[Sequence[float]]) -> list[float]:
    """The map from four end points to their start points: what the image's kernel samples by."""
    rows = []
    for (x, y), (u, v) in zip(end, start, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    values = np.array(start, np.float64).ravel()
    return np.linalg.solve(np.array(rows, np.float64), values).tolist()
