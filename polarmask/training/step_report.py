"""The losses of a step, copied from the device while the next step runs."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.files import write_whole
from ..data import DataError, DataSet, Files
from ..data.subset import Subset

Part = tuple[list[Tensor], list[dict[str, Any]], list[int | str]]  # images, targets, ids


@dataclass
class StepReport:
    """The values of a step; :meth:`read` waits for the device.

    Attributes
    ----------
    step : int
        The step's number, from 1.
    names : list of str
        The losses' names.
    values : Tensor, shape (2 + len(names),)
        The share of the processes in which all is finite, the share of those that a signal asked to stop, and the
        losses.
    arrived : torch.cuda.Event or None
        Recorded behind the copy of ``values``.
    parts : list of Part
        The images, targets and ids of the step.
    """

    step: int
    names: list[str]
    values: Tensor
    arrived: torch.cuda.Event | None
    parts: list[Part]

    @classmethod
    def send(cls, step: int, names: list[str], values: Tensor, parts: list[Part]) -> "StepReport":
        """A report whose values are being copied from the device."""
        arrived = None
        if values.is_cuda:
            values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        return cls(step, names, values, arrived, parts)

    def read(self) -> tuple[bool, bool, dict[str, float]]:
        """Waits for the values.

        Returns
        -------
        (bool, bool, dict of str to float)
            Whether losses and gradients are finite in all processes, whether a signal asked one of them to stop, and
            the losses by ``loss/NAME``.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        finite, stop, *losses = self.values.tolist()
        return finite == 1, stop > 0, {f"loss/{name}": loss for name, loss in zip(self.names, losses, strict=True)}

    @property
    def image_ids(self) -> list[int | str]:
        """The ids of the images of all parts."""
        return [image_id for part in self.parts for image_id in part[2]]

    def write_batch(self, path: Path) -> None:
        """Writes the images and targets as tensors alone, which are read again without unpickling."""
        content = {
            "step": self.step,
            "image_ids": self.image_ids,
            "images": [image.cpu() for part in self.parts for image in part[0]],
            "targets": [_plain(target) for part in self.parts for target in part[1]],
        }
        file = io.BytesIO()
        torch.save(content, file)
        write_whole(path, file.getvalue())


def image_names(data: DataSet, image_ids: list[int | str]) -> list[str]:
    """The files of images by their ids; the ids where there are no files."""
    whole, indices = (data.data, data.indices) if isinstance(data, Subset) else (data, range(len(data)))
    files = {}
    if isinstance(whole, Files):
        wanted = set(image_ids)
        for index in indices:
            image_id = whole.image_id(index)
            if image_id in wanted:
                try:
                    files[image_id] = str(whole.path(index))
                except DataError:
                    continue
    return [files.get(image_id, str(image_id)) for image_id in image_ids]


def _plain(target: dict[str, Any]) -> dict[str, Tensor]:
    outlines = target["outlines"]
    others = {name: value for name, value in target.items() if name != "outlines"}
    return {**others, "segments": outlines.segments, "offsets": outlines.offsets}
