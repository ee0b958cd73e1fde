"""Checks and conversions of arguments that the public functions share. Errors name op, argument, expected and got."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def _tensor(op: str, name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected {name} to be a tensor, got {type(value).__name__}")
    return value


def _common_float(op: str, tensors: dict[str, Tensor]) -> torch.dtype:
    common = None
    for name, tensor in tensors.items():
        dtype = _tensor(op, name, tensor).dtype
        if not dtype.is_floating_point:
            raise TypeError(f"{op}: expected {name} of a floating-point dtype, got {dtype}")
        common = dtype if common is None or common == dtype else torch.promote_types(common, dtype)
    assert common is not None
    return common


def any_floats(op: str, **tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common floating-point dtype, half precision included."""
    return as_dtype(_common_float(op, tensors), *tensors.values())


def floats(op: str, **tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in their common floating-point dtype, at least float32."""
    common = _common_float(op, tensors)
    return as_dtype(torch.float32 if common.itemsize < 4 else common, *tensors.values())


def as_dtype(dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in this dtype. Comparing costs a tenth of the call that finds nothing to do."""
    return tuple([tensor if tensor.dtype == dtype else tensor.to(dtype) for tensor in tensors])


def float32(op: str, name: str, value: Tensor) -> Tensor:
    """A floating-point tensor as float32."""
    if not _tensor(op, name, value).is_floating_point():
        raise TypeError(f"{op}: expected {name} of a floating-point dtype, got {value.dtype}")
    return as_dtype(torch.float32, value)[0]


def int64(op: str, name: str, value: Tensor) -> Tensor:
    """An int32 or int64 tensor as int64."""
    if _tensor(op, name, value).dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{op}: expected {name} of dtype int32 or int64, got {value.dtype}")
    return as_dtype(torch.int64, value)[0]


def choice(op: str, name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"{op}: expected {name} to be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def boolean(op: str, name: str, value: Tensor) -> Tensor:
    if _tensor(op, name, value).dtype != torch.bool:
        raise TypeError(f"{op}: expected {name} of dtype bool, got {value.dtype}")
    return value


def image_size(op: str, size: Sequence[int]) -> tuple[int, int]:
    """(H, W), not negative, with less than 2³¹ pixels."""
    try:
        # Symbolic integers stay as they are: index() would fix them.
        sides = [side if isinstance(side, (int, torch.SymInt)) else operator.index(side) for side in size]
    except TypeError as error:
        raise TypeError(f"{op}: expected size to be (H, W), two integers, got {size!r}") from error
    if len(sides) != 2:
        raise ValueError(f"{op}: expected size to be (H, W), got {tuple(sides)}")
    height, width = sides
    if height < 0 or width < 0 or height * width >= 2**31:
        raise ValueError(f"{op}: expected size to be (H, W) with H, W >= 0 and H * W < 2**31, got {tuple(sides)}")
    return height, width
