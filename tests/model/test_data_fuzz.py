"""Data sets that a seeded generator spoils: audit, training, evaluation and prediction; see tests/fuzz_data.py."""

import numpy as np
import pytest
from fuzz.chain import TRAINED, Chain, read_slowly
from fuzz.made import MAKERS
from fuzz.registry import MUTATIONS

PAIRS = [(format, kind) for format in MAKERS for kind in sorted({m.kind for m in MUTATIONS if format in m.formats})]
SETS = 100


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    with Chain(tmp_path_factory.mktemp("fuzz") / "run") as made:
        yield made


@pytest.mark.parametrize("format", MAKERS)
def test_slow_reader_of_valid_set_finds_all_plain(tmp_path, format):
    for seed in range(3):
        made = MAKERS[format](tmp_path / str(seed), np.random.default_rng(seed))
        for part in ("train", "test") if made.test else ("train",):
            reading = read_slowly(made, part)
            assert reading.is_plain
            assert reading.images[0].areas


@pytest.mark.parametrize("format", MAKERS)
def test_valid_set_trains_on_all_instances(chain, format):
    outcome = chain.run(0, format, [])
    assert not outcome.faults
    assert outcome.outcome == TRAINED


@pytest.mark.parametrize("seed", range(SETS))
def test_spoilt_set_is_refused_or_trained_as_said(chain, seed):
    format, kind = PAIRS[seed % len(PAIRS)]
    outcome = chain.run(seed, format, [kind])
    assert not outcome.faults, "\n".join([*outcome.mutations, outcome.message, *outcome.faults])
