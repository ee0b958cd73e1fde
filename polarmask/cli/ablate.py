"""The paper's ablations, all trained alike, as a table and a picture.

Every setting is trained with the same seeds, images and steps; a training that several ablations share is run once.
"""

import sys
from collections.abc import Sequence

from ..config import Config, Parser, build_config
from ..config.ablations import GRIDS


def main(args: Sequence[str] | None = None) -> None:
    """Runs ``polarmask ablate``.

    Parameters
    ----------
    args : sequence of str, optional
        By default ``sys.argv`` without its first entry.
    """
    parser = Parser(description=__doc__, prog="polarmask ablate")
    parser.add_argument(
        "--grid", choices=[*GRIDS, "all"], default="all", help="Which ablation; all of them by default."
    )
    parser.add_argument("--seeds", type=int, default=1, help="How many seeds every setting is trained with.")
    parser.add_class_arguments(Config)
    parser.leave_out(["evaluate_every", "stop_after"])  # each training is evaluated at its end
    given = list(sys.argv[1:] if args is None else args)
    if not any(arg.split("=")[0] == "--config" for arg in given):
        given += ["--config", "shapes"]
    parsed = parser.parse_args(given)
    config = build_config(parser, parsed)
    from ..training.ablation import ablate, table

    rows = ablate(config, tuple(GRIDS) if parsed.grid == "all" else [parsed.grid], parsed.seeds)
    print(table(rows))
    print(f"{config.out}: ablation.md, ablation.json, ablation.png, a folder for each training")
