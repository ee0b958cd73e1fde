"""Random shapes for the tests."""

import math

import torch
from torch import Tensor

from polarmask_ops import _C


def random_stars(generator: torch.Generator, count: int, num_rays: int, extent: float) -> tuple[Tensor, Tensor]:
    """Return centres in a square of this extent, and rays of 5 to 30 pixels with lobes and noise, float32."""
    centers = torch.rand(count, 2, generator=generator) * extent
    radius = 5 + 15 * torch.rand(count, 1, generator=generator)
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    angle = torch.arange(num_rays) * (2 * math.pi / num_rays)
    lobes = 1 + 0.3 * torch.sin(3 * angle + phase) + 0.2 * torch.rand(count, num_rays, generator=generator)
    return centers, radius * lobes


def decode(centers: Tensor, rays: Tensor) -> Tensor:
    """Return the vertices in double, computed with the directions of the kernels."""
    num_rays = rays.shape[1]
    directions = torch.tensor([_C.ray_direction(k, num_rays) for k in range(num_rays)], dtype=torch.float64)
    return centers.double()[:, None] + rays.double()[..., None] * directions.to(rays.device)
