"""``python -m polarmask_ops``: what was built, and what it runs on."""

import torch

from ._extension import _C


def main() -> None:
    info = _C.build_info()
    if info["cuda"]:
        cuda = f"{info['cuda']}, chips {info['cuda_archs']}"
    elif torch.cuda.is_available():
        cuda = "no (CPU only); built with POLARMASK_CUDA=1 where nvcc is, they would run on the GPU below"
    else:
        cuda = "no (CPU only)"
    rows = {
        "polarmask_ops": info["version"],
        "built against": f"torch {info['torch']}, gcc {info['compiler']}",
        "running on": f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        "CPU": f"{_C.isa()} of {', '.join(_C.ISAS)}",
        "CUDA kernels": cuda,
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    for name, value in rows.items():
        print(f"{name:>14}: {value}")


if __name__ == "__main__":
    main()
