"""Weights from files, and whether they fit a network."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn


def misfits(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``network.load_state_dict(state)`` from working, a few words for each tensor.

    Parameters
    ----------
    network : nn.Module
    state : mapping of str to Tensor

    Returns
    -------
    list of str
        Tensors that are missing, then those that have no place, then those of another shape; empty if all fit.

    Examples
    --------
    >>> misfits(nn.Linear(2, 1), {"weight": torch.zeros(1, 3), "scale": torch.zeros(1)})
    ['bias is missing', 'scale has no place', 'weight is (1, 3) instead of (1, 2)']
    """
    wanted = network.state_dict()
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - state.keys())),
        *(f"{name} has no place" for name in sorted(state.keys() - wanted.keys())),
        *(
            f"{name} is {tuple(state[name].shape)} instead of {tuple(value.shape)}"
            for name, value in wanted.items()
            if name in state and state[name].shape != value.shape
        ),
    ]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict (.safetensors, or .pth, which may also hold it as ``state_dict`` in a checkpoint).

    Nothing is unpickled but tensors and plain containers.

    Raises
    ------
    ValueError
        If the file is damaged, would run code, or holds no state dict.
    FileNotFoundError
        If there is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"read_weights: expected a file of weights, got {path}")
    if Path(path).suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, AttributeError, LookupError) as error:
        raise ValueError(
            f"read_weights: expected tensors and plain containers in {path}, got a file that is damaged, holds "
            "more, or is none that torch.save wrote"
        ) from error
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"read_weights: expected names and tensors in {path}, got {type(content).__name__}")
    return dict(content)


def _read_safetensors(path: str | Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if "polarmask" in about:
                raise ValueError(
                    f"read_weights: expected the state dict of a classification network in {path}, got a detector that "
                    "polarmask.train wrote; --resume goes on with a training"
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"read_weights: expected a safetensors file in {path}, got one that is damaged or something else: {error}"
        ) from error
