"""The README's code runs as it is written."""

import re
from pathlib import Path

import pytest
from try_readme_install import install_lines

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block-{n}" for n in range(len(BLOCKS))])
def test_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {})


def test_the_install_lines_that_ci_runs_are_found():
    lines = [line.split("#")[0].strip() for line in install_lines(README).splitlines()]
    assert lines[:2] == ["python3 -m venv env", ". env/bin/activate"]
    assert lines[2:] == ['pip install ".[train]"', "cd ..", "python -m polarmask_ops"]
    assert not any("&&" in line or "||" in line for line in lines)  # their failure would not stop `set -e`


def test_it_names_every_public_function():
    import polarmask_ops

    listed = README.split("| what | functions |")[1].split("\n\n")[0]
    missing = [name for name in polarmask_ops.__all__ if f"`{name}`" not in listed and name not in expanded(listed)]
    assert missing == []


def expanded(listed: str) -> set[str]:
    """`rays_to_*` with `masks`, `rle`, `labels`, and `batched_` forms, written out."""
    starred = re.findall(r"`(\w+_)\*`", listed)
    return {f"{stem}{kind}" for stem in starred for kind in ("masks", "rle", "labels")} | {
        f"batched_{name}" for name in re.findall(r"`(\w+_nms)`", listed)
    }
