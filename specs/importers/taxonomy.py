"""A taxonomy, with a heading, a paragraph or a list item for each category → a skeleton pack.

Each policy has one rule; a category of a Llama Guard prompt, which says what a model should not do
and what it can do, has two.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markdown_it import MarkdownIt

from specs.importers.defaults import TO_FINISH, default_style
from specs.importers.entries import Entry, each_line, markdown, nested, read_entries, split
from specs.importers.imported import Imported, Leftovers, lines_of, without_comments
from specs.importers.markdown import file_of, policy_file
from specs.importers.names import category_of, free_id, prefix_of, rule_title, unique
from specs.policy import GUIDE, Outcome, Policy, Rule

FORMS = re.compile(r"^<BEGIN [A-Z ]*CATEGORIES>|^\s*[*-] [\"“]No [^\"”]+[\"”]: ", re.MULTILINE)
"""The lists of categories in the prompts of Llama Guard and ShieldGemma."""
MARKS = re.compile(
    r"^#+ |^[-=]+$|[*:.\"“”–—]|^\s*\d+[.)]\s|^\s*(?:should not|can):?\s*$|<!--|-->"
    r"|^</?(?:BEGIN|END) [A-Z ]*CATEGORIES>$",
    re.IGNORECASE,
)
"""The syntax of a taxonomy, between whose marks every word is in the pack or not placed."""

_BEGIN = re.compile(r"\s*<BEGIN [A-Z ]*CATEGORIES>\s*")
_END = re.compile(r"\s*<END [A-Z ]*CATEGORIES>\s*")
_SIDE = re.compile(r"\s*(?:(?P<refuse>should not)|(?P<comply>can)):?\s*", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{+\s*\w+\s*\}+|\[[A-Z_ ]+\]")
_CODED = re.compile(
    r"^(?P<code>[A-Z]{0,3}\d+): (?P<name>[^.:!?\n]{1,60})(?:[.:]?$|[.:]\s+(?P<text>\S.*)$)",
    re.DOTALL,
)
_NAMED = re.compile(
    r"^(?:(?:\*\*(?P<bold>[^*]+?)[:.]?\*\*\s*[:.–—-]?|[\"“](?P<quoted>[^\"”]+)[\"”]:)"
    r"(?:\s+(?P<text>\S.*)|$)|(?P<name>\w[^:.!?]{0,60}):\s+(?P<rest>\S.*)$)",
    re.DOTALL,
)
_NEW_ENTRY = re.compile(r"\*\*")
_ITEM = re.compile(
    r"^(?P<name>\w[^:.!?–—\n]{0,60}?)(?:\s+[–—-]\s+|\.\s+|\n)(?P<text>\S.*)$", re.DOTALL
)


@dataclass(slots=True, kw_only=True)
class _Category:
    name: str
    line: int
    num_lines: int = 1
    """Lines of its heading."""
    level: int = 0
    """That of its heading; 0 of one without."""
    is_item: bool = False
    entries: list[Entry] = field(default_factory=list)


def import_taxonomy(text: str, outcome: str = "refuse") -> Imported:
    """Returns a pack with a policy for each category, whose rule has that outcome.

    Raises ValueError if the text has no category.
    """
    left = Leftovers()
    sides: dict[int, str] = {}
    lines = _list_of(without_comments(lines_of(text), left), left, sides)
    has_codes = bool(_BEGIN.search(text)) and any(map(_CODED.match, lines))
    title, categories = _categories(lines, left, has_codes=has_codes)
    taken: set[str] = set()
    policies = [_policy(category, outcome, sides, taken) for category in categories]
    if not policies:
        raise ValueError(
            "no category; give each a paragraph 'Name: what it covers', or a heading with a "
            "paragraph below it"
        )
    outcomes = {rule.outcome for policy in policies for rule in policy.rules}
    style = default_style("taxonomy", title or "Taxonomy", [x for x in outcomes if x])
    return Imported(
        files={"style.md": style, **{file_of(one.id): policy_file(one) for one in policies}},
        not_placed=left.in_order(),
        num_sections=len(policies),
        num_rules=sum(len(policy.rules) for policy in policies),
        num_examples=0,
        to_finish=(
            TO_FINISH,
            f"each policy has one rule with the outcome {outcome}; split it into rules, and give "
            "each its outcome, what it excludes, and cases",
        ),
    )


def _list_of(lines: Sequence[str], left: Leftovers, sides: dict[int, str]) -> list[str]:
    """Returns the lines of the categories, each at its place; those of the prompt around them are
    left over, and those that say which side of a category follows are noted as `sides`."""
    marks = [number for number, line in enumerate(lines) if _BEGIN.fullmatch(line)]
    ends = [number for number, line in enumerate(lines) if _END.fullmatch(line)]
    first = marks[0] if marks else -1
    end = next((number for number in ends if number > first), len(lines))
    kept = []
    for number, line in enumerate(lines):
        side = _SIDE.fullmatch(line) if marks else None
        if not first < number < end:
            if number not in (*marks, *ends):
                left.add(number + 1, line, "text of the prompt around its categories")
        elif side:
            sides[number + 1] = side.lastgroup or ""
        is_kept = first < number < end and not side
        kept.append(line if is_kept else "")
    return kept


def _categories(
    lines: Sequence[str], left: Leftovers, *, has_codes: bool
) -> tuple[str, list[_Category]]:
    """Returns the title of the document, if it has one, and its categories: of headings and of what
    entries name, or of lines such as "S1: Violent Crimes."."""
    before, headed = _coded(lines) if has_codes else _sections(lines)
    title = ""
    named = [entry for one in headed[:1] for entry in one.entries if _name_and_text(entry)]
    is_above = len(headed) > 1 and all(one.level > headed[0].level for one in headed[1:])
    if headed and (is_above or (len(headed) == 1 and len(named) > 1)):
        top = headed.pop(0)
        title, before = top.name, before + top.entries
    categories = list(_unheaded(before, left))
    for one in headed:
        if one.entries or has_codes:
            categories.append(one)
        else:
            for number in range(one.line, one.line + one.num_lines):
                left.add(number, lines[number - 1], "a heading without a paragraph below it")
    return title, categories


def _sections(lines: Sequence[str]) -> tuple[list[Entry], list[_Category]]:
    """Returns the entries above the first heading, and a category for each heading."""
    tokens = MarkdownIt("commonmark").disable("reference").parse("\n".join(lines))
    headings = [
        (token.map, int(token.tag[1:]), inner.content)
        for token, inner in pairwise(tokens)
        if token.type == "heading_open" and token.level == 0 and token.map and inner.content
    ]
    starts = [place[0] for place, _, _ in headings] + [len(lines)]
    headed = [
        _Category(
            name=" ".join(name.split()),
            line=start + 1,
            num_lines=first - start,
            level=level,
            entries=read_entries(lines[first:end], first + 1),
        )
        for ((start, first), level, name), end in zip(headings, starts[1:], strict=True)
    ]
    return read_entries(lines[: starts[0]], 1), headed


def _coded(lines: Sequence[str]) -> tuple[list[Entry], list[_Category]]:
    """Returns the entries above the first line with a code, and a category for each such line."""
    found = [(number, match) for number, x in enumerate(lines) if (match := _CODED.match(x))]
    ends = [number for number, _ in found[1:]] + [len(lines)]
    coded = []
    for (number, match), end in zip(found, ends, strict=True):
        name = " ".join(f"{match['code']} {match['name']}".split())
        head = read_entries([match["text"] or ""], number + 1)
        entries = head + read_entries(lines[number + 1 : end], number + 2)
        coded.append(_Category(name=name, line=number + 1, level=1, entries=entries))
    return read_entries(lines[: found[0][0]], 1), coded


def _unheaded(entries: Sequence[Entry], left: Leftovers) -> Iterator[_Category]:
    """Yields the categories that entries name, each with those that follow it."""
    current: _Category | None = None
    for entry in split(entries, _NEW_ENTRY):
        named = _name_and_text(entry)
        is_item = entry.kind == "item"
        reason = "text before the first category"
        is_outside = False
        if entry.kind == "text" and _PLACEHOLDER.search(entry.text):
            named, is_outside = None, True
            reason = "a place that the prompt fills"
        elif not named and is_item and (current is None or current.is_item):
            # A list of categories may have some without a name of their own.
            named = (rule_title(entry.text), entry.text)
        elif not named and current and current.is_item:
            is_outside = True
            reason = "text outside of any category"
        if current and (named or is_outside):
            yield current
            current = None
        if named:
            current = _Category(name=named[0], line=entry.line, is_item=is_item)
            head = Entry(kind="text", text=named[1], line=entry.line)
            current.entries = [*([head] if named[1] else []), *entry.below]
        elif current:
            current.entries.append(entry)
        else:
            for number, line in each_line(entry):
                left.add(number, line, reason)
    if current:
        yield current


def _name_and_text(entry: Entry) -> tuple[str, str] | None:
    """Returns the name that an entry opens with and the words that follow; None without a name."""
    text = "\n".join(entry.written)
    coded = _CODED.match(text)
    match = _NAMED.match(text) or (_ITEM.match(text) if entry.kind == "item" else None)
    if not (coded or match) or entry.kind == "block":
        return None
    if coded:
        # "S1: Violent Crimes. Models must not …"
        name, rest = f"{coded['code']} {coded['name']}", coded["text"]
    else:
        assert match is not None
        names = match.groupdict()
        name = names.get("bold") or names.get("quoted") or names["name"]
        rest = match["text"] or names.get("rest")
    return " ".join(name.split()), " ".join((rest or "").split())


def _policy(category: _Category, outcome: str, sides: dict[int, str], taken: set[str]) -> Policy:
    """Returns the policy of a category; its ids are added to those that are taken."""
    name = category.name
    policy_id = unique(category_of(name), taken)
    taken.add(policy_id)
    allowed, own = list[Entry](), list[Entry]()
    for entry in category.entries:
        side = next((sides[n] for n in range(entry.line, category.line, -1) if n in sides), "")
        (allowed if side == Outcome.COMPLY else own).append(entry)
    rules = list[Rule]()
    for title, entries, effect in ((name, own, outcome), (f"{name}, allowed", allowed, "comply")):
        if entries or not rules:
            rule_id = free_id(prefix_of(policy_id), taken)
            taken.add(rule_id)
            rules.append(_rule(rule_id, title, entries, effect))
    effects = dict.fromkeys(rule.effect for rule in rules)
    return Policy(
        id=policy_id,
        title=name,
        version="1",
        summary={
            effect: "; ".join(rule.title for rule in rules if rule.effect == effect)
            for effect in effects
        },
        terms=(),
        rules=tuple(rules),
    )


def _rule(rule_id: str, title: str, entries: Sequence[Entry], outcome: str) -> Rule:
    text = markdown([entry for entry in entries if entry.kind != "item"])
    return Rule(
        id=rule_id,
        title=title,
        outcome=None if outcome == GUIDE else Outcome(outcome),
        text=text or title,
        includes=tuple(entry.text + nested(entry) for entry in entries if entry.kind == "item"),
    )
