"""Rays, options and tolerances that the tests of Polar IoU share."""

import itertools

import torch
from op_tester import Bad, OpTester

# In float32, R products and sums are rounded once each. Half precision is summed in float32 too.
TOLERANCE = {torch.float64: {"rtol": 1e-13, "atol": 1e-15}}
FLOAT32 = {"rtol": 4e-6, "atol": 1e-6}


def lengths(rows, dtype, device, num_rays=36):
    return (0.5 + torch.rand(rows, num_rays, dtype=torch.float64) * 60).to(device, dtype)


def rays_like(dtype, device):
    """Return pairs of rows: equal ones, one or both empty, tiny, huge."""
    pred, target = lengths(40, dtype, device), lengths(40, dtype, device)
    pred[0] = target[0]
    pred[1] = 0
    pred[2] = target[2] = 0
    pred[3:5] *= 1e-3
    target[5] *= 500
    return pred, target


BAD_RAYS = (
    Bad({"pred": torch.rand(36)}, ValueError, ("pred", "(N, R)", "(36,)")),
    Bad({"target": torch.rand(40, 35)}, ValueError, ("target", "(40, 36)", "(40, 35)")),
    Bad({"pred": torch.ones(40, 36, dtype=torch.int64)}, TypeError, ("pred", "floating-point", "int64")),
    Bad({"target": [1.0]}, TypeError, ("target", "tensor", "list")),
    Bad({"power": 3}, ValueError, ("power", "1 or 2", "3")),
)


class PolarTester(OpTester):
    def tolerance(self, dtype):
        return TOLERANCE.get(dtype, FLOAT32)

    def tolerance_of_kernels(self, dtype):
        """Eight ulp: four lanes of a warp share the sum over the rays, whose terms are positive."""
        return {"rtol": 8 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps, "atol": 0.0}


OPTIONS = [
    {"power": power, "log_pred": log_pred, **reduction}
    for power, log_pred, reduction in itertools.product(
        (1, 2),
        (False, True),
        ({"reduction": "none"}, {"reduction": "sum"}, {"reduction": "mean"}, {"reduction": "mean", "avg_factor": 3.0}),
    )
]


def as_map(rays, memory_format=torch.contiguous_format):
    """Return rays (B, N, R) in the layout of a head's output, (B, R, H, W)."""
    return rays.transpose(1, 2).unflatten(2, (3, -1)).contiguous(memory_format=memory_format)
