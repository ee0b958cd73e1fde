"""Configurations from names, dicts and the command line."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace

from .check import check_ranges
from .options import Config
from .parser import Parser


def from_dict(values: dict[str, Any]) -> Config:
    """The inverse of :func:`to_dict`, also after JSON, which has no tuples.

    Raises
    ------
    ValueError
        If there is an unknown option, or a value is not of its type.
    """
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        config = _instantiate(parser, parser.parse_object(values))
    except ArgumentError as error:
        raise ValueError(f"from_dict: {error}") from error
    check_ranges(config, ["model"])  # options of training do not matter to a network that is trained
    return config


def load_config(name: str, **changes: Any) -> Config:
    """A configuration by its bare name (a file of ``polarmask/config/recipes``) or path.

    Parameters
    ----------
    name : str
    **changes
        Dotted options with ``__`` for the dot, such as ``optim__lr=0.1``.

    Raises
    ------
    ValueError
        If the name, an option or its value does not exist.

    Examples
    --------
    >>> load_config("nuclei", optim__batch_size=2).optim.batch_size
    2
    """
    args = [
        f"--{key.replace('__', '.')}={value if isinstance(value, str | Path) else json.dumps(value)}"
        for key, value in changes.items()
    ]
    try:
        return parse_config(["--config", name, *args], exit_on_error=False)
    except ArgumentError as error:
        raise ValueError(f"load_config: {error}") from error


def parse_config(args: Sequence[str] | None = None, **parser_options: Any) -> Config:
    """A configuration from the command line."""
    parser = Parser(**parser_options)
    parser.add_class_arguments(Config)
    return build_config(parser, parser.parse_args(args))


def build_config(parser: Parser, parsed: Namespace) -> Config:
    """The configuration in what a parser with the options of ``Config`` found, checked."""
    config = _instantiate(parser, parsed)
    parser.check(config)
    return config


def _instantiate(parser: Parser, parsed: Namespace) -> Config:
    parts = parser.instantiate(parsed)
    return Config(**{part.name: parts[part.name] for part in fields(Config)})
