"""Texts of other documents → Markdown of a policy file, which the pack reader takes for the same
words and for no structure."""

import json
import re
from collections.abc import Iterable, Sequence

from markdown_it import MarkdownIt

from specs.blocks import Block, read_blocks
from specs.policy import Example, Pack, Policy, Rule
from specs.rules import EARLY_TARGET, LIKE_A_TURN, LIKE_AN_ITEM, UNLISTED

_LAZY = re.compile(r"(?![-*+]\s|\d+[.)]\s)\S")
"""Begins a line that is neither a list item nor set in below one."""
_PARSER = MarkdownIt("commonmark").enable("table").disable("reference")


def prose(text: str) -> str:
    """Returns Markdown in which whatever the pack reader would refuse, or take for a part of a
    rule, is put between fences."""
    return _safe(text, is_verbatim=False)


def plain(text: str) -> str:
    """Returns a text that is no Markdown as such: as `prose`, and its lines stay lines."""
    return _safe(text, is_verbatim=True)


def _safe(text: str, *, is_verbatim: bool) -> str:
    if not text.strip():
        return ""
    lines = text.strip("\n").split("\n")
    chunks: list[tuple[bool, list[str]]] = []
    for kind, start, end in _chunks(lines):
        part = lines[start:end]
        is_safe = _is_text(part, is_verbatim=is_verbatim)
        if is_verbatim and kind == "paragraph_open":
            part = [line for line in part if line.strip()]
            # Lines of one paragraph would be joined.
            is_safe = all(_is_text([line], is_verbatim=True, kind="text") for line in part)
            part = "\n\n".join(part).split("\n") if is_safe else lines[start:end]
        elif is_verbatim and (kind == "blockquote_open" or any(map(_LAZY.match, part))):
            # The marks of a quotation would be dropped, and such lines joined to an item.
            is_safe = is_safe and kind in ("fence", "table_open")
        if chunks and not is_safe and not chunks[-1][0]:
            # Neighbours share a fence, with the blank lines between them.
            chunks[-1][1].extend(part)
        else:
            chunks.append((is_safe, list(part)))
    return "\n\n".join(
        _stripped(part) if is_safe else fenced(_stripped(part)) for is_safe, part in chunks
    )


def fenced(text: str) -> str:
    """Returns a text between fences that it does not hold itself."""
    ticks = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}\n{text}\n{fence}"


def _stripped(lines: Sequence[str]) -> str:
    return "\n".join(lines).strip("\n")


def _chunks(lines: Sequence[str]) -> Iterable[tuple[str, int, int]]:
    """Yields the blocks of a text: the kind, the first line and the end; each begins where the one
    before ends."""
    blocks = [token for token in _PARSER.parse("\n".join(lines)) if token.level == 0 and token.map]
    ends = [token.map[0] for token in blocks[1:] if token.map] + [len(lines)]
    start = 0
    for token, end in zip(blocks, ends, strict=True):
        yield token.type, start, end
        start = end


def _is_text(lines: Sequence[str], *, is_verbatim: bool, kind: str = "") -> bool:
    """Returns True of lines that the pack reader takes for text, and for one of this kind."""
    faults: list[int] = []
    blocks = read_blocks(lines, 1, lambda line, *_: faults.append(line))
    if faults or not blocks or (kind and [block.kind for block in blocks] != [kind]):
        return False
    return not any(_is_part(block, is_verbatim=is_verbatim) for block in blocks)


def _is_part(block: Block, *, is_verbatim: bool) -> bool:
    """Returns True of a heading, and of a label of a rule's item or of an example's turn."""
    if block.kind == "item" and LIKE_AN_ITEM.search(block.text):
        return True
    lines = block.written or (block.text,)
    labels = [UNLISTED, LIKE_A_TURN] if is_verbatim else [UNLISTED]
    return block.kind in ("h1", "h2", "h3") or (
        block.kind in ("text", "item") and any(x.match(line) for x in labels for line in lines)
    )


def file_of(category: str) -> str:
    """Returns the name of a policy's file; `style.md` is taken, and no category has a hyphen."""
    return f"{category}.md" if category != "style" else "style-policy.md"


def style_file(pack: Pack) -> str:
    """Returns the text of a pack's style.md."""
    parts = [_front({"id": pack.id, "title": pack.title, "version": pack.version})]
    parts += ["# Principles", prose(pack.principles)]
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
        parts += [f"# {heading}", prose(text)] if text else []
    for heading, pairs in (("Terms", policy.terms), ("Levels", policy.levels)):
        if pairs:
            items = [_item(f"**{name}**: {meaning}") for name, meaning in pairs]
            parts += [f"# {heading}", "\n".join(items)]
    parts.append("# Rules")
    for rule in policy.rules:
        parts += _rule(rule)
    if policy.unclear:
        parts += ["# When unclear", "\n".join(map(_item, policy.unclear))]
    return "\n\n".join(parts) + "\n"


def _front(values: dict[str, str]) -> str:
    lines = [f"{key}: {_value(text)}" for key, text in values.items()]
    return "\n".join(["---", *lines, "---"])


def _value(text: str) -> str:
    """Returns a value of front matter on one line, quoted where YAML would read it otherwise."""
    text = " ".join(text.split())
    is_bare = re.fullmatch(r"[\w(][^#:\"'{}\[\]]*", text)
    return text if is_bare else json.dumps(text, ensure_ascii=False)


def _item(text: str, *nested: str) -> str:
    """Returns a list item; further lines of the text, and nested items, are set in below it."""
    first, _, rest = text.partition("\n")
    others = [*(["", *prose(rest).split("\n")] if rest.strip() else []), *nested]
    return "\n".join([f"- {first}", *(f"  {line}" if line else "" for line in others)])


def _rule(rule: Rule) -> list[str]:
    marks = ", ".join(filter(None, (rule.effect, rule.level, rule.authority)))
    # A title with "]:" would end where a model sees the marks end.
    title = rule.title.replace("]:", "] :")
    parts = [f"## {rule.id} {title} ({marks})", prose(rule.text)]
    items = [_item(f"Includes: {text}") for text in rule.includes]
    for exclusion in rule.excludes:
        # Before the end, an arrow with an id would be a target in the wrong place.
        text = EARLY_TARGET.sub(lambda match: match[0].lstrip("-=>→⇒ "), exclusion.text)
        target = f" -> {exclusion.goto}" if exclusion.goto else ""
        items.append(_item(f"Excludes: {text}{target}"))
    for case in rule.cases:
        target = f" -> {case.outcome}" if case.outcome else ""
        because = [f"- Because: {case.because}"] if case.because else []
        items.append(_item(f"Case: {case.text}{target}", *because))
    items += [_item(f"Unclear: {text}") for text in rule.unclear]
    if items:
        parts.append("\n".join(items))
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
