"""Polar IoU and polar centerness."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_tester import Bad
from polar_iou_tester import BAD_RAYS, PolarTester, lengths, rays_like
from reference import polar_iou as reference

from polarmask_ops import polar_centerness, polar_iou, polar_iou_loss


class TestPolarIoU(PolarTester):
    function = polar_iou
    reference = reference.polar_iou
    differentiable = ("pred", "target")
    bad_inputs = BAD_RAYS

    def sample(self, dtype, device):
        pred, target = rays_like(dtype, device)
        return {"pred": pred, "target": target}

    def small(self, device):
        return {"pred": lengths(3, torch.float64, device, 5), "target": lengths(3, torch.float64, device, 5)}

    def more_samples(self, dtype, device):
        pred, target = rays_like(dtype, device)
        hostile = target.clone()
        hostile[6, 3], hostile[7, 3], hostile[8, 3], hostile[9] = math.nan, math.inf, -math.inf, -5
        return [
            {"pred": pred, "target": target, "power": 2},
            {"pred": pred, "target": hostile},
            {"pred": pred[:, :1], "target": target[:, :1]},
            {"pred": pred[:, :11], "target": target[:, :11]},
        ]

    def empty(self, dtype, device):
        return [{"pred": lengths(0, dtype, device), "target": lengths(0, dtype, device)}]


class TestPolarCenterness(PolarTester):
    function = polar_centerness
    reference = reference.polar_centerness
    bad_inputs = (
        Bad({"rays": torch.rand(36)}, ValueError, ("rays", "(N, R)", "(36,)")),
        Bad({"rays": torch.rand(3, 0)}, ValueError, ("rays", "at least 1", "(3, 0)")),
        Bad({"rays": torch.ones(3, 36, dtype=torch.int32)}, TypeError, ("rays", "floating-point", "int32")),
    )

    def sample(self, dtype, device):
        rays = rays_like(dtype, device)[0]
        rays[6, 3], rays[7, 3], rays[8, 3], rays[9] = math.nan, math.inf, -math.inf, -5
        return {"rays": rays}

    def empty(self, dtype, device):
        return [{"rays": lengths(0, dtype, device)}]


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_polar_iou_of_rows_not_finite_has_no_gradient(value, power, device):
    pred, target = lengths(3, torch.float32, device), lengths(3, torch.float32, device)
    pred[1, 4] = value
    pred.requires_grad_()
    polar_iou(pred, target, power=power).sum().backward()
    assert (pred.grad[1] == 0).all()
    assert (pred.grad[[0, 2]] != 0).all()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_polar_iou_of_negative_lengths_has_the_gradient_of_zero(dtype, power, device):
    torch.manual_seed(3)
    given = [lengths(20, dtype, device) - 10 for _ in range(2)]
    assert all((rays < 0).any() for rays in given)
    leaves = [rays.clone().requires_grad_() for rays in given]
    got = torch.autograd.grad(polar_iou(*leaves, power=power).sum(), leaves)
    want = torch.autograd.grad(polar_iou(*(rays.clamp(min=0) for rays in leaves), power=power).sum(), leaves)
    for mine, wanted, rays in zip(got, want, given, strict=True):
        assert (mine[rays < 0] == 0).all()
        torch.testing.assert_close(mine, wanted)


def test_opcheck_of_maps(device):
    head = torch.rand(2, 36, 2, 3, device=device, requires_grad=True)
    rays, target, weight = head.flatten(2).transpose(1, 2), torch.rand(2, 6, 36, device=device), torch.rand(2, 6)
    for with_gradient in (False, True):
        arguments = (rays, target, weight.to(device), None, 1, True, True, 1, with_gradient)
        torch.library.opcheck(torch.ops.polarmask.polar_iou, arguments)


@given(st.integers(3, 72), st.integers(0, 71), st.integers(0, 2**31))
def test_polar_iou_invariants_hold(device, num_rays, turn, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(4, num_rays, dtype=torch.float64, generator=generator).to(device) for _ in range(2))
    iou = polar_iou(a, b)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert (polar_iou(a, a) == 1).all()
    assert torch.equal(iou, polar_iou(b, a))
    torch.testing.assert_close(polar_iou(a.roll(turn, 1), b.roll(turn, 1)), iou, rtol=1e-14, atol=0)
    torch.testing.assert_close(polar_iou(a * 8, b * 8), iou, rtol=0, atol=0)
    torch.testing.assert_close(polar_iou_loss(a, b, reduction="none"), -iou.log(), rtol=1e-12, atol=1e-14)


@given(
    st.lists(
        st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 1e-30, 0.0, -0.0, 1.0, -1.0]),
        min_size=6,
        max_size=6,
    ),
    st.sampled_from([1, 2]),
)
def test_polar_iou_of_hostile_values_stays_in_0_to_1(device, values, power):
    pred, target = torch.tensor(values, device=device).view(2, 1, 3)
    iou = polar_iou(pred, target, power=power)
    assert ((iou >= 0) & (iou <= 1)).all()
    centerness = polar_centerness(pred)
    assert ((centerness >= 0) & (centerness <= 1)).all()
    polar_iou_loss(pred.requires_grad_(), target, power=power).backward()
    polar_iou_loss(pred, target, log_pred=True, power=power)


def test_opcheck_of_the_backward_ops(device):
    pred, target = lengths(4, torch.float32, device).requires_grad_(), lengths(4, torch.float32, device)
    weight = torch.rand(4, device=device)
    value, sums, divisor = (
        out.detach() for out in torch.ops.polarmask.polar_iou(pred, target, weight, None, 1, False, True, 1, False)[:3]
    )
    options = (1, False, True)
    torch.library.opcheck(
        torch.ops.polarmask.polar_iou_backward,
        (
            torch.ones((), device=device),
            pred,
            target,
            weight,
            value,
            sums,
            divisor,
            True,
            *options,
            1,
            True,
            False,
            True,
        ),
    )
    torch.library.opcheck(
        torch.ops.polarmask.polar_iou_double_backward,
        (target, None, weight, weight, pred.detach(), target, sums, *options),
    )


def test_polar_iou_under_vmap_equals_loop(device):
    pred, target = lengths(12, torch.float32, device).view(3, 4, 36), lengths(4, torch.float32, device)
    got = torch.vmap(polar_iou, in_dims=(0, None))(pred, target)
    torch.testing.assert_close(got, torch.stack([polar_iou(p, target) for p in pred]))
    torch.testing.assert_close(torch.vmap(polar_centerness)(pred), polar_centerness(pred.flatten(0, 1)).view(3, 4))
