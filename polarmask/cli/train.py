"""Trains a detector; writes weights, metrics and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..config import parse_config
from .metrics import show_metrics


def main(args: Sequence[str] | None = None) -> None:
    """Runs ``polarmask train``.

    Parameters
    ----------
    args : sequence of str, optional
        By default ``sys.argv`` without its first entry.
    """
    config = parse_config(args, description=__doc__, prog="polarmask train")
    from ..common.runtime import processes
    from ..training.run_folder import FILES
    from ..training.trainer import train

    train(config)
    if not processes().is_main_process:
        return
    metrics = json.loads((Path(config.out) / "metrics.json").read_text())
    if not metrics.pop("evaluated", True):
        print("nothing was evaluated: there are no images for it")
    show_metrics(metrics)
    for name, about in FILES.items():
        path = Path(config.out) / name
        if path.exists():
            print(f"{path}: {about}")
