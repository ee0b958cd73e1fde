"""Fakes of the ops: the shapes of their results without their values, for tracers and for meta tensors."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Fake = TypeVar("Fake", bound=Callable[..., Any])

DTYPES = (  # every dtype that some kernel takes
    torch.bool,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


def register(name: str) -> Callable[[Fake], Fake]:
    """Return a decorator that makes a function the fake of ``torch.ops.polarmask.<name>``.

    The fake refuses dtypes that no kernel takes, offsets without a first one, and tensors on different devices. The
    dispatcher calls it as soon as one argument is a meta tensor, and it would then return uninitialised memory on the
    device of the others.
    """

    def decorate(fake: Fake) -> Fake:
        # The C++ side names the Python module of its fakes, and torch compares it with the module of the caller.
        # _stacklevel=2 makes that the module of the decorated function. torch has no public argument for it; every
        # opcheck in tests/ops fails if it stops working.
        torch.library.register_fake(f"polarmask::{name}", _checked(name, fake), _stacklevel=2)
        return fake

    return decorate


def register_meta(name: str) -> Callable[[Fake], Fake]:
    """Return the same decorator for ops whose C++ side names another Python module, where ``register_fake`` raises."""

    def decorate(fake: Fake) -> Fake:
        torch.library.impl(f"polarmask::{name}", "Meta")(_checked(name, fake))
        return fake

    return decorate


def _checked(name: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(fake)

    @wraps(fake)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        tensors = {key: value for key, value in given.items() if isinstance(value, Tensor)}
        first = next(iter(tensors))
        for key, value in tensors.items():
            if value.dtype not in DTYPES:
                expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
                raise ValueError(f"{name}: expected {key} of a dtype among {expected}, got {value.dtype}")
            if key.endswith("offsets") and (value.dim() != 1 or value.shape[0] < 1):
                raise ValueError(f"{name}: expected {key} of shape (N + 1,), got {tuple(value.shape)}")
            if value.device != tensors[first].device:
                raise ValueError(
                    f"{name}: expected {key} on the device of {first} ({tensors[first].device}), got {value.device}"
                )
        return fake(*args, **kwargs)

    return checked
