"""The network."""

from torch import nn

from ..config import ModelConfig
from .backbone import SmallBackbone, resnet_fpn
from .head import HeadOutput, PolarHead
from .loss import polar_losses
from .polarmask import PolarMask
from .postprocess import Cuts, PostProcess

__all__ = ["Cuts", "HeadOutput", "PolarHead", "PolarMask", "PostProcess", "build_model", "polar_losses"]


def build_model(config: ModelConfig, num_classes: int) -> PolarMask:
    """The network of a configuration, with random weights."""
    backbone: nn.Module
    if config.backbone == "small":
        backbone, width = SmallBackbone(config.strides, config.channels), config.channels
    else:
        if config.strides != [8, 16, 32, 64, 128]:
            raise ValueError(f"model.strides: expected 8, 16, 32, 64, 128 with {config.backbone}, got {config.strides}")
        backbone, width = (
            resnet_fpn(
                config.backbone,
                frozen=config.weights != "none",
                style=config.style,
                deformable=config.deformable_backbone,
            ),
            256,
        )
    head = PolarHead(
        num_classes,
        num_rays=config.num_rays,
        in_channels=width,
        channels=config.channels,
        depth=config.depth,
        strides=config.strides,
        ranges=config.ranges,
        box_branch=config.box_branch,
        deformable=config.deformable_head,
        init_scale=config.init_scale,
    )
    return PolarMask(
        backbone,
        head,
        image_mean=config.image_mean,
        image_std=config.image_std,
        pad_multiple=config.pad_multiple,
        center_radius=config.center_radius,
        bgr=config.bgr,
        mask_loss=config.mask_loss,
        mask_weight=config.mask_weight,
        centerness=config.centerness,
        box_offset=config.box_offset,
        postprocess=PostProcess(
            score_threshold=config.score_threshold,
            max_candidates=config.max_candidates,
            max_detections=config.max_detections,
            nms=config.nms,
            nms_threshold=config.nms_threshold,
        ),
    )
