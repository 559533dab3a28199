"""A document read as a policy pack: the pack's files, and what of the document is not in them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPlaced:
    """Words of a document that have no place in the pack made of it."""

    line: int
    """Line in the document, from 1."""
    text: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The pack that an importer made of a document."""

    files: Mapping[str, str]
    """Text of each file of the pack by its name."""
    not_placed: tuple[NotPlaced, ...]
    num_sections: int
    num_rules: int
    num_examples: int
    to_finish: tuple[str, ...] = ()
    """What the document does not say and the author of the pack must decide, a sentence each."""


@dataclass(slots=True)
class Leftovers:
    """What an importer has not placed so far."""

    found: list[NotPlaced] = field(default_factory=list)

    def add(self, line: int, text: str, reason: str) -> None:
        """Adds one line's words, if it has any."""
        if re.search(r"\w", text):
            self.found.append(NotPlaced(line=line, text=text.strip(), reason=reason))

    def in_order(self) -> tuple[NotPlaced, ...]:
        return tuple(sorted(self.found, key=lambda item: item.line))


_WORD = re.compile(r"\w+")
_LINE = re.compile(r"\r?\n")


def lines_of(text: str) -> list[str]:
    """Returns the lines of a document; newlines alone end one, as in a text editor."""
    return _LINE.split(text.removeprefix("\ufeff"))


def lost_lines(
    text: str, packed: str, not_placed: Iterable[NotPlaced], marks: re.Pattern[str]
) -> list[tuple[int, str]]:
    """Returns the lines of a document, with their numbers, whose words are neither in the text of
    the pack nor listed as not placed.

    `marks` matches the document's own syntax, such as tags: what stands between two marks must be
    found whole, in its order, and as often as the document has it.
    """
    listed = Counter((item.line, piece) for item in not_placed for piece in _pieces(item, marks))
    whole = _padded(_words(packed))
    claimed: Counter[str] = Counter()
    lost = []
    for number, line in enumerate(lines_of(text), 1):
        rest = _without_listed(line, number, listed, marks)
        claimed.update(rest)
        if any(whole.count(_padded(piece)) < claimed[piece] for piece in rest):
            lost.append((number, line))
    return lost


def _pieces(item: NotPlaced, marks: re.Pattern[str]) -> list[str]:
    return _between(item.text, marks)


def _between(line: str, marks: re.Pattern[str]) -> list[str]:
    """Returns the words between the marks of a line, a text for each stretch that has any."""
    return [words for words in map(_words, marks.sub("\0", line).split("\0")) if words]


def _without_listed(
    line: str, number: int, listed: Counter[tuple[int, str]], marks: re.Pattern[str]
) -> list[str]:
    rest = []
    for piece in _between(line, marks):
        if listed[number, piece]:
            listed[number, piece] -= 1
        else:
            rest.append(piece)
    return rest


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _padded(words: str) -> str:
    """Returns words with a space on either side of each, so that texts that follow each other are
    counted one by one."""
    return "".join(f" {word} " for word in words.split())
