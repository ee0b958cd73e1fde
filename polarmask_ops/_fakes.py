"""Fakes of the ops: the shapes of their results without their values, for tracers and for meta tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DTYPES = (  # of all kernels together
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


def register(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that makes a function the fake of ``torch.ops.polarmask.<name>``.

    The fake refuses dtypes that no kernel has, and tensors on different devices. The dispatcher calls it as soon as one
    argument is a meta tensor, and it would then return memory that nobody has written on the device of the others.
    """
    arguments = [argument.name for argument in getattr(torch.ops.polarmask, name).default._schema.arguments]

    def decorate(fake: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = {**dict(zip(arguments, args, strict=False)), **kwargs}
            tensors = {key: value for key, value in given.items() if isinstance(value, Tensor)}
            first = next(iter(tensors))
            for key, value in tensors.items():
                if value.dtype not in DTYPES:
                    expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
                    raise ValueError(f"{name}: expected {key} of a dtype among {expected}, got {value.dtype}")
                if value.device != tensors[first].device:
                    raise ValueError(
                        f"{name}: expected {key} on the device of {first} ({tensors[first].device}), got {value.device}"
                    )
            return fake(*args, **kwargs)

        # torch wants the fake in the module that the C++ side names: that of the decorated function.
        torch.library.register_fake(f"polarmask::{name}", checked, _stacklevel=2)
        return fake

    return decorate
