"""JSON text → values: each object with its keys once, a long document in the memory of one row."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

_CHUNK_CHARACTERS = 65_536
_LONGEST_LITERAL = 16
"""Characters of a word, a number's end or an escape that the end of a chunk may cut."""
_SPACE = re.compile(r"[ \t\n\r]*")
_REMEDY = "name a file with one object a line .jsonl"


class RepeatedKeyError(ValueError):
    """A JSON object that has one key twice, so that it does not say which value counts."""

    def __str__(self) -> str:
        return f"column {self.args[0]!r} stands twice"


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def decode(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises ValueError if it is not JSON or has a key twice, RecursionError if it is nested too
    deeply.
    """
    return _DECODER.decode(text)


def written_list(text: str) -> list[Any] | None:
    """Returns the list that a text is in JSON or in Python, as tables keep lists that have no room
    for them; None if it is none."""
    value = written_value(text) if text.lstrip().startswith("[") else None
    return value if isinstance(value, list) else None


def written_value(text: str) -> list[Any] | dict[str, Any] | None:
    """Returns the list or the table that a text is in JSON or in Python; None if it is neither."""
    bare = text.strip()
    if (bare[:1], bare[-1:]) not in (("[", "]"), ("{", "}")):
        return None
    for read in (decode, ast.literal_eval):
        try:
            value = read(bare)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list | dict) else None
    return None


def refused(error: Exception, path: object, line: int, remedy: str) -> ValueError:
    """Returns the error that names the place of a text which cannot be decoded.

    `line` is that of the text's first character.
    """
    if isinstance(error, RepeatedKeyError):
        return ValueError(f"{path}:{line}: {error}; leave one of them out")
    if isinstance(error, json.JSONDecodeError):
        line, reason = line + error.lineno - 1, error.msg
    else:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ValueError(f"{path}:{line}: not JSON ({reason}); {remedy}")


def too_long(path: object, line: int, max_bytes: int) -> ValueError:
    """Returns the error for a row that is longer than a source allows."""
    return ValueError(
        f"{path}:{line}: a row of more than {max_bytes:,} bytes; shorten it, or raise max_row_bytes"
    )


@dataclass(slots=True)
class JsonDocument:
    """The values of one JSON document, one after the other."""

    file: IO[str]
    path: object
    max_bytes: int
    """Longest single value; a longer one is refused before it is read whole."""
    line: int = 1
    """Line of the next character."""
    _text: str = ""
    """Text that is read and not yet dropped."""
    _at: int = 0
    """Position of the next character in it."""
    _is_all: bool = False

    def peek(self) -> str:
        """Returns the next character that is no space; "" at the end of the document."""
        while True:
            self._advance(_SPACE.match(self._text, self._at).end())  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def elements(self) -> Iterator[tuple[int, Any]]:
        """Yields the elements of a list, each with its line."""
        for _ in self._parts("[", "]"):
            yield self.line, self.value()

    def members(self) -> Iterator[str]:
        """Yields the keys of an object; the caller takes each value, by `value` or `elements`."""
        names: set[str] = set()
        for opening in self._parts("{", "}"):
            if opening != '"':
                raise self._refused("Expecting property name enclosed in double quotes")
            name = self.value()
            if name in names:
                raise refused(RepeatedKeyError(name), self.path, self.line, _REMEDY)
            names.add(name)
            self._expect(":")
            yield name

    def value(self) -> Any:
        """Returns the next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Counted before more is read, which moves the text.
                line = self.line + self._text.count("\n", self._at, error.pos)
                if self._may_go_on(error) and self._read():
                    continue
                raise self._refused(error.msg, line) from error
            except (ValueError, RecursionError) as error:
                raise refused(error, self.path, self.line, _REMEDY) from error
            if end == len(self._text) and self._text[-1] not in '"}]' and self._read():
                continue
            self._require_short(end)
            self._advance(end)
            return value

    def end(self) -> None:
        """Raises ValueError if anything follows."""
        if self.peek():
            raise self._refused("Extra data")

    def _parts(self, opening: str, closing: str) -> Iterator[str]:
        """Yields the first character of each part of a list or an object."""
        self._expect(opening)
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            yield self.peek()
            if self.peek() == closing:
                self._at += 1
                return
            self._expect(",")

    def _expect(self, character: str) -> None:
        if self.peek() != character:
            raise self._refused(f"Expecting {character!r}")
        self._at += 1

    def _refused(self, reason: str, line: int | None = None) -> ValueError:
        return ValueError(f"{self.path}:{line or self.line}: not JSON ({reason}); {_REMEDY}")

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Returns True if a value may only be cut off by the end of what is read."""
        is_at_end = error.pos + _LONGEST_LITERAL >= len(self._text)
        return is_at_end or error.msg.startswith("Unterminated string")

    def _require_short(self, end: int) -> None:
        # A character takes four bytes at most.
        if (end - self._at) * 4 <= self.max_bytes:
            return
        text = self._text[self._at : end]
        if len(text.encode("utf-8", "surrogatepass")) > self.max_bytes:
            raise too_long(self.path, self.line, self.max_bytes)

    def _advance(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def _read(self) -> bool:
        """Reads on; returns False at the end of the file.

        Raises ValueError if the value that has begun is too long.
        """
        if self._is_all:
            return False
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > self.max_bytes:
            raise too_long(self.path, self.line, self.max_bytes)
        # As much again as there is: a long value is then tried only a few times.
        chunk = self.file.read(max(len(self._text), _CHUNK_CHARACTERS))
        self._is_all = not chunk
        self._text += chunk
        return bool(chunk)
