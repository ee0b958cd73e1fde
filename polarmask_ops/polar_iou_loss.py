"""The Polar IoU loss, as a function and as a module."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _arguments
from .polar_iou import REDUCTIONS, checked_rays, evaluate


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
    _arguments.choice(op, "reduction", reduction, tuple(REDUCTIONS))
    if avg_factor is not None and reduction != "mean":
        raise ValueError(f"{op}: expected reduction 'mean' with avg_factor, got {reduction!r}")
    pred, target = checked_rays(op, power, pred=pred, target=target)
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
    return evaluate(pred, target, weight, avg_factor, power=power, log=True, reduction=reduction, log_pred=log_pred)


class PolarIoULoss(torch.nn.Module):
    """:func:`polar_iou_loss` as a module that holds the options.

    Parameters
    ----------
    power : {1, 2}
        1 is the released loss, 2 the true polar area.
    log_pred : bool
        Whether predictions are logarithms of ray lengths.
    reduction : {"mean", "sum", "none"}
        How the rows are reduced.

    Raises
    ------
    ValueError
        If ``power`` or ``reduction`` is unknown.

    Examples
    --------
    >>> loss = PolarIoULoss(reduction="sum")
    >>> loss(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 2.0, 2.0]]))
    tensor(0.3365)
    >>> loss
    PolarIoULoss(power=1, log_pred=False, reduction='sum')
    """

    def __init__(self, *, power: int = 1, log_pred: bool = False, reduction: str = "mean") -> None:
        super().__init__()
        self.power = _arguments.power("PolarIoULoss", power)
        self.log_pred = log_pred
        self.reduction = _arguments.choice("PolarIoULoss", "reduction", reduction, tuple(REDUCTIONS))

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        avg_factor: float | Tensor | None = None,
    ) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        pred, target, weight, avg_factor
            As for :func:`polar_iou_loss`.

        Returns
        -------
        Tensor, shape (), (N,) or (B, N), float32 (float64 for float64)
            As for :func:`polar_iou_loss`.

        Raises
        ------
        TypeError, ValueError
            As for :func:`polar_iou_loss`.

        Examples
        --------
        >>> weight = torch.tensor([1.0, 0.0])  # the second row is not read
        >>> PolarIoULoss()(torch.ones(2, 8), torch.full((2, 8), 2.0), weight)
        tensor(0.6931)
        """
        return polar_iou_loss(
            pred,
            target,
            weight,
            power=self.power,
            log_pred=self.log_pred,
            reduction=self.reduction,
            avg_factor=avg_factor,
        )

    def extra_repr(self) -> str:
        return f"power={self.power}, log_pred={self.log_pred}, reduction={self.reduction!r}"
