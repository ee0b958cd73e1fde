"""Where the entries of a large JSON file lie: it is read once, piece by piece, and never held as a whole."""

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..images import DataError

PIECE = 1 << 20  # bytes
NOT_TEXT = {  # first bytes of files that are not UTF-8
    codecs.BOM_UTF16_LE: "is UTF-16: save it as UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16: save it as UTF-8",
    b"\x1f\x8b": "is compressed by gzip: unpack it",
    b"PK\x03\x04": "is a ZIP archive: unpack it",
}


class Entry(NamedTuple):
    """A value of a JSON file and where it lies."""

    key: str  # of the list at the top that holds it
    begin: int  # its bytes in the file
    end: int
    value: Any


def entries(path: Path, lists: Sequence[str] = ()) -> Iterator[Entry]:
    """The elements of the lists in the object that a JSON file holds, and its other values, in the file's order.

    Parameters
    ----------
    path : Path
    lists : sequence of str
        Keys that must be there and hold lists.

    Raises
    ------
    DataError
        If the file is not such JSON, or an object in it has a key twice.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a JSON file, found {'no file' if path.exists() else 'nothing'}")
    try:
        with path.open("rb") as file:
            begin = file.peek(4)
            if not begin:
                raise ValueError("the file is empty")
            for mark, about in NOT_TEXT.items():
                if begin.startswith(mark):
                    raise ValueError(f"the file {about}")
            yield from _Scanner(file, lists).top()
    except (OSError, ValueError, RecursionError) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise DataError(f"{path}: cannot be read as JSON: {kind}{error!s:.200}") from error


class _Scanner:
    def __init__(self, file: Any, lists: Sequence[str]) -> None:
        self.file, self.lists = file, lists
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self.text = ""  # the part of the file that is read; parsing goes on at self.position
        self.position = 0
        self.byte = len(codecs.BOM_UTF8) if file.peek(3).startswith(codecs.BOM_UTF8) else 0  # of self.position
        self.done = False
        self.json = json.JSONDecoder(object_pairs_hook=_unique)

    def top(self) -> Iterator[Entry]:
        if self._peek() == "[":
            raise ValueError("expected an object, found a list; COCO's results hold no images and categories")
        self._expect("{")
        seen: list[str] = []
        while self._peek() != "}":
            key = self._value()[2]
            if not isinstance(key, str):
                raise ValueError(f"expected a key at byte {self.byte}")
            if key in seen:
                raise ValueError(f"the key {key!r} is there twice")
            seen.append(key)
            self._expect(":")
            if self._peek() == "[":
                self._expect("[")
                while self._peek() != "]":
                    yield Entry(key, *self._value())
                    if self._peek() != ",":
                        break
                    self._expect(",")
                self._expect("]")
            elif key in self.lists:
                raise ValueError(f"expected {key} to be a list, got {self._value()[2]!r:.80}")
            else:
                yield Entry(key, *self._value())
            if self._peek() != ",":
                break
            self._expect(",")
        self._expect("}")
        if self._peek():
            raise ValueError(f"expected the end at byte {self.byte}")
        if missing := [key for key in self.lists if key not in seen]:
            raise ValueError(f"expected lists of {', '.join(self.lists)}, found no {' and no '.join(missing)}")

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
                if end < len(self.text) or self.done:  # otherwise the rest of a number may follow
                    begin = self.byte
                    self._pass(end)
                    return begin, self.byte, value
            self._read(size)
            size *= 2  # doubling keeps the work linear for values of any length

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
        found = self._peek()
        if not found:
            raise ValueError(f"expected {character!r} at byte {self.byte}, found the end: the file is cut off")
        if found != character:
            raise ValueError(f"expected {character!r} at byte {self.byte}, found {found!r}")
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys must differ: of two values the reader would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {twice!r} twice")
    return found
