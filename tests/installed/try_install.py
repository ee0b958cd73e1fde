"""Tried against an installed package, outside the checkout: import, an op of each kind, gradcheck."""

from pathlib import Path

import torch

import polarmask_ops


def main() -> None:
    assert "site-packages" in str(Path(polarmask_ops.__file__)), polarmask_ops.__file__
    centers, rays = torch.tensor([[20.0, 20.0], [21.0, 20.0]]), torch.full((2, 36), 10.0)
    assert polarmask_ops.rays_nms(centers, rays, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0]
    assert polarmask_ops.rays_to_rle(centers, rays, (40, 40)).areas().tolist() == [316, 316]
    pred = torch.rand(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: polarmask_ops.polar_iou_loss(p, torch.ones_like(p)), pred)
    print(f"the package in {Path(polarmask_ops.__file__).parent} works")


if __name__ == "__main__":
    main()
