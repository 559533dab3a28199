"""Reviews are kept, come to a verdict, and decide which completions people see next."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.rows import completion, judgement, later, prompt, review, run, spec_text
from warehouse.catalog import QuestionError, ask, connect, read
from warehouse.home import Home
from warehouse.reviews import ReviewError, add_review, queue, reviews_of
from warehouse.shards import list_shards, write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, PROMPTS, REVIEWS, RUNS, SPECS
from warehouse.upkeep import compact

SCORES = {"even": (9.0, 9.0), "near": (9.0, 7.5), "far": (10.0, 1.0), "low": (2.0, 1.0)}


def fill(home: Home) -> None:
    """Writes four completions with their scores; `near` cites B2 as well."""
    write_shard(home, PROMPTS, [prompt("p", prompt_id="p")])
    write_shard(home, SPECS, [spec_text("s")])
    cited = {"near": ["B1", "B2"]}
    write_shard(
        home, COMPLETIONS, [completion(name, cited=cited.get(name, ["B1"])) for name in SCORES]
    )
    write_shard(
        home,
        JUDGEMENTS,
        [
            judgement(name, k, score)
            for name, given in SCORES.items()
            for k, score in enumerate(given)
        ],
    )
    write_shard(home, RUNS, [run("r")])


def say(home: Home, completion_id: str, reviewer: str, decision: Any, note: str = "") -> None:
    add_review(home, completion_id, completion_id, decision, reviewer, note)


def ids(home: Home, *args: Any, reviewer: str = "zoe", **options: Any) -> list[str]:
    rows = queue(connect(home), *args, reviewer=reviewer, **options)
    return [row.completion_id for row in rows]


def comes_to(home: Home) -> dict[str, str]:
    rows = read(connect(home), "SELECT completion_id, review_verdict FROM reviewed").fetchall()
    return dict(rows)


def test_completion_that_several_recipes_judge_has_the_best_of_its_verdicts(home: Home) -> None:
    fill(home)
    thresholds = {"mild": 1.0, "middle": 5.0, "severe": 10.0}
    write_shard(
        home, RUNS, [run(name, recipe=name, threshold=value) for name, value in thresholds.items()]
    )
    say(home, "far", "ann", "accept")
    [row] = ask(connect(home), "reviews").to_pylist()
    assert (row["num_judge_accepted"], row["num_judge_rejected"]) == (1, 0)
    rows = queue(connect(home), "threshold", reviewer="zoe", num_wanted=2)
    found = {row.completion_id: (row.verdict, row.threshold) for row in rows}
    assert found["far"] == ("accepted", 1.0) and found["even"] == ("accepted", 1.0)


def test_newest_review_of_a_person_counts(home: Home) -> None:
    fill(home)
    say(home, "even", "ann", "reject", "too long")
    say(home, "even", " ann ", "accept")
    [stored] = reviews_of(connect(home), "even")
    assert (stored.decision, stored.revision, stored.note, stored.reviewer) == (
        "accept",
        1,
        "",
        "ann",
    )
    assert len(list_shards(home, REVIEWS)) == 2  # both are kept
    compact(home, REVIEWS)
    say(home, "even", "ann", "unsure")
    assert [row.revision for row in reviews_of(connect(home), "even")] == [2]


def test_reviews_that_one_person_writes_at_once_are_all_kept(disk: Home) -> None:
    fill(disk)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: say(disk, "even", "ann", "accept", str(number)), range(8)))
    rows = connect(disk).sql("SELECT revision, note FROM reviews_raw ORDER BY revision").fetchall()
    assert [revision for revision, _ in rows] == [*range(8)]
    assert {note for _, note in rows} == {str(number) for number in range(8)}


def test_reviews_come_to_what_most_people_decided(disk: Home) -> None:
    fill(disk)
    said = {
        "even": ["accept", "unsure"],
        "near": ["accept", "reject"],
        "far": ["accept", "reject", "reject"],
        "low": ["unsure"],
    }
    for completion_id, decisions in said.items():
        for number, decision in enumerate(decisions):
            say(disk, completion_id, f"person {number}", decision)
    assert comes_to(disk) == {
        "even": "accepted",
        "near": "disputed",
        "far": "rejected",
        "low": "unsure",
    }


def test_review_of_a_text_that_was_made_again_counts_no_more(disk: Home) -> None:
    fill(disk)
    say(disk, "even", "ann", "reject")
    write_shard(disk, COMPLETIONS, [completion("even", text_id="new", attempt=1)])
    assert comes_to(disk) == {}
    add_review(disk, "even", "new", "accept", "ann")
    assert comes_to(disk) == {"even": "accepted"}


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[1m", "x" * 101, "\udcff"])
def test_reviewer_without_a_printed_name_is_refused(disk: Home, name: str) -> None:
    with pytest.raises(ReviewError, match="no reviewer's name"):
        say(disk, "even", name, "accept")
    assert list_shards(disk, REVIEWS) == []


def test_unknown_decision_is_refused(disk: Home) -> None:
    with pytest.raises(ReviewError, match="no decision 'maybe'; there are accept, reject, unsure"):
        say(disk, "even", "ann", "maybe")


def test_each_queue_has_its_own_order(disk: Home) -> None:
    fill(disk)
    assert sorted(ids(disk)) == ["even", "far", "low", "near"]
    assert ids(disk, "threshold")[:2] == ["near", "even"]
    [row] = queue(connect(disk), "threshold", reviewer="zoe", limit=1)
    assert row.why == "lowest score 7.5 at threshold 8"
    rows = queue(connect(disk), "disagreement", reviewer="zoe")
    assert [(row.completion_id, row.why) for row in rows][:2] == [
        ("far", "scores from 1 to 10"),
        ("near", "scores from 7.5 to 9"),
    ]
    assert ids(disk, "rule", rule="B2") == ["near"]
    assert ids(disk, "drifted") == []
    assert len(ids(disk, limit=2)) == 2


def test_reviewers_meet_on_the_same_rows_until_enough_have_decided(disk: Home) -> None:
    fill(disk)
    first, *others = ids(disk, reviewer="ann", num_wanted=2)
    assert ids(disk, reviewer="bob", num_wanted=2) == [first, *others]
    last = others[-1]
    say(disk, last, "ann", "accept")
    assert ids(disk, reviewer="ann", num_wanted=2) == [first, *others[:-1]]
    assert ids(disk, reviewer="bob", num_wanted=2)[0] == last  # what others began comes first
    assert last not in ids(disk, reviewer="bob", num_wanted=1)
    say(disk, last, "bob", "unsure")
    assert ids(disk, reviewer="cyd", num_wanted=2)[0] == last  # who is unsure has not decided


def test_third_reviewer_settles_what_two_dispute(disk: Home) -> None:
    fill(disk)
    say(disk, "low", "ann", "accept")
    say(disk, "low", "bob", "reject")
    rows = queue(connect(disk), "disagreement", reviewer="cyd")
    assert (rows[0].completion_id, rows[0].why) == ("low", "reviewers disagree: 1 accept, 1 reject")
    assert "low" not in ids(disk, "disagreement", reviewer="ann")
    say(disk, "low", "cyd", "reject")
    assert comes_to(disk) == {"low": "rejected"}
    assert "low" not in ids(disk, "disagreement", reviewer="dan")


def test_queue_of_drift_has_held_rows_then_categories_that_moved(disk: Home) -> None:
    write_shard(disk, PROMPTS, [prompt(x, prompt_id=x, categories=[x]) for x in ("boats", "fish")])
    write_shard(disk, SPECS, [spec_text(x, categories=[x]) for x in ("boats", "fish")])
    accepted = {"old": {"boats": 20, "fish": 20}, "new": {"boats": 18, "fish": 5}}
    for number, (run_id, counts) in enumerate(accepted.items()):
        for category, count in counts.items():
            names = [f"{run_id} {category} {place}" for place in range(20)]
            write_shard(
                disk,
                COMPLETIONS,
                [completion(x, prompt_id=category, spec_id=category) for x in names],
            )
            scores = [
                judgement(
                    x,
                    0,
                    9.0 if place < count else 1.0,
                    prompt_id=category,
                    spec_id=category,
                    run_id=run_id,
                )
                for place, x in enumerate(names)
            ]
            write_shard(disk, JUDGEMENTS, scores)
        plan: dict[str, Any] = {"num_judgements": 1, "spec_ids": ["boats", "fish"]}
        write_shard(disk, RUNS, [run(run_id, started_at=later(number), **plan)])
    rows = queue(connect(disk), "drifted", reviewer="ann", limit=100)
    assert {row.category for row in rows} == {"fish"} and len(rows) == 40
    assert rows[0].why == "acceptance 0.25, before 1.00"
    held = json.dumps({"drift": {"alarm": "it moved", "runs": ["new"]}})
    write_shard(disk, RUNS, [run("new", started_at=later(1), revision=3, figures=held, **plan)])
    rows = queue(connect(disk), "drifted", reviewer="ann", limit=100)
    assert [row.why for row in rows[:40]] == ["its judgements are held"] * 40


def test_queue_that_cannot_be_made_is_refused(disk: Home) -> None:
    fill(disk)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"kind": "worst"}, "no queue 'worst'"),
        ({"kind": "rule"}, "give queue rule and the id"),
        ({"rule": "B1"}, "give queue rule and the id"),
        ({"kind": "rule", "rule": "Z9"}, "no spec has a rule 'Z9'"),
    ]
    for options, message in refused:
        with pytest.raises(QuestionError, match=message):
            queue(connect(disk), reviewer="ann", **options)


def rows_of(home: Home, question: str, *columns: str) -> list[tuple[Any, ...]]:
    rows = ask(connect(home), question).to_pylist()
    return [tuple(row[column] for column in columns) for row in rows]


def write_round(home: Home) -> None:
    """Writes 50 completions that two people and a judge decided on, and one that Ann alone did.

    Ann and Bob: the textbook's table of 20 yes-yes, 5 yes-no, 10 no-yes and 15 no-no.
    """
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    names = [f"c{number}" for number in range(len(pairs))]
    write_shard(home, PROMPTS, [prompt("p", prompt_id="p")])
    write_shard(home, SPECS, [spec_text("s")])
    write_shard(home, COMPLETIONS, [completion(name) for name in [*names, "alone"]])
    # The judge accepts what Ann does, and four more.
    accepted = {name for name, (ann, _) in zip(names, pairs, strict=True) if ann} | {*names[30:34]}
    rows = [
        judgement(name, k, 9.0 if name in accepted or k else 4.0) for name in names for k in (0, 1)
    ]
    write_shard(home, JUDGEMENTS, rows)
    write_shard(home, RUNS, [run("r")])
    words = {True: "accept", False: "reject"}
    said = [
        review(name, reviewer, words[accepts])
        for name, both in zip(names, pairs, strict=True)
        for reviewer, accepts in zip(("ann", "bob"), both, strict=True)
    ]
    write_shard(
        home, REVIEWS, [*said, review("alone", "ann", "accept"), review("c0", "cyd", "unsure")]
    )


def test_kappa_is_that_of_the_textbook(disk: Home) -> None:
    write_round(disk)
    columns = ("reviewer", "other", "num_shared", "agreement", "kappa")
    assert rows_of(disk, "review_agreement", *columns) == [
        ("ann", "bob", 50, 0.7, 0.4),
        # 46 of 50 alike; by chance 0.5 * 0.58 + 0.5 * 0.42 = 0.5.
        ("ann", "judge of harbour", 50, 0.92, 0.84),
        # 24 + 15 of 50 alike; by chance 0.6 * 0.58 + 0.4 * 0.42 = 0.516.
        ("bob", "judge of harbour", 50, 0.78, 0.5455),
    ]
    assert rows_of(disk, "reviews", "reviewer", "decision", "num_reviews", "num_disputed") == [
        ("ann", "accept", 26, 5),
        ("ann", "reject", 25, 10),
        ("bob", "accept", 30, 10),
        ("bob", "reject", 20, 5),
        ("cyd", "unsure", 1, 0),
    ]


def test_reviews_are_gold_for_the_judge(disk: Home) -> None:
    write_round(disk)
    columns = (
        "grader",
        "k",
        "threshold",
        "num_answers",
        "num_gold",
        "num_accepted",
        "precision",
        "recall",
    )
    rows = {row[1:3]: row for row in rows_of(disk, "review_calibration", *columns)}
    # Both decided alike on 35; the judge accepts the 20 that they accept, and none of the other 15
    # but those four that begin at the 31st, which are disputed.
    assert rows[2, 8] == ("judge@1", 2, 8, 35, 20, 20, 1.0, 1.0)
    # At threshold 4 everything passes.
    assert rows[2, 4] == ("judge@1", 2, 4, 35, 20, 35, 0.5714, 1.0)


def test_preference_pairs_obey_reviews(disk: Home) -> None:
    fill(disk)
    pairs = "SELECT chosen_id, rejected_id FROM preference_pairs"
    assert read(connect(disk), pairs).fetchall() == [("even", "far")]
    say(disk, "far", "ann", "accept")
    assert read(connect(disk), pairs).fetchall() == [("even", "low")]
    say(disk, "even", "ann", "reject")
    assert read(connect(disk), pairs).fetchall() == []
