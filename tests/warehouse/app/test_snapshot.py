"""The page's answers are the catalog's, about the completions that the filters leave."""

from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.rows import (
    answer,
    case,
    completion,
    evaluation,
    judged,
    later,
    prompt,
    rollout,
    run,
    spec_text,
)
from warehouse.app.desk import Desk
from warehouse.app.filters import Filters
from warehouse.app.lists import narrowed
from warehouse.app.reader import page_of_chain, page_of_pair, page_of_rollout
from warehouse.app.snapshot import Session, Snapshot
from warehouse.catalog import ask, connect
from warehouse.home import Home
from warehouse.shards import list_shards, write_shard
from warehouse.tables import (
    ANSWERS,
    CASES,
    COMPLETIONS,
    EVALUATIONS,
    JUDGEMENTS,
    PROMPTS,
    ROLLOUTS,
    RUNS,
    SPECS,
    Completion,
    Judgement,
    Score,
    Turn,
)
from warehouse.upkeep import compact

ASKED = "Wie geht's der »Öllampe«?"
SCORES = {"good": (9.0, 10.0), "split": (9.0, 3.0), "bad": (1.0, 2.0), "unread": (9.0, None)}
PROMPTS_OF = {"p": ("good", "unread"), "q": ("split", "bad")}
QUESTIONS = (
    "funnel",
    "acceptance_by_category",
    "citations",
    "judge_spread",
    "jury",
    "unjudged",
    "rewards",
)


def completions(**changes: Any) -> list[Completion]:
    rows = {
        "good": {"num_reasoning_tokens": 50},
        "split": {"prompt_id": "q", "cited": ["B2"], "reasoning": "Rule B2: no Tariff."},
        "bad": {"prompt_id": "q", "sample_index": 1, "cited_unknown": ["Z9"], "run_id": "r0"},
        "unread": {"sample_index": 1, "answer": "Ask the HARBOUR master."},
        "failed": {"sample_index": 2, "status": "truncated", "answer": ""},
    }
    return [completion(name, **{**row, **changes}) for name, row in rows.items()]


def judgements() -> list[Judgement]:
    """Two judges of a jury, each of whom gives a completion the same score twice."""
    return [
        row
        for place, judge in enumerate(("a", "b"))
        for prompt_id, names in PROMPTS_OF.items()
        for row in judged(
            judge, {name: [SCORES[name][place]] * 2 for name in names}, prompt_id=prompt_id
        )
    ]


def fill(home: Home) -> None:
    """Writes two prompts, five completions with the judgements of a jury, rollouts and answers."""
    write_shard(
        home,
        PROMPTS,
        [
            prompt("p", prompt_id="p"),
            prompt(
                "q",
                prompt_id="q",
                categories=["lamps"],
                ideal_response="refuse",
                language="de",
                source="file",
                messages=[Turn(role="user", content=ASKED)],
            ),
        ],
    )
    rule = "- ferry [B1, comply]: ferry is fine\n  Case: asks (comply)\n- raft [B2, refuse]: stolen"
    write_shard(home, SPECS, [spec_text("s", text=f"# Policy boats\n{rule}\n- last")])
    write_shard(home, COMPLETIONS, completions())
    write_shard(home, JUDGEMENTS, judgements())
    write_shard(
        home, RUNS, [run("r", judging_id="jury", jury=["a", "b"], num_judgements=2, num_samples=4)]
    )
    write_shard(
        home,
        ROLLOUTS,
        [rollout(f"o{n}", step=n // 2, position=n % 2, reward=n / 4) for n in range(4)],
    )
    write_shard(home, CASES, [case("k1"), case("k2", language="de")])
    replies = [
        answer(f"{model}-{name}", model=model, answering_id=model, case_id=name)
        for model in ("base", "tuned")
        for name in ("k1", "k2")
    ]
    write_shard(home, ANSWERS, replies)
    values = {"base-k1": 0.0, "tuned-k1": 1.0, "base-k2": 1.0, "tuned-k2": 0.5}
    write_shard(
        home,
        EVALUATIONS,
        [
            evaluation(name, 0, scores=[Score(name="safe", value=value)])
            for name, value in values.items()
        ],
    )


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    home = Home(str(tmp_path_factory.mktemp("read") / "home"))
    fill(home)
    return Snapshot(home)


@pytest.fixture
def session(snapshot: Snapshot) -> Session:
    return snapshot.session()


def listed(session: Session, order: str = "random") -> list[str]:
    return [row["completion_id"] for row in session.rows("listed", order=order, limit=10)]


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_without_filters_have_the_catalogs_answers(
    question: str, session: Session
) -> None:
    expected = ask(connect(session.snapshot.home), question)
    assert expected.num_rows
    assert session.ask(question).to_pylist() == expected.to_pylist()


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (Filters(), {"good", "split", "bad", "unread", "failed"}),
        (Filters(run="r0"), {"bad"}),
        (Filters(categories=("lamps",)), {"split", "bad"}),
        (Filters(ideal_responses=("comply",)), {"good", "unread", "failed"}),
        (Filters(verdicts=("accepted", "failed")), {"good", "failed"}),
        (Filters(languages=("de",), verdicts=("accepted",)), set()),
        (Filters(sources=("file",)), {"split", "bad"}),
        (Filters(rule="B2"), {"split"}),
        (Filters(rule="Z9"), {"bad"}),
        (Filters(lowest=3, highest=9), {"good", "split", "unread"}),
        (Filters(text="tariff"), {"split"}),
        (Filters(text="harbour MASTER"), {"unread"}),
        (Filters(text="ÖLLAMPE"), {"split", "bad"}),
        (Filters(text="geht's"), {"split", "bad"}),
        # Names of fields are no text of anybody's.
        (Filters(text="content"), set()),
    ],
)
def test_each_filter_leaves_what_it_names(
    filters: Filters, left: set[str], session: Session
) -> None:
    session.choose(filters)
    assert set(listed(session)) == left
    [totals] = session.rows("totals")
    assert (totals["num_completions"], totals["num_all"]) == (len(left), 5)
    accepted = session.ask("acceptance_by_category").to_pylist()
    assert sum(row["num_completions"] for row in accepted) == len(left)


def test_filters_narrow_the_questions_about_judges(session: Session) -> None:
    session.choose(Filters(categories=("lamps",)))
    [first, _] = session.ask("jury").to_pylist()
    assert (first["num_judged"], first["num_rejected"]) == (2, 1)
    session.choose(Filters(rule="B2"))
    assert [row["score"] for row in session.rows("judge_scores")] == [9, 3]
    assert session.rows("funnel")[2] == {"stage": "judged", "num_rows": 1, "left_behind": ""}


def test_lists_are_in_the_order_asked_for(session: Session) -> None:
    assert listed(session, "lowest score") == ["bad", "split", "good", "unread", "failed"]
    assert listed(session, "nearest to the threshold")[:2] == ["good", "unread"]
    assert listed(session, "judges furthest apart")[0] == "split"
    assert listed(session, "longest reasoning")[0] == "good"


def test_a_search_reads_no_text_that_was_made_again(disk: Home) -> None:
    fill(disk)
    again = completions(attempt=1, text_id="t2", reasoning="other words", answer="others")
    write_shard(disk, COMPLETIONS, again)
    session = Snapshot(disk).session()
    session.choose(Filters(text="tariff"))
    assert listed(session) == []
    session.choose(Filters(text="other words"))
    assert len(listed(session)) == 5


def test_sessions_have_filters_of_their_own(snapshot: Snapshot) -> None:
    one, other = snapshot.session(), snapshot.session()
    one.choose(Filters(categories=("lamps",)))
    assert len(listed(one)) == 2
    assert len(listed(other)) == 5
    one.choose(Filters())
    assert one.ask("citations").equals(other.ask("citations"))


def test_rows_of_a_later_run_are_seen_once_the_warehouse_is_read_again(disk: Home) -> None:
    fill(disk)
    desk = Desk(disk)
    write_shard(disk, COMPLETIONS, [completion("late", sample_index=3)])
    session = desk.snapshot.session()
    assert "late" not in listed(session)
    # Rows that are gone since are told, not raised.
    assert compact(disk, COMPLETIONS)
    [row] = [row for row in session.rows("listed", order="random", limit=9) if row["cited_unknown"]]
    assert "press Read again" in page_of_chain(session, row, shown=True)
    assert "press Read again" in narrowed(session, Filters(text="tariff"))
    assert desk.renew() == ""
    session = desk.snapshot.session()
    assert "late" in listed(session)
    assert "Z9" in page_of_chain(session, row, shown=True)
    for path in list_shards(disk, RUNS):
        rows = pq.read_table(path)
        older = {**rows.schema.metadata, b"schema_version": b"0"}
        pq.write_table(rows.replace_schema_metadata(older), path)
    assert desk.renew().startswith("not read again: ")
    assert "late" in listed(desk.snapshot.session())


def test_a_chain_has_its_judgements_from_the_lowest_score(session: Session) -> None:
    [chain] = session.rows("chain", completion_id="split")
    assert chain["messages"][0]["content"] == ASKED
    assert (chain["verdict"], chain["reasoning"]) == ("rejected", "Rule B2: no Tariff.")
    rows = session.rows("chain_judgements", completion_id="split", text_id="split")
    assert [row["score"] for row in rows] == [3, 3, 9, 9]
    assert rows[0]["rationale"] == "Worth 3.0."


def test_texts_whose_prompt_is_gone_are_read_without_it(disk: Home) -> None:
    fill(disk)
    lost = {"prompt_id": "gone", "reasoning": "Of a lost prompt."}
    made = [completion("lost", **lost), completion("other", generation_id="h", **lost)]
    write_shard(disk, COMPLETIONS, made)
    write_shard(disk, RUNS, [run("r1", recipe="other", generation_id="h", judging_id="jury")])
    write_shard(disk, ROLLOUTS, [rollout("lost", **lost)])
    session = Snapshot(disk).session()
    sides = {"left_id": "lost", "right_id": "other", "grade_left": None, "grade_right": None}
    asked = ("suite", "attack", "category", "ideal_response", "language", "difference")
    pair = {**dict.fromkeys(asked), "place": "gone", **sides}
    for page in (
        page_of_chain(session, {"completion_id": "lost"}, shown=False),
        page_of_rollout(session, "lost", shown=False),
        page_of_pair(session, pair, shown=False),
    ):
        assert "Of a lost prompt." in page and "lacks the prompt" in page
        assert "<details" in page  # harmful for all that is known


def test_a_rule_is_read_whole_from_the_spec(session: Session) -> None:
    assert session.rule_texts(["B1", "B2", "Z9"]) == {
        "B1": "- ferry [B1, comply]: ferry is fine\n  Case: asks (comply)",
        "B2": "- raft [B2, refuse]: stolen",
    }


def test_the_replies_of_two_models_are_paired_by_case(session: Session) -> None:
    sides = {row["model"]: row for row in session.rows("sides")}
    assert sides["base"]["num_replies"] == 2
    chosen = {
        "left_model": "base",
        "left_setting": sides["base"]["setting"],
        "right_model": "tuned",
        "right_setting": sides["tuned"]["setting"],
        "categories": (),
        "ideal_responses": (),
        "order": "right better",
        "limit": 10,
    }
    rows = session.rows("pairs", **chosen, languages=())
    assert [(row["place"], row["difference"]) for row in rows] == [("k1", 1.0), ("k2", -0.5)]
    [german] = session.rows("pairs", **chosen, languages=("de",))
    assert (german["left_id"], german["right_id"]) == ("base-k2", "tuned-k2")


def test_rollouts_are_listed_by_step(session: Session) -> None:
    [training] = session.rows("rollout_steps")
    assert (training["last_step"], training["num_rollouts"]) == (1, 4)
    asked = {"checkpoint": "c", "step": 1, "limit": 10}
    lowest = session.rows("rollouts_listed", order="lowest reward", **asked)
    assert [row["rollout_id"] for row in lowest] == ["o2", "o3"]
    highest = session.rows("rollouts_listed", order="highest reward", **asked)
    assert [row["rollout_id"] for row in highest] == ["o3", "o2"]


def test_a_warehouse_without_completions_has_empty_answers(disk: Home) -> None:
    write_shard(disk, RUNS, [run("r", status="running", ended_at=later(1))])
    session = Snapshot(disk).session()
    assert listed(session) == []
    assert session.rows("lengths") == []
    assert session.rows("options") == []
    assert session.ask("citations").num_rows == 0
