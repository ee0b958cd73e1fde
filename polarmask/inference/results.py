"""Detections in COCO's result format."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from polarmask_ops import polygons_to_rle


def coco_results(
    found: dict[str, Tensor], size: tuple[int, int], image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """The detections of an image of height and width ``size`` in COCO's result format."""
    masks = polygons_to_rle(found["polygons"], size).to_coco()
    rows = zip(masks, found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "score": score,
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
        }
        for mask, (left, top, right, bottom), label, score in rows
    ]
