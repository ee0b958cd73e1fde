"""Would the tests notice a kernel without one of its barriers, or with a plain update in place of an atomic one?

``python tests/simt/mutate.py [stem ...]`` makes every such mutant of the kernels, one at a time, builds it with the
race detector and runs the tests of its stem until one fails. A mutant that survives fails the script.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from simt_build import ROOT, build

FOLDER = ROOT / "build" / "simt"
BARRIER = re.compile(r"__sync(threads|warp)\([^()]*\);")
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
            yield f"line {line}: {found.group()}", changed[:end] + PLAIN + changed[end:]


def source(kernels: Path) -> str:
    """The text of a .cu file, with the .cuh files beside it in their places: their barriers are its own."""
    text = kernels.read_text()
    for header in kernels.parent.glob("*.cuh"):
        text = text.replace(f'#include "{header.name}"\n', header.read_text().replace("#pragma once\n", ""))
    return text


def test(tests: str, folder: str) -> str | None:
    """How the tests failed, None where they passed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command += ["-k", "not compile and not export and not opcheck", tests]
    environment = {**os.environ, "POLARMASK_BACKEND": "simt", "PYTHONPATH": str(FOLDER / folder)}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return "it hangs"
    if done.returncode == 0:
        return None
    report = re.search(r"simt: .*", done.stdout)
    return report.group() if report else "a wrong result: " + done.stdout.strip().splitlines()[-1]


def main(stems: list[str]) -> None:
    kernels = sorted((ROOT / "csrc" / "ops").glob("*/*_kernels.cu"))
    survivors = 0
    build(FOLDER, "race/_C_simt.so")
    for original in kernels:
        stem = original.parent.name
        if stems and stem not in stems:
            continue
        of_kernel, of_stem = (f"tests/test_{name}.py" for name in (original.stem.removesuffix("_kernels"), stem))
        tests = of_kernel if (ROOT / of_kernel).exists() else of_stem
        if failed := test(tests, "race"):
            sys.exit(f"{stem}: the tests fail without any change: {failed}")
        for what, text in mutants(source(original)):
            changed = FOLDER / "mutant" / original.name
            changed.parent.mkdir(exist_ok=True)
            changed.write_text(text)
            build(FOLDER, "mutant/_C_simt.so", mutant=(original, changed))
            noticed = test(tests, "mutant")
            survivors += noticed is None
            print(f"{original.name}, {what}: {noticed or 'NOT NOTICED'}", flush=True)
    sys.exit(f"{survivors} mutants were not noticed" if survivors else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
