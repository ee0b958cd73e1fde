"""Ray by segment and point by instance, without any shortcut."""

import math
from dataclasses import replace

import numpy as np


def directions(num_rays):
    """Rounded, so that the axes are exact and diagonals have equal parts."""
    angle = 2 * np.pi * np.arange(num_rays) / num_rays
    return np.round(np.stack([np.cos(angle), np.sin(angle)], 1), 14)


def hits(direction, a, b):
    """Positions of the points that the ray from (0, 0) shares with the segment from a to b."""
    side_a, side_b = (direction[0] * v[1] - direction[1] * v[0] for v in (a, b))
    points = [v for v, side in ((a, side_a), (b, side_b)) if side == 0]
    if side_a * side_b < 0:
        points.append(a + (b - a) * side_a / (side_a - side_b))
    if a[0] * b[1] == a[1] * b[0] and (a * b).sum() <= 0:
        points.append(np.zeros(2))
    return [np.hypot(*point) for point in points if (point * direction).sum() >= 0]


def released_ray(vertices, degree, min_distance):
    """The longest vertex in a bin of one degree, counted from +y towards +x, or in the next one that has any."""
    for wanted in (degree, degree + 1, degree - 1, degree + 2, degree - 2, degree + 3, degree - 3):
        found = [math.hypot(x, y) for x, y in vertices if math.floor(math.degrees(math.atan2(x, y))) % 360 == wanted]
        if found:
            return max(found)
    return min_distance


def cast_rays(origins, outlines, instance, num_rays=36, *, method="last", min_distance=1e-6):
    rays = np.full((len(origins), num_rays), min_distance)
    segments = outlines.segments.astype(np.float64)
    for p, (origin, m) in enumerate(zip(origins.astype(np.float64), instance, strict=True)):
        pieces = segments[outlines.offsets[m] : outlines.offsets[m + 1]]
        pieces = pieces[np.isfinite(pieces).all(1)] if np.isfinite(origin).all() else pieces[:0]
        if method == "binned":
            for k in range(num_rays):
                rays[p, k] = released_ray(pieces[:, :2] - origin, (90 - k * 360 // num_rays) % 360, min_distance)
            continue
        for k, direction in enumerate(directions(num_rays)):
            found = [t for piece in pieces for t in hits(direction, piece[:2] - origin, piece[2:] - origin)]
            if found:
                rays[p, k] = max(max(found) if method == "last" else min(found), min_distance)
    return rays


def is_inside(pieces, x, y):
    """Even-odd along the column of the point; a column owns the left end of a piece, not the right one."""
    inside = False
    for x0, y0, x1, y1 in pieces:
        if min(x0, x1) <= x < max(x0, x1) and y0 + (x - x0) / (x1 - x0) * (y1 - y0) <= y:
            inside = not inside
    return inside


def encode_targets(
    level_shapes,
    strides,
    boxes,
    labels,
    outlines,
    image_offsets,
    *,
    num_rays=36,
    regress_ranges=((-1, 64), (64, 128), (128, 256), (256, 512), (512, math.inf)),
    center_radius=1.5,
    centers=None,
    areas=None,
    ignore=None,
    method="last",
    min_distance=1e-6,
):
    boxes = boxes.astype(np.float32)
    segments = outlines.segments.astype(np.float32)
    outlines = replace(outlines, segments=segments)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides[:, 0] * sides[:, 1] if areas is None else areas.astype(np.float32)
    ignore = np.zeros(len(boxes), bool) if ignore is None else ignore
    points = []
    for (height, width), stride, bounds in zip(level_shapes, strides, regress_ranges, strict=True):
        for i in range(height):
            for j in range(width):
                points.append(((j + 0.5) * stride, (i + 0.5) * stride, stride, *bounds))

    shape = len(image_offsets) - 1, len(points)
    found = {
        "instance": np.full(shape, -1),
        "labels": np.full(shape, -1),
        "boxes": np.zeros((*shape, 4), np.float32),
        "rays": np.zeros((*shape, num_rays), np.float32),
        "centerness": np.zeros(shape, np.float32),
    }
    for b in range(shape[0]):
        mine = range(image_offsets[b], image_offsets[b + 1])
        for p, (x, y, stride, low, high) in enumerate(points):
            at, best = (b, p), None
            for m in mine:
                pieces = segments[outlines.offsets[m] : outlines.offsets[m + 1]]
                distances = np.array([x - boxes[m, 0], y - boxes[m, 1], boxes[m, 2] - x, boxes[m, 3] - y])
                offset = np.abs(np.array([x, y]) - centers[m].astype(np.float32))
                usable = len(pieces) > 0 and not ignore[m] and 0 <= areas[m] < math.inf and np.isfinite(boxes[m]).all()
                inside = (distances > 0).all() and (offset < center_radius * stride).all() and (offset < math.inf).all()
                on_level = low <= distances.max() <= high
                if usable and inside and on_level and (best is None or areas[m] < areas[best]):
                    best = m
                    found["boxes"][at] = distances
            if best is not None:
                found["instance"][at] = best
                found["labels"][at] = labels[best]
                origin, which = np.array([[x, y]]), np.array([best])
                rays = cast_rays(origin, outlines, which, num_rays, method=method, min_distance=min_distance)[0]
                found["rays"][at] = rays
                found["centerness"][at] = math.sqrt(rays.min() / rays.max()) if rays.max() > 0 else 0
                continue
            for m in mine:
                pieces = segments[outlines.offsets[m] : outlines.offsets[m + 1]].astype(np.float64)
                x0, y0, x1, y1 = boxes[m]
                covered = is_inside(pieces, x, y) if len(pieces) else x0 < x < x1 and y0 < y < y1
                if ignore[m] and covered and np.isfinite(pieces).all():
                    found["instance"][at] = found["labels"][at] = -2
    return tuple(found.values())
