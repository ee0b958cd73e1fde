"""torch.vmap for the ops: the batch is folded into the rows where rows are independent, else the op runs in a loop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def register(name: str, rows: Sequence[int] = (), *, length: str | None = None) -> None:
    """Register vmap for ``torch.ops.polarmask.<name>``.

    ``rows`` are the positions of the arguments whose first dimension is the rows of the result. When only these are
    batched, the batch is folded into them and the op runs once; else it runs once an element.
    ``length`` names the last argument where only this one, an optional, fixes the length of the result.
    """
    op = getattr(torch.ops.polarmask, name)

    def fold(size: int, dims: Sequence[Any], args: list[Any]) -> Any:
        count = 0
        for k in rows:
            if args[k] is not None:
                tensor = args[k].unsqueeze(0) if dims[k] is None else args[k].movedim(dims[k], 0)
                count = tensor.shape[1]
                args[k] = tensor.expand(size, *tensor.shape[1:]).flatten(0, 1)
        result = op(*args)
        if isinstance(result, Tensor):
            return result.view(size, count, *result.shape[1:])
        return tuple(out.view(size, count, *out.shape[1:]) for out in result)

    def loop(size: int, dims: Sequence[Any], args: list[Any]) -> Any:
        results = [
            op(*(arg.select(dim, k) if isinstance(dim, int) else arg for arg, dim in zip(args, dims, strict=True)))
            for k in range(size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(torch.stack(outs) for outs in zip(*results, strict=True))

    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
        if length is not None and args[-1] is None:
            raise RuntimeError(f"{name}: vmap needs {length}, the length of the result depends on the data without it")
        batched = {k for k, dim in enumerate(in_dims) if isinstance(dim, int)}
        result = (fold if batched <= set(rows) else loop)(info.batch_size, in_dims, list(args))
        return result, (0 if isinstance(result, Tensor) else tuple(0 for _ in result))

    torch.library.register_vmap(f"polarmask::{name}", vmap)


def refuse(name: str) -> None:
    """Register a vmap that raises, for ops whose result has a length that depends on the data."""

    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
        raise RuntimeError(f"{name}: vmap is not possible, the length of the result depends on the data; use a loop")

    torch.library.register_vmap(f"polarmask::{name}", vmap)
