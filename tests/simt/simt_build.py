"""Builds for the emulator: its own tests (``patterns``) and the kernels of polarmask_ops (``_C_simt``).

``python tests/simt/simt_build.py plain|race|asan|odr ...`` leaves them under build/simt/<kind>/. The .cu files of
csrc/sources.txt are compiled as C++ with the stand-in for <cuda_runtime.h> that lies beside this file. ``race``
instruments them, and nothing else, for the race detector. ``odr`` is never run: it is linked with gcc's link-time
optimisation, which compares the types and functions of all sources and fails where two of one name differ.
"""

import fcntl
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = ("plain", "race", "asan")  # those that are run
FLAGS = "-std=c++20 -g1 -ffp-contract=off -fPIC -fvisibility=hidden"
FLAGS += " -Wall -Wextra -Wno-unused-parameter -Wno-unknown-pragmas"  # nvcc knows #pragma unroll
ASAN = "-O1 -fsanitize=address,undefined,float-cast-overflow -fno-sanitize=vptr -fno-sanitize-recover=all"
COMPILE = {"plain": "-O2", "race": "-O2", "asan": ASAN, "odr": "-O0 -flto -Wno-psabi"}
KERNELS = {**COMPILE, "race": "-O1 -fsanitize=thread"}  # the sanitizer's library is never linked, race.cpp stands in
LINK = {"plain": "", "race": "", "asan": ASAN, "odr": "-O0 -flto=2 -Wodr -Werror=odr"}


def torch_flags() -> tuple[str, str]:
    """What the host functions need, to compile and to link."""
    import pybind11
    import torch

    torch_root = Path(torch.__file__).parent
    includes = (torch_root / "include", pybind11.get_include(), sysconfig.get_path("include"))
    strings = {"VERSION": "simt", "TORCH_VERSION": torch.__version__, "CUDA_VERSION": "emulated", "CUDA_ARCHS": ""}
    return " ".join(
        [
            "-DTORCH_TARGET_VERSION=0x020d000000000000 -DTORCH_EXTENSION_NAME=_C_simt",
            "-DPOLARMASK_WITH_CUDA -DPOLARMASK_SIMT",
            *(f"'-DPOLARMASK_{name}=\"{value}\"'" for name, value in strings.items()),
            *(f"-isystem {folder}" for folder in includes),
        ]
    ), f"-shared -L{torch_root}/lib -Wl,-rpath,{torch_root}/lib -ltorch_cpu -lc10"


def rules(extension: bool, mutants: Mapping[Path, Path]) -> str:
    """The text of build.ninja."""
    lines = [
        "rule compile",
        "  command = c++ -MMD -MF $out.d $flags -x c++ -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        "  command = c++ $in -o $out $flags -ldl",
    ]
    here, csrc = ROOT / "tests" / "simt", ROOT / "csrc"
    compiled: set[str] = set()
    to_compile, to_link = torch_flags() if extension else ("", "")

    def compile_(source: Path, flags: str, kind: str) -> str:
        """The object of a source; the host code of plain and race is the same."""
        # A mutant is a copy of the whole of csrc with one change: it must find the copy's headers, not the originals.
        root = next((parent for parent in source.parents if parent.name == csrc.name), csrc)
        folder = "host" if flags == COMPILE["plain"] else kind
        target = f"{folder}/{source.relative_to(ROOT)}.o"
        if target not in compiled:
            compiled.add(target)
            if source.is_relative_to(csrc) and source.suffix == ".cpp":
                flags += f" {to_compile}"
            lines.append(f"build {target}: compile {source}\n  flags = {FLAGS} -I{here} -I{root} {flags}")
        return target

    def link(target: str, objects: list[str], flags: str) -> None:
        lines.append(f"build {target}: link {' '.join(objects)}\n  flags = {flags}")

    listed = [line for line in (csrc / "sources.txt").read_text().splitlines() if line and line[0] != "#"]
    # Kernels first: of an inline function that both halves use, the linker keeps the first, instrumented copy.
    sources = sorted((csrc / name for name in listed), key=lambda path: path.suffix != ".cu")
    for kind in COMPILE:
        emulator = [compile_(here / name, COMPILE[kind], kind) for name in ("simt.cpp", "race.cpp")]
        link(f"{kind}/patterns", [compile_(here / "patterns.cu", KERNELS[kind], kind), *emulator], LINK[kind])
        if extension:
            flags = {path: (KERNELS if path.suffix == ".cu" else COMPILE)[kind] for path in sources}
            objects = {path: compile_(path, flags[path], kind) for path in sources}
            # The emulator defines variables that kernels declare const, which `odr` would report.
            others = [] if kind == "odr" else emulator
            link(f"{kind}/_C_simt.so", [*objects.values(), *others], f"{LINK[kind]} {to_link}")
            if mutants and kind == "race":
                objects |= {path: compile_(changed, flags[path], kind) for path, changed in mutants.items()}
                link("mutant/_C_simt.so", [*objects.values(), *emulator], to_link)
    return "\n".join(lines) + "\n"


def build(folder: Path, *targets: str, mutants: Mapping[Path, Path] | None = None) -> None:
    """Build into a folder; ``mutants`` are sources and what replaces them in the target mutant/_C_simt.so."""
    folder.mkdir(parents=True, exist_ok=True)
    text = rules(any(target.endswith(".so") for target in targets), mutants or {})
    command = ["env", "-u", "LD_PRELOAD", "ninja", "-C", folder, "--quiet", *targets]  # no sanitizer for the compiler
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several targets of the Makefile may build at the same time
        (folder / "build.ninja").write_text(text)
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


if __name__ == "__main__":
    kinds = sys.argv[1:]
    if not kinds or set(kinds) - set(COMPILE):
        sys.exit(f"expected one or more of {', '.join(COMPILE)}, got {' '.join(kinds) or 'none'}")
    build(ROOT / "build" / "simt", *(f"{kind}/_C_simt.so" for kind in kinds))
