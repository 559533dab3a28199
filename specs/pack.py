"""A folder of Markdown files → Pack, checked.

A pack is a folder with one `style.md` (principles and style guidelines) and one Markdown file for
each policy; specs/README.md describes their format. A pack with a fault is refused, and the error
names the file, the line, the fault and the remedy.

    pack = load_pack("specs/harbour")
    spec = pack.spec(["boats"])            # all summaries, the style, and boats in full
    spec.text, spec.rule_ids
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from specs.policy import BoundaryCase, Exclusion, Outcome, Pack, PackError, Policy, Rule

STYLE_FILE = "style.md"
"""The one Markdown file of a pack that is not a policy: its principles and style guidelines."""

_OUTCOMES = [outcome.value for outcome in Outcome]


def load_pack(path: str | Path) -> Pack:
    """Returns the pack in a folder. Raises PackError if the pack has a fault."""
    folder = Path(path)
    if not folder.is_dir():
        raise PackError(f"no policy pack at {folder}; give the folder of its Markdown files")
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
                f"{pages[policy.id].path.name} also has the id {policy.id!r}",
                "give each policy of a pack its own id",
            )
        policies[policy.id] = policy
        pages[policy.id] = page
    if not policies:
        raise PackError(f"{folder}: no policy; add one Markdown file for each category")
    pack = _parse_style(_Page.read(style_path), policies)
    _check_references(pack, list(pages.values()))
    return pack


@dataclass(frozen=True, slots=True)
class _Block:
    """A piece of a page: a heading, a paragraph or a list item, with its line in the file."""

    kind: Literal["h1", "h2", "text", "item", "code"]
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class _Page:
    """A Markdown file: its front matter, and its body as a row of blocks."""

    path: Path
    front: Mapping[str, str]
    lines: Mapping[str, int]
    """Line of each key of the front matter."""
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
        front, key_lines = _front_matter(path, "\n".join(lines[1:end]))
        tokens = MarkdownIt("commonmark").parse("\n".join(lines[end + 1 :]))
        page = cls(path, front, key_lines, tuple(_blocks(tokens, offset=end + 2)))
        for block in page.blocks:
            if block.kind == "code":
                page.fail(
                    block.line,
                    "a code or HTML block, which no model would be shown",
                    "write it as a paragraph or a list item, without indentation",
                )
        return page

    def fail(self, line: int, fault: str, remedy: str) -> NoReturn:
        raise PackError(f"{self.path}:{line}: {fault}; {remedy}")

    def line_of(self, key: str) -> int:
        return self.lines.get(key, 2)

    def take(self, key: str) -> str:
        """Returns a value of the front matter. Raises PackError if it is missing or empty."""
        value = self.front.get(key, "").strip()
        if not value:
            self.fail(self.line_of(key), f"front matter has no {key!r}", f"add a line '{key}: …'")
        return value

    def refuse_other_keys(self, allowed: Sequence[str]) -> None:
        for key in self.front:
            if key not in allowed:
                self.fail(
                    self.line_of(key),
                    f"unknown key {key!r} in front matter",
                    f"use {', '.join(allowed)}",
                )

    def sections(self, allowed: Sequence[str]) -> dict[str, list[_Block]]:
        """Returns the blocks below each level-1 heading."""
        headings = ", ".join(f"'# {heading}'" for heading in allowed)
        sections: dict[str, list[_Block]] = {}
        name = None
        for block in self.blocks:
            if block.kind == "h1":
                name = block.text
                if name not in allowed:
                    self.fail(block.line, f"unknown section {name!r}", f"use {', '.join(allowed)}")
            elif name is None:
                self.fail(
                    block.line,
                    f"text before the first section: {block.text!r}",
                    f"put it below one of {headings}",
                )
            else:
                sections.setdefault(name, []).append(block)
        return sections


def _front_matter(path: Path, text: str) -> tuple[dict[str, str], dict[str, int]]:
    """Returns the values as they are written (`version: 1.10` stays so), and each key's line."""
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        raise PackError(
            f"{path}:{2 + (mark.line if mark else 0)}: front matter is not YAML "
            f"({str(error).splitlines()[0]}); write 'key: value' lines, and quote a value that "
            "holds ': '"
        ) from error
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise PackError(
            f"{path}:2: front matter must be 'key: value' lines; write one for each key"
        )
    front: dict[str, str] = {}
    key_lines: dict[str, int] = {}
    for key, value in node.value if node else []:
        line = key.start_mark.line + 2
        if not isinstance(value, yaml.ScalarNode) or key.value in front:
            raise PackError(
                f"{path}:{line}: {key.value!r} must have one value in front matter; "
                "write each key once as 'key: value'"
            )
        front[key.value], key_lines[key.value] = value.value, line
    return front, key_lines


def _blocks(tokens: Sequence[Token], *, offset: int) -> Iterator[_Block]:
    """Flattens markdown-it's tokens into headings, paragraphs, list items and code."""
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


_TERM = re.compile(r"^\*\*(?P<term>.+?)\*\*: (?P<meaning>.+)$")
_RULE = re.compile(r"^(?P<id>[A-Z]{1,3}\d{1,2}) (?P<title>.+) \((?P<outcome>[a-z_]+)\)$")
_ITEM = re.compile(
    r"^(?P<kind>Includes): (?P<included>.+)$"
    r"|^(?P<pointing>Excludes|Case): (?P<text>.+?)(?: -> (?P<target>\S+))?$"
)


def _parse_policy(page: _Page) -> Policy:
    page.refuse_other_keys(["id", "title", "version", *_OUTCOMES])
    summary = {Outcome(key): page.take(key) for key in _OUTCOMES if key in page.front}
    if not summary:
        page.fail(
            2,
            "front matter has no summary",
            f"add a line for at least one of {', '.join(_OUTCOMES)}",
        )
    sections = page.sections(["Terms", "Rules", "Style"])
    return Policy(
        terms=tuple(_parse_term(page, block) for block in sections.get("Terms", [])),
        rules=_parse_rules(page, sections.get("Rules", [])),
        style=" ".join(block.text for block in sections.get("Style", [])),
        summary=summary,
        id=page.take("id"),
        title=page.take("title"),
        version=page.take("version"),
    )


def _parse_term(page: _Page, block: _Block) -> tuple[str, str]:
    match = _TERM.match(block.text)
    if not match:
        page.fail(block.line, f"not a term: {block.text!r}", "write '- **term**: meaning'")
    return match["term"], match["meaning"]


def _parse_rules(page: _Page, blocks: Sequence[_Block]) -> tuple[Rule, ...]:
    drafts: list[_RuleDraft] = []
    for block in blocks:
        if block.kind == "h2":
            drafts.append(_RuleDraft.begin(page, block))
        elif drafts:
            drafts[-1].add(page, block)
        else:
            page.fail(
                block.line,
                f"text before the first rule: {block.text!r}",
                "put it below a heading such as '## K1 Title (refuse)'",
            )
    if not drafts:
        page.fail(1, "no rules", "add a section '# Rules' with '## K1 Title (refuse)'")
    return tuple(draft.finish(page) for draft in drafts)


@dataclass(slots=True)
class _RuleDraft:
    """A rule whose lines are still being read."""

    id: str
    title: str
    outcome: Outcome
    line: int
    text: list[str] = field(default_factory=list)
    includes: list[str] = field(default_factory=list)
    excludes: list[Exclusion] = field(default_factory=list)
    cases: list[BoundaryCase] = field(default_factory=list)

    @classmethod
    def begin(cls, page: _Page, block: _Block) -> "_RuleDraft":
        match = _RULE.match(block.text)
        if not match:
            page.fail(block.line, f"not a rule: {block.text!r}", "write '## K1 Title (refuse)'")
        outcome = _outcome(page, block.line, match["outcome"])
        return cls(match["id"], match["title"], outcome, block.line)

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
        if match["included"]:
            self.includes.append(match["included"])
            return
        kind, text, target = match["pointing"], match["text"], match["target"]
        if not target:
            example = "K1" if kind == "Excludes" else "refuse"
            page.fail(block.line, f"{kind} without a target", f"end it in ' -> {example}'")
        if kind == "Excludes":
            self.excludes.append(Exclusion(text=text, goto=target))
        else:
            self.cases.append(BoundaryCase(text=text, outcome=_outcome(page, block.line, target)))

    def finish(self, page: _Page) -> Rule:
        if not self.text:
            page.fail(
                self.line, f"rule {self.id} has no text", "write below its heading what it covers"
            )
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
        page.fail(line, f"unknown outcome {text!r}", f"use {', '.join(_OUTCOMES)}")


def _parse_style(page: _Page, policies: Mapping[str, Policy]) -> Pack:
    page.refuse_other_keys(["id", "title", "version"])
    headings = ["Principles", *_OUTCOMES]
    sections = page.sections(headings)
    for heading in headings:
        if heading not in sections:
            page.fail(1, f"no section {heading!r}", f"add '# {heading}' with its guidelines")
    texts = {name: " ".join(block.text for block in sections[name]) for name in headings}
    return Pack(
        id=page.take("id"),
        title=page.take("title"),
        version=page.take("version"),
        principles=texts["Principles"],
        style={outcome: texts[outcome.value] for outcome in Outcome},
        policies=policies,
    )


def _check_references(pack: Pack, pages: Sequence[_Page]) -> None:
    """Raises PackError if two rules share an id, or if an exclusion points to no rule."""
    owners: dict[str, _Page] = {}
    for page in pages:
        for block in page.blocks:
            match = _RULE.match(block.text) if block.kind == "h2" else None
            if not match:
                continue
            if match["id"] in owners:
                page.fail(
                    block.line,
                    f"rule {match['id']} is also in {owners[match['id']].path.name}",
                    "give each rule of a pack its own id",
                )
            owners[match["id"]] = page
    for page in pages:
        for block in page.blocks:
            match = _ITEM.match(block.text) if block.kind == "item" else None
            if match and match["pointing"] == "Excludes" and match["target"] not in owners:
                page.fail(
                    block.line,
                    f"exclusion points to {match['target']!r}, which is not a rule of {pack.id}",
                    f"use one of {', '.join(pack.rule_ids)}",
                )
