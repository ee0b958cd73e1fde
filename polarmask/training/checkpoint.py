"""Checkpoints, from which a stopped run resumes: files under OUT/checkpoints, each written as a whole or not at all."""

import io
import re
import zipfile
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..common.files import write_whole
from ..config import Config, to_dict

FORMAT = "polarmask checkpoint 2"
FOLDER = "checkpoints"
NAME = re.compile(r"step_(\d{9})\.pt")
WEIGHTS = "last.safetensors", "best.safetensors"

# A resumed run may change these options, since the trained weights do not depend on them.
OUTPUT = {"out", "resume", "overwrite", "log_every", "checkpoint_every", "keep_checkpoints", "tracker"}
READING = {"data.root", "data.images", "data.workers", "data.invalid"}
SUMS = {"optim.accumulate", "optim.compile"}  # these change the order of sums, and so the last bits of the weights
STOPPING = {"evaluate_every", "stop_after"}
EVALUATION = {
    "data.test",
    "data.test_scale",
    "model.score_threshold",
    "model.max_candidates",
    "model.max_detections",
    "model.nms",
    "model.nms_threshold",
}
SHOWN = 3  # differences that a message names


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    step : int
        Steps done.
    evaluated : int
        The step of the last evaluation, 0 before the first.
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
    evaluated: int
    best: float
    since_best: int
    seconds: float
    metrics: dict[str, float]


@dataclass
class Checkpoint:
    """The content of a file.

    Attributes
    ----------
    progress : Progress
    config : dict
        The run's configuration, see :func:`polarmask.config.to_dict`.
    data : dict of str to Any
        Categories and fingerprints of the data: ``categories``, ``train`` and ``test``.
    processes : int
        How many trained.
    state : dict of str to Any
        State dicts by the names of what they belong to.
    """

    progress: Progress
    config: dict[str, Any]
    data: dict[str, Any]
    processes: int
    state: dict[str, Any]


def list_checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted(path for path in (out / FOLDER).glob("step_*.pt") if NAME.fullmatch(path.name))


def find_checkpoint(out: Path, resume: str | None, overwrite: bool) -> Path | None:
    """The checkpoint to go on from; none to begin anew.

    Raises
    ------
    FileExistsError
        If ``out`` holds another run, or newer checkpoints than the given one, which would be lost.
    FileNotFoundError
        If ``resume`` is a path at which nothing is.
    """
    existing = list_checkpoints(out)
    if resume == "auto" and existing:
        return existing[-1]
    path = None if resume in (None, "auto") else Path(resume)
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"train: expected resume to be auto or a checkpoint, got {path}")
    weights = [out / name for name in WEIGHTS if (out / name).exists()]
    if overwrite or not (existing or weights):
        return path
    if resume == "auto":
        raise FileExistsError(
            f"train: {out} holds {weights[0].name} and no checkpoint to go on from; write elsewhere (--out), or give "
            "the weights up (--overwrite true)"
        )
    if path is not None and any(path.samefile(each) for each in existing):
        if path.samefile(existing[-1]):
            return path
        raise FileExistsError(
            f"train: {path} is older than {existing[-1]}, which would be lost; go on with the newest (--resume auto), "
            "write elsewhere (--out), or give up what is newer (--overwrite true)"
        )
    held = f"of {_step(existing[-1])} steps" if existing else f"with {weights[0].name}"
    raise FileExistsError(
        f"train: {out} holds another run, {held}; go on with it (--resume auto), write elsewhere (--out), or give it "
        "up (--overwrite true)"
    )


def remove_newer_checkpoints(out: Path, step: int) -> list[Path]:
    """Removes the checkpoints after a step, and returns what their paths were."""
    newer = [path for path in list_checkpoints(out) if _step(path) > step]
    for path in newer:
        path.unlink()
    return newer


def save_checkpoint(out: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint, then deletes the oldest but ``keep``."""
    content = {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}
    file = io.BytesIO()
    torch.save({**content, "format": FORMAT, "progress": asdict(checkpoint.progress)}, file)
    path = out / FOLDER / f"step_{checkpoint.progress.step:09d}.pt"
    write_whole(path, file.getvalue())
    for old in list_checkpoints(out)[:-keep]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a file of :func:`save_checkpoint`; nothing is unpickled but tensors and plain values.

    Raises
    ------
    ValueError
        If the file is no checkpoint, is damaged or lacks a part.
    """
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"train: expected a checkpoint of polarmask in {path}, got a file that is damaged or none; go on from "
            f"another one (--resume PATH) or begin anew"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"train: expected a file of format {FORMAT!r} in {path}, got {got!r}")
    try:
        return Checkpoint(
            progress=Progress(**content["progress"]),
            config=dict(content["config"]),
            data=dict(content["data"]),
            processes=int(content["processes"]),
            state=dict(content["state"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"train: expected a whole checkpoint in {path}, got one without a part: {error}") from error


def check_resumable(path: Path, checkpoint: Checkpoint, config: Config, steps_per_epoch: int) -> None:
    """Raises a ValueError where going on with a configuration would change what is learned; it names all options."""
    before, now = _flat(checkpoint.config), _flat(to_dict(config))
    changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    changed -= OUTPUT | READING | SUMS | STOPPING | EVALUATION
    changed = {name for name in changed if not name.startswith("eval.")}
    if "none" not in (before.get("model.weights"), now["model.weights"]):
        changed.discard("model.weights")  # the checkpoint holds what was learned since they were read
    reason = ""
    if "optim.epochs" in changed:
        least = -(-checkpoint.progress.step // steps_per_epoch)
        if config.optim.schedule == "cosine":
            reason = "; a cosine schedule spans all epochs, so that another number changes the rate of the steps so far"
        elif config.optim.epochs < least:
            reason = f"; {least} epochs were begun"
        else:
            changed.discard("optim.epochs")
    if changed:
        pairs = [f"{name} {before.get(name)!r}, got {now.get(name)!r}" for name in sorted(changed)]
        more = f"; and {len(pairs) - SHOWN} more options" if len(pairs) > SHOWN else ""
        raise ValueError(
            f"train: expected the configuration that {path} was written with, {'; '.join(pairs[:SHOWN])}{more}"
            f"{reason}; give the same --config and options as before, or begin anew in another folder (--out)"
        )


def evaluates_otherwise(checkpoint: Checkpoint, config: Config, data: dict[str, Any]) -> bool:
    """Returns true if metrics before and after a checkpoint cannot be compared: other data or options of evaluation."""
    before, now = _flat(checkpoint.config), _flat(to_dict(config))
    options = {name for name in now if name in EVALUATION or name.startswith("eval.")}
    return checkpoint.data.get("test") != data.get("test") or any(
        before.get(n) != now[n] for n in options - {"data.test"}
    )


def check_data_unchanged(path: Path, checkpoint: Checkpoint, data: dict[str, Any]) -> None:
    """Raises a ValueError where the categories or the training data are others than before; it names differences."""
    found = [
        difference
        for part in ("categories", "train")
        for difference in differences(checkpoint.data.get(part), data.get(part), part)
    ]
    if found:
        shown = "; ".join(found[:SHOWN]) + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        raise ValueError(
            f"train: expected the data that {path} was written with, but {shown}; restore them, or begin anew in "
            "another folder (--out)"
        )


def differences(before: Any, now: Any, name: str) -> list[str]:
    """Sentences on what differs between two values of plain dicts, lists, strings and numbers."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys(), key=str)
        return [each for key in keys for each in differences(before.get(key), now.get(key), f"{name}.{key}")]
    if isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [each for n, (old, new) in pairs for each in differences(old, new, f"{name}[{n}]")]
    if before == now:
        return []
    if isinstance(before, list | tuple) and isinstance(now, list | tuple):
        others = [f"without {_short(value)}" for value in islice((v for v in before if v not in now), SHOWN)]
        others += [f"with {_short(value)}" for value in islice((v for v in now if v not in before), SHOWN)]
        return [f"{name} are {len(now)} instead of {len(before)}, {', '.join(others)}".removesuffix(", ")]
    if _is_digest(before) and _is_digest(now):
        return [f"{name} are others"]
    return [f"{name} is {_short(now)} instead of {_short(before)}"]


def _is_digest(value: Any) -> bool:
    """Returns true for a SHA-256 in hexadecimal digits, which messages leave out."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_sums(path: Path) -> None:
    """Raises a ValueError where a part of the archive that torch wrote has another CRC; torch does not look at it."""
    with zipfile.ZipFile(path) as archive:
        if (name := archive.testzip()) is not None:
            raise ValueError(f"{path}: {name} is damaged")


def _step(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
