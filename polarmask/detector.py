"""A trained model with what belongs to it: how its images are prepared and what its labels mean. Saved and loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from polarmask_ops import rays_to_polygons

from .config import Config, from_dict, to_dict
from .data.sample import fit, limits, resize_image, stretch
from .files import write_whole
from .model import PolarMask, build_model

FORMAT = "polarmask 1"


@dataclass(frozen=True)
class Detector:
    """Detects instances in images of any size.

    Attributes
    ----------
    model : PolarMask
    config : Config
        Of its training.
    categories : dict of int to str
        Names by the id that results are written with; labels count them from 0.
    """

    model: PolarMask
    config: Config
    categories: dict[int, str]

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Detections in an image, best first.

        Parameters
        ----------
        image : Tensor, shape (3, H, W), float
            Red, green, blue from 0 to 1.

        Returns
        -------
        dict of str to Tensor
            In the image's pixels: ``boxes`` (N, 4) xyxy, ``polygons`` (N, R, 2); ``labels`` (N,) int64 and ``scores``
            (N,). In the network's: ``centers`` (N, 2) and ``rays`` (N, R); times ``scale`` (2,) they are the
            image's.
        """
        (result,) = self.detect([image])
        return result

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor], between: Tensor | None = None) -> list[dict[str, Tensor]]:
        """Detections in images that go through the network together.

        ``between``: what becomes 0 and 1 where the detector normalises, see :func:`polarmask.data.sample.limits`; by
        default each image's own.
        """
        inputs = [self.prepare(image, between) for image in images]
        self.model.eval()
        results = self.model([x.to(next(self.model.parameters()).device) for x in inputs])
        for image, x, result in zip(images, inputs, results, strict=True):
            scale = result["boxes"].new_tensor([image.shape[2] / x.shape[2], image.shape[1] / x.shape[1]])
            result["boxes"] = result["boxes"] * scale.repeat(2)
            result["polygons"] = rays_to_polygons(result["centers"], result["rays"]) * scale
            result["scale"] = scale
        return results

    def prepare(self, image: Tensor, between: Tensor | None = None) -> Tensor:
        """The image as the network sees it."""
        data = self.config.data
        if data.percentiles is not None:
            image = stretch(image, limits(image, data.percentiles) if between is None else between)
        if data.resize is not None:
            width, height = data.resize
            if data.test_scale is not None:
                width, height = round(width * data.test_scale / height), data.test_scale
            image = resize_image(image, fit((image.shape[1], image.shape[2]), (width, height), data.keep_aspect))
        return image

    def save(self, path: str | Path) -> None:
        """Writes weights, configuration and categories as safetensors; a reader never sees half a file."""
        about = {"config": to_dict(self.config), "categories": list(self.categories.items())}
        state = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        write_whole(Path(path), save(state, {"format": FORMAT, "polarmask": json.dumps(about)}))


def load(path: str | Path, device: str | torch.device = "cpu") -> Detector:
    """The detector that :meth:`Detector.save` wrote, on a device; nothing is unpickled."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"load: expected weights of format {FORMAT!r} in {path}, got {metadata.get('format')!r}")
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about = json.loads(metadata["polarmask"])
    config = from_dict(about["config"])
    model = build_model(config.model, len(about["categories"]))
    model.load_state_dict(state)
    return Detector(model.eval().to(device), config, dict(about["categories"]))
