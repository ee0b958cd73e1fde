"""One step of training. Nothing in it waits for the device."""

from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from ..model.loss import normalizers
from .optim import skip_step_if_nonfinite
from .run import Run
from .step_report import Part, StepReport


def take_step(run: Run, parts: list[Part], stop: bool = False) -> StepReport:
    """Updates the weights once.

    Parameters
    ----------
    run : Run
    parts : list of Part
        The batches that gradients are accumulated over.
    stop : bool
        Whether a signal asked this process to stop; the report carries it to all processes.

    Returns
    -------
    StepReport
        Its values are on their way from the device.

    Raises
    ------
    torch.OutOfMemoryError
        With what to change.
    """
    try:
        names, values = update(run, parts, stop)
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"train: out of memory with {len(parts[0][0])} images at once; raise optim.accumulate, set precision "
            f"to bf16, lower data.resize or optim.batch_size, or train in more processes ({error})"
        ) from error
    run.progress.step += 1
    return StepReport.send(run.progress.step, names, values, parts)


def update(run: Run, parts: list[Part], stop: bool = False) -> tuple[list[str], Tensor]:
    """The update of :func:`take_step`; returns the losses' names, and the values of a StepReport, on the device."""
    network, accelerator, device = run.network, run.accelerator, run.accelerator.device
    images = [[image.to(device, non_blocking=True) for image in part[0]] for part in parts]
    given = [[_to(target, device) for target in part[1]] for part in parts]
    targets = [network.encode(network.level_shapes(x), network.check(x, t)) for x, t in zip(images, given, strict=True)]
    # The sum over all parts, the mean over the processes: DDP averages their gradients.
    divide_by = accelerator.reduce(torch.stack([normalizers(part) for part in targets]).sum(0), "mean")

    rate = run.learning_rate(run.progress.step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["factor"]

    run.optimizer.zero_grad()
    total: dict[str, Tensor] = {}
    for n, (x, part) in enumerate(zip(images, targets, strict=True), 1):
        with nullcontext() if n == len(parts) else accelerator.no_sync(run.model):
            losses = run.model(x, part, divide_by)
            accelerator.backward(sum(losses.values()))
        total = {name: loss.detach() + total.get(name, 0.0) for name, loss in losses.items()}

    norm = accelerator.clip_grad_norm_(network.parameters(), run.config.optim.clip)
    values = torch.stack(list(total.values()))
    finite = values.isfinite().all()
    if run.config.precision != "fp16":  # in which gradients overflow now and then, and the scaler skips the step
        finite &= cast(Tensor, norm).isfinite()
        skip_step_if_nonfinite(finite, run.optimizer)
    run.optimizer.step()
    if run.average is not None:
        run.average.update_parameters(network)

    stops = values.new_full((1,), float(stop))
    return list(total), accelerator.reduce(torch.cat([finite.to(values)[None], stops, values]), "mean")


def _to(target: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device, non_blocking=True) for name, value in target.items()}
