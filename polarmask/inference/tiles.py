"""Detections in images that are too large to go through the network as a whole."""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from polarmask_ops import batched_rays_nms

from ..data.sample import limits
from .detector import Detector

SAMPLE = 2000  # pixels a side that percentiles are taken from


class Windowed(Protocol):
    """An image of which a part at a time is read, such as :class:`polarmask.data.images.LargeTiff`."""

    size: tuple[int, int]

    def __getitem__(self, window: tuple[slice, slice]) -> Tensor: ...


class Whole:
    """An image in memory, (3, H, W), as one of which parts are taken."""

    def __init__(self, image: Tensor) -> None:
        self.image, self.size = image, (image.shape[1], image.shape[2])

    def __getitem__(self, window: tuple[slice, slice]) -> Tensor:
        return self.image[:, window[0], window[1]]


def detect_in_tiles(detector: Detector, image: Windowed, tile: int = 1024, margin: int = 128) -> dict[str, Tensor]:
    """What ``detector(image)`` gives, in memory that grows with the tile and the detections, not with the image.

    Each object belongs to the tile whose middle holds its centre, and is visible there as a whole: tiles overlap by
    twice the margin, which must be at least half the largest object. The points that are assigned to an object lie
    within ``model.center_radius`` of its centre, and two tiles may detect it at different points. So each tile's middle
    and margin are enlarged by that radius, and polygon NMS removes what two tiles both detected.

    ``model.max_detections`` limits the detections of the whole image. ``max_candidates`` does not apply to tiles.

    Parameters
    ----------
    detector : Detector
        Trained on images that were not resized.
    image : Windowed
    tile, margin : int
        Pixels: the side of a tile without its margins, and their width, both rounded up to the detector's largest
        stride.

    Raises
    ------
    ValueError
        If the detector resizes its images.
    """
    if detector.config.data.resize is not None:
        raise ValueError("detect_in_tiles: expected a detector that does not resize its images; it would resize tiles")
    stride = max(detector.config.model.strides)
    tile, margin = (-(-length // stride) * stride for length in (tile, margin))
    slack = math.ceil(detector.config.model.center_radius) * stride
    around = margin + slack
    percentiles = detector.config.data.percentiles
    between = None if percentiles is None else limits(preview(image, SAMPLE), percentiles)
    limit = detector.max_detections
    unlimited = detector.with_limits(max_candidates=None, max_detections=None)
    found: list[dict[str, Tensor]] = []
    for top, bottom in _spans(image.size[0], tile):
        for left, right in _spans(image.size[1], tile):
            rows = _view(top, bottom, image.size[0], tile, around, stride)
            columns = _view(left, right, image.size[1], tile, around, stride)
            (part,) = unlimited.detect([image[rows, columns]], between)
            corner = part["centers"].new_tensor([columns.start, rows.start])
            low, high = part["centers"].new_tensor([[left - slack, top - slack], [right + slack, bottom + slack]])
            centers = part["centers"] + corner
            mine = ((centers >= low) & (centers < high)).all(1)
            moved = {
                **part,
                "centers": centers,
                "polygons": part["polygons"] + corner,
                "boxes": part["boxes"] + corner.repeat(2),
            }
            scale = moved.pop("scale")
            found.append({name: value[mine] for name, value in moved.items()})
    together = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    keep = batched_rays_nms(
        together["centers"],
        together["rays"],
        together["scores"],
        together["labels"],
        detector.config.model.nms_threshold,
    )
    if len(keep[:limit]) < len(keep):
        detector.model.cuts.add(0, len(keep) - len(keep[:limit]))
        detector.say_cuts(detector.model.cuts)
    return {**{name: value[keep[:limit]] for name, value in together.items()}, "scale": scale}


def preview(image: Windowed, side: int) -> Tensor:
    """Every n-th pixel of an image, (3, h, w), neither side much longer than ``side``."""
    step = max(1, *(-(-length // side) for length in image.size))
    rows = max(side // step, 1) * step  # at a time: about `side`, whatever the image's height
    return torch.cat([image[top : top + rows : step, ::step] for top in range(0, image.size[0], rows)], 1)


def _spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    """Intervals of the tile's length that cover a side; the last one is from half to one and a half tiles long."""
    begin = 0
    while begin < length:
        end = length if length - begin < 1.5 * tile else begin + tile
        yield begin, end
        begin = end


def _view(begin: int, end: int, length: int, tile: int, around: int, stride: int) -> slice:
    """The pixels that the network gets for a tile: equally many at the image's ends, since GroupNorm depends on it."""
    side = tile + 2 * around
    first = max(0, min(begin - around, (length - side) // stride * stride))
    return slice(first, min(length, max(end + around, first + side)))
