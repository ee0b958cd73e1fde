"""The best points of each level of a head's output."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_tester import EMULATED, FLOATS, KERNELS, Bad, OpTester, array, by_cpu_and_kernels, change_tensors
from reference import top_scores as reference

from polarmask_ops import _C, top_scores

# A product of two sigmoids within some ulp, each of an exponential within 2.
TOLERANCE = {torch.float64: {"rtol": 1e-14, "atol": 0.0}}
FLOAT32 = {"rtol": 2e-6, "atol": 1e-38}


def outputs(images, lengths, classes, dtype=torch.float32, device="cpu", seed=0):
    """As a head has them: the background of classes is far below 0."""
    generator = torch.Generator().manual_seed(seed)
    points = sum(lengths)
    logits = 2 * torch.randn(images, points, classes, generator=generator) - 4
    centerness = torch.randn(images, points, generator=generator)
    return {
        "logits": logits.to(device, dtype),
        "centerness": centerness.to(device, dtype),
        "lengths": lengths,
    }


class TestTopScores(OpTester):
    function = top_scores
    reference = reference.top_scores
    bad_inputs = (
        Bad({"logits": torch.rand(30, 5)}, ValueError, ("logits", "(B, L, C)", "(30, 5)")),
        Bad({"logits": torch.rand(2, 30, 0)}, ValueError, ("logits", "at least 1 class", "(2, 30, 0)")),
        Bad({"logits": torch.ones(2, 30, 5, dtype=torch.int64)}, TypeError, ("logits", "floating-point", "int64")),
        Bad({"centerness": torch.rand(2, 30, 1)}, ValueError, ("centerness", "(B, L)", "(2, 30, 1)")),
        Bad({"centerness": torch.rand(2, 29)}, ValueError, ("centerness", "(B, L)", "(2, 29)")),
        Bad({"centerness": torch.rand(1, 30)}, ValueError, ("centerness", "(B, L)", "(1, 30)")),
        Bad({"centerness": [0.0]}, TypeError, ("centerness", "tensor", "list")),
        Bad({"lengths": [24, 5]}, ValueError, ("lengths", "30", "29")),
        Bad({"lengths": [31, -1]}, ValueError, ("lengths", "from 0", "-1")),
        Bad({"lengths": [2**31]}, ValueError, ("lengths", "2**31 - 1", str(2**31))),
        Bad({"lengths": [1] * 33}, ValueError, ("lengths", "at most 32", "33")),
        Bad({"k": -1}, ValueError, ("k", "at least 0", "-1")),
    )

    def sample(self, dtype, device):
        return {**outputs(2, [24, 6], 5, dtype, device), "k": 8}

    def more_samples(self, dtype, device):
        hostile = outputs(1, [40, 2, 9], 3, dtype, device)
        hostile["logits"][0, :8] = torch.tensor([math.nan, math.inf, -math.inf, 0, -0.0, 1e4, -1e4, 80])[:, None]
        hostile["logits"][0, 8:12, 1] = math.nan
        hostile["centerness"][0, 12:20] = torch.tensor([math.nan, math.inf, -math.inf, 0, -0.0, 1e4, -1e4, -80])
        return [
            {**outputs(3, [50], 80, dtype, device), "k": 3},
            {**outputs(1, [7, 0, 11, 1], 1, dtype, device), "k": 100},
            {**outputs(2, [20, 10], 8, dtype, device), "k": 1},
            {**outputs(2, [20, 10], 9, dtype, device), "k": 2**40},
            {**hostile, "k": 30},
        ]

    def empty(self, dtype, device):
        return [
            {**outputs(0, [24, 6], 5, dtype, device), "k": 8},
            {**outputs(2, [], 5, dtype, device), "k": 8},
            {**outputs(2, [0, 0], 5, dtype, device), "k": 8},
            {**outputs(2, [24, 6], 5, dtype, device), "k": 0},
        ]

    def tolerance(self, dtype):
        return TOLERANCE.get(dtype, FLOAT32)

    def compare(self, got, kwargs, dtype):
        """Points whose scores differ by rounding may change places; nothing else may."""
        values, indices = (array(tensor) for tensor in got)
        given = change_tensors(kwargs, array)
        want, places = reference.top_scores(**given)
        assert values.shape == indices.shape == want.shape
        np.testing.assert_allclose(values, want, **self.tolerance(dtype))
        of_all = reference.scores(given["logits"], given["centerness"])
        np.testing.assert_allclose(np.take_along_axis(of_all, indices, 1), want, **self.tolerance(dtype))
        for row in indices:
            assert len(set(row.tolist())) == len(row)
        ends = np.cumsum(given["lengths"])
        assert (np.searchsorted(ends, indices, "right") == np.searchsorted(ends, places, "right")).all()


def check_order(values, indices, lengths, k):
    """Falling within a level, the lower index first; all points where k is large enough."""
    at = first = 0
    for length in lengths:
        count = min(k, length)
        for of_image, points in zip(values[:, at : at + count], indices[:, at : at + count], strict=True):
            keys = list(zip((-of_image).tolist(), points.tolist(), strict=True))
            assert keys == sorted(keys)
            assert all(first <= point < first + length for point in points.tolist())
            assert len(set(points.tolist())) == count
        at, first = at + count, first + length
    assert at == values.shape[1] == indices.shape[1]


def check_prefixes(given, ks):
    """The best k are the first k of all, in the same bits."""
    lengths = given["lengths"]
    of_all = top_scores(**given, k=max(lengths))
    check_order(*of_all, lengths, max(lengths))
    for k in ks:
        starts = itertools.accumulate(lengths, initial=0)
        kept = [start + n for start, length in zip(starts, lengths, strict=False) for n in range(min(k, length))]
        for got, every in zip(top_scores(**given, k=k), of_all, strict=True):
            torch.testing.assert_close(got, every[:, kept], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_top_scores_of_smaller_k_are_a_prefix(dtype):
    """Half precision has many ties, and few of them at the edge would be noticed by the reference."""
    check_prefixes(outputs(2, [600, 90, 1], 4, dtype), (1, 2, 31, 89, 90, 91, 300, 599))


def test_top_scores_of_ties_go_by_index():
    logits = torch.tensor([1.0, 0.0, 1.0, 2.0]).repeat(500)[None, :, None]
    given = {"logits": logits, "centerness": torch.zeros(1, 2000), "lengths": [2000]}
    check_prefixes(given, (1, 500, 501, 700, 1500, 1999))
    indices = top_scores(**given, k=503)[1][0].tolist()
    assert indices == [*range(3, 2000, 4), 0, 2, 4]
    given["logits"] = torch.full((1, 2000, 1), 40.0)  # and where sigmoids are 1
    assert top_scores(**given, k=7)[1][0].tolist() == list(range(7))


NUMBERS = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 5.0, -5.0, 40.0, -90.0, -110.0, 1e30, -1e30, math.nan, math.inf, -math.inf]
)


@settings(max_examples=30 if EMULATED else 200)
@given(st.data())
def test_top_scores_of_hostile_values_equal_reference(data):
    lengths = data.draw(st.lists(st.integers(0, 6), max_size=3))
    points, classes = sum(lengths), data.draw(st.integers(1, 9))
    table = data.draw(st.lists(NUMBERS, min_size=points * (classes + 1), max_size=points * (classes + 1)))
    table = torch.tensor(table, dtype=data.draw(st.sampled_from(FLOATS))).view(1, points, classes + 1)
    given = {"logits": table[..., 1:], "centerness": table[..., 0], "lengths": lengths}
    k = data.draw(st.integers(0, 7))
    got = top_scores(**given, k=k)
    check_order(*got, lengths, k)
    assert ((got[0] >= 0) & (got[0] <= 1)).all()
    TestTopScores().compare(got, {**given, "k": k}, table.dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_top_scores_of_any_strides_are_equal(dtype):
    given = outputs(2, [300, 40], 11, dtype)
    want = top_scores(**given, k=50)
    logits, centerness = given["logits"], given["centerness"]
    maps = torch.cat([logits, centerness[..., None]], 2).transpose(1, 2).contiguous()  # channel-first, one tensor
    views = (
        (maps[:, :11].transpose(1, 2), maps[:, 11]),
        (logits.transpose(0, 1).contiguous().transpose(0, 1), centerness.T.contiguous().T),
        (logits.flip(1)[:, ::1].flip(1), centerness),
        (logits.repeat_interleave(2, 2)[..., ::2], centerness.repeat_interleave(3, 1)[:, ::3]),
    )
    for of_classes, of_centers in views:
        for got, expected in zip(top_scores(of_classes, of_centers, [300, 40], 50), want, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0)
    expanded = top_scores(logits[:1].expand(3, -1, -1), centerness[:1].expand(3, -1), [300, 40], 50)
    for got, expected in zip(expanded, want, strict=True):
        torch.testing.assert_close(got, expected[:1].expand(3, -1), rtol=0, atol=0)


def test_top_scores_of_two_dtypes_use_the_common_one():
    given = outputs(1, [30], 4)
    logits = given["logits"].bfloat16()
    want = top_scores(logits.float(), given["centerness"], [30], 9)
    for got, expected in zip(top_scores(logits, given["centerness"], [30], 9), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_top_scores_equal_topk_of_torch():
    given = outputs(1, [2000, 500], 20)
    scores = (given["logits"].sigmoid().amax(2) * given["centerness"].sigmoid())[0]
    want = torch.cat([scores[:2000].topk(100).indices, scores[2000:].topk(100).indices + 2000])
    assert top_scores(**given, k=100)[1][0].tolist() == want.tolist()


def test_top_scores_on_any_number_of_threads_are_equal():
    given = outputs(2, [5000, 700], 6)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(top_scores(**given, k=400))
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(one, three, rtol=0, atol=0)


@pytest.mark.skipif(EMULATED, reason="the CPU loops have levels, the kernels none")
@pytest.mark.parametrize("first", [False, True])
def test_same_bits_on_every_isa_of_many_points(first):
    """More than a tile, and what is left over of vectors."""
    given = outputs(1, [4111, 300], 13)
    if first:
        given["logits"] = given["logits"].transpose(1, 2).contiguous().transpose(1, 2)
    chosen, results = _C.isa(), []
    try:
        for isa in _C.ISAS:
            _C.set_isa(isa)
            results.append(top_scores(**given, k=4111))
    finally:
        _C.set_isa(chosen)
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_top_scores_under_vmap_equal_loop():
    given = outputs(6, [24, 6], 5)
    want = top_scores(**given, k=8)
    logits, centerness = given["logits"].view(3, 2, 30, 5), given["centerness"].view(3, 2, 30)
    got = torch.vmap(lambda a, b: top_scores(a, b, [24, 6], 8))(logits, centerness)
    for left, right in zip(got, want, strict=True):
        assert torch.equal(left, right.view(3, 2, -1))


def test_top_scores_compiled_for_any_size_equal_eager():
    compiled = torch.compile(
        lambda a, b, n: top_scores(a, b, [n, 6], 8), fullgraph=True, backend="aot_eager", dynamic=True
    )
    for n in (24, 5, 31):
        given = outputs(2, [n, 6], 5)
        for got, want in zip(compiled(given["logits"], given["centerness"], n), top_scores(**given, k=8), strict=True):
            assert torch.equal(got, want)


@pytest.mark.smoke
@pytest.mark.skipif(not KERNELS, reason="neither a GPU nor the emulator")
class TestKernels:
    @staticmethod
    def check(**kwargs):
        by_cpu, by_kernels = by_cpu_and_kernels(top_scores, kwargs)
        for want, got in zip(by_cpu, by_kernels, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_many_points(self, dtype):
        """More points than threads of a block, more kept than a block ranks; either layout."""
        given = outputs(1, [2500, 40], 9, dtype)
        self.check(**given, k=700)
        given["logits"] = given["logits"].transpose(1, 2).contiguous().transpose(1, 2)
        self.check(**given, k=700)

    def test_more_points_than_the_blocks_take_at_once(self):
        self.check(**outputs(2, [17000], 1), k=20)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_ties_at_the_edge(self, dtype):
        """Scores alone do not tell which are in: digits of the index must."""
        logits = torch.tensor([1.0, 0.0, 1.0, 2.0], dtype=dtype).repeat(600)[None, :, None]
        given = {"logits": logits, "centerness": torch.zeros(1, 2400, dtype=dtype), "lengths": [2400]}
        for k in (1, 600, 601, 1000, 2399, 2400):
            self.check(**given, k=k)

    def test_hostile(self):
        generator = torch.Generator().manual_seed(0)
        numbers = torch.tensor([0.0, -0.0, 1, -1, 5, -5, 40, -90, -110, 1e30, -1e30, math.nan, math.inf, -math.inf])
        table = numbers[torch.randint(len(numbers), (1, 1200, 4), generator=generator)]
        for k in (5, 300, 1200):
            self.check(logits=table[..., 1:], centerness=table[..., 0], lengths=[1000, 200], k=k)
