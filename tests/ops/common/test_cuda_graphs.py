"""Ops of fixed shape in a CUDA graph: captured with some values and replayed with others, results equal eager ones."""

import math

import pytest
import torch
from op_tester import EMULATED, KERNELS, leaves

import polarmask_ops as ops

pytestmark = pytest.mark.skipif(EMULATED or not KERNELS, reason="no GPU")


def shapes(seed, count=200, num_rays=36):
    generator = torch.Generator().manual_seed(seed)
    centers = 256 * torch.rand(count, 2, generator=generator)
    rays = 5 + 20 * torch.rand(count, num_rays, generator=generator)
    return centers.cuda(), rays.cuda(), torch.rand(count, generator=generator).cuda()


def scene(seed):
    """Boxes as outlines, always as many segments: what a graph takes must keep its shape."""
    generator = torch.Generator().manual_seed(seed)
    corners = 150 * torch.rand(4, 2, generator=generator)
    sides = 20 + 80 * torch.rand(4, 2, generator=generator)
    boxes = torch.cat([corners, corners + sides], 1)
    x0, y0, x1, y1 = boxes.unbind(1)
    rings = [[torch.stack([x0, y0, x1, y0, x1, y1, x0, y1], 1)[m]] for m in range(4)]
    outlines = ops.outlines_from_polygons(rings)
    return (
        boxes.cuda(),
        torch.randint(5, (4,), generator=generator).cuda(),
        outlines.segments.cuda(),
        outlines.offsets.cuda(),
    )


def loss_and_gradient(log_rays, target, weight):
    loss = ops.polar_iou_loss(log_rays, target, weight, log_pred=True)
    return loss.detach(), *torch.autograd.grad(loss, log_rays)


def loss_inputs(seed):
    _, rays, weight = shapes(seed)
    _, target, _ = shapes(seed + 100)
    return rays.log().requires_grad_(), target, weight


def encoded(boxes, labels, segments, offsets):
    outlines = ops.Outlines(segments, offsets)
    images = torch.arange(2, device="cuda") * len(boxes)
    return ops.encode_ragged_targets(
        [(32, 32), (16, 16)],
        [8, 16],
        boxes=boxes,
        labels=labels,
        outlines=outlines,
        image_offsets=images,
        regress_ranges=[(-1, 64), (64, math.inf)],
    )


def kept(centers, rays, scores):
    keep = ops.rays_nms(centers, rays, scores, 0.5, max_output=50)
    first = keep.clamp(min=0)  # −1 pads
    return keep, ops.rays_to_polygons(centers[first], rays[first]), ops.rays_to_boxes(centers[first], rays[first])


def drawn(centers, rays, scores):
    return ops.rays_to_masks(centers, rays, (64, 64)), ops.rays_to_labels(centers, rays, (64, 64))


def head_outputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1280, 5, generator=generator).cuda(), torch.randn(2, 1280, generator=generator).cuda()


def best(logits, centerness):
    return ops.top_scores(logits, centerness, [1024, 256], 100)


@pytest.mark.parametrize(
    ("function", "make"),
    [(loss_and_gradient, loss_inputs), (encoded, scene), (best, head_outputs), (kept, shapes), (drawn, shapes)],
)
def test_replay_on_other_values(function, make):
    static = make(0)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function(*static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = leaves(function(*static))
    for seed in (1, 2):
        other = make(seed)
        with torch.no_grad():
            for to, value in zip(static, other, strict=True):
                to.copy_(value)
        graph.replay()
        for got, want in zip(captured, leaves(function(*other)), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_nothing_waits_for_the_device():
    """Fixed shapes, no synchronisation: torch raises where an op reads a value from the device."""
    inputs, targets, outputs, candidates = loss_inputs(0), scene(0), head_outputs(0), shapes(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_and_gradient(*inputs)
        encoded(*targets)
        best(*outputs)
        kept(*candidates)
        drawn(*candidates)
    finally:
        torch.cuda.set_sync_debug_mode("default")
