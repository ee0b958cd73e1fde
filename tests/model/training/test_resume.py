"""A run that is stopped, in whatever way, goes on as if it had not been."""

import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import polarmask
from polarmask.cli.train import main as train_main
from polarmask.training.checkpoint import list_checkpoints
from polarmask.training.trainer import TERMINATED

TINY = """
model: {channels: 32, depth: 1, score_threshold: 0.01}
data: {count: 12, size: 64, photometric: true}
optim: {batch_size: 4, epochs: 2, warmup_steps: 2, ema: 0.5}
log_every: 1
evaluate_every: 0
"""


@pytest.fixture(scope="module")
def args(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return ["--config", "shapes", "--config", str(path)]


@pytest.fixture(scope="module")
def uninterrupted(args, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train_main([*args, "--out", str(out), "--checkpoint_every", "1", "--keep_checkpoints", "99"])
    return out


def losses(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss/mask" in line]


def weights(out):
    return polarmask.load(out / "last.safetensors").model.state_dict()


def assert_same_run(out, other):
    assert losses(out) == losses(other)
    for left, right in zip(weights(out).values(), weights(other).values(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("step", [2, 3])  # within an epoch and at its end
def test_goes_on_bit_for_bit(args, uninterrupted, tmp_path, step):
    start = uninterrupted / "checkpoints" / f"step_{step:09d}.pt"
    train_main([*args, "--out", str(tmp_path), "--resume", str(start)])
    assert [line["step"] for line in losses(tmp_path)] == list(range(step + 1, 7))
    assert losses(tmp_path) == losses(uninterrupted)[step:]
    for left, right in zip(weights(tmp_path).values(), weights(uninterrupted).values(), strict=True):
        assert torch.equal(left, right)


def test_a_finished_run_has_nothing_left_to_do(args, uninterrupted, tmp_path):
    before = weights(uninterrupted)
    metrics = json.loads((uninterrupted / "metrics.json").read_text())
    train_main([*args, "--out", str(uninterrupted), "--resume", "auto"])
    assert json.loads((uninterrupted / "metrics.json").read_text()) == metrics
    assert all(
        torch.equal(left, right) for left, right in zip(before.values(), weights(uninterrupted).values(), strict=True)
    )


def test_checkpoints_beyond_the_limit_are_deleted(args, tmp_path):
    train_main([*args, "--out", str(tmp_path), "--checkpoint_every", "1", "--keep_checkpoints", "2"])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000000005.pt", "step_000000006.pt"]


def test_another_run_is_not_overwritten(args, uninterrupted):
    files = {path: path.read_bytes() for path in uninterrupted.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="another run, of 6 steps"):
        train_main([*args, "--out", str(uninterrupted)])
    assert files == {path: path.read_bytes() for path in uninterrupted.rglob("*") if path.is_file()}


def test_another_run_is_overwritten_when_asked_to(args, tmp_path):
    for _ in range(2):
        train_main([*args, "--out", str(tmp_path), "--overwrite", "true", "--optim.epochs", "1"])
    assert [line["step"] for line in losses(tmp_path)] == [1, 2, 3]


def test_resume_names_what_is_missing(args, tmp_path):
    with pytest.raises(FileNotFoundError, match="resume to be auto or a checkpoint, got nowhere"):
        train_main([*args, "--out", str(tmp_path), "--resume", "nowhere"])


def test_resume_with_another_configuration_is_refused(args, uninterrupted, tmp_path):
    start = str(uninterrupted / "checkpoints" / "step_000000002.pt")
    with pytest.raises(ValueError, match=r"optim\.lr 0\.002, got 0\.5"):
        train_main([*args, "--out", str(tmp_path), "--resume", start, "--optim.lr", "0.5"])


@pytest.mark.parametrize("kind", ["truncated", "text", "foreign", "hostile"])
def test_what_is_no_checkpoint_is_refused(args, uninterrupted, tmp_path, kind):
    path = tmp_path / "step_000000002.pt"
    if kind == "truncated":
        path.write_bytes((uninterrupted / "checkpoints" / path.name).read_bytes()[:-5000])
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "foreign":
        torch.save({"state_dict": {"weight": torch.zeros(3)}}, path)
    else:
        torch.save({"format": Hostile(tmp_path / "executed")}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"expected a (checkpoint of polarmask|file of format)"):
        train_main([*args, "--out", str(tmp_path / "out"), "--resume", str(path)])
    assert path.read_bytes() == before
    assert not (tmp_path / "executed").exists()


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_full_disk_leaves_the_last_checkpoint(args, uninterrupted, tmp_path):
    kept = tmp_path / "checkpoints" / "step_000000002.pt"
    kept.parent.mkdir()
    kept.write_bytes((uninterrupted / "checkpoints" / kept.name).read_bytes())
    before = kept.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 10, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*step_000000003\.pt"):
            train_main([*args, "--out", str(tmp_path), "--resume", "auto", "--checkpoint_every", "1"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept.read_bytes() == before
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    assert not list(tmp_path.rglob(".*.polarmask*"))


def test_a_folder_that_cannot_be_written_to(args, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train_main([*args, "--out", str(tmp_path / "file" / "out")])


def test_sigterm_writes_a_checkpoint_and_leaves(args, uninterrupted, tmp_path):
    def ask():
        while not (tmp_path / "metrics.jsonl").exists() or not losses(tmp_path):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        with pytest.raises(SystemExit) as left:
            train_main([*args, "--out", str(tmp_path)])
    finally:
        asker.join()
    assert left.value.code == TERMINATED
    assert 0 < len(losses(tmp_path)) < 6
    train_main([*args, "--out", str(tmp_path), "--resume", "auto"])
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_it_goes_on_to_the_same_losses(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["polarmask.training.trainer"])
    options = {"data__count": 80, "data__size": 64, "model__channels": 32, "model__depth": 1, "optim__batch_size": 2}
    schedule = {"optim__epochs": 2, "checkpoint_every": 1, "log_every": 1, "evaluate_every": 0, "resume": "auto"}

    def run(out, seconds=None):
        """Seconds that it took, none where it was killed after ``seconds``."""
        began = time.perf_counter()
        config = polarmask.load_config("shapes", out=out, **options, **schedule)
        process = context.Process(target=polarmask.train, args=(config,))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            return None
        assert process.exitcode == 0
        return time.perf_counter() - began

    warm_up = context.Process(target=time.sleep, args=(0,))  # imports, once for all that follow
    warm_up.start()
    warm_up.join()
    whole = run(tmp_path / "whole")
    rng = np.random.default_rng(0)
    kills = finished = 0
    while kills < 20:
        out = tmp_path / f"killed_{finished}"
        if run(out, rng.uniform(0, 0.4) * whole) is None:
            kills += 1
        else:
            assert_same_run(out, tmp_path / "whole")
            finished += 1
    run(tmp_path / f"killed_{finished}")
    assert len(losses(tmp_path / "whole")) == 80
    assert_same_run(tmp_path / f"killed_{finished}", tmp_path / "whole")
    assert not list(tmp_path.rglob(".*.polarmask*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_do_the_same(args, tmp_path):
    options = ["--optim.optimizer", "sgd", "--optim.clip", "1e9", "--optim.epochs", "4", "--checkpoint_every", "1"]
    options += ["--keep_checkpoints", "99", "--optim.ema", "null", "--optim.lr", "1e-3"]
    train_main([*args, *options, "--out", str(tmp_path / "one")])
    train_main([*args, *options, "--out", str(tmp_path / "parts"), "--optim.accumulate", "2"])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, "-m", "polarmask.train", *args, *options, "--out", str(tmp_path / "two")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one = first_gradients(tmp_path / "one")
    for other in ("parts", "two"):
        for left, right in zip(first_gradients(tmp_path / other), one, strict=True):
            # Sums in another order; relative to the largest gradient of the tensor.
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5 * float(right.abs().max()))
        for left, right in zip(losses(tmp_path / other)[:10], losses(tmp_path / "one")[:10], strict=True):
            assert left == pytest.approx(right, rel=1e-4)


@contextmanager
def two_hosts(args, *outs):
    """torchrun on each of two hosts, which are told the same but where to write; yields their processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"localhost:{free.getsockname()[1]}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--local_addr", "localhost", *where]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*torchrun, "-m", "polarmask.train", *args, "--out"]
    hosts = [subprocess.Popen([*command, str(out)], env=environment, stderr=subprocess.PIPE, text=True) for out in outs]
    try:
        yield hosts
    finally:
        for host in hosts:
            host.kill()
            host.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_several_hosts(args, uninterrupted, tmp_path):
    out = tmp_path / "out"
    for options in (["--checkpoint_every", "2"], ["--resume", "auto"]):
        with two_hosts([*args, *options], out, out) as hosts:
            assert [(host.communicate()[1], host.returncode)[1] for host in hosts] == [0, 0]
        list_checkpoints(out)[-1].unlink()  # as if the run had been stopped before
    assert [line["step"] for line in losses(out)] == list(range(1, 7))
    for left, right in zip(losses(out), losses(uninterrupted), strict=True):
        # Sums in another order, which AdamW's first updates magnify: as large for a small gradient as for a large one.
        assert left == pytest.approx(right, rel=1e-2)
    with two_hosts([*args, "--resume", "auto"], out, tmp_path / "other") as hosts:
        errors = [host.communicate()[1] for host in hosts]
    assert any("a folder that all hosts share" in error for error in errors)


def first_gradients(out):
    """Those of step 1, with the decay: SGD starts its momentum with them."""
    state = torch.load(out / "checkpoints" / "step_000000001.pt", weights_only=True)["state"]["optimizer"]["state"]
    return [entry["momentum_buffer"] for entry in state.values()]
