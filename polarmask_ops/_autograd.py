"""Gradients of ops: as ``torch.library.register_autograd`` registers them, at a fraction of what it costs a call."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_torch: Any = torch  # what torch.library itself is written with has no types
_C = _torch._C
_library = _torch.library.Library("polarmask", "FRAGMENT")


def register(
    name: str, backward: Callable[..., Sequence[Tensor | None]], save: Callable[[Any, tuple[Any, ...], Any], None]
) -> None:
    """Give ``torch.ops.polarmask.<name>`` a formula.

    ``save(ctx, inputs, output)`` keeps what ``backward(ctx, *grads)`` needs. Gradients that nobody asked for come as
    None, not as zeros. The schema must not have defaults: the dispatcher leaves them out of the inputs.
    """
    op = getattr(torch.ops.polarmask, name).default

    def below(keyset: Any, args: Sequence[Any]) -> Any:
        with _C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & _C._after_autograd_keyset, *args)

    class Formula(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keyset: Any, *args: Any) -> Any:
            output = below(keyset, args)
            ctx.set_materialize_grads(False)
            save(ctx, args, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return None, *backward(ctx, *grads)

    def autograd(keyset: Any, *args: Any) -> Any:
        if torch.is_grad_enabled() and _C._any_requires_grad(*args):
            return Formula.apply(keyset, *args)
        return below(keyset, args)

    Formula.__name__ = Formula.__qualname__ = f"polarmask_{name}"
    Formula._backward_cls.__name__ = f"polarmask_{name}Backward"  # what errors and profiles show
    _library.impl(name, autograd, "Autograd", with_keyset=True)
