"""The fixed-shape ops through inductor and ahead of time, together as a detector uses them."""

import math

import pytest
import torch

import polarmask_ops as ops
from polarmask_ops import Outlines

SHAPES, STRIDES, RANGES = [(8, 8), (4, 4)], [8, 16], [(0, 24), (24, math.inf)]


def square(x: float, y: float, side: float) -> torch.Tensor:
    corners = torch.tensor([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], dtype=torch.float32)
    return torch.cat([corners, corners.roll(-1, 0)], 1)


def ground_truth():
    segments = torch.cat([square(4, 4, 20), square(30, 20, 30)])
    boxes = torch.tensor([[4.0, 4, 24, 24], [30.0, 20, 60, 50]])
    return segments, torch.tensor([0, 4, 8]), boxes, torch.tensor([3, 5]), torch.tensor([0, 1, 2])


class Step(torch.nn.Module):
    """Targets, loss, choice of points and drawing of one batch."""

    def forward(self, log_rays, segments, offsets, boxes, labels, image_offsets):
        outlines = Outlines(segments, offsets)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        targets = ops.encode_ragged_targets(
            SHAPES,
            STRIDES,
            boxes=boxes,
            labels=labels,
            outlines=outlines,
            image_offsets=image_offsets,
            regress_ranges=RANGES,
            centers=centers,
        )
        weight = targets.centerness.flatten()
        loss = ops.polar_iou_loss(log_rays, targets.rays.flatten(0, 1), weight, log_pred=True)
        rays = ops.cast_rays(centers, outlines, torch.arange(2))
        keep = ops.rays_nms(centers, rays, torch.tensor([0.5, 0.75]), 0.5, max_output=4)
        masks = ops.rays_to_masks(centers, rays, (64, 64))
        best = ops.top_scores(log_rays.view(2, 80, 36), targets.centerness, [h * w for h, w in SHAPES], 5)
        return loss, keep, masks, ops.rays_to_labels(centers, rays, (64, 64)), ops.polar_iou(rays, rays), *best


def inputs():
    torch.manual_seed(0)
    return torch.rand(2 * 80, 36), *ground_truth()


def check(got):
    want = Step()(*inputs())
    assert want[0] > 0
    assert want[1].tolist() == [1, 0, -1, -1]
    for left, right in zip(got, want, strict=True):
        torch.testing.assert_close(left, right)


def test_compiled_by_inductor():
    check(torch.compile(Step(), fullgraph=True)(*inputs()))


@pytest.mark.slow
def test_compiled_ahead_of_time(tmp_path):
    exported = torch.export.export(Step(), inputs())
    package = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "step.pt2"))
    check(torch._inductor.aoti_load_package(package)(*inputs()))
