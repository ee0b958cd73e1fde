"""Networks that turn a batch of images into feature maps of one width, finest first."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from .deformable import DeformableConv
from .weights import read_weights

_group_norm = partial(nn.GroupNorm, 32)


class _Block(nn.Module):
    """A residual block of two 3×3 convolutions."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = _group_norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = _group_norm(outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class SmallBackbone(nn.Module):
    """A residual GroupNorm network with a feature pyramid, small enough to be trained on two cores in a minute.

    Parameters
    ----------
    strides : sequence of int
        Strides of the feature maps to return, rising, out of 4, 8 and 16.
    channels : int
        Width of the feature maps.
    """

    def __init__(self, strides: Sequence[int] = (4,), channels: int = 64) -> None:
        super().__init__()
        if not strides or set(strides) - {4, 8, 16} or list(strides) != sorted(set(strides)):
            raise ValueError(f"SmallBackbone: expected rising strides out of 4, 8 and 16, got {list(strides)}")
        self.strides = list(strides)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), _group_norm(32), nn.ReLU(inplace=True))
        widths = [64, 128, 256]
        self.blocks = nn.ModuleList(
            _Block(inside, outside, 2) for inside, outside in zip([32, 64, 128], widths, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleDict({str(stride): nn.Conv2d(channels, channels, 3, 1, 1) for stride in strides})

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Feature maps (B, channels, H/stride, W/stride) by their strides as text, from images (B, 3, H, W)."""
        x = self.stem(x)
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        features = OrderedDict()
        above = None
        for stride, x, lateral in zip([16, 8, 4], maps[::-1], reversed(self.lateral), strict=True):
            x = lateral(x)
            above = x if above is None else x + F.interpolate(above, size=x.shape[-2:])
            features[str(stride)] = above
        return OrderedDict((name, smooth(features[name])) for name, smooth in self.smooth.items())


class _FrozenBatchNorm(FrozenBatchNorm2d):
    """FrozenBatchNorm2d in one pass over the map; torchvision's takes two, and memory for both."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def resnet_fpn(
    name: str, *, frozen: bool, style: Literal["pytorch", "caffe"] = "pytorch", deformable: bool = False
) -> nn.Module:
    """torchvision's ResNet with a feature pyramid P3–P7 (strides 8 … 128, 256 channels); P6 and P7 are made from P5.

    Parameters
    ----------
    name : str
        A ResNet or ResNeXt of ``torchvision.models``, such as ``resnet50``.
    frozen : bool
        For pretrained weights: BatchNorm as a constant, stem and first stage not trained. Else GroupNorm, and
        everything is trained.
    style : {"pytorch", "caffe"}
        Whether the 3×3 or the first 1×1 convolution of a bottleneck strides.
    deformable : bool
        Deformable 3×3 convolutions in stages 2 to 4.

    Raises
    ------
    ValueError
        If there are no bottlenecks, and they were to be changed.
    """
    backbone = resnet_fpn_backbone(
        backbone_name=name,
        weights=None,
        norm_layer=_FrozenBatchNorm if frozen else _group_norm,
        trainable_layers=3 if frozen else 5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    if style == "pytorch" and not deformable:
        return backbone
    blocks = [block for stage in (2, 3, 4) for block in backbone.body.get_submodule(f"layer{stage}").children()]
    for block in blocks:
        if not isinstance(block, Bottleneck):
            raise ValueError(f"resnet_fpn: expected a network of bottlenecks, such as resnet50, got {name}")
        if style == "caffe":
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        if deformable:
            old = block.conv2
            block.conv2 = DeformableConv(
                old.in_channels, old.out_channels, stride=old.stride[0], groups=old.groups, bias=False
            )
            block.conv2.weight = old.weight
    return backbone


def load_pretrained(backbone: nn.Module, name: str, weights: str) -> None:
    """Fill a ``resnet_fpn(name, frozen=True)`` with classification weights.

    ``weights`` is ``torchvision`` (ImageNet, downloaded by torchvision) or the path of a state dict, see
    :func:`polarmask.model.weights.read_weights`. Offsets of deformable convolutions stay as they are.

    Raises
    ------
    ValueError
        If there are no weights for that backbone, or the file holds others, is a detector or is none of weights.
    """
    if name == "small":
        raise ValueError(
            "model.weights: expected none with model.backbone small, which has no classification weights, got "
            f"{weights}; --resume goes on with a training"
        )
    if weights == "torchvision":
        state = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(check_hash=True)
    else:
        state = read_weights(weights)
    # torchvision's files count batches, a frozen BatchNorm does not
    wanted = {key: value for key, value in state.items() if not key.startswith("fc.") and "num_batches" not in key}
    body = backbone.get_submodule("body")
    expected = {key: value.shape for key, value in body.state_dict().items() if ".offset." not in key}
    missing, unknown = expected.keys() - wanted.keys(), wanted.keys() - expected.keys()
    if missing or unknown:
        raise ValueError(
            f"load_pretrained: expected the weights of {name} in {weights}, but {len(missing)} are missing and "
            f"{len(unknown)} unknown, such as {min(missing | unknown)}; choose the model.backbone that they are of"
        )
    for key, shape in expected.items():
        if wanted[key].shape != shape:
            raise ValueError(
                f"load_pretrained: expected the weights of {name} in {weights}, but {key} is "
                f"{tuple(wanted[key].shape)} instead of {tuple(shape)}; choose the model.backbone that they are of"
            )
    body.load_state_dict(wanted, strict=False)
