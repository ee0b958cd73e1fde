"""Ground truth in COCO's format, made from samples."""

from collections.abc import Iterable
from typing import Any

from polarmask_ops import outlines_to_rle

from .sample import Sample


def coco_truth(samples: Iterable[Sample], categories: dict[int, str]) -> dict[str, Any]:
    """What COCO's JSON would hold for these samples; labels count the categories from 0."""
    ids = list(categories)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for sample in samples:
        height, width = sample.size
        images.append({"id": sample.image_id, "height": height, "width": width})
        masks = outlines_to_rle(sample.outlines, sample.size)
        for n, mask in enumerate(masks.to_coco()):
            left, top, right, bottom = masks.boxes()[n].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": sample.image_id,
                    "category_id": ids[int(sample.labels[n])],
                    "iscrowd": int(sample.ignore[n]),
                    "area": int(masks.areas()[n]),
                    "bbox": [left, top, right - left, bottom - top],
                    "segmentation": mask,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
