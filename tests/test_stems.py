"""Each op has one name, its stem, in every layer, as CONTRIBUTING.md promises."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STEMS = (
    "outlines",
    "rle",
    "polar_target",
    "star_distances",
    "polar_iou",
    "rasterize",
    "polygon_iou",
    "polygon_nms",
    "top_scores",
)
LAYERS = (
    "polarmask_ops/{}.py",
    "tests/reference/{}.py",
    "tests/ops/test_{}.py",
    "benchmarks/bench_{}.py",
    "benchmarks/peers/{}.py",
)
CSRC_LAYERS = ("csrc/ops/{0}/{0}.h", "csrc/ops/{0}/{0}.cpp")


def names(folder: str, pattern: str) -> set[str]:
    return {match[1] for path in (ROOT / folder).iterdir() if (match := re.fullmatch(pattern, path.name))}


def stem_of(name: str) -> str | None:
    """Return the longest stem that the name begins with."""
    return max((stem for stem in STEMS if name == stem or name.startswith(f"{stem}_")), key=len, default=None)


@pytest.mark.parametrize("stem", STEMS)
def test_stem_has_a_file_in_every_layer(stem):
    paths = [layer.format(stem) for layer in LAYERS + CSRC_LAYERS]
    assert [path for path in paths if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize(
    ("folder", "pattern", "others"),
    [
        ("polarmask_ops", r"([a-z]\w*)\.py", set()),
        ("tests/ops", r"test_(\w+)\.py", set()),
        ("tests/reference", r"(\w+)\.py", {"released_network"}),
        ("benchmarks", r"bench_(\w+)\.py", {"data", "machine", "model"}),
        ("benchmarks/peers", r"(\w+)\.py", {"learning", "model"}),
        ("csrc/ops", r"(\w+)", set()),
    ],
)
def test_file_of_a_layer_belongs_to_a_stem(folder, pattern, others):
    assert {name for name in names(folder, pattern) if stem_of(name) is None} == others


def test_contributing_lists_every_stem():
    table = (ROOT / "CONTRIBUTING.md").read_text().split("| stem |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(STEMS)
