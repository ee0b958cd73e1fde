"""Areas and IoU of polygons, by cutting the plane into vertical slabs."""

import itertools

import numpy as np


def rings_of(polygons: np.ndarray) -> list[np.ndarray]:
    """Vertices in double; without any where a polygon is no shape."""
    return [ring if len(ring) >= 3 and np.isfinite(ring).all() else ring[:0] for ring in polygons.astype(np.float64)]


def stars(centers: np.ndarray, rays: np.ndarray) -> np.ndarray:
    angles = 2 * np.pi * np.arange(rays.shape[1]) / rays.shape[1]
    lengths = np.where((rays < 0) & np.isfinite(rays), 0, rays.astype(np.float64))[..., None]
    with np.errstate(invalid="ignore"):  # infinite rays
        return centers.astype(np.float64)[:, None] + lengths * np.stack([np.cos(angles), np.sin(angles)], -1)


def _edges(ring: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(ring[j - 1], ring[j]) for j in range(len(ring))]


def _intervals(edges: list[tuple[np.ndarray, np.ndarray]], x: float) -> list[tuple[float, float]]:
    """Where the vertical line at x runs inside a polygon, even-odd."""
    heights = sorted(
        p[1] + (x - p[0]) * (q[1] - p[1]) / (q[0] - p[0]) for p, q in edges if min(p[0], q[0]) < x < max(p[0], q[0])
    )
    return list(zip(heights[::2], heights[1::2], strict=True))


def intersection_area(a: np.ndarray, b: np.ndarray) -> float:
    """Between neighbouring x of vertices and crossings all outlines are straight: the middle gives a slab's area."""
    edges_a, edges_b = _edges(a), _edges(b)
    cuts = {*a[:, 0], *b[:, 0]}
    for p, q in edges_a:
        for r, s in edges_b:
            d, e = q - p, s - r
            slope = d[0] * e[1] - d[1] * e[0]
            if slope != 0:
                t = ((r[0] - p[0]) * e[1] - (r[1] - p[1]) * e[0]) / slope
                if 0 <= t <= 1:
                    cuts.add(p[0] + t * d[0])
    area, xs = 0.0, sorted(cuts)
    for left, right in itertools.pairwise(xs):
        middle = (left + right) / 2
        for low_a, high_a in _intervals(edges_a, middle):
            for low_b, high_b in _intervals(edges_b, middle):
                area += max(0.0, min(high_a, high_b) - max(low_a, low_b)) * (right - left)
    return area


def polygon_areas(polygons: np.ndarray) -> np.ndarray:
    return np.array([intersection_area(ring, ring) for ring in rings_of(polygons)])


def overlap_share(a: np.ndarray, b: np.ndarray, metric: str) -> float:
    inter = intersection_area(a, b)
    if inter == 0:
        return 0.0
    area_a, area_b = intersection_area(a, a), intersection_area(b, b)
    return inter / (area_a + area_b - inter if metric == "iou" else min(area_a, area_b))


def polygon_iou(a: np.ndarray, b: np.ndarray, *, metric: str = "iou", paired: bool = False) -> np.ndarray:
    a, b = rings_of(a), rings_of(b)
    if paired:
        return np.array([overlap_share(p, q, metric) for p, q in zip(a, b, strict=True)])
    return np.array([[overlap_share(p, q, metric) for q in b] for p in a]).reshape(len(a), len(b))


def rays_iou(centers_a, rays_a, centers_b, rays_b, *, metric: str = "iou", paired: bool = False) -> np.ndarray:
    return polygon_iou(stars(centers_a, rays_a), stars(centers_b, rays_b), metric=metric, paired=paired)
