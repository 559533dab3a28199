"""Tables of the page, queues of reviews, and a user's own query."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warehouse.app.test_snapshot import fill
from warehouse.app import lists, reviewing
from warehouse.app.controls import choices, filters_of, first_view
from warehouse.app.filters import Filters
from warehouse.app.reader import page_of_chain
from warehouse.app.snapshot import Session, Snapshot
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.reviews import reviews_of
from warehouse.shards import list_shards
from warehouse.tables import REVIEWS

UNREAD = """
SELECT answer || chr(27) AS answer, text_id FROM completions WHERE completion_id = 'unread'"""
FAULTY = (
    "DROP VIEW verdicts",
    "COPY runs TO 'x.csv'",
    "SELECT 1 FROM nowhere",
    "selec",
    "SELECT TIMESTAMP 'infinity'",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(str(tmp_path_factory.mktemp("listed") / "home"))
    fill(home)
    return home


@pytest.fixture(scope="module")
def snapshot(home: Home) -> Snapshot:
    return Snapshot(home)


@pytest.fixture
def session(snapshot: Snapshot) -> Iterator[Session]:
    yield snapshot.session()
    for path in list_shards(snapshot.home, REVIEWS):
        Path(path).unlink()


def ids(session: Session, order: str, **options: object) -> list[str]:
    asked = {"reviewer": "ann", "rule": None, **options}
    rows, trouble = lists.readable(session, order, **asked)  # type: ignore[arg-type]
    assert trouble == ""
    return [row["completion_id"] for row in rows]


def test_a_review_is_stored_and_leaves_the_queue_of_its_reviewer(session: Session) -> None:
    before = ids(session, "to review: random")
    assert len(before) == 4  # what failed has no text to review
    row = {"completion_id": before[0], "text_id": before[0]}
    said = reviewing.save(session, row, "accept", reviewer="ann", note="well argued")
    assert said.startswith("Saved: accept by ann")
    assert ids(session, "to review: random") == before[1:]
    assert before[0] in ids(session, "to review: random", reviewer="bob", num_wanted=2)
    [stored] = reviews_of(connect(session.snapshot.home), before[0])
    assert (stored.decision, stored.note, stored.text_id) == ("accept", "well argued", before[0])


def test_a_reviewer_is_not_shown_what_others_said(session: Session) -> None:
    row = {"completion_id": "good", "text_id": "good"}
    reviewing.save(session, row, "reject", reviewer="bob", note="cites a wrong rule")
    rows, _ = lists.readable(session, "to review: random", reviewer="ann", rule=None, num_wanted=2)
    [queued] = [row for row in rows if row["completion_id"] == "good"]
    assert "wrong rule" not in page_of_chain(session, queued, shown=True)
    assert not {"num_accepting", "num_rejecting"} & lists.shown_rows([queued])[0].keys()
    assert "wrong rule" in page_of_chain(session, row, shown=True)


def test_a_review_that_cannot_be_stored_is_told(session: Session) -> None:
    row = {"completion_id": "good", "text_id": "good"}
    said = reviewing.save(session, row, "accept", reviewer="  ", note="")
    assert said.startswith("Not saved: ")
    damaged = Path(session.snapshot.home.folder(REVIEWS), f"{'0' * 32}.parquet")
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(b"cut")
    said = reviewing.save(session, row, "accept", reviewer="ann", note="")
    assert said.startswith("Not saved: ")
    rows, trouble = lists.readable(session, "to review: random", reviewer="ann", rule=None)
    assert rows == [] and "precept doctor --mend" in trouble
    damaged.unlink()
    assert not reviews_of(connect(session.snapshot.home), "good")


def test_queues_are_narrowed_by_the_filters(session: Session) -> None:
    assert ids(session, "to review: rule", rule="B2") == ["split"]
    session.choose(Filters(categories=("lamps",)))
    assert set(ids(session, "to review: threshold")) == {"split", "bad"}


def test_a_queue_of_no_rule_is_told_in_a_sentence(session: Session) -> None:
    rows, trouble = lists.readable(session, "to review: rule", reviewer="ann", rule=None)
    assert rows == [] and "choose it in the filter" in trouble


def test_texts_in_tables_are_folded_to_their_length() -> None:
    row = {"completion_id": "0123456789abcdef", "scores": [9.0, 2.5], "answer": "No.\x1b[2J"}
    [shown] = lists.shown_rows([row])
    assert shown == {
        "#": 1,
        "completion_id": "0123456789ab",
        "scores": "9, 2.5",
        "answer": "folded, 7 characters",
    }


def test_a_users_query_reads_and_cannot_write(session: Session) -> None:
    rows, trouble = lists.answered(session, lists.FIRST_QUERY, whole=False)
    assert trouble == "" and {row["verdict"] for row in rows} >= {"accepted", "rejected"}
    [row, *_], _ = lists.answered(session, "SELECT reasoning FROM completions", whole=False)
    assert row["reasoning"].startswith("folded")
    rows, _ = lists.answered(session, "SELECT unnest(range(5000))", whole=False)
    assert len(rows) == lists.MOST_ROWS
    [row, *_], _ = lists.answered(session, UNREAD, whole=True)
    assert row == {"answer": "Ask the HARBOUR master.\\x1b", "text_id": "unread"}
    for query in FAULTY:
        assert lists.answered(session, query, whole=False)[0] == []
        assert lists.answered(session, query, whole=False)[1]


def test_controls_stand_for_filters(session: Session) -> None:
    options = choices(session.rows("options"))
    assert options["categories"] == {"boats (3)": "boats", "lamps (2)": "lamps"}
    assert options["rule"]["Z9 (1)"] == "Z9"
    assert "r" in options["run"].values()
    values = {
        "text": " raft ",
        "categories": ["lamps", "boats"],
        "ideal_responses": [],
        "verdicts": [],
        "languages": [],
        "sources": [],
        "rule": None,
        "scores": [2, 7.5],
        "run": "r",
    }
    assert filters_of(values) == Filters(
        text="raft", categories=("boats", "lamps"), lowest=2.0, highest=7.5, run="r"
    )


def test_a_run_begins_with_the_view_of_what_it_made() -> None:
    assert first_view(None) == first_view({"flow": "refresh"}) == "Overview"
    assert first_view({"flow": "train"}) == "Rollouts"
    assert first_view({"flow": "evaluate"}) == "Side by side"
