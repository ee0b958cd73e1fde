"""Seeded images of overlapping star-convex and concave objects: unlimited, without a download."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from polarmask_ops import outlines_from_masks, polygons_to_labels

from .sample import Sample
from .truth import coco_truth

VERTICES = 72
MIN_VISIBLE = 30  # pixels: objects of which less is visible behind others are left out


class Shapes:
    """Blobs, stars and crescents in random colours on a noisy ground; later ones lie on top.

    Image ``index`` is a function of (seed, part, index).

    Parameters
    ----------
    count : int
        Number of images.
    size : int
        Their height and width.
    seed : int
    part : {"train", "test"}
        The two have no image in common.
    """

    categories = {1: "blob", 2: "star", 3: "crescent"}  # noqa: RUF012

    def __init__(self, count: int, size: int = 256, *, seed: int = 0, part: Literal["train", "test"] = "train") -> None:
        self.count, self.size, self.seed, self.part = count, size, seed, part

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"Shapes: expected an index below {self.count}, got {index}")
        rng = np.random.default_rng([self.seed, self.part == "test", index])
        kinds = rng.integers(0, 3, rng.integers(3, 9))
        polygons = torch.from_numpy(np.stack([self._polygon(int(kind), rng) for kind in kinds]))
        drawn = polygons_to_labels(polygons, (self.size, self.size)).numpy()
        image = self._paint(drawn, rng)
        visible = np.bincount(drawn.ravel(), minlength=len(kinds) + 1)[1:] >= MIN_VISIBLE
        masks = drawn[None] == np.flatnonzero(visible)[:, None, None] + 1
        return Sample(
            image=torch.from_numpy(image),
            outlines=outlines_from_masks(torch.from_numpy(masks), keep="all"),
            labels=torch.from_numpy(kinds[visible]),
            ignore=torch.zeros(int(visible.sum()), dtype=torch.bool),
            image_id=index,
        )

    def image_id(self, index: int) -> int:
        """The index itself."""
        return index

    def ground_truth(self, indices: Sequence[int] | None = None) -> dict[str, Any]:
        """The shapes' ground truth in COCO's format, see :class:`polarmask.data.DataSet`."""
        chosen = range(len(self)) if indices is None else indices
        return coco_truth((self[index] for index in chosen), self.categories)

    def fingerprint(self) -> dict[str, Any]:
        """The arguments that the images are generated from."""
        return {"format": "shapes", "images": self.count, "size": self.size, "seed": self.seed, "part": self.part}

    def _polygon(self, kind: int, rng: np.random.Generator) -> np.ndarray:
        radius = self.size * rng.uniform(0.06, 0.18)
        turn = rng.uniform(0, 2 * math.pi)
        angle = np.linspace(0, 2 * math.pi, VERTICES, endpoint=False)
        if kind == 2:  # a crescent: an arc and a flatter arc back, concave and not star-shaped about its centroid
            half = np.linspace(0, math.pi, VERTICES // 2)
            x = radius * np.concatenate([np.cos(half), np.cos(half[::-1])])
            y = radius * np.concatenate([np.sin(half), rng.uniform(0.3, 0.6) * np.sin(half[::-1])])
        else:
            if kind == 1:  # five points
                length = 0.6 + 0.4 * np.abs((5 * angle / (2 * math.pi)) % 1 * 2 - 1)
            else:
                waves = [rng.uniform(-0.12, 0.12) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 4)]
                length = 1 + np.sum(waves, 0)
            x, y = radius * length * np.cos(angle), radius * length * np.sin(angle)
        cos, sin = math.cos(turn), math.sin(turn)
        centre = rng.uniform(0, self.size, 2)
        return np.stack([cos * x - sin * y + centre[0], sin * x + cos * y + centre[1]], 1)

    def _paint(self, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        colours = rng.uniform(0, 1, (drawn.max() + 1, 3)).astype(np.float32)
        left, right = rng.uniform(0.7, 1.0, 2)
        shade = np.linspace(left, right, self.size, dtype=np.float32)
        noise = rng.standard_normal((3, self.size, self.size), dtype=np.float32) * 0.05
        return np.clip(colours[drawn].transpose(2, 0, 1) * shade + noise, 0, 1)
