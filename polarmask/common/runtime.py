"""Processes of torchrun, devices and precision."""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

FAILED = 2  # the exit status of a process that ends because another one failed

Result = TypeVar("Result")
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def processes() -> PartialState:
    """The processes of torchrun, or the only one."""
    return PartialState(cpu=not torch.cuda.is_available())  # without it, Accelerate does not connect the processes


def all_or_none(function: Callable[[], Result]) -> Result:
    """Calls a function in every process of torchrun and returns its result; where it fails in one, all of them end.

    The first process in which it failed raises its error, the others SystemExit: the error is shown once, and no
    process waits for one that has ended. Within the function, processes may wait for each other by this function only.
    """
    rank = processes().process_index
    error: BaseException | None = None
    try:
        result = function()
    except (Exception, SystemExit) as raised:
        error = raised
    code = error.code if isinstance(error, SystemExit) else FAILED
    failures = gather_object([None if error is None else (isinstance(error, SystemExit), code)])
    # Errors come before processes that leave; of equals the lowest number does.
    first = min((failure[0], n, failure[1]) for n, failure in enumerate(failures) if failure) if any(failures) else None
    if first is None:
        return result
    if error is not None and first[1] == rank:
        raise error
    raise SystemExit(first[2])


def on_main(function: Callable[[], Result]) -> Result:
    """Calls a function in the main process alone; all get its result, or end as with :func:`all_or_none`."""
    result = all_or_none(lambda: function() if processes().is_main_process else None)
    return cast(Result, broadcast_object_list([result])[0])


def device_of(name: str | None) -> torch.device:
    """The device that ``--device`` names, in this process.

    Raises
    ------
    ValueError
        If the machine has no such device.
    """
    own = processes().device  # called in any case, since it makes `cuda` each process's own GPU
    try:
        device = torch.device(name or own)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
        raise ValueError(f"--device: expected a device of this machine ({', '.join(here)}), got {name}") from error
    return device


def check_precision(command: str, precision: str, device: torch.device) -> None:
    """Raises a ValueError where a mixed precision would be slower than none, or is not there."""
    if device.type != "cpu" or precision == "no":
        return
    if precision == "fp16" or not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        raise ValueError(
            f"{command}: expected precision no on this CPU, which has no arithmetic in {precision}, got {precision}"
        )


def mixed(command: str, precision: str, device: torch.device) -> torch.autocast:
    """The autocast context for a precision, which is checked first."""
    check_precision(command, precision, device)
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "no")
