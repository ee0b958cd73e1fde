"""Why `make test-gpu` and `make bench-gpu` cannot run here, in a sentence."""

import sys

import torch

from polarmask_ops import _C


def obstacle() -> str | None:
    """None where torch, the extension and a GPU are ready for each other."""
    if torch.version.cuda is None:
        return f"expected a torch with CUDA, got {torch.__version__}"
    if not torch.cuda.is_available():
        return "expected an NVIDIA GPU, found none"
    built = _C.build_info()
    if not built["cuda"]:
        return (
            "expected polarmask_ops with CUDA kernels, got a build for the CPU only; rebuild it with POLARMASK_CUDA=1"
        )
    major, minor = torch.cuda.get_device_capability()
    if not any(arch.startswith(f"{major}.") for arch in built["cuda_archs"].replace(" ", ";").split(";")):
        name = torch.cuda.get_device_name()
        return f"expected kernels for {name}, compute capability {major}.{minor}, got them for {built['cuda_archs']}"
    return None


if __name__ == "__main__":
    if reason := obstacle():
        sys.exit(f"{sys.argv[1]}: {reason}")
