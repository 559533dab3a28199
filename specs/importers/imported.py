"""A document read as a policy pack: the pack's files, and what of the document is not in them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    """Points that the document leaves to the author of the pack, a sentence each."""


@dataclass(slots=True)
class Leftovers:
    """The lines that an importer has not placed so far."""

    found: list[NotPlaced] = field(default_factory=list)

    def add(self, line: int, text: str, reason: str) -> None:
        """Adds one line's words, if it has any."""
        if re.search(r"\w", text):
            self.found.append(NotPlaced(line=line, text=text.strip(), reason=reason))

    def in_order(self) -> tuple[NotPlaced, ...]:
        return tuple(sorted(self.found, key=lambda item: item.line))


_WORD = re.compile(r"\w+")
_LINE = re.compile(r"\r?\n")
HIDDEN = "an HTML comment, which no model is shown"
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)|-->", re.DOTALL)


def lines_of(text: str) -> list[str]:
    """Returns the lines of a document; newlines alone end one, as in a text editor."""
    return _LINE.split(text.removeprefix("\ufeff"))


def without_comments(
    lines: Sequence[str], left: Leftovers, keep: re.Pattern[str] | None = None
) -> list[str]:
    """Returns the lines without HTML comments, which no model is shown; their words are left over.

    A comment that follows a match of `keep` at the beginning of its line stays.
    """
    text = "\n".join(lines)

    def taken(match: re.Match[str]) -> str:
        start = text.rfind("\n", 0, match.start()) + 1
        if keep and keep.fullmatch(text[start : match.start()]):
            return match[0]
        first = text.count("\n", 0, match.start()) + 1
        for number, words in enumerate(match[0].split("\n"), first):
            left.add(number, words, HIDDEN)
        return "\n" * match[0].count("\n")

    return _COMMENT.sub(taken, text).split("\n")


def lost_lines(
    text: str, packed: str, not_placed: Iterable[NotPlaced], marks: re.Pattern[str]
) -> list[tuple[int, str]]:
    """Returns the lines of a document, with their numbers, whose words are neither in the text of
    the pack nor listed as not placed.

    `marks` matches the document's own syntax, such as tags: what stands between two marks must be
    found whole, in its order, and as often as the document has it.
    """
    listed: dict[int, list[str]] = {}
    for item in not_placed:
        listed.setdefault(item.line, []).append(item.text)
    whole = _padded(_words(packed))
    claimed: Counter[str] = Counter()
    lost = []
    for number, line in enumerate(lines_of(text), 1):
        shown = line
        for words in listed.get(number, []):
            pattern = r"\W+".join(map(re.escape, _WORD.findall(words)))
            shown = re.sub(pattern, "\0", shown, count=1)
        rest = _between(shown, marks)
        claimed.update(rest)
        if any(whole.count(_padded(piece)) < claimed[piece] for piece in rest):
            lost.append((number, line))
    return lost


def _between(line: str, marks: re.Pattern[str]) -> list[str]:
    """Returns the words between the marks of a line, a text for each stretch that has any."""
    return [words for words in map(_words, marks.sub("\0", line).split("\0")) if words]


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _padded(words: str) -> str:
    """Returns words with a space on either side of each, so that texts that follow each other are
    counted one by one."""
    return "".join(f" {word} " for word in words.split())
