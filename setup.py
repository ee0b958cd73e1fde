"""Builds polarmask_ops._C from csrc/sources.txt.

Environment
-----------
POLARMASK_CUDA : ``auto`` (default: CUDA when torch was built with it and nvcc is found), ``0`` or ``1``
TORCH_CUDA_ARCH_LIST : chips to build for, by default all that the installed torch was built for
POLARMASK_SANITIZE : ``1`` builds with AddressSanitizer and UndefinedBehaviorSanitizer
MAX_JOBS : parallel compilations
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import torch
from setuptools import setup

ROOT = Path(__file__).parent
VERSION = "0.1.0"
TORCH_TARGET_VERSION = "0x020d000000000000"  # 2.13, the oldest release in pyproject.toml


def cuda_home() -> str | None:
    """The folder of the CUDA toolkit, asked of nvcc itself: the one on PATH may be a wrapper script elsewhere."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(os.environ.get("CUDA_HOME", "")) / "bin"))
    if nvcc is None:
        return None
    dryrun = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
    tops = [line.split("TOP=", 1)[1].strip() for line in dryrun.splitlines() if "TOP=" in line]
    return str(Path(tops[0]).resolve()) if tops else None


def wants_cuda(sources: list[str]) -> bool:
    choice = os.environ.get("POLARMASK_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        sys.exit(f"setup.py: expected POLARMASK_CUDA to be auto, 0 or 1, got {choice!r}")
    if choice == "0":
        return False
    obstacles = {
        "csrc/sources.txt lists no CUDA kernels": not any(source.endswith(".cu") for source in sources),
        "the installed torch was built without CUDA": torch.version.cuda is None,
        "nvcc is neither on PATH nor under CUDA_HOME": cuda_home() is None,
    }
    met = [obstacle for obstacle, here in obstacles.items() if here]
    if met and choice == "1":
        sys.exit(f"setup.py: POLARMASK_CUDA=1, but {' and '.join(met)}")
    return not met


def cuda_archs() -> str:
    if "TORCH_CUDA_ARCH_LIST" not in os.environ:
        chips = [arch.removeprefix("sm_") for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(f"{chip[:-1]}.{chip[-1]}" for chip in chips)
    return os.environ["TORCH_CUDA_ARCH_LIST"]


lines = (ROOT / "csrc" / "sources.txt").read_text().splitlines()
sources = [f"csrc/{line}" for line in lines if line and not line.startswith("#")]
cuda = wants_cuda(sources)
archs = cuda_archs() if cuda else ""
if cuda:
    os.environ["CUDA_HOME"] = cuda_home()  # read when torch's builder is imported
else:
    sources = [source for source in sources if not source.endswith(".cu")]

from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402

sanitize = os.environ.get("POLARMASK_SANITIZE") == "1"


class Build(BuildExtension):
    def initialize_options(self) -> None:
        super().initialize_options()
        # A place of its own instead of pip's temporary one: ninja compiles only what has changed.
        self.build_temp = "build/objects" + ("-sanitize" if sanitize else "-cuda" if cuda else "")


macros = [
    ("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION),
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

print(f"polarmask {VERSION}: torch {torch.__version__}, {'CUDA for ' + archs if cuda else 'CPU only'}")
setup(
    version=VERSION,
    ext_modules=[
        (CUDAExtension if cuda else CppExtension)(
            "polarmask_ops._C",
            sources,
            include_dirs=[pybind11.get_include()],
            define_macros=macros,
            extra_link_args=ld,
            extra_compile_args={"cxx": cxx, "nvcc": nvcc} if cuda else cxx,
        )
    ],
    cmdclass={"build_ext": Build},
)
