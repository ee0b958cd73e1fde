"""Wrong dtypes, devices and counts for the functions without an OpTester; and that every op has a tester."""

import importlib
import inspect
from pathlib import Path

import pytest
import torch
from op_tester import ArgumentTester, Recorder

from polarmask_ops import RLE, Outlines, outlines_from_masks, outlines_from_polygons, outlines_from_rle

SQUARE = [0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0]


def an_rle(device="cpu"):
    return RLE(torch.tensor([2, 3, 1, 6], dtype=torch.int32), torch.tensor([0, 3, 4]), (2, 3)).to(device)


class RleTester(ArgumentTester):
    def sample(self, dtype, device):
        return {"self": an_rle(device)}


class TestToMasks(RleTester):
    function, name = RLE.to_masks, "RLE.to_masks"


class TestToCoco(RleTester):
    function, name = RLE.to_coco, "RLE.to_coco"


class TestAreas(RleTester):
    function, name = RLE.areas, "RLE.areas"


class TestBoxes(RleTester):
    function, name = RLE.boxes, "RLE.boxes"


class TestFromMasks(ArgumentTester):
    function, name = RLE.from_masks, "RLE.from_masks"

    def sample(self, dtype, device):
        return {"masks": torch.ones(1, 2, 3, dtype=torch.bool, device=device)}


class TestFromStrings(ArgumentTester):
    """What RLE.from_coco calls."""

    function, name = torch.ops.polarmask.rle_from_strings.default, "RLE.from_coco"

    def sample(self, dtype, device):
        strings = torch.tensor(list(b"231"), dtype=torch.uint8, device=device)
        return {"strings": strings, "offsets": torch.tensor([0, 3], device=device), "height": 2, "width": 3}

    def test_wrong_dtypes_are_refused(self, device):
        for changed in self.wrong_dtypes(self.sample(None, device)):
            assert "dtype" in self.refuses(self.function, (), changed, self.name, ValueError)

    def test_tensors_on_two_devices_are_refused(self, device):
        sample = self.sample(None, device)
        for name in ("strings", "offsets"):
            changed = {**sample, name: sample[name].to("meta")}
            assert "meta" in self.refuses(self.function, (), changed, "rle_from_strings", ValueError)


class TestClip(ArgumentTester):
    function, name = Outlines.clip, "Outlines.clip"

    def sample(self, dtype, device):
        return {"self": outlines_from_polygons([[SQUARE]]).to(device), "size": (3, 3)}


class TestOutlinesFromRle(ArgumentTester):
    function = outlines_from_rle

    def sample(self, dtype, device):
        return {"rle": an_rle(device)}


class TestOutlinesFromMasks(ArgumentTester):
    function = outlines_from_masks

    def sample(self, dtype, device):
        masks = torch.ones(1, 2, 3, dtype=torch.bool, device=device)
        return {"masks": masks, "boxes": torch.tensor([[0.0, 0, 3, 2]], device=device)}


def test_every_op_has_a_tester():
    """The samples of the testers call every registered op, except those that compute derivatives."""
    called = set()
    for path in Path(__file__).parent.parent.rglob("test_*.py"):
        if "Tester" not in path.read_text():
            continue
        module = importlib.import_module(path.stem)
        for _, tester in inspect.getmembers(module, inspect.isclass):
            if (
                issubclass(tester, ArgumentTester)
                and tester.__name__.startswith("Test")
                and hasattr(tester, "function")
            ):
                calls = Recorder.calls_of(tester.function, tester().sample(torch.float32, "cpu"))
                called |= {str(op).removeprefix("polarmask.").removesuffix(".default") for op, _ in calls}
    registered = {
        name.removeprefix("polarmask::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("polarmask::")
    }
    derivatives = {"polar_iou_backward", "polar_iou_double_backward"}
    assert called == registered - derivatives


@pytest.mark.parametrize("counts", [[3, 4], [3, 2], [], [2**31 - 1, 2**31 - 1]])
@pytest.mark.parametrize("method", [RLE.to_masks, RLE.to_coco, RLE.areas, RLE.boxes, outlines_from_rle])
def test_counts_that_do_not_add_up_to_the_image_are_refused(method, counts):
    good = an_rle()
    counts = torch.tensor([*good.counts.tolist(), *counts], dtype=torch.int32)
    rle = RLE(counts, torch.tensor([0, 3, 4, len(counts)]), good.size)
    with pytest.raises(ValueError, match=r"expected the counts of instance 2 to sum to 2 \* 3"):
        method(rle)


@pytest.mark.parametrize("method", [Outlines.areas, Outlines.centroids, Outlines.boxes])
def test_messages_name_the_method_that_was_called(method):
    outlines = Outlines(torch.zeros(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=rf"^{method.__qualname__}: expected outlines.offsets to go from 0 to 2"):
        method(outlines)


def raw_backward(**changes):
    given = {
        "grad": torch.ones(()), "pred": torch.ones(2, 4), "target": torch.ones(2, 4), "weight": torch.ones(2),
        "value": torch.ones(()), "sums": torch.ones(2, 2, dtype=torch.float64), "divisor": torch.ones(()),
    } | changes  # fmt: skip
    options = (True, 1, False, True, 1, True, True, True)
    return torch.ops.polarmask.polar_iou_backward(*given.values(), *options)


@pytest.mark.parametrize("name", ["grad", "pred", "target", "weight", "value", "sums", "divisor"])
def test_polar_iou_backward_reads_nothing_that_it_was_not_given(name):
    raw_backward()
    good = {"grad": (), "pred": (2, 4), "target": (2, 4), "weight": (2,), "value": (), "sums": (2, 2), "divisor": ()}
    for dtype in (torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64, torch.float16):
        with pytest.raises(ValueError, match=r"polar_iou_backward: expected .* dtype"):
            raw_backward(**{name: torch.ones(good[name]).to(dtype)})
    with pytest.raises(ValueError, match="polar_iou_backward: expected"):
        raw_backward(**{name: torch.ones(3, 5, 7)})
    with pytest.raises(ValueError, match="meta"):
        raw_backward(**{name: torch.ones(good[name], device="meta")})


def test_strided_sums_are_read_as_they_lie():
    sums = torch.rand(2, 4, dtype=torch.float64)
    for got, want in zip(raw_backward(sums=sums[:, ::2]), raw_backward(sums=sums[:, ::2].contiguous()), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("shape", [(0,), (2, 1), ()])
def test_meta_offsets_of_another_shape_are_refused(shape):
    segments, offsets = torch.zeros(2, 4, device="meta"), torch.zeros(shape, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match=r"outlines_moments: expected offsets of shape \(N \+ 1,\), got"):
        torch.ops.polarmask.outlines_moments(segments, offsets, "Outlines.areas")
    with pytest.raises(ValueError, match=r"outlines_to_rle: expected offsets of shape \(N \+ 1,\), got"):
        torch.ops.polarmask.outlines_to_rle(segments, offsets, 4, 5)
