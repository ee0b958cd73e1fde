"""Torch ops for instance masks as rays: polar targets, Polar IoU, rasterization, polygon NMS."""

from ._extension import _C
from .outlines import Outlines
from .outlines_from import outlines_from_masks, outlines_from_polygons, outlines_from_rle
from .polar_iou import polar_centerness, polar_iou
from .polar_iou_loss import PolarIoULoss, polar_iou_loss
from .polar_target import (
    BACKGROUND,
    FCOS_RANGES,
    IGNORED,
    PolarTargets,
    cast_rays,
    encode_ragged_targets,
    encode_targets,
)
from .polygon_iou import polygon_areas, polygon_iou, rays_iou
from .polygon_nms import batched_polygon_nms, batched_rays_nms, polygon_nms, rays_nms
from .rasterize import (
    outlines_to_labels,
    outlines_to_masks,
    outlines_to_rle,
    polygons_to_labels,
    polygons_to_masks,
    polygons_to_rle,
)
from .rasterize_rays import rays_to_boxes, rays_to_labels, rays_to_masks, rays_to_polygons, rays_to_rle
from .rle import RLE
from .star_distances import star_distances
from .top_scores import top_scores

__all__ = [
    "BACKGROUND",
    "FCOS_RANGES",
    "IGNORED",
    "RLE",
    "Outlines",
    "PolarIoULoss",
    "PolarTargets",
    "batched_polygon_nms",
    "batched_rays_nms",
    "cast_rays",
    "encode_ragged_targets",
    "encode_targets",
    "outlines_from_masks",
    "outlines_from_polygons",
    "outlines_from_rle",
    "outlines_to_labels",
    "outlines_to_masks",
    "outlines_to_rle",
    "polar_centerness",
    "polar_iou",
    "polar_iou_loss",
    "polygon_areas",
    "polygon_iou",
    "polygon_nms",
    "polygons_to_labels",
    "polygons_to_masks",
    "polygons_to_rle",
    "rays_iou",
    "rays_nms",
    "rays_to_boxes",
    "rays_to_labels",
    "rays_to_masks",
    "rays_to_polygons",
    "rays_to_rle",
    "star_distances",
    "top_scores",
]
__version__ = _C.build_info()["version"]
