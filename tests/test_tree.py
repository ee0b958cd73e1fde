"""No folder of source is too full to be taken in at a glance, and no file too long to be read in one sitting."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = {".py", ".pyi", ".h", ".cuh", ".cpp", ".cu", ".yaml", ".html"}
MOST_FILES = 12
MOST_LINES = 500

ROOMS = ("polarmask", "tests/model")  # folders that are held to the limits, with all that is below them
# What is let off, and why.
FULL = {
    "polarmask/config/recipes": "one recipe for each published configuration, all of the same few lines",
}
LONG: dict[str, str] = {}


def sources(room):
    return [path for path in (ROOT / room).rglob("*") if path.suffix in SOURCE and "__pycache__" not in path.parts]


def name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("room", ROOMS)
def test_folders_of_a_room_hold_few_files(room):
    counts = Counter(name(path.parent) for path in sources(room))
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES and folder not in FULL} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_files_of_a_room_are_short(room):
    lengths = {name(path): len(path.read_text().splitlines()) for path in sources(room)}
    assert {file: length for file, length in lengths.items() if length > MOST_LINES and file not in LONG} == {}


def test_exceptions_that_are_no_longer_needed_are_removed():
    counts = Counter(name(path.parent) for room in ROOMS for path in sources(room))
    assert [folder for folder in FULL if counts[folder] <= MOST_FILES] == []
    lengths = {name(path): len(path.read_text().splitlines()) for room in ROOMS for path in sources(room)}
    assert [file for file in LONG if lengths.get(file, 0) <= MOST_LINES] == []


def public(node, prefix):
    """The names of public functions, classes and methods below a node, with their nodes."""
    for child in ast.iter_child_nodes(node):
        is_class = isinstance(child, ast.ClassDef)
        if (is_class or isinstance(child, ast.FunctionDef)) and not child.name.startswith("_"):
            overload = not is_class and any("overload" in ast.unparse(each) for each in child.decorator_list)
            if not overload:
                yield f"{prefix}.{child.name}", child
            if is_class:
                yield from public(child, f"{prefix}.{child.name}")


def test_public_functions_classes_and_methods_have_docstrings():
    found = [each for path in sources("polarmask") if path.suffix == ".py" for each in public(parsed(path), name(path))]
    assert len(found) > 250
    assert [where for where, node in found if not ast.get_docstring(node)] == []


def parsed(path):
    return ast.parse(path.read_text())
