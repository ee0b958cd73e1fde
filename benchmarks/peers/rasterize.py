"""Rasterization by OpenCV, pycocotools and scikit-image."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import torch
from cases import Rays
from pycocotools import mask as coco
from torch import Tensor

HAS_SKIMAGE = find_spec("skimage") is not None


def vertices(inputs: Rays) -> np.ndarray:
    """(N, R, 2) float32; all peers start from rays, as we do."""
    num_rays = inputs.rays.shape[1]
    angle = np.arange(num_rays, dtype=np.float32) * np.float32(2 * np.pi / num_rays)
    directions = np.stack([np.cos(angle), np.sin(angle)], 1)
    return inputs.centers.numpy()[:, None] + inputs.rays.numpy()[..., None] * directions


def released_rle(inputs: Rays) -> list[dict[str, Any]]:
    """A bitmap for every instance, drawn by its contour truncated to integers, then encoded."""
    results = []
    for polygon in vertices(inputs):
        bitmap = np.zeros(inputs.size, np.uint8)
        cv2.drawContours(bitmap, [polygon.astype(np.int32)[:, None]], -1, 1, -1)
        results.append(coco.encode(np.array(bitmap[:, :, None], order="F"))[0])
    return results


def coco_rle(inputs: Rays) -> list[dict[str, Any]]:
    polygons = vertices(inputs).reshape(len(inputs.rays), -1).astype(np.float64).tolist()
    return coco.frPyObjects(polygons, *inputs.size)


def fill_polygons(inputs: Rays) -> np.ndarray:
    """In 1/16 pixels; OpenCV's pixel centres lie at integers."""
    fixed = np.round((vertices(inputs) - 0.5) * 16).astype(np.int32)
    masks = np.zeros((len(fixed), *inputs.size), np.uint8)
    for mask, polygon in zip(masks, fixed, strict=True):
        cv2.fillPoly(mask, [polygon], 1, shift=4)
    return masks


def skimage_masks(inputs: Rays) -> np.ndarray:
    from skimage.draw import polygon as pixels_of

    masks = np.zeros((len(inputs.rays), *inputs.size), bool)
    for mask, polygon in zip(masks, vertices(inputs) - 0.5, strict=True):
        mask[pixels_of(polygon[:, 1], polygon[:, 0], inputs.size)] = True
    return masks


def skimage_labels(inputs: Rays) -> np.ndarray:
    """As StarDist draws its results."""
    from skimage.draw import polygon as pixels_of

    labels = np.zeros(inputs.size, np.int32)
    for label, polygon in enumerate(vertices(inputs) - 0.5, 1):
        labels[pixels_of(polygon[:, 1], polygon[:, 0], inputs.size)] = label
    return labels


def write_bytes(inputs: Rays) -> Tensor:
    return torch.ones(len(inputs.rays), *inputs.size, dtype=torch.uint8)
