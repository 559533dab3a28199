"""A folder of Markdown files → Pack, checked.

A pack is a folder with one `style.md` (principles and style guidelines) and one Markdown file for
each policy; specs/README.md describes their format. A pack with faults is refused, and the error
tells all of them, each with file, line, fault and remedy.

    pack = load_pack("specs/harbour")
    spec = pack.spec(["boats"])            # all summaries, the style, and boats in full
    spec.text, spec.rule_ids
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from specs.pages import Block, Faults, Page
from specs.policy import (
    NO_CATEGORY,
    BoundaryCase,
    Exclusion,
    Outcome,
    Pack,
    PackError,
    Policy,
    Rule,
)

STYLE_FILE = "style.md"
"""The one Markdown file of a pack that is not a policy: its principles and style guidelines."""

_OUTCOMES = [outcome.value for outcome in Outcome]
_STYLE_SECTIONS = ["Principles", *_OUTCOMES]


def load_pack(path: str | Path) -> Pack:
    """Returns the pack in a folder. Raises PackError with all its faults, one a line."""
    folder = Path(path)
    if folder.is_file():
        raise PackError(_one_file(folder))
    if not folder.is_dir():
        raise PackError(f"no policy pack at {folder}; give the folder of its Markdown files")
    faults = Faults()
    files, not_read = _files(folder)
    style_path = folder / STYLE_FILE
    if style_path not in files:
        faults.add(folder, None, f"no {STYLE_FILE}", "add it with the pack's principles and style")
    pages = [Page.read(file, faults) for file in files if file != style_path]
    if not pages:
        faults.add(folder, None, "no policy", "add one Markdown file for each category")
    policies = _policies(pages)
    _check_references(pages)
    pack = None
    if style_path in files:
        pack = _parse_style(Page.read(style_path, faults), policies, not_read)
    faults.raise_any()
    assert pack is not None
    return pack


def _one_file(path: Path) -> str:
    """Returns the refusal of a single file, with the faults that it would have as a policy."""
    faults = Faults()
    page = Page.read(path, faults)
    _parse_policy(page)
    sentence = f"{path}: one file is no pack; give its folder, which needs a {STYLE_FILE}"
    try:
        faults.raise_any()
    except PackError as error:
        return f"{sentence}\n{error}"
    return sentence


_LIKE_A_POLICY = re.compile(r"\.(md|mdx|markdown|mdown|mkdn?)(\.txt)?$", re.IGNORECASE)


def _files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the Markdown files of a pack, and the names of files that look like policies and are
    not read: those of another ending, or in a folder below. Names that begin with a dot are none.
    """
    files, not_read = [], []
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or path.is_dir():
            continue
        # A link to nowhere is read, so that its fault is told; a pipe would never end.
        is_readable = path.is_file() or not path.exists()
        if path.parent == folder and path.suffix == ".md" and is_readable:
            files.append(path)
        elif _LIKE_A_POLICY.search(path.name):
            not_read.append(str(name))
    return files, tuple(not_read)


def _policies(pages: Sequence[Page]) -> dict[str, Policy]:
    """Returns the policies of the pages by id; what keeps a page from being one is a fault."""
    policies: dict[str, Policy] = {}
    owners: dict[str, Page] = {}
    for page in pages:
        policy = _parse_policy(page)
        if policy.id in owners:
            page.fault(
                page.line_of("id"),
                f"{owners[policy.id].path.name} also has the id {policy.id!r}",
                "give each policy of a pack its own id",
            )
        if policy.id:
            owners.setdefault(policy.id, page)
            policies.setdefault(policy.id, policy)
    return policies


_ID = re.compile(r"[a-z0-9_]+")
_TERM = re.compile(r"^\*\*(?P<term>.+?)\*\*: (?P<meaning>.+)$")
_RULE = re.compile(r"^(?P<id>[A-Z]{1,3}[0-9]{1,2}) (?P<title>.+) \((?P<outcome>[a-z_]+)\)$")
_ITEM = re.compile(
    r"^(?P<kind>Includes): (?P<included>.+)$"
    r"|^(?P<pointing>Excludes|Case): (?P<text>.+?)(?: -> (?P<target>\S+))?$"
)


def _parse_policy(page: Page) -> Policy:
    """Returns the policy of a page, as far as it can be read; the rest is faults."""
    page.refuse_other_keys(["id", "title", "version", *_OUTCOMES])
    summary = {key: page.take(key) for key in _OUTCOMES if key in page.front}
    if not summary and page.has_front:
        outcomes = ", ".join(_OUTCOMES)
        page.fault(2, "front matter has no summary", f"add a line for at least one of {outcomes}")
    sections = page.sections(["Terms", "Rules", "Style"])
    return Policy(
        id=_parse_id(page),
        title=page.take("title"),
        version=page.take("version"),
        summary=summary,
        terms=_parse_terms(page, sections.get("Terms", [])),
        rules=_parse_rules(page, sections.get("Rules", [])),
        style=_prose(page, sections.get("Style", [])),
    )


def _parse_id(page: Page) -> str:
    """Returns the category's id: one that a judge can name on a line `Category: id`."""
    category = page.take("id")
    if category and not _ID.fullmatch(category):
        page.fault(
            page.line_of("id"), f"id {category!r}", "use small letters a to z, digits and '_'"
        )
    elif category == NO_CATEGORY:
        page.fault(
            page.line_of("id"),
            f"id {category!r}, by which a judge says that no category fits",
            "give the policy another id",
        )
    return category


def _prose(page: Page, blocks: Sequence[Block]) -> str:
    """Returns paragraphs and list items as one line; a heading among them is a fault."""
    for block in blocks:
        if block.kind == "h2":
            page.fault(
                block.line,
                f"a heading within a section of text: {block.text!r}",
                "write it as a sentence, or as a section with one '#'",
            )
    return " ".join(block.text for block in blocks)


def _parse_terms(page: Page, blocks: Sequence[Block]) -> tuple[tuple[str, str], ...]:
    terms = []
    for block in blocks:
        match = _TERM.match(block.text)
        if match:
            terms.append((match["term"], match["meaning"]))
        else:
            page.fault(block.line, f"not a term: {block.text!r}", "write '- **term**: meaning'")
    return tuple(terms)


def _parse_rules(page: Page, blocks: Sequence[Block]) -> tuple[Rule, ...]:
    drafts: list[_RuleDraft] = []
    for block in blocks:
        if block.kind == "h2":
            drafts.append(_RuleDraft.begin(page, block))
        elif drafts:
            drafts[-1].add(page, block)
        else:
            page.fault(
                block.line,
                f"text before the first rule: {block.text!r}",
                "put it below a heading such as '## K1 Title (refuse)'",
            )
    if not drafts and page.is_read:
        page.fault(1, "no rules", "add a section '# Rules' with '## K1 Title (refuse)'")
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
    def begin(cls, page: Page, block: Block) -> "_RuleDraft":
        match = _RULE.match(block.text)
        if not match:
            page.fault(block.line, f"not a rule: {block.text!r}", "write '## K1 Title (refuse)'")
            return cls("", block.text, Outcome.REFUSE, block.line)
        outcome = _outcome(page, block.line, match["outcome"])
        return cls(match["id"], match["title"], outcome, block.line)

    def add(self, page: Page, block: Block) -> None:
        if block.kind == "text":
            self.text.append(block.text)
            return
        match = _ITEM.match(block.text)
        if not match:
            page.fault(
                block.line,
                f"not a line of a rule: {block.text!r}",
                "write 'Includes: …', 'Excludes: … -> K1' or 'Case: … -> refuse'",
            )
        elif match["included"]:
            self.includes.append(match["included"])
        elif not match["target"]:
            example = "K1" if match["pointing"] == "Excludes" else "refuse"
            fault = f"{match['pointing']} without a target"
            page.fault(block.line, fault, f"end it in ' -> {example}'")
        elif match["pointing"] == "Excludes":
            self.excludes.append(Exclusion(text=match["text"], goto=match["target"]))
        else:
            outcome = _outcome(page, block.line, match["target"])
            self.cases.append(BoundaryCase(text=match["text"], outcome=outcome))

    def finish(self, page: Page) -> Rule:
        if self.id and not self.text:
            page.fault(
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


def _outcome(page: Page, line: int, text: str) -> Outcome:
    """Returns the outcome of that name; another name is a fault, and any outcome is returned."""
    try:
        return Outcome(text)
    except ValueError:
        page.fault(line, f"unknown outcome {text!r}", f"use {', '.join(_OUTCOMES)}")
        return Outcome.REFUSE


def _parse_style(page: Page, policies: Mapping[str, Policy], not_read: Sequence[str]) -> Pack:
    page.refuse_other_keys(["id", "title", "version"])
    sections = page.sections(_STYLE_SECTIONS)
    for heading in _STYLE_SECTIONS:
        if page.is_read and not sections.get(heading):
            page.fault(1, f"no section {heading!r}", f"add '# {heading}' with its guidelines")
    texts = {name: _prose(page, sections.get(name, [])) for name in _STYLE_SECTIONS}
    return Pack(
        id=page.take("id"),
        title=page.take("title"),
        version=page.take("version"),
        principles=texts["Principles"],
        style={outcome: texts[outcome.value] for outcome in Outcome},
        policies=policies,
        not_read=tuple(not_read),
    )


def _check_references(pages: Sequence[Page]) -> None:
    """Adds a fault for each rule id that stands twice and each exclusion that points to no rule."""
    owners: dict[str, Page] = {}
    for page in pages:
        for block in page.blocks:
            match = _RULE.match(block.text) if block.kind == "h2" else None
            if not match:
                continue
            if match["id"] in owners:
                page.fault(
                    block.line,
                    f"rule {match['id']} is also in {owners[match['id']].path.name}",
                    "give each rule of a pack its own id",
                )
            owners.setdefault(match["id"], page)
    for page in pages:
        for block in page.blocks:
            match = _ITEM.match(block.text) if block.kind == "item" else None
            if not match or match["pointing"] != "Excludes" or not match["target"]:
                continue
            if match["target"] not in owners:
                page.fault(
                    block.line,
                    f"exclusion points to {match['target']!r}, which is not a rule of the pack",
                    f"use one of {', '.join(owners)}" if owners else "write the rule",
                )
