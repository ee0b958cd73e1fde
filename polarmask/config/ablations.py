"""The settings of the paper's ablations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """A line of the paper's Table 1."""

    name: str
    model: Mapping[str, Any]  # changed options
    published: float  # mask AP on COCO minival, R50
    scale: float = 1.0  # of the images that are evaluated on


GRIDS = {
    "rays": [
        Setting("18 rays", {"num_rays": 18}, 26.2),
        Setting("24 rays", {"num_rays": 24}, 27.3),
        Setting("36 rays", {"num_rays": 36}, 27.7),
        Setting("72 rays", {"num_rays": 72}, 27.6),
    ],
    "loss": [
        Setting("smooth L1 × 0.3", {"mask_loss": "smooth_l1", "mask_weight": 0.3}, 25.1),
        Setting("Polar IoU", {}, 27.7),
    ],
    "centerness": [
        Setting("of FCOS", {"centerness": "fcos"}, 27.7),
        Setting("polar", {}, 29.1),
    ],
    "box": [
        Setting("with box branch", {}, 27.7),
        Setting("without", {"box_branch": False}, 27.5),
    ],
    "scale": [
        Setting("scale 400 of 800", {}, 22.9, 0.5),
        Setting("scale 600 of 800", {}, 27.6, 0.75),
        Setting("scale 800 of 800", {}, 29.1),
    ],
}
