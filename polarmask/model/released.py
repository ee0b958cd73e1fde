"""Weights of the released PolarMask as weights of this package.

The released checkpoints are mmdetection's. Their tensors are renamed, and their rays put in our order.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from ..config import Config
from ..inference.detector import Detector
from . import build_model
from .weights import misfits, read_weights

TOWERS = {"cls": "class_tower", "reg": "box_tower", "mask": "mask_tower"}
OUTPUTS = {"cls": "classes", "centerness": "centerness", "reg": "boxes", "mask": "rays"}
FIELD = r"\.(weight|bias)"
# The names of mmdetection 1.0 and its PolarMask fork. Older files have fcos_*, conv2_offset and conv_offset_mask.
RULES = [
    (r"backbone\.(conv1|layer\d\.\d+\.(?:conv\d|downsample\.0))\.weight", r"backbone.body.\1.weight"),
    (
        r"backbone\.(bn1|layer\d\.\d+\.(?:bn\d|downsample\.1))\.(weight|bias|running_mean|running_var)",
        r"backbone.body.\1.\2",
    ),
    (r"backbone\.(layer\d\.\d+\.conv2)(?:_offset|\.conv_offset)" + FIELD, r"backbone.body.\1.offset.\2"),
    (r"neck\.lateral_convs\.([0-2])\.conv" + FIELD, r"backbone.fpn.inner_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.([0-2])\.conv" + FIELD, r"backbone.fpn.layer_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.3\.conv" + FIELD, r"backbone.fpn.extra_blocks.p6.\1"),
    (r"neck\.fpn_convs\.4\.conv" + FIELD, r"backbone.fpn.extra_blocks.p7.\1"),
    *(
        rule
        for theirs, ours in TOWERS.items()
        for rule in (
            # A deformable tower is a list of convolution, norm, ReLU, as ours is; a plain one a list of all three.
            (rf"bbox_head\.{theirs}_convs\.(\d+)" + FIELD, rf"head.{ours}.\1.\2"),
            (rf"bbox_head\.{theirs}_convs\.(\d+)\.conv_offset(?:_mask)?" + FIELD, rf"head.{ours}.\1.offset.\2"),
        )
    ),
    *((rf"bbox_head\.(?:polar|fcos)_{theirs}" + FIELD, rf"head.{ours}.\1") for theirs, ours in OUTPUTS.items()),
]
BLOCK = re.compile(r"bbox_head\.(cls|reg|mask)_convs\.(\d+)\.(conv|gn)" + FIELD)
SCALE = re.compile(r"bbox_head\.scales_(bbox|mask)\.(\d+)\.scale")


def convert(
    checkpoint: str | Path | dict[str, Tensor], config: Config, categories: dict[int, str] | None = None
) -> Detector:
    """A detector with released weights.

    Parameters
    ----------
    checkpoint : str, Path, or dict of str to Tensor
        A .pth of the released implementation, or its state dict.
    config : Config
        The recipe that the weights belong to, such as ``load_config("r50_caffe_1x")``.
    categories : dict of int to str, optional
        Names by id, in the order of the classes; by default the 80 of COCO.

    Raises
    ------
    ValueError
        If a tensor has a name that is not known, is missing, or has another shape than in ``config``; or if the file is
        damaged or would run code.

    Notes
    -----
    The release puts pixel centres on whole numbers; here they lie at halves. The converted network predicts for a point
    what the released one predicts for the point of the same indices. Scores are divided by 1.5, their order stays.
    """
    if config.model.weights == "none":
        raise ValueError(
            "convert: expected a recipe with pretrained weights, such as r50_caffe_1x, got one of model.weights none"
        )
    ours = rename(checkpoint if isinstance(checkpoint, dict) else read_weights(checkpoint))
    count = len(ours["head.classes.bias"]) if "head.classes.bias" in ours else 0
    categories = coco_categories() if categories is None else categories
    if len(categories) != count:
        raise ValueError(f"convert: expected a category for each of {count} classes, got {len(categories)}")
    model = build_model(config.model, count)
    wrong = misfits(model, ours)
    if wrong:
        raise ValueError(f"convert: expected the weights of another recipe: {_some(wrong)}")
    model.load_state_dict(ours)
    return Detector(model.eval(), config, categories)


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors under polarmask's names, with rays in its order; BatchNorm's counters are left out.

    Raises
    ------
    ValueError
        If a name is not known, twice the same, or the rays cannot be counted from another side.
    """
    found: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        if name.endswith(".num_batches_tracked"):
            continue
        ours = _our_name(name)
        if ours is None:
            unknown.append(name)
        elif ours in found:
            raise ValueError(f"convert: expected each tensor once, got {ours} again as {name}")
        else:
            found[ours] = value
    if unknown:
        raise ValueError(f"convert: expected the names of the released PolarMask, got also {_some(unknown)}")
    for ours in ("head.box_scales", "head.ray_scales"):
        levels = sorted(name for name in found if name.startswith(f"{ours}."))
        if levels:
            found[ours] = torch.stack([found.pop(name).reshape(()) for name in levels])
    for name in ("head.rays.weight", "head.rays.bias"):
        if name in found:
            found[name] = found[name][reordered(len(found[name]))]
    return found


def reordered(num_rays: int) -> Tensor:
    """The release's index of each ray: the release counts rays from the bottom to the right, polarmask the other way.

    Examples
    --------
    >>> reordered(8)
    tensor([2, 1, 0, 7, 6, 5, 4, 3])
    """
    if num_rays % 4:
        raise ValueError(f"convert: expected a number of rays that 4 divides, got {num_rays}")
    return (num_rays // 4 - torch.arange(num_rays)) % num_rays


def coco_categories() -> dict[int, str]:
    """COCO's 80 categories by their ids, which have gaps."""
    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {n: name for n, name in enumerate(names) if n and name != "N/A"}


def _our_name(name: str) -> str | None:
    if match := BLOCK.fullmatch(name):
        tower, block, kind, field = match.groups()
        return f"head.{TOWERS[tower]}.{3 * int(block) + (kind == 'gn')}.{field}"
    if match := SCALE.fullmatch(name):
        return f"head.{'box' if match[1] == 'bbox' else 'ray'}_scales.{match[2]}"
    for pattern, ours in RULES:
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return None


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
