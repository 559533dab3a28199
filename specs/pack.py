"""Markdown folder → Pack, checked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from specs.policy import BoundaryCase, Exclusion, Outcome, Pack, PackError, Policy, Rule

STYLE_FILE = "style.md"
"""The one file of a pack that is not a policy: its principles and style guidelines."""


def load_pack(path: str | Path) -> Pack:
    """Reads and checks a pack folder; raises PackError with file and line."""
    folder = Path(path)
    if not folder.is_dir():
        raise PackError(f"no policy pack at {folder}: give the folder of its Markdown files")
    files = sorted(folder.glob("*.md"))
    style_path = folder / STYLE_FILE
    if style_path not in files:
        raise PackError(f"{folder}: no {STYLE_FILE}; add it with the pack's style guidelines")
    policies: dict[str, Policy] = {}
    pages: dict[str, _Page] = {}
    for file in files:
        if file == style_path:
            continue
        page = _Page.read(file)
        policy = _parse_policy(page)
        if policy.id in policies:
            page.fail(
                page.line_of("id"),
                f"a second policy {policy.id!r}",
                f"{pages[policy.id].path.name} has that id: give this one another",
            )
        policies[policy.id] = policy
        pages[policy.id] = page
    if not policies:
        raise PackError(f"{folder}: no policy; add one Markdown file for each category")
    pack = _parse_style(_Page.read(style_path), policies)
    _check_rules(pack, pages)
    return pack


@dataclass(frozen=True, slots=True)
class _Block:
    """A piece of a page: a heading, a paragraph or a list item, with its line in the file."""

    kind: Literal["h1", "h2", "text", "item", "code"]
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class _Page:
    path: Path
    front: Mapping[str, str]
    lines: Mapping[str, int]
    """Where each key of the front matter stands."""
    blocks: tuple[_Block, ...]

    @classmethod
    def read(cls, path: Path) -> "_Page":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise PackError(
                f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8"
            ) from error
        if not lines or lines[0].strip() != "---":
            raise PackError(f"{path}:1: no front matter; begin the file with a line '---'")
        try:
            end = next(i for i, line in enumerate(lines[1:], 1) if line.strip() == "---")
        except StopIteration:
            raise PackError(f"{path}:1: front matter never ends; close it with '---'") from None
        front, where = _front_matter(path, "\n".join(lines[1:end]))
        tokens = MarkdownIt("commonmark").parse("\n".join(lines[end + 1 :]))
        page = cls(path, front, where, tuple(_blocks(tokens, offset=end + 2)))
        for block in page.blocks:
            if block.kind == "code":
                page.fail(
                    block.line, "a code or HTML block", "write paragraphs and lists, not indented"
                )
        return page

    def fail(self, line: int, what: str, remedy: str) -> None:
        raise PackError(f"{self.path}:{line}: {what}; {remedy}")

    def line_of(self, key: str) -> int:
        return self.lines.get(key, 2)

    def take(self, key: str) -> str:
        value = self.front.get(key, "").strip()
        if not value:
            self.fail(self.line_of(key), f"front matter has no {key!r}", f"add a line '{key}: …'")
        return value

    def refuse_other_keys(self, known: Sequence[str]) -> None:
        for key in self.front:
            if key not in known:
                self.fail(
                    self.line_of(key),
                    f"unknown key {key!r} in front matter",
                    f"use {', '.join(known)}",
                )


def _front_matter(path: Path, text: str) -> tuple[dict[str, str], dict[str, int]]:
    """Values as they are written (`version: 1.10` stays so), and the line of each key."""
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        raise PackError(
            f"{path}:{2 + (mark.line if mark else 0)}: front matter is not YAML "
            f"({str(error).splitlines()[0]}); write 'key: value' lines, quote what holds ': '"
        ) from error
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise PackError(f"{path}:2: front matter is not 'key: value' lines; write it so")
    front: dict[str, str] = {}
    where: dict[str, int] = {}
    for key, value in node.value if node else []:
        line = key.start_mark.line + 2
        if not isinstance(value, yaml.ScalarNode) or key.value in front:
            raise PackError(
                f"{path}:{line}: {key.value!r} is not one value in front matter; "
                "write each key once as 'key: value'"
            )
        front[key.value], where[key.value] = value.value, line
    return front, where


def _blocks(tokens: Sequence[Token], *, offset: int) -> Iterator[_Block]:
    """Flattens markdown-it's tokens into headings, paragraphs, list items and what is neither."""
    heading = ""
    depth = 0
    for token in tokens:
        if token.type == "heading_open":
            heading = token.tag
        elif token.type == "list_item_open":
            depth += 1
        elif token.type == "list_item_close":
            depth -= 1
        line = (token.map[0] if token.map else 0) + offset
        if token.type in ("code_block", "fence", "html_block"):
            yield _Block("code", token.content, line)
        elif token.type == "inline":
            text = " ".join(token.content.split())
            if heading:
                yield _Block("h1" if heading == "h1" else "h2", text, line)
                heading = ""
            else:
                yield _Block("item" if depth else "text", text, line)


_RULE = re.compile(r"^(?P<id>[A-Z]{1,3}\d{1,2}) (?P<title>.+) \((?P<outcome>[a-z_]+)\)$")


_TERM = re.compile(r"^\*\*(?P<term>.+?)\*\*: (?P<meaning>.+)$")


_ITEM = re.compile(
    r"^(?P<kind>Includes): (?P<included>.+)$"
    r"|^(?P<pointing>Excludes|Case): (?P<text>.+?)(?: -> (?P<target>\S+))?$"
)


def _parse_policy(page: _Page) -> Policy:
    outcomes = [outcome.value for outcome in Outcome]
    page.refuse_other_keys(["id", "title", "version", *outcomes])
    summary = {Outcome(key): page.take(key) for key in outcomes if key in page.front}
    if not summary:
        page.fail(2, "no summary", f"say in front matter what is done: {', '.join(outcomes)}")
    terms: list[tuple[str, str]] = []
    rules: list[Rule] = []
    style: list[str] = []
    section = ""
    open_rule: _OpenRule | None = None
    for block in page.blocks:
        if block.kind == "h1":
            section = block.text
            if section not in ("Terms", "Rules", "Style"):
                page.fail(block.line, f"unknown section {section!r}", "use Terms, Rules or Style")
        elif section == "Terms":
            match = _TERM.match(block.text)
            if not match:
                page.fail(block.line, f"not a term: {block.text!r}", "write '- **term**: meaning'")
            assert match
            terms.append((match["term"], match["meaning"]))
        elif section == "Style":
            style.append(block.text)
        elif section == "Rules" and block.kind == "h2":
            if open_rule:
                rules.append(open_rule.close(page))
            open_rule = _OpenRule.begin(page, block)
        elif section == "Rules" and open_rule:
            open_rule.add(page, block)
        else:
            page.fail(
                block.line, f"text outside a rule: {block.text!r}", "begin '## K1 Title (refuse)'"
            )
    if open_rule:
        rules.append(open_rule.close(page))
    if not rules:
        page.fail(1, "no rules", "add a section '# Rules' with '## K1 Title (refuse)'")
    return Policy(
        id=page.take("id"),
        title=page.take("title"),
        version=page.take("version"),
        summary=summary,
        terms=tuple(terms),
        rules=tuple(rules),
        style=" ".join(style),
    )


@dataclass(slots=True)
class _OpenRule:
    """A rule whose lines are still being read."""

    id: str
    title: str
    outcome: Outcome
    line: int
    text: list[str]
    includes: list[str]
    excludes: list[Exclusion]
    cases: list[BoundaryCase]

    @classmethod
    def begin(cls, page: _Page, block: _Block) -> "_OpenRule":
        match = _RULE.match(block.text)
        if not match:
            page.fail(block.line, f"not a rule: {block.text!r}", "write '## K1 Title (refuse)'")
        assert match
        outcome = _outcome(page, block.line, match["outcome"])
        return cls(match["id"], match["title"], outcome, block.line, [], [], [], [])

    def add(self, page: _Page, block: _Block) -> None:
        if block.kind == "text":
            self.text.append(block.text)
            return
        match = _ITEM.match(block.text)
        if not match:
            page.fail(
                block.line,
                f"not a line of a rule: {block.text!r}",
                "write 'Includes: …', 'Excludes: … -> K1' or 'Case: … -> refuse'",
            )
        assert match
        kind, text, target = match["pointing"], match["text"], match["target"]
        if match["included"]:
            self.includes.append(match["included"])
        elif not target:
            page.fail(block.line, f"{kind} without a target", "end it in ' -> K1' or ' -> refuse'")
        elif kind == "Excludes":
            self.excludes.append(Exclusion(text=text, goto=target))
        else:
            self.cases.append(BoundaryCase(text=text, outcome=_outcome(page, block.line, target)))

    def close(self, page: _Page) -> Rule:
        if not self.text:
            page.fail(self.line, f"rule {self.id} has no text", "say below it what it covers")
        return Rule(
            id=self.id,
            title=self.title,
            outcome=self.outcome,
            text=" ".join(self.text),
            includes=tuple(self.includes),
            excludes=tuple(self.excludes),
            cases=tuple(self.cases),
        )


def _outcome(page: _Page, line: int, text: str) -> Outcome:
    try:
        return Outcome(text)
    except ValueError:
        known = ", ".join(outcome.value for outcome in Outcome)
        raise PackError(f"{page.path}:{line}: unknown outcome {text!r}; use {known}") from None


def _parse_style(page: _Page, policies: Mapping[str, Policy]) -> Pack:
    page.refuse_other_keys(["id", "title", "version"])
    sections: dict[str, list[str]] = {}
    section = ""
    headings = ["Principles", *(outcome.value for outcome in Outcome)]
    for block in page.blocks:
        if block.kind == "h1":
            section = block.text
            if section not in headings:
                page.fail(block.line, f"unknown section {section!r}", f"use {', '.join(headings)}")
        elif not section:
            page.fail(block.line, "text before the first section", "begin with '# Principles'")
        else:
            sections.setdefault(section, []).append(block.text)
    for heading in headings:
        if not sections.get(heading):
            page.fail(1, f"no section {heading!r}", f"add '# {heading}' with its guidelines")
    return Pack(
        id=page.take("id"),
        title=page.take("title"),
        version=page.take("version"),
        principles=" ".join(sections["Principles"]),
        style={outcome: " ".join(sections[outcome.value]) for outcome in Outcome},
        policies=policies,
    )


def _check_rules(pack: Pack, pages: Mapping[str, _Page]) -> None:
    """Each rule has an id of its own, and each exclusion points to one of them."""
    owner: dict[str, _Page] = {}
    for page in pages.values():
        for block in page.blocks:
            match = _RULE.match(block.text) if block.kind == "h2" else None
            if not match:
                continue
            if match["id"] in owner:
                page.fail(
                    block.line,
                    f"rule {match['id']} is also in {owner[match['id']].path.name}",
                    "give each rule of a pack its own id",
                )
            owner[match["id"]] = page
    for page in pages.values():
        for block in page.blocks:
            match = _ITEM.match(block.text) if block.kind == "item" else None
            if match and match["pointing"] == "Excludes" and match["target"] not in owner:
                page.fail(
                    block.line,
                    f"an exclusion to {match['target']!r}, which no policy of {pack.id} has",
                    f"point it to one of {', '.join(pack.rule_ids)}",
                )
