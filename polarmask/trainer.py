"""Trains a detector; writes weights, metrics and pictures."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import draw
from .config import Config, OptimConfig, parse_config
from .data import build_data
from .data.loader import training_loader
from .detector import Detector
from .evaluation import evaluate, show
from .model import PolarMask, build_model
from .model.backbone import load_pretrained

FILES = {
    "predictions.png": "images that were evaluated on, what is there beside what was found",
    "first_batch.png": "the first augmented batch with its decoded targets",
    "learning_curve.png": "losses and AP over the steps",
    "metrics.json": "the final numbers",
    "metrics.jsonl": "losses every few steps, and each evaluation",
    "last.safetensors": "weights, configuration and categories at the end",
    "best.safetensors": "the same where segm/AP was best, when evaluation runs between epochs",
}


def train(config: Config) -> Detector:
    """Trains a detector.

    Writes ``FILES`` and TensorBoard's events into ``config.out``.

    Raises
    ------
    FloatingPointError
        When a loss is not finite.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=config.precision, log_with="tensorboard", project_dir=out)
    if accelerator.num_processes > 1:
        raise ValueError(f"train: expected one process, got {accelerator.num_processes}")
    accelerator.init_trackers("tensorboard")
    data = build_data(config.data, "train", config.seed)
    test = build_data(config.data, "test", config.seed)
    loader, sampler = training_loader(data, config)
    torch.manual_seed(config.seed)
    network = build_model(config.model, len(data.categories))
    if config.model.weights != "none":
        load_pretrained(network.backbone, config.model.backbone, config.model.weights)
    elif config.model.backbone != "small":
        accelerator.print("model.weights is none: GroupNorm everywhere, no stage frozen, trained from scratch")
    optimizer = build_optimizer(network, config.optim)
    model, optimizer = accelerator.prepare(network, optimizer)
    average = None
    if config.optim.ema is not None:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.optim.ema))
    detector = Detector(network if average is None else cast(PolarMask, average.module), config, data.categories)

    steps = len(loader) * config.optim.epochs
    if steps == 0:
        raise ValueError(f"train: expected images and epochs, got {len(data)} and {config.optim.epochs}")
    best = -1.0
    began = time.perf_counter()
    evaluating = 0.0
    step = 0
    with _progress() as progress, (out / "metrics.jsonl").open("w") as lines:
        bar = progress.add_task("training", total=steps, losses="")

        def log(values: dict[str, float]) -> None:
            accelerator.log(values, step=step)
            print(json.dumps({"step": step, **values}), file=lines, flush=True)

        for epoch in range(config.optim.epochs):
            sampler.epoch = epoch
            model.train()
            for images, targets in loader:
                images = [image.to(accelerator.device, non_blocking=True) for image in images]
                targets = [_to(target, accelerator.device) for target in targets]
                if step == 0:
                    draw.first_batch(network, images, targets, out / "first_batch.png")
                rate = config.optim.lr * schedule(step, len(loader), config.optim)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                losses = model(images, targets)
                optimizer.zero_grad()
                accelerator.backward(sum(losses.values()))
                accelerator.clip_grad_norm_(network.parameters(), config.optim.clip)
                optimizer.step()
                if average is not None:
                    average.update_parameters(network)
                step += 1
                progress.advance(bar)
                if step % config.log_every == 0 or step == steps:
                    values = {f"loss/{name}": loss.item() for name, loss in losses.items()}
                    if not all(map(math.isfinite, values.values())):
                        raise FloatingPointError(f"train: expected finite losses, got {values} at step {step}")
                    progress.update(bar, losses=" ".join(f"{n[5:]} {v:.3f}" for n, v in values.items()))
                    log({**values, "lr": rate})
            done = epoch + 1 == config.optim.epochs
            if done or (config.evaluate_every and (epoch + 1) % config.evaluate_every == 0):
                pause = time.perf_counter()
                metrics = evaluate(detector, test).metrics
                evaluating += time.perf_counter() - pause
                log(metrics)
                if metrics["segm/AP"] > best and config.evaluate_every:
                    best = metrics["segm/AP"]
                    detector.save(out / "best.safetensors")
                detector.save(out / "last.safetensors")
    metrics["seconds/train"] = time.perf_counter() - began - evaluating
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    draw.learning_curve(out / "metrics.jsonl", out / "learning_curve.png")
    draw.sample_predictions(detector, test, out / "predictions.png")
    accelerator.end_training()
    return detector


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; the biases of convolutions have their own factors, norm layers have not."""
    biases: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (biases if isinstance(module, nn.Conv2d) and name == "bias" else others).append(parameter)
    groups = [
        {"params": others, "factor": 1.0, "weight_decay": config.weight_decay},
        {
            "params": biases,
            "factor": config.bias_lr_factor,
            "weight_decay": config.weight_decay * config.bias_decay_factor,
        },
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr)


def schedule(step: int, steps_per_epoch: int, config: OptimConfig) -> float:
    """The learning rate of a step, as a share of ``config.lr``."""
    warmup = min(1.0, 1 / 3 + 2 / 3 * step / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        return warmup * (1 + math.cos(math.pi * step / (steps_per_epoch * config.epochs))) / 2
    return warmup * 0.1 ** sum(step >= milestone * steps_per_epoch for milestone in config.milestones)


def _to(target: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device, non_blocking=True) for name, value in target.items()}


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=Console(stderr=True),
    )


def main(args: Sequence[str] | None = None) -> None:
    """The command line."""
    config = parse_config(args, description=__doc__, prog="python -m polarmask.train")
    train(config)
    metrics = json.loads((Path(config.out) / "metrics.json").read_text())
    show(metrics)
    for name, about in FILES.items():
        path = Path(config.out) / name
        if path.exists():
            print(f"{path}: {about}")
