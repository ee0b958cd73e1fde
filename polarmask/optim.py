"""Optimizer, learning rate and moving average."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.ops import DeformConv2d

from .config import OptimConfig


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
    # Fused kernels leave a step out on the device, see skip_unless().
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def skip_unless(finite: Tensor, optimizer: Any) -> None:
    """Makes the next step of a fused optimizer do nothing where ``finite`` () is false, without reading it."""
    while hasattr(optimizer, "optimizer"):  # Accelerate's wrapper
        optimizer = optimizer.optimizer
    optimizer.found_inf = (~finite).float()


def schedule(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """The learning rate of a step, as a share of ``config.lr``."""
    warmup = min(1.0, 1 / 3 + 2 / 3 * step / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        return warmup * (1 + math.cos(math.pi * step / (steps_per_epoch * config.epochs))) / 2
    return warmup * 0.1 ** sum(step >= milestone * steps_per_epoch for milestone in config.milestones)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model's parameters and buffers.

    The decay starts lower, at (1 + n) / (10 + n) after n updates, so that the first, random weights are soon forgotten.
    """

    @torch.no_grad()
    def average(averaged: Any, current: Any, count: Any) -> None:
        share = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        if averaged[0].is_floating_point():  # all of them: they come sorted by dtype
            torch._foreach_lerp_(averaged, current, share)
        else:
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=cast(Callable[..., None], average), use_buffers=True)
