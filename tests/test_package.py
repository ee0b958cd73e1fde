"""The package as a whole: what it says about itself, and what it says when it is not built."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import polarmask_ops
from polarmask_ops import _C, _extension

ROOT = Path(__file__).parent.parent


def run(*arguments, folder, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def unbuilt(tmp_path):
    """A folder with the Python half of the package."""
    package = Path(polarmask_ops.__file__).parent
    shutil.copytree(package, tmp_path / "polarmask_ops", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def test_a_missing_extension_says_how_to_build_it(unbuilt):
    # An editable install's finder would find the extension all the same.
    code = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]; import polarmask_ops"
    result = run("-c", code, folder=unbuilt)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: polarmask_ops: the compiled extension polarmask_ops._C is missing")
    assert "pip install --no-build-isolation" in last


def test_sources_that_hide_an_installed_package_are_named(unbuilt):
    (unbuilt / "setup.py").touch()
    code = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]; import polarmask_ops"
    last = run("-c", code, folder=unbuilt).stderr.strip().splitlines()[-1]
    assert f"These are the sources in {unbuilt}: if polarmask is installed, start Python in another folder" in last


def test_an_extension_that_does_not_load_says_why(unbuilt):
    shared = Path(_C.__file__).name
    (unbuilt / "polarmask_ops" / shared).write_bytes(b"not a library")
    result = run("-c", "import polarmask_ops", folder=unbuilt)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: polarmask_ops: the compiled extension polarmask_ops._C does not load with torch"
    )
    assert torch.__version__ in last
    assert "pip install --no-build-isolation" in last


@pytest.mark.parametrize("version", ["2.12.1", "1.13.0+cu117"])
def test_a_torch_that_is_too_old_is_named_at_import(version):
    with pytest.raises(ImportError, match=rf"expected torch >= 2\.13, got torch {re.escape(version)}; `pip install"):
        _extension.check_torch(version)
    _extension.check_torch("2.14.0a0+git1234")


def test_the_build_explains_itself():
    result = run("-m", "polarmask_ops", folder=Path(polarmask_ops.__file__).parent.parent)
    assert result.returncode == 0
    for word in (polarmask_ops.__version__, torch.__version__, "threads", "CUDA kernels"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"POLARMASK_CUDA": "yes"}, "expected POLARMASK_CUDA to be auto, 0 or 1, got 'yes'"),
        ({"POLARMASK_CUDA": "1", "PATH": "/nowhere", "CUDA_HOME": ""}, "nvcc is neither on PATH nor under CUDA_HOME"),
    ],
)
def test_a_build_that_cannot_be_says_so(environment, words):
    result = run("setup.py", "--version", folder=ROOT, **environment)
    assert result.returncode != 0
    assert words in result.stderr


def test_every_source_is_on_the_list():
    listed = set(re.findall(r"^(\S+\.(?:cpp|cu))$", (ROOT / "csrc" / "sources.txt").read_text(), re.MULTILINE))
    there = {
        str(path.relative_to(ROOT / "csrc")) for path in (ROOT / "csrc").rglob("*.c*") if path.suffix in (".cpp", ".cu")
    }
    assert listed == there


def test_public_names_are_documented():
    for name in polarmask_ops.__all__:
        assert getattr(polarmask_ops, name).__doc__, name


def test_ops_never_import_the_model():
    code = "import sys, polarmask_ops; assert not [m for m in sys.modules if m == 'polarmask' or m == 'torchvision']"
    assert run("-c", code, folder=ROOT).returncode == 0


def test_the_isa_is_the_best_unless_the_environment_says_otherwise(tmp_path):
    code = "import polarmask_ops; print(polarmask_ops._C.isa())"
    unset = run("-c", f"import os; os.environ.pop('POLARMASK_ISA', None); {code}", folder=tmp_path)
    assert unset.stdout.strip() == _C.ISAS[-1]
    for isa in _C.ISAS:
        assert run("-c", code, folder=tmp_path, POLARMASK_ISA=isa).stdout.strip() == isa


def test_an_unknown_isa_is_refused(tmp_path):
    failed = run("-c", "import polarmask_ops", folder=tmp_path, POLARMASK_ISA="sse9")
    assert failed.returncode != 0
    for words in ("POLARMASK_ISA", "baseline, avx2 or avx512", "sse9"):
        assert words in failed.stderr
