"""Docstrings of the public names: NumPy's sections are there, and their parameters are those of the signatures."""

import inspect
import re

import pytest

import polarmask_ops
from polarmask_ops import RLE, Outlines, PolarIoULoss, PolarTargets

INHERITED = {"extra_repr"}  # documented by torch.nn.Module


def public_functions():
    """Public functions and methods, by name."""
    found = {name: value for name in polarmask_ops.__all__ if inspect.isfunction(value := getattr(polarmask_ops, name))}
    for owner in (Outlines, RLE, PolarTargets, PolarIoULoss):
        for name, value in vars(owner).items():
            value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if not inspect.isfunction(value) or name.startswith("_") or name in INHERITED:
                continue
            if value.__module__ == owner.__module__:  # a NamedTuple has methods from elsewhere
                found[f"{owner.__name__}.{name}"] = value
    return found


FUNCTIONS = public_functions()
CLASSES = {name: value for name in polarmask_ops.__all__ if inspect.isclass(value := getattr(polarmask_ops, name))}


def sections(docstring):
    """The lines of each section by its title."""
    parts = re.split(r"^(\w[\w ]+)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section):
    """Names of parameters, which begin in the first column."""
    names = [name for line in re.findall(r"^(\S[^:\n]*)", section, re.MULTILINE) for name in line.split(",")]
    return {name.strip().lstrip("*") for name in names}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_of_function_has_every_section(name):
    function = FUNCTIONS[name]
    found = sections(function.__doc__)
    assert {"Returns", "Examples"} <= found.keys()
    parameters = [each for each in inspect.signature(function).parameters if each != "self"]
    if parameters:
        assert {"Parameters", "Raises"} <= found.keys()
        assert documented(found["Parameters"]) == set(parameters)
    assert ">>>" in found["Examples"]


@pytest.mark.parametrize("name", CLASSES)
def test_docstring_of_class_has_every_section(name):
    found = sections(CLASSES[name].__doc__)
    assert "Examples" in found
    assert "Parameters" in found or "Attributes" in found
