"""The command line of the programs."""

import difflib
import re
import sys
from argparse import SUPPRESS
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from ..common.errors import say
from .check import check_config
from .options import Config, DataConfig, names_of

CONFIGS = Path(__file__).parent / "recipes"
BOOLEANS = {"true", "false", "yes", "no", "on", "off"}  # of YAML
set_parsing_settings(docstring_parse_attribute_docstrings=True)  # --help shows the texts below the dataclasses' fields


class Parser(ArgumentParser):
    """The command line of a program.

    Configurations (``--config NAME`` or a path; several may be given) are read before all other options, wherever they
    are on the command line. A configuration may extend others, ``base: NAME`` or a list; one that is reached twice is
    read once. Option names cannot be abbreviated; the error of an unknown one suggests the nearest. Errors are one
    sentence. Setting ``data.root`` without ``data.dataset`` selects the dataset ``files``.
    An option that is true or false may be given without a value, ``--overwrite``, which means true.

    Attributes
    ----------
    given : set of str
        Names of the options on the command line.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            allow_abbrev=False, epilog="With --traceback, an error also shows where it was raised.", **kwargs
        )
        self.given: set[str] = set()
        self._unused: set[str] = set()
        self.add_argument("--config", action="config", help="Name of a file in polarmask/config/recipes, or a path.")

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parses a command line: first the files that ``--config`` names, then the other options.

        Arguments are those of :meth:`jsonargparse.ArgumentParser.parse_args`.

        Raises
        ------
        SystemExit
            With status 2, after one sentence on stderr, if an option is unknown, has no effect or has a wrong value.
        ArgumentError
            In place of SystemExit, if the parser was made with ``exit_on_error=False``.
        """
        configs: list[str] = []
        others: list[str] = []
        remaining = list(sys.argv[1:] if args is None else args)
        while remaining:
            arg = remaining.pop(0)
            if arg == "--config" or arg.startswith("--config="):
                name = arg.removeprefix("--config=") if "=" in arg else remaining.pop(0) if remaining else ""
                for content in self._with_bases(self._find(name)).values():
                    configs += ["--config", yaml.safe_dump(_as_files(content))]
            else:
                if arg.startswith("--") and arg != "--":
                    name = arg[2:].split("=")[0]
                    self._check_name(name, "--")
                    if name in self._unused:
                        self.error(f"--{name} has no effect on {self._program}; leave it out")
                    self.given.add(name.removesuffix("+"))
                    if self._is_flag(arg, remaining[:1]):
                        arg += "=true"
                others.append(arg)
        if "data.root" in self.given and "data.dataset" not in self.given:
            configs += ["--config", yaml.safe_dump({"data": {"dataset": "files"}})]
        return super().parse_args([*configs, *others], *rest, **kwargs)

    def _is_flag(self, arg: str, following: Sequence[str]) -> bool:
        """Returns true if an argument is an option of type bool without a value; ``following`` is the next argument."""
        if getattr(self._option_string_actions.get(arg), "_typehint", None) is not bool:
            return False
        if not following or following[0].startswith("-"):
            return True
        # Where there are positional arguments, the next one may be one of them.
        return bool(self._get_positional_actions()) and following[0].lower() not in BOOLEANS

    def leave_out(self, names: Iterable[str]) -> None:
        """Options that this program does not use: not shown by --help, and refused on the command line.

        Configurations may set them, since other programs use them.
        """
        for name in names:
            self._option_string_actions[f"--{name}"].help = SUPPRESS
            self._unused.add(name)

    def check(self, config: Config) -> None:
        """Ends with an error where a number is out of its range, or an option that was given has no effect."""
        try:
            check_config(config, self.given)
        except ValueError as error:
            self.error(str(error))
        if config.data.dataset != "files" and config.data.root != DataConfig.root:
            self.error(f"data.root: expected data.dataset files, got {config.data.dataset}; leave one of them out")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one sentence and exits with status 2, or raises an ArgumentError."""
        sentence = self._sentence(message)
        if not self.exit_on_error:
            raise ArgumentError(None, sentence) from ex
        say(f"{self._program}: {sentence}; --help lists the options")
        self.exit(2)

    @property
    def _program(self) -> str:
        """The program's name in errors, such as ``polarmask.train``."""
        return self.prog.replace(" ", ".")

    def _sentence(self, message: str) -> str:
        """An error of jsonargparse, which has several lines, as one sentence: option, expected, got."""
        if required := re.search(r'[Kk]ey "(\S+)" is required', message):
            return f"expected {required[1]}, which must be given"
        keys = re.findall(r'Parser key "(\S+)":', message)
        got = re.findall(r"(?:Got|Given) value: (.*)", message)
        if keys and got:
            action = self._option_string_actions.get(f"--{keys[-1]}")
            if hint := getattr(action, "_typehint", None):
                return f"{keys[-1]}: expected {_words(hint)}, got {got[-1]}"
        return " ".join(message.split())

    def _with_bases(self, path: Path, above: tuple[Path, ...] = ()) -> dict[Path, dict[str, Any]]:
        """The content of a file by its path, after the contents of the files that it extends."""
        if path in above:
            self.error(f"{path}: is its own base, by way of {', '.join(map(str, above))}")
        try:
            content = yaml.safe_load(path.read_text()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            self.error(f"{path}: expected YAML, got {error}")
        if not isinstance(content, dict):
            self.error(f"{path}: expected options and their values, got {content!r}")
        bases = content.pop("base", [])
        found: dict[Path, dict[str, Any]] = {}
        for base in [bases] if isinstance(bases, str) else bases:
            found |= self._with_bases(self._find(base), (*above, path))  # what was there keeps its place
        for name in names_of(content):
            self._check_name(name, f"{path}: ")
        return {**found, path: content}

    def _find(self, name: str) -> Path:
        path = Path(name) if Path(name).is_file() else CONFIGS / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
            self.error(f"--config: expected a file or one of {known}, got {name!r}")
        return path

    def _check_name(self, name: str, where: str) -> None:
        known = [option.removeprefix("--") for option in self._option_string_actions]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            self.error(f"{where}{name} is no option{f'; did you mean {near[0]}?' if near else ''}")


def _as_files(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration's options, with ``data.dataset`` files if they set ``data.root`` alone."""
    names = set(names_of(content))
    if "data.root" in names and "data.dataset" not in names:
        data = content.get("data")
        return {**content, "data": {**(data if isinstance(data, dict) else {}), "dataset": "files"}}
    return content


_PLAIN = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
    NoneType: ("null", "null"),
}


def _words(hint: Any, several: bool = False) -> str:
    """A type in words.

    Examples
    --------
    >>> _words(list[tuple[float, float]] | None)
    'a list of lists of 2 numbers, or null'
    """
    if hint in _PLAIN:
        return _PLAIN[hint][several]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return ", or ".join(_words(arg, several) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    lists = "lists of" if several else "a list of"
    if origin is list:
        return f"{lists} {_words(args[0], True)}"
    if origin is tuple:
        return f"{lists} {len(args)} {_words(args[0], True)}"
    return str(hint)
