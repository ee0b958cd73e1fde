"""The problems of a data set, and what rays can reach of its instances; the exit status says whether it can be
trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Config, Parser, option_names

USED = {  # the options that the audit uses
    *(f"model.{name}" for name in ("num_rays", "strides", "ranges", "center_radius")),
    *(f"data.{name}" for name in ("train", "test", "images", "channels", "parts", "invalid", "crowd", "boxes")),
    *(f"data.{name}" for name in ("min_area", "min_side", "resize", "keep_aspect")),
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs ``polarmask audit``.

    Parameters
    ----------
    args : sequence of str, optional
        By default ``sys.argv`` without its first entry.

    Returns
    -------
    int
        0 if training may start, 1 if it may not.
    """
    parser = build_parser()
    parsed = parser.parse_args(args)
    parts = parser.instantiate(parsed)
    config = Config(model=parts.model, data=replace(parts.data, root=parsed.root, dataset="files"))
    parser.check(config)
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    from ..audit.collect import audit
    from ..audit.report import show, write_html
    from ..data import SPLITS, DataError, open_data

    console = Console()
    try:
        split = config.data.train if parsed.part == "train" else config.data.test
        data = open_data(parsed.root, [split] if split else SPLITS[parsed.part], config.data)
    except DataError as error:
        console.print(f"[red]training may not start:[/red] {escape(str(error))}", soft_wrap=True)
        return 1
    out = Path(parsed.report)
    out.mkdir(parents=True, exist_ok=True)

    def progress(indices: Iterator[int]) -> Any:
        return track(indices, "audit", total=len(data), console=Console(stderr=True), transient=True)

    result = audit(data, config, out / "problems.csv", not parsed.quick, progress)
    show(result, console)
    write_html(result, out / "index.html")
    console.print(
        f"{out / 'index.html'}: the same with plots and pictures; problems.csv: every problem", soft_wrap=True
    )
    return 1 if result.reasons else 0


def build_parser() -> Parser:
    """The options of ``polarmask audit``."""
    parser = Parser(description=__doc__, prog="polarmask audit")
    parser.add_argument("root", help="What data.root takes: a JSON or YAML file, or a folder.")
    parser.add_argument("--report", default="runs/audit", help="Folder for index.html and problems.csv.")
    parser.add_argument("--part", choices=["train", "test"], default="train", help="Which split of a folder.")
    parser.add_argument("--quick", action="store_true", help="Look at the headers of images only.")
    parser.add_class_arguments(Config)
    parser.leave_out(option_names(Config()) - USED)
    return parser
