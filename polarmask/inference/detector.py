"""A trained model with its preprocessing and its categories; saving and loading."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from polarmask_ops import rays_to_polygons

from ..common.files import write_whole
from ..config import Config, from_dict, to_dict
from ..data.sample import fit, limits, resize_image, stretch
from ..model import Cuts, PolarMask, build_model
from ..model.weights import misfits
from .inputs import ImageLike, as_image, as_images

FORMAT = "polarmask 1"
ROUNDING = 1e-3  # that values may lie beyond 0 and 1

logger = logging.getLogger("polarmask.detector")


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

    Examples
    --------
    >>> import torch
    >>> from polarmask import load_config
    >>> from polarmask.model import build_model
    >>> config = load_config("nuclei", model__channels=32, model__depth=1)
    >>> detector = Detector(build_model(config.model, 1), config, {1: "nucleus"})
    >>> sorted(detector(torch.zeros(64, 64)))
    ['boxes', 'centers', 'labels', 'polygons', 'rays', 'scale', 'scores']
    """

    model: PolarMask
    config: Config
    categories: dict[int, str]
    said: set[str] = field(default_factory=set, repr=False, compare=False)  # warnings that are given once

    def __call__(self, image: ImageLike | Sequence[ImageLike], *, score: float | None = None) -> Any:
        """Detections in an image, best first: those that the command ``polarmask.predict`` shows.

        Parameters
        ----------
        image : str, Path, PIL.Image.Image, array or Tensor, or a sequence or batch of them
            See :func:`polarmask.inference.inputs.as_image`. Floating-point values from 0 to 1, unless the detector
            normalises by percentiles. A batch is a tensor (B, 3, H, W) or an array (B, H, W, 3).
        score : float, optional
            Lowest score of a detection. By default the one that is kept with the weights,
            ``config.eval.score_threshold``; 0 gives all.

        Returns
        -------
        dict of str to Tensor, or a list of them for a sequence or batch
            In the image's pixels: ``boxes`` (N, 4) xyxy, ``polygons`` (N, R, 2); ``labels`` (N,) int64 and ``scores``
            (N,). In the network's: ``centers`` (N, 2) and ``rays`` (N, R); times ``scale`` (2,) they are the
            image's.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError
            If that is no image; see :func:`polarmask.inference.inputs.as_image`.
        """
        if score is not None and not 0 <= score <= 1:
            raise ValueError(f"detector: expected a score from 0 to 1, got {score}")
        if (images := as_images(image)) is not None:
            return [self(each, score=score) for each in images]
        (found,) = self.detect([image])  # type: ignore[list-item]
        least = self.config.eval.score_threshold if score is None else score
        shown = found["scores"] >= least
        return {name: value if name == "scale" else value[shown] for name, value in found.items()}

    @torch.no_grad()
    def detect(self, images: Sequence[ImageLike], between: Tensor | None = None) -> list[dict[str, Tensor]]:
        """Detections of all scores in images that go through the network together.

        ``between``: what becomes 0 and 1 where the detector normalises, see :func:`polarmask.data.sample.limits`; by
        default each image's own.
        """
        given = [as_image(image, self.config.data.channels) for image in images]
        inputs = [self.prepare(image, between) for image in given]
        self.model.eval()
        results = self.model([x.to(next(self.model.parameters()).device) for x in inputs])
        for image, x, result in zip(given, inputs, results, strict=True):
            scale = result["boxes"].new_tensor([image.shape[2] / x.shape[2], image.shape[1] / x.shape[1]])
            result["boxes"] = result["boxes"] * scale.repeat(2)
            result["polygons"] = rays_to_polygons(result["centers"], result["rays"]) * scale
            result["scale"] = scale
        self.say_cuts(getattr(self.model, "cuts", Cuts()))
        return results

    def prepare(self, image: Tensor, between: Tensor | None = None) -> Tensor:
        """The image as the network takes it: stretched by percentiles and resized."""
        data = self.config.data
        if data.percentiles is not None:
            image = stretch(image, limits(image, data.percentiles) if between is None else between)
        else:
            low, high = (float(value) for value in image.aminmax())
            if low < -ROUNDING or high > 1 + ROUNDING:
                self.say(
                    f"expected values from 0 to 1, got {low:g} to {high:g}: the detector was trained without "
                    "data.percentiles, so divide by the largest value that there can be"
                )
        if data.resize is not None:
            width, height = data.resize
            if data.test_scale is not None:
                width, height = round(width * data.test_scale / height), data.test_scale
            image = resize_image(image, fit((image.shape[1], image.shape[2]), (width, height), data.keep_aspect))
        return image

    @property
    def max_detections(self) -> int | None:
        """Most detections of an image; None where the network, perhaps of another's making, has no limit."""
        return self.model.postprocess.max_detections if hasattr(self.model, "postprocess") else None

    def with_limits(self, **limits: int | None) -> "Detector":
        """The detector with other limits, and the same weights.

        Parameters
        ----------
        max_candidates, max_detections : int or None
            Candidates of each level, and detections of an image; None: all.
        """
        if unknown := set(limits) - {"max_candidates", "max_detections"}:
            raise TypeError(
                f"with_limits: expected max_candidates and max_detections, got {', '.join(sorted(unknown))}"
            )
        for name, limit in limits.items():
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise ValueError(f"with_limits: expected {name} of at least 1, or None, got {limit!r}")
        if not hasattr(self.model, "postprocess"):  # a network of another's making
            return self
        model = copy(self.model)
        model.postprocess = model.postprocess._replace(**limits)  # type: ignore[arg-type]
        config = replace(self.config, model=replace(self.config.model, **limits))  # type: ignore[arg-type]
        return replace(self, model=model, config=config)

    @contextmanager
    def counted(self) -> Iterator[Cuts]:
        """Counts what the limits leave out within the block, instead of a warning for each image."""
        before, self.model.cuts = getattr(self.model, "cuts", None), Cuts()
        said_before = "cuts" in self.said
        self.said.add("cuts")
        try:
            yield self.model.cuts
        finally:
            self.model.cuts = before or Cuts()
            if not said_before:
                self.said.discard("cuts")

    def say_cuts(self, cuts: Cuts) -> None:
        """Warns, once for a detector, where the limits left something out: how much, and what to set."""
        if not cuts.images or "cuts" in self.said:
            return
        self.said.add("cuts")
        names = [f"max_{kind}" for kind in ("detections", "candidates") if getattr(cuts, kind)]
        limits = " and ".join(f"{name} is {getattr(self.model.postprocess, name)}" for name in names)
        options = " ".join(f"--{name} null" for name in names)
        arguments = ", ".join(f"{name}=None" for name in names)
        logger.warning(
            f"{cuts}: model.{limits}. To have all, set {options} (predict, evaluate), --model.{names[0]} null (train) "
            f"or detector.with_limits({arguments})"
        )

    def say(self, text: str) -> None:
        """Logs a warning, once for all texts that begin with the same words, up to the first comma."""
        if (kind := text.split(",")[0]) not in self.said:
            self.said.add(kind)
            logger.warning("%s", text)

    def save(self, path: str | Path) -> None:
        """Writes weights, configuration and categories as safetensors; a reader never sees half a file."""
        about = {"config": to_dict(self.config), "categories": list(self.categories.items())}
        state = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        write_whole(Path(path), save(state, {"format": FORMAT, "polarmask": json.dumps(about)}))


def load(path: str | Path, device: str | torch.device = "cpu") -> Detector:
    """The detector that :meth:`Detector.save` wrote, on a device; nothing is unpickled.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If ``path`` is no file.
    ValueError
        If the file is broken, or not of polarmask.
    """
    path = Path(path)
    _check_file(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"load: expected weights of polarmask in {path}, got a file that is not safetensors, or not a whole one "
            f"({error}){_other_weights(path)}"
        ) from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"load: expected weights of format {FORMAT!r} in {path}, got {metadata.get('format')!r}; weights of other "
            "programs cannot be loaded, but python -m polarmask.convert takes those of the released PolarMask"
        )
    try:
        about = json.loads(metadata["polarmask"])
        categories = _categories(about["categories"])
        config = from_dict(about["config"])
        model = build_model(config.model, len(categories))
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # parts are missing, or of other types
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"load: expected a configuration and categories in {path}, got {reason}") from error
    _fill(model, state, path)
    return Detector(model.eval().to(device), config, categories)


def _check_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(file.name for file in path.glob("*.safetensors"))
        advice = f"; it holds {', '.join(inside)}" if inside else ""
        raise IsADirectoryError(f"load: expected a file of weights, got the folder {path}{advice}")
    if not path.exists():
        raise FileNotFoundError(f"load: expected a file of weights, got {path}, where there is none")
    with path.open("rb") as file:  # raises where it may not be read
        if not file.read(1):
            raise ValueError(f"load: expected weights of polarmask in {path}, got an empty file")


def _other_weights(path: Path) -> str:
    if path.suffix not in (".pt", ".pth", ".ckpt"):
        return ""
    return (
        "; of a run's files, last.safetensors and best.safetensors are weights; python -m polarmask.convert takes a "
        ".pth of the released PolarMask"
    )


def _categories(entries: Any) -> dict[int, str]:
    """The categories that :meth:`Detector.save` wrote, checked."""
    categories = dict(entries)
    fits = all(type(number) is int and isinstance(name, str) for number, name in categories.items())
    if not categories or len(categories) != len(entries) or not fits:
        raise ValueError(f"categories {entries!r:.200}, which are no pairs of a number and a name")
    return categories


def _fill(model: PolarMask, state: dict[str, Tensor], path: Path) -> None:
    """Loads the tensors of a file; a ValueError names those that do not fit."""
    wrong = misfits(model, state)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"load: expected the tensors of its configuration in {path}: {', '.join(wrong[:3])}{more}")
    model.load_state_dict(state)
