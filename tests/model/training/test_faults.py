"""Faults around a training: what ends it, what does not, and what is left in its folder."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny_runs
import torch
from PIL import Image

from polarmask.cli.train import main as train_main
from polarmask.common.files import TEMPORARY
from polarmask.data import DataError
from polarmask.training.checkpoint import list_checkpoints
from polarmask.training.run_folder import LOCK, MetricsFile, claimed

FILES = [*tiny_runs.NETWORK, "--data.root"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train_main([*tiny_runs.OPTIONS, "--out", str(out)])
    return out


@pytest.fixture
def folder(tmp_path):
    """Images with label images, eight to train on and two to evaluate on: an object each."""
    for split, count in (("train", 8), ("test", 2)):
        for kind in ("images", "masks"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
        for n in range(count):
            labels = np.zeros((64, 64), np.uint8)
            labels[10 + n : 40, 12:44] = 1
            Image.fromarray(labels * 150 + 20).save(tmp_path / "data" / split / "images" / f"{split}-{n}.png")
            Image.fromarray(labels).save(tmp_path / "data" / split / "masks" / f"{split}-{n}.png")
    return tmp_path / "data"


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("process 7 on elsewhere, token", file=file, flush=True)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_second_training_in_a_folder_is_refused(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(FileExistsError, match=r"another training \(process 7 on elsewhere\) writes into .*--out"):
            train_main([*tiny_runs.OPTIONS, "--out", str(tmp_path)])
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    finally:
        holder.communicate()
    with claimed(tmp_path):  # the kernel has released the lock of a process that is gone
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / LOCK).exists()


def test_a_running_training_keeps_its_lock(tmp_path):
    with claimed(tmp_path):
        held = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        second = subprocess.run(
            [sys.executable, "-S", "-c", held, str(tmp_path / LOCK)], capture_output=True, text=True, check=False
        )
    assert "BlockingIOError" in second.stderr or "PermissionError" in second.stderr


def test_a_folder_that_is_not_shared_is_found_out_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("polarmask.training.run_folder.PATIENCE", 0)
    monkeypatch.setattr("polarmask.training.run_folder.on_main", lambda function: "the token of another host")
    with pytest.raises(ValueError, match="a folder that all hosts share"), claimed(tmp_path):
        pass


def test_an_evaluation_that_fails_loses_no_step(folder, tmp_path, monkeypatch):
    options = [*FILES, str(folder), "--optim.batch_size", "4"]
    train_main([*options, "--out", str(tmp_path / "whole")])
    out, image = tmp_path / "out", folder / "test" / "images" / "test-1.png"
    content = image.read_bytes()

    def spoil(*_):
        image.write_bytes(b"no image")

    with monkeypatch.context() as patch:
        patch.setattr("polarmask.inference.draw.first_batch", spoil)  # after the data were checked
        with pytest.raises(DataError, match=r"test-1\.png"):
            train_main([*options, "--out", str(out)])
    assert [path.name for path in list_checkpoints(out)] == ["step_000000002.pt"]
    assert (out / "last.safetensors").exists()
    image.write_bytes(content)
    train_main([*options, "--out", str(out), "--resume", "auto"])
    tiny_runs.assert_same(out, tmp_path / "whole")


def test_losses_that_are_not_finite_keep_the_batch_though_a_mask_cannot_be_read(folder, tmp_path, monkeypatch):
    def spoil(network, images, targets):
        (folder / "train" / "masks" / "train-3.png").write_bytes(b"no image")
        with torch.no_grad():
            next(network.parameters()).fill_(float("nan"))

    monkeypatch.setattr("polarmask.inference.draw.first_batch", spoil)
    options = [*FILES, str(folder), "--optim.batch_size", "8", "--data.invalid", "raise"]
    with pytest.raises(FloatingPointError) as raised:
        train_main([*options, "--out", str(tmp_path / "out"), "--overfit", "8"])
    kept = torch.load(tmp_path / "out" / "nonfinite_0.pt", weights_only=True)
    assert len(kept["images"]) == 8
    for n in range(8):
        assert str(folder / "train" / "images" / f"train-{n}.png") in str(raised.value)


def test_a_picture_that_cannot_be_drawn_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no fonts here")

    for name in ("first_batch", "sample_predictions", "learning_curve"):
        monkeypatch.setattr(f"polarmask.inference.draw.{name}", fail)
    train_main([*tiny_runs.OPTIONS, "--out", str(tmp_path)])
    assert (tmp_path / "metrics.json").exists()
    said = [text for text in warnings(caplog) if "no fonts here" in text]
    assert sorted(text.split()[1] for text in said) == ["first_batch.png", "learning_curve.png", "predictions.png"]


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise ConnectionError("server unreachable")

    for name in ("log", "log_images", "finish"):
        monkeypatch.setattr(f"accelerate.tracking.TensorBoardTracker.{name}", fail)
    train_main([*tiny_runs.OPTIONS, "--out", str(tmp_path), "--optim.epochs", "1"])
    assert len(tiny_runs.lines(tmp_path)) == 3
    assert sum("server unreachable" in text for text in warnings(caplog)) == 1


def test_a_tracker_that_cannot_be_started_ends_the_run_before_the_first_step(tmp_path, monkeypatch):
    def fail(self):
        raise RuntimeError("no login")

    monkeypatch.setattr("accelerate.tracking.TensorBoardTracker.start", fail)
    with pytest.raises(ValueError, match="tracker tensorboard cannot be started: no login; choose --tracker"):
        train_main([*tiny_runs.OPTIONS, "--out", str(tmp_path)])
    assert not list_checkpoints(tmp_path)


def test_a_full_disk_names_the_file_of_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.jsonl"):
        MetricsFile(path).append(1, {"loss/mask": 1.0})


def test_broken_lines_of_metrics_are_left_out_and_counted(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    whole = [b'{"step": 1, "lr": 1}\n', b'{"step": 2, "lr": 1}\n', b'{"step": 2, "segm/AP": 0.5}\n']
    broken = [b"\xff\xfe\n", b"null\n", b'{"lr": 1}\n', b'{"step": "2"}\n', b"\n", b'{"step": 2, "lr": 1}']
    path.write_bytes(b"".join([whole[0], *broken[:5], *whole[1:], broken[5]]))
    assert MetricsFile(path).keep(2, 2) == []
    assert path.read_bytes() == b"".join(whole)
    assert ["6 lines" in text for text in warnings(caplog)] == [True]
    assert MetricsFile(path).keep(2, 0) == [{"step": 2, "segm/AP": 0.5}]  # an evaluation that was cut off
    assert MetricsFile(path).keep(1, 0) == [{"step": 2, "lr": 1}]


def test_without_images_to_evaluate_on_it_trains_and_says_so_once(folder, tmp_path, caplog, capsys):
    for path in (folder / "test" / "images").iterdir():
        path.unlink()
    (folder / "test").rename(folder / "unused")
    train_main([*FILES, str(folder), "--optim.batch_size", "4", "--out", str(tmp_path / "out")])
    assert sum("nothing is evaluated" in text for text in warnings(caplog)) == 1
    assert "nothing was evaluated" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics.keys() == {"evaluated", "seconds/train"}
    assert metrics["evaluated"] is False
    assert (tmp_path / "out" / "last.safetensors").exists()
    assert not (tmp_path / "out" / "best.safetensors").exists()


def test_files_of_the_user_stay_where_they_are(uninterrupted, tmp_path):
    mine = [tmp_path / name for name in ("notes.part", "checkpoints/step_000000001.pt.7.part", "below/best.part")]
    stale = tmp_path / "checkpoints" / f".step_000000001.{2**22 + 1}-0.polarmask.pt"
    for path in [*mine, stale]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    (tmp_path / "a folder.part").mkdir()
    train_main([*tiny_runs.OPTIONS, "--out", str(tmp_path), "--optim.epochs", "1"])
    assert all(path.exists() for path in mine)
    assert (tmp_path / "a folder.part").is_dir()
    assert not [path for path in tmp_path.rglob("*") if TEMPORARY.fullmatch(path.name)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_say_what_one_of_them_found_once(folder, tmp_path):
    """The image is of the second process; the first waits for its results."""
    script = tmp_path / "spoil.py"
    script.write_text(
        "import sys; from polarmask.inference import draw; from polarmask.training import trainer\n"
        f"image = {str(folder / 'test' / 'images' / 'test-1.png')!r}\n"
        "draw.first_batch = lambda *_: open(image, 'w').close()\n"
        "from polarmask.cli import main; main(['train', *sys.argv[1:]])\n"
    )
    options = [*FILES, str(folder), "--optim.batch_size", "4", "--out", str(tmp_path / "out")]
    program = tiny_runs.start(*options, processes=2, program=[str(script)])
    _, errors = program.communicate(timeout=300)
    assert program.returncode != 0
    assert errors.count("test-1.png: ") == 1
    assert "exitcode  : 2 " in errors  # torchrun's table
    assert [path.name for path in list_checkpoints(tmp_path / "out")] == ["step_000000002.pt"]
    program = tiny_runs.start(*options, "--data.invalid", "skip", "--resume", "auto", processes=2)
    shown, errors = program.communicate(timeout=300)
    assert program.returncode == 0, errors
    assert shown.count("segm/AP50") == 1
