"""Tried against an extension built with CUDA, where no GPU is: it loads, and holds every kernel of every op."""

import re
from pathlib import Path

import torch

from polarmask_ops import _C

KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(")
CSRC = Path(__file__).parents[2] / "csrc"


def main() -> None:
    info, library = _C.build_info(), Path(_C.__file__)
    assert info["cuda"], f"{library} was built without CUDA"
    ops = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("polarmask::")]
    without = [op for op in ops if not torch._C._dispatch_has_kernel_for_dispatch_key(op, "CUDA")]
    assert ops, "no op is registered"
    assert not without, f"not registered for CUDA: {', '.join(without)}"

    # A registered host function may still refuse CUDA tensors, and a .cu file may have been left out: what the library
    # holds tells.
    content = library.read_bytes()
    kernels = {name for path in CSRC.rglob("*.cu") for name in KERNEL.findall(path.read_text())}
    missing = [name for name in sorted(kernels) if name.encode() not in content]
    assert not missing, f"kernels that are not in {library}: {', '.join(missing)}"
    refusing = [path.name for path in CSRC.rglob("*.cpp") if "no_cuda_kernel(" in path.read_text()]
    assert b"has no CUDA kernel for" not in content, f"CUDA tensors are refused in {', '.join(sorted(refusing))}"
    print(f"{len(ops)} ops with {len(kernels)} kernels for {info['cuda_archs']}")


if __name__ == "__main__":
    main()
