"""Another who learns instances: torchvision's Mask R-CNN, on the backbone that ours has, from scratch as ours.

Its heads are as wide as ours (64; by default 256 and 1024), and it is trained on 128 regions of an image (by default
512): with the defaults a step on nuclei takes 22 seconds of a processor, in place of 1.6, and on two cores nothing
would be learned in minutes. Anchors have two sizes on each level, 4 and 4·√2 strides, and so cover the objects of both
data sets. All else is torchvision's default.
"""

import sys
from typing import Any

import torch
from peers.model import coco_entries
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from polarmask.config import ModelConfig
from polarmask.model.backbone import SmallBackbone
from polarmask_ops import outlines_to_masks

STRIDES = (4, 8, 16)
REGIONS = 128


class _AsTheyAre(GeneralizedRCNNTransform):
    """Normalises and pads, and leaves images at their size."""

    def resize(self, image: Tensor, target: Any = None) -> Any:
        return image, target


def mask_rcnn(config: ModelConfig, classes: int) -> nn.Module:
    width = config.channels
    backbone = SmallBackbone(STRIDES, width)
    backbone.out_channels = width
    names = [str(stride) for stride in STRIDES]
    model = MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(
            sizes=tuple((4 * stride, 4 * 2**0.5 * stride) for stride in STRIDES),
            aspect_ratios=((0.5, 1.0, 2.0),) * len(STRIDES),
        ),
        box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(width * 7 * 7, 4 * width),
        box_predictor=FastRCNNPredictor(4 * width, 1 + classes),
        box_batch_size_per_image=REGIONS,
        box_detections_per_img=sys.maxsize if config.max_detections is None else config.max_detections,
        mask_roi_pool=MultiScaleRoIAlign(names, output_size=14, sampling_ratio=2),
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(width, width, 1 + classes),
    )
    model.transform = _AsTheyAre(0, 0, config.image_mean, config.image_std)
    return model


def targets_of(image: Tensor, target: dict[str, Any]) -> dict[str, Tensor]:
    """Our targets as it takes them: bitmaps, and labels from 1."""
    masks = outlines_to_masks(target["outlines"], (image.shape[1], image.shape[2]))
    return {"boxes": target["boxes"], "labels": target["labels"] + 1, "masks": masks}


@torch.no_grad()
def detect(model: nn.Module, image: Tensor) -> list[dict[str, Any]]:
    """Instances in COCO's result format."""
    return coco_entries(model([image])[0])
