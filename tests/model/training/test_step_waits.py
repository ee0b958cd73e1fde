"""On a GPU, a step never waits for the device."""

import contextlib
import traceback
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polarmask.config import parse_config
from polarmask.training.optim import build_optimizer
from polarmask.training.run import Run
from polarmask.training.step import take_step, update


class Reads(TorchDispatchMode):
    """Notes where values are read back, which a GPU would have to finish its work for."""

    def __init__(self):
        super().__init__()
        self.places = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.places.append([Path(frame.filename).name for frame in traceback.extract_stack()])
        return function(*args, **(kwargs or {}))


def test_a_step_waits_for_nothing(run, tmp_path):
    run = Run(parse_config([*run[0], "--out", str(tmp_path)]))
    batches = iter(run.loader)
    take_step(run, [next(batches)])  # makes what is made once
    with Reads() as reads:
        report = take_step(run, [next(batches)])
    # The counter of the moving average is on the CPU always; labels are checked there only.
    places = [place for place in reads.places if not {"optim.py", "polarmask.py"} & set(place)]
    assert places == []
    with Reads() as reads:
        report.values[0].item()
    assert reads.places


LENGTHS_FROM_VALUES = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::repeat_interleave"}


def test_no_shape_in_a_step_depends_on_values(run, tmp_path):
    """On a GPU the host would wait for such a length; the dispatch mode above does not see those inside other ops."""
    run = Run(parse_config([*run[0], "--out", str(tmp_path)]))
    batches = iter(run.loader)
    take_step(run, [next(batches)])  # makes what is made once
    parts = [next(batches)]
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        take_step(run, parts)
    names = {event.name for event in profiler.events()}
    assert "polarmask::encode_targets" in names
    assert not names & LENGTHS_FROM_VALUES
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        x = torch.zeros(3)
        x[x > 0]
    assert {event.name for event in profiler.events()} & LENGTHS_FROM_VALUES


class Waits(TorchDispatchMode):
    """Notes what the host of a GPU would wait for: values that it reads, lengths it needs, copies that block."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_cuda:
            self.found.append(function)
        result = function(*args, **kwargs)
        devices = {each.device.type for each in tree_leaves((args, kwargs, result)) if isinstance(each, torch.Tensor)}
        blocks = "copy" in function.name() and len(devices) > 1 and not kwargs.get("non_blocking", args[2:3] == (True,))
        if blocks or ("cuda" in devices and function.name() in LENGTHS_FROM_VALUES):
            self.found.append(function)
        return result


def test_a_step_on_a_gpu_would_wait_for_nothing(run, tmp_path, monkeypatch):
    """Tensors without values that say they are on one; all but the backward pass, which would look for it."""
    run = Run(parse_config([*run[0], "--out", str(tmp_path)]))
    parts = [next(iter(run.loader))]

    def backward(loss):
        assert loss.is_cuda
        for parameter in run.network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Accelerator, "device", torch.device("cuda"))
    monkeypatch.setattr(run.accelerator, "backward", backward)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network in (run.network, run.average.module):
            network.to_empty(device="cuda")
        run.optimizer = build_optimizer(run.network, run.config.optim)
        with Waits() as waits:
            names, values = update(run, parts)
        assert waits.found == []
        assert (values.device.type, len(values)) == ("cuda", 2 + len(names))
        with Waits() as waits, contextlib.suppress(DataDependentOutputException):
            values.cpu()
            values.copy_(torch.zeros(len(values)))
            values.new_tensor(1)
            values[0].item()
        assert len(waits.found) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_step_on_this_gpu_waits_for_nothing(run, tmp_path):
    run = Run(parse_config([*run[0], "--out", str(tmp_path)]))
    batches = iter(run.loader)
    take_step(run, [next(batches)])  # makes what is made once
    parts = [next(batches)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        take_step(run, parts)
    finally:
        torch.cuda.set_sync_debug_mode("default")
