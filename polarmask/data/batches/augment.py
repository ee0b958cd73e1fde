"""Random changes of training samples, all drawn from one generator that the caller keys."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from polarmask_ops import Outlines, outlines_from_masks, outlines_to_labels, outlines_to_masks

from ...config import DataConfig
from ..sample import Sample, drop_small, each_channel, fit, hflip, normalize, resize, warp, window

GAMMA = 0.3  # exponents between e^-0.3 and e^0.3
GAIN = 0.2
NOISE = 0.05  # largest standard deviation
MOSAIC = 0.5  # smallest scale of an image in a mosaic
PASTED = 0.5  # share of an image's instances


def augment(
    sample: Sample, config: DataConfig, rng: np.random.Generator, another: Callable[[], Sample] | None = None
) -> Sample:
    """A random variant of a sample, which depends on the state of ``rng`` alone.

    ``another`` gives further samples of the data set, for mosaics and for pasting.
    """

    def more(count: int) -> list[Sample]:
        if another is None:
            raise ValueError("augment: expected `another`, for mosaics and pasting take more samples than one")
        return [place(another(), config, rng) for _ in range(count)]

    sample = place(sample, config, rng)
    if config.mosaic and rng.random() < config.mosaic:
        sample = mosaic([sample, *more(3)], rng)
    if config.copy_paste and rng.random() < config.copy_paste:
        sample = copy_paste(sample, more(1)[0], rng)
    if config.photometric:
        sample = random_light(sample, rng)
    return drop_small(sample, config.min_area, config.min_side)


def place(sample: Sample, config: DataConfig, rng: np.random.Generator) -> Sample:
    """What moves one image by itself."""
    if config.percentiles is not None:
        sample = replace(sample, image=normalize(sample.image, config.percentiles))
    if config.resize is not None and config.jitter is not None:
        sample = large_scale_jitter(sample, config.resize, config.jitter, rng)
    elif config.resize is not None:
        width, height = config.resize
        if config.train_heights is not None:
            height = int(rng.integers(*config.train_heights, endpoint=True))
        sample = resize(sample, fit(sample.size, (width, height), config.keep_aspect))
    if config.crop is not None:
        sample = random_crop(sample, config.crop, config.scale, config.rotate, rng)
    return hflip(sample) if rng.random() < config.flip else sample


def large_scale_jitter(
    sample: Sample, frame: tuple[int, int], factors: tuple[float, float], rng: np.random.Generator
) -> Sample:
    """The image at a random size, its aspect kept, seen through a window that always has the size of ``frame``.

    ``frame`` is (width, height); at a factor of 1 the image just fits into it. Smaller ones lie at the upper left, of
    larger ones a random part is seen. (Ghiasi et al. 2021, Simple Copy-Paste.)
    """
    factor = rng.uniform(*factors)
    sample = resize(sample, fit(sample.size, (round(frame[0] * factor), round(frame[1] * factor)), True))
    return _random_window(sample, (frame[1], frame[0]), rng)


def mosaic(samples: list[Sample], rng: np.random.Generator) -> Sample:
    """Four images around a random point, each shrunk a little and seen in part; as large as the first. (YOLOv4.)"""
    height, width = samples[0].size
    y, x = (int(side * rng.uniform(0.3, 0.7)) for side in (height, width))
    image = samples[0].image.new_zeros(3, height, width)
    parts = []
    corners = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)]
    for sample, (top, left, bottom, right) in zip(samples, corners, strict=True):
        size = (bottom - top, right - left)
        shrink = rng.uniform(MOSAIC, 1)
        small = resize(sample, (max(round(sample.size[0] * shrink), 1), max(round(sample.size[1] * shrink), 1)))
        part = _random_window(small, size, rng)
        image[:, top:bottom, left:right] = part.image
        parts.append(replace(part, outlines=part.outlines.translate(left, top)))
    return replace(_joined(parts), image=image, image_id=samples[0].image_id)


def copy_paste(sample: Sample, source: Sample, rng: np.random.Generator) -> Sample:
    """Random instances of another image on top of this one, at their place; what they hide is cut from the others.

    (Ghiasi et al. 2021.) Bitmaps are drawn of the instances that are hidden in part, and of no others; several parts of
    one stay one instance.
    """
    source = drop_small(window(source, 0, 0, sample.size), 1.0)
    pasted = source.select(torch.from_numpy(rng.random(len(source.labels)) < PASTED) & ~source.ignore)
    if not len(pasted.labels):
        return sample
    above = outlines_to_labels(pasted.outlines, sample.size) > 0
    image = torch.where(above, source.image, sample.image)
    boxes, others = sample.outlines.boxes(), pasted.outlines.boxes()
    meets = ((boxes[:, None, :2] < others[:, 2:]) & (boxes[:, None, 2:] > others[:, :2])).all(2).any(1)
    rows = torch.nonzero(meets)[:, 0]
    seen = outlines_to_masks(sample.outlines[rows], sample.size)
    hidden = (seen & above).flatten(1).any(1)
    rows, seen = rows[hidden], seen[hidden] & ~above
    rest = sample.select(~torch.zeros_like(meets).index_fill(0, rows, True))
    cut = replace(sample.select(rows), outlines=outlines_from_masks(seen, boxes=boxes[rows], keep="all"))
    return replace(_joined([rest, cut, pasted]), image=image, image_id=sample.image_id)


def _random_window(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Somewhere in the image, or all of it at the upper left."""
    top, left = (int(rng.integers(max(have - want, 0) + 1)) for have, want in zip(sample.size, size, strict=True))
    return window(sample, top, left, size)


def _joined(samples: list[Sample]) -> Sample:
    """The instances of several samples in one."""
    return replace(
        samples[0],
        outlines=Outlines.cat([sample.outlines for sample in samples]),
        labels=torch.cat([sample.labels for sample in samples]),
        ignore=torch.cat([sample.ignore for sample in samples]),
    )


def random_crop(
    sample: Sample, side: int, scale: tuple[float, float], rotate: bool, rng: np.random.Generator
) -> Sample:
    """A square window of ``side`` pixels at a random place, zoom and angle."""
    zoom = rng.uniform(*scale)
    angle = rng.uniform(0, 2 * math.pi) if rotate else 0.0
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    height, width = sample.size
    # The window may look over the image's border only where the image is too small for it.
    margin_x, margin_y = (min(side / zoom, length) / 2 for length in (width, height))
    x, y = rng.uniform(margin_x, width - margin_x), rng.uniform(margin_y, height - margin_y)
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = side / 2 - turn @ [x, y]
    return warp(sample, matrix, (side, side))


def random_light(sample: Sample, rng: np.random.Generator) -> Sample:
    """Another gamma and gain, and noise."""
    gamma = math.exp(rng.uniform(-GAMMA, GAMMA))
    gain = rng.uniform(1 - GAIN, 1 + GAIN)
    draw = rng.standard_normal(sample.image.shape[1:], dtype=np.float32) * np.float32(rng.uniform(0, NOISE))
    noise = torch.from_numpy(draw)
    image = each_channel(lambda x: gain * x.clamp(min=0) ** gamma + noise, sample.image)
    return replace(sample, image=image)
