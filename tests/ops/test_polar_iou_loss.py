"""The Polar IoU loss: values, gradients, options, tracing."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from op_tester import Bad
from polar_iou_tester import BAD_RAYS, OPTIONS, PolarTester, as_map, lengths, rays_like
from reference import polar_iou as reference
from torch.fx.experimental.proxy_tensor import make_fx

from polarmask_ops import PolarIoULoss, polar_centerness, polar_iou, polar_iou_loss

GOLDEN = Path(__file__).parent.parent / "golden"


class TestPolarIoULoss(PolarTester):
    function = polar_iou_loss
    reference = reference.polar_iou_loss
    differentiable = ("pred", "target", "weight")
    bad_inputs = (
        *BAD_RAYS,
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
        pred[7, 3] = math.nan  # a row of weight 0, which is not read
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


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_polar_iou_loss_with_every_option_passes_gradcheck(options, device):
    torch.manual_seed(1)
    pred, target, weight = (torch.rand(shape, dtype=torch.float64, device=device) for shape in ((3, 5), (3, 5), (3,)))
    inputs = [tensor.requires_grad_() for tensor in (pred, target, weight)]

    def call(*tensors):
        return polar_iou_loss(*tensors, **options)

    assert torch.autograd.gradcheck(call, inputs, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(lambda p: call(p, target.detach()), inputs[0])


def test_polar_iou_loss_of_ties_shares_the_gradient(device):
    pred = torch.full((1, 4), 2.0, device=device, requires_grad=True)
    polar_iou_loss(pred, pred.detach().clone()).backward()
    assert pred.grad.abs().max() == 0  # half of 1/Σmax, half of −1/Σmin
    target = torch.tensor([[2.0, 1.0, 1.0, 1.0]], device=device)
    pred.grad = None
    polar_iou_loss(pred, target).backward()
    torch.testing.assert_close(pred.grad, torch.tensor([[0.5 / 8 - 0.5 / 5, 1 / 8, 1 / 8, 1 / 8]], device=device))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_polar_iou_loss_gradients_have_the_dtype_of_their_input(dtype, device):
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
def test_polar_iou_loss_rows_of_weight_zero_are_not_read(value, device):
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


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_polar_iou_loss_changed_in_place_keeps_its_gradients(weight):
    pred, target = torch.rand(3, 8) + 1, torch.rand(3, 8) + 1
    inputs = [x.clone().requires_grad_() for x in (pred, weight) if x is not None]
    want = torch.autograd.grad(2 * polar_iou_loss(inputs[0], target, *inputs[1:]), inputs)
    loss = polar_iou_loss(inputs[0], target, *inputs[1:])
    loss *= 2
    for got, wanted in zip(torch.autograd.grad(loss, inputs), want, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("scale", [1.0, -0.75, math.inf])
@pytest.mark.parametrize("options", [o for o in OPTIONS if o["reduction"] != "none"], ids=str)
def test_polar_iou_loss_with_target_gradient_leaves_gradient_of_pred(options, scale, device):
    torch.manual_seed(7)
    pred, target = rays_like(torch.float32, device)
    weight = torch.rand(40, device=device)
    weight[::7] = 0
    pred[7, 3] = math.nan  # a row of weight 0, which is not read
    pred = (pred.log() if options["log_pred"] else pred).requires_grad_()
    alone, both = (polar_iou_loss(pred, t, weight, **options) for t in (target, target.clone().requires_grad_()))
    assert torch.equal(alone, both)
    got, want = (torch.autograd.grad(scale * loss, pred)[0] for loss in (alone, both))
    tolerance = 0 if scale == 1 else 3 * torch.finfo(torch.float32).eps  # three products in another order
    torch.testing.assert_close(got, want, rtol=tolerance, atol=0, equal_nan=True)


def test_polar_iou_loss_backward_repeated_gives_the_same_gradient(device):
    pred, target = lengths(600, torch.float32, device).requires_grad_(), lengths(600, torch.float32, device)
    want = torch.autograd.grad(polar_iou_loss(pred, target), pred)[0]
    loss = polar_iou_loss(pred, target)
    for _ in range(3):
        loss.backward(retain_graph=True)
        assert torch.equal(pred.grad, want)
        pred.grad.zero_()  # the caller may change the gradient in place
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
def test_polar_iou_loss_under_make_fx_is_traced(mode):
    pred, target = lengths(5, torch.float32, "cpu"), lengths(5, torch.float32, "cpu")

    def step(pred, target):
        leaf = pred.detach().requires_grad_()
        return torch.autograd.grad(2 * polar_iou_loss(leaf, target), leaf)[0]

    traced = make_fx(step, tracing_mode=mode)(pred, target)
    torch.testing.assert_close(traced(2 * pred, target), step(2 * pred, target))


def test_polar_iou_loss_grad_fn_names_the_op():
    loss = polar_iou_loss(torch.ones(1, 8, requires_grad=True), torch.ones(1, 8))
    assert "polarmask_polar_iou_" in loss.grad_fn.name()  # in errors and profiles


@pytest.mark.parametrize("options", [{}, {"power": 2, "log_pred": True, "reduction": "none"}])
def test_polar_iou_loss_module_equals_function(options, device):
    pred, target, weight = (*rays_like(torch.float32, device), torch.rand(40, device=device))
    module = PolarIoULoss(**options)
    assert torch.equal(module(pred, target, weight), polar_iou_loss(pred, target, weight, **options))
    if not options:
        assert torch.equal(module(pred, target, avg_factor=3.0), polar_iou_loss(pred, target, avg_factor=3.0))
    assert not list(module.parameters())


@pytest.mark.parametrize("options", [{"power": 3}, {"reduction": "average"}])
def test_polar_iou_loss_module_with_unknown_option_raises(options):
    with pytest.raises(ValueError, match=f"PolarIoULoss: expected {next(iter(options))}"):
        PolarIoULoss(**options)


@pytest.mark.parametrize("avg_factor", [0.0, -2.0, torch.tensor(0.0)])
def test_polar_iou_loss_with_divisor_zero_has_zero_gradients(avg_factor, device):
    pred = lengths(4, torch.float32, device).requires_grad_()
    factor = avg_factor.to(device) if isinstance(avg_factor, torch.Tensor) else avg_factor
    loss = polar_iou_loss(pred, lengths(4, torch.float32, device), avg_factor=factor)
    loss.backward()
    assert loss == 0
    assert (pred.grad == 0).all()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("log_pred", [False, True])
def test_polar_iou_loss_of_maps_equals_rows(log_pred, memory_format, device):
    """A head's rays are read without copies, and their gradient has the layout of the map."""
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


def test_polar_iou_loss_compiled_equals_eager(device):
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


def test_polar_iou_loss_limits_of_torch_are_as_documented(device):
    """The docstring of polar_iou_loss lists these limits of torch. This test fails when torch lifts one."""
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
