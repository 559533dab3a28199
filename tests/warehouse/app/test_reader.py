"""A chain is shown whole, its citations are marked, and what may be harmful is folded."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.hostile import hostile_texts, is_plain
from warehouse.app.reader import chain_page, marked, pair_page, rollout_page

TURN = {"role": "user", "content": "How do I use the ferry?"}


def chain(**changes: Any) -> dict[str, Any]:
    row = {
        "completion_id": "c",
        "ideal_response": "comply",
        "cited": ["B1"],
        "cited_unknown": ["B12"],
        "messages": [TURN],
        "reasoning": "Rule B1 and B12 hold.",
        "answer": "Take the skiff.",
    }
    return {**row, **changes}


def judged(score: float | None, **changes: Any) -> dict[str, Any]:
    row = {
        "model": "judge@1",
        "criterion": None,
        "sample_index": 0,
        "score": score,
        "criteria": [],
        "status": "ok" if score is not None else "no_verdict",
        "reason": None if score is not None else "the reply has no score",
        "rationale": f"worth {score}",
    }
    return {**row, **changes}


class Seen(HTMLParser):
    """The tags and the text of a page, and the text that is folded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.folded = ""
        self._depth = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self._depth += tag == "details"

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "details"

    def handle_data(self, data: str) -> None:
        self.text += data
        self.folded += data if self._depth else ""


def test_citations_are_marked_with_the_words_of_their_rules() -> None:
    html = marked("B1, (B1) and B12; not B11 or AB1.", ["B1"], ["B12"], {"B1": 'raft: "refuse"'})
    assert re.findall(r"<mark[^>]*>(.*?)</mark>", html) == ["B1", "B1", "B12"]
    assert html.count('title="raft: &quot;refuse&quot;"') == 2
    assert html.count('class="invented"') == 1
    assert Seen(html).text == "B1, (B1) and B12; not B11 or AB1."


def test_a_chain_is_shown_in_the_order_in_which_it_is_read() -> None:
    rows = [judged(3), judged(9), judged(None)]
    text = Seen(chain_page(chain(), rows, {}, shown=False)).text
    parts = ["How do I", "Rule B1", "Take the skiff", "score 3", "score 9", "no score"]
    assert sorted(parts, key=text.index) == parts
    assert "no_verdict: the reply has no score" in text


@pytest.mark.parametrize("ideal", ["refuse", "safe_complete", "unknown"])
def test_texts_of_harmful_prompts_are_folded_until_asked_for(ideal: str) -> None:
    row = chain(ideal_response=ideal)
    seen = Seen(chain_page(row, [judged(3)], {}, shown=False))
    for text in ("How do I", "Rule B1", "Take the skiff", "worth 3"):
        assert seen.text.count(text) == seen.folded.count(text) == 1
    assert "details" not in Seen(chain_page(row, [judged(3)], {}, shown=True)).tags
    assert "details" not in Seen(chain_page(chain(), [], {}, shown=False)).tags
    pair = pair_page(row, [chain(), chain()], shown=False)
    assert Seen(pair).folded.count("Take the skiff") == Seen(pair).text.count("Take the skiff") == 2
    assert Seen(rollout_page(row, shown=False)).folded.count("How do I") == 1


def test_no_text_of_the_data_is_obeyed() -> None:
    plain = Seen(chain_page(chain(), [judged(3)], {}, shown=False)).tags
    for text in hostile_texts(120):
        row = chain(
            reasoning=text, answer=text, cited=[text], messages=[{"role": text, "content": text}]
        )
        html = chain_page(row, [judged(3, rationale=text, model=text)], {text: text}, shown=False)
        assert Seen(html).tags <= plain
        assert is_plain(html)
