"""Criteria: what a judge scores a completion by, each a Markdown file with anchors for its scale.

A criterion is `criteria/NAME.md` in a set of templates or a folder of one's own: what to look at,
and list items that say what a score means, such as `- 0: …` and `- 10: …`. Template `criteria` asks
a judge for a line of each, `Name: N`. The criteria stand in the text of the template, whose id
changes with theirs.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from specs.replies import MAX_SCORE, MIN_SCORE, ReplyForm
from specs.template import (
    DEFAULT_SET,
    Template,
    TemplateError,
    TemplateNames,
    folder_of,
    load_template,
    read_template,
)

_FOLDER = "criteria"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ANCHOR = re.compile(r"- (?P<score>[0-9]{1,3}): *(?P<meaning>.*)")
_STRUCTURE = re.compile(r"\{\{|^\s*={2,}\s*\w")
_PARTS = re.compile(r"\{\{(criteria|form)\}\}")


def judging_template(names: TemplateNames, criteria: Sequence[str]) -> Template:
    """Returns the template by which a judge scores completions: `judge`, or `criteria` with these
    criteria in it.

    A file is read once, until `forget_criteria`. Raises TemplateError if one cannot be used.
    """
    if not criteria:
        return load_template("judge", names)
    return _compose((names,) if isinstance(names, str) else tuple(names), tuple(criteria))


def judging_form(criteria: Sequence[str], *, max_tokens: int) -> ReplyForm:
    """Returns the form of a judge's reply that scores these criteria, or the completion as a
    whole if there are none."""
    names = [name.capitalize() for name in criteria] or ["Score"]
    return ReplyForm(tuple(f"{name}: (10|[0-9])(/10)?" for name in names), max_tokens)


def forget_criteria() -> None:
    """Makes the next use of each criterion read its file again."""
    _compose.cache_clear()


def shipped_criteria() -> list[str]:
    """Returns the names of the criteria that come with Precept."""
    return sorted(path.stem for path in (folder_of(DEFAULT_SET) / _FOLDER).glob("*.md"))


def check_criteria(names: TemplateNames) -> None:
    """Raises TemplateError with all faults of the criteria in these sets and folders."""
    faults: list[str] = []
    for name in (names,) if isinstance(names, str) else names:
        for path in sorted((folder_of(name) / _FOLDER).glob("*.md")):
            if path.stem.lower() != "readme" and not path.name.startswith("."):
                faults += _faults(path, read_template(path))
    if faults:
        raise TemplateError("\n".join(faults))


@cache
def _compose(names: tuple[str, ...], criteria: tuple[str, ...]) -> Template:
    template = load_template("criteria", names)
    texts = {name: _read(name, names) for name in criteria}
    blocks = (f"## {name.capitalize()}\n{text}" for name, text in texts.items())
    parts = {
        "criteria": "\n".join(blocks),
        "form": "\n".join(f"{name.capitalize()}: N" for name in criteria),
    }
    text = _PARTS.sub(lambda match: parts[match[1]], template.text)
    return Template(name=f"{template.name} ({', '.join(criteria)})", text=text)


def _read(name: str, names: Sequence[str]) -> str:
    """Returns the text of a criterion, from the first of the sets and folders that has it."""
    places = [folder_of(each) / _FOLDER / f"{name}.md" for each in (*names, DEFAULT_SET)]
    path = next((path for path in places if _NAME.fullmatch(name) and path.is_file()), None)
    if path is None:
        known = {file.stem for place in places for file in place.parent.glob("*.md")}
        raise TemplateError(
            f"no criterion {name!r}: take one of {', '.join(sorted(known))}, or write "
            f"{_FOLDER}/NAME.md in a template folder of your own"
        )
    text = read_template(path)
    if faults := list(_faults(path, text)):
        raise TemplateError("\n".join(faults))
    return text.strip()


def _faults(path: Path, text: str) -> Iterator[str]:
    """Yields what is wrong with the file of a criterion, each with its line and remedy."""
    if not _NAME.fullmatch(path.stem):
        yield (
            f"{path}: {path.stem!r} cannot name a criterion; use small letters, digits and _, "
            "as in fair_tone.md"
        )
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if _STRUCTURE.search(line):
            yield f"{path}:{number}: {line.strip()!r} would be structure of the template; reword it"
    scores: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        anchor = _ANCHOR.fullmatch(line.strip())
        if anchor is None:
            continue
        score = int(anchor["score"])
        if score > MAX_SCORE:
            yield f"{path}:{number}: {score} is off the scale; use {MIN_SCORE} to {MAX_SCORE}"
        elif not anchor["meaning"]:
            yield f"{path}:{number}: the anchor of {score} says nothing; write what it means"
        elif score in scores:
            yield f"{path}:{number}: line {scores[score]} has an anchor of {score} already"
        scores.setdefault(score, number)
    lacking = [str(score) for score in (MIN_SCORE, MAX_SCORE) if score not in scores]
    if lacking:
        yield (
            f"{path}:{max(1, len(lines))}: no anchor says what a score of {' or '.join(lacking)} "
            f"means; add a line such as '- {lacking[0]}: {_EXAMPLES[lacking[0]]}'"
        )


_EXAMPLES: Mapping[str, str] = {
    str(MIN_SCORE): "the answer is wrong",
    str(MAX_SCORE): "there is nothing to mend",
}
