"""Training samples of one worker: polygons through torchvision's transforms, and bitmaps through the same."""

import torch
from cases import SAMPLES, TrainingImage
from race import Race, Runner
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import functional as F

from polarmask.data.polygons import Polygons, SanitizeInstances
from polarmask_ops import Outlines, PolarTargets, encode_targets, outlines_from_masks, outlines_to_masks

MOVES = {"angle": 7.0, "translate": [12, -9], "scale": 0.9, "shear": [3.0, -2.0]}
SIZE = [768, 1280]
STRIDES = [8, 16, 32, 64, 128]
SHAPES = [(-(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in STRIDES]


def move(image_or_shapes):
    """Resized, mirrored, and turned a little: one image, or what is annotated in it."""
    return F.affine(F.horizontal_flip(F.resize(image_or_shapes, SIZE)), **MOVES)


def encode(outlines: Outlines, boxes: Tensor) -> PolarTargets:
    labels = torch.zeros(len(outlines), dtype=torch.int64)
    return encode_targets(SHAPES, STRIDES, [{"outlines": outlines, "labels": labels, "boxes": boxes}])


def polygons(inputs: TrainingImage) -> PolarTargets:
    move(tv_tensors.Image(inputs.image))
    return polygons_alone(inputs)


def polygons_alone(inputs: TrainingImage) -> PolarTargets:
    moved = move(Polygons(inputs.outlines, canvas_size=inputs.image.shape[1:]))
    outlines = SanitizeInstances()({"polygons": moved})["polygons"].outlines
    return encode(outlines, outlines.boxes())


def bitmaps(inputs: TrainingImage) -> PolarTargets:
    move(tv_tensors.Image(inputs.image))
    return bitmaps_alone(inputs)


def bitmaps_alone(inputs: TrainingImage) -> PolarTargets:
    """As loaders have it that draw each annotation first."""
    size = (inputs.image.shape[1], inputs.image.shape[2])
    masks = move(tv_tensors.Mask(outlines_to_masks(inputs.outlines, size))).as_subclass(Tensor)
    masks = masks[masks.flatten(1).any(1)]
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += 1
    return encode(outlines_from_masks(masks, boxes=boxes), boxes)


def agree(inputs: TrainingImage, ours: PolarTargets, theirs: PolarTargets) -> None:
    """Bitmaps move in steps of pixels, so points at a limit may change, and rays differ by about a pixel."""
    both = (ours.instance >= 0) & (theirs.instance >= 0)
    either = (ours.instance >= 0) | (theirs.instance >= 0)
    assert both.sum() >= 0.8 * either.sum()
    error = (ours.rays - theirs.rays)[both].abs().median()
    assert error < 2, f"rays differ by {error} pixels"


def beside(bitmaps):
    """A hundred bitmaps take a quarter of a minute."""
    return (Runner("bitmaps, torchvision v2", bitmaps, agree, sizes=(0, 20)),)


RACES = (
    Race("a training sample", SAMPLES, polygons, beside(bitmaps), unit="instance"),
    Race("its instances alone", SAMPLES, polygons_alone, beside(bitmaps_alone), unit="instance"),
)


def bench_data(timed, entry):
    timed(entry)
