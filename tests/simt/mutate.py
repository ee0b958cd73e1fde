"""Would the tests notice a kernel without one of its barriers, or with a plain update in place of an atomic one?

``python tests/simt/mutate.py [stem ...]`` makes every such mutant of the kernels, and of what they share, one at a
time, builds it with the race detector and runs the tests of its stem until one fails. `common` is a stem. A mutant that
survives fails the script.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from simt_build import ROOT, build

CSRC, FOLDER = ROOT / "csrc", ROOT / "build" / "simt"
COMMON = {"scan_kernels.cu": ("rle", "outlines", "rasterize")}  # whose tests see kernels that all share
BARRIER = re.compile(r"__sync(threads|warp)\(([^()]|\(\))*\);")
VOTE = re.compile(r"__syncthreads_(or|and|count)(?=\()")
ATOMIC = re.compile(r"\batomic(Add|Sub|Min|Max|And|Or|Xor|Exch|CAS)(?=\()")
PLAIN = """
namespace plain {
template <class T> T atomicAdd(T* at, std::type_identity_t<T> v) { const T old = *at; *at = old + v; return old; }
template <class T> T atomicSub(T* at, std::type_identity_t<T> v) { const T old = *at; *at = old - v; return old; }
template <class T> T atomicMin(T* at, std::type_identity_t<T> v) { const T old = *at; *at = min(old, v); return old; }
template <class T> T atomicMax(T* at, std::type_identity_t<T> v) { const T old = *at; *at = max(old, v); return old; }
template <class T> T atomicAnd(T* at, std::type_identity_t<T> v) { const T old = *at; *at = old & v; return old; }
template <class T> T atomicOr(T* at, std::type_identity_t<T> v) { const T old = *at; *at = old | v; return old; }
template <class T> T atomicXor(T* at, std::type_identity_t<T> v) { const T old = *at; *at = old ^ v; return old; }
template <class T> T atomicExch(T* at, std::type_identity_t<T> v) { const T old = *at; *at = v; return old; }
template <class T> T atomicCAS(T* at, std::type_identity_t<T> is, std::type_identity_t<T> v) {
  const T old = *at;
  if (old == is) *at = v;
  return old;
}
}  // namespace plain
"""


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the changed source) for each barrier and atomic."""
    for pattern, change in ((BARRIER, ";"), (VOTE, ""), (ATOMIC, r"plain::\g<0>")):
        for found in pattern.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            changed = text[: found.start()] + found.expand(change) + text[found.end() :]
            at = changed.rindex("#include")
            end = changed.index("\n", at) + 1
            yield f"{line}: {found.group()}", changed[:end] + PLAIN + changed[end:]


def kernels_with(source: Path) -> list[Path]:
    """A .cu file itself; those that include a .cuh file."""
    if source.suffix == ".cu":
        return [source]
    include = re.compile(rf'#include ".*\b{re.escape(source.name)}"')
    return [path for path in sorted(CSRC.rglob("*.cu")) if include.search(path.read_text())]


def tests_of(kernels: list[Path]) -> list[str]:
    """The test files of each kernel file, by its name or else by the name of its folder."""
    tests = ROOT / "tests" / "ops"
    names: list[str] = []
    for path in kernels:
        own = path.stem.removesuffix("_kernels")
        names += COMMON.get(path.name, [own if (tests / f"test_{own}.py").exists() else path.parents[1].name])
    return sorted({str(path.relative_to(ROOT)) for name in names for path in tests.glob(f"test_{name}*.py")})


def failure(tests: list[str], folder: str) -> str | None:
    """How the tests failed, None where they passed. The smoke tests first, which see most."""
    environment = {**os.environ, "POLARMASK_BACKEND": "simt", "PYTHONPATH": str(FOLDER / folder)}
    for marks in ("smoke", "not smoke and not slow"):
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", marks, "-p", "no:cacheprovider"]
        command += ["-k", "not compile and not export and not opcheck", *tests]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        except subprocess.TimeoutExpired:
            return "it hangs"
        if done.returncode not in (0, 5):  # 5: no such tests
            report = re.search(r"simt: .*", done.stdout)
            return report.group() if report else "a wrong result: " + done.stdout.strip().splitlines()[-1]
    return None


def main(stems: list[str]) -> None:
    sources = [path for path in sorted(CSRC.rglob("*.cu*")) if not stems or path.parents[1].name in stems]
    kernels = {source: kernels_with(source) for source in sources}
    copy = FOLDER / "mutant" / "csrc"  # of all sources, so that what they include is found
    shutil.copytree(CSRC, copy, copy_function=shutil.copyfile, dirs_exist_ok=True)
    build(FOLDER, "race/_C_simt.so")
    if failed := failure(tests_of(sorted({path for paths in kernels.values() for path in paths})), "race"):
        sys.exit(f"the tests fail without any change: {failed}")
    survivors = 0
    for source in sources:
        changed = copy / source.relative_to(CSRC)
        tests, in_copy = tests_of(kernels[source]), {path: copy / path.relative_to(CSRC) for path in kernels[source]}
        for what, text in mutants(source.read_text()):
            changed.write_text(text)
            build(FOLDER, "mutant/_C_simt.so", mutants=in_copy)
            noticed = failure(tests, "mutant")
            survivors += noticed is None
            print(f"{source.relative_to(ROOT)}:{what}: {noticed or 'NOT NOTICED'}", flush=True)
        shutil.copyfile(source, changed)
    sys.exit(f"{survivors} mutants were not noticed" if survivors else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
