"""The section `# Rules` of a policy → its rules, with their cases and worked examples."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast, get_args

from specs.blocks import Block, item_text, layout
from specs.pages import Page
from specs.policy import (
    GUIDE,
    BoundaryCase,
    Example,
    Exclusion,
    Outcome,
    Rule,
    TurnLabel,
)

EFFECTS = [*(outcome.value for outcome in Outcome), GUIDE]
"""The words that a rule may have in its parenthesis."""


@dataclass(slots=True)
class Found:
    """The ids, exclusions and outcomes of a pack's rules, with their places."""

    rules: list[tuple[Page, int, str]] = field(default_factory=list)
    exclusions: list[tuple[Page, int, str]] = field(default_factory=list)
    outcomes: set[Outcome] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The names that rules of a page may use, and those that they make."""

    page: Page
    levels: Sequence[str]
    authorities: Sequence[str] | None
    """None if the pack's style.md is not at hand."""
    found: Found


_RULE = re.compile(r"^(?P<id>[A-Z]{1,3}[0-9]{1,2}) (?P<title>.+) \((?P<marks>[^()]+)\)$")
_EXAMPLE = re.compile(r"^Example: (?P<title>.+?)(?: \((?P<effect>[a-z_]+)\))?$")
_ITEM = re.compile(
    r"^(?P<kind>Includes|Excludes|Case|Unclear): (?P<text>.+?)(?: -> (?P<goto>\S+))?$"
)
LIKE_AN_ITEM = re.compile(
    r"^[*_]*(?:includ|inclus|exclud|exclus|case|unclear|example)\w*[*_]*[:：]| -> \S+$", re.I
)
UNLISTED = re.compile(r"^[*_]*(?:Includes|Excludes|Case|Unclear)[*_]*[:：]")
"""Begins a line of a paragraph that was meant as an item."""
EARLY_TARGET = re.compile(r"(?:->|=>|→|⇒)\s*[A-Z]{1,3}[0-9]{1,2}\b")
"""A rule to which an exclusion points before its end, or with another arrow."""
_ITEM_REMEDY = (
    "write 'Includes: …', 'Excludes: … -> K1', 'Case: … -> refuse' or 'Unclear: …', and put lists "
    "of other items above them"
)
_TURN = re.compile(rf"^(?P<label>{'|'.join(get_args(TurnLabel))}|Because):(?: (?P<text>.*))?$")
LIKE_A_TURN = re.compile(
    r"^[*_]*(?:system|developer|user|assistant|answer|good answer|bad answer|because)s?"
    r"[*_]*[:：]",
    re.I,
)
"""Begins a line that is a part of a worked example, or was meant as one."""
_LIKE_A_REASON = re.compile(r"^[*_]*because[*_]*\s*[:：]", re.I)


def parse_rules(context: Context, blocks: Sequence[Block]) -> tuple[Rule, ...]:
    """Returns the rules below the heading `# Rules`; what is no part of one is a fault."""
    page = context.page
    drafts: list[_RuleDraft] = []
    for block in blocks:
        if block.kind == "h3" and drafts and block.text.startswith("Example"):
            drafts[-1].examples.append([block])
        elif block.kind in ("h2", "h3"):
            drafts.append(_RuleDraft.begin(context, block))
        elif drafts and drafts[-1].examples:
            drafts[-1].examples[-1].append(block)
        elif drafts:
            drafts[-1].blocks.append(block)
        else:
            page.fault(
                block.line,
                f"text before the first rule: {block.text!r}",
                "put it below a heading such as '## K1 Title (refuse)'",
            )
    if not drafts and page.is_read:
        page.fault(1, "no rules", "add a section '# Rules' with '## K1 Title (refuse)'")
    return tuple(draft.finish() for draft in drafts)


@dataclass(slots=True)
class _RuleDraft:
    """A rule whose lines are still being read."""

    context: Context
    id: str
    title: str
    line: int
    outcome: Outcome | None = Outcome.REFUSE
    is_known: bool = True
    """False if the heading names no outcome: its cases and examples may then have any, or none."""
    level: str = ""
    authority: str = ""
    blocks: list[Block] = field(default_factory=list)
    examples: list[list[Block]] = field(default_factory=list)
    """The blocks of each worked example, its heading first."""
    text: list[Block] = field(default_factory=list)
    includes: list[str] = field(default_factory=list)
    excludes: list[Exclusion] = field(default_factory=list)
    cases: list[BoundaryCase] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, context: Context, block: Block) -> "_RuleDraft":
        match = _RULE.match(block.text)
        if not match or "]:" in match["title"]:
            fault, remedy = f"not a rule: {block.text!r}", "write '## K1 Title (refuse)'"
            if block.text.startswith("Example"):
                remedy = "write '### Example: title (refuse)' below a rule"
            context.page.fault(block.line, fault, remedy)
            return cls(context, "", block.text, block.line, is_known=False)
        context.found.rules.append((context.page, block.line, match["id"]))
        draft = cls(context, match["id"], match["title"], block.line)
        effect, *others = (mark.strip() for mark in match["marks"].split(","))
        draft.is_known = effect in EFFECTS
        draft.outcome = None if effect == GUIDE else _outcome(context, block.line, effect, EFFECTS)
        for mark in others:
            draft._mark(mark)
        return draft

    def _mark(self, mark: str) -> None:
        """Takes the word of a level or an authority in the parenthesis of the heading."""
        authorities = self.context.authorities
        if mark in self.context.levels and not self.level:
            self.level = mark
        elif (authorities is None or mark in authorities) and not self.authority:
            self.authority = mark
        else:
            self._fault(
                self.line,
                f"{mark!r} is not a level of the policy or an authority of the pack, or one too "
                "many",
                "add it to '# Levels', or to '# Authority' of style.md, and give a rule one of "
                "each at most",
            )

    def _fault(self, line: int, fault: str, remedy: str) -> None:
        self.context.page.fault(line, fault, remedy)

    def finish(self) -> Rule:
        for group in _groups(self.blocks):
            self._add(group)
        if self.id and not self.text:
            self._fault(
                self.line, f"rule {self.id} has no text", "write below its heading what it covers"
            )
        return Rule(
            id=self.id,
            title=self.title,
            outcome=self.outcome,
            level=self.level,
            authority=self.authority,
            text=layout(self.text),
            includes=tuple(self.includes),
            excludes=tuple(self.excludes),
            cases=tuple(self.cases),
            unclear=tuple(self.unclear),
            examples=tuple(_parse_example(self, blocks) for blocks in self.examples),
        )

    def _add(self, group: Sequence[Block]) -> None:
        """Takes a paragraph, table or code, or a list item with what is nested in it."""
        head, *nested = group
        match = _ITEM.match(head.text) if head.kind == "item" else None
        if match:
            self._add_item(match, head, nested)
        elif head.kind != "item":
            for number, line in enumerate(head.written, head.line):
                if UNLISTED.match(line):
                    fault = f"a line of a rule that is no list item: {line!r}"
                    self._fault(number, fault, "begin it with '- '")
            self.text += group
        elif LIKE_AN_ITEM.search(head.text) or self._has_items():
            self._fault(head.line, f"not a line of a rule: {head.text!r}", _ITEM_REMEDY)
        else:
            self.text += group

    def _has_items(self) -> bool:
        return bool(self.includes or self.excludes or self.cases or self.unclear)

    def _add_item(self, match: re.Match[str], head: Block, nested: Sequence[Block]) -> None:
        whole = match.string.removeprefix(f"{match['kind']}: ")
        if match["kind"] == "Includes":
            self.includes.append(item_text(head, whole, nested))
        elif match["kind"] == "Unclear":
            self.unclear.append(item_text(head, whole, nested))
        elif match["kind"] == "Excludes":
            if match["goto"]:
                place = (self.context.page, head.line, match["goto"])
                self.context.found.exclusions.append(place)
            if EARLY_TARGET.search(match["text"]):
                fault = f"an exclusion that does not end in ' -> K1': {head.text!r}"
                self._fault(head.line, fault, "write one for each rule, and ' -> ' and its id last")
            text = item_text(head, match["text"], nested)
            self.excludes.append(Exclusion(text=text, goto=match["goto"]))
        else:
            self._add_case(match, whole, head, nested)

    def _add_case(
        self, match: re.Match[str], whole: str, head: Block, nested: Sequence[Block]
    ) -> None:
        text, target = match["text"], match["goto"]
        outcome = None
        if self.outcome is None:
            if target in list(Outcome):
                self._fault(
                    head.line,
                    "a case of a guide rule has an outcome",
                    f"take ' -> {target}' off, or give the rule an outcome",
                )
            text = whole
        elif target:
            outcome = _outcome(self.context, head.line, target)
        elif self.is_known:
            self._fault(head.line, "Case without a target", "end it in ' -> refuse'")
        reasons: list[list[Block]] = []
        others: list[list[Block]] = []
        for group in _groups(nested):
            first = group[0]
            is_reason = first.marker and first.text.startswith("Because: ")
            if first.marker and not is_reason and _LIKE_A_REASON.match(first.text):
                self._fault(first.line, f"not a reason: {first.text!r}", "write '- Because: …'")
            (reasons if is_reason else others).append(group)
        if len(reasons) > 1:
            self._fault(reasons[1][0].line, "a second 'Because:' of a case", "write one")
        because = "\n".join(
            item_text(first, first.text.removeprefix("Because: "), more) for first, *more in reasons
        )
        text = item_text(head, text, [block for group in others for block in group])
        self.cases.append(BoundaryCase(text=text, outcome=outcome, because=because))


def _outcome(
    context: Context, line: int, text: str, names: Sequence[str] = tuple(Outcome)
) -> Outcome:
    """Returns the outcome of that name; another name is a fault, which tells the `names` that there
    are, and any outcome is returned."""
    try:
        outcome = Outcome(text)
    except ValueError:
        context.page.fault(line, f"unknown outcome {text!r}", f"use {', '.join(names)}")
        return Outcome.REFUSE
    context.found.outcomes.add(outcome)
    return outcome


def _groups(blocks: Sequence[Block]) -> list[list[Block]]:
    """Returns the blocks in groups: each outermost item with what is nested in it, each labelled
    line of a rule, and each other block alone."""
    groups: list[list[Block]] = []
    top = min((block.depth for block in blocks if block.marker), default=0)
    for block in blocks:
        begins = bool(block.marker) and (block.depth <= top or bool(_ITEM.match(block.text)))
        if begins or not groups or not block.depth or not groups[-1][0].depth:
            groups.append([block])
        else:
            groups[-1].append(block)
    return groups


def _parse_example(draft: _RuleDraft, blocks: Sequence[Block]) -> Example:
    heading, *body = blocks
    page = draft.context.page
    match = _EXAMPLE.match(heading.text)
    if not match:
        page.fault(
            heading.line,
            f"not a worked example: {heading.text!r}",
            "write '### Example: title (refuse)'",
        )
    title, outcome = heading.text, None
    if match and match["effect"] in (*Outcome, GUIDE) and draft.outcome is None:
        title = match["title"]
        if match["effect"] != GUIDE:
            fault = "an example of a guide rule has an outcome"
            page.fault(heading.line, fault, f"write '({GUIDE})', or give the rule an outcome")
    elif match:
        title = match["title"]
        if match["effect"] and (draft.is_known or match["effect"] != GUIDE):
            outcome = _outcome(draft.context, heading.line, match["effect"])
    turns = _turns(page, body)
    because = [blocks for label, blocks in turns if label == "Because"]
    example = Example(
        title=title,
        outcome=outcome,
        turns=tuple(
            (cast(TurnLabel, label), layout(blocks, joined=False))
            for label, blocks in turns
            if label != "Because"
        ),
        because="\n".join(layout(blocks, joined=False) for blocks in because),
    )
    _check_example(page, heading.line, example, num_reasons=len(because))
    return example


def _turns(page: Page, blocks: Sequence[Block]) -> list[tuple[str, list[Block]]]:
    """Returns the parts of a worked example: their labels and blocks."""
    turns: list[tuple[str, list[Block]]] = []
    for block in blocks:
        if block.kind == "item" and block.depth == 1 and _ITEM.match(block.text):
            fault = f"a line of a rule within a worked example: {block.text!r}"
            page.fault(block.line, fault, "put it above the examples of the rule")
            continue
        is_listed = block.kind == "item" and block.depth == 1 and _TURN.match(block.text)
        is_paragraph = block.kind == "text"
        for number, line in enumerate(block.written if is_paragraph else (block.text,)):
            match = _TURN.match(line) if is_paragraph else None
            if match:
                turns.append((match["label"], []))
                line = match["text"] or ""
            elif is_listed or (is_paragraph and LIKE_A_TURN.match(line)):
                fault = f"not a part of a worked example: {line!r}"
                labels = ", ".join(f"'{label}:'" for label in (*get_args(TurnLabel), "Because"))
                page.fault(block.line + number, fault, f"begin a paragraph with {labels}")
            elif not turns:
                fault = f"text before the first part of a worked example: {line!r}"
                page.fault(block.line + number, fault, "begin it with 'User: …'")
                break
            parts = turns[-1][1] if turns else []
            if match or number == 0:
                if line:
                    parts.append(replace(block, text=line))
            elif parts:
                parts[-1] = replace(parts[-1], text=f"{parts[-1].text} {line}")
            else:
                parts.append(replace(block, text=line))
    return turns


def _check_example(page: Page, line: int, example: Example, *, num_reasons: int) -> None:
    labels = [label for label, _ in example.turns]
    if "User" not in labels:
        page.fault(line, "a worked example without 'User:'", "add a paragraph 'User: …'")
    elif {"System", "Developer"} & set(labels[labels.index("User") :]):
        page.fault(line, "'System:' or 'Developer:' after 'User:'", "put it before 'User:'")
    if example.outcome is None and not any("nswer" in label for label in labels):
        page.fault(
            line,
            "a worked example with neither an answer nor an outcome",
            "add 'Answer: …', or end the heading in an outcome such as '(refuse)'",
        )
    if num_reasons > 1:
        page.fault(line, "a second 'Because:' of a worked example", "write one")
    reasons = [("Because", example.because)] if num_reasons else []
    for label, text in (*example.turns, *reasons):
        if not text:
            page.fault(line, f"'{label}:' of a worked example has no text", "write it")
