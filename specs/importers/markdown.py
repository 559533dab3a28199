"""Texts of other documents → Markdown of a policy file, which the pack reader takes for the same
words and for no structure."""

import json
import re
from collections.abc import Iterable, Sequence

from markdown_it import MarkdownIt

from specs.policy import Example, Pack, Policy, Rule

_PARSER = MarkdownIt("commonmark").enable("table").disable("reference")
_LABEL = re.compile(
    r"(?:(?:[-*+]|\d+[.)])\s+)?(?:(?:good |bad )?answers?|systems?|developers?|users?|assistants?"
    r"|because|includ\w*|inclus\w*|exclud\w*|exclus\w*|cases?|unclear|examples?):",
    re.IGNORECASE,
)
"""What begins a part of a rule or of an example."""
_DEFINITION = re.compile(r"\s*\[[^\]]+\]:")
"""Begins a link definition, which Markdown hides."""
_COMMENT = re.compile("<!--|-->")


def plain(text: str) -> str:
    """Returns a text as paragraphs, lists and fences: whatever else Markdown would make of its
    lines (headings, HTML, joined lines) is put between fences."""
    lines = text.strip("\n").split("\n")
    chunks: list[tuple[bool, list[str]]] = []
    for is_plain, start, end in _chunks(lines):
        part = lines[start:end]
        if is_plain and _PARSER.parse("\n".join(part))[0].type == "paragraph_open":
            # Lines of one paragraph would be joined.
            part = "\n\n".join(part).split("\n")
        if chunks and not is_plain and not chunks[-1][0]:
            # Neighbours share a fence, with the blank lines between them.
            chunks[-1][1].extend(part)
        else:
            chunks.append((is_plain, list(part)))
    return "\n\n".join(
        _stripped(part) if is_plain else fenced(_stripped(part)) for is_plain, part in chunks
    )


def fenced(text: str) -> str:
    """Returns a text between fences that it does not hold itself."""
    ticks = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}\n{text}\n{fence}"


def _stripped(lines: Sequence[str]) -> str:
    return "\n".join(lines).strip("\n")


def _chunks(lines: Sequence[str]) -> Iterable[tuple[bool, int, int]]:
    """Yields the blocks of a text: whether it can stand as it is, its first line and its end; each
    begins where the one before ends."""
    blocks = [token for token in _PARSER.parse("\n".join(lines)) if token.level == 0 and token.map]
    ends = [token.map[0] for token in blocks[1:] if token.map] + [len(lines)]
    start = 0
    for token, end in zip(blocks, ends, strict=True):
        part = [line for line in lines[start:end] if line.strip()]
        is_plain = not any(_LABEL.match(line.strip()) or _COMMENT.search(line) for line in part)
        if token.type == "paragraph_open":
            is_plain = is_plain and all(map(_is_line, part))
        else:
            kinds = ("bullet_list_open", "ordered_list_open", "fence", "table_open")
            is_plain = is_plain and token.type in kinds and _is_flat(part, token.type)
        yield is_plain, start, end
        start = end


def _is_line(line: str) -> bool:
    """Returns True of a line that is a paragraph when it stands alone."""
    tokens = _PARSER.parse(line)
    is_paragraph = bool(tokens) and tokens[0].type == "paragraph_open"
    return is_paragraph and not _DEFINITION.match(line)


def _is_flat(part: Sequence[str], kind: str) -> bool:
    """Returns True of a list each line of which begins an item, and of every other block."""
    return not kind.endswith("list_open") or all(
        re.match(r"\s{0,3}(?:[-*+]|\d+[.)])\s", line) for line in part
    )


def file_of(category: str) -> str:
    """Returns the name of a policy's file; `style.md` is taken."""
    return f"{category}.md" if category != "style" else "style_policy.md"


def style_file(pack: Pack) -> str:
    """Returns the text of a pack's style.md."""
    parts = [_front({"id": pack.id, "title": pack.title, "version": pack.version})]
    parts += ["# Principles", pack.principles]
    if pack.authorities:
        items = [_item(f"{name}: {meaning}") for name, meaning in pack.authorities]
        parts += ["# Authority", "\n".join(items)]
    for outcome, text in pack.style.items():
        parts += [f"# {outcome}", text]
    return "\n\n".join(parts) + "\n"


def policy_file(policy: Policy) -> str:
    """Returns the text of the file of a policy, whose texts are Markdown."""
    front = {"id": policy.id, "title": policy.title, "version": policy.version}
    front |= {"authority": policy.authority} if policy.authority else {}
    parts = [_front(front | {str(key): text for key, text in policy.summary.items()})]
    for heading, text in (("Goal", policy.goal), ("Scope", policy.scope)):
        parts += [f"# {heading}", text] if text else []
    for heading, pairs in (("Terms", policy.terms), ("Levels", policy.levels)):
        if pairs:
            items = [_item(f"**{name}**: {meaning}") for name, meaning in pairs]
            parts += [f"# {heading}", "\n".join(items)]
    parts.append("# Rules")
    for rule in policy.rules:
        parts += _rule(rule)
    if policy.unclear:
        parts += ["# When unclear", "\n".join(map(_item, policy.unclear))]
    parts += ["# Style", policy.style] if policy.style else []
    return "\n\n".join(parts) + "\n"


def _front(values: dict[str, str]) -> str:
    lines = [f"{key}: {_value(text)}" for key, text in values.items()]
    return "\n".join(["---", *lines, "---"])


def _value(text: str) -> str:
    """Returns a value of front matter on one line, quoted where YAML would read it otherwise."""
    text = " ".join(text.split())
    is_bare = re.fullmatch(r"[\w(][^#:\"'{}\[\]]*", text)
    return text if is_bare else json.dumps(text, ensure_ascii=False)


def _item(text: str) -> str:
    """Returns a list item; further lines of the text are set in below it."""
    first, *others = text.split("\n")
    return "\n".join([f"- {first}", *(f"  {line}" if line else "" for line in others)])


def _rule(rule: Rule) -> list[str]:
    marks = ", ".join(filter(None, (rule.effect, rule.level, rule.authority)))
    parts = [f"## {rule.id} {rule.title} ({marks})", rule.text]
    items = [f"Includes: {text}" for text in rule.includes]
    items += [
        f"Excludes: {item.text}" + (f" -> {item.goto}" if item.goto else "")
        for item in rule.excludes
    ]
    for case in rule.cases:
        target = f" -> {case.outcome}" if case.outcome else ""
        because = f"\n- Because: {case.because}" if case.because else ""
        items.append(f"Case: {case.text}{target}{because}")
    items += [f"Unclear: {text}" for text in rule.unclear]
    if items:
        parts.append("\n".join(map(_item, items)))
    for example in rule.examples:
        parts += _example(example, rule.effect)
    return parts


def _example(example: Example, effect: str) -> list[str]:
    parts = [f"### Example: {example.title} ({example.outcome or effect})"]
    for label, text in (*example.turns, ("Because", example.because)):
        if text:
            # A fence or a list that opens a turn stands below its label.
            joint = " " if not re.match(r"```|[-*+] |\d+[.)] |\|", text) else "\n\n"
            parts.append(f"{label}:{joint}{text}")
    return parts
