"""Optimizer, learning rate and moving average."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.ops import DeformConv2d

from ..config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; the biases of convolutions have their own factors, norm layers have not."""
    biases: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                convolution = isinstance(module, nn.Conv2d | DeformConv2d)
                (biases if convolution and name == "bias" else others).append(parameter)
    groups = [
        {"params": others, "factor": 1.0, "weight_decay": config.weight_decay},
        {
            "params": biases,
            "factor": config.bias_lr_factor,
            "weight_decay": config.weight_decay * config.bias_decay_factor,
        },
    ]
    # Fused kernels can skip a step on the device, see skip_step_if_nonfinite().
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=0.9, fused=True)
        for parameter in [*others, *biases]:  # if the first step is skipped, torch would leave it uninitialised
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def skip_step_if_nonfinite(finite: Tensor, optimizer: Any) -> None:
    """Lets the next step of a fused optimizer change nothing if ``finite`` is false, without a wait for the device.

    Parameters
    ----------
    finite : Tensor, shape (), bool
    optimizer : Optimizer
        Fused, perhaps in Accelerate's wrapper.
    """
    while hasattr(optimizer, "optimizer"):  # Accelerate's wrapper
        optimizer = optimizer.optimizer
    optimizer.found_inf = (~finite).float()


def schedule(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """The learning rate of a step, as a share of ``config.lr``."""
    warmup = min(1.0, 1 / 3 + 2 / 3 * step / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        return warmup * (1 + math.cos(math.pi * step / (steps_per_epoch * config.epochs))) / 2
    return warmup * 0.1 ** sum(step >= milestone * steps_per_epoch for milestone in config.milestones)


class MovingAverage(AveragedModel):
    """The exponential moving average of a model's parameters and buffers.

    After n updates the decay is at most (1 + n) / (10 + n), so that the random initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves the average towards the model's tensors.

        Unlike the base class's method it keeps the counter on the CPU, so that the host does not wait for a GPU.
        """
        count = int(self.n_averaged)
        share = 1 - min(self.decay, (1 + count) / (10 + count)) if count else 1.0
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        averaged, current = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averaged, current, share)
        for to, value in pairs:
            if not to.is_floating_point():
                to.copy_(value)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
