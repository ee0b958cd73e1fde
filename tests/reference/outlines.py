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


def neighbours(i: int, j: int, corners: bool) -> list[tuple[int, int]]:
    steps = [(1, 0), (-1, 0), (0, 1), (0, -1)] + ([(1, 1), (1, -1), (-1, 1), (-1, -1)] if corners else [])
    return [(i + di, j + dj) for di, dj in steps]


def flood(pixels: set, start: tuple[int, int], corners: bool) -> set:
    """The connected part of the pixels around one of them."""
    found, border = {start}, [start]
    while border:
        for pixel in neighbours(*border.pop(), corners):
            if pixel in pixels and pixel not in found:
                found.add(pixel)
                border.append(pixel)
    return found


def kept_pixels(mask: np.ndarray, keep: str) -> set:
    height, width = mask.shape
    left = {(i, j) for i in range(height) for j in range(width) if mask[i, j]}
    if keep == "all":
        return left
    frame = {(i, j) for i in range(-1, height + 1) for j in range(-1, width + 1)}
    best: set = set()
    while left:
        component = flood(left, min(left), corners=True)
        left -= component
        filled = frame - flood(frame - component, (-1, -1), corners=False)
        if len(filled) > len(best):
            best = filled
    return best


def straight_on(sides: set) -> list:
    """Unit sides ((x, y), (dx, dy)) joined as long as they go straight on: x0, y0, x1, y1."""
    segments = []
    for (x, y), (dx, dy) in sides:
        if ((x - dx, y - dy), (dx, dy)) in sides:
            continue  # not the first
        length = 1
        while ((x + length * dx, y + length * dy), (dx, dy)) in sides:
            length += 1
        segments.append((x, y, x + length * dx, y + length * dy))
    return segments


def touching(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The mask without the pixels that have no point in common with the box."""
    x0, y0, x1, y1 = box
    i, j = np.indices(mask.shape)
    return np.where((x0 <= x1) & (y0 <= y1) & (j + 1 >= x0) & (j <= x1) & (i + 1 >= y0) & (i <= y1), mask, 0)


def outlines_from_masks(
    masks: np.ndarray, keep: str = "largest", boundary: str = "edges", boxes: np.ndarray | None = None
) -> tuple:
    segments, lengths = [], [0]
    for mask in masks if boxes is None else map(touching, masks, boxes):
        pixels = kept_pixels(mask, keep)
        sides = set()  # clockwise on the screen around every pixel, where there is no neighbour
        for i, j in pixels:
            sides |= {((j, i), (1, 0))} if (i - 1, j) not in pixels else set()
            sides |= {((j + 1, i), (0, 1))} if (i, j + 1) not in pixels else set()
            sides |= {((j + 1, i + 1), (-1, 0))} if (i + 1, j) not in pixels else set()
            sides |= {((j, i + 1), (0, -1))} if (i, j - 1) not in pixels else set()
        rows = straight_on(sides)
        if boundary == "pixels":
            border = [pixel for pixel in pixels if not pixels.issuperset(neighbours(*pixel, corners=False))]
            rows = [(j + 0.5, i + 0.5, j + 0.5, i + 0.5) for i, j in border]
        segments += rows
        lengths.append(len(rows))
    return np.array(segments, dtype=np.float64).reshape(-1, 4), np.cumsum(lengths)
