"""Other programs that compute polar targets.

The released loader counts pixel centres at integers and rays from +y towards +x; it is written here from its
description, in the form its users know: torch tensors, OpenCV contours, and a Python loop over the positive points.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import cv2
import numpy as np
import torch
from cases import STRIDES, Origins, Scene
from torch import Tensor

from polarmask_ops import FCOS_RANGES

BACKGROUND = 80
RELEASED_ORDER = [(9 - k) % 36 for k in range(36)]  # its ray k is our ray 9 − k


class Targets(NamedTuple):
    """Of one image; rays of the positive points alone."""

    labels: Tensor  # (L,) int64, 80 is background
    boxes: Tensor  # (L, 4)
    instance: Tensor  # (P,) of the positive points
    positive: Tensor  # (P,) int64
    rays: Tensor  # (P, 36)
    centers: Tensor  # (M, 2) float32, whole numbers


Contour = tuple[tuple[float, float], np.ndarray]  # centre of mass, truncated, and its pixels (V, 2)


def released(scene: Scene) -> Targets:
    return _targets(scene, _whole_contours, _looped_rays)


def vectorised(scene: Scene) -> Targets:
    """Contours from crops, and the rays of all points of an instance at once in torch."""
    return _targets(scene, _cropped_contours, _vectorised_rays)


def compiled(scene: Scene) -> Targets:
    """Contours from crops, and the loop over the points compiled by numba."""
    return _targets(scene, _cropped_contours, _numba_rays)


def _targets(
    scene: Scene,
    contours_of: Callable[[Scene], list[Contour]],
    rays_of: Callable[[Tensor, Tensor, list[np.ndarray]], Tensor],
) -> Targets:
    centers, contours = zip(*contours_of(scene), strict=True)
    centers = torch.tensor(centers)
    points, strides, ranges = _points(tuple(scene.level_shapes))
    labels, boxes, instance = _assign(points, strides, ranges, scene, centers)
    positive = (labels != BACKGROUND).nonzero().flatten()
    instance = instance[positive]
    return Targets(labels, boxes, instance, positive, rays_of(points[positive], instance, contours), centers)


@cache
def _points(level_shapes: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor, Tensor]:
    points, strides, ranges = [], [], []
    for (height, width), stride, bounds in zip(level_shapes, STRIDES, FCOS_RANGES, strict=True):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        points.append(torch.stack([x.flatten(), y.flatten()], 1) * stride + stride // 2)
        strides.append(torch.full((height * width,), stride))
        ranges.append(torch.tensor(bounds).expand(height * width, 2))
    return torch.cat(points).float(), torch.cat(strides), torch.cat(ranges)


def _assign(
    points: Tensor, strides: Tensor, ranges: Tensor, scene: Scene, centers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All points × all instances, as FCOS and the released code do it."""
    num_points, num_gts = len(points), len(scene.boxes)
    gt = scene.boxes
    areas = (gt[:, 2] - gt[:, 0] + 1) * (gt[:, 3] - gt[:, 1] + 1)
    areas = areas[None].repeat(num_points, 1)
    gt = gt[None].expand(num_points, num_gts, 4)
    xs, ys = (points[:, k, None].expand(num_points, num_gts) for k in (0, 1))
    distances = torch.stack([xs - gt[..., 0], ys - gt[..., 1], gt[..., 2] - xs, gt[..., 3] - ys], -1)
    radius = (strides * 1.5)[:, None]
    x0, y0 = (torch.maximum(centers[:, k] - radius, gt[..., k]) for k in (0, 1))
    x1, y1 = (torch.minimum(centers[:, k] + radius, gt[..., k + 2]) for k in (0, 1))
    inside = torch.stack([xs - x0, ys - y0, x1 - xs, y1 - ys], -1).min(-1)[0] > 0
    largest = distances.max(-1)[0]
    in_range = (largest >= ranges[:, :1]) & (largest <= ranges[:, 1:])
    areas[~inside] = 1e8
    areas[~in_range] = 1e8
    least, instance = areas.min(1)
    labels = scene.labels[instance]
    labels[least == 1e8] = BACKGROUND
    return labels, distances[torch.arange(num_points), instance], instance


def _whole_contours(scene: Scene) -> list[Contour]:
    return [_largest_contour(mask) for mask in scene.masks.numpy().astype(np.uint8)]


def _cropped_contours(scene: Scene) -> list[Contour]:
    masks, boxes = scene.masks.numpy().view(np.uint8), scene.boxes.int().tolist()
    return [
        _largest_contour(np.ascontiguousarray(mask[y0 : y1 + 1, x0 : x1 + 1]), (x0, y0))
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True)
    ]


def _largest_contour(mask: np.ndarray, corner: tuple[int, int] = (0, 0)) -> Contour:
    contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE, offset=corner)
    contour = max(contours, key=cv2.contourArea)
    moments = cv2.moments(contour)
    if moments["m00"] == 0:
        center = contour.mean(0)[0]
    else:
        center = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    return (float(int(center[0])), float(int(center[1]))), contour[:, 0]


def _looped_rays(points: Tensor, instance: Tensor, contours: list[np.ndarray]) -> Tensor:
    """The released rule: the farthest pixel in the degree of the ray, or in one of the three beside it."""
    pixels = [torch.from_numpy(contour).float() for contour in contours]
    rays = []
    for (x, y), gt in zip(points.tolist(), instance.tolist(), strict=True):
        dx, dy = pixels[gt][:, 0] - x, pixels[gt][:, 1] - y
        angle = torch.atan2(dx, dy) * 180 / np.pi
        angle[angle < 0] += 360
        angle = angle.int()
        distance = torch.sqrt(dx**2 + dy**2)
        angle, order = torch.sort(angle)
        distance = distance[order]
        row = torch.full((36,), 1e-6)
        for k in range(36):
            for degree in (10 * k + off for off in (0, 1, -1, 2, -2, 3, -3)):
                if degree in angle:
                    row[k] = distance[angle == degree].max()
                    break
        rays.append(row)
    return torch.stack(rays) if rays else torch.zeros(0, 36)


def _vectorised_rays(points: Tensor, instance: Tensor, contours: list[np.ndarray]) -> Tensor:
    nearby = torch.tensor([0, 1, -1, 2, -2, 3, -3])
    degrees = torch.arange(0, 360, 10)[:, None] + nearby  # −1 … −3 are no bins: 360 … 362 stay empty
    rays = torch.zeros(len(points), 36)
    for gt, contour in enumerate(contours):
        rows = (instance == gt).nonzero().flatten()
        if not len(rows):
            continue
        pixels = torch.from_numpy(contour).float()
        dx, dy = (pixels[:, k] - points[rows, k, None] for k in (0, 1))
        angle = torch.atan2(dx, dy) * 180 / np.pi
        bins = torch.where(angle < 0, angle + 360, angle).int().long()
        farthest = torch.full((len(rows), 363), -1.0).scatter_reduce_(1, bins, (dx**2 + dy**2).sqrt(), "amax")
        found = farthest[:, degrees % 363]  # (rows, 36, 7)
        first = (found >= 0).int().argmax(2, keepdim=True)
        value = found.gather(2, first)[..., 0]
        rays[rows] = torch.where(value >= 0, value, 1e-6)
    return rays


def _numba_rays(points: Tensor, instance: Tensor, contours: list[np.ndarray]) -> Tensor:
    ends = np.cumsum([0, *(len(contour) for contour in contours)])
    pixels = np.concatenate(contours).astype(np.float32)
    return torch.from_numpy(_numba_loop()(points.numpy(), instance.numpy(), pixels, ends))


@cache
def _numba_loop() -> Callable[..., np.ndarray]:
    import numba

    nearby = (0, 1, -1, 2, -2, 3, -3)

    @numba.njit(parallel=True)
    def loop(points: np.ndarray, instance: np.ndarray, pixels: np.ndarray, ends: np.ndarray) -> np.ndarray:
        rays = np.empty((len(points), 36), np.float32)
        for p in numba.prange(len(points)):
            farthest = np.full(360, -1.0)
            for v in range(ends[instance[p]], ends[instance[p] + 1]):
                dx, dy = pixels[v, 0] - points[p, 0], pixels[v, 1] - points[p, 1]
                angle = np.arctan2(dx, dy) * np.float32(180 / np.pi)
                degree = int(angle + 360 if angle < 0 else angle)
                farthest[degree] = max(farthest[degree], np.sqrt(dx * dx + dy * dy))
            for k in range(36):
                rays[p, k] = 1e-6
                for off in nearby:
                    degree = 10 * k + off
                    if degree >= 0 and farthest[degree] >= 0:
                        rays[p, k] = farthest[degree]
                        break
        return rays

    return loop


HAS_NUMBA = find_spec("numba") is not None


def exact_rays(inputs: Origins, num_rays: int = 36) -> Tensor:
    """The farthest crossing of every ray with every side, in vectorised torch; a thousand points at a time."""
    angle = torch.arange(num_rays) * (2 * torch.pi / num_rays)
    x0, y0, x1, y1 = inputs.outlines.segments.unbind(1)
    chunks = [_farthest(chunk, angle.cos(), angle.sin(), x0, y0, x1, y1) for chunk in inputs.origins.split(1000)]
    return torch.cat(chunks)


def _farthest(origins: Tensor, cos: Tensor, sin: Tensor, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor) -> Tensor:
    ax, bx = (x - origins[:, :1] for x in (x0, x1))  # (P, S)
    ay, by = (y - origins[:, 1:] for y in (y0, y1))
    cos, sin = cos[:, None], sin[:, None]  # (R, 1)
    side_a = cos * ay[:, None] - sin * ax[:, None]  # (P, R, S)
    side_b = cos * by[:, None] - sin * bx[:, None]
    along_a = cos * ax[:, None] + sin * ay[:, None]
    along_b = cos * bx[:, None] + sin * by[:, None]
    distance = (along_a * side_b - along_b * side_a) / (side_b - side_a)
    hit = (side_a * side_b <= 0) & (distance >= 0)
    return torch.where(hit, distance, 1e-6).amax(2)
