"""The lines that a judge's answer ends on → what each says, strictly but not pedantically.

Such a line is a name, a colon and a value: `Score: 8`, `Category: boats`, `gives_help: yes`. One
reader serves them all, so that a judge may write any of them in bold, as a heading or a quote, in
full width or with a full stop. It guesses nothing: a line with any other word in it is not read,
and neither is an answer in which two lines say different things.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from specs.characters import fold

_LONGEST = 500
"""Characters of a line that are looked at: a value ends long before, and text that repeats itself
must not take quadratic time."""
_BLOCK_SIGN = re.compile(r"(?:>+ ?|#{1,6} ?|[-+*•] |[0-9]{1,2}[.)] )+")
_EMPHASIS = re.compile(r"(?<![*`])(?:(?<![^\W_])[*`]++|[*`]++(?![^\W_]))| #+$")
_UNDERSCORES = re.compile(r"(?<!\w)(_{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)")
_SIGNS_ALONE = re.compile(r"[-=*_`~#>+ ]*")
_CLOSING_FENCE = re.compile(r"\s*(?:`{3,}|~{3,})\s*")
_OPENING_FENCE = re.compile(r"\s*(?:`{3,}|~{3,})\s*\w*\s*")
_END_MARK = re.compile(r" ?[.!。]$")
_JSON_SCORE = re.compile(r'\{ ?"(?P<name>score)" ?: ?(?P<value>-?[0-9]+(?:\.[0-9]+)?) ?\}')
_NAMED = re.compile(r"(?:(?:final|overall) )?(?P<name>\w+) ?[:=] ?(?P<value>.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ending:
    """The lines that an answer ends on."""

    values: Mapping[str, str]
    """By name; as written, in ASCII."""
    before: str
    """The answer's own text before them."""


@dataclass(frozen=True, slots=True)
class _PlainLine:
    number: int
    text: str


def read_ending(
    answer: str, forms: Mapping[str, str], *, same: Callable[[str], object] = str.casefold
) -> Ending | None:
    """Returns what the last lines of an answer say, one line for each name of `forms`.

    "So be it.\\n**Score:** 8/10" → {"score": "8"} for the forms {"score": "([0-9]+)(?:/10)?"}

    `forms` are regular expressions of values by names in small letters; a value is their first
    group, or the whole. Returns None if a last line is no such line, or if another line of the
    answer gives a name a value that is not the `same`.
    """
    written = answer.splitlines()
    lines = list(_plain_lines(written))
    last = lines[-len(forms) :]
    pairs = [_read(line.text, forms) for line in last]
    values = dict(pair for pair in pairs if pair is not None)
    if len(values) < len(forms):
        return None
    for line in lines:
        pair = _read(line.text, forms)
        if pair is not None and same(pair[1]) != same(values[pair[0]]):
            return None
    return Ending(values, _text_before(written, last))


def begins_line(answer: str, name: str) -> Iterator[str]:
    """Yields the rest of every line of an answer that begins with a name and a colon."""
    for line in _plain_lines(answer.splitlines()):
        match = _NAMED.match(line.text)
        if match and match["name"].casefold() == name:
            yield match["value"]


def _plain_lines(lines: list[str]) -> Iterator[_PlainLine]:
    """Yields the lines that have text, without Markdown signs and one end mark."""
    for number, line in enumerate(lines):
        text = " ".join(fold(line).split())
        if len(text) > _LONGEST:
            text = text[:_LONGEST] + "…"
        if not _SIGNS_ALONE.fullmatch(text):
            yield _PlainLine(number, _END_MARK.sub("", _without_signs(text)).strip())


def _without_signs(text: str) -> str:
    block = _BLOCK_SIGN.match(text)
    text = _EMPHASIS.sub("", text[block.end() :] if block else text)
    # Twice, because emphasis nests.
    for _ in range(2):
        text = _UNDERSCORES.sub(r"\2", text)
    return text


def _read(text: str, forms: Mapping[str, str]) -> tuple[str, str] | None:
    """Returns name and value of a line, or None if it is none of the forms."""
    match = _JSON_SCORE.fullmatch(text) or _NAMED.fullmatch(text)
    name = match["name"].casefold() if match else ""
    if match is None or name not in forms:
        return None
    value = re.fullmatch(forms[name], match["value"], re.IGNORECASE)
    return (name, value[value.lastindex or 0]) if value else None


def _text_before(written: list[str], last: list[_PlainLine]) -> str:
    """Returns the text before the last lines, and before the fence in which they stand."""
    before = written[: last[0].number]
    after = written[last[-1].number + 1 :]
    if (
        before
        and _OPENING_FENCE.fullmatch(before[-1])
        and any(map(_CLOSING_FENCE.fullmatch, after))
    ):
        before = before[:-1]
    return "\n".join(before).strip()
