"""The examples run, stay short, and do what they say."""

import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run(capsys):
    def run(name):
        lines = [line for line in (EXAMPLES / name).read_text().splitlines()[1:] if line.strip()]
        imports = [line for line in lines if line.startswith(("import ", "from "))]
        assert len(lines) - len(imports) < 20
        torch.manual_seed(0)
        return runpy.run_path(str(EXAMPLES / name)), capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", ["fcos.py", "retinanet.py"])
def test_head_in_a_detector_of_torchvision(run, name):
    names, printed = run(name)
    assert set(names["losses"]) == {"class", "centerness", "box", "mask"}
    gradients = [weight.grad for weight in names["model"].head.parameters()]
    assert all(grad is not None and grad.isfinite().all() and grad.any() for grad in gradients)
    assert "mask" in printed


def test_own_head_learns_its_shapes(run):
    names, _ = run("own_head.py")
    assert len(names["masks"]) == 2
    areas = names["masks"].sum((1, 2)).double().sort().values
    torch.testing.assert_close(areas, names["outlines"].areas().double().sort().values, rtol=0.1, atol=0)


def test_all_are_tested():
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == ["fcos.py", "own_head.py", "retinanet.py"]
