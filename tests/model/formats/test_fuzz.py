"""Data sets that a seeded generator spoils: audit, training, evaluation and prediction; see tests/fuzz_data.py."""

import numpy as np
import pytest
from fuzz.chain import TRAINED, Chain, read_slowly
from fuzz.made import MAKERS
from fuzz.registry import ALL, JSON, MUTATIONS

SETS = 100


def pairs():
    """Each format with each kind of mutation; what only JSON has with two of its four layouts."""
    for n, kind in enumerate(sorted({mutation.kind for mutation in MUTATIONS})):
        formats = [format for format in ALL if any(m.kind == kind and format in m.formats for m in MUTATIONS)]
        yield from ((format, kind) for format in (formats if formats != [*JSON] else (JSON[n % 4], JSON[(n + 2) % 4])))


PAIRS = list(pairs())


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


@pytest.mark.long
@pytest.mark.parametrize("seed", range(SETS))
def test_spoilt_set_is_refused_or_trained_as_said(chain, seed):
    format, kind = PAIRS[seed % len(PAIRS)]
    outcome = chain.run(seed, format, [kind])
    assert not outcome.faults, "\n".join([*outcome.mutations, outcome.message, *outcome.faults])
