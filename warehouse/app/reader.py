"""Chains, pairs and rollouts as HTML: texts whole, citations marked, harmful text folded.

No text of the data is ever markup: each is escaped, and its control characters are made visible.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from warehouse.app.snapshot import Session
from warehouse.catalog import QuestionError
from warehouse.characters import visible
from warehouse.reviews import reviews_of
from warehouse.tables import Review

Row = Mapping[str, Any]

FOLDED = "Folded: the ideal response to this prompt is {}. Click to show the text."


def is_harmful(ideal_response: str | None) -> bool:
    """Returns True unless the ideal response to a prompt is known to be `comply`."""
    return ideal_response != "comply"


def page_of_chain(session: Session, row: Row, *, shown: bool) -> str:
    """Returns one completion of a list whole, with its judgements and what people said of it."""
    return _read(lambda: _page_of_chain(session, row, shown))


def page_of_pair(session: Session, pair: Row, *, shown: bool) -> str:
    """Returns the two replies of a row of `pairs` beside each other."""
    return _read(lambda: _page_of_pair(session, pair, shown))


def page_of_rollout(session: Session, rollout_id: str, *, shown: bool) -> str:
    """Returns one rollout of a training whole."""

    def page() -> str:
        [row] = session.rows("rollout", rollout_id=rollout_id)
        return rollout_page(row, shown=shown)

    return _read(page)


def line(sentence: str) -> str:
    """Returns a sentence as HTML."""
    return f"<p>{_plain(sentence)}</p>"


def _read(page: Callable[[], str]) -> str:
    """Returns a page, or the sentence that says why its texts cannot be read."""
    try:
        return page()
    except QuestionError as error:
        return line(str(error))


def _page_of_chain(session: Session, row: Row, shown: bool) -> str:
    found = session.rows("chain", completion_id=row["completion_id"])
    if not found:
        return line("This completion was made again since the page was read: press Read again.")
    [chain] = found
    judgements = session.rows(
        "chain_judgements", completion_id=chain["completion_id"], text_id=chain["text_id"]
    )
    # Other reviews would sway the reviewer.
    is_queued = "why" in row
    reviews = [] if is_queued else reviews_of(session.catalog(), chain["completion_id"])
    findings = session.rows(
        "chain_findings", completion_id=chain["completion_id"], text_id=chain["text_id"]
    )
    facts = {"why": row["why"]} if is_queued else {}
    facts |= {f"monitor: {name}": value for one in findings for name, value in one.items()}
    return chain_page(
        {**facts, **chain, "reviews": [_review(review) for review in reviews]},
        judgements,
        session.rule_texts(chain["cited"]),
        shown=shown,
    )


def _page_of_pair(session: Session, pair: Row, shown: bool) -> str:
    sides = [
        session.rows("reply", reply_id=pair[name], place=pair["place"])[0]
        for name in ("left_id", "right_id")
    ]
    asked = ("suite", "attack", "category", "ideal_response", "language", "difference")
    prompt = {name: pair[name] for name in asked} | {"messages": sides[0]["messages"]}
    grades = [pair["grade_left"], pair["grade_right"]]
    replies = [
        {"grade": grade, **{name: value for name, value in side.items() if name not in prompt}}
        for grade, side in zip(grades, sides, strict=True)
    ]
    return pair_page(prompt, replies, shown=shown)


def rule_block(rule_id: str, text: str) -> str:
    """Returns the text of a rule under its id."""
    return _block(rule_id, _plain(text))


def chain_page(
    row: Row, judgements: Sequence[Row], rules: Mapping[str, str], *, shown: bool
) -> str:
    """Returns one completion: facts, conversation, reasoning, answer, and judgements as given.

    `rules` has the texts of rules, which citations show when pointed at. Unless `shown`, the texts
    of a harmful prompt are folded.
    """
    texts = [
        *_turns(row["messages"]),
        _block("reasoning", marked(row["reasoning"], row["cited"], row["cited_unknown"], rules)),
        _block("answer", _plain(row["answer"])),
        *(_judgement(judgement) for judgement in judgements),
    ]
    return _facts(row) + _folded("".join(texts), row["ideal_response"], shown=shown)


def pair_page(prompt: Row, sides: Sequence[Row], *, shown: bool) -> str:
    """Returns one prompt with the replies of two models beside each other."""
    columns = "".join(
        f'<div class="side">{_facts(side)}'
        + _block("reasoning", marked(side["reasoning"], side["cited"], side["cited_unknown"], {}))
        + _block("answer", _plain(side["answer"]))
        + "</div>"
        for side in sides
    )
    texts = "".join(_turns(prompt["messages"])) + f'<div class="sides">{columns}</div>'
    facts = {name: value for name, value in prompt.items() if name != "messages"}
    return _facts(facts) + _folded(texts, prompt["ideal_response"], shown=shown)


def rollout_page(row: Row, *, shown: bool) -> str:
    """Returns one rollout of a training: facts, conversation, reasoning and answer."""
    texts = [
        *_turns(row["messages"]),
        _block("reasoning", _plain(row["reasoning"])),
        _block("answer", _plain(row["answer"])),
    ]
    return _facts(row) + _folded("".join(texts), row["ideal_response"], shown=shown)


def marked(
    text: str, cited: Iterable[str], unknown: Iterable[str], rules: Mapping[str, str]
) -> str:
    """Returns a text as HTML with the ids of cited rules marked, those of no rule otherwise."""
    invented = set(unknown)
    ids = sorted({*cited, *invented}, key=len, reverse=True)
    if not ids:
        return _plain(text)
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, ids))})(?!\w)")
    pieces = pattern.split(text)
    return "".join(
        _mark(piece, piece in invented, rules) if number % 2 else _plain(piece)
        for number, piece in enumerate(pieces)
    )


def _mark(rule_id: str, is_invented: bool, rules: Mapping[str, str]) -> str:
    if is_invented:
        return f'<mark class="invented" title="No rule has this id.">{_plain(rule_id)}</mark>'
    title = f' title="{_plain(rules[rule_id])}"' if rules.get(rule_id) else ""
    return f"<mark{title}>{_plain(rule_id)}</mark>"


def _turns(messages: Sequence[Row] | None) -> list[str]:
    if messages is None:
        return [line("The warehouse lacks the prompt.")]
    return [_block(turn["role"], _plain(turn["content"] or "")) for turn in messages]


def _review(review: Review) -> str:
    note = f": {review.note}" if review.note else ""
    return f"{review.decision} by {review.reviewer}{note}"


def _judgement(row: Row) -> str:
    """Returns a judgement as a block: who gave which score, and the rationale."""
    score = "no score" if row["score"] is None else f"score {row['score']:g}"
    about = f" on {row['criterion']}" if row["criterion"] else ""
    title = f"{score}{about} · {row['model']} · sample {row['sample_index']}"
    if row["score"] is None:
        title += f" · {row['status']}: {row['reason'] or 'no reason is given'}"
    criteria = ", ".join(f"{one['criterion']} {one['score']:g}" for one in row["criteria"] or ())
    return _block(
        title, _plain(f"{criteria}\n{row['rationale']}" if criteria else row["rationale"])
    )


def _block(title: str, html: str) -> str:
    return f'<section class="text"><h4>{_plain(title)}</h4><pre>{html}</pre></section>'


def _folded(html: str, ideal_response: str | None, *, shown: bool) -> str:
    if shown or not is_harmful(ideal_response):
        return html
    told = escape(FOLDED.format(ideal_response or "unknown"))
    return f'<details class="folded"><summary>{told}</summary>{html}</details>'


_TEXTS = {"messages", "reasoning", "answer", "original"}


def _facts(row: Row) -> str:
    """Returns the columns of a row that hold no text, as a list of names and values."""
    facts = "".join(
        f"<div><dt>{_plain(name.replace('_', ' '))}</dt><dd>{_plain(_value(value))}</dd></div>"
        for name, value in row.items()
        if name not in _TEXTS and value is not None and value != []
    )
    return f'<dl class="facts">{facts}</dl>'


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return " ".join(map(_value, value.values()))
    return str(value)


def _plain(text: str) -> str:
    return escape(visible(text))
