"""Where the entries of a large JSON file lie: it is read once, piece by piece, and never held as a whole."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .images import DataError

PIECE = 1 << 20  # bytes


class Entry(NamedTuple):
    key: str  # of the list at the top that holds it
    begin: int  # its bytes in the file
    end: int
    value: Any


def entries(path: Path) -> Iterator[Entry]:
    """The elements of the lists in the object that a JSON file holds, and its other values, in the file's order.

    Raises
    ------
    DataError
        If the file is not such JSON.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a JSON file, found {'no file' if path.exists() else 'nothing'}")
    try:
        with path.open("rb") as file:
            yield from _Scanner(file).top()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {type(error).__name__}: {error!s:.200}") from error


class _Scanner:
    def __init__(self, file: Any) -> None:
        self.file = file
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self.text = ""  # what is read and not yet passed begins at self.position
        self.position = 0
        self.byte = len(codecs.BOM_UTF8) if file.peek(3).startswith(codecs.BOM_UTF8) else 0  # of self.position
        self.done = False
        self.json = json.JSONDecoder()

    def top(self) -> Iterator[Entry]:
        self._expect("{")
        if self._peek() == "}":
            return
        while True:
            key = self._value()[2]
            if not isinstance(key, str):
                raise ValueError(f"expected a key at byte {self.byte}")
            self._expect(":")
            if self._peek() == "[":
                self._expect("[")
                while self._peek() != "]":
                    yield Entry(key, *self._value())
                    if self._peek() != ",":
                        break
                    self._expect(",")
                self._expect("]")
            else:
                yield Entry(key, *self._value())
            if self._peek() != ",":
                break
            self._expect(",")
        self._expect("}")

    def _value(self) -> tuple[int, int, Any]:
        self._peek()
        size = PIECE
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if self.done:
                    raise ValueError(f"{error.msg} behind byte {self.byte}") from error
            else:
                if end < len(self.text) or self.done:  # else a number may go on
                    begin = self.byte
                    self._pass(end)
                    return begin, self.byte, value
            self._read(size)
            size *= 2  # a value of any length is parsed a few times only

    def _peek(self) -> str:
        """The next character that is no space."""
        while True:
            for position in range(self.position, len(self.text)):
                if self.text[position] not in " \t\r\n":
                    self._pass(position)
                    return self.text[position]
            self._pass(len(self.text))
            if self.done:
                return ""
            self._read(PIECE)

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise ValueError(f"expected {character!r} at byte {self.byte}")
        self._pass(self.position + 1)

    def _pass(self, position: int) -> None:
        passed = self.text[self.position : position]
        self.byte += len(passed) if passed.isascii() else len(passed.encode())
        self.position = position

    def _read(self, size: int) -> None:
        piece = self.file.read(size)
        self.done = not piece
        self.text = self.text[self.position :] + self.decode(piece, self.done)
        self.position = 0
