"""Others who find instances in an image: torchvision's detectors.

Their weights are random: what a layer costs does not depend on its values. How many candidates there are does, and so
the score threshold is set such that as many pass as with ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache

import numpy as np
import torch
import torch._inductor.config
from pycocotools import mask as coco
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn, maskrcnn_resnet50_fpn

CANDIDATES = 1000  # that pass the score threshold
NO_WEIGHTS = {"weights": None, "weights_backbone": None}


def mask_rcnn(image: Tensor) -> list[dict[str, object]]:
    """Instances in COCO's result format: masks are pasted into the image, and encoded."""
    with torch.inference_mode():
        return coco_entries(_mask_rcnn(image.shape)([image])[0])


def mask_rcnn_compiled(image: Tensor) -> list[dict[str, object]]:
    with frozen():
        return coco_entries(_mask_rcnn_compiled(image.shape, torch.get_num_threads())([image])[0])


@contextmanager
def frozen() -> Iterator[None]:
    """What is compiled in it has its weights folded and laid out at compile time."""
    with torch.no_grad(), torch._inductor.config.patch(freezing=True):  # inference mode does not freeze
        yield


def compile_frozen(*modules: nn.Module) -> None:
    """Each on its own; their first call must be in :func:`frozen`."""
    torch.compiler.reset()
    for module in modules:
        module.requires_grad_(False).compile(dynamic=False)


def coco_entries(found: dict[str, Tensor]) -> list[dict[str, object]]:
    """What torchvision's Mask R-CNN finds, in COCO's result format."""
    masks = (found["masks"][:, 0] > 0.5).numpy().astype(np.uint8)
    strings = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    rows = zip(strings, found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
    return [
        {
            "category_id": label,
            "score": score,
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
        }
        for mask, (left, top, right, bottom), label, score in rows
    ]


def fcos(image: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return _fcos(image.shape)([image])[0]


@cache
def _mask_rcnn(shape: tuple[int, int, int]) -> nn.Module:
    model = _built(maskrcnn_resnet50_fpn, shape)
    seen = []
    hook = model.roi_heads.box_predictor.register_forward_hook(lambda module, args, result: seen.append(result[0]))
    model.roi_heads.score_thresh = 1.0
    with torch.inference_mode():
        model([torch.rand(shape)])
    hook.remove()
    model.roi_heads.score_thresh = _threshold(seen[0].softmax(1)[:, 1:])
    return model


@cache
def _mask_rcnn_compiled(shape: tuple[int, int, int], threads: int) -> nn.Module:
    """What always sees the same shapes: the heads' number of regions is that of the candidates."""
    model = deepcopy(_mask_rcnn(shape))
    compile_frozen(model.backbone, model.rpn.head, model.roi_heads.box_head, model.roi_heads.mask_head)
    return model


@cache
def _fcos(shape: tuple[int, int, int]) -> nn.Module:
    model = _built(fcos_resnet50_fpn, shape)
    seen = []
    hook = model.head.register_forward_hook(lambda module, args, result: seen.append(result))
    model.score_thresh = 1.0
    with torch.inference_mode():
        model([torch.rand(shape)])
    hook.remove()
    scores = (seen[0]["cls_logits"].sigmoid() * seen[0]["bbox_ctrness"].sigmoid()).sqrt()
    model.score_thresh = _threshold(scores)
    return model


def _built(make: object, shape: tuple[int, int, int]) -> nn.Module:
    """For images as they are, without resizing; channels last, which suits its convolutions."""
    torch.manual_seed(0)
    model = make(**NO_WEIGHTS, min_size=min(shape[1:]), max_size=max(shape[1:])).eval()
    return model.to(memory_format=torch.channels_last)


def _threshold(scores: Tensor) -> float:
    return float(scores.flatten().topk(min(CANDIDATES, scores.numel())).values[-1])
