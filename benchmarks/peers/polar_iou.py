"""Other ways to compute the Polar IoU loss and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from cases import Pairs
from torch import Tensor

Result = tuple[Tensor, Tensor]  # the loss, and its gradient by pred


def released_formula(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    both = torch.stack([pred, target], -1)
    larger = both.max(dim=2)[0]
    smaller = both.min(dim=2)[0]
    loss = (larger.sum(dim=1) / smaller.sum(dim=1)).log()
    return (loss * weight).sum() / weight.sum()


def vectorised_formula(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The best that is easily written in torch: no copy of both, no indices of extremes."""
    larger, smaller = torch.maximum(pred, target).sum(1), torch.minimum(pred, target).sum(1)
    return torch.dot((larger / smaller).log(), weight) / weight.sum()


def released(inputs: Pairs) -> Result:
    return with_gradient(released_formula, inputs)


def vectorised(inputs: Pairs) -> Result:
    return with_gradient(vectorised_formula, inputs)


def compiled(inputs: Pairs) -> Result:
    return with_gradient(_compiled(inputs.pred.shape, torch.get_num_threads()), inputs)


@cache
def _compiled(shape: torch.Size, threads: int) -> Callable[..., Tensor]:
    """For one shape and number of threads, which inductor writes into the code."""
    torch.compiler.reset()
    return torch.compile(released_formula, dynamic=False)


def with_gradient(formula: Callable[..., Tensor], inputs: Pairs) -> Result:
    loss = formula(*inputs)
    (gradient,) = torch.autograd.grad(loss, inputs.pred)
    return loss.detach(), gradient
