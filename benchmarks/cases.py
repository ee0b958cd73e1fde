"""Named workloads, each with its reason; all are seeded.

The sizes of objects in "COCO" scenes follow its statistics: 41 % below 32², 34 % between, 24 % above 96² pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from race import Case
from torch import Tensor

from polarmask_ops import Outlines, outlines_from_polygons, rays_to_labels, rays_to_masks

LOADER_SIZE = (768, 1280)  # the released configuration's training images
TEST_SIZE = (800, 1280)
STRIDES = (8, 16, 32, 64, 128)


class Scene(NamedTuple):
    """Ground truth of an image."""

    masks: Tensor  # (M, H, W) bool
    boxes: Tensor  # (M, 4) float32, inclusive corners as the released loader has them
    labels: Tensor  # (M,) int64
    level_shapes: list[tuple[int, int]]


class Rays(NamedTuple):
    """Decoded detections of an image."""

    centers: Tensor  # (N, 2) float32, pixels
    rays: Tensor  # (N, R) float32, pixels
    size: tuple[int, int]


class Pairs(NamedTuple):
    """Rows of a loss."""

    pred: Tensor  # (N, R) float32, requires grad
    target: Tensor  # (N, R) float32
    weight: Tensor  # (N,) float32


class Candidates(NamedTuple):
    """What comes before NMS."""

    centers: Tensor  # (N, 2) float32, pixels
    rays: Tensor  # (N, R) float32, pixels
    scores: Tensor  # (N,) float32, falling: StarDist wants them sorted
    polygons: Tensor  # (N, R, 2) float32


class TrainingImage(NamedTuple):
    """An image and its annotations, as a loader reads them."""

    image: Tensor  # (3, H, W) uint8
    outlines: Outlines  # of polygons


class Head(NamedTuple):
    """The output of a detector's head for an image."""

    logits: Tensor  # (1, L, 80) float32
    centerness: Tensor  # (1, L) float32
    lengths: list[int]  # of the levels


class Origins(NamedTuple):
    """Points that look at one polygon."""

    origins: Tensor  # (P, 2) float32
    outlines: Outlines
    instance: Tensor  # (P,) int64


def stars(generator: torch.Generator, radius: Tensor, num_rays: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Lobed shapes of these radii with their centres anywhere in the image."""
    count = len(radius)
    centers = torch.rand(count, 2, generator=generator) * torch.tensor([size[1], size[0]])
    angle = torch.arange(num_rays) * (2 * math.pi / num_rays)
    phase = 2 * math.pi * torch.rand(count, 2, 1, generator=generator)
    lobes = 1 + 0.25 * torch.sin(2 * angle + phase[:, 0]) + 0.15 * torch.sin(5 * angle + phase[:, 1])
    return centers, radius[:, None] * lobes


def coco_radii(generator: torch.Generator, count: int) -> Tensor:
    low, high = torch.tensor([4.0, 16, 48]), torch.tensor([16.0, 48, 200])
    kind = torch.multinomial(torch.tensor([0.41, 0.34, 0.24]), count, replacement=True, generator=generator)
    return low[kind] * (high / low)[kind] ** torch.rand(count, generator=generator)


def scene(count: int, radii, size: tuple[int, int]) -> Scene:
    generator = torch.Generator().manual_seed(count)
    masks = torch.zeros(0, *size, dtype=torch.bool)
    while len(masks) < count:  # those that lie outside are no instances
        centers, rays = stars(generator, radii(generator, count), 90, size)
        drawn = rays_to_masks(centers, rays, size)
        masks = torch.cat([masks, drawn[drawn.flatten(1).sum(1) >= 16]])[:count]
    rows, columns = masks.any(2).int(), masks.any(1).int()
    ends = (columns.argmax(1), rows.argmax(1), columns.cumsum(1).argmax(1), rows.cumsum(1).argmax(1))
    labels = torch.randint(80, (count,), generator=generator)
    level_shapes = [(math.ceil(size[0] / stride), math.ceil(size[1] / stride)) for stride in STRIDES]
    return Scene(masks, torch.stack(ends, 1).float(), labels, level_shapes)


def coco_scene(count: int) -> Scene:
    return scene(count, coco_radii, LOADER_SIZE)


def crowd_scene(count: int) -> Scene:
    return scene(count, lambda generator, count: 10 + 30 * torch.rand(count, generator=generator), LOADER_SIZE)


def head_rows(width: int) -> Head:
    """A point's classes are neighbours, as after permutation; few are likely, as in a trained detector."""
    generator = torch.Generator().manual_seed(width)
    lengths = [math.ceil(width * 5 / 8 / stride) * math.ceil(width / stride) for stride in STRIDES]
    logits = 1.5 * torch.randn(1, sum(lengths), 80, generator=generator) - 6
    return Head(logits, torch.randn(1, sum(lengths), generator=generator), lengths)


def head_maps(width: int) -> Head:
    """A class's points are neighbours, as convolutions leave them."""
    logits, centerness, lengths = head_rows(width)
    return Head(logits.transpose(1, 2).contiguous().transpose(1, 2), centerness, lengths)


def one_polygon(count: int) -> Origins:
    generator = torch.Generator().manual_seed(count)
    centers, rays = stars(generator, torch.tensor([60.0]), 31, (1, 1))
    angle = torch.arange(31) * (2 * math.pi / 31)
    polygon = centers[:, None] + rays[..., None] * torch.stack([angle.cos(), angle.sin()], 1)
    origins = centers + 40 * (torch.rand(count, 2, generator=generator) - 0.5)
    return Origins(origins, outlines_from_polygons([[polygon[0]]]), torch.zeros(count, dtype=torch.int64))


def training_image(count: int) -> TrainingImage:
    """COCO's size, 480 × 640, and polygons of 36 vertices, most of them in the image."""
    generator = torch.Generator().manual_seed(count)
    image = torch.randint(256, (3, 480, 640), dtype=torch.uint8, generator=generator)
    centers, rays = stars(generator, coco_radii(generator, count), 36, (480, 640))
    angle = torch.arange(36) * (2 * math.pi / 36)
    polygons = centers[:, None] + rays[..., None] * torch.stack([angle.cos(), angle.sin()], 1)
    return TrainingImage(image, outlines_from_polygons([[polygon] for polygon in polygons]).clip((480, 640)))


def nuclei_labels(width: int) -> np.ndarray:
    """A label image of nuclei, half of it covered."""
    generator = torch.Generator().manual_seed(width)
    count = width * width // 500
    centers, rays = stars(generator, 8 + 8 * torch.rand(count, generator=generator), 64, (width, width))
    return rays_to_labels(centers, rays, (width, width)).numpy().astype(np.uint16)


def pairs(rows: int, num_rays: int = 36) -> Pairs:
    generator = torch.Generator().manual_seed(rows)
    target = 5 + 100 * torch.rand(rows, num_rays, generator=generator)
    pred = target * (0.5 + torch.rand(rows, num_rays, generator=generator))
    return Pairs(pred.requires_grad_(), target, torch.rand(rows, generator=generator))


def pairs_72(rows: int) -> Pairs:
    return pairs(rows, 72)


def detections(count: int) -> Rays:
    generator = torch.Generator().manual_seed(count)
    return Rays(*stars(generator, coco_radii(generator, count), 36, TEST_SIZE), TEST_SIZE)


def nuclei(count: int) -> Rays:
    """One for every 500 pixels of a square image."""
    generator = torch.Generator().manual_seed(count)
    size = (math.ceil(math.sqrt(500 * count)),) * 2
    return Rays(*stars(generator, 8 + 8 * torch.rand(count, generator=generator), 32, size), size)


def candidates(count: int) -> Candidates:
    """Ten jittered guesses an object, and an object for every 2,000 pixels: the density stays when the number grows."""
    generator = torch.Generator().manual_seed(count)
    objects = max(count // 10, 1)
    extent = math.ceil(math.sqrt(2000 * objects))
    radius = 8 + 12 * torch.rand(objects, generator=generator)
    centers, rays = stars(generator, radius, 36, (extent, extent))
    of = torch.arange(count) % objects
    centers = centers[of] + 3 * torch.randn(count, 2, generator=generator)
    rays = rays[of] * (0.85 + 0.3 * torch.rand(count, 36, generator=generator))
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    angle = torch.arange(36) * (2 * math.pi / 36)
    polygons = centers[:, None] + rays[..., None] * torch.stack([angle.cos(), angle.sin()], 1)
    return Candidates(centers, rays, scores, polygons)


def overlapping(count: int) -> Candidates:
    """Candidates of which nearly all lie beside another one of the same object."""
    found = candidates(count)
    order = (torch.arange(count) % max(count // 10, 1)).argsort(stable=True)
    return Candidates(*(tensor[order] for tensor in found))


def wide(make: Callable[[int], Rays], scale: int, shapes: int) -> Callable[[int], Rays]:
    """The image `scale` times as wide and high, its shapes `shapes` times."""

    def scaled(count: int) -> Rays:
        centers, rays, size = make(count)
        return Rays(centers * scale, rays * shapes, (size[0] * scale, size[1] * scale))

    return scaled


def elements(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, generator=generator), torch.rand(count, generator=generator)


def matrices(rows: int) -> tuple[Tensor, Tensor]:
    first, second = elements(rows * rows)
    return first.view(rows, rows), second.view(rows, rows)


def feature_map(rows: int) -> tuple[Tensor, Tensor]:
    """A level of the pyramid, and a layer of the head."""
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(1, 256, rows, 80, generator=generator), torch.randn(256, 256, 3, 3, generator=generator)


def photograph(width: int) -> Tensor:
    """(3, 5/8 width, width) in 0 to 1: smooth, as photographs are."""
    generator = torch.Generator().manual_seed(width)
    coarse = torch.rand(1, 3, 25, 40, generator=generator)
    return F.interpolate(coarse, (width * 5 // 8, width), mode="bicubic").clamp(0, 1)[0]


COPY = (Case("256 MiB", "how fast this machine moves bytes: no cache holds it", elements, 2**26, 2**10),)
MULTIPLY = (Case("1536²", "how fast this machine computes: a product of float32 matrices", matrices, 1536, 64),)
CONVOLUTION = (Case("13 × 80, 256 channels", "whether this machine has bfloat16", feature_map, 13, 2),)
PREDICT = (Case("800×1280", "an image of COCO as the papers' tables are made, one at a time", photograph, 1280, 128),)

ENCODE = (
    Case("coco 8", "an ordinary COCO image in the released loader's size", coco_scene, 8, 2),
    Case("coco 30", "a full COCO image", coco_scene, 30, 2),
    Case("coco 100", "as full as COCO's images get", coco_scene, 100, 2),
    Case("crowd 300", "a crowd of small objects: growth with the positives", crowd_scene, 300, 3),
)
SAMPLES = (
    Case("coco 7", "an average COCO image", training_image, 7, 3),
    Case("coco 20", "a full one", training_image, 20, 3),
    Case("coco 100", "as full as they get", training_image, 100, 3),
)
CAST = (Case("polygon of 31", "an ordinary COCO polygon, and the points of many images", one_polygon, 20_000, 50),)
STAR = (Case("nuclei 1024²", "what StarDist's training computes for every image", nuclei_labels, 1024, 64),)
LOSS = (
    Case("1 k rows", "the positives of one image: overhead alone", pairs, 1_000, 20),
    Case("2 k rows", "the positives of a batch on one device", pairs, 2_000, 20),
    Case("20 k rows", "crowded batches", pairs, 20_000, 20),
    Case("20 k rows of 72", "the finer rays of the paper's ablation", pairs_72, 20_000, 20),
    Case("1 M rows", "StarDist's, where every pixel has rays: memory bandwidth", pairs, 1_000_000, 20),
)
HEAD = (
    Case("rows, 800×1280", "five levels and 80 classes, as this model's head hands them on", head_rows, 1280, 128),
    Case("maps, 800×1280", "the same as convolutions leave them", head_maps, 1280, 128),
)
RLE = (
    Case("coco 10", "what an ordinary image leaves", detections, 10, 5),
    Case("coco 100", "all detections that COCO's evaluation takes", detections, 100, 5),
    Case("coco 1000", "growth with the number", detections, 1_000, 5),
    Case("coco 100, all 4 times as wide", "growth with the width", wide(detections, 4, 4), 100, 5),
    Case("coco 100, image 4 times as wide", "no growth with the image", wide(detections, 4, 1), 100, 5),
)
MASKS = RLE[1:2]
LABELS = (Case("nuclei 2 k", "a label image of 1000², as StarDist gives it", nuclei, 2_000, 20),)
OVERLAPS = (Case("5 k pairs", "neighbouring guesses of one object in a crowd", overlapping, 5_000, 50),)
NMS = tuple(
    Case(name, reason, candidates, size, 50)
    for name, reason, size in (
        ("1 k", "what a detector lets through to NMS", 1_000),
        ("5 k", "a low score threshold", 5_000),
        ("20 k", "a microscopy image of 2000²", 20_000),
        ("100 k", "a large one", 100_000),
        ("500 k", "a slide: growth must be near-linear", 500_000),
    )
)
