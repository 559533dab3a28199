"""A person's review of completions: shows one after the other, asks, and stores what is said.

What may be harmful is folded until it is asked for: every completion of a prompt that is not known
to deserve compliance. What other people said of a completion is never shown.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import click
import duckdb
import pyarrow as pa

from flows import show, terminal
from flows.row import print_row
from flows.show import SHORT_ID
from warehouse.home import Home
from warehouse.reviews import Decision, Queue, QueueRow, ReviewError, add_review, queue
from warehouse.rows import NOUNS, FoundRow, find_row

_DECISIONS: dict[str, Decision] = {"a": "accept", "r": "reject", "u": "unsure"}
_KEYS = "[a]ccept [r]eject [u]nsure [n]ote [o]pen [s]kip [q]uit"
_WORDS = {word: word[0] for word in ("accept", "reject", "unsure", "note", "open", "skip", "quit")}
"""Whole words that stand for keys where lines are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One person at one warehouse."""

    home: Home
    connection: duckdb.DuckDBPyConnection
    """The warehouse as it was when the session began."""
    reviewer: str
    is_open: bool
    """True if nothing is folded."""
    home_option: str | None
    """The warehouse as the user gave it, for commands that are suggested."""
    said: Counter[str] = field(default_factory=Counter)
    """Reviews that were stored so far, by decision."""

    def queue(
        self, kind: Queue, *, rule: str | None, num_wanted: int, limit: int
    ) -> list[QueueRow]:
        """Returns what this person is to review; see `warehouse.reviews.queue`."""
        return queue(
            self.connection,
            kind,
            reviewer=self.reviewer,
            rule=rule,
            num_wanted=num_wanted,
            limit=limit,
        )

    def store(self, found: FoundRow, decision: Decision, note: str) -> None:
        """Stores what the person says of a completion, and confirms it."""
        add_review(self.home, found.row_id, found.row["text_id"], decision, self.reviewer, note)
        self.said[decision] += 1
        noted = f": {note}" if note else ""
        terminal.line(f"{decision} {found.row_id[:SHORT_ID]} by {self.reviewer}{noted}")


def print_queue(rows: Sequence[QueueRow]) -> None:
    """Prints a queue; the texts of its completions are not in it."""
    listed = ("completion_id", "category", "verdict", "scores", "num_reviews", "why")
    cells = [{name: asdict(row)[name] for name in listed} for row in rows]
    show.table(pa.Table.from_pylist(cells) if cells else pa.table({listed[0]: []}))


def review_one(session: Session, row_id: str, decision: str | None, note: str) -> None:
    """Stores a review of one completion, or shows it and asks."""
    found = find_completion(session, row_id)
    if decision is not None:
        session.store(found, decision, note)  # type: ignore[arg-type]  # checked where it is stored
    else:
        _ask_about(session, found, note)


def review_queue(session: Session, rows: Sequence[QueueRow]) -> None:
    """Shows the completions of a queue one after the other, and asks about each."""
    for number, row in enumerate(rows, 1):
        terminal.line("")
        terminal.line(f"{number} of {len(rows)}: {row.why}")
        if not _ask_about(session, find_completion(session, row.completion_id)):
            break
    if not rows:
        terminal.line(f"nothing in this queue waits for {session.reviewer}")
        return
    counted = ", ".join(f"{count} {decision}" for decision, count in session.said.items())
    option = terminal.home_option(session.home_option)
    terminal.lines(
        f"{session.said.total()} reviewed{f': {counted}' if counted else ''}",
        f"next: precept ask review_agreement{option}; the next precept refresh obeys the reviews",
    )


def find_completion(session: Session, row_id: str) -> FoundRow:
    """Returns the completion whose id starts so, without what others said of it, which would sway
    the person; raises ReviewError for a row of another kind."""
    found = find_row(session.connection, row_id)
    found.related.pop("reviews", None)
    if found.kind != "completions":
        raise ReviewError(
            f"{row_id!r} is the id of a {NOUNS[found.kind]}, and people review completions; see "
            "precept review --list"
        )
    return found


def _ask_about(session: Session, found: FoundRow, note: str = "") -> bool:
    """Shows a completion and asks until it is decided or skipped; returns False to quit."""
    if session.is_open or not may_be_harmful(found):
        print_row(found)
    else:
        _print_folded(found)
    while True:
        key, rest = _answer()
        if key in _DECISIONS:
            session.store(found, _DECISIONS[key], rest or note)
            return True
        if key == "n":
            note = rest or _line("note: ").strip()
        elif key == "o":
            print_row(found)
        elif key in ("s", "q"):
            return key == "s"


def may_be_harmful(found: FoundRow) -> bool:
    """Returns True unless the prompt of a completion is known to deserve compliance."""
    return not any(prompt["ideal_response"] == "comply" for prompt in found.related["prompt"])


def _print_folded(found: FoundRow) -> None:
    """Prints what a completion is about without a word of it."""
    about = []
    for prompt in found.related["prompt"]:
        about.append(("category", "+".join(prompt["categories"]) or "none"))
        about.append(("ideal response", prompt["ideal_response"] or "unknown"))
    terminal.heading(f"completion {found.row_id}")
    terminal.fields(
        [
            *(about or [("prompt", f"{found.row['prompt_id']}, which the warehouse lacks")]),
            ("cites", ", ".join(found.row["cited"]) or "no rule"),
            ("folded", f"{_num_characters(found.row)} characters, which may be harmful; o opens"),
        ]
    )


def _num_characters(row: dict[str, Any]) -> int:
    return len(row["reasoning"]) + len(row["answer"])


def _answer() -> tuple[str, str]:
    """Returns the key that the person chose, and what a line has after it; `q` at the end."""
    if sys.stdin.isatty():
        terminal.text(f"{_KEYS}: ", err=True, end="")
        try:
            key = click.getchar()
        except EOFError:  # Ctrl-D
            key = "q"
        terminal.line(key if key.isprintable() else "", err=True)
        return key.lower(), ""
    # Without a line, there is nobody to answer.
    word, _, rest = (_line(f"{_KEYS}: ") or "q").strip().partition(" ")
    # A sentence that happens to begin with a key's letter decides nothing.
    return _WORDS.get(word.lower(), word.lower()), rest.strip()


def _line(question: str) -> str:
    """Returns a line of the person's; an empty text at the end of what there is to read."""
    terminal.text(question, err=True, end="")
    return sys.stdin.readline()
