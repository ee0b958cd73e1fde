"""Random changes of training samples, all drawn from one generator that the caller keys."""

import math
from dataclasses import replace

import numpy as np
import torch

from ..config import DataConfig
from .sample import Sample, drop_small, fit, hflip, normalize, resize, warp

GAMMA = 0.3  # exponents between e^-0.3 and e^0.3
GAIN = 0.2
NOISE = 0.05  # largest standard deviation


def augment(sample: Sample, config: DataConfig, rng: np.random.Generator) -> Sample:
    """A random variant of a sample: the same for the same state of ``rng``."""
    if config.percentiles is not None:
        sample = replace(sample, image=normalize(sample.image, config.percentiles))
    if config.resize is not None:
        sample = resize(sample, fit(sample.size, config.resize, config.keep_aspect))
    if config.crop is not None:
        sample = random_crop(sample, config.crop, config.scale, config.rotate, rng)
    if rng.random() < config.flip:
        sample = hflip(sample)
    if config.photometric:
        sample = random_light(sample, rng)
    return drop_small(sample, config.min_area, config.min_side)


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
    noise = rng.standard_normal(sample.image.shape[1:], dtype=np.float32) * np.float32(rng.uniform(0, NOISE))
    image = gain * sample.image.clamp(min=0) ** gamma + torch.from_numpy(noise)
    return replace(sample, image=image)
