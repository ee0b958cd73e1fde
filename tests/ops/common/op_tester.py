"""The checks that every op must pass. A test subclasses OpTester and fills in its fields; pytest runs the checks.

The NumPy references of tests/reference are called with the keyword arguments of the op. Tensors become arrays, those of
half precision float32 arrays.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from polarmask_ops import _C

EMULATED = hasattr(_C, "emulate")  # POLARMASK_BACKEND=simt: CUDA kernels on CPU tensors
KERNELS = EMULATED or (torch.cuda.is_available() and bool(_C.build_info()["cuda"]))
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
GEOMETRY = (torch.float32, torch.float64)  # exact comparisons: half precision only adds a cast before them
WRONG = (torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.int8, torch.bool)


@dataclass(frozen=True)
class Bad:
    """A call that must fail: the arguments that differ from the sample, the error, and words of its message."""

    changes: dict[str, Any]
    error: type[Exception]
    words: tuple[str, ...]


def leaves(value: Any) -> list[Any]:
    """Return the tensors and other leaves of a result, from inside tuples, lists and dataclasses."""
    if is_dataclass(value):
        return [leaf for field in fields(value) for leaf in leaves(getattr(value, field.name))]
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def change_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return the structure with `change` applied to every tensor, inside dataclasses too."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value):
        return type(value)(*(change_tensors(getattr(value, field.name), change) for field in fields(value)))
    if isinstance(value, (tuple, list)):
        return type(value)(change_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {key: change_tensors(item, change) for key, item in value.items()}
    return value


def change_each_tensor(value: Any, change: Callable[[Tensor], Any]) -> Iterator[tuple[Tensor, Any]]:
    """Yield each tensor of the structure, and the structure with `change` applied to that tensor alone."""
    tensors: list[Tensor] = []
    change_tensors(value, tensors.append)
    for k, tensor in enumerate(tensors):
        numbers = itertools.count()
        yield tensor, change_tensors(value, lambda each: change(each) if next(numbers) == k else each)  # noqa: B023


def array(tensor: Tensor) -> np.ndarray:
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return (tensor.float() if half else tensor).detach().cpu().numpy()


def strided(tensor: Tensor) -> Tensor:
    """Return a tensor with the same values in which no dimension is contiguous."""
    if tensor.dim() == 0:
        return tensor
    wide = tensor.new_empty([2 * size + 1 for size in reversed(tensor.shape)])
    view = wide[tuple(slice(1, None, 2) for _ in tensor.shape)].permute(*reversed(range(tensor.dim())))
    return view.copy_(tensor)


def by_cpu_and_kernels(function: Callable[..., Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Return the results of the CPU loops and of the CUDA kernels, which run on a GPU or in the emulator."""
    if not EMULATED:
        return function(**kwargs), change_tensors(function(**change_tensors(kwargs, Tensor.cuda)), Tensor.cpu)
    try:
        _C.emulate(False)
        by_cpu = function(**kwargs)
    finally:
        _C.emulate(True)
    return by_cpu, function(**kwargs)


class Recorder(TorchFunctionMode):
    """Records the calls of torch.ops.polarmask that a public function makes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    @staticmethod
    def calls_of(function: Callable[..., Any], kwargs: dict[str, Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        with Recorder() as recorder:
            function(**kwargs)
        assert recorder.calls
        return recorder.calls

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)) and "polarmask" in str(func):
            op = func if isinstance(func, torch._ops.OpOverload) else func.default
            rest = op._schema.arguments[len(args) :]
            self.calls.append((func, (*args, *((kwargs or {})[argument.name] for argument in rest))))
        return func(*args, **(kwargs or {}))


class ArgumentTester:
    """Checks that a function and the ops below it refuse wrong dtypes and devices, for every tensor argument."""

    function: ClassVar[Callable[..., Any]]
    name: ClassVar[str] = ""  # in messages; by default that of the function
    dtypes: ClassVar[tuple[torch.dtype, ...]] = FLOATS
    converts: ClassVar[tuple[torch.dtype, ...]] = ()  # dtypes of WRONG that the function, not the op, takes

    def sample(self, dtype: torch.dtype, device: str) -> dict[str, Any]:
        """Return the keyword arguments of a typical call."""
        raise NotImplementedError

    def wrong_dtypes(self, value: Any, right: tuple[torch.dtype, ...] = ()) -> Iterator[Any]:
        """Yield the structure with one tensor converted to a wrong dtype, for each tensor and wrong dtype."""
        for dtype in [dtype for dtype in WRONG if dtype not in right]:
            for tensor, changed in change_each_tensor(value, lambda each: each.detach().to(dtype)):  # noqa: B023
                if dtype != tensor.dtype and not {dtype, tensor.dtype} <= set(self.dtypes):
                    yield changed

    def refuses(self, function: Callable[..., Any], args: Any, kwargs: Any, name: str, *errors: type[Exception]) -> str:
        with pytest.raises(errors) as raised:
            function(*args, **kwargs)
        assert name in str(raised.value)
        return str(raised.value)

    def test_wrong_dtypes_are_refused(self, device):
        name = self.name or type(self).function.__name__
        kwargs = self.sample(torch.float32, device)
        for changed in self.wrong_dtypes(kwargs, self.converts):
            assert "dtype" in self.refuses(type(self).function, (), changed, name, TypeError)
        for op, args in Recorder.calls_of(type(self).function, kwargs):
            for changed in self.wrong_dtypes(args):
                assert "dtype" in self.refuses(op, changed, {}, "", ValueError)

    @pytest.mark.parametrize("wrong", [torch.float8_e4m3fn, torch.complex64, torch.int8])
    def test_meta_tensors_of_other_dtypes_are_refused(self, device, wrong):
        for op, args in Recorder.calls_of(type(self).function, self.sample(torch.float32, device)):
            on_meta = change_tensors(args, lambda tensor: tensor.detach().to("meta"))
            for _, changed in change_each_tensor(on_meta, lambda tensor: tensor.to(wrong)):
                assert "dtype" in self.refuses(op, changed, {}, "", ValueError)

    def test_tensors_on_two_devices_are_refused(self, device):
        """One argument is a meta tensor: torch then calls the fake."""
        name = self.name or type(self).function.__name__
        kwargs = self.sample(torch.float32, device)

        def on_two_devices(value):
            each = list(change_each_tensor(value, lambda tensor: tensor.to("meta")))
            return [changed for _, changed in each] if len(each) > 1 else []

        for changed in on_two_devices(kwargs):
            assert "meta" in self.refuses(type(self).function, (), changed, name, ValueError)
        for op, args in Recorder.calls_of(type(self).function, kwargs):
            for changed in on_two_devices(args):
                assert "meta" in self.refuses(op, changed, {}, "", ValueError)


class OpTester(ArgumentTester):
    reference: ClassVar[Callable[..., Any]]
    differentiable: ClassVar[tuple[str, ...]] = ()  # arguments for gradcheck
    twice: ClassVar[bool] = True  # whether gradgradcheck runs too
    fixed_shape: ClassVar[bool] = True  # whether the shapes of results follow from the shapes of arguments
    bad_inputs: ClassVar[tuple[Bad, ...]] = ()

    def more_samples(self, dtype: torch.dtype, device: str) -> list[dict[str, Any]]:
        """Return further calls to compare with the reference: options and corner cases."""
        return []

    def empty(self, dtype: torch.dtype, device: str) -> list[dict[str, Any]]:
        """Return calls without rows, instances or pixels."""
        return []

    def small(self, device: str) -> dict[str, Any]:
        """Return the sample for gradcheck: float64, few elements, no ties."""
        return self.sample(torch.float64, device)

    def tolerance(self, dtype: torch.dtype) -> dict[str, float]:
        """Return rtol and atol against the reference; by default results must be equal."""
        return {"rtol": 0.0, "atol": 0.0}

    def tolerance_of_kernels(self, dtype: torch.dtype) -> dict[str, float]:
        """Return rtol and atol of the CUDA kernels against the CPU loops; by default results must be equal."""
        return {"rtol": 0.0, "atol": 0.0}

    def compare(self, got: Any, kwargs: dict[str, Any], dtype: torch.dtype) -> None:
        want = type(self).reference(**change_tensors(kwargs, array))
        got_leaves, want_leaves = leaves(got), leaves(want)
        assert len(got_leaves) == len(want_leaves)
        for left, right in zip(got_leaves, want_leaves, strict=True):
            if not isinstance(left, Tensor):
                assert left == right
                continue
            assert left.shape == np.shape(right)
            np.testing.assert_allclose(array(left), right, **self.tolerance(dtype))

    @pytest.mark.parametrize("layout", ["contiguous", "strided"])
    def test_matches_reference(self, dtype, device, layout):
        torch.manual_seed(0)
        for kwargs in [self.sample(dtype, device), *self.more_samples(dtype, device)]:
            given = change_tensors(kwargs, strided) if layout == "strided" else kwargs
            self.compare(type(self).function(**given), kwargs, dtype)

    def test_empty(self, dtype, device):
        for kwargs in self.empty(dtype, device):
            self.compare(type(self).function(**kwargs), kwargs, dtype)

    @pytest.mark.smoke
    @pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
    def test_kernels_agree_with_cpu(self, dtype):
        torch.manual_seed(0)
        samples = [self.sample(dtype, "cpu"), *self.more_samples(dtype, "cpu"), *self.empty(dtype, "cpu")]
        for kwargs in samples:
            by_cpu, by_kernels = by_cpu_and_kernels(type(self).function, kwargs)
            for want, got in zip(leaves(by_cpu), leaves(by_kernels), strict=True):
                torch.testing.assert_close(got, want, **self.tolerance_of_kernels(dtype), equal_nan=True)

    @pytest.mark.skipif(EMULATED, reason="the CPU loops have levels, the kernels none")
    def test_same_bits_on_every_isa(self, dtype):
        chosen = _C.isa()
        torch.manual_seed(0)
        samples = [self.sample(dtype, "cpu"), *self.more_samples(dtype, "cpu"), *self.empty(dtype, "cpu")]
        try:
            for kwargs in samples:
                _C.set_isa("baseline")
                want = leaves(type(self).function(**kwargs))
                for isa in _C.ISAS[1:]:
                    _C.set_isa(isa)
                    got = leaves(type(self).function(**kwargs))
                    for left, right in zip(got, want, strict=True):
                        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
        finally:
            _C.set_isa(chosen)

    def test_gradients(self, device):
        if not self.differentiable:
            pytest.skip("not differentiable")
        torch.manual_seed(0)
        kwargs = self.small(device)

        def call(*inputs):
            return type(self).function(**{**kwargs, **dict(zip(self.differentiable, inputs, strict=True))})

        inputs = [kwargs[name].detach().clone().requires_grad_() for name in self.differentiable]
        assert torch.autograd.gradcheck(call, inputs)
        if self.twice:
            assert torch.autograd.gradgradcheck(call, inputs)

    def test_opcheck(self, device):
        torch.manual_seed(0)
        kwargs = self.sample(torch.float32, device)
        for name in self.differentiable:
            kwargs[name] = kwargs[name].detach().requires_grad_()
        for op, args in Recorder.calls_of(type(self).function, kwargs):
            torch.library.opcheck(op, args)

    def test_compile(self, device):
        if not self.fixed_shape:
            pytest.skip("the length of the result depends on the data")
        torch.manual_seed(0)
        kwargs = self.sample(torch.float32, device)
        compiled = torch.compile(type(self).function, fullgraph=True, backend="aot_eager")
        for got, want in zip(leaves(compiled(**kwargs)), leaves(type(self).function(**kwargs)), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)

    def test_export(self, device):
        if not self.fixed_shape:
            pytest.skip("the length of the result depends on the data")

        class Module(torch.nn.Module):
            def forward(_, **kwargs):  # noqa: N805
                return leaves(type(self).function(**kwargs))

        torch.manual_seed(0)
        kwargs = self.sample(torch.float32, device)
        exported = torch.export.export(Module(), (), kwargs)
        for got, want in zip(exported.module()(**kwargs), leaves(type(self).function(**kwargs)), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)

    def test_autocast_changes_nothing(self, device):
        torch.manual_seed(0)
        kwargs = self.sample(torch.float32, device)
        want = leaves(type(self).function(**kwargs))
        with torch.autocast(device, torch.bfloat16):
            got = leaves(type(self).function(**kwargs))
        for left, right in zip(got, want, strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)

    def test_bad_input(self, bad, device):
        kwargs = {**self.sample(torch.float32, device), **bad.changes}
        with pytest.raises(bad.error) as raised:
            type(self).function(**kwargs)
        assert [
            word for word in (self.name or type(self).function.__name__, *bad.words) if word not in str(raised.value)
        ] == []
