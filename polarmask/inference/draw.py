"""Pictures: detections, the first training batch, the learning curve."""

import colorsys
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from polarmask_ops import rays_to_polygons

from ..common.files import writing
from ..data import DataSet, readable
from ..data.sample import Sample
from ..model import PolarMask
from .detector import Detector

if TYPE_CHECKING:
    from ..evaluation.matching import Matching

SMOOTH = 3  # outlines are drawn at this multiple of the size and scaled down
ENLARGE_BELOW = 600  # pixels: smaller images are drawn larger
TEXT = 2  # a text may be this many times as wide as its object
GOLDEN = 0.61803398875  # of the colour circle from one object to the next, so that neighbours' colours differ


def overlay(
    image: Tensor, polygons: Tensor, texts: Sequence[str] = (), dots: Sequence[Sequence[float]] = ()
) -> Image.Image:
    """An image with coloured polygons on it, a text at the centre of each that is not too small for it, and dots.

    Parameters
    ----------
    image : Tensor, shape (3, H, W)
        Its lowest value is drawn black, its 99.8th percentile white.
    polygons : Tensor, shape (N, R, 2)
        In pixels.
    texts : sequence of str
        None or one for each polygon.
    dots : sequence of (float, float)
        x and y, in pixels.
    """
    canvas, factor = shown(image)
    large = Image.new("RGBA", (canvas.width * SMOOTH, canvas.height * SMOOTH))
    pen = ImageDraw.Draw(large)
    for n, polygon in enumerate(polygons.cpu() * factor * SMOOTH):
        red, green, blue = _colour(n)
        points = [tuple(point) for point in polygon.tolist()]
        pen.polygon(points, fill=(red, green, blue, 60))
        pen.line([*points, points[0]], fill=(red, green, blue, 255), width=SMOOTH + 1)
    canvas.alpha_composite(large.resize(canvas.size, Image.Resampling.BOX))
    pen = ImageDraw.Draw(canvas)
    for text, polygon in zip(texts, polygons.cpu() * factor, strict=False):
        x, y = polygon.mean(0).tolist()
        # A text that is much wider than its object would hide other objects.
        if pen.textlength(text) < TEXT * float(polygon[:, 0].amax() - polygon[:, 0].amin()):
            pen.text((x, y), text, fill="white", anchor="mm")
    for x, y in dots:
        pen.circle((x * factor, y * factor), factor, fill="white")
    return canvas.convert("RGB")


def truth(sample: Sample) -> Image.Image:
    """An image with its instances' outlines."""
    canvas, factor = shown(sample.image)
    pen = ImageDraw.Draw(canvas)
    for n in range(len(sample.outlines)):
        for x0, y0, x1, y1 in (sample.outlines[n].segments * factor).tolist():
            pen.line([x0, y0, x1, y1], fill=_colour(n))
    return canvas.convert("RGB")


def sample_predictions(detector: Detector, data: DataSet, count: int = 4) -> Image.Image | None:
    """The first images of a data set, those that can be read: ground truth on the left, detections on the right."""
    threshold = detector.config.eval.score_threshold
    rows = []
    for _, sample in islice(readable(data, detector.config.data.invalid), count):
        found = detections(sample.image, detector(sample.image), detector, threshold)
        rows.append(beside([truth(sample), found]))
    if not rows:
        return None
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side."""
    sheet = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)))
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    return sheet


def detections(image: Tensor, found: dict[str, Tensor], detector: Detector, threshold: float) -> Image.Image:
    """The detections with a score of at least ``threshold``."""
    shown = found["scores"] >= threshold
    names = list(detector.categories.values())
    texts = [
        f"{names[label]} {score:.2f}" if len(names) > 1 else f"{score:.2f}"
        for label, score in zip(found["labels"][shown].tolist(), found["scores"][shown].tolist(), strict=True)
    ]
    return overlay(image, found["polygons"][shown], texts)


@torch.no_grad()
def first_batch(model: PolarMask, images: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> Image.Image:
    """The augmented images with the positive points and the polygons that their targets decode to."""
    shapes = model.level_shapes(images)
    encoded = model.encode(shapes, targets)
    points = model.head.points(shapes, encoded.rays.device)
    pictures = []
    for image, instance, rays in list(zip(images, encoded.instance, encoded.rays, strict=True))[:4]:
        positive = (instance >= 0).nonzero()[:, 0]
        which, owner = instance[positive].unique(return_inverse=True)
        one = torch.empty_like(positive[: len(which)]).scatter_(0, owner, positive)  # a point of each instance
        pictures.append(overlay(image, rays_to_polygons(points[one], rays[one]), dots=points[positive].tolist()))
    return beside(pictures)


def learning_curve(metrics: Path, path: Path) -> None:
    """The losses, and AP where it was measured, over the steps of a metrics.jsonl."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in sorted({key for line in lines for key in line if key.startswith("loss/")}):
        rows = [line for line in lines if name in line]
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    rows = [line for line in lines if "segm/AP" in line]
    right = axes.twinx()
    for name in ("segm/AP", "segm/AP50"):
        right.plot([row["step"] for row in rows], [row[name] for row in rows], "o--", label=name)
    right.set(ylabel="AP", ylim=(0, 1))
    figure.legend(loc="outside upper center", ncols=5, fontsize="small")
    _save(figure, path, dpi=150)


def precision_recall(precision: dict[str, np.ndarray], path: Path) -> None:
    """Precision over recall at IoU 0.5, 0.75 and 0.9, the mean of the categories that have instances."""
    figure = Figure(figsize=(4 * len(precision), 4), layout="constrained")
    for axes, (kind, values) in zip(figure.subplots(1, len(precision), sharey=True), precision.items(), strict=True):
        present = values[:, :, (values > -1).all((0, 1))]
        for iou, row in ((0.5, 0), (0.75, 5), (0.9, 8)):
            if present.size:
                axes.plot(np.linspace(0, 1, present.shape[1]), present[row].mean(1), label=f"IoU {iou}")
        axes.set(title=kind, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save(figure, path, dpi=150)


def matching(rows: "Sequence[Matching]", path: Path) -> None:
    """Precision, recall, F1 and panoptic quality over the IoU that a pair needs."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for name in ("precision", "recall", "F1", "PQ"):
        axes.plot([row.iou for row in rows], [getattr(row, name.lower()) for row in rows], "o-", label=name)
    axes.set(xlabel="IoU", xticks=[row.iou for row in rows], ylim=(0, 1.02))
    axes.legend()
    _save(figure, path, dpi=150)


def ablation(grids: dict[str, list[tuple[str, list[float]]]], folder: Path) -> None:
    """AP of the settings of each grid, mean and every seed, as ``ablation.png``."""
    figure = Figure(figsize=(3 * len(grids), 3.5), layout="constrained")
    panels = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
    for axes, (grid, settings) in zip(panels, grids.items(), strict=True):
        names, values = zip(*settings, strict=True)
        bars = axes.bar(names, [sum(seeds) / len(seeds) for seeds in values])
        axes.bar_label(bars, fmt="%.1f", label_type="center", color="white")
        for name, seeds in settings:
            axes.plot([name] * len(seeds), seeds, "k.", markersize=4)
        axes.tick_params("x", labelrotation=30)
        axes.set(title=grid)
    panels[0].set(ylabel="mask AP")
    _save(figure, folder / "ablation.png", dpi=120)


def shown(image: Tensor) -> tuple[Image.Image, int]:
    """The image to draw on, and the factor by which it is larger than the tensor."""
    low, high = float(image.min()), float(np.percentile(image.cpu().numpy(), 99.8))
    pixels = ((image - low) / max(high - low, 1e-6)).clamp(0, 1) * 255
    picture = Image.fromarray(pixels.byte().permute(1, 2, 0).cpu().numpy()).convert("RGBA")
    factor = 2 if max(picture.size) < ENLARGE_BELOW else 1
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BILINEAR), factor


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture, in the format of the path's suffix; a reader never sees half of it."""
    with writing(path) as temporary:
        picture.save(temporary)


def _save(figure: Figure, path: Path, dpi: int) -> None:
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _colour(n: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(n * GOLDEN % 1, 0.8, 1)
    return int(255 * red), int(255 * green), int(255 * blue)
