"""The prompt of a single-policy classifier, as gpt-oss-safeguard reads it → a pack of one policy.

What violates becomes rules that refuse, what is safe rules that comply. A section whose heading
says no more than that (`## VIOLATES (1)`) holds a rule an entry; any other is one rule. What tells
the classifier how to reply is no policy, and is not placed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from specs.importers.defaults import TO_FINISH, default_style
from specs.importers.imported import Imported, Leftovers, lines_of
from specs.importers.markdown import file_of, policy_file
from specs.importers.names import category_of, prefix_of, rule_title
from specs.importers.prompt_examples import Labelled, read_examples
from specs.importers.prompt_sections import Entry, PromptSection, read_sections
from specs.policy import GUIDE, BoundaryCase, Exclusion, Outcome, Policy, Rule

MARKS = re.compile(
    r"^#+ .*?(?:violate\w*|safe|refuse|comply|safe_complete|guidance|examples?|definitions"
    r"|key terms|glossary|instructions?|goal|purpose|scope|levels?|severity|ambiguity|borderline"
    r"|unclear|escalation)\b.*$"
    r"|^\W*(?:definitions|goal|purpose|ambiguity & escalation|label format|examples?)\b\W*$"
    r"|^\**(?:goal|purpose):\**|^\W*(?:content|input|answer|output|label|expected response|because"
    r"|rationale|reason)(?:\s*\([^)]*\))?\W*:\W*(?:[01]\b)?|^(?:#+\s*|\**)example\b.*$"
    r"|^\W*(?:includes|excludes|unclear):|\(see \w+\)|[\"“”(){}*–:]|->|→",
    re.IGNORECASE,
)
"""The syntax of such prompts, between whose marks every word is in the pack or not placed."""

_ENTRY = re.compile(
    r"^\*\*(?P<bold>.+?)\*\*:?\s*(?:\((?P<marks>[a-z_, -]+)\))?\s*[:–—-]?\s*(?P<rest>.*)$"
)
_CODED = re.compile(r"^(?P<title>[A-Z]{1,3}\d+(?:\.\w+)?\s[^–—:]+?)\s*[–—:]\s*(?P<rest>.+)$")
_ID = re.compile(r"^(?P<id>[A-Z]{1,3}\d{1,2})\s+(?P<title>\S.*)$")
_TERM = re.compile(r"^(?:\*\*(?P<bold>.+?):?\*\*:?|(?P<term>[^:]{1,60}):)\s*(?P<meaning>\S.*)$")
_LEVEL = re.compile(r"[a-z0-9_-]+")
_BELOW = re.compile(
    r"^(?P<kind>Includes|Excludes|Unclear):\s*(?P<text>.+?)(?:\s*\(see (?P<goto>\w+)\))?$"
)
_EFFECTS = (*[outcome.value for outcome in Outcome], GUIDE)


def import_classifier(text: str, name: str = "policy") -> Imported:
    """Returns the pack of a classifier's prompt; `name` is its category if it has no title."""
    reader = _Reader(left=Leftovers())
    sections = read_sections(lines_of(text))
    for section in sections:
        reader.read(section)
    policy = reader.finish(name)
    outcomes = {rule.outcome for rule in policy.rules} | {
        case.outcome for rule in policy.rules for case in rule.cases
    }
    style = default_style(policy.id, policy.title, [x for x in outcomes if x])
    return Imported(
        files={"style.md": style, file_of(policy.id): policy_file(policy)},
        not_placed=reader.left.in_order(),
        num_sections=len([section for section in sections if section.title]),
        num_rules=len(policy.rules),
        num_examples=sum(len(rule.cases) for rule in policy.rules),
        to_finish=(TO_FINISH, *reader.to_finish),
    )


@dataclass(slots=True, kw_only=True)
class _Reader:
    """The parts of the policy that have been read so far."""

    left: Leftovers
    title: str = ""
    goal: list[str] = field(default_factory=list)
    scope: list[str] = field(default_factory=list)
    terms: list[tuple[str, str]] = field(default_factory=list)
    levels: list[tuple[str, str]] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    examples: list[Labelled] = field(default_factory=list)
    to_finish: list[str] = field(default_factory=list)

    def read(self, section: PromptSection) -> None:
        """Takes the words of a section; what has no place is left over."""
        if section.role == "title":
            self.title = self.title or section.title
        if section.effect():
            self.rules += self._rules(section)
        elif section.role in ("title", "instruction", "unknown"):
            self._leave(section)
        elif section.role in ("definitions", "levels"):
            pairs = self.terms if section.role == "definitions" else self.levels
            pairs += self._pairs(section)
        elif section.role == "examples":
            self.examples += read_examples(section.lines, section.first, self.left)
        else:
            texts = {"goal": self.goal, "scope": self.scope, "unclear": self.unclear}
            texts[section.role] += [
                "; ".join([entry.text, *(text for _, text in entry.below)])
                for entry in section.entries()
            ]

    def _leave(self, section: PromptSection) -> None:
        reason = "tells the classifier how to reply, which templates do in a pack"
        if section.role == "unknown":
            reason = "a section that is neither criteria, terms nor examples"
            self.left.add(section.line, section.title, reason)
        elif section.role == "title":
            reason = "text below the title, outside of any section"
        for number, line in enumerate(section.lines, section.first):
            self.left.add(number, line, reason)

    def _pairs(self, section: PromptSection) -> Iterator[tuple[str, str]]:
        for entry in section.entries():
            match = _TERM.match(entry.text)
            if not match:
                self.left.add(entry.line, entry.text, "a line of definitions that names no term")
                continue
            name = (match["bold"] or match["term"]).strip()
            if section.role == "levels" and not _LEVEL.fullmatch(name.lower()):
                self.left.add(entry.line, entry.text, "a level whose name is no single word")
                continue
            more = "".join(f"\n- {text}" for _, text in entry.below)
            yield name.lower() if section.role == "levels" else name, match["meaning"] + more

    def _rules(self, section: PromptSection) -> Iterator[Rule]:
        outcome, entries = section.effect(), section.entries()
        for number, line in section.verdicts():
            self.left.add(number, line, "says how the classifier labels the section")
        if section.is_bare:
            yield from self._rule_each(entries, outcome)
        elif entries:
            first, *others = entries
            # Bold words would be terms that nothing defines.
            includes = tuple(entry.text.replace("**", "") for entry in others)
            yield _rule(section.title, first, outcome, includes)

    def _rule_each(self, entries: Sequence[Entry], outcome: str) -> Iterator[Rule]:
        has_items = any(entry.is_item for entry in entries)
        for entry in entries:
            if has_items and not entry.is_item and entry.text.endswith(":"):
                self.left.add(entry.line, entry.text, "introduces a list")
            else:
                yield _rule("", entry, outcome)

    def finish(self, name: str) -> Policy:
        """Returns the policy. Raises ValueError if the prompt has no criteria."""
        if not self.rules:
            raise ValueError(
                "the prompt has no criteria; give them headings such as '## VIOLATES (1)' and "
                "'## SAFE (0)'"
            )
        title = self.title or name
        rules = _numbered(self.rules, prefix_of(category_of(title)))
        rules = self._with_cases(self._with_known_targets(self._with_known_levels(rules)))
        effects = dict.fromkeys(rule.effect for rule in rules)
        summary = {
            effect: "; ".join(rule.title for rule in rules if rule.effect == effect)
            for effect in effects
        }
        return Policy(
            id=category_of(title),
            title=title,
            version="1",
            summary=summary,
            goal="\n\n".join(self.goal),
            scope="\n\n".join(self.scope),
            terms=tuple(self.terms),
            levels=tuple(self.levels),
            unclear=tuple(self.unclear),
            rules=tuple(rules),
        )

    def _with_known_levels(self, rules: Sequence[Rule]) -> list[Rule]:
        """Returns the rules without levels that the prompt does not define."""
        names = {name for name, _ in self.levels}
        unknown = dict.fromkeys(x.level for x in rules if x.level and x.level not in names)
        if unknown:
            self.to_finish.append(
                f"the prompt marks rules as {', '.join(unknown)} without saying "
                "what that means; define it as a level or an authority, and mark them again"
            )
        return [x if x.level in names else replace(x, level="") for x in rules]

    def _with_known_targets(self, rules: Sequence[Rule]) -> list[Rule]:
        """Returns the rules without targets of exclusions that are no rule of the prompt."""
        ids = {rule.id for rule in rules}
        unknown = [x.goto for rule in rules for x in rule.excludes if x.goto and x.goto not in ids]
        if unknown:
            self.to_finish.append(
                f"exclusions name {', '.join(unknown)}, which the prompt does not have; point them "
                "to rules of the pack"
            )
        return [
            replace(
                rule,
                excludes=tuple(
                    item if item.goto in ids else replace(item, goto=None) for item in rule.excludes
                ),
            )
            for rule in rules
        ]

    def _with_cases(self, rules: list[Rule]) -> list[Rule]:
        """Returns the rules with the examples as boundary cases, each below the rule it names, else
        below the first of its outcome."""
        num_unnamed = 0
        for example in self.examples:
            named = [i for i, rule in enumerate(rules) if rule.id == example.rule]
            alike = [i for i, rule in enumerate(rules) if rule.effect == example.outcome]
            if not named and not alike:
                for number, line in example.lines:
                    self.left.add(number, line, "an example of an outcome that no rule has")
                continue
            num_unnamed += not named
            index = (named or alike)[0]
            rule = rules[index]
            outcome = Outcome(example.outcome)
            if rule.outcome is Outcome.SAFE_COMPLETE and example.label == "1":
                outcome = Outcome.SAFE_COMPLETE
            case = BoundaryCase(
                text=example.content,
                outcome=None if rule.outcome is None else outcome,
                because=example.because,
            )
            rules[index] = replace(rule, cases=(*rule.cases, case))
        if num_unnamed:
            self.to_finish.append(
                f"{num_unnamed} examples name no rule and stand below the first rule of their "
                "outcome; move each below the rule that decides it"
            )
        return rules


def _rule(title: str, entry: Entry, outcome: str, includes: tuple[str, ...] = ()) -> Rule:
    text, level, rule_id = entry.text, "", ""
    match = None if title else (_ENTRY.match(text) or _CODED.match(text))
    if match:
        groups = match.groupdict()
        title, text = groups.get("bold") or groups["title"], groups["rest"]
        marks = [mark.strip() for mark in (groups.get("marks") or "").split(",") if mark.strip()]
        if marks and marks[0] in _EFFECTS:
            outcome, level = marks[0], marks[1] if len(marks) > 1 else ""
        coded = _ID.match(title)
        if coded:
            rule_id, title = coded["id"], coded["title"]
    title = title.strip().rstrip(":.") or rule_title(entry.text)
    excludes, unclear, text_below = [], [], []
    listed = list(includes)
    for _, below in entry.below:
        part = _BELOW.match(below)
        if part and part["kind"] == "Excludes":
            excludes.append(Exclusion(text=part["text"], goto=part["goto"]))
        elif part and part["kind"] == "Unclear":
            unclear.append(part["text"])
        elif part:
            text_below.append(part["text"])
        else:
            listed.append(below)
    return Rule(
        id=rule_id,
        title=title,
        outcome=None if outcome == GUIDE else Outcome(outcome),
        level=level,
        text=text or title,
        includes=(*text_below, *listed),
        excludes=tuple(excludes),
        unclear=tuple(unclear),
    )


def _numbered(rules: Sequence[Rule], prefix: str) -> list[Rule]:
    """Returns the rules with an id each; those that the prompt gave stay."""
    taken = {rule.id for rule in rules}
    free = (f"{prefix}{n}" for n in range(1, 100) if f"{prefix}{n}" not in taken)
    return [rule if rule.id else replace(rule, id=next(free)) for rule in rules]
