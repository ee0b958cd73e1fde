"""The even-odd rule at pixel centres, evaluated for every pixel and every edge."""

import numpy as np
import pycocotools.mask as coco

from .rle import rle_of


def rays_to_polygons(centers: np.ndarray, rays: np.ndarray) -> np.ndarray:
    dtype = np.promote_types(np.promote_types(centers.dtype, rays.dtype), np.float32)
    angle = 2 * np.pi * np.arange(rays.shape[1]) / rays.shape[1]
    reach = np.where(np.isfinite(rays), np.maximum(rays, 0), rays).astype(np.float64)[:, :, None]
    return (centers[:, None] + reach * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(dtype)


def rays_to_boxes(centers: np.ndarray, rays: np.ndarray) -> np.ndarray:
    polygons = rays_to_polygons(centers, rays)
    return np.concatenate([polygons.min(1), polygons.max(1)], 1)


def _mask(edges: list[tuple[float, float, float, float]], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    if not np.isfinite(edges).all():
        return mask
    for j in range(size[1]):
        x = j + 0.5
        heights = []
        for x0, y0, x1, y1 in edges:
            if x1 < x0:
                x0, y0, x1, y1 = x1, y1, x0, y0
            if x0 <= x < x1:
                heights.append(y0 + (x - x0) * ((y1 - y0) / (x1 - x0)))
        for i in range(size[0]):
            mask[i, j] = sum(i >= y - 0.5 for y in heights) % 2
    return mask


def polygons_to_masks(polygons: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    masks = np.zeros((len(polygons), *size), bool)
    for n, polygon in enumerate(polygons.astype(np.float64).tolist()):
        masks[n] = _mask([(*polygon[k - 1], *polygon[k]) for k in range(len(polygon))], size)
    return masks


def polygons_to_rle(polygons: np.ndarray, size: tuple[int, int], rule: str = "center"):
    if rule == "center":
        return rle_of(polygons_to_masks(polygons, size))
    objects = coco.frPyObjects(polygons.astype(np.float64).reshape(len(polygons), -1).tolist(), *size)
    return rle_of(np.moveaxis(coco.decode(objects), 2, 0))


def polygons_to_labels(polygons: np.ndarray, size: tuple[int, int], order: np.ndarray | None = None) -> np.ndarray:
    return labels_of(polygons_to_masks(polygons, size), order)


def rays_to_masks(centers, rays, size: tuple[int, int], scale: np.ndarray | None = None) -> np.ndarray:
    return polygons_to_masks(_scaled(centers, rays, scale), size)


def rays_to_rle(centers, rays, size: tuple[int, int], rule: str = "center", scale: np.ndarray | None = None):
    return polygons_to_rle(_scaled(centers, rays, scale), size, rule)


def rays_to_labels(centers, rays, size: tuple[int, int], order=None, scale: np.ndarray | None = None) -> np.ndarray:
    return labels_of(rays_to_masks(centers, rays, size, scale), order)


def outlines_to_masks(outlines, size: tuple[int, int]) -> np.ndarray:
    segments, offsets = outlines.segments.astype(np.float64).tolist(), outlines.offsets.tolist()
    masks = np.zeros((len(offsets) - 1, *size), bool)
    for n in range(len(masks)):
        masks[n] = _mask([tuple(segment) for segment in segments[offsets[n] : offsets[n + 1]]], size)
    return masks


def outlines_to_rle(outlines, size: tuple[int, int]):
    return rle_of(outlines_to_masks(outlines, size))


def outlines_to_labels(outlines, size: tuple[int, int], order: np.ndarray | None = None) -> np.ndarray:
    return labels_of(outlines_to_masks(outlines, size), order)


def labels_of(masks: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    labels = np.zeros(masks.shape[1:], np.int32)
    for n in range(len(masks)) if order is None else order.tolist():
        labels[masks[n]] = n + 1
    return labels


def _scaled(centers: np.ndarray, rays: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    polygons = rays_to_polygons(centers, rays)
    return polygons if scale is None else polygons * np.broadcast_to(scale, (len(polygons), 2))[:, None]
