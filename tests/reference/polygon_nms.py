"""NMS that compares every pair of shapes."""

import numpy as np

from .polygon_iou import overlap_share, rings_of, stars


def batched_polygon_nms(
    polygons: np.ndarray, scores: np.ndarray, idxs: np.ndarray, iou_threshold: float, *, metric="iou", max_output=None
) -> np.ndarray:
    rings = rings_of(polygons)
    kept: list[int] = []
    shapes = ~np.isnan(scores) & np.isfinite(polygons).all((1, 2))
    for i in sorted(np.flatnonzero(shapes), key=lambda n: (-scores[n], n)):
        rivals = [rings[k] for k in kept if idxs[k] == idxs[i]]
        if all(overlap_share(rival, rings[i], metric) <= iou_threshold for rival in rivals):
            kept.append(i)
    if max_output is not None:
        kept = (kept + max_output * [-1])[:max_output]
    return np.array(kept, dtype=np.int64)


def polygon_nms(polygons, scores, iou_threshold, *, metric="iou", max_output=None) -> np.ndarray:
    one_class = np.zeros(len(scores), dtype=np.int64)
    return batched_polygon_nms(polygons, scores, one_class, iou_threshold, metric=metric, max_output=max_output)


def batched_rays_nms(centers, rays, scores, idxs, iou_threshold, *, metric="iou", max_output=None) -> np.ndarray:
    polygons = stars(centers, rays)
    return batched_polygon_nms(polygons, scores, idxs, iou_threshold, metric=metric, max_output=max_output)


def rays_nms(centers, rays, scores, iou_threshold, *, metric="iou", max_output=None) -> np.ndarray:
    return polygon_nms(stars(centers, rays), scores, iou_threshold, metric=metric, max_output=max_output)
