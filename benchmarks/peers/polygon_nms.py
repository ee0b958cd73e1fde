"""Other programs for NMS of shapes. All of them take candidates by falling score."""

from __future__ import annotations

import numpy as np
import shapely
import torch
from cases import Candidates
from pycocotools import mask as coco
from torchvision.ops import nms

from .star_distances import stardist

THRESHOLD = 0.5


def shapely_nms(inputs: Candidates) -> np.ndarray:
    """GEOS, with a tree of boxes; each row of intersections is one call."""
    shapes = shapely.polygons(inputs.polygons.numpy())
    tree, areas = shapely.STRtree(shapes), shapely.area(shapes)
    shapely.prepare(shapes)
    dead = np.zeros(len(shapes), bool)
    for i, shape in enumerate(shapes):
        if dead[i]:
            continue
        near = tree.query(shape)
        near = near[(near > i) & ~dead[near]]
        inter = shapely.area(shapely.intersection(shape, shapes[near]))
        dead[near[inter > THRESHOLD * (areas[i] + areas[near] - inter)]] = True
    return np.flatnonzero(~dead)


def coco_nms(inputs: Candidates) -> np.ndarray:
    """IoU of pycocotools' masks, of the pairs whose boxes overlap enough."""
    polygons = inputs.polygons
    size = [int(extent) + 1 for extent in polygons.amax((0, 1)).flip(0).tolist()]
    masks = coco.frPyObjects(polygons.flatten(1).double().tolist(), *size)
    low, high = polygons.amin(1).numpy(), polygons.amax(1).numpy()
    dead = np.zeros(len(masks), bool)
    order = np.argsort(low[:, 0], kind="stable")
    left, widest = low[order, 0], float((high - low)[:, 0].max())
    for i in range(len(masks)):
        if dead[i]:
            continue
        begin, end = np.searchsorted(left, [low[i, 0] - widest, high[i, 0]])
        near = order[begin:end]
        near = near[(near > i) & ~dead[near]]
        near = near[((low[near] < high[i]) & (high[near] > low[i])).all(1)]
        if len(near):
            iou = coco.iou([masks[j] for j in near], [masks[i]], [0])[:, 0]
            dead[near[iou > THRESHOLD]] = True
    return np.flatnonzero(~dead)


def stardist_nms(inputs: Candidates) -> np.ndarray:
    """Measures the intersection against the smaller shape; points are (y, x)."""
    rays, points = inputs.rays.numpy(), np.ascontiguousarray(inputs.centers.numpy()[:, ::-1])
    kept = stardist().c_non_max_suppression_inds(rays, points, 1, 1, 0, np.float32(THRESHOLD))
    return np.flatnonzero(kept)


def box_nms(inputs: Candidates) -> torch.Tensor:
    boxes = torch.cat([inputs.polygons.amin(1), inputs.polygons.amax(1)], 1)
    return nms(boxes, inputs.scores, THRESHOLD)
