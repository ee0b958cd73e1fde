"""setup.py: which chips it builds for, and its one sentence where it cannot build."""

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import setuptools
import torch

from polarmask_ops import _extension

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def setup():
    """setup.py as a module; nothing is built."""
    spec = importlib.util.spec_from_file_location("polarmask_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLARMASK_CUDA", "0")
        patch.setenv("PATH", os.environ["PATH"])  # which setup.py extends
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **options: None)
        spec.loader.exec_module(module)
    return module


def program(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with two kinds of GPU, CUDA's compiler and a torch for CUDA, as far as setup.py looks."""
    program(tmp_path / "bin" / "nvidia-smi", "printf '9.0\\n8.6\\n9.0\\n'")
    program(tmp_path / "bin" / "nvcc", f"echo '#$ TOP={tmp_path}' >&2", "echo 'Cuda compilation tools, release 13.0'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("CUDA_HOME", "POLARMASK_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_120", "compute_120"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return tmp_path / "bin"


@pytest.mark.parametrize(
    ("environment", "chips"),
    [
        ({}, "8.6;9.0"),
        ({"POLARMASK_CUDA": "1"}, "7.5;8.0;12.0"),
        ({"TORCH_CUDA_ARCH_LIST": "10.0"}, "10.0"),
        ({"POLARMASK_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "10.0"}, "10.0"),
        ({"POLARMASK_CUDA": "0", "TORCH_CUDA_ARCH_LIST": "10.0"}, ""),
    ],
)
def test_chips_are_those_here_unless_the_environment_names_others(setup, machine, monkeypatch, environment, chips):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert setup.choose_chips()[0] == chips


def test_chips_without_nvidia_smi_come_from_torch(setup, machine, monkeypatch):
    (machine / "nvidia-smi").unlink()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (12, 0))
    assert setup.choose_chips() == ("12.0", "")


def test_chips_without_a_gpu_are_none_and_the_reason_says_what_to_set(setup, machine):
    program(machine / "nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver'", "exit 9")
    chips, reason = setup.choose_chips()
    assert chips == ""
    assert "no GPU was found" in reason
    assert "POLARMASK_CUDA=1" in reason


@pytest.mark.parametrize(
    ("obstacle", "words"),
    [
        (lambda bin, patch: (bin / "nvcc").unlink(), "nvcc is neither on PATH nor under CUDA_HOME"),
        (lambda bin, patch: patch.setattr(torch.version, "cuda", None), "was built without CUDA"),
        (lambda bin, patch: patch.setattr(torch.version, "cuda", "12.8"), "CUDA 13.0 does not fit torch's CUDA 12.8"),
    ],
)
def test_an_obstacle_leaves_cuda_out_and_stops_a_build_that_asked_for_it(setup, machine, monkeypatch, obstacle, words):
    obstacle(machine, monkeypatch)
    chips, reason = setup.choose_chips()
    assert chips == ""
    assert words in reason
    monkeypatch.setenv("POLARMASK_CUDA", "1")
    with pytest.raises(SystemExit, match=re.escape(words)):
        setup.choose_chips()


@pytest.mark.parametrize("version", ["2.12.1+cu128", "1.13.0", "2.15.0a0+git1234"])
def test_a_torch_that_does_not_fit_stops_the_build(setup, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(SystemExit, match=r"setup.py: expected torch>=2\.13,<2\.15, got torch " + re.escape(version)):
        setup.check_torch()


@pytest.mark.parametrize("version", ["2.13.0", "2.14.1+cpu", "2.14.0a0+git1234"])
def test_a_torch_that_fits_builds(setup, monkeypatch, version):
    monkeypatch.setattr(torch, "__version__", version)
    setup.check_torch()


def test_missing_build_tools_are_named(setup, monkeypatch):
    monkeypatch.setattr(setup, "find_spec", lambda name: None if name == "pybind11" else object())
    with pytest.raises(SystemExit, match="expected pybind11 in the environment that builds"):
        setup.check_build_tools()
    monkeypatch.setattr(setup, "find_spec", lambda name: object())
    monkeypatch.setattr(setuptools, "__version__", "65.5.0")
    with pytest.raises(SystemExit, match=r"expected setuptools >= 77, got 65\.5\.0"):
        setup.check_build_tools()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (None, "expected a C++ compiler, got none"),
        ("#define __GNUC__ 11", "expected GCC >= 12, got GCC 11"),
        ("#define __GNUC__ 4\n#define __clang_major__ 14", "expected clang >= 16, got clang 14"),
    ],
)
def test_a_compiler_that_is_missing_or_too_old_is_named(setup, monkeypatch, tmp_path, told, words):
    if told is not None:
        (tmp_path / "macros").write_text(told)
        program(tmp_path / "compiler", f"cat {tmp_path}/macros")
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    with pytest.raises(SystemExit, match=re.escape(words)):
        setup.check_compiler()


def test_missing_headers_and_ninja_are_named(setup, monkeypatch, tmp_path):
    program(tmp_path / "compiler", "echo '#define __GNUC__ 12'")
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="expected ninja on PATH, got none"):
        setup.check_compiler()
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda name: str(tmp_path / name))
    with pytest.raises(SystemExit, match=r"expected Python's headers, but there is no .*Python\.h"):
        setup.check_compiler()


def test_the_oldest_torch_is_the_same_everywhere(setup):
    """pip, the build, the import, CMake and the emulator name it in words of their own."""
    major, minor = setup.OLDEST_TORCH
    after = ".".join(map(str, setup.TORCH_AFTER_LAST))
    requirement, target = f"torch>={major}.{minor},<{after}", f"0x{major:02x}{minor:02x}000000000000"
    assert (ROOT / "pyproject.toml").read_text().count(f'"{requirement}"') == 2
    assert setup.macros[0] == ("TORCH_TARGET_VERSION", target)
    assert setup.OLDEST_TORCH == _extension._OLDEST_TORCH
    for path in ("CMakeLists.txt", "tests/simt/simt_build.py"):
        assert f"TORCH_TARGET_VERSION={target}" in (ROOT / path).read_text()
    assert requirement in (ROOT / "Makefile").read_text()


def test_a_source_distribution_holds_every_source(tmp_path):
    command = ["setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, env={**os.environ, "POLARMASK_CUDA": "0"})
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        held = {name.split("/", 1)[1] for name in content.getnames() if "/" in name}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*")}
    assert sources | {"setup.py", "pyproject.toml", "README.md", "LICENSE", "polarmask_ops/py.typed"} <= held
    assert not [name for name in held if name.startswith(("tests/", "build/"))]
