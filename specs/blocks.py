"""The body of a Markdown file → blocks → the text of a spec, with every word or a fault.

Whatever Markdown would hide or drop (comments, link definitions, HTML, indented code, cells beyond
a table's header) is a fault with its line, so that no word is lost on the way to a model.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

Fault = Callable[[int, str, str], None]
"""Takes a line, what is wrong with it, and the remedy."""
ODD_BREAK = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Characters that end a line to YAML or to a model, and not in a text editor."""
COMMENT = re.compile("<!--|-->")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a page: a heading, a paragraph, a list item, a table or fenced code."""

    kind: Literal["h1", "h2", "h3", "text", "item", "table", "code"]
    """`h3` is a heading of level 3 or deeper; `item` any paragraph of a list item."""
    text: str
    """One line, and with its number that of an ordered list; a line a row of a table and a line a
    line of code."""
    line: int
    """Line in the file, from 1."""
    depth: int = 0
    """Lists that it stands in."""
    marker: str = ""
    """`- ` for the first paragraph of a bullet item, `1. ` of a numbered one."""
    written: tuple[str, ...] = ()
    """The lines of a paragraph as they stand in the file."""


def read_blocks(lines: Sequence[str], first: int, fault: Fault) -> tuple[Block, ...]:
    """Returns the blocks of a body whose first line has this number."""
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    tokens = parser.parse("\n".join(lines))
    blocks = []
    for block in _Reader(lines, first, fault).blocks(tokens):
        found = _fault_of_text(block)
        if found:
            fault(*found)
        else:
            blocks.append(block)
    _refuse_lost_lines(tokens, lines, first, fault)
    return tuple(blocks)


def one_line(blocks: Sequence[Block]) -> str:
    """Returns paragraphs and flat lists as one line; a nested list, a table or code lays the text
    out in lines."""
    if all(block.kind in ("text", "item") and block.depth < 2 for block in blocks):
        return " ".join(block.text for block in blocks)
    return layout(blocks)


def layout(blocks: Sequence[Block], *, base: int = 0, joined: bool = True) -> str:
    """Returns a text of lines: first its opening paragraphs, then lists, tables and code.

    The first line is empty if the text opens with a list. An item stands two spaces deeper than the
    item that it is in; `base` is the depth of the whole. Paragraphs that follow each other share a
    line if they are `joined`.
    """
    lines = [""]
    open_depth: int | None = base
    for block in blocks:
        depth = block.depth - base
        if block.kind in ("table", "code"):
            indent = "  " * depth
            lines += [indent + line if line else "" for line in block.text.split("\n")]
            open_depth = None
        elif block.marker:
            bullet = "- " if block.marker == "- " else ""
            lines.append("  " * (depth - 1) + bullet + block.text)
            open_depth = block.depth
        elif open_depth == block.depth and (joined or lines == [""]):
            lines[-1] = f"{lines[-1]} {block.text}" if lines[-1] else block.text
        else:
            lines.append("  " * depth + block.text)
            open_depth = block.depth
    return "\n".join(lines)


def item_text(head: Block, text: str, nested: Sequence[Block]) -> str:
    """Returns an item's text, of which `text` is the head's, with what is nested in it."""
    return layout([replace(head, text=text, marker=""), *nested], base=head.depth)


_HIDDEN = {
    "code_block": ("indented code", "write it between lines of ```, or without indentation"),
    "html_block": ("HTML, which no model would be shown", "write it as a paragraph"),
}
"""Tokens of markdown-it that have no place in a spec, and the remedy."""
_LINK_DEFINITION = re.compile(r"\[[^\]]+\]:")
_FENCE_RUN = re.compile("`{3,}")


class _Reader:
    """Walks over the tokens of a body."""

    def __init__(self, lines: Sequence[str], first: int, fault: Fault) -> None:
        self.lines = lines
        self.first = first
        self.fault = fault
        self.depth = 0
        self.marker = ""
        self.number = ""

    def blocks(self, tokens: Sequence[Token]) -> Iterator[Block]:
        heading = ""
        rest = iter(tokens)
        for token in rest:
            line = (token.map[0] if token.map else 0) + self.first
            if token.type == "heading_open":
                heading = "" if token.level else token.tag
                if token.level:
                    fault = "a heading within a list item or a quotation"
                    self.fault(line, fault, "write it as a sentence")
            elif token.type == "list_item_open":
                self.depth += 1
                # The number of an ordered list is a word that another line may point to.
                self.number += f"{token.info}{token.markup} " if token.info else ""
                self.marker = f"{token.info}{token.markup} " if token.info else "- "
            elif token.type == "list_item_close":
                self.depth -= 1
                self.number = self.marker = ""
            elif token.type in _HIDDEN:
                self.fault(line, *_HIDDEN[token.type])
            elif token.type == "fence":
                yield from self._number_alone(line)
                yield Block("code", self._code(token, line), line, self.depth)
            elif token.type == "table_open":
                yield from self._number_alone(line)
                yield Block("table", self._table(rest), line, self.depth)
            elif token.type == "inline":
                yield self._inline(token, line, heading)
                heading = ""

    def _inline(self, token: Token, line: int, heading: str) -> Block:
        text = " ".join(token.content.split())
        if heading:
            kind: Literal["h1", "h2", "h3"] = (
                "h1" if heading == "h1" else "h2" if heading == "h2" else "h3"
            )
            block = Block(kind, self.number + text, line)
        else:
            written = tuple(" ".join(part.split()) for part in token.content.split("\n"))
            block = Block(
                "item" if self.depth else "text",
                self.number + text,
                line,
                self.depth,
                self.marker,
                written,
            )
        self.number = self.marker = ""
        return block

    def _number_alone(self, line: int) -> Iterator[Block]:
        """Yields the number of an item that begins with a table or code."""
        if self.number:
            yield Block("item", self.number.strip(), line, self.depth, self.marker)
        self.number = self.marker = ""

    def _code(self, token: Token, line: int) -> str:
        """Returns fenced code, between fences that no line of it can be."""
        assert token.map is not None
        last = self.lines[token.map[1] - 1].rstrip()
        is_closed = token.map[1] - token.map[0] > 1 and re.search(
            rf"(?:^|[\s>]){re.escape(token.markup)}{re.escape(token.markup[0])}*$", last
        )
        if not is_closed:
            self.fault(line, "fenced code that never ends", f"end it with {token.markup}")
        content = ODD_BREAK.sub(" ", token.content.removesuffix("\n"))
        runs = _FENCE_RUN.findall(content)
        fence = "`" * max([3, *(len(run) + 1 for run in runs)])
        lines = [line.rstrip() for line in content.split("\n")]
        return "\n".join([fence + " ".join(token.info.split()), *lines, fence])

    def _table(self, tokens: Iterator[Token]) -> str:
        """Returns the rows of a table whose opening was the last token taken."""
        rows: list[list[str]] = []
        for token in tokens:
            if token.type == "table_close":
                break
            if token.type == "tr_open":
                rows.append([])
                place = token.map
            elif token.type == "inline":
                rows[-1].append(" ".join(token.content.split()))
            elif token.type == "tr_close" and len(rows) > 1 and place:
                lost = _signs(self.lines[place[0]]) - _signs("".join(rows[-1]))
                if lost:
                    self.fault(
                        place[0] + self.first,
                        "a table row with more cells than the header, which Markdown would drop",
                        "give the header a cell for each, or write '\\|' within one",
                    )
        escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
        lines = [f"| {' | '.join(row)} |" for row in escaped]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _signs(row: str) -> Counter[str]:
    """Returns the characters of a row's cells; a lone sign such as a tick is a cell too."""
    return Counter(re.sub(r"^[\s>]+|[\s|\\]", "", row))


def _fault_of_text(block: Block) -> tuple[int, str, str] | None:
    """Returns the line of a fault in a block's text, the fault and the remedy, or None."""
    comment = COMMENT.search(block.text)
    if comment:
        line = block.line + block.text.count("\n", 0, comment.start())
        return line, "an HTML comment, which a model would be shown", "take it out of the file"
    if block.kind not in ("table", "code") and _LINK_DEFINITION.match(block.text):
        return (
            block.line,
            f"a link definition, which Markdown hides: {block.text!r}",
            "write it as a sentence that does not begin with '[…]:'",
        )
    return None


_SHOWN = ("inline", "fence", "table_open", *_HIDDEN)


def _refuse_lost_lines(
    tokens: Sequence[Token], lines: Sequence[str], first: int, fault: Fault
) -> None:
    """Adds a fault for each line that has words and is in no block, such as a list that is nested
    deeper than the parser goes."""
    kept: set[int] = set()
    for token in tokens:
        if token.map and token.type in _SHOWN:
            kept.update(range(*token.map))
    for index, line in enumerate(lines):
        if index not in kept and re.search(r"\w", line):
            fault(
                first + index,
                f"a line that Markdown would drop: {line.strip()!r}",
                "write it as a paragraph or a list item that is nested less deep",
            )
