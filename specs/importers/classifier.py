"""The prompt of a single-policy classifier, as gpt-oss-safeguard reads it → a pack of one policy.

What violates becomes rules that refuse, what is safe rules that comply. A section whose heading
says no more than that (`## VIOLATES (1)`) holds a rule an entry; any other is one rule. What tells
the classifier how to reply is no policy, and is not placed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from specs.importers.defaults import TO_FINISH, default_style
from specs.importers.entries import Entry, each_line, markdown, nested, split
from specs.importers.imported import Imported, Leftovers, lines_of, without_comments
from specs.importers.markdown import file_of, policy_file
from specs.importers.names import category_of, free_id, prefix_of, rule_title
from specs.importers.prompt_examples import Labelled, read_examples
from specs.importers.prompt_sections import PLAIN_HEADING, PromptSection, read_sections
from specs.policy import GUIDE, BoundaryCase, Exclusion, Outcome, Policy, Rule

_LABEL = r"(?:(?:[01]|(?:un)?safe|violates|(?:in)?valid|refuse|comply|safe_complete)\b)"
_IN_BRACKETS = r"(?:\s*\([^)]*\))?"
MARKS = re.compile(
    "|".join(
        [
            rf"^\W*{PLAIN_HEADING.pattern}\s*(?:\((?:label:?\s*)?[01]\))?\W*$",
            r"^(?:#+\s*|\**)example\b(?:\s*\d+)?(?:, by rule \w+)?\s*"
            r"(?:\((?:label:?\s*)?\w+\))?\W*$",
            rf"^\W*(?:content|input|text|user|because|rationale|reason){_IN_BRACKETS}\W*:",
            r"^\W*(?:answer|output|label|classification|verdict|expected response)"
            rf"{_IN_BRACKETS}\W*:[^\w{{]*{_LABEL}?",
            rf"\{{\s*\"violation\".*\}}|(?:->|→|=>)\W*{_LABEL}\W*$",
            r"^\W*(?:goal|purpose|includes|excludes|unclear)\W*:|\(see \w+\)",
            r"^\s*\d+[.)]\s|^[-*\s]*\*\*[A-Z]{1,3}\d+ ",
            r"\((?:refuse|comply|safe_complete|guide)\b|[\"“”(){}*–—:]|->|→|<!--|-->",
        ]
    ),
    re.IGNORECASE,
)
"""The syntax of such prompts, between whose marks every word is in the pack or not placed."""

_ENTRY = re.compile(
    r"^\*\*(?P<bold>.+?)\*\*:?\s*(?:\((?P<marks>[a-z_, -]+)\))?\s*[:–—-]?\s*(?P<rest>.*)$"
)
_CODED = re.compile(r"^(?P<title>[A-Z]{1,3}\d+(?:\.\w+)?\s[^–—:]+?)\s*[–—:]\s*(?P<rest>.+)$")
_ID = re.compile(r"^(?P<id>[A-Z]{1,3}\d{1,2})\s+(?P<title>\S.*)$")
_TERM = re.compile(r"^(?:\*\*(?P<bold>.+?):?\*\*:?|(?P<term>[^:.]{1,60}):)\s*(?P<meaning>.*)$")
_NEW_TERM = re.compile(r"\*\*|\w[^:.!?]{0,60}:\s")
_NEW_RULE = re.compile(r"\*\*|[A-Z]{1,3}\d+(?:\.\w+)?\s")
_NEW_SAMPLE = re.compile("")
"""Each line that begins so opens an entry of its own."""
_CODE = re.compile(r"\((?P<code>[A-Z]{1,3}\d{1,2})\b[^()]*\)$")
_LEVEL = re.compile(r"[a-z0-9_-]+")
_BELOW = re.compile(
    r"^(?P<kind>Includes|Excludes|Unclear):\s*(?P<text>.+?)(?:\s*\(see (?P<goto>\w+)\))?$"
)
_EFFECTS = (*[outcome.value for outcome in Outcome], GUIDE)


def import_classifier(text: str, name: str = "policy") -> Imported:
    """Returns the pack of a classifier's prompt; `name` is its category if it has no title."""
    reader = _Reader(left=Leftovers())
    sections = read_sections(without_comments(lines_of(text), reader.left))
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
        else:
            if section.title and not section.is_plain:
                reason = "a heading in place of which a pack has its own"
                self.left.add(section.line, section.title, reason)
            if section.role == "examples":
                self.examples += read_examples(section.lines, section.first, self.left)
            elif section.role in ("goal", "scope"):
                texts = self.goal if section.role == "goal" else self.scope
                texts.append(markdown(section.entries()))
            elif section.role == "unclear":
                self.unclear += [entry.body for entry in section.entries()]
            else:
                pairs = self.terms if section.role == "definitions" else self.levels
                pairs += self._pairs(section)

    def _leave(self, section: PromptSection) -> None:
        reason = "tells the classifier how to reply, which templates do in a pack"
        if section.role == "unknown":
            reason = "a section that is neither criteria, terms nor examples"
        elif section.role == "title":
            reason = "text below the title, outside of any section"
        if section.role == "unknown" or not (section.is_plain or section.role == "title"):
            self.left.add(section.line, section.title, reason)
        for part in filter(None, (section, section.samples)):
            for number, line in enumerate(part.lines, part.first):
                self.left.add(number, line, reason)

    def _leave_entry(self, entry: Entry, reason: str) -> None:
        for number, line in each_line(entry):
            self.left.add(number, line, reason)

    def _pairs(self, section: PromptSection) -> Iterator[tuple[str, str]]:
        for entry in split(section.entries(), _NEW_TERM):
            match = _TERM.match(entry.text) if entry.kind != "block" else None
            if not match or not (match["meaning"] or entry.below):
                self._leave_entry(entry, "a line of definitions that names no term")
                continue
            name = (match["bold"] or match["term"]).strip()
            if section.role == "levels" and not _LEVEL.fullmatch(name.lower()):
                self._leave_entry(entry, "a level whose name is no single word")
                continue
            meaning = "\n".join(filter(None, (match["meaning"], markdown(entry.below))))
            yield name.lower() if section.role == "levels" else name, meaning

    def _rules(self, section: PromptSection) -> Iterator[Rule]:
        outcome = section.effect()
        for number, line in section.verdicts():
            self.left.add(number, line, "says how the classifier labels the section")
        rules = []
        if section.is_bare:
            rules = list(self._rule_each(section, outcome))
        elif section.entries() or section.samples:
            rules = [_rule_of(section, outcome)]
        else:
            self.left.add(section.line, section.title, "a heading without text below it")
        samples = section.samples.entries() if section.samples else []
        for entry in split(samples, _NEW_SAMPLE):
            if not rules or entry.kind == "block":
                self._leave_entry(entry, "an example that is code, a table or of no criteria")
                continue
            decided = rules[-1].outcome
            case = BoundaryCase(text=entry.body.replace("**", ""), outcome=decided)
            rules[-1] = replace(rules[-1], cases=(*rules[-1].cases, case))
        yield from rules

    def _rule_each(self, section: PromptSection, outcome: str) -> Iterator[Rule]:
        entries = split(section.entries(), _NEW_RULE)
        has_items = any(entry.kind == "item" for entry in entries)
        for entry in entries:
            if has_items and entry.kind == "text" and entry.text.endswith(":"):
                self._leave_entry(entry, "introduces a list")
            else:
                yield _rule(entry, outcome, section.title)

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


def _rule(entry: Entry, outcome: str, heading: str) -> Rule:
    """Returns the rule of one entry below a heading that names no more than the outcome."""
    if entry.kind == "block":
        return _made(heading, entry.text, outcome)
    text, level, rule_id, title = entry.text, "", "", ""
    match = _ENTRY.match(text) or _CODED.match(text)
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
    return replace(_made(title, text, outcome, entry.below), id=rule_id, level=level)


def _rule_of(section: PromptSection, outcome: str) -> Rule:
    """Returns the one rule of a section whose heading is its title."""
    code = _CODE.search(section.title)
    rule = _made(section.title, "", outcome, section.entries())
    return replace(rule, id=code["code"] if code else "")


def _made(title: str, text: str, outcome: str, below: Sequence[Entry] = ()) -> Rule:
    """Returns a rule whose further text and items are the entries below it."""
    excludes, unclear, includes = [], [], []
    for entry in below:
        if entry.kind != "item":
            continue
        # Bold words would be terms that nothing defines.
        body = entry.body.replace("**", "")
        part = _BELOW.match(entry.text)
        if part and part["kind"] == "Excludes":
            excludes.append(Exclusion(text=part["text"] + nested(entry), goto=part["goto"]))
        elif part and part["kind"] == "Unclear":
            unclear.append(part["text"] + nested(entry))
        else:
            includes.append(body.removeprefix("Includes: "))
    others = markdown([entry for entry in below if entry.kind != "item"])
    return Rule(
        id="",
        title=title,
        outcome=None if outcome == GUIDE else Outcome(outcome),
        text="\n\n".join(filter(None, (text, others))) or title,
        includes=tuple(includes),
        excludes=tuple(excludes),
        unclear=tuple(unclear),
    )


def _numbered(rules: Sequence[Rule], prefix: str) -> list[Rule]:
    """Returns the rules with an id each; those that the prompt gave stay, the first of each."""
    taken: set[str] = {rule.id for rule in rules}
    named: set[str] = set()
    numbered = []
    for rule in rules:
        rule_id = rule.id if rule.id and rule.id not in named else free_id(prefix, taken)
        named.add(rule_id)
        taken.add(rule_id)
        numbered.append(replace(rule, id=rule_id))
    return numbered
