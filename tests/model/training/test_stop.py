"""Signals: the run saves, says so in one line, and leaves."""

import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_runs

from polarmask.cli.train import main as train_main
from polarmask.common.stop import StopSignal
from polarmask.inference.detector import Detector


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train_main([*tiny_runs.OPTIONS, "--out", str(out)])
    return out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_within_an_epoch_loses_no_step(uninterrupted, tmp_path, monkeypatch, capfd, number, status):
    with monkeypatch.context() as patch:
        tiny_runs.signal_at(patch, 1, number)
        with pytest.raises(SystemExit) as left:
            train_main([*tiny_runs.OPTIONS, "--out", str(tmp_path)])
    assert left.value.code == status
    assert "go on with --resume auto" in capfd.readouterr().err
    steps = len(tiny_runs.lines(tmp_path))
    assert steps < 4
    train_main([*tiny_runs.OPTIONS, "--out", str(tmp_path), "--resume", "auto"])
    tiny_runs.assert_same(tmp_path, uninterrupted)


@pytest.mark.parametrize("epoch", [1, 2])  # the last evaluation as well
def test_a_signal_in_an_evaluation_leaves_before_the_next_image(uninterrupted, tmp_path, monkeypatch, epoch):
    options = [*tiny_runs.OPTIONS, "--out", str(tmp_path)]
    calls = []
    detect = Detector.detect

    def detect_and_signal(self, images):
        calls.append(tiny_runs.lines(tmp_path)[-1]["step"])
        if calls[-1] == 2 * epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        return detect(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "detect", detect_and_signal)
        patch.setattr("polarmask.inference.draw.sample_predictions", lambda *_: None)
        with pytest.raises(SystemExit) as left:
            train_main(options)
    assert left.value.code == 143
    assert calls.count(2 * epoch) == 1
    train_main([*options, "--resume", "auto"])
    tiny_runs.assert_same(tmp_path, uninterrupted)


def test_a_signal_to_the_process_group_does_not_end_the_workers_first(uninterrupted, tmp_path):
    options = [*tiny_runs.OPTIONS, "--out", str(tmp_path)]
    program = tiny_runs.start(*options, "--data.workers", "2", "--optim.epochs", "2000", "--evaluate_every", "0")
    while not (tmp_path / "metrics.jsonl").exists() or not tiny_runs.lines(tmp_path):
        assert program.poll() is None
        time.sleep(0.05)
    os.killpg(program.pid, signal.SIGTERM)
    _, errors = program.communicate(timeout=120)
    assert program.returncode == 143, errors
    assert "Traceback" not in errors
    assert errors.count("stopped by a signal") == 1
    last = tiny_runs.lines(tmp_path)[-1]["step"]
    assert (tmp_path / "checkpoints" / f"step_{last:09d}.pt").exists()


SLEEPER = """
import signal, time
from polarmask.common.stop import StopSignal
with StopSignal() as stop:
    print("ready", flush=True)
    while True:
        time.sleep(60)
"""


def test_a_second_sigint_leaves_at_once():
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True)
    assert sleeper.stdout.readline() == "ready\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        sleeper.send_signal(number)
        time.sleep(0.2)
        assert sleeper.poll() is None
    sleeper.send_signal(signal.SIGINT)
    assert sleeper.wait(10) == -signal.SIGINT
    sleeper.stdout.close()


def test_handlers_are_as_before_when_a_run_has_ended():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with StopSignal() as stop:
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.is_set, stop.status) == (True, 143)  # the first one counts
        with pytest.raises(SystemExit):
            stop.check()
    signal.signal(signal.SIGHUP, ignored)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before
