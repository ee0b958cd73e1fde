"""Polar IoU and polar centerness, and the op below the IoU and its loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _arguments, _fakes, _vmap
from ._extension import _C

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def polar_iou(pred: Tensor, target: Tensor, *, power: int = 1) -> Tensor:
    """IoU of shapes given by rays around one centre: Σ min(p, t)^power / Σ max(p, t)^power.

    Parameters
    ----------
    pred, target : Tensor, shape (N, R) or (B, N, R), float
        Ray lengths in pixels, any strides. Negative ones count as 0.
    power : {1, 2}
        1 is PolarMask's measure, 2 the IoU of the areas in polar coordinates.

    Returns
    -------
    Tensor, shape (N,) or (B, N), float32 (float64 for float64)
        In [0, 1]. 0 for rows with NaN or infinite rays, and for rows without any area. Differentiable in both, twice;
        where two rays are equal the gradient goes half to each side.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If the shapes differ or are neither (N, R) nor (B, N, R), or ``power`` is neither 1 nor 2.

    Notes
    -----
    Source: PolarMask, section 3.4 (arXiv 1909.13226).

    Examples
    --------
    >>> polar_iou(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 2.0, 2.0]]))
    tensor([0.7143])
    """
    pred, target = checked_rays("polar_iou", power, pred=pred, target=target)
    return evaluate(pred, target, power=power, log=False, reduction="none")


def polar_centerness(rays: Tensor) -> Tensor:
    """Polar centerness of points: sqrt(shortest ray / longest ray).

    Parameters
    ----------
    rays : Tensor, shape (N, R), float
        Ray lengths in pixels. Negative ones count as 0.

    Returns
    -------
    Tensor, shape (N,), float32 (float64 for float64)
        In [0, 1]; 0 where the longest ray is 0, and for rows with NaN or infinite rays. Not differentiable.

    Raises
    ------
    TypeError
        If ``rays`` is not a floating-point tensor.
    ValueError
        If ``rays`` is not of shape (N, R) with R >= 1.

    Notes
    -----
    Source: PolarMask, section 3.3 (arXiv 1909.13226).

    Examples
    --------
    >>> polar_centerness(torch.tensor([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]]))
    tensor([0.5000, 1.0000])
    """
    op = "polar_centerness"
    _arguments.any_floats(op, rays=rays)
    centerness: Tensor = torch.ops.polarmask.polar_centerness(rays.detach())
    return centerness


def checked_rays(op: str, power: int, **tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in their common dtype. Half precision stays: the kernels sum in float32."""
    given = _arguments.any_floats(op, **tensors)
    _arguments.power(op, power)
    return given


def evaluate(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    avg_factor: Tensor | None = None,
    *,
    power: int,
    log: bool,
    reduction: str,
    log_pred: bool = False,
) -> Tensor:
    """Return the IoU of the rows (``log=False``) or the loss (``log=True``), reduced.

    The op can also compute the gradient in the forward pass. That is not used: it took 1.07 times less CPU time for
    20,000 rows and 1.05 times less for a million, one thread, forward and backward.
    """
    value: Tensor = torch.ops.polarmask.polar_iou.default(
        pred,
        target,
        weight,
        avg_factor,
        power=power,
        log_pred=log_pred,
        log=log,
        reduction=REDUCTIONS[reduction],
        with_gradient=False,
    )[0]
    return value


def _sum_dtype(rays: Tensor) -> torch.dtype:
    return torch.promote_types(rays.dtype, torch.float32)


@_fakes.register("polar_iou")
def _polar_iou_fake(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    avg_factor: Tensor | None,
    power: int,
    log_pred: bool,
    log: bool,
    reduction: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, dtype = pred.shape[:-1], _sum_dtype(pred)
    value = pred.new_empty(rows if reduction == REDUCTIONS["none"] else (), dtype=dtype)
    gradient = torch.empty_like(pred) if with_gradient else pred.new_empty(0)
    return value, pred.new_empty((rows.numel(), 2), dtype=torch.float64), pred.new_empty((), dtype=dtype), gradient


@_fakes.register("polar_iou_backward")
def _polar_iou_backward_fake(
    grad: Tensor,
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    value: Tensor,
    sums: Tensor,
    divisor: Tensor,
    weights_divide: bool,
    power: int,
    log_pred: bool,
    log: bool,
    reduction: int,
    wants_pred: bool,
    wants_target: bool,
    wants_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(pred) if wants_pred else pred.new_empty(0),
        torch.empty_like(target) if wants_target else pred.new_empty(0),
        pred.new_empty(pred.shape[:-1] if wants_weight else 0, dtype=_sum_dtype(pred)),
    )


@_fakes.register("polar_iou_double_backward")
def _polar_iou_double_backward_fake(
    along_pred: Tensor | None,
    along_target: Tensor | None,
    row_scale: Tensor,
    value_scale: Tensor,
    pred: Tensor,
    target: Tensor,
    sums: Tensor,
    power: int,
    log_pred: bool,
    log: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return pred.new_empty(pred.shape[:-1], dtype=_sum_dtype(pred)), torch.empty_like(pred), torch.empty_like(target)


@_fakes.register("polar_centerness")
def _polar_centerness_fake(rays: Tensor) -> Tensor:
    return rays.new_empty(rays.shape[0], dtype=_sum_dtype(rays))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    pred, target, weight, avg_factor, power, log_pred, log, reduction, _ = inputs
    value, sums, divisor, gradient = output
    ctx.mark_non_differentiable(sums, divisor, gradient)
    ctx.set_materialize_grads(False)
    weights_divide = reduction == REDUCTIONS["mean"] and avg_factor is None
    # The gradient of the weights needs the mean. It is copied, for `loss *= 2` changes the value in place.
    mean = value.clone() if weights_divide and weight is not None else divisor
    ctx.save_for_backward(pred, target, weight, mean, sums, divisor)
    ctx.options = {
        "weights_divide": weights_divide,
        "power": power,
        "log_pred": log_pred,
        "log": log,
        "reduction": reduction,
    }


def _backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 9
    wants_pred, wants_target, wants_weight = wants = ctx.needs_input_grad[:3]
    grads: tuple[Tensor, ...] = torch.ops.polarmask.polar_iou_backward.default(
        grad,
        *ctx.saved_tensors,
        **ctx.options,
        wants_pred=wants_pred,
        wants_target=wants_target,
        wants_weight=wants_weight,
    )
    return *(grad if wanted else None for grad, wanted in zip(grads, wants, strict=True)), *[None] * 6


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    grad, pred, target, weight, value, sums, divisor, *options = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(grad, pred, target, weight, value, sums, divisor)
    ctx.options = options


def _double_backward(ctx: Any, *alongs: Tensor | None) -> tuple[Tensor | None, ...]:
    """Differentiate the backward pass: the kernel computes what needs rays, torch what has one number a row.

    Let v be the value of a row and v' its derivative along (along_pred, along_target). The scalar that is
    differentiated is Σ scale · weight · v' + Σ along_weight · ∂loss/∂weight.
    """
    grad, pred, target, weight, value, sums, divisor = ctx.saved_tensors
    weights_divide, power, log_pred, log, reduction, *wants = ctx.options
    along_pred, along_target, along_weight = (a if wanted else None for a, wanted in zip(alongs, wants, strict=True))
    values = _row_values(sums, log).to(divisor.dtype).view(pred.shape[:-1])
    present = torch.ones_like(values) if weight is None else (weight != 0).to(values.dtype)
    present = present * (divisor > 0)
    by = torch.where(divisor > 0, divisor, torch.ones_like(divisor))
    values = values - (value if weights_divide else 0)
    scale = present * grad / by
    weights = present if weight is None else weight
    along = torch.zeros_like(values) if along_weight is None else along_weight * present
    # The mean divides by Σ weight, which depends on every weight.
    spread = (along.sum() / by) * weights if weights_divide else torch.zeros_like(values)
    tangent, grad_pred, grad_target = torch.ops.polarmask.polar_iou_double_backward(
        along_pred,
        along_target,
        row_scale=scale * weights,
        value_scale=scale * (along - spread),
        pred=pred,
        target=target,
        sums=sums,
        power=power,
        log_pred=log_pred,
        log=log,
    )
    by_scale = weights * tangent + along * values
    by_grad = present * by_scale / by
    by_weight = scale * tangent
    if weights_divide:
        by_weight = by_weight - scale * ((along.sum() * values + by_scale.sum()) / by)
    if reduction != REDUCTIONS["none"]:
        by_grad = by_grad.sum()
    return by_grad, grad_pred, grad_target, None if weight is None else by_weight, *[None] * 11


def _row_values(sums: Tensor, log: bool) -> Tensor:
    difference, smaller = sums.unbind(1)
    if log:
        return torch.log1p(difference / smaller.clamp(min=_C.POLAR_IOU_FLOOR))
    larger = smaller + difference
    return torch.where(larger > 0, smaller / larger, torch.zeros_like(larger))


def _no_third(ctx: Any, *_: Any) -> tuple[Tensor | None, ...]:
    raise NotImplementedError("polar_iou_loss: third derivatives are not implemented")


torch.library.register_autograd("polarmask::polar_iou", _backward, setup_context=_save)
torch.library.register_autograd("polarmask::polar_iou_backward", _double_backward, setup_context=_save_backward)
torch.library.register_autograd("polarmask::polar_iou_double_backward", _no_third)
_vmap.register("polar_iou_backward")
_vmap.register("polar_centerness", rows=[0])
_vmap.register("polar_iou")
