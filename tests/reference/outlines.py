"""Outlines the slow way: one side, one pixel, one flood fill at a time."""

from fractions import Fraction
from itertools import pairwise

import numpy as np


def areas_and_centroids(segments: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact, in rational numbers: triangles from the origin to each segment."""
    areas, centroids = [], []
    for begin, end in pairwise(offsets):
        area, x, y = Fraction(0), Fraction(0), Fraction(0)
        for x0, y0, x1, y1 in [[Fraction(float(v)) for v in row] for row in segments[begin:end]]:
            triangle = (x0 * y1 - x1 * y0) / 2
            area += triangle
            x += triangle * (x0 + x1) / 3
            y += triangle * (y0 + y1) / 3
        areas.append(float(area))
        centroids.append([float(x / area), float(y / area)] if area else mean_midpoint(segments[begin:end]))
    return np.array(areas).reshape(-1), np.array(centroids).reshape(-1, 2)


def mean_midpoint(segments: np.ndarray) -> list[float]:
    if len(segments) == 0:
        return [np.nan, np.nan]
    a, b = segments[:, :2].astype(float), segments[:, 2:].astype(float)
    length = np.linalg.norm(b - a, axis=1)
    return np.average((a + b) / 2, axis=0, weights=length if length.any() else None).tolist()


def boxes(segments: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    result = np.zeros((len(offsets) - 1, 4), segments.dtype)
    for m, (begin, end) in enumerate(pairwise(offsets)):
        points = segments[begin:end].reshape(-1, 2)
        if len(points):
            result[m] = [*points.min(0), *points.max(0)]
    return result


def outlines_from_polygons(polygons: list, keep: str = "largest") -> tuple[np.ndarray, np.ndarray]:
    segments, lengths = [], [0]
    for rings in polygons:
        chosen = []  # area, sides
        for ring in rings:
            points = np.asarray(ring, dtype=np.float64).reshape(-1, 2)
            if len(points) < 3 or not np.isfinite(points).all():
                continue
            sides = [(*a, *b) for a, b in zip(points, np.roll(points, -1, axis=0), strict=True)]
            area = sum(Fraction(x0) * Fraction(y1) - Fraction(x1) * Fraction(y0) for x0, y0, x1, y1 in sides)
            if area < 0:
                sides = [(x1, y1, x0, y0) for x0, y0, x1, y1 in sides]
            if area:
                chosen.append((abs(area), [side for side in sides if side[:2] != side[2:]]))
        if keep == "largest" and chosen:
            chosen = [max(chosen, key=lambda pair: pair[0])]  # max takes the first of equals
        rows = [side for _, sides in chosen for side in sides]
        segments += rows
        lengths.append(len(rows))
    return np.array(segments, dtype=np.float64).reshape(-1, 4), np.cumsum(lengths)
