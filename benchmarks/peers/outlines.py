"""OpenCV's contours of bitmaps, whole and cropped to the boxes of the instances."""

from __future__ import annotations

import cv2
import numpy as np
from cases import Scene


def contours(scene: Scene) -> list[np.ndarray]:
    """Return the largest contour of each bitmap, (V, 2) pixel indices x, y."""
    return [_largest(mask) for mask in scene.masks.numpy().view(np.uint8)]


def cropped_contours(scene: Scene) -> list[np.ndarray]:
    boxes = scene.boxes.int().tolist()
    return [
        _largest(np.ascontiguousarray(mask[y0 : y1 + 1, x0 : x1 + 1]), (x0, y0))
        for mask, (x0, y0, x1, y1) in zip(scene.masks.numpy().view(np.uint8), boxes, strict=True)
    ]


def _largest(mask: np.ndarray, corner: tuple[int, int] = (0, 0)) -> np.ndarray:
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=corner)
    return max(found, key=cv2.contourArea)[:, 0]
