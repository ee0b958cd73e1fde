"""Polar IoU, the loss made of it, and polar centerness."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import _arguments, _autograd, _fakes, _vmap
from ._extension import _C

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


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
    pred, target = _rays("polar_iou", power, pred=pred, target=target)
    iou: Tensor = torch.ops.polarmask.polar_iou.default(pred, target, None, None, power, False, False, 0, False)[0]
    return iou


def polar_iou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    power: int = 1,
    log_pred: bool = False,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Polar IoU loss: −log(Σ min(p, t)^power / Σ max(p, t)^power), per row times weight, reduced.

    Parameters
    ----------
    pred : Tensor, shape (N, R) or (B, N, R), float
        Predicted ray lengths in pixels, or their logarithms with ``log_pred``. Any strides, and the gradient has the
        same: of a head's (B, R, H, W), ``map.flatten(2).transpose(1, 2)`` is a view, and nothing is copied.
    target : Tensor, of the shape of ``pred``, float
        Ray lengths in pixels.
    weight : Tensor, shape (N,) or (B, N), float, optional
        Weights of the rows. A row of weight 0 is absent: it is not read, and gets no gradient, its weight included. So
        a dense head gives all its points, and those without an object cost nothing.
    power : {1, 2}
        1 is the released loss, 2 the true polar area.
    log_pred : bool
        ``pred`` holds logarithms; exp is taken inside the kernel.
    reduction : {"mean", "sum", "none"}
        ``"mean"`` divides by ``avg_factor``, without one by Σ weight (N without weights). A divisor <= 0 gives loss 0
        with zero gradients.
    avg_factor : float or 0-d Tensor, optional
        Divisor of ``"mean"``. A tensor stays on its device and is detached.

    Returns
    -------
    Tensor, shape (), (N,) or (B, N), float32 (float64 for float64)
        Differentiable in pred, target and weight, twice; gradients have the dtype of their input. Half precision is
        accumulated in float32. Equal rays give the gradient half to each side. The sum over the rows has a fixed
        order: the result does not depend on the number of threads.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor.
    ValueError
        If shapes or devices do not fit, an option is unknown, or ``avg_factor`` comes with another reduction.

    Notes
    -----
    Computed as log1p(Σ|pⁿ − tⁿ| / Σ minⁿ), n the power and p² − t² taken as (p − t)·(p + t), which keeps its precision
    near IoU 1 for both powers; Σ min is floored at 1e-12. Negative or NaN rays in rows of weight other than 0 give NaN.
    Finite rays have finite losses and gradients, lengths of 3e38 (float64: 1e150) and logarithms of any size included;
    those above 300 count as 300.

    On the CPU the forward pass of a reduced loss makes the gradient too, and holds it for the backward pass, where only
    ``pred`` requires one and no compiler is at work; it is that of the values that ``pred`` had then.

    As for every custom op of torch, ``torch.func.grad`` raises and ``torch.func.jvp`` is silently zero; double backward
    works in eager mode only.

    Source: PolarMask, section 3.4 (arXiv 1909.13226).

    Examples
    --------
    >>> pred = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    >>> loss = polar_iou_loss(pred, torch.tensor([[2.0, 2.0, 2.0]]))
    >>> loss.backward()
    >>> loss.detach(), pred.grad
    (tensor(0.3365), tensor([[-0.2000, -0.0286,  0.1429]]))
    """
    op = "polar_iou_loss"
    _arguments.choice(op, "reduction", reduction, tuple(_REDUCTIONS))
    if avg_factor is not None and reduction != "mean":
        raise ValueError(f"{op}: expected reduction 'mean' with avg_factor, got {reduction!r}")
    pred, target = _rays(op, power, pred=pred, target=target)
    dtype = torch.promote_types(pred.dtype, torch.float32)
    if weight is not None:
        (weight,) = _arguments.as_dtype(dtype, *_arguments.any_floats(op, weight=weight))
        _arguments.same_device(op, pred=pred, weight=weight)
    if isinstance(avg_factor, Tensor):
        if avg_factor.dim() != 0:
            raise ValueError(f"{op}: expected avg_factor to be a number or a 0-d tensor, got {tuple(avg_factor.shape)}")
        if avg_factor.is_complex():
            raise TypeError(f"{op}: expected avg_factor of a real dtype, got {avg_factor.dtype}")
        avg_factor = avg_factor.detach().to(dtype)
        _arguments.same_device(op, pred=pred, avg_factor=avg_factor)
    elif avg_factor is not None:
        avg_factor = torch.full((), avg_factor, dtype=dtype, device=pred.device)
    options = (power, log_pred, True, _REDUCTIONS[reduction], _gradient_ahead(reduction, pred, target, weight))
    loss: Tensor = torch.ops.polarmask.polar_iou.default(pred, target, weight, avg_factor, *options)[0]
    return loss


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


def _rays(op: str, power: int, **tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common dtype; unlike geometry, half precision stays: the kernels sum in float32."""
    given = _arguments.any_floats(op, **tensors)
    if power not in (1, 2):
        raise ValueError(f"{op}: expected power to be 1 or 2, got {power}")
    return given


def _sum_dtype(rays: Tensor) -> torch.dtype:
    return torch.promote_types(rays.dtype, torch.float32)


def _gradient_ahead(reduction: str, pred: Tensor, *others: Tensor | None) -> bool:
    """Whether the forward pass makes the gradient too, while the rays are in the cache.

    The backward pass then multiplies it by one number, and must look whether that is 1: a GPU would be waited for, and
    a compiler cannot know. Half precision would be rounded before a loss scale comes.
    """
    return (
        pred.requires_grad
        and torch.is_grad_enabled()
        and pred.is_cpu
        and pred.dtype in (torch.float32, torch.float64)
        and reduction != "none"
        and not any(other is not None and other.requires_grad for other in others)
        and not torch.compiler.is_compiling()
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether it has a value that may be read: those of vmap have many, and what traces calls must not see one."""
    calls_first: Any = torch._C._dispatch_keys(tensor).highestPriorityTypeId()
    return (
        bool(calls_first == torch._C.DispatchKey.AutocastCPU)  # a CPU's tensors have it, in or out of autocast
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch.compiler.is_compiling()
    )


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
    value = pred.new_empty(rows if reduction == _REDUCTIONS["none"] else (), dtype=dtype)
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
    pred, target, weight, avg_factor, power, log_pred, log, reduction, with_gradient = inputs
    value, sums, divisor, gradient = output
    ctx.mark_non_differentiable(sums, divisor, gradient)
    ctx.is_ahead, ctx.gradient = with_gradient, gradient
    weights_divide = reduction == _REDUCTIONS["mean"] and avg_factor is None
    # Read for the weights' gradient alone. A copy: `loss *= 2` changes the value in place.
    mean = value.clone() if weights_divide and weight is not None else divisor
    ctx.save_for_backward(pred, target, weight, mean, sums, divisor)
    ctx.options = (weights_divide, power, log_pred, log, reduction)


def _backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 9
    wants = ctx.needs_input_grad[1:4]
    if ctx.is_ahead and wants == (True, False, False) and not torch.is_grad_enabled() and _is_plain(grad):
        scale = grad.item()
        if math.isfinite(scale):  # else absent rows would get NaN
            gradient, ctx.gradient = ctx.gradient, None  # handed over, and the caller's to change
            if gradient is None:  # a second time, by the same roundings
                gradient = _gradients(ctx, torch.ones_like(grad), wants)[0]
            return gradient if scale == 1 else gradient * scale, *[None] * 8
    grads = _gradients(ctx, grad, wants)
    return *(grad if wanted else None for grad, wanted in zip(grads, wants, strict=True)), *[None] * 6


def _gradients(ctx: Any, grad: Tensor, wants: tuple[bool, ...]) -> tuple[Tensor, Tensor, Tensor]:
    pred, target, weight, mean, sums, divisor = ctx.saved_tensors
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.polarmask.polar_iou_backward.default(
        grad, pred, target, weight, mean, sums, divisor, *ctx.options, *wants
    )
    return grads


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    grad, pred, target, weight, value, sums, divisor, *options = inputs
    ctx.save_for_backward(grad, pred, target, weight, value, sums, divisor)
    ctx.options = options


def _double_backward(ctx: Any, *alongs: Tensor | None) -> tuple[Tensor | None, ...]:
    """The kernel does what needs rays; what is left has one number a row.

    With v the value of a row and v' its derivative along (pred, target), the sum Σ scale·weight·v' +
    Σ along_weight·∂/∂weight is differentiated by everything that the backward pass was given.
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
    spread = (along.sum() / by) * weights if weights_divide else torch.zeros_like(values)  # Σ weight moves too
    tangent, grad_pred, grad_target = torch.ops.polarmask.polar_iou_double_backward(
        along_pred, along_target, scale * weights, scale * (along - spread), pred, target, sums, power, log_pred, log
    )
    by_scale = weights * tangent + along * values
    by_grad = present * by_scale / by
    by_weight = scale * tangent
    if weights_divide:
        by_weight = by_weight - scale * ((along.sum() * values + by_scale.sum()) / by)
    if reduction != _REDUCTIONS["none"]:
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


_autograd.register("polar_iou", _backward, _save)
_autograd.register("polar_iou_backward", _double_backward, _save_backward)
torch.library.register_autograd("polarmask::polar_iou_double_backward", _no_third)
_vmap.register("polar_iou_backward")
_vmap.register("polar_centerness", rows=[0])
_vmap.register("polar_iou")
