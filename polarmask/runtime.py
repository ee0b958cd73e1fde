"""Where a network runs, and how precisely: the options that evaluation and prediction share."""

from typing import Literal

import torch
from accelerate import PartialState

from .config import Parser

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def processes() -> PartialState:
    """Those of torchrun, or one."""
    return PartialState(cpu=not torch.cuda.is_available())  # not told, it would take the processes for strangers


def add_runtime(parser: Parser) -> None:
    """Adds ``--device`` and ``--precision``."""
    parser.add_argument(
        "--device", type=str | None, help="Where the network runs, such as cuda:1. By default a GPU where there is one."
    )
    parser.add_argument(
        "--precision", type=Literal["no", "bf16", "fp16"], default="no", help="Mixed precision; no: float32."
    )


def device_of(name: str | None) -> torch.device:
    """What ``--device`` means in this process."""
    own = processes().device  # asked in any case: from then on, `cuda` is each process's own GPU
    return torch.device(name or own)


def check_precision(command: str, precision: str, device: torch.device) -> None:
    """Raises a ValueError where a mixed precision would be slower than none, or is not there."""
    if device.type != "cpu" or precision == "no":
        return
    if precision == "fp16" or not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        raise ValueError(
            f"{command}: expected precision no on this CPU, which has no arithmetic in {precision}, got {precision}"
        )


def mixed(command: str, precision: str, device: torch.device) -> torch.autocast:
    """What networks run in; checked first."""
    check_precision(command, precision, device)
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "no")
