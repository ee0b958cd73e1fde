"""Outlines of instances given by rings of vertices."""

import math
import warnings

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_tester import GEOMETRY, Bad
from outlines_tester import HOSTILE, SQUARE, FromTester, assert_same, random_polygons
from reference import outlines as reference

from polarmask_ops import outlines_from_polygons


class TestFromPolygons(FromTester):
    function = outlines_from_polygons
    reference = reference.outlines_from_polygons
    dtypes = GEOMETRY
    converts = (torch.int8,)
    bad_inputs = (
        Bad({"polygons": [[[0, 1], [2, 3], [4, 0]]]}, ValueError, ("polygons[0][0]", "3 vertices", "got 1", "points")),
        Bad({"polygons": [[SQUARE], [[1, 2, 3, 4]]]}, ValueError, ("polygons[1][0]", "3 vertices", "got 2", "box")),
        Bad({"polygons": [[SQUARE, []]]}, ValueError, ("polygons[0][1]", "3 vertices", "got 0")),
        Bad({"polygons": [[torch.zeros(2, 2)]]}, ValueError, ("polygons[0][0]", "3 vertices", "got 2")),
        Bad({"keep": "smallest"}, ValueError, ("keep", "'largest', 'all'", "'smallest'")),
        Bad({"polygons": torch.zeros(1, 3, 2)}, TypeError, ("polygons", "list of lists of rings", "Tensor")),
        Bad({"polygons": [{"counts": b"", "size": [1, 1]}]}, TypeError, ("polygons[0]", "list of rings", "dict")),
        Bad({"polygons": [[SQUARE], np.zeros((4, 2))]}, TypeError, ("polygons[1]", "list of rings", "ndarray")),
        Bad({"polygons": [SQUARE]}, ValueError, ("polygons[0][0]", "(V, 2)", "shape ()")),
        Bad({"polygons": [[SQUARE, SQUARE[:-1]]]}, ValueError, ("polygons[0][1]", "even", "(7,)")),
        Bad({"polygons": [[np.zeros((2, 3))]]}, ValueError, ("polygons[0][0]", "(V, 2)", "(2, 3)")),
        Bad({"polygons": [[["a", "b"]]]}, TypeError, ("polygons[0][0]", "numbers", "'a'")),
        Bad({"polygons": [[[10**400, 0, 1, 1, 2, 2]]]}, TypeError, ("polygons[0][0]", "numbers")),
        Bad({"polygons": [[[[0, 1], [2]]]]}, TypeError, ("polygons[0][0]", "numbers", "[2]")),
        Bad({"polygons": [[torch.zeros(3, 2), torch.zeros(3, 2, device="meta")]]}, ValueError, ("device", "meta")),
    )

    def sample(self, dtype, device):
        rings = [[torch.tensor(ring, dtype=dtype, device=device) for ring in rings] for rings in random_polygons(12)]
        return {"polygons": [[ring.unflatten(0, (-1, 2)) for ring in row] for row in rings], "keep": "all"}

    def more_samples(self, dtype, device):
        polygons = self.sample(dtype, device)["polygons"]
        special = [
            [],
            [SQUARE, SQUARE[::-1]],  # equal areas
            [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0], [0, 0, 3, 0, math.nan, 3], [0, 0, 3, 0, math.inf, 3]],
            [[0, 0, 0, 3, 0, 3, 3, 3, 0, 0]],  # a vertex twice, closed by hand, against the clock
            [[0.1, 0.1, 0.3, 0.3, 0.7, 0.7], SQUARE],
        ]
        special = [[torch.tensor(ring, dtype=dtype, device=device) for ring in rings] for rings in special]
        return [{"polygons": value, "keep": keep} for value in (polygons, special) for keep in ("largest", "all")]

    def empty(self, dtype, device):
        return [
            {"polygons": []},
            {"polygons": [[]]},
            {"polygons": [[], []]},
        ]


def test_outlines_from_polygons_of_lists_arrays_and_tensors_are_equal():
    flat = [0.1, 0.2, 4.5, 0.25, 3.0, 3.5]
    pairs = np.reshape(flat, (3, 2))
    want = outlines_from_polygons([[flat]])
    assert want.segments.dtype == torch.float32
    for ring in (pairs.tolist(), tuple(flat), pairs.astype(np.float32), torch.tensor(flat), pairs[::-1].astype("f4")):
        assert_same(outlines_from_polygons([[ring]]), want)
    fixed = np.array(flat, np.float32)
    fixed.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(outlines_from_polygons([[fixed]]), want)
    assert outlines_from_polygons([[pairs]]).segments.dtype == torch.float64
    assert outlines_from_polygons([[torch.tensor(SQUARE)]]).segments.dtype == torch.float32
    assert outlines_from_polygons([[torch.tensor(SQUARE).half(), pairs]]).segments.dtype == torch.float64
    assert not outlines_from_polygons([[torch.tensor(flat, requires_grad=True)]]).segments.requires_grad


@settings(deadline=None)
@given(st.lists(st.lists(st.lists(HOSTILE, min_size=3, max_size=6).map(lambda x: x + x[::-1]), max_size=3), max_size=3))
def test_outlines_from_polygons_of_hostile_rings_do_not_fail(polygons):
    for keep in ("largest", "all"):
        outlines = outlines_from_polygons(polygons, keep=keep)
        assert len(outlines) == len(polygons)
        assert outlines.segments.isfinite().all()
        assert (outlines.areas() >= 0).all()
