"""Checks and conversions of arguments that the public functions share. Errors name op, argument, expected and got.

Each tensor argument of a public function passes one function of this file that checks its dtype. Where there are
several, they also pass ``same_device``, which ``floats`` and ``any_floats`` call. The C++ ops repeat all checks, for
``torch.ops.polarmask`` can be called directly.
"""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64
)  # fmt: skip


def _tensor(op: str, name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected {name} to be a tensor, got {type(value).__name__}")
    return value


def _common_float(op: str, tensors: dict[str, Tensor]) -> torch.dtype:
    common = None
    for name, tensor in tensors.items():
        dtype = _floating(op, name, tensor).dtype
        common = dtype if common is None or common == dtype else torch.promote_types(common, dtype)
    assert common is not None
    if len(tensors) > 1:
        same_device(op, **tensors)
    return common


def _floating(op: str, name: str, value: Any) -> Tensor:
    if _tensor(op, name, value).dtype not in FLOATS:
        raise TypeError(
            f"{op}: expected {name} of a floating-point dtype (float16, bfloat16, float32 or float64), "
            f"got {value.dtype}"
        )
    return value  # type: ignore[no-any-return]


def same_device(op: str, **tensors: Tensor | None) -> None:
    """Raise unless all tensors are on the device of the first. None is skipped."""
    given = [(name, tensor) for name, tensor in tensors.items() if tensor is not None]
    first, device = given[0][0], given[0][1].device
    for name, tensor in given[1:]:
        if tensor.device != device:
            raise ValueError(f"{op}: expected {name} on the device of {first} ({device}), got {tensor.device}")


def any_floats(op: str, **tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in their common floating-point dtype, which may be half precision."""
    return as_dtype(_common_float(op, tensors), *tensors.values())


def floats(op: str, **tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in their common floating-point dtype, at least float32."""
    common = _common_float(op, tensors)
    return as_dtype(torch.float32 if common.itemsize < 4 else common, *tensors.values())


def as_dtype(dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in this dtype. The comparison costs a tenth of a call of ``to`` that changes nothing."""
    return tuple([tensor if tensor.dtype == dtype else tensor.to(dtype) for tensor in tensors])


def float32(op: str, name: str, value: Tensor) -> Tensor:
    """Return a floating-point tensor as float32."""
    return as_dtype(torch.float32, _floating(op, name, value))[0]


def int64(op: str, name: str, value: Tensor) -> Tensor:
    """Return an int32 or int64 tensor as int64."""
    if _tensor(op, name, value).dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{op}: expected {name} of dtype int32 or int64, got {value.dtype}")
    return as_dtype(torch.int64, value)[0]


def dtype(op: str, name: str, value: Tensor, *dtypes: torch.dtype) -> Tensor:
    """Return the tensor unchanged if it has one of these dtypes."""
    got = value.dtype if isinstance(value, Tensor) else type(value).__name__
    if got not in dtypes:
        names = " or ".join(str(each).removeprefix("torch.") for each in dtypes)
        raise TypeError(f"{op}: expected {name} to be a tensor of dtype {names}, got {got}")
    return value


def choice(op: str, name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"{op}: expected {name} to be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def power(op: str, value: int) -> int:
    """Return the power of Polar IoU, 1 or 2."""
    if value not in (1, 2):
        raise ValueError(f"{op}: expected power to be 1 or 2, got {value}")
    return value


def integers(op: str, name: str, values: Sequence[int]) -> list[int]:
    """Return a list of integers; symbolic ones stay symbolic."""
    try:
        return [value if isinstance(value, (int, torch.SymInt)) else operator.index(value) for value in values]
    except TypeError as error:
        raise TypeError(f"{op}: expected {name} to be a sequence of integers, got {values!r:.80}") from error


def number(op: str, name: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{op}: expected {name} to be a number, got {value!r:.80}") from error


def image_size(op: str, size: Sequence[int]) -> tuple[int, int]:
    """Return (H, W), neither negative, with fewer than 2³¹ pixels."""
    try:
        # index() would replace a symbolic integer by its present value.
        sides = [side if isinstance(side, (int, torch.SymInt)) else operator.index(side) for side in size]
    except TypeError as error:
        raise TypeError(f"{op}: expected size to be (H, W), two integers, got {size!r}") from error
    if len(sides) != 2:
        raise ValueError(f"{op}: expected size to be (H, W), got {tuple(sides)}")
    height, width = sides
    if height < 0 or width < 0 or height * width >= 2**31:
        raise ValueError(f"{op}: expected size to be (H, W) with H, W >= 0 and H * W < 2**31, got {tuple(sides)}")
    return height, width
