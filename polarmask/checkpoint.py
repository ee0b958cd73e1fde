"""What a run that was stopped goes on from: files under OUT/checkpoints, whole or not there at all."""

import io
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .config import Config, to_dict
from .files import write_whole

FORMAT = "polarmask checkpoint 1"
FOLDER = "checkpoints"
NAME = re.compile(r"step_(\d{9})\.pt")
# Where a run writes and how often it looks up changes nothing of what is learned.
MAY_CHANGE = {"out", "resume", "overwrite", "log_every", "checkpoint_every", "keep_checkpoints", "tracker"}


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    step : int
        Steps done.
    best : float
        The highest segm/AP of an evaluation, −1 before the first.
    since_best : int
        Evaluations since then.
    seconds : float
        Of training, evaluation left out.
    metrics : dict of str to float
        Of the last evaluation.
    """

    step: int
    best: float
    since_best: int
    seconds: float
    metrics: dict[str, float]


def list_checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted(path for path in (out / FOLDER).glob("step_*.pt") if NAME.fullmatch(path.name))


def find_checkpoint(out: Path, resume: str | None, overwrite: bool) -> Path | None:
    """What to go on from; none to begin anew.

    Raises
    ------
    FileExistsError
        If a new run would overwrite another.
    FileNotFoundError
        If ``resume`` is a path at which nothing is.
    """
    existing = list_checkpoints(out)
    if resume == "auto":
        return existing[-1] if existing else None
    if resume is not None:
        if not Path(resume).is_file():
            raise FileNotFoundError(f"train: expected resume to be auto or a checkpoint, got {resume}")
        return Path(resume)
    if existing and not overwrite:
        raise FileExistsError(
            f"train: {out} holds another run, of {int(NAME.fullmatch(existing[-1].name)[1])} steps; go on with it "  # type: ignore[index]
            "(--resume auto), write elsewhere (--out), or give it up (--overwrite true)"
        )
    return None


def save_checkpoint(out: Path, progress: Progress, config: Config, state: dict[str, Any], keep: int) -> Path:
    """Writes a checkpoint, then deletes the oldest but ``keep``."""
    file = io.BytesIO()
    torch.save({"format": FORMAT, "config": to_dict(config), "progress": asdict(progress), **state}, file)
    path = out / FOLDER / f"step_{progress.step:09d}.pt"
    write_whole(path, file.getvalue())
    for old in list_checkpoints(out)[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: Path, config: Config) -> tuple[Progress, dict[str, Any]]:
    """What :func:`save_checkpoint` wrote; nothing is unpickled but tensors and plain values.

    Raises
    ------
    ValueError
        If the file is no checkpoint or not a whole one, or of a run with another configuration.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"train: expected a checkpoint of polarmask in {path}, got what cannot be read") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"train: expected a file of format {FORMAT!r} in {path}, got {got!r}")
    before, now = _flat(content.pop("config")), _flat(to_dict(config))
    for name in sorted(before.keys() | now.keys()):
        if name not in MAY_CHANGE and before.get(name) != now.get(name):
            raise ValueError(
                f"train: expected the configuration that {path} was written with, {name} {before.get(name)!r}, "
                f"got {now.get(name)!r}"
            )
    return Progress(**content.pop("progress")), content


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
