"""The head that turns feature maps into classes, centerness, boxes and rays at every point."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polarmask_ops import FCOS_RANGES

from .deformable import DeformableConv

GROUPS = 32  # of the head's GroupNorm
PRIOR = 0.01  # initial probability of each class; with a higher one the background dominates the first losses


class HeadOutput(NamedTuple):
    """The head's predictions for the L points of all levels, finest level first, row by row."""

    logits: Tensor  # (B, L, classes)
    centerness: Tensor  # (B, L) logits
    log_boxes: Tensor | None  # (B, L, 4) log of left, top, right, bottom distances in pixels; none without a box branch
    log_rays: Tensor  # (B, L, R) log of lengths in pixels
    level_shapes: list[tuple[int, int]]  # h, w


class _Tower(nn.Sequential):
    def __init__(self, inside: int, channels: int, depth: int, deformable: bool) -> None:
        layers: list[nn.Module] = []
        for k in range(depth):
            width = channels if k else inside
            layers += [
                DeformableConv(width, channels, bias=True, modulated=True)
                if deformable
                else nn.Conv2d(width, channels, 3, 1, 1, bias=False),
                nn.GroupNorm(GROUPS, channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class PolarHead(nn.Module):
    """PolarMask's head, for any feature pyramid.

    Three towers, shared by all levels, end in class logits and a centerness logit, in four box distances, and in the
    rays. Distances are exp(scale · x) in pixels with a learned scale a level; their logarithm is what the losses take.

    Parameters
    ----------
    num_classes : int
    num_rays : int
        R; ray k points along (cos 2πk/R, sin 2πk/R).
    in_channels, channels : int
        Width of the feature maps and of the towers; ``channels`` must be a multiple of 32.
    depth : int
        Convolutions in a tower.
    strides : sequence of int
        Strides of the levels, finest first.
    ranges : sequence of (float, float)
        Instances are assigned to the level whose range holds their largest box distance, both ends included.
    box_branch : bool
        Without it, boxes are the polygons' extents.
    deformable : bool
        Modulated deformable convolutions in the towers.
    init_scale : float, optional
        Rays and box distances start at ``init_scale`` · stride instead of 1 pixel.
    """

    def __init__(
        self,
        num_classes: int,
        num_rays: int = 36,
        in_channels: int = 256,
        channels: int = 256,
        depth: int = 4,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        ranges: Sequence[tuple[float, float]] = FCOS_RANGES,
        box_branch: bool = True,
        deformable: bool = False,
        init_scale: float | None = None,
    ) -> None:
        super().__init__()
        if len(strides) != len(ranges):
            raise ValueError(f"PolarHead: expected a range for each of {len(strides)} strides, got {len(ranges)}")
        self.num_classes = num_classes
        self.num_rays = num_rays
        self.strides = list(strides)
        self.ranges = [(float(low), float(high)) for low, high in ranges]
        self.start = [0.0 if init_scale is None else math.log(init_scale * stride) for stride in strides]
        self.class_tower = _Tower(in_channels, channels, depth, deformable)
        self.mask_tower = _Tower(in_channels, channels, depth, deformable)
        self.classes = nn.Conv2d(channels, num_classes, 3, 1, 1)
        self.centerness = nn.Conv2d(channels, 1, 3, 1, 1)
        self.rays = nn.Conv2d(channels, num_rays, 3, 1, 1)
        self.ray_scales = nn.Parameter(torch.ones(len(strides)))
        self.box_tower = _Tower(in_channels, channels, depth, deformable) if box_branch else None
        if box_branch:
            self.boxes = nn.Conv2d(channels, 4, 3, 1, 1)
            self.box_scales = nn.Parameter(torch.ones(len(strides)))
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.endswith(".offset"):  # those start at 0
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    start = math.log(PRIOR / (1 - PRIOR)) if module is self.classes else 0.0
                    nn.init.constant_(module.bias, start)

    def forward(self, features: Sequence[Tensor]) -> HeadOutput:
        """``features``: a (B, in_channels, h, w) map for each stride."""
        logits, centerness, boxes, rays = [], [], [], []
        for level, x in enumerate(features):
            of_class = self.class_tower(x)
            logits.append(_rows(self.classes(of_class)))
            centerness.append(_rows(self.centerness(of_class)))
            rays.append(self.ray_scales[level] * _rows(self.rays(self.mask_tower(x))) + self.start[level])
            if self.box_tower is not None:
                boxes.append(self.box_scales[level] * _rows(self.boxes(self.box_tower(x))) + self.start[level])
        return HeadOutput(
            logits=torch.cat(logits, 1),
            centerness=torch.cat(centerness, 1)[..., 0],
            log_boxes=torch.cat(boxes, 1) if boxes else None,
            log_rays=torch.cat(rays, 1),
            level_shapes=[(x.shape[2], x.shape[3]) for x in features],
        )

    def points(self, level_shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """The points of all levels, ((j + ½)·stride, (i + ½)·stride): (L, 2) pixels."""
        grids = []
        for (height, width), stride in zip(level_shapes, self.strides, strict=True):
            y = (torch.arange(height, device=device) + 0.5) * stride
            x = (torch.arange(width, device=device) + 0.5) * stride
            grids.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2))
        return torch.cat(grids)


def _rows(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h·w, C), in float32 also under autocast: exp of a half-precision value is too coarse."""
    return x.flatten(2).transpose(1, 2).float()
