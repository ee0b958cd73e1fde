"""The detector: backbone, head, losses and detections behind torchvision's interface."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polarmask_ops import PolarTargets, encode_targets

from .head import PolarHead
from .loss import box_centerness, polar_losses
from .postprocess import Cuts, PostProcess


class PolarMask(nn.Module):
    """PolarMask: instances as a centre and rays.

    Follows ``torchvision.models.detection``: ``model(images, targets)`` gives a dict of losses in training,
    ``model(images)`` a list of dicts in evaluation. Images are normalised and padded here, never resized.

    Parameters
    ----------
    backbone : nn.Module
        Gives a dict of feature maps, one for each of the head's strides, finest first.
    head : PolarHead
    image_mean, image_std : sequence of 3 floats
        In the images' units and order of channels.
    bgr : bool
        The backbone takes the channels in the opposite order.
    pad_multiple : int
        Images are padded with zeros at the right and the bottom to a multiple of this.
    center_radius : float
        Points within this many strides of an instance's centre are assigned to it.
    centerness : {"polar", "fcos"}
        Whether centerness is computed from the rays or from the box.
    mask_loss, mask_weight, box_offset
        See :func:`polarmask.model.loss.polar_losses`.
    postprocess : PostProcess

    Attributes
    ----------
    cuts : Cuts
        Counts what the limits of ``postprocess`` left out.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: PolarHead,
        *,
        image_mean: Sequence[float] = (0.0, 0.0, 0.0),
        image_std: Sequence[float] = (1.0, 1.0, 1.0),
        bgr: bool = False,
        pad_multiple: int = 128,
        center_radius: float = 1.5,
        centerness: Literal["polar", "fcos"] = "polar",
        mask_loss: Literal["polar_iou", "smooth_l1"] = "polar_iou",
        mask_weight: float = 1.0,
        box_offset: float = 0.0,
        postprocess: PostProcess | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.bgr = bgr
        self.pad_multiple = pad_multiple
        self.center_radius = center_radius
        self.centerness = centerness
        self.mask_loss = mask_loss
        self.mask_weight = mask_weight
        self.box_offset = box_offset
        self.postprocess = postprocess or PostProcess()
        self.cuts = Cuts()
        self.register_buffer("image_mean", torch.tensor(image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(image_std).view(3, 1, 1), persistent=False)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Any]] | PolarTargets | None = None,
        divide_by: Tensor | None = None,
    ) -> Any:
        """Losses in training, detections in evaluation.

        Parameters
        ----------
        images : sequence of Tensor, shape (3, H, W), float
            Of any sizes.
        targets : sequence of dict, in training, one for each image
            ``boxes`` (N, 4) xyxy pixels, ``labels`` (N,) int64 from 0 to num_classes − 1, ``outlines`` with N
            instances, and, if there are such, ``ignore`` (N,) bool: neither object nor background. Or what
            :meth:`encode` made of them.
        divide_by : Tensor, shape (3,), in training, optional
            See :func:`polarmask.model.loss.polar_losses`.

        Returns
        -------
        dict of str to Tensor, or list of dict
            Losses, see :func:`polarmask.model.loss.polar_losses`; or detections, see :class:`PostProcess`.

        Raises
        ------
        TypeError
            If an image is not a floating-point tensor.
        ValueError
            If an image is not of shape (3, H, W), or targets are missing or do not fit. Labels are checked on the CPU
            only, since on a GPU the host would have to wait for them.
        """
        for image in images:
            if not image.is_floating_point():
                raise TypeError(f"PolarMask: expected images of a floating-point dtype, got {image.dtype}")
            if image.dim() != 3 or image.shape[0] != 3:
                raise ValueError(f"PolarMask: expected images of shape (3, H, W), got {tuple(image.shape)}")
        if self.training and not isinstance(targets, PolarTargets):
            targets = self.check(images, targets)
        batch = self.batch(images)
        if not self.training:  # faster on a CPU for the convolutions of few images, but not for training
            batch = batch.contiguous(memory_format=torch.channels_last)
        output = self.head(list(self.backbone(batch).values()))
        if not self.training:
            points = self.head.points(output.level_shapes, output.logits.device)
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
            return self.postprocess(output, points, sizes, self.cuts)
        assert targets is not None
        if not isinstance(targets, PolarTargets):
            targets = self.encode(output.level_shapes, targets)
        return polar_losses(
            output,
            targets,
            mask_loss=self.mask_loss,
            mask_weight=self.mask_weight,
            box_offset=self.box_offset,
            divide_by=divide_by,
        )

    def check(self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]] | None) -> Sequence[dict[str, Any]]:
        """The targets, with ``ignore`` where they had none."""
        if targets is None or len(targets) != len(images):
            got = "none" if targets is None else len(targets)
            raise ValueError(f"PolarMask: expected targets for {len(images)} images in training, got {got}")
        for target in targets:
            if missing := {"boxes", "labels", "outlines"} - set(target):
                raise ValueError(f"PolarMask: expected targets with {', '.join(sorted(missing))}, got {list(target)}")
            labels = target["labels"]
            if labels.is_cpu and ((labels < 0) | (labels >= self.head.num_classes)).any():
                raise ValueError(
                    f"PolarMask: expected labels from 0 to {self.head.num_classes - 1}, got {labels.tolist()}"
                )
        return [{"ignore": torch.zeros_like(target["labels"], dtype=torch.bool), **target} for target in targets]

    def padded_size(self, images: Sequence[Tensor]) -> tuple[int, int]:
        """Height and width of the batch."""
        height, width = (max(image.shape[k] for image in images) for k in (1, 2))
        return -(-height // self.pad_multiple) * self.pad_multiple, -(-width // self.pad_multiple) * self.pad_multiple

    def level_shapes(self, images: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Height and width of the feature maps of a batch, where the backbone pads as convolutions do."""
        height, width = self.padded_size(images)
        return [(-(-height // stride), -(-width // stride)) for stride in self.head.strides]

    def batch(self, images: Sequence[Tensor]) -> Tensor:
        """Normalised images, zeros around them: (B, 3, H, W)."""
        height, width = self.padded_size(images)
        batch = torch.stack(
            [
                F.pad(
                    (image - self.image_mean) / self.image_std, (0, width - image.shape[2], 0, height - image.shape[1])
                )
                for image in images
            ]
        )
        return batch.flip(1) if self.bgr else batch

    def encode(self, level_shapes: Sequence[tuple[int, int]], targets: Sequence[dict[str, Any]]) -> PolarTargets:
        """The training targets of all points of a batch."""
        encoded = encode_targets(
            level_shapes,
            self.head.strides,
            targets,
            num_rays=self.head.num_rays,
            regress_ranges=self.head.ranges,
            center_radius=self.center_radius,
        )
        if self.centerness == "fcos":
            encoded = encoded._replace(centerness=box_centerness(encoded.boxes))
        return encoded
