"""Instances in COCO's JSON: polygons and run-length encoded masks, crowds included."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from polarmask_ops import RLE, Outlines, outlines_from_polygons, outlines_from_rle

from .images import read_image
from .sample import Sample


class Coco:
    """A folder with ``annotations/instances_SPLIT.json`` and the images under ``SPLIT/``.

    Labels count the categories in the order of their ids. Instances made of several parts are trained on by their
    largest; crowds are neither objects nor background.

    Parameters
    ----------
    root : str or Path
    split : str
        Such as ``train2017``.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        self.folder = Path(root) / split
        annotations = Path(root) / "annotations" / f"instances_{split}.json"
        self.content: dict[str, Any] = json.loads(annotations.read_text())
        categories = sorted(self.content["categories"], key=lambda entry: entry["id"])
        self.categories = {entry["id"]: entry["name"] for entry in categories}
        self.label = {category: n for n, category in enumerate(self.categories)}
        self.images: list[dict[str, Any]] = self.content["images"]
        self.instances: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in self.content["annotations"]:
            self.instances[entry["image_id"]].append(entry)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        entry = self.images[index]
        image = read_image(self.folder / entry["file_name"])
        instances = self.instances[entry["id"]]
        return Sample(
            image=image,
            outlines=_outlines(instances),
            labels=torch.tensor([self.label[instance["category_id"]] for instance in instances], dtype=torch.int64),
            ignore=torch.tensor([bool(instance.get("iscrowd", 0)) for instance in instances], dtype=torch.bool),
            image_id=entry["id"],
        )

    def ground_truth(self) -> dict[str, Any]:
        return self.content


def _outlines(instances: list[dict[str, Any]]) -> Outlines:
    none = outlines_from_polygons([])
    return Outlines.cat([none, *(_outline(instance) for instance in instances)])


def _outline(instance: dict[str, Any]) -> Outlines:
    segmentation = instance["segmentation"]
    if isinstance(segmentation, list):
        return outlines_from_polygons([segmentation])
    return outlines_from_rle(RLE.from_coco([segmentation]), keep="all" if instance.get("iscrowd", 0) else "largest")
