import pytest

from polarmask.cli.train import main as train_main

TINY = """
model: {channels: 32, depth: 1, score_threshold: 0.01}
data: {count: 8, size: 64, photometric: true}
optim: {batch_size: 4, epochs: 2, warmup_steps: 2, ema: 0.5}
log_every: 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training of the shapes, from the command line."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(TINY)
    args = ["--config", "shapes", "--config", str(folder / "tiny.yaml"), "--out", str(folder / "out")]
    train_main(args)
    return args, folder / "out"
