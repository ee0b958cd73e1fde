"""Outlines from bitmaps."""

import cv2
import numpy as np
from cases import ENCODE, Scene
from peers import outlines as peers
from race import Floor, Race, Runner, size_of

from polarmask_ops import Outlines, outlines_from_masks


def from_boxes(scene: Scene) -> Outlines:
    return outlines_from_masks(scene.masks, boxes=scene.boxes)


def same_shapes(scene: Scene, ours: Outlines, theirs: list[np.ndarray]) -> None:
    """OpenCV's contours visit the centres of the border pixels: by Pick's theorem they cover as many pixels as ours."""
    for area, contour in zip(ours.areas().tolist(), theirs, strict=True):
        assert abs(area - (cv2.contourArea(contour) + len(contour) / 2 + 1)) <= 0.5  # of single pixels


def box_pixels(scene: Scene, ours: Outlines) -> int:
    """The pixels in the boxes are read once, the segments written once."""
    sides = scene.boxes[:, 2:] - scene.boxes[:, :2] + 1
    return int(sides.prod(1).sum()) + size_of(ours)


RACES = (
    Race(
        "outlines_from_masks",
        ENCODE[:3],
        from_boxes,
        (
            Runner("cv2.findContours, cropped", peers.cropped_contours, same_shapes),
            Runner("cv2.findContours", peers.contours, same_shapes),
        ),
        unit="instance",
        floor=Floor(box_pixels),
    ),
)


def bench_outlines(timed, entry):
    timed(entry)
