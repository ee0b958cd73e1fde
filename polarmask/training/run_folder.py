"""A run's folder: its lock, the files that belong to a run, and metrics.jsonl."""

import errno
import fcntl
import json
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.files import remove_stale, write_whole
from ..common.runtime import all_or_none, on_main, processes
from .checkpoint import FOLDER, Progress, list_checkpoints, remove_newer_checkpoints

logger = logging.getLogger("polarmask.train")

FILES = {
    "predictions.png": "images that were evaluated on, what is there beside what was found",
    "first_batch.png": "the first augmented batch with its positive points and their targets, decoded",
    "learning_curve.png": "losses and AP over the steps",
    "metrics.json": "the final numbers",
    "metrics.jsonl": "losses every few steps, and each evaluation",
    "last.safetensors": "weights, configuration and categories at the end",
    "best.safetensors": "the same where segm/AP was best, when evaluation runs between epochs",
    FOLDER: "what --resume goes on from",
}
LOCK = ".polarmask.lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # of file systems that have none
PATIENCE = 10  # seconds until a new file must be visible on the other hosts of a network's file system


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Makes a folder and keeps other trainings out of it while the block runs. Every process of torchrun calls this.

    The main process holds the lock. The kernel releases it when the process ends, in whatever way.

    Raises
    ------
    FileExistsError
        If another training holds the folder.
    ValueError
        If a process of another host does not see the folder of the main process.
    """
    main = processes().is_main_process
    token = f"process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4()}" if main else ""
    file = all_or_none(lambda: _lock(out, token) if main else None)
    try:
        shown = on_main(lambda: token)
        # Not by the main process: the kernel drops its lock when it closes the file, however often that is open.
        all_or_none(lambda: _find_token(out, shown) if shown != token else None)
        yield
    finally:
        if file is not None:
            (out / LOCK).unlink(missing_ok=True)
            os.close(file)


def _lock(out: Path, token: str) -> int:
    """Locks the folder and writes the token into the lock file; returns the file's descriptor."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / LOCK
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # A lock of the process, not of the open file (flock): the loader's workers do not inherit it, so that a run
            # can be taken up again as soon as its main process is dead.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                logger.warning("train: the file system of %s has no locks; take care that one run writes there", out)
            else:
                holder = os.read(file, 200).decode(errors="replace").rpartition(",")[0] or "a process"
                os.close(file)
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise FileExistsError(
                    f"train: another training ({holder}) writes into {out} at this moment; wait for its end, or write "
                    "elsewhere (--out)"
                ) from None
        if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
            break
        os.close(file)  # a run that has just ended removed the file
    os.ftruncate(file, 0)
    os.write(file, token.encode())
    os.fsync(file)
    return file


def _find_token(out: Path, token: str) -> None:
    """Raises a ValueError where the lock file of the main process is not to be seen."""
    deadline = time.monotonic() + PATIENCE
    while not (out / LOCK).is_file() or (out / LOCK).read_text() != token:
        if time.monotonic() > deadline:
            raise ValueError(
                f"train: expected {out} to be a folder that all hosts share, got one on {socket.gethostname()} without "
                "the files of the main process; set --out to a folder on a shared file system"
            )
        time.sleep(0.2)


def discard_previous_run(out: Path) -> None:
    """Removes what an earlier run wrote into a folder, and nothing else."""
    results = [out / name for name in FILES if name != FOLDER]
    batches = [path for path in out.glob("nonfinite_*.pt") if re.fullmatch(r"nonfinite_\d+\.pt", path.name)]
    events = (out / "tensorboard").glob("events.out.tfevents.*")
    for path in [*results, *batches, *events, *list_checkpoints(out)]:
        path.unlink(missing_ok=True)


def prepare_folder(out: Path, checkpoint: Path | None, progress: Progress, metrics: "MetricsFile") -> None:
    """Removes temporary files, and results of earlier runs and steps that this run does not resume from."""
    remove_stale(out)
    remove_stale(out / FOLDER)
    if checkpoint is None or not any(checkpoint.samefile(path) for path in list_checkpoints(out)):
        discard_previous_run(out)
    newer = remove_newer_checkpoints(out, progress.step)
    removed = metrics.keep(progress.step, progress.evaluated)
    if newer:
        names = ", ".join(path.name for path in newer)
        logger.warning("train: gave up what is newer than %s: %s", checkpoint, names)
        if any(line.get("segm/AP", -1) > progress.best for line in removed):
            (out / "best.safetensors").unlink(missing_ok=True)  # it may be of a step that was removed


class MetricsFile:
    """The lines of metrics.jsonl: losses, which have an ``lr``, and evaluations, each with its ``step``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, step: int, values: dict[str, float]) -> None:
        """Writes a line; an OSError, as of a full disk, names the file."""
        try:
            with self.path.open("a") as lines:
                print(json.dumps({"step": step, **values}), file=lines)
        except OSError as error:
            error.filename = str(self.path)
            raise

    def keep(self, step: int, evaluated: int) -> list[dict[str, Any]]:
        """Removes and returns the losses after ``step``, and the evaluations after the step ``evaluated``.

        Lines that cannot be read are removed too, and counted in a warning.
        """
        kept, removed, broken = [], [], 0
        for text in self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []:
            line = _parse(text)
            if line is None:
                broken += 1
            elif line["step"] <= (step if "lr" in line else evaluated):
                kept.append(text)
            else:
                removed.append(line)
        if broken:
            logger.warning("train: %s: %d lines that cannot be read are left out", self.path, broken)
        write_whole(self.path, kept)
        return removed


def _parse(text: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; none where it is no whole one."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    whole = text.endswith(b"\n") and isinstance(line, dict) and type(line.get("step")) is int
    return line if whole else None
