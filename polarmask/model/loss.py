"""The losses of the detector, from the head's output and the encoded targets."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from polarmask_ops import PolarTargets, polar_iou_loss

from .head import HeadOutput


def normalizers(targets: PolarTargets) -> Tensor:
    """What the losses are divided by: positives, images and the sum of the positives' centerness; (3,) float32.

    They add up over batches, and so over processes and over the steps that gradients are accumulated in.
    """
    positive = targets.labels >= 0
    return torch.stack(
        [
            positive.sum().float(),
            targets.centerness.new_full((), len(positive)),  # new_tensor() would wait for a GPU
            torch.where(positive, targets.centerness, 0.0).sum(),
        ]
    )


def polar_losses(
    output: HeadOutput,
    targets: PolarTargets,
    *,
    mask_loss: Literal["polar_iou", "smooth_l1"] = "polar_iou",
    mask_weight: float = 1.0,
    box_offset: float = 0.0,
    divide_by: Tensor | None = None,
) -> dict[str, Tensor]:
    """Losses ``class``, ``centerness``, ``mask`` and, with a box branch, ``box``; 0-d and float32.

    Parameters
    ----------
    output : HeadOutput
        For B images with L points.
    targets : PolarTargets
        For the same points.
    mask_loss : {"polar_iou", "smooth_l1"}
        −log Polar IoU, or the mean smooth L1 of a point's rays in pixels.
    mask_weight : float
        The mask loss is multiplied by it.
    box_offset : float
        Added to the widths and heights of boxes in their IoU; 1 is what the released weights were trained with.
    divide_by : Tensor, shape (3,), optional
        :func:`normalizers`, by default of these targets.

    Notes
    -----
    Points are weighted and never selected, so that the number of positives need not be read from the device.

    Focal loss is divided by positives + images, box and mask losses by the sum of the centerness, their weight; without
    a positive these are 0 with a zero gradient.
    """
    positive = targets.labels >= 0
    count, images, total_weight = (normalizers(targets) if divide_by is None else divide_by).unbind()
    classes = torch.arange(output.logits.shape[-1], device=positive.device)
    one_hot = (targets.labels[..., None] == classes).to(output.logits)
    focal = sigmoid_focal_loss(output.logits, one_hot, alpha=0.25, gamma=2.0)
    counted = (targets.labels != -2)[..., None]  # neither object nor background inside a crowd
    weight = torch.where(positive, targets.centerness, 0.0)
    entropy = F.binary_cross_entropy_with_logits(output.centerness, targets.centerness, reduction="none")
    losses = {
        "class": (focal * counted).sum() / (count + images),
        "centerness": (entropy * positive).sum() / or_one(count),
    }
    if mask_loss == "polar_iou":
        losses["mask"] = mask_weight * polar_iou_loss(
            output.log_rays,
            targets.rays,
            weight,
            log_pred=True,
            avg_factor=total_weight,
        )
    else:
        distance = smooth_l1(output.log_rays, targets.rays, positive)
        losses["mask"] = mask_weight * (distance * weight).sum() / or_one(total_weight)
    if output.log_boxes is not None:
        box = box_iou_loss(output.log_boxes, targets.boxes, positive, box_offset)
        losses["box"] = (box * weight).sum() / or_one(total_weight)
    return losses


def or_one(divisor: Tensor) -> Tensor:
    """The divisor, 1 in place of 0: then what is divided is 0 as well."""
    return torch.where(divisor > 0, divisor, 1.0)


def box_iou_loss(log_boxes: Tensor, targets: Tensor, positive: Tensor, offset: float = 0.0) -> Tensor:
    """−log IoU of boxes around the same point, given by their left, top, right and bottom distances; 0 at the others.

    ``log_boxes``, ``targets``: (..., 4); ``positive``: (...) bool.
    """
    # Background rows are replaced before the arithmetic: 0 · inf in the backward pass would be NaN.
    pred = torch.where(positive[..., None], log_boxes, 0.0).exp()
    target = torch.where(positive[..., None], targets, 1.0)
    overlap = _area(torch.minimum(pred, target), offset)
    union = _area(pred, offset) + _area(target, offset) - overlap
    return torch.where(positive, -(overlap / union).clamp(min=1e-6).log(), 0.0)


def _area(distances: Tensor, offset: float) -> Tensor:
    left, top, right, bottom = distances.unbind(-1)
    return (left + right + offset) * (top + bottom + offset)


def smooth_l1(log_rays: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
    """Smooth L1 of lengths in pixels, the mean of a point's rays; 0 at points that are not ``positive``.

    ``log_rays``, ``targets``: (..., R); ``positive``: (...) bool.
    """
    pred = torch.where(positive[..., None], log_rays, 0.0).exp()
    return torch.where(positive, F.smooth_l1_loss(pred, targets, reduction="none").mean(-1), 0.0)


def box_centerness(distances: Tensor) -> Tensor:
    """FCOS's centerness, sqrt(min(l, r)/max(l, r) · min(t, b)/max(t, b)), of (..., 4) left, top, right, bottom.

    0 where a box has no width or height. Source: Tian et al., FCOS, section 3.4.
    """
    low = torch.minimum(distances[..., :2], distances[..., 2:])
    high = torch.maximum(distances[..., :2], distances[..., 2:])
    return torch.where(high > 0, low / high.clamp(min=1e-12), 0.0).clamp(min=0).prod(-1).sqrt()
