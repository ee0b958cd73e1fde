"""Rays to COCO's strings, to bitmaps and to label images."""

from typing import Any

import numpy as np
import torch
from cases import LABELS, MASKS, RLE, Rays
from peers import rasterize as peers
from pycocotools import mask as coco
from race import Growth, Race, Runner
from torch import Tensor

from polarmask_ops import rays_to_labels, rays_to_masks, rays_to_polygons, rays_to_rle

Strings = list[dict[str, Any]]


def masks(inputs: Rays) -> Tensor:
    return rays_to_masks(*inputs)


def same_strings(inputs: Rays, ours: Strings, theirs: Strings) -> None:
    # float32 directions: the last bit of a vertex may move a pixel in one of thousands of masks.
    different = sum(a != b for a, b in zip(ours, theirs, strict=True))
    assert different <= 0.02 * len(theirs)


def similar_strings(inputs: Rays, ours: Strings, theirs: Strings) -> None:
    similar_masks(inputs, torch.from_numpy(coco.decode(ours)), coco.decode(theirs), axis=(0, 1), least=0.8)


def similar_masks(
    inputs: Rays, ours: Tensor, theirs: np.ndarray, axis: tuple[int, int] = (1, 2), least: float = 0.85
) -> None:
    """Each program has its own rule for border pixels, of which small objects have many."""
    a, b = ours.numpy() != 0, theirs != 0
    union = (a | b).sum(axis)
    iou = (a & b).sum(axis)[union > 0] / union[union > 0]
    assert iou.mean() > least


def same_labels(inputs: Rays, ours: Tensor, theirs: np.ndarray) -> None:
    assert (ours.numpy() == theirs).mean() > 0.98


def columns(inputs: Rays, _: Strings) -> float:
    """Columns of the image that instances cover, one instance after the other."""
    x = rays_to_polygons(inputs.centers, inputs.rays)[..., 0].clamp(0, inputs.size[1])
    return float((x.amax(1) - x.amin(1)).sum())


COLUMNS = Growth("instances × width", columns)

RACES = (
    Race(
        "rays_to_rle, COCO strings",
        RLE,
        lambda inputs: rays_to_rle(*inputs).to_coco(),
        (Runner("released: drawContours, encode", peers.released_rle, similar_strings, aim=400, sizes=(0, 100)),),
        unit="instance",
        growth=COLUMNS,
    ),
    Race(
        "rays_to_rle, rule coco",
        RLE,
        lambda inputs: rays_to_rle(*inputs, rule="coco").to_coco(),
        (Runner("pycocotools frPyObjects", peers.coco_rle, same_strings, aim=6, parallel=False),),
        unit="instance",
        growth=COLUMNS,
    ),
    Race(
        "rays_to_masks",
        MASKS,
        masks,
        (
            Runner("cv2.fillPoly, fresh memory", peers.fill_polygons, similar_masks, aim=1.5),
            Runner(
                "skimage.draw.polygon", peers.skimage_masks, similar_masks, parallel=False, available=peers.HAS_SKIMAGE
            ),
            Runner("bound: writing the bytes", peers.write_bytes),
        ),
        unit="instance",
    ),
    Race(
        "rays_to_labels",
        LABELS,
        lambda inputs: rays_to_labels(*inputs),
        (
            Runner(
                "skimage.draw.polygon, as StarDist",
                peers.skimage_labels,
                same_labels,
                parallel=False,
                available=peers.HAS_SKIMAGE,
            ),
        ),
        unit="instance",
    ),
)


def bench_rasterize(timed, entry):
    timed(entry)
