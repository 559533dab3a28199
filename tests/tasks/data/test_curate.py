"""Curating freezes accepted completions as a set; each row says why it is in or out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.data.curate import CurateConfig, Curated, curate
from tests.rows import completion, judgement, later, plain, prompt, run
from warehouse.catalog import ask, connect
from warehouse.home import Home
from warehouse.reviews import add_review
from warehouse.shards import list_shards, write_shard
from warehouse.tables import COMPLETIONS, EXAMPLES, JUDGEMENTS, PROMPTS, RUNS, Turn

Sampled = Mapping[str, Any]


def store(home: Home, rows: Mapping[str, Sampled], **plan: Any) -> None:
    """Stores completions by id, each with its prompt and its two scores."""
    names = sorted({str(row.get("prompt", "p")) for row in rows.values()})
    kinds = {"f": ["fish"], "b": ["boats"]}
    prompts = [
        prompt(f"a question {name}", prompt_id=name, categories=kinds.get(name[0], ["boats"]))
        for name in names
    ]
    write_shard(home, PROMPTS, prompts)
    completions, judgements = [], []
    for completion_id, row in rows.items():
        fields = {key: value for key, value in row.items() if key not in ("prompt", "scores")}
        completions.append(completion(completion_id, prompt_id=row.get("prompt", "p"), **fields))
        for index, score in enumerate(row.get("scores", (9, 9))):
            judgements.append(
                judgement(completion_id, index, score, prompt_id=row.get("prompt", "p"))
            )
    write_shard(home, COMPLETIONS, completions)
    write_shard(home, JUDGEMENTS, judgements)
    write_shard(home, RUNS, [run("r", **plan)])


def freeze(home: Home, *, run_id: str = "r", **options: Any) -> Curated:
    connection = connect(home)
    ids = [row[0] for row in connection.sql("SELECT prompt_id FROM prompts_all").fetchall()]
    wanted = pa.table({"prompt_id": ids, "spec_id": ["s"] * len(ids)})
    connection.register("wanted", wanted)
    return curate(
        connection,
        config=CurateConfig(**options),
        home=home,
        judging_id="j",
        run_id=run_id,
    )


def examples(home: Home, curated: Curated) -> list[dict[str, Any]]:
    relation = connect(home).sql(
        "FROM examples WHERE set_id = $set_id ORDER BY completion_id",
        params={"set_id": curated.set_id},
    )
    rows: list[dict[str, Any]] = relation.to_arrow_table().to_pylist()
    return rows


def reasons(home: Home, curated: Curated) -> dict[str, str]:
    rows = examples(home, curated)
    assert [row["status"] == "chosen" for row in rows] == [
        row["reason"] == "best of n" for row in rows
    ]
    return {row["completion_id"]: row["reason"] for row in rows}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path))


FAULTY: dict[str, Sampled] = {
    "sound": {"prompt": "b1"},
    "uncited": {"prompt": "b2", "cited": []},
    "invented": {"prompt": "b3", "cited_unknown": ["B9"]},
    "pointing": {"prompt": "b4", "reasoning": "B1 of the policy above."},
    "telling": {"prompt": "b5", "answer": "The rules I was given forbid it."},
    "rejected": {"prompt": "b6", "scores": (9, 3)},
    "unjudged": {"prompt": "b7", "scores": (9, None)},
    "unclosed": {"prompt": "b8", "status": "unclosed"},
}


def test_every_accepted_completion_is_chosen_or_left_out_with_the_reason(home: Home) -> None:
    store(home, FAULTY)
    curated = freeze(home)
    assert reasons(home, curated) == {
        "sound": "best of n",
        "uncited": "uncited",
        "invented": "cites_unknown",
        "pointing": "dangling",
        "telling": "dangling",
    }
    assert (curated.num_chosen, curated.num_left_out) == (1, 4)


def test_reasoning_may_speak_of_the_system_message_that_its_prompt_keeps(home: Home) -> None:
    speaking = {"reasoning": "Rule B1 outranks the system message."}
    store(home, {"pointing": {"prompt": "b1", **speaking}})
    system = Turn(role="system", content="Lend any boat.")
    asked = prompt("Which boat?", messages=[system, Turn(role="user", content="Which boat?")])
    write_shard(home, PROMPTS, [asked])
    write_shard(home, COMPLETIONS, [completion("own", prompt_id=asked.prompt_id, **speaking)])
    of = {"prompt_id": asked.prompt_id}
    write_shard(home, JUDGEMENTS, [judgement("own", index, 9.0, **of) for index in range(2)])
    chosen = reasons(home, freeze(home))
    assert chosen == {"own": "best of n", "pointing": "dangling"}


def test_the_recipe_decides_which_citations_a_row_needs(home: Home) -> None:
    store(home, FAULTY)
    curated = freeze(home, require_citation=False, allow_unknown_citations=True)
    chosen = {name for name, reason in reasons(home, curated).items() if reason == "best of n"}
    assert chosen == {"sound", "uncited", "invented"}


def test_the_best_of_each_prompt_are_kept_by_lowest_then_by_mean_score(home: Home) -> None:
    store(
        home,
        {
            "a": {"sample_index": 0, "scores": (8, 8)},
            "b": {"sample_index": 1, "scores": (8, 10)},
            "c": {"sample_index": 2, "scores": (9, 9)},
            "d": {"sample_index": 3, "scores": (10, 10), "cited": []},
        },
    )
    best = {"a": "not_best", "b": "not_best", "c": "best of n", "d": "uncited"}
    assert reasons(home, freeze(home)) == best
    assert reasons(home, freeze(home, best_of=2)) == {**best, "b": "best of n"}


def test_no_group_is_larger_than_the_ratio_allows(home: Home) -> None:
    rows = {f"b{n}": {"prompt": f"b{n}"} for n in range(7)}
    store(home, {**rows, "f0": {"prompt": "f0"}, "f1": {"prompt": "f1"}})
    balanced = reasons(home, freeze(home, max_group_ratio=2.0))
    kept = [name for name, reason in balanced.items() if reason == "best of n"]
    assert len([name for name in kept if name[0] == "b"]) == 4
    assert {"f0", "f1"} <= set(kept)
    assert set(balanced.values()) == {"best of n", "balance"}
    assert reasons(home, freeze(home, max_group_ratio=2.0)) == balanced


def test_an_example_holds_prompt_reasoning_and_answer_and_no_spec(home: Home) -> None:
    store(home, {"sound": {"prompt": "b1", "scores": (9, 10)}})
    (row,) = examples(home, freeze(home))
    assert plain(row["prompt"]) == [{"role": "user", "content": "a question b1"}]
    assert row["completion"] == [
        {
            "role": "assistant",
            "content": "Take the skiff.",
            "reasoning_content": "Rule B1 covers it.",
        }
    ]
    assert (row["score"], row["scores"], row["spec_id"]) == (9.0, [9.0, 10.0], "s")


def shards(home: Home) -> Sequence[str]:
    return list_shards(home, EXAMPLES)


def test_freezing_again_gives_the_same_set_and_writes_nothing(home: Home) -> None:
    store(home, FAULTY)
    first = freeze(home)
    before = shards(home)
    write_shard(home, RUNS, [run("r2", started_at=later(1))])
    assert freeze(home, run_id="r2") == first
    assert shards(home) == before and len(before) == 1


def test_other_completions_or_other_settings_are_another_set(home: Home) -> None:
    store(home, FAULTY)
    first, second = freeze(home), freeze(home, best_of=2)
    write_shard(home, COMPLETIONS, [completion("new", prompt_id="b2", sample_index=1)])
    write_shard(
        home, JUDGEMENTS, [judgement("new", index, 9.0, prompt_id="b2") for index in (0, 1)]
    )
    third = freeze(home)
    assert len({first.set_id, second.set_id, third.set_id}) == 3
    assert len(examples(home, first)) == 5 and len(examples(home, third)) == 6


def test_a_set_that_was_only_partly_written_is_completed(home: Home) -> None:
    store(home, FAULTY)
    first = freeze(home)
    whole = examples(home, first)
    home.files.rm(shards(home)[0])
    again = freeze(home)
    assert again == first
    assert reasons(home, again) == {row["completion_id"]: row["reason"] for row in whole}


def test_a_milder_recipe_in_the_same_warehouse_changes_no_other_set(home: Home) -> None:
    store(home, FAULTY)
    strict = freeze(home)
    mild = run("r2", recipe="mild", threshold=3.0, started_at=later(1))
    write_shard(home, RUNS, [mild])
    assert freeze(home) == strict
    assert "rejected" in reasons(home, freeze(home, run_id="r2"))


def say(home: Home, completion_id: str, *decisions: Any) -> None:
    """Stores a review of a completion for each decision, each by a person of its own."""
    for number, decision in enumerate(decisions):
        add_review(home, completion_id, completion_id, decision, f"person {number}")


def verdicts_of(home: Home, curated: Curated) -> dict[str, tuple[str, str]]:
    return {row["completion_id"]: (row["status"], row["reason"]) for row in examples(home, curated)}


def test_people_have_the_last_word_on_what_is_an_example(home: Home) -> None:
    rows = {name: {"prompt": f"b {name}"} for name in ("kept", "out", "disputed", "settled")}
    store(home, {**rows, **FAULTY, "bad": {"prompt": "b9", "scores": (2, 1)}})
    say(home, "out", "reject")
    say(home, "disputed", "accept", "reject")
    say(home, "settled", "reject", "accept", "reject")
    say(home, "kept", "unsure")
    for name in ("bad", "rejected", "pointing", "uncited", "unclosed", "unjudged"):
        say(home, name, "accept")
    left_out = {
        "out": "reviewed: rejected",
        "disputed": "reviewed: disputed",
        "settled": "reviewed: rejected",
        # People say whether a completion is good, not whether it can be trained on.
        "pointing": "dangling",
        "telling": "dangling",
        "uncited": "uncited",
        "invented": "cites_unknown",
    }
    assert verdicts_of(home, freeze(home)) == {
        "kept": ("chosen", "best of n"),
        "sound": ("chosen", "best of n"),
        "bad": ("chosen", "reviewed: accepted"),
        "rejected": ("chosen", "reviewed: accepted"),
        "unjudged": ("chosen", "reviewed: accepted"),
        **{name: ("left_out", reason) for name, reason in left_out.items()},
    }


def test_what_people_accept_comes_before_what_the_judge_likes_better(home: Home) -> None:
    store(
        home,
        {
            "liked": {"sample_index": 0, "scores": (10, 10)},
            "chosen": {"sample_index": 1, "scores": (3, 3)},
        },
    )
    say(home, "chosen", "accept")
    assert verdicts_of(home, freeze(home)) == {
        "chosen": ("chosen", "reviewed: accepted"),
        "liked": ("left_out", "not_best"),
    }


def test_being_unsure_of_a_completion_does_not_put_it_before_a_better_one(home: Home) -> None:
    store(home, {"good": {"scores": (9, 9)}, "best": {"sample_index": 1, "scores": (10, 10)}})
    say(home, "good", "unsure")
    assert verdicts_of(home, freeze(home)) == {
        "best": ("chosen", "best of n"),
        "good": ("left_out", "not_best"),
    }


def test_completion_without_any_score_waits_for_the_judge(home: Home) -> None:
    store(home, {"new": {"scores": ()}})
    say(home, "new", "accept")
    assert verdicts_of(home, freeze(home)) == {}


def test_set_changes_when_reviews_change_what_is_in_it_and_not_before(home: Home) -> None:
    store(home, {"one": {"prompt": "b1"}, "other": {"prompt": "b2"}})
    first = freeze(home)
    say(home, "one", "accept")
    assert freeze(home) == first  # it was in before
    say(home, "one", "reject")
    second = freeze(home)
    assert second.set_id != first.set_id and second.num_chosen == 1
    say(home, "one", "accept")
    assert freeze(home) == first


def test_funnel_tells_what_reviews_did(home: Home) -> None:
    store(home, {"out": {"prompt": "b1"}, "in": {"prompt": "b2", "scores": (3, 3)}})
    say(home, "out", "reject")
    say(home, "in", "accept")
    curated = freeze(home)
    write_shard(home, RUNS, [run("r", revision=3, set_id=curated.set_id)])
    assert ask(connect(home), "funnel").to_pylist()[-2:] == [
        {"stage": "accepted", "num_rows": 1, "left_behind": "1 under the threshold 8"},
        {
            "stage": "examples",
            "num_rows": 1,
            "left_behind": "1 more that reviews accept, 1 reviewed: rejected",
        },
    ]


def test_a_superseded_completion_is_not_curated(home: Home) -> None:
    store(home, FAULTY, spec_ids=["edited"])
    curated = freeze(home)
    assert (curated.num_chosen, curated.num_left_out) == (0, 0)
    assert shards(home) == []
