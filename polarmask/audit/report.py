"""The audit as tables, plots and pictures."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from ..common.files import write_whole
from ..data import DataError
from ..data.images import read_image
from ..data.problems import ERRORS, WARNINGS
from ..inference import draw
from .collect import RAYS, Audit, ClassAudit, Worst, bin_edges, nearest_rays, suggest

TERMINAL_CLASSES = 20
PLOTTED_CLASSES = 30
MARGIN = 0.3  # around a picture's instance, as a share of its size
PICTURE = 400  # pixels


def show(result: Audit, console: Console) -> None:
    """Prints the audit."""
    total = result.total
    console.print(
        f"{escape(result.data.format)}: {result.images} images ({result.empty_images} without instances), "
        f"{total.instances} instances, {total.crowds} of them crowds"
    )
    problems = Table("", Column("", justify="right"), Column("such as", overflow="fold"), title="Problems", box=SIMPLE)
    for _, error, about, count, places in _problems(result):
        name = f"[red]{about}[/red]" if error else about
        problems.add_row(name, str(count), escape(places[0]) if places else "")
    if result.problems:
        console.print(problems)
    columns = [n for n, name in enumerate(_header()) if name not in ("crowds", "small", "large")]
    table = Table(title="IoU that rays from the centroid can reach, the mean", box=SIMPLE)
    for n in columns:
        table.add_column(_header()[n].removesuffix(" rays"), justify="right" if n else "left")
    rows = _rows(result)
    for row in rows[: TERMINAL_CLASSES + 1]:
        table.add_row(*(escape(row[n]) for n in columns))
    console.print(table)
    if len(rows) > TERMINAL_CLASSES + 1:
        console.print(f"and {len(rows) - TERMINAL_CLASSES - 1} classes with fewer instances")
    console.print(
        f"{_share(result.contested, result.points)} of the assigned points lie in the range of several instances"
    )
    if total.measured:
        best = suggest(result)
        console.print(f"suggested: {best.num_rays} rays, strides {best.strides}, ranges {best.ranges}", markup=False)
    if result.reasons:
        console.print(f"[red]training may not start:[/red] {'; '.join(result.reasons)}")
    else:
        console.print("[green]training may start[/green]")


def write_html(result: Audit, path: Path) -> None:
    """Writes the audit as one file, with plots and pictures."""
    template = Environment(loader=PackageLoader("polarmask.audit", "."), autoescape=True).get_template("report.html")
    total = result.total
    page = template.render(
        root=str(result.config.data.root),
        format=result.data.format,
        images=result.images,
        empty=result.empty_images,
        instances=total.instances,
        crowds=total.crowds,
        reasons=result.reasons,
        problems=list(_problems(result)),
        header=_header(),
        rows=_rows(result),
        contested=_share(result.contested, result.points),
        suggestion=suggest(result),
        plots=[_png(figure) for figure in (_plot_ceilings(result), _plot_sizes(result), _plot_classes(result))],
        pictures=list(_pictures(result)),
        shown=RAYS[nearest_rays(result.config.model.num_rays)],
    )
    write_whole(path, page.encode(errors="replace"))


def _problems(result: Audit) -> Iterator[tuple[str, bool, str, int, list[str]]]:
    """Kind, whether it is an error, its words, how many, some places."""
    stops = result.config.data.invalid == "raise"
    for kind, about in {**ERRORS, **WARNINGS}.items():
        if result.problems[kind]:
            yield kind, stops and kind in ERRORS, about, result.problems[kind], result.examples[kind]


def _header() -> list[str]:
    rays = [f"{count} rays" for count in RAYS]
    return ["class", "instances", "crowds", "small", "large", "parts", "outside", *rays]


def _rows(result: Audit) -> list[list[str]]:
    """All classes together, and each, the most frequent first."""
    total = result.total
    named = sorted(result.classes.items(), key=lambda item: -item[1].instances)
    return [_row("all", total), *(_row(name, each) for name, each in named if each.instances or len(named) < 100)]


def _row(name: str, of: ClassAudit) -> list[str]:
    shares = [_share(of.small, of.measured), _share(of.large, of.measured), _share(of.parts, of.instances)]
    means = [f"{mean:.3f}" if of.measured else "–" for mean in of.means()]
    return [name, str(of.instances), str(of.crowds), *shares, _share(of.outside, of.measured), *means]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _plot_ceilings(result: Audit) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    named = sorted(result.classes.items(), key=lambda item: -item[1].measured)[:10]
    for name, of in named if len(result.classes) > 1 else []:
        if of.measured:
            axes.plot(RAYS, of.means(), "o-", alpha=0.5, label=_plain(name))
    axes.plot(RAYS, result.total.means(), "ko-", lw=2, label="all")
    axes.set(xlabel="rays", ylabel="mean IoU at most", xscale="log", xticks=RAYS, xticklabels=RAYS)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _plot_sizes(result: Audit) -> Figure:
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for histogram, label in ((result.total.sides, "shorter side"), (result.total.reach, "farthest from the centroid")):
        axes.stairs(histogram, bin_edges(), fill=True, alpha=0.5, label=label)
    filled = np.flatnonzero(result.total.sides + result.total.reach)
    last = bin_edges()[filled[-1] + 1] if len(filled) else 2
    axes.set(xscale="log", xlim=(1, last), xlabel="pixels of the network's input", ylabel="instances")
    axes.legend()
    return figure


def _plot_classes(result: Audit) -> Figure:
    named = sorted(result.classes.items(), key=lambda item: -item[1].instances)[:PLOTTED_CLASSES]
    figure = Figure(figsize=(8, 0.6 + 0.25 * len(named)), layout="constrained")
    axes = figure.subplots()
    axes.barh([_plain(name) for name, _ in named][::-1], [of.instances for _, of in named][::-1])
    axes.set(xlabel="instances")
    return figure


def _plain(name: str) -> str:
    """The name with dollar signs escaped, between which matplotlib would typeset mathematics."""
    return name.replace("$", r"\$")


def _pictures(result: Audit) -> Iterator[tuple[str, str]]:
    """The instances that rays reach least of, lowest first, and a line about each."""
    for entry in result.worst:
        try:
            picture = _picture(result, entry)
        except DataError:
            continue  # the image is already among the problems
        path = result.data.path(entry.image)
        yield _png(picture), f"IoU {-entry.priority:.2f}, {entry.category}: {path}, annotation {entry.id}"


def _picture(result: Audit, entry: Worst) -> Image.Image:
    image = read_image(result.data.path(entry.image), result.config.data.channels)
    box = entry.outlines.boxes()[0]
    margin = MARGIN * float((box[2:] - box[:2]).max())
    left, top = (max(int(value - margin), 0) for value in box[:2])
    right, bottom = (int(value + margin) + 1 for value in box[2:])
    part = image[:, top:bottom, left:right]
    canvas, factor = draw.shown(part)
    zoom = PICTURE / max(canvas.size)
    canvas = canvas.resize((round(canvas.width * zoom), round(canvas.height * zoom)))
    scale = factor * zoom
    shift = entry.polygon.new_tensor([left, top])
    pen = ImageDraw.Draw(canvas)
    segments = (entry.outlines.segments - shift.repeat(2)) * scale
    for x0, y0, x1, y1 in segments.tolist():
        pen.line([x0, y0, x1, y1], fill="white", width=2)
    points = [tuple(point) for point in ((entry.polygon - shift) * scale).tolist()]
    pen.line([*points, points[0]], fill=(255, 90, 0), width=2)
    return canvas.convert("RGB")


def _png(picture: Figure | Image.Image) -> str:
    file = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(file, format="png", dpi=110)
    else:
        picture.save(file, "png")
    return base64.b64encode(file.getvalue()).decode()
