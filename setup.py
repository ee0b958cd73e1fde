"""Builds polarmask_ops._C from csrc/sources.txt.

Environment
-----------
POLARMASK_CUDA : ``auto`` (default) builds CUDA kernels for the GPUs of this machine, and none where there is no GPU;
    ``1`` builds them for all chips that the installed torch supports; ``0`` leaves them out
TORCH_CUDA_ARCH_LIST : chips to build for instead, such as ``8.0;9.0``, with or without a GPU
POLARMASK_SANITIZE : ``1`` builds with AddressSanitizer and UndefinedBehaviorSanitizer
MAX_JOBS : parallel compilations
CXX : the C++ compiler, by default ``c++``

pip builds in an environment of its own, with a torch of its own, unless it is told not to. The extension then runs with
the torch that the user has: it uses nothing of torch but its stable ABI, in the version of OLDEST_TORCH, which every
later release keeps. The two must have the same major version of CUDA where kernels are built. With
``--no-build-isolation`` the user's torch is the one that is built with.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import setuptools

ROOT = Path(__file__).parent
VERSION = "0.1.0"
OLDEST_TORCH, TORCH_AFTER_LAST = (2, 13), (2, 15)  # as in pyproject.toml
OLDEST_GCC, OLDEST_CLANG = 12, 16
OLDEST_SETUPTOOLS = 77


def stop(sentence: str) -> None:
    sys.exit(f"setup.py: {sentence}")


def check_build_tools() -> None:
    """pip installs these unless it is told ``--no-build-isolation``."""
    missing = [name for name in ("torch", "pybind11") if find_spec(name) is None]
    if missing:
        stop(
            f"expected {' and '.join(missing)} in the environment that builds, {sys.prefix}; `pip install .` without "
            "--no-build-isolation brings what is needed"
        )
    if int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:
        stop(
            f"expected setuptools >= {OLDEST_SETUPTOOLS}, got {setuptools.__version__}; "
            f'`pip install "setuptools>={OLDEST_SETUPTOOLS}"` first'
        )


check_build_tools()

import pybind11  # noqa: E402
import torch  # noqa: E402


def check_torch() -> None:
    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if not OLDEST_TORCH <= release < TORCH_AFTER_LAST:
        wanted = "torch>={}.{},<{}.{}".format(*OLDEST_TORCH, *TORCH_AFTER_LAST)
        stop(
            f"expected {wanted}, got torch {torch.__version__} in {sys.prefix}; nothing was replaced: "
            f'`pip install "{wanted}"` changes it'
        )


def cuda_home() -> str | None:
    """The folder of the CUDA toolkit, asked of nvcc itself: the one on PATH may be a wrapper script elsewhere."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(os.environ.get("CUDA_HOME", "")) / "bin"))
    if nvcc is None:
        return None
    dryrun = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
    tops = [line.split("TOP=", 1)[1].strip() for line in dryrun.splitlines() if "TOP=" in line]
    return str(Path(tops[0]).resolve()) if tops else None


def cuda_release(home: str) -> str:
    text = subprocess.run([f"{home}/bin/nvcc", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found[1] if found else "unknown"


def chips_of_gpus() -> list[str]:
    """Compute capabilities of this machine's GPUs, such as 9.0, each once."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        told = ""
    chips = set(re.findall(r"^\s*(\d+\.\d+)\s*$", told, re.MULTILINE))
    if not chips:
        count = torch.cuda.device_count()
        chips = {"{}.{}".format(*torch.cuda.get_device_capability(index)) for index in range(count)}
    return sorted(chips, key=lambda chip: [int(part) for part in chip.split(".")])


def chips_of_torch() -> list[str]:
    """Compute capabilities that the installed torch was built for."""
    archs = [re.fullmatch(r"sm_(\d+)(\d)", arch) for arch in torch.cuda.get_arch_list()]
    return [f"{arch[1]}.{arch[2]}" for arch in archs if arch]


def choose_chips() -> tuple[str, str]:
    """Chips that kernels are built for, as in TORCH_CUDA_ARCH_LIST; where there are none, why and what to do."""
    choice = os.environ.get("POLARMASK_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        stop(f"expected POLARMASK_CUDA to be auto, 0 or 1, got {choice!r}")
    if choice == "0":
        return "", "POLARMASK_CUDA=0"
    chips = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if not chips:
        chips = ";".join(chips_of_torch() if choice == "1" else chips_of_gpus())
    if choice == "auto" and not chips:
        return "", "no GPU was found; POLARMASK_CUDA=1 builds for all chips, TORCH_CUDA_ARCH_LIST=9.0 for one"
    home = cuda_home()
    if torch.version.cuda is None:
        obstacle = f"torch {torch.__version__} was built without CUDA"
    elif home is None:
        obstacle = "nvcc is neither on PATH nor under CUDA_HOME"
    elif cuda_release(home).split(".")[0] != torch.version.cuda.split(".")[0]:
        obstacle = f"nvcc of CUDA {cuda_release(home)} does not fit torch's CUDA {torch.version.cuda}"
    else:
        return chips, ""
    if choice == "1":
        stop(f"POLARMASK_CUDA=1, but {obstacle}")
    return "", f"{obstacle}; with it, kernels for {chips} are built"


def check_compiler() -> None:
    """What a build would else report in hundreds of lines."""
    compiler = os.environ.get("CXX", "c++").split()
    try:
        told = subprocess.run([*compiler, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True)
    except OSError:
        stop(f"expected a C++ compiler, got none: cannot run {compiler[0]!r}; install g++ >= {OLDEST_GCC} or set CXX")
    macros = dict(re.findall(r"^#define (__GNUC__|__clang_major__) (\d+)$", told.stdout, re.MULTILINE))
    name, key, oldest = (
        ("clang", "__clang_major__", OLDEST_CLANG) if "__clang_major__" in macros else ("GCC", "__GNUC__", OLDEST_GCC)
    )
    if int(macros.get(key, oldest)) < oldest:
        stop(f"expected {name} >= {oldest}, got {name} {macros[key]} ({compiler[0]}); set CXX to a newer compiler")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        stop(f"expected Python's headers, but there is no {header}; install python3-dev (Debian) or python3-devel")
    if shutil.which("ninja") is None:
        stop("expected ninja on PATH, got none; `pip install ninja`")


def find_ninja() -> None:
    """Puts the ninja of this environment on PATH: an environment that is not activated has it beside python only."""
    if shutil.which("ninja") is None:
        os.environ["PATH"] += os.pathsep + sysconfig.get_path("scripts")


check_torch()
lines = (ROOT / "csrc" / "sources.txt").read_text().splitlines()
sources = [f"csrc/{line}" for line in lines if line and not line.startswith("#")]
archs, without_cuda = choose_chips()
cuda = bool(archs)
if cuda:
    # Both are read when torch's builder is imported.
    os.environ["CUDA_HOME"] = str(cuda_home())
    os.environ["TORCH_CUDA_ARCH_LIST"] = archs
else:
    sources = [source for source in sources if not source.endswith(".cu")]
find_ninja()

from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402

sanitize = os.environ.get("POLARMASK_SANITIZE") == "1"


class Build(BuildExtension):
    def initialize_options(self) -> None:
        super().initialize_options()
        # The environment that pip builds in has another path every time, with which ninja compiles everything anew.
        if Path(torch.__file__).is_relative_to(sys.prefix):
            # A place of its own instead of pip's temporary one: ninja compiles only what has changed.
            self.build_temp = "build/objects" + ("-sanitize" if sanitize else "-cuda" if cuda else "")

    def run(self) -> None:
        check_compiler()
        super().run()


macros = [
    ("TORCH_TARGET_VERSION", "0x{:02x}{:02x}000000000000".format(*OLDEST_TORCH)),
    ("POLARMASK_VERSION", f'"{VERSION}"'),
    ("POLARMASK_TORCH_VERSION", f'"{torch.__version__}"'),
    ("POLARMASK_CUDA_VERSION", f'"{torch.version.cuda if cuda else ""}"'),
    ("POLARMASK_CUDA_ARCHS", f'"{archs}"'),
    *([("POLARMASK_WITH_CUDA", None), ("USE_CUDA", None)] if cuda else []),
]
# Without contraction: an FMA that the compiler forms on one machine and not on another moves decisions.
cxx = ["-std=c++20", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unused-parameter"]
ld = []
if sanitize:
    ld = ["-fsanitize=address,undefined,float-cast-overflow"]
    # Lines are all that reports name; the rest of -g takes the compiler half as long again.
    cxx += [*ld, "-fno-sanitize-recover=all", "-fno-sanitize=vptr", "-g1", "-O1"]
nvcc = ["-std=c++20", "-O3", "-fmad=false", "-Xcompiler", "-fvisibility=hidden"]

print(f"polarmask {VERSION}: torch {torch.__version__}, {'CUDA for ' + archs if cuda else f'CPU only: {without_cuda}'}")
setuptools.setup(
    version=VERSION,
    ext_modules=[
        (CUDAExtension if cuda else CppExtension)(
            "polarmask_ops._C",
            sources,
            include_dirs=[str(ROOT / "csrc"), pybind11.get_include()],
            define_macros=macros,
            extra_link_args=ld,
            extra_compile_args={"cxx": cxx, "nvcc": nvcc} if cuda else cxx,
        )
    ],
    cmdclass={"build_ext": Build},
)
