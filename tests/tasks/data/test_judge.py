"""Judging: the lowest of k scores counts, an unread one never does, and races accept the same."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from specs.criteria import judging_form
from specs.policy import Spec
from specs.replies import ReplyForm
from tasks.data.judge import JudgeConfig, JudgementUnit, JudgeWork
from tasks.engine.requests import Engine, Request, Sample, ScriptedEngine, failed
from tasks.stage import StageConfig
from tests.rows import completion, judgement, later, prompt, run, spec_text
from warehouse.catalog import ask, connect, count_rows, look_up, read
from warehouse.home import Home
from warehouse.shards import list_shards, write_shard
from warehouse.tables import (
    COMPLETIONS,
    JUDGEMENTS,
    PROMPTS,
    RUNS,
    SPECS,
    Judgement,
    Prompt,
    content_id,
)

SPEC = Spec(categories=("boats",), detail="full", text="Rules of boats.", rule_ids=("B1",))
SKIFF = prompt("may i take the skiff", metadata=["the ideal response is comply"])
NAMES = ("good", "low", "late", "split", "mute")
SCORES: Mapping[str, Sequence[int | None]] = {
    "good": [9, 10, 8, 9],
    "low": [3, 9, 9, 9],
    "late": [9, 9, 9, 5],
    "split": [8, 4, 10, 2],
    "mute": [9, None, 10, 9],
}
EXPECTED = {
    "good": "accepted",
    "low": "rejected",
    "late": "rejected",
    "split": "rejected",
    "mute": "unjudged",
}
"""Their verdicts, by any way of judging."""


def verdict_text(score: int | None) -> str:
    return "<think>I look.</think>It is so.\n" + ("" if score is None else f"Score: {score}")


class ScoringEngine(ScriptedEngine):
    """An engine that gives each completion its scores in order, over and over."""

    def __init__(self, scores: Mapping[str, Sequence[int | None]] = SCORES) -> None:
        super().__init__(self.next_reply)
        self.scores = scores
        self.given: dict[str, int] = defaultdict(int)

    def next_reply(self, request: Request, index: int) -> str:
        text = request.messages[-1]["content"]
        name = next(name for name in self.scores if f"Answer {name}." in text)
        score = self.scores[name][self.given[name] % len(self.scores[name])]
        self.given[name] += 1
        return verdict_text(score)


class BrokenEngine:
    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[failed("error", "engine died")] * request.num_samples for request in requests]


@dataclass
class Bench:
    """A stage without Ray, over the completions named in `SCORES`."""

    home: Home
    config: JudgeConfig
    model: str = "judge@1"
    retries: int = 0
    run_id: str = "r"
    num_samples: int = 1
    num_runs: int = 0
    jury: Sequence[str] = ()
    prompts: Sequence[Prompt] = (SKIFF,)

    def connection(self) -> duckdb.DuckDBPyConnection:
        connection = connect(self.home)
        ids = [asked.prompt_id for asked in self.prompts]
        wanted = {"prompt_id": ids, "spec_id": [SPEC.id] * len(ids)}
        connection.register("wanted", pa.table(wanted))
        return connection

    def work(self) -> JudgeWork:
        return JudgeWork(
            jury=self.jury,
            config=self.config,
            stage=StageConfig(retries=self.retries, wave_rows=2),
            model=self.model,
            generation_id="g",
            num_completions=self.num_samples,
            specs={SPEC.id: SPEC},
            run_id=self.run_id,
        )

    def units(self) -> dict[str, JudgementUnit]:
        work = self.work()
        pending = work.pending(self.connection())
        units = [work.unit(**row) for wave in pending for row in wave.to_pylist()]
        assert pending.num_units == len(units)
        assert pending.num_samples == sum(len(unit.sample_indices) for unit in units)
        return {unit.text_id: unit for unit in units}

    def missing(self) -> dict[str, list[int]]:
        return {name: unit.sample_indices for name, unit in self.units().items()}

    def make(self, engine: Engine) -> list[Judgement]:
        work = self.work()
        rows = asyncio.run(work.make(list(self.units().values()), engine))
        write_shard(self.home, work.table, rows)
        return rows

    def verdicts(self) -> dict[str, str]:
        """Returns the verdicts as the catalog shows them to a run of this configuration."""
        self.num_runs += 1
        plan = run(
            f"r{self.num_runs}",
            judging_id=self.config.jury_id(self.jury or [self.model]),
            jury=self.config.judging_ids(self.jury),
            spec_ids=[SPEC.id],
            num_samples=self.num_samples,
            num_judgements=self.config.samples,
            threshold=self.config.threshold,
            started_at=later(self.num_runs),
        )
        write_shard(self.home, RUNS, [plan])
        query = "SELECT completion_id, verdict FROM verdicts"
        return dict(read(connect(self.home), query).fetchall())


@pytest.fixture
def new_bench(tmp_path: Path) -> Callable[..., Bench]:
    """Benches with a warehouse each."""
    numbers = itertools.count()

    def bench(**options: Any) -> Bench:
        home = Home(str(tmp_path / str(next(numbers))))
        write_shard(home, PROMPTS, [SKIFF])
        rows = [
            completion(name, prompt_id=SKIFF.prompt_id, spec_id=SPEC.id, answer=f"Answer {name}.")
            for name in NAMES
        ]
        write_shard(home, COMPLETIONS, rows)
        return Bench(home, JudgeConfig(**options))

    return bench


NewBench = Callable[..., Bench]


def test_a_race_accepts_the_same_completions_as_full_judging(new_bench: NewBench) -> None:
    race, full = new_bench(mode="race"), new_bench(mode="full")
    raced, complete = race.make(ScoringEngine()), full.make(ScoringEngine())
    assert race.verdicts() == full.verdicts() == EXPECTED
    assert len(complete) == 20
    assert len(raced) == 17  # "low" is rejected by its first sample
    assert race.missing() == full.missing() == {}
    in_full = {row.judgement_id: row.score for row in complete}
    assert all(in_full[row.judgement_id] == row.score for row in raced)


def test_a_threshold_lowered_after_a_race_asks_only_for_samples_that_are_now_missing(
    new_bench: NewBench,
) -> None:
    bench = new_bench(mode="race")
    before = bench.make(ScoringEngine())
    bench.config = bench.config.model_copy(update={"threshold": 3.0})
    assert bench.missing() == {"low": [1, 2, 3]}
    engine = ScoringEngine()
    engine.given["low"] = 1
    after = bench.make(engine)
    assert {row.judgement_id for row in before}.isdisjoint(row.judgement_id for row in after)
    assert bench.verdicts()["low"] == "accepted"
    bench.config = bench.config.model_copy(update={"threshold": 10.0})
    assert bench.missing() == {}


def test_full_judging_after_a_race_asks_for_the_remaining_samples(new_bench: NewBench) -> None:
    bench = new_bench(mode="race")
    bench.make(ScoringEngine())
    bench.config = bench.config.model_copy(update={"mode": "full"})
    assert bench.missing() == {"low": [1, 2, 3]}


def test_a_larger_k_keeps_the_samples_that_are_stored(new_bench: NewBench) -> None:
    bench = new_bench(mode="full", samples=2)
    bench.make(ScoringEngine())
    bench.config = bench.config.model_copy(update={"samples": 3})
    assert bench.missing() == {name: [2] for name in NAMES}


@pytest.mark.parametrize(
    ("reply", "status", "reason"),
    [
        ("<think>a</think>No last line.", "no_verdict", "the last line is not 'Score: N'"),
        ("<think>a</think>Score: 11", "off_scale", "the score is not from 0 to 10"),
        ("<think>a</think>I'm sorry, I cannot rate it.", "refused", "the judge declined"),
        ("<think>a</think>I’m sorry, but I can’t rate it.", "refused", "the judge declined"),
        ("<think>a</think>Score: 9\nNo.\nScore: 2", "no_verdict", "another line differs"),
        ("<think>Score: 9", "unclosed", "never closed"),
    ],
)
def test_an_unread_sample_has_a_null_score_and_a_reason_is_retried_and_never_accepts(
    new_bench: NewBench, reply: str, status: str, reason: str
) -> None:
    bench = new_bench(samples=2)
    bench.retries = 1
    first = bench.make(ScriptedEngine(lambda request, index: reply))
    assert {(row.status, row.score) for row in first} == {(status, None)}
    assert all(row.reason and reason in row.reason for row in first)
    assert set(bench.verdicts().values()) == {"unjudged"}
    assert {tuple(unit.attempts) for unit in bench.units().values()} == {(1, 1)}
    second = bench.make(ScriptedEngine(lambda request, index: reply))
    assert {row.judgement_id for row in second} == {row.judgement_id for row in first}
    assert {row.attempt for row in second} == {1}
    assert bench.missing() == {}
    assert set(bench.verdicts().values()) == {"unjudged"}


def test_a_retry_that_can_be_read_settles_the_sample(new_bench: NewBench) -> None:
    bench = new_bench()
    bench.make(ScoringEngine())
    bench.retries = 1
    assert bench.missing() == {"mute": [1]}
    (row,) = bench.make(ScriptedEngine(lambda request, index: verdict_text(8)))
    assert (row.sample_index, row.attempt, row.score) == (1, 1, 8.0)
    assert bench.verdicts()["mute"] == "accepted"
    assert bench.missing() == {}


def test_engine_errors_are_rows_without_a_score(new_bench: NewBench) -> None:
    bench = new_bench(mode="full")
    bench.retries = 1
    rows = bench.make(BrokenEngine())
    assert {(row.status, row.reason, row.score) for row in rows} == {("error", "engine died", None)}
    assert len(bench.missing()) == len(NAMES)


def test_a_later_run_retries_an_engine_error_once(new_bench: NewBench) -> None:
    bench = new_bench(mode="full")
    bench.make(BrokenEngine())
    assert bench.missing() == {}
    for night in range(1, 5):
        bench.run_id = f"night {night}"
        assert {row.attempt for row in bench.make(BrokenEngine())} == {night}
        assert bench.missing() == {}
    bench.run_id = "a sixth attempt"
    assert bench.missing() == {}


def test_a_later_run_does_not_retry_a_reply_that_could_not_be_read(new_bench: NewBench) -> None:
    bench = new_bench()
    bench.make(ScriptedEngine(lambda request, index: "no verdict"))
    bench.run_id = "night"
    assert bench.missing() == {}


def test_a_verdict_that_was_cut_short_has_no_score(new_bench: NewBench) -> None:
    class Cut(ScriptedEngine):
        def _sample(self, text: str) -> Sample:
            return replace(super()._sample(text), finish_reason="length")

    rows = new_bench().make(Cut(lambda request, index: verdict_text(9)))
    assert {(row.status, row.score, row.reason) for row in rows} == {
        ("truncated", None, "the output reached max_tokens")
    }


def test_only_whole_completions_of_this_generation_are_judged(new_bench: NewBench) -> None:
    bench = new_bench()
    common = {"prompt_id": SKIFF.prompt_id, "spec_id": SPEC.id}
    write_shard(
        bench.home,
        COMPLETIONS,
        [
            completion("unclosed", **common, status="unclosed"),
            completion("second", **common, sample_index=1),
            completion("elsewhere", **common, generation_id="g2"),
            completion("unwanted", prompt_id=SKIFF.prompt_id, spec_id="old"),
        ],
    )
    assert set(bench.missing()) == set(NAMES)
    bench.num_samples = 2
    assert set(bench.missing()) == {*NAMES, "second"}


def test_a_judge_is_shown_spec_conversation_reasoning_and_answer(new_bench: NewBench) -> None:
    engine = ScoringEngine()
    new_bench(mode="full").make(engine)
    system, last = engine.requests[0].messages
    assert SPEC.text in system["content"]
    for text in ("may i take the skiff", "Rule B1 covers it.", "Answer "):
        assert text in last["content"]
    assert "Another AI" not in last["content"]


def test_a_judge_is_held_to_the_form_of_a_verdict_unless_the_recipe_sets_it_free(
    new_bench: NewBench,
) -> None:
    held, free = ScoringEngine(), ScoringEngine()
    new_bench(mode="full").make(held)
    new_bench(mode="full", constrain=False).make(free)
    for request in held.requests:
        assert request.form == judging_form((), max_tokens=request.sampling.max_tokens)
    assert {request.form for request in free.requests} == {None}


@pytest.mark.parametrize("metadata", [[], [""], ["one"], ["one", "two | three"]])
def test_ids_in_sql_and_in_python_are_the_same(new_bench: NewBench, metadata: list[str]) -> None:
    bench = new_bench(show_metadata=True, samples=2)
    revised = replace(SKIFF, metadata=metadata, revision=1, version="revised")
    write_shard(bench.home, PROMPTS, [revised])
    rows = bench.make(ScriptedEngine(lambda request, index: verdict_text(9)))
    judging_id = bench.config.judging_id(bench.model)
    assert {row.judgement_id for row in rows} == {
        content_id(SKIFF.prompt_id, name, SPEC.id, judging_id, index, *metadata)
        for name in NAMES
        for index in (0, 1)
    }
    assert bench.missing() == {}


def test_new_metadata_is_judged_again_if_the_judge_is_shown_it(new_bench: NewBench) -> None:
    bench = new_bench(show_metadata=True)
    engine = ScoringEngine()
    bench.make(engine)
    assert "Another AI determined that the ideal" in engine.requests[0].messages[-1]["content"]
    revised = replace(SKIFF, metadata=["it is harmful"], revision=1, version="revised")
    write_shard(bench.home, PROMPTS, [revised])
    assert bench.missing() == {name: [0, 1, 2, 3] for name in NAMES}
    bench.config = bench.config.model_copy(update={"show_metadata": False})
    assert len(bench.missing()) == len(NAMES)


def test_a_completion_that_was_lost_and_made_again_is_judged_again(new_bench: NewBench) -> None:
    bench = new_bench(mode="full")
    bench.make(ScoringEngine())
    [lost] = list_shards(bench.home, COMPLETIONS)
    Path(lost).unlink()
    common = {"prompt_id": SKIFF.prompt_id, "spec_id": SPEC.id}
    again = [completion(name, **common, text_id=f"another {name}") for name in NAMES]
    write_shard(bench.home, COMPLETIONS, again)
    assert set(bench.verdicts().values()) == {"unjudged"}
    rows = bench.make(ScriptedEngine(lambda request, index: verdict_text(9)))
    assert len(rows) == 4 * len(NAMES) and bench.missing() == {}
    assert set(bench.verdicts().values()) == {"accepted"}
    # The earlier text is back, and with it the judgements of that text.
    Path(lost).unlink()
    before = [completion(name, **common) for name in NAMES]
    write_shard(bench.home, COMPLETIONS, before)
    assert bench.verdicts()["low"] == "rejected" and bench.verdicts()["good"] == "accepted"


def test_another_judge_template_or_constraint_judges_again(new_bench: NewBench) -> None:
    bench = new_bench()
    bench.make(ScoringEngine())
    for changes in ({"template": "paper"}, {"constrain": False}):
        other = replace(bench, config=bench.config.model_copy(update=changes))
        assert len(other.missing()) == len(NAMES)
    assert len(replace(bench, model="judge@2").missing()) == len(NAMES)
    assert bench.missing() == {}


CRITERIA = ["compliance", "reasoning"]


class CriteriaEngine(ScoringEngine):
    """An engine that gives each completion its scores for compliance, and 8 for reasoning."""

    def next_reply(self, request: Request, index: int) -> str:
        score = super().next_reply(request, index)
        return score.replace("Score", "Compliance") + "\nReasoning: 8"


def test_lowest_of_criteria_and_samples_counts_and_ends_the_race(new_bench: NewBench) -> None:
    race, full = (new_bench(mode=mode, criteria=CRITERIA) for mode in ("race", "full"))
    raced, complete = race.make(CriteriaEngine()), full.make(CriteriaEngine())
    assert len(complete) == 20 and len(raced) == 17  # "low" ends with its first sample
    assert race.verdicts() == full.verdicts()
    assert race.verdicts() == EXPECTED
    first = next(row for row in complete if row.text_id == "good" and row.sample_index == 1)
    assert first.score == 8.0
    assert [(one.criterion, one.score) for one in first.criteria] == [
        ("compliance", 10.0),
        ("reasoning", 8.0),
    ]


def test_sample_that_lacks_a_criterion_is_unread_and_asked_again(new_bench: NewBench) -> None:
    bench = new_bench(criteria=[*CRITERIA, "citations"], samples=1)
    bench.retries = 1
    rows = bench.make(CriteriaEngine())
    assert {(row.status, row.score, len(row.criteria)) for row in rows} == {("no_verdict", None, 0)}
    assert "not a score of each criterion" in (rows[0].reason or "")
    assert set(bench.verdicts().values()) == {"unjudged"}
    assert set(bench.missing()) == set(NAMES)


def test_criteria_are_a_judging_of_their_own_and_shown_to_the_judge(new_bench: NewBench) -> None:
    bench = new_bench(mode="full", criteria=CRITERIA)
    engine = CriteriaEngine()
    bench.make(engine)
    [form] = {request.form for request in engine.requests}
    assert isinstance(form, ReplyForm)
    assert [line.partition(":")[0] for line in form.lines] == ["Compliance", "Reasoning"]
    assert "Is the thinking sound?" in engine.requests[0].messages[0]["content"]
    for criteria in ([], ["compliance"], CRITERIA[::-1]):
        other = replace(bench, config=JudgeConfig(mode="full", criteria=criteria))
        assert len(other.missing()) == len(NAMES)


def test_criterion_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="two criteria are named 'compliance'"):
        JudgeConfig(criteria=["compliance", "compliance"])


JURY = ("cheap@1", "dear@1")
DEAR: Mapping[str, Sequence[int | None]] = {
    "good": [9],
    "low": [9],
    "late": [10],
    "split": [10],
    "mute": [2],
}


def seat(bench: Bench, model: str) -> Bench:
    return replace(bench, model=model, jury=JURY)


def test_jury_asks_the_next_judge_only_about_what_still_stands(new_bench: NewBench) -> None:
    bench = new_bench(mode="race")
    cheap, dear = (seat(bench, model) for model in JURY)
    assert set(cheap.missing()) == set(dear.missing()) == set(NAMES)
    cheap.make(ScoringEngine())
    # "mute" is unread, and not rejected: it still stands.
    assert set(dear.missing()) == {"good", "mute"}
    rows = dear.make(ScoringEngine(DEAR))
    assert {row.text_id: row.sample_index for row in rows} == {"good": 3, "mute": 0}
    assert dear.verdicts() == {**EXPECTED, "mute": "rejected"}
    assert cheap.missing() == dear.missing() == {}


def test_jury_accepts_the_same_in_a_race_in_either_order_and_in_full(new_bench: NewBench) -> None:
    scores = dict(zip(JURY, (SCORES, DEAR), strict=True))
    verdicts, counts = [], []
    for mode, order in (("full", JURY), ("race", JURY), ("race", JURY[::-1])):
        bench = new_bench(mode=mode)
        judges = [seat(bench, model) for model in order]
        counts.append(sum(len(one.make(ScoringEngine(scores[one.model]))) for one in judges))
        verdicts.append(judges[0].verdicts())
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert counts == [40, 22, 30]


def test_completion_of_a_judge_that_is_down_is_unjudged_and_asked_again_by_the_next_run(
    new_bench: NewBench,
) -> None:
    bench = new_bench(mode="race", samples=1)
    cheap, dear = (seat(bench, model) for model in JURY)
    cheap.make(ScoringEngine(DEAR))
    dear.make(BrokenEngine())
    assert dear.verdicts() == {**dict.fromkeys(NAMES, "unjudged"), "mute": "rejected"}
    assert dear.missing() == {}
    night = replace(dear, run_id="night")
    assert set(night.missing()) == set(NAMES) - {"mute"}
    night.make(ScoringEngine(DEAR))
    assert set(night.verdicts().values()) == {"accepted", "rejected"}
    # One that was never asked leaves them unjudged as well.
    third = replace(night, jury=(*JURY, "third@1"))
    assert set(third.verdicts().values()) == {"unjudged", "rejected"}


def test_judgements_of_a_lone_judge_count_in_a_jury(new_bench: NewBench) -> None:
    bench = new_bench(mode="full")
    alone = replace(bench, model=JURY[0])
    alone.make(ScoringEngine())
    assert seat(bench, JURY[0]).missing() == {}
    assert set(seat(bench, JURY[1]).missing()) == set(NAMES)


PUNT = prompt("may i take the punt")
TWINS = {"good": ("good", "good again", "good once more"), "low": ("low", "low again")}
"""Texts by the completions that have them."""


def add_twins(bench: Bench, **changes: Any) -> None:
    """Adds the completions of `TWINS` that repeat a text."""
    rows = [
        completion(
            name, text_id=text, answer=f"Answer {text}.", sample_index=number, **IN_BENCH | changes
        )
        for text, names in TWINS.items()
        for number, name in enumerate(names)
        if number
    ]
    write_shard(bench.home, COMPLETIONS, rows)


IN_BENCH = {"prompt_id": SKIFF.prompt_id, "spec_id": SPEC.id}


@pytest.mark.parametrize("mode", ["race", "full"])
def test_equal_texts_of_one_prompt_are_judged_once_and_share_their_verdict(
    new_bench: NewBench, mode: str
) -> None:
    alone, bench = new_bench(mode=mode), new_bench(mode=mode)
    add_twins(bench)
    bench.num_samples = 3
    alone.make(ScoringEngine())
    assert alone.verdicts() == EXPECTED
    rows = bench.make(ScoringEngine())
    assert len(rows) == {"race": 17, "full": 20}[mode]
    assert {row.completion_id for row in rows} == {None}
    verdicts = bench.verdicts()
    assert verdicts == EXPECTED | {
        name: EXPECTED[text] for text, names in TWINS.items() for name in names
    }
    assert bench.missing() == {}


def test_race_and_resume_ask_nothing_twice_of_a_text_that_completions_share(
    new_bench: NewBench,
) -> None:
    bench = new_bench(mode="race", samples=2)
    before = bench.make(ScoringEngine())
    add_twins(bench)
    bench.num_samples = 3
    # What came later with a text that is judged needs no judge.
    assert bench.missing() == {}
    assert bench.verdicts()["low again"] == "rejected"
    bench.config = bench.config.model_copy(update={"samples": 3})
    assert bench.missing() == {name: [2] for name in ("good", "late", "mute")}
    after = bench.make(ScoringEngine())
    assert {row.judgement_id for row in before}.isdisjoint(row.judgement_id for row in after)
    assert bench.missing() == {}


def test_text_is_asked_about_in_the_words_of_one_completion_whatever_their_order(
    new_bench: NewBench,
) -> None:
    bench = new_bench(samples=1)
    write_shard(bench.home, COMPLETIONS, [completion("a", text_id="good", **IN_BENCH)])
    assert bench.units()["good"].answer == "Take the skiff."
    write_shard(bench.home, COMPLETIONS, [completion("z", text_id="good", **IN_BENCH)])
    assert bench.units()["good"].answer == "Take the skiff."


def test_equal_texts_of_two_prompts_are_judged_apart(new_bench: NewBench) -> None:
    bench = new_bench(mode="full")
    bench.prompts = (SKIFF, PUNT)
    write_shard(bench.home, PROMPTS, [PUNT])
    add_twins(bench, prompt_id=PUNT.prompt_id)
    bench.num_samples = 3
    work = bench.work()
    units = [row for wave in work.pending(bench.connection()) for row in wave.to_pylist()]
    assert sorted(unit["text_id"] for unit in units) == sorted((*NAMES, "good", "low"))
    first, second = (unit for unit in units if unit["text_id"] == "good")
    rows = asyncio.run(work.make([work.unit(**unit) for unit in (first, second)], ScoringEngine()))
    assert len({row.judgement_id for row in rows}) == 8
    assert {row.prompt_id for row in rows} == {SKIFF.prompt_id, PUNT.prompt_id}
    write_shard(bench.home, work.table, rows[:4])
    judged = {name for name, verdict in bench.verdicts().items() if verdict == "accepted"}
    assert judged in ({"good"}, {"good again", "good once more"})


def test_equal_texts_under_another_spec_or_of_a_scored_trace_share_nothing(
    new_bench: NewBench,
) -> None:
    bench = new_bench(mode="full", samples=1)
    bench.make(ScoringEngine())
    common = {"prompt_id": SKIFF.prompt_id, "text_id": "good"}
    write_shard(
        bench.home,
        COMPLETIONS,
        [
            completion("of an older spec", **common, spec_id="old"),
            completion("trace", **common, spec_id=None, generation_id="t"),
        ],
    )
    given = judgement(
        "trace", 0, 2.0, **common, completion_id="trace", spec_id=None, judging_id="gold"
    )
    write_shard(bench.home, JUDGEMENTS, [given])
    query = "SELECT completion_id, score FROM judgements_all WHERE text_id = 'good' ORDER BY ALL"
    shown = connect(bench.home).execute(query).fetchall()
    # A trace without a spec of its own is judged under any: it shares what the judge gave.
    assert shown == [("good", 9.0), ("trace", 2.0), ("trace", 9.0)]


def test_shared_judgement_is_shown_for_each_completion_and_counted_once(
    new_bench: NewBench,
) -> None:
    bench = new_bench(mode="full")
    add_twins(bench)
    bench.num_samples, bench.run_id = 3, "r1"
    bench.make(ScoringEngine())
    bench.verdicts()
    connection = connect(bench.home)
    shown = read(connection, "SELECT completion_id, count(*) FROM judgements GROUP BY ALL")
    assert dict(shown.fetchall()) == dict.fromkeys({*NAMES, *itertools.chain(*TWINS.values())}, 4)
    usage = read(connection, "SELECT num_rows FROM usage WHERE table_name = 'judgements'")
    assert usage.fetchall() == [(20,)]
    assert count_rows(connection)["judgements"] == 20
    write_shard(bench.home, SPECS, [spec_text(SPEC.id)])
    connection = connect(bench.home)
    [stale] = look_up(connection, "stale_rows", spec_ids=[SPEC.id])
    assert (stale["completions"], stale["judgements"]) == (8, 20)
    [told] = ask(connection, "drift").to_pylist()
    assert (told["num_judged"], told["num_accepted"]) == (5, 1)
    [unread] = ask(connection, "unjudged").to_pylist()
    assert (unread["num_judgements"], unread["num_completions"]) == (1, 1)
