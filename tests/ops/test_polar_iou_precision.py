"""The loss and its derivatives near IoU 1, for rays of any length, on any number of threads, and on kernels."""

import math

import numpy as np
import pytest
import torch
from op_tester import KERNELS, by_cpu_and_kernels
from polar_iou_tester import OPTIONS, lengths

from polarmask_ops import polar_iou_loss


def torch_loss(pred, target, power, log_pred):
    """Compute the loss in float64, which neither overflows nor underflows here."""
    pred, target = (pred.double().exp() if log_pred else pred.double()), target.double()
    larger, smaller = (extreme(pred, target).pow(power).sum(1) for extreme in (torch.maximum, torch.minimum))
    return torch.log1p((larger - smaller) / smaller.clamp(min=1e-12))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("value", [1e-30, 1e10, 1e19, 3e38])
@pytest.mark.parametrize("log_pred", [False, True])
def test_rays_of_any_length_have_finite_losses_and_gradients(log_pred, value, power, device):
    torch.manual_seed(4)
    pred, target = lengths(6, torch.float32, device), lengths(6, torch.float32, device)
    pred[1, 3], pred[2], target[3, 5], target[4] = value, value * torch.rand(36, device=device), value, value
    pred = pred.log().requires_grad_() if log_pred else pred.requires_grad_()
    target.requires_grad_()
    rows = polar_iou_loss(pred, target, power=power, log_pred=log_pred, reduction="none")
    want = torch_loss(pred, target, power, log_pred)
    torch.testing.assert_close(rows.double(), want, rtol=4e-6, atol=0)
    got = torch.autograd.grad(rows.sum(), (pred, target))
    for left, right in zip(got, torch.autograd.grad(want.sum(), (pred, target)), strict=True):
        assert left.isfinite().all()
        scale = right.abs().amax(1, keepdim=True).clamp(min=1e-30)  # differences of sums
        torch.testing.assert_close(left / scale, right / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [1, 2])
def test_logarithms_of_any_size_have_finite_losses_and_gradients(power, dtype, device):
    target = lengths(5, dtype, device)
    pred = target.log()
    pred[0], pred[1, 7], pred[2], pred[3] = 89, 150, 1e30, -1e30
    pred.requires_grad_()
    rows = polar_iou_loss(pred, target, power=power, log_pred=True, reduction="none")
    (grad,) = torch.autograd.grad(rows.sum(), pred)
    assert rows.isfinite().all()
    assert grad.isfinite().all()
    torch.testing.assert_close(grad[0], torch.full_like(grad[0], power / 36))  # every predicted ray is the larger one
    assert rows[1] > 140 * power
    assert grad[1, 7].item() == pytest.approx(power)
    assert rows[2] > rows[1]


def test_polar_iou_loss_near_iou_1_has_full_precision(device):
    target = torch.full((1, 36), 100.0, device=device)
    pred = target.clone()
    pred[0, 0] += 2**-17  # the next float32: 1 − IoU is 2e-9, far below float32's 6e-8
    assert polar_iou_loss(pred, target).item() == pytest.approx(2**-17 / 3600, rel=1e-6)


def near(relative, device, dtype=torch.float32):
    """Rays, and rays that are larger or smaller by this share."""
    target = lengths(50, torch.float64, device)
    sign = torch.where(torch.rand_like(target) < 0.5, -1.0, 1.0)
    return (target * (1 + relative * sign)).to(dtype), target.to(dtype)


# Rounding of a term: of p − t (exact near t), p + t and their product; of Σ min and of the quotient. R terms are summed
# by at least 8 lanes: at most R / 8 + 3 additions. So (R / 8 + 8) half ulps, twice for the reference's own inputs.
NEAR = (36 / 8 + 8) * 2**-24


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("log_pred", [False, True])
@pytest.mark.parametrize("relative", [1e-2, 1e-4, 1e-6])
def test_loss_near_iou_1_keeps_its_precision(power, log_pred, relative, device):
    """Beside the same loss of the same float32 lengths in float64. Logarithms are compared through their exponentials,
    which the op takes in float32: 2 ulp of a length are 2.4e-7 / relative of a difference."""
    pred, target = near(relative, device)
    given = pred.log() if log_pred else pred
    exact = given.double().exp() if log_pred else pred.double()
    smaller = torch.minimum(exact, target.double()) ** power
    larger = torch.maximum(exact, target.double()) ** power
    want = torch.log1p((larger - smaller).sum(1) / smaller.sum(1))
    got = polar_iou_loss(given, target, power=power, log_pred=log_pred, reduction="none")
    bound = NEAR + (2.4e-7 / relative if log_pred else 0)
    np.testing.assert_allclose(got.cpu(), want.cpu(), rtol=bound)


@pytest.mark.parametrize("power", [1, 2])
def test_derivatives_near_iou_1_keep_their_precision(power, device):
    """First and second derivatives in float32 beside those in float64, of lengths that differ by 1e-6."""
    pred, target = near(1e-6, device)
    results = []
    for dtype in (torch.float32, torch.float64):
        p, t = (x.to(dtype).requires_grad_() for x in (pred, target))
        first = torch.autograd.grad(polar_iou_loss(p, t, power=power, reduction="sum"), (p, t), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (p, t))
        results.append([x.detach().double().cpu() for x in (*first, *second)])
    for got, want in zip(*results, strict=True):
        scale = want.abs().amax(1, keepdim=True)
        assert ((got - want).abs() / scale).max() < 4 * NEAR


def test_polar_iou_loss_on_any_number_of_threads_has_the_same_bits():
    pred, target = lengths(20_000, torch.float32, "cpu"), lengths(20_000, torch.float32, "cpu")
    threads = torch.get_num_threads()
    try:
        losses = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            losses.append(polar_iou_loss(pred, target).item())
    finally:
        torch.set_num_threads(threads)
    assert len(set(losses)) == 1


@pytest.mark.smoke
@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize(
    ("dtype", "num_rays"), [(torch.float16, 36), (torch.bfloat16, 37), (torch.float32, 36), (torch.float64, 5)]
)
def test_polar_iou_loss_kernels_on_hostile_rows_agree_with_cpu(dtype, num_rays, options):
    """Values, first and second derivatives of 300 rows, 64 of which hold NaN, infinities and other hostile values."""
    torch.manual_seed(2)
    rows = 300
    pred, target = lengths(rows, torch.float64, "cpu", num_rays), lengths(rows, torch.float64, "cpu", num_rays)
    weight = torch.rand(rows, dtype=torch.float64)
    pred[::5] = target[::5]
    weight[::7] = 0
    values = torch.tensor([math.nan, math.inf, -math.inf, 1e30, 1e-30, -1.0, 0.0, 1.0], dtype=torch.float64)
    for tensor in (pred, target):
        tensor[:64] = values[torch.randint(len(values), (64, num_rays))]
    weight[:64] = values[torch.randint(len(values), (64,))] if options["reduction"] == "none" else 0
    if options["log_pred"]:
        pred = pred.clamp(min=1).log()

    def call(pred, target, weight):
        leaves = [tensor.detach().requires_grad_() for tensor in (pred, target, weight)]
        loss = polar_iou_loss(*leaves, **options)
        along = [torch.linspace(-1, 1, tensor.numel()).view_as(tensor).to(tensor) for tensor in leaves]
        first = torch.autograd.grad(loss.sum(), leaves, create_graph=True)
        second = torch.autograd.grad(first, leaves, along)
        return loss.detach(), [grad.detach() for grad in first], list(second)

    arguments = {"pred": pred.to(dtype), "target": target.to(dtype), "weight": weight.to(dtype)}
    (loss, *grads), (loss_, *grads_) = by_cpu_and_kernels(call, arguments)
    eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    torch.testing.assert_close(loss_, loss, rtol=8 * eps, atol=0, equal_nan=True)
    for order, (want, got) in enumerate(zip(grads, grads_, strict=True), 1):
        for left, right in zip(got, want, strict=True):
            # Gradients are differences of sums: the error is relative to the largest of the row.
            finite = right.double().nan_to_num(0, 0, 0).abs()
            largest = finite.amax(1, keepdim=True) if right.dim() == 2 else finite
            own = torch.finfo(dtype)
            bound = 64**order * eps * (largest + finite.median()) + own.eps * (finite + own.tiny)
            wrong = ((left.double() - right.double()).abs() > bound) | (left.isnan() != right.isnan())
            assert not wrong.any(), (left[wrong], right[wrong])


@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
def test_polar_iou_loss_kernels_on_more_rows_than_the_grid_agree_with_cpu():
    torch.manual_seed(3)
    pred, target = lengths(70_000, torch.float32, "cpu", 3), lengths(70_000, torch.float32, "cpu", 3)
    by_cpu, by_kernels = by_cpu_and_kernels(polar_iou_loss, {"pred": pred, "target": target})
    torch.testing.assert_close(by_kernels, by_cpu, rtol=8 * torch.finfo(torch.float32).eps, atol=0)
