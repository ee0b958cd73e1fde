"""The whole model: from an image to instances in COCO's result format, beside torchvision's detectors on that image.

By torch's FlopCounterMode ours computes 513 GFLOP for 800×1280 pixels, and Mask R-CNN with 100 instances 519: a ratio
above 1 is better use of the machine, not less work.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from cases import PREDICT
from peers import model as peers
from race import Floor, Race, Runner, bfloat16
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from polarmask.config import Config, ModelConfig
from polarmask.inference.detector import Detector
from polarmask.inference.results import coco_results
from polarmask.model import build_model

CATEGORIES = {n: str(n) for n in range(1, 81)}


@cache
def detector(shape: tuple[int, int, int], box_branch: bool = True) -> Detector:
    """With as many candidates before NMS as the others have, and shapes as large as their level's objects."""
    torch.manual_seed(0)
    settings = ModelConfig(weights="torchvision", init_scale=4, pad_multiple=32, box_branch=box_branch)
    model = build_model(settings, len(CATEGORIES)).eval()
    with torch.inference_mode():
        output = model.head(list(model.backbone(model.batch([torch.rand(shape)])).values()))
    scores = output.logits.sigmoid().flatten()
    threshold = float(scores.topk(min(peers.CANDIDATES, len(scores))).values[-1])
    model.postprocess = model.postprocess._replace(score_threshold=threshold)
    return Detector(model, Config(settings), CATEGORIES)


@cache
def compiled(shape: tuple[int, int, int], threads: int) -> Detector:
    """For a number of threads, which inductor writes into the code."""
    ours = deepcopy(detector(shape))
    peers.compile_frozen(ours.model.backbone, ours.model.head)
    return ours


def entries(detector: Detector, image: Tensor) -> list[dict[str, Any]]:
    return coco_results(detector(image), (image.shape[1], image.shape[2]), 1, list(CATEGORIES))


def ours(image: Tensor) -> list[dict[str, Any]]:
    return entries(detector(image.shape), image)


def without_boxes(image: Tensor) -> list[dict[str, Any]]:
    return entries(detector(image.shape, box_branch=False), image)


def ours_compiled(image: Tensor) -> list[dict[str, Any]]:
    with peers.frozen():
        return entries(compiled(image.shape, torch.get_num_threads()), image)


def in_bfloat16(run: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def cast(image: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return run(image)

    return cast


def weights(shape: tuple[int, int, int], box_branch: bool) -> int:
    """In bytes."""
    return sum(parameter.nbytes for parameter in detector(shape, box_branch).model.parameters())


@cache
def operations(shape: tuple[int, int, int], box_branch: bool) -> int:
    """Of the convolutions."""
    model = detector(shape, box_branch).model
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.head(list(model.backbone(model.batch([torch.rand(shape)])).values()))
    return counter.get_total_flops()


def floor(box_branch: bool) -> Floor:
    return Floor(
        lambda image, _: weights(image.shape, box_branch), lambda image, _: operations(image.shape, box_branch)
    )


MASK_RCNN, FCOS = "torchvision Mask R-CNN R50-FPN", "bound: torchvision FCOS R50-FPN, boxes only"

RACES = (
    Race(
        "predict, R50",
        PREDICT,
        ours,
        (Runner(MASK_RCNN, peers.mask_rcnn, aim=1.5), Runner(FCOS, peers.fcos)),
        unit="column",
        floor=floor(box_branch=True),
        patience=60,
    ),
    Race(
        "predict, R50, torch.compile",
        PREDICT,
        ours_compiled,
        (Runner(MASK_RCNN + ", torch.compile", peers.mask_rcnn_compiled, aim=1.5),),
        unit="column",
        floor=floor(box_branch=True),
        patience=45,
    ),
    Race(
        "predict, R50, no box branch",
        PREDICT,
        without_boxes,
        (Runner(MASK_RCNN, peers.mask_rcnn, aim=1.5),),
        unit="column",
        floor=floor(box_branch=False),
        patience=45,
    ),
    Race(
        "predict, R50, bfloat16",
        PREDICT if bfloat16() else (),  # emulated it takes minutes: bench_machine says by how much
        in_bfloat16(ours),
        (Runner(MASK_RCNN + ", float32", peers.mask_rcnn, aim=3), Runner(MASK_RCNN, in_bfloat16(peers.mask_rcnn))),
        unit="column",
        patience=60,
    ),
)


def bench_model(timed, entry):
    timed(entry)
