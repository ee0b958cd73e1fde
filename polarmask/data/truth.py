"""Ground truth in COCO's format, made from samples or from the instances of files."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from polarmask_ops import Outlines, outlines_to_rle

from .instances import Instances
from .sample import Sample

STATED = {"area", "bbox", "segmentation"}  # taken from the annotation if it states them, or else computed


def coco_truth(samples: Iterable[Sample], categories: dict[int, str]) -> dict[str, Any]:
    """What COCO's JSON would hold for these samples; labels count the categories from 0."""
    images = []
    for sample in samples:
        entries = _shapes(sample.outlines, sample.size)
        _describe(entries, sample.labels.tolist(), sample.ignore.tolist(), list(categories))
        images.append((image_entry(sample.image_id, sample.size), entries))
    return assembled(images, categories)


def image_entry(image_id: int | str, size: tuple[int, int], name: str | None = None) -> dict[str, Any]:
    """The entry of an image of height and width ``size``."""
    file_name = {} if name is None else {"file_name": name}
    return {"id": image_id, **file_name, "height": size[0], "width": size[1]}


def annotation_entries(found: Instances, categories: Sequence[int]) -> list[dict[str, Any]]:
    """An entry for each instance, without its id and the image's. Area, box and segmentation are what the file states
    where that is sound, and else those of the mask of all parts."""
    entries = [dict(found.stated.get(n, {})) for n in range(len(found))]
    lacking = [n for n, entry in enumerate(entries) if entry.keys() != STATED]
    if lacking:
        outlines = found.outlines("all")[0][torch.tensor(lacking)]
        for n, shape in zip(lacking, _shapes(outlines, found.size), strict=True):
            entries[n] = {**shape, **entries[n]}
    _describe(entries, found.labels, found.crowd, categories)
    return entries


def assembled(
    images: Iterable[tuple[dict[str, Any], list[dict[str, Any]]]], categories: dict[int, str]
) -> dict[str, Any]:
    """The file's content for images and their annotations, which are numbered from 1: evaluation programs lose an
    annotation whose id is 0 or comes twice."""
    content: dict[str, Any] = {"images": [], "annotations": []}
    for image, entries in images:
        content["images"].append(image)
        for entry in entries:
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": image["id"], **entry},
            )
    return {**content, "categories": [{"id": number, "name": name} for number, name in categories.items()]}


def _shapes(outlines: Outlines, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Area, box and segmentation of each mask."""
    masks = outlines_to_rle(outlines, size)
    boxes, areas = masks.boxes().tolist(), masks.areas().tolist()
    return [
        {"area": int(area), "bbox": [left, top, right - left, bottom - top], "segmentation": mask}
        for mask, area, (left, top, right, bottom) in zip(masks.to_coco(), areas, boxes, strict=True)
    ]


def _describe(entries: list[dict[str, Any]], labels: list[int], crowd: list[bool], categories: Sequence[int]) -> None:
    """Adds category and crowd flag."""
    for entry, label, is_crowd in zip(entries, labels, crowd, strict=True):
        entry |= {"category_id": categories[label], "iscrowd": int(is_crowd)}
