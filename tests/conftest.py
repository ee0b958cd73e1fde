import os

import hypothesis
import pytest
import torch

from polarmask_ops import _C

# The same examples in every run, and no deadline: machines are shared.
hypothesis.settings.register_profile("polarmask", deadline=None, derandomize=True)
hypothesis.settings.load_profile("polarmask")

if hasattr(_C, "schedule"):  # POLARMASK_BACKEND=simt: the CUDA kernels, emulated
    os.environ.setdefault("POLARMASK_CHECK", "1")  # or bad values would not raise, as on a GPU
    _C.schedule(os.environ.get("POLARMASK_SIMT_SCHEDULE", "forward"))


def devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() and _C.build_info()["cuda"] else ["cpu"]


@pytest.fixture(params=devices(), scope="session")  # so that hypothesis can use it
def device(request) -> str:
    return request.param


def pytest_generate_tests(metafunc):
    """The dtypes and bad inputs of an OpTester come from its class."""
    if metafunc.cls is None or not hasattr(metafunc.cls, "bad_inputs"):
        return
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", metafunc.cls.dtypes, ids=lambda dtype: str(dtype).removeprefix("torch."))
    if "bad" in metafunc.fixturenames:
        ids = [f"{'-'.join(bad.changes)}-{n}" for n, bad in enumerate(metafunc.cls.bad_inputs)]
        metafunc.parametrize("bad", metafunc.cls.bad_inputs, ids=ids)
