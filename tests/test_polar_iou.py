import itertools
import math
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_tester import KERNELS, Bad, OpTester, by_cpu_and_kernels
from reference import polar_iou as reference
from torch.fx.experimental.proxy_tensor import make_fx

from polarmask_ops import polar_centerness, polar_iou, polar_iou_loss

GOLDEN = Path(__file__).parent / "golden"
# float32: R products and sums, rounded once each; half precision is read as it is and summed in float32
TOLERANCE = {torch.float64: {"rtol": 1e-13, "atol": 1e-15}}
FLOAT32 = {"rtol": 4e-6, "atol": 1e-6}


def lengths(rows, dtype, device, num_rays=36):
    return (0.5 + torch.rand(rows, num_rays, dtype=torch.float64) * 60).to(device, dtype)


def rays_like(dtype, device):
    """Rows of every kind: equal, one empty, both empty, tiny, huge."""
    pred, target = lengths(40, dtype, device), lengths(40, dtype, device)
    pred[0] = target[0]
    pred[1] = 0
    pred[2] = target[2] = 0
    pred[3:5] *= 1e-3
    target[5] *= 500
    return pred, target


class PolarTester(OpTester):
    def tolerance(self, dtype):
        return TOLERANCE.get(dtype, FLOAT32)

    def tolerance_of_kernels(self, dtype):
        """Eight ulp: four lanes share the sum over the rays; of positive numbers, so that only rounding differs."""
        return {"rtol": 8 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps, "atol": 0.0}


class TestPolarIoU(PolarTester):
    function = polar_iou
    reference = reference.polar_iou
    differentiable = ("pred", "target")
    bad_inputs = (
        Bad({"pred": torch.rand(36)}, ValueError, ("pred", "(N, R)", "(36,)")),
        Bad({"target": torch.rand(40, 35)}, ValueError, ("target", "(40, 36)", "(40, 35)")),
        Bad({"pred": torch.ones(40, 36, dtype=torch.int64)}, TypeError, ("pred", "floating-point", "int64")),
        Bad({"target": [1.0]}, TypeError, ("target", "tensor", "list")),
        Bad({"power": 3}, ValueError, ("power", "1 or 2", "3")),
    )

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


class TestPolarIoULoss(PolarTester):
    function = polar_iou_loss
    reference = reference.polar_iou_loss
    differentiable = ("pred", "target", "weight")
    bad_inputs = (
        *TestPolarIoU.bad_inputs,
        Bad({"weight": torch.rand(39)}, ValueError, ("weight", "(N,)", "40", "(39,)")),
        Bad({"weight": torch.rand(40, 1)}, ValueError, ("weight", "(N,)", "(40, 1)")),
        Bad({"weight": torch.ones(40, dtype=torch.bool)}, TypeError, ("weight", "floating-point", "bool")),
        Bad({"reduction": "average"}, ValueError, ("reduction", "'mean'", "'average'")),
        Bad({"reduction": "sum", "avg_factor": 3.0}, ValueError, ("avg_factor", "'mean'", "'sum'")),
        Bad({"avg_factor": torch.ones(2)}, ValueError, ("avg_factor", "0-d", "(2,)")),
    )

    def sample(self, dtype, device):
        pred, target = rays_like(dtype, device)
        weight = torch.rand(40, dtype=torch.float64).to(device, dtype)
        weight[::7] = 0
        pred[7, 3] = math.nan  # absent
        return {"pred": pred, "target": target, "weight": weight}

    def small(self, device):
        pred, target = lengths(3, torch.float64, device, 5), lengths(3, torch.float64, device, 5)
        return {"pred": pred, "target": target, "weight": torch.rand(3, dtype=torch.float64, device=device)}

    def more_samples(self, dtype, device):
        pred, target = rays_like(dtype, device)
        weight = torch.rand(40, dtype=torch.float64).to(device, dtype)
        log = {"pred": pred.clamp(min=1).log().to(dtype), "target": target, "log_pred": True}
        bad = pred.clone()
        bad[10, 5], bad[11, 0] = -1, math.nan
        return [
            {"pred": pred, "target": target},
            *({"pred": pred, "target": target, "weight": weight, "reduction": r} for r in ("none", "sum")),
            {"pred": pred, "target": target, "weight": weight, "avg_factor": 7.0, "power": 2},
            {"pred": pred, "target": target, "weight": weight * 0},
            {"pred": pred, "target": target, "avg_factor": torch.tensor(-1.0)},
            {"pred": bad, "target": target, "reduction": "none"},
            log,
            {**log, "power": 2, "reduction": "none"},
        ]

    def empty(self, dtype, device):
        none = {"pred": lengths(0, dtype, device), "target": lengths(0, dtype, device)}
        return [none, {**none, "reduction": "none"}, {**none, "reduction": "sum"}]


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


OPTIONS = [
    {"power": power, "log_pred": log_pred, **reduction}
    for power, log_pred, reduction in itertools.product(
        (1, 2),
        (False, True),
        ({"reduction": "none"}, {"reduction": "sum"}, {"reduction": "mean"}, {"reduction": "mean", "avg_factor": 3.0}),
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_gradients_with_every_option(options, device):
    torch.manual_seed(1)
    pred, target, weight = (torch.rand(shape, dtype=torch.float64, device=device) for shape in ((3, 5), (3, 5), (3,)))
    inputs = [tensor.requires_grad_() for tensor in (pred, target, weight)]

    def call(*tensors):
        return polar_iou_loss(*tensors, **options)

    assert torch.autograd.gradcheck(call, inputs, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(lambda p: call(p, target.detach()), inputs[0])


def test_ties_share_the_gradient(device):
    pred = torch.full((1, 4), 2.0, device=device, requires_grad=True)
    polar_iou_loss(pred, pred.detach().clone()).backward()
    assert pred.grad.abs().max() == 0  # half of 1/Σmax, half of −1/Σmin
    target = torch.tensor([[2.0, 1.0, 1.0, 1.0]], device=device)
    pred.grad = None
    polar_iou_loss(pred, target).backward()
    torch.testing.assert_close(pred.grad, torch.tensor([[0.5 / 8 - 0.5 / 5, 1 / 8, 1 / 8, 1 / 8]], device=device))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_come_in_the_dtype_of_their_input(dtype, device):
    pred = lengths(5, dtype, device).requires_grad_()
    target = lengths(5, torch.float32, device).requires_grad_()
    weight = torch.rand(5, dtype=torch.float64, device=device, requires_grad=True)
    loss = polar_iou_loss(pred, target, weight)
    loss.backward()
    assert [t.dtype for t in (loss, pred.grad, target.grad, weight.grad)] == [
        torch.float32,
        dtype,
        torch.float32,
        torch.float64,
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_rows_of_weight_zero_are_absent(value, device):
    pred = lengths(4, torch.float32, device)
    pred[1] = value
    pred.requires_grad_()
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0], device=device, requires_grad=True)
    target = lengths(4, torch.float32, device)
    loss = polar_iou_loss(pred, target, weight)
    loss.backward()
    keep = [0, 2, 3]
    torch.testing.assert_close(loss, polar_iou_loss(pred[keep], target[keep], weight[keep]))
    assert (pred.grad[1] == 0).all()
    assert weight.grad[1] == 0
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_shapes_that_do_not_exist_have_no_gradient(value, power, device):
    pred, target = lengths(3, torch.float32, device), lengths(3, torch.float32, device)
    pred[1, 4] = value
    pred.requires_grad_()
    polar_iou(pred, target, power=power).sum().backward()
    assert (pred.grad[1] == 0).all()
    assert (pred.grad[[0, 2]] != 0).all()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_negative_lengths_count_as_0_in_gradients_too(dtype, power, device):
    torch.manual_seed(3)
    given = [lengths(20, dtype, device) - 10 for _ in range(2)]
    assert all((rays < 0).any() for rays in given)
    leaves = [rays.clone().requires_grad_() for rays in given]
    got = torch.autograd.grad(polar_iou(*leaves, power=power).sum(), leaves)
    want = torch.autograd.grad(polar_iou(*(rays.clamp(min=0) for rays in leaves), power=power).sum(), leaves)
    for mine, wanted, rays in zip(got, want, given, strict=True):
        assert (mine[rays < 0] == 0).all()
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_a_loss_changed_in_place_has_its_gradients(weight):
    pred, target = torch.rand(3, 8) + 1, torch.rand(3, 8) + 1
    inputs = [x.clone().requires_grad_() for x in (pred, weight) if x is not None]
    want = torch.autograd.grad(2 * polar_iou_loss(inputs[0], target, *inputs[1:]), inputs)
    loss = polar_iou_loss(inputs[0], target, *inputs[1:])
    loss *= 2
    for got, wanted in zip(torch.autograd.grad(loss, inputs), want, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("scale", [1.0, -0.75, math.inf])
@pytest.mark.parametrize("options", [o for o in OPTIONS if o["reduction"] != "none"], ids=str)
def test_a_gradient_made_ahead_is_that_of_the_backward_pass(options, scale, device):
    """Where only pred wants one, the forward pass makes it."""
    torch.manual_seed(7)
    pred, target = rays_like(torch.float32, device)
    weight = torch.rand(40, device=device)
    weight[::7] = 0
    pred[7, 3] = math.nan  # absent
    pred = (pred.log() if options["log_pred"] else pred).requires_grad_()
    ahead, later = (polar_iou_loss(pred, t, weight, **options) for t in (target, target.clone().requires_grad_()))
    assert torch.equal(ahead, later)
    got, want = (torch.autograd.grad(scale * loss, pred)[0] for loss in (ahead, later))
    tolerance = 0 if scale == 1 else 3 * torch.finfo(torch.float32).eps  # three products in another order
    torch.testing.assert_close(got, want, rtol=tolerance, atol=0, equal_nan=True)


@pytest.mark.parametrize("context", [nullcontext, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_a_gradient_made_ahead_is_not_made_again(context, monkeypatch):
    backward = sys.modules["polarmask_ops.polar_iou"]
    monkeypatch.setattr(backward, "_gradients", lambda *_: pytest.fail("made again"))
    pred, target = lengths(5, torch.float32, "cpu").requires_grad_(), lengths(5, torch.float32, "cpu")
    with context():
        for scale in (1, 0.5):
            (scale * polar_iou_loss(pred, target)).backward()
    assert pred.grad.isfinite().all()


def test_backward_as_often_as_one_likes(device):
    pred, target = lengths(600, torch.float32, device).requires_grad_(), lengths(600, torch.float32, device)
    want = torch.autograd.grad(polar_iou_loss(pred, target), pred)[0]
    loss = polar_iou_loss(pred, target)
    for _ in range(3):
        loss.backward(retain_graph=True)
        assert torch.equal(pred.grad, want)
        pred.grad.zero_()  # what the loss gave is not its own any more
    (first,) = torch.autograd.grad(loss, pred, create_graph=True)
    assert torch.equal(first, want)
    assert first.requires_grad
    again = polar_iou_loss(pred, target)
    thirds = [torch.autograd.grad(0.3 * again, pred, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*thirds)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    loss = polar_iou_loss(pred, target)
    scales = torch.tensor([1.0, 2.0], device=device)
    (batch,) = torch.autograd.grad(loss, pred, scales, is_grads_batched=True)
    torch.testing.assert_close(batch, torch.stack([want, 2 * want]))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_step_is_traced(mode):
    pred, target = lengths(5, torch.float32, "cpu"), lengths(5, torch.float32, "cpu")

    def step(pred, target):
        leaf = pred.detach().requires_grad_()
        return torch.autograd.grad(2 * polar_iou_loss(leaf, target), leaf)[0]

    traced = make_fx(step, tracing_mode=mode)(pred, target)
    torch.testing.assert_close(traced(2 * pred, target), step(2 * pred, target))


def test_the_loss_knows_its_name():
    loss = polar_iou_loss(torch.ones(1, 8, requires_grad=True), torch.ones(1, 8))
    assert loss.grad_fn.name() == "polarmask_polar_iouBackward"


@pytest.mark.parametrize("avg_factor", [0.0, -2.0, torch.tensor(0.0)])
def test_a_divisor_of_zero_gives_zero_gradients(avg_factor, device):
    pred = lengths(4, torch.float32, device).requires_grad_()
    factor = avg_factor.to(device) if isinstance(avg_factor, torch.Tensor) else avg_factor
    loss = polar_iou_loss(pred, lengths(4, torch.float32, device), avg_factor=factor)
    loss.backward()
    assert loss == 0
    assert (pred.grad == 0).all()


def torch_loss(pred, target, power, log_pred):
    """In float64, whose exponents suffice."""
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
    torch.testing.assert_close(grad[0], torch.full_like(grad[0], power / 36))  # all that they do is to be the larger
    assert rows[1] > 140 * power
    assert grad[1, 7].item() == pytest.approx(power)
    assert rows[2] > rows[1]


def as_map(rays, memory_format=torch.contiguous_format):
    """(B, N, R) as a head gives it: (B, R, H, W)."""
    return rays.transpose(1, 2).unflatten(2, (3, -1)).contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("log_pred", [False, True])
def test_maps_are_rows(log_pred, memory_format, device):
    """The rays of a head without copies; the gradient comes in the layout of the map."""
    torch.manual_seed(5)
    pred, target = (
        lengths(24, torch.float32, device).view(2, 12, 36),
        lengths(24, torch.float32, device).view(2, 12, 36),
    )
    pred = pred.log() if log_pred else pred
    weight = torch.rand(2, 12, device=device) * (torch.rand(2, 12, device=device) > 0.5)
    head = as_map(pred, memory_format).requires_grad_()
    loss = polar_iou_loss(head.flatten(2).transpose(1, 2), target, weight, log_pred=log_pred)
    loss.backward()
    rows = pred.flatten(0, 1).requires_grad_()
    want = polar_iou_loss(rows, target.flatten(0, 1), weight.flatten(), log_pred=log_pred)
    want.backward()
    assert torch.equal(loss, want)
    assert torch.equal(head.grad, as_map(rows.grad.view(2, 12, 36)))
    assert head.grad.stride() == head.stride()
    each = polar_iou_loss(head.flatten(2).transpose(1, 2), target, weight, log_pred=log_pred, reduction="none")
    assert each.shape == (2, 12)
    iou = polar_iou(pred, target.transpose(1, 2).contiguous().transpose(1, 2))
    torch.testing.assert_close(iou, polar_iou(pred.flatten(0, 1), target.flatten(0, 1)).view(2, 12), rtol=0, atol=0)


def test_gradients_of_maps(device):
    torch.manual_seed(6)
    head = torch.rand(2, 5, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
    target, weight = (torch.rand(shape, dtype=torch.float64, device=device) for shape in ((2, 6, 5), (2, 6)))

    def call(head, target, weight):
        return polar_iou_loss(head.flatten(2).transpose(1, 2), target, weight, log_pred=True)

    inputs = (head, target.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_opcheck_of_maps(device):
    head = torch.rand(2, 36, 2, 3, device=device, requires_grad=True)
    rays, target, weight = head.flatten(2).transpose(1, 2), torch.rand(2, 6, 36, device=device), torch.rand(2, 6)
    for with_gradient in (False, True):
        arguments = (rays, target, weight.to(device), None, 1, True, True, 1, with_gradient)
        torch.library.opcheck(torch.ops.polarmask.polar_iou, arguments)


def test_precision_near_one(device):
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


def test_threads_do_not_change_a_bit():
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
def test_kernels_agree_on_hostile_rows(dtype, num_rays, options):
    """Rows of every kind, 64 of them with anything at all; values, gradients and gradients of gradients."""
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
            # differences of sums: relative to the largest of their row; rounded to the dtype of the input
            finite = right.double().nan_to_num(0, 0, 0).abs()
            largest = finite.amax(1, keepdim=True) if right.dim() == 2 else finite
            own = torch.finfo(dtype)
            bound = 64**order * eps * (largest + finite.median()) + own.eps * (finite + own.tiny)
            wrong = ((left.double() - right.double()).abs() > bound) | (left.isnan() != right.isnan())
            assert not wrong.any(), (left[wrong], right[wrong])


@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
def test_kernels_agree_on_more_rows_than_their_grid_has():
    torch.manual_seed(3)
    pred, target = lengths(70_000, torch.float32, "cpu", 3), lengths(70_000, torch.float32, "cpu", 3)
    by_cpu, by_kernels = by_cpu_and_kernels(polar_iou_loss, {"pred": pred, "target": target})
    torch.testing.assert_close(by_kernels, by_cpu, rtol=8 * torch.finfo(torch.float32).eps, atol=0)


@given(st.integers(3, 72), st.integers(0, 71), st.integers(0, 2**31))
def test_invariants(device, num_rays, turn, seed):
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
def test_hostile_values(device, values, power):
    pred, target = torch.tensor(values, device=device).view(2, 1, 3)
    iou = polar_iou(pred, target, power=power)
    assert ((iou >= 0) & (iou <= 1)).all()
    centerness = polar_centerness(pred)
    assert ((centerness >= 0) & (centerness <= 1)).all()
    polar_iou_loss(pred.requires_grad_(), target, power=power).backward()
    polar_iou_loss(pred, target, log_pred=True, power=power)


def test_compiled_training_loss(device):
    pred, target, weight = lengths(64, torch.float32, device).log(), lengths(64, torch.float32, device), torch.rand(64)

    def step(pred, target, weight):
        return polar_iou_loss(pred * 2, target, weight.to(device), log_pred=True, avg_factor=weight.sum()) * 3

    results = []
    for function in (step, torch.compile(step, fullgraph=True)):
        leaf = pred.clone().requires_grad_()
        loss = function(leaf, target, weight)
        loss.backward()
        results.append((loss, leaf.grad))
    torch.testing.assert_close(results[0], results[1])


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


def test_vmap(device):
    pred, target = lengths(12, torch.float32, device).view(3, 4, 36), lengths(4, torch.float32, device)
    got = torch.vmap(polar_iou, in_dims=(0, None))(pred, target)
    torch.testing.assert_close(got, torch.stack([polar_iou(p, target) for p in pred]))
    torch.testing.assert_close(torch.vmap(polar_centerness)(pred), polar_centerness(pred.flatten(0, 1)).view(3, 4))


def test_what_torch_does_not_support_is_known(device):
    """Documented in polar_iou_loss: when torch mends one of these, this test says so."""
    pred, target = lengths(2, torch.float64, device), lengths(2, torch.float64, device)
    with pytest.raises(RuntimeError):
        torch.func.grad(polar_iou_loss)(pred, target)
    _, tangent = torch.func.jvp(lambda p: polar_iou_loss(p, target), (pred,), (torch.ones_like(pred),))
    assert tangent == 0
    leaf = pred.requires_grad_()
    (first,) = torch.autograd.grad(polar_iou_loss(leaf, target), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives"):
        second.sum().backward()


class TestGolden:
    data = np.load(GOLDEN / "polar_iou_loss.npz")

    def tensors(self, dtype):
        return [torch.from_numpy(self.data[name]).to(dtype) for name in ("pred", "target", "weight")]

    @pytest.mark.parametrize(("version", "power"), [("v1", 1), ("v3", 2)])
    def test_loss(self, version, power):
        for dtype, name in ((torch.float32, "f32"), (torch.float64, "f64")):
            loss = polar_iou_loss(*self.tensors(dtype), power=power, avg_factor=float(self.data["avg_factor"]))
            np.testing.assert_allclose(loss.item(), self.data[f"loss_{version}_{name}"], rtol=1e-6)

    def test_rows(self):
        pred, target, _ = self.tensors(torch.float64)
        rows = polar_iou_loss(pred, target, reduction="none")
        np.testing.assert_allclose(rows, self.data["row_v1_f64"], rtol=1e-6, atol=1e-12)

    def test_gradients(self):
        pred, target, weight = self.tensors(torch.float64)
        loss = polar_iou_loss(
            pred.requires_grad_(), target.requires_grad_(), weight, avg_factor=float(self.data["avg_factor"])
        )
        loss.backward()
        apart = (pred != target).numpy()  # at ties the release sends all of the gradient to one side
        for got, name in ((pred.grad, "dpred_v1_f64"), (target.grad, "dtarget_v1_f64")):
            want = self.data[name]
            # near ties: differences of nearly equal numbers
            np.testing.assert_allclose(got.numpy()[apart], want[apart], rtol=1e-6, atol=1e-7 * abs(want).max())

    def test_centerness(self):
        data = np.load(GOLDEN / "centerness.npz")
        got = polar_centerness(torch.from_numpy(data["mask_targets"]))
        np.testing.assert_allclose(got, data["centerness"], rtol=3e-7)  # torch's sqrt is off by an ulp in places
