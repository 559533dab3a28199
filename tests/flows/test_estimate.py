"""An estimate counts by the same queries as the stages, and writes nothing."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from flows.estimate import estimate
from flows.recipe import Recipe, RecipeError, load_recipe
from flows.run import assign_work, document_work
from tasks.data.candidates import messages_id
from tasks.data.collect import collect
from tasks.data.generate import GenerateWork
from tasks.data.judge import JudgeWork
from tasks.engine.requests import EngineConfig, Request, ScriptedEngine
from tasks.stage import Work
from tasks.training.midtrain import MidtrainConfig
from tests.rows import completion, jsonl, judgement, prompt, run
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, PROMPTS, RUNS, content_id


def rafts(folder: Path, num_prompts: int = 3) -> Recipe:
    """Returns a recipe that wants three prompts, or as many as are given."""
    rows = [
        {"prompt": f"How do I use raft {number}?", "category": "boats"}
        for number in range(num_prompts)
    ]
    recipe = load_recipe("harbour")
    source = recipe.sources[0].model_copy(
        update={
            "path": jsonl(folder / "prompts.jsonl", rows),
            "messages": None,
            "prompt": "prompt",
            "ideal_response": None,
            "language_column": None,
        }
    )
    return recipe.model_copy(update={"sources": [source]})


@dataclass
class Refresh:
    """A refresh without Prefect and Ray, whose judge gives every answer, each another text, a 9."""

    recipe: Recipe
    home: Home
    prompt_ids: list[str] = field(default_factory=list)

    def collect(self) -> list[str]:
        """Stores the prompts; returns their ids in order."""
        collected = collect(
            self.recipe.sources,
            config=self.recipe.collect,
            pack_categories=list(self.recipe.load_pack().policies),
            home=self.home,
            connection=connect(self.home),
        )
        self.prompt_ids = collected.prompts["prompt_id"].to_pylist()
        return self.prompt_ids

    @property
    def generate(self) -> GenerateWork:
        pack = self.recipe.load_pack()
        spec = pack.spec(["boats"])
        return GenerateWork(
            config=self.recipe.generate,
            stage=self.recipe.stage,
            model=self.recipe.engine.version,
            specs={spec.id: spec},
            rules=pack.rules,
            run_id="r",
        )

    @property
    def judge(self) -> JudgeWork:
        return JudgeWork(
            config=self.recipe.judge,
            stage=self.recipe.stage,
            model=self.recipe.judging_engine.version,
            generation_id=self.generate.generation_id,
            num_completions=self.recipe.generate.samples,
            specs=self.generate.specs,
            run_id="r",
        )

    def warehouse(self) -> duckdb.DuckDBPyConnection:
        connection = connect(self.home)
        spec_ids = [self.recipe.load_pack().spec(["boats"]).id] * len(self.prompt_ids)
        connection.register("wanted", pa.table({"prompt_id": self.prompt_ids, "spec_id": spec_ids}))
        return connection

    def count_missing(self, work: Work) -> int:
        return work.pending(self.warehouse()).num_samples

    def make(self, work: Work) -> None:
        """Makes all that the work finds missing."""

        def reply(request: Request, index: int) -> str:
            return f"<think>Rule B1 covers it.</think>Fine, by way {index}.\nScore: 9"

        for wave in work.pending(self.warehouse()):
            units = [work.unit(**row) for row in wave.to_pylist()]
            rows = asyncio.run(work.make(units, ScriptedEngine(reply)))
            write_shard(self.home, work.table, rows)


def contents(home: Home) -> dict[Path, bytes]:
    files = Path(home.root).rglob("*")
    return {file: file.read_bytes() for file in files if file.is_file()}


def test_estimate_of_a_new_warehouse_counts_every_sample_and_writes_nothing(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    result = estimate(rafts(tmp_path), str(home))
    assert (result.prompts, result.new_prompts) == (3, 3)
    assert (result.completions, result.judgements) == (6, 24)
    assert result.output_tokens is None and result.hours is None
    assert not home.exists()


def test_estimate_is_what_the_stages_find_missing_with_prompts_that_are_not_stored(
    tmp_path: Path, disk: Home
) -> None:
    before = Refresh(rafts(tmp_path, num_prompts=2), disk)
    before.collect()
    before.make(before.generate)
    before.prompt_ids = before.prompt_ids[:1]
    before.make(before.judge)
    files = contents(disk)

    # Five prompts, three of them new; one of the two stored ones is not judged yet.
    recipe = rafts(tmp_path, num_prompts=5)
    result = estimate(recipe, disk.url)
    assert contents(disk) == files
    assert (result.prompts, result.new_prompts) == (5, 3)

    after = Refresh(recipe, disk)
    after.collect()
    assert result.completions == after.count_missing(after.generate) == 3 * 2
    after.make(after.generate)
    assert result.judgements == after.count_missing(after.judge) == 4 * 2 * 4
    after.make(after.judge)
    done = estimate(recipe, disk.url)
    assert (done.new_prompts, done.completions, done.judgements) == (0, 0, 0)


@pytest.mark.parametrize(
    ("status", "attempt", "sample", "missing"),
    [
        ("ok", 0, ("ok", 0, 9.0), (5, 3 + 20)),
        # Asked for again while attempts are left: an engine error, an unreadable judge sample.
        ("error", 0, None, (6, 24)),
        ("error", 4, None, (5, 20)),
        ("ok", 0, ("no_verdict", 0, None), (5, 4 + 20)),
        ("ok", 0, ("no_verdict", 1, None), (5, 3 + 20)),
        ("ok", 0, ("error", 1, None), (5, 4 + 20)),
    ],
)
def test_estimate_counts_the_retries_of_a_refresh(
    tmp_path: Path,
    disk: Home,
    status: str,
    attempt: int,
    sample: tuple[str, int, float | None] | None,
    missing: tuple[int, int],
) -> None:
    recipe = rafts(tmp_path)
    prompt_id, *_ = Refresh(recipe, disk).collect()
    spec_id = recipe.load_pack().spec(("boats",)).id
    generation_id = recipe.generate.generation_id(recipe.engine.version)
    completion_id = content_id(prompt_id, spec_id, generation_id, 0)
    first = completion(
        completion_id,
        prompt_id=prompt_id,
        spec_id=spec_id,
        generation_id=generation_id,
        status=status,
        attempt=attempt,
    )
    write_shard(disk, COMPLETIONS, [first])
    if sample:
        judging_id = recipe.judge.judging_id(recipe.judging_engine.version)
        row = judgement(
            completion_id,
            0,
            sample[2],
            judgement_id=content_id(prompt_id, first.text_id, spec_id, judging_id, 0),
            prompt_id=prompt_id,
            spec_id=spec_id,
            judging_id=judging_id,
            status=sample[0],
            attempt=sample[1],
        )
        write_shard(disk, JUDGEMENTS, [row])
    result = estimate(recipe, disk.url)
    assert (result.completions, result.judgements) == missing


def test_estimate_scales_what_such_rows_took_in_refreshes_that_completed(
    tmp_path: Path, disk: Home
) -> None:
    def stages(**seconds: float) -> str:
        entries: dict[str, Any] = {
            name: {"num_rows": 12, "seconds": value, "usage": {"output_tokens": 100}}
            for name, value in seconds.items()
        }
        return json.dumps({"stages": entries})

    completed = run("r1", figures=stages(generate=7200.0, judge=3600.0))
    failed = run("r2", status="failed", figures=stages(generate=9e9, judge=9e9))
    write_shard(disk, RUNS, [completed, failed])
    recipe = rafts(tmp_path)
    engine = recipe.engine.model_copy(update={"use_gpu": True, "replicas": 2})
    result = estimate(recipe.model_copy(update={"engine": engine, "gpu_hour_price": 1.5}), disk.url)
    # 6 completions and 24 judgements, where 12 of each took two hours and one hour.
    assert (result.completions, result.judgements) == (6, 24)
    assert result.output_tokens == 50 + 200
    assert result.hours == 1.0 + 2.0
    assert result.gpu_hours == 2 * 3.0 and result.cost == 9.0


def test_estimate_tells_what_an_endpoint_costs_and_the_most_before_it_is_known(
    tmp_path: Path, disk: Home
) -> None:
    """Cached tokens have a price of their own; an engine of one's own costs nothing here."""
    prices = {"input": 1_000_000.0, "cached": 500_000.0, "output": 2_000_000.0}
    endpoint = {"url": "http://127.0.0.1:1/v1", "prices": prices}
    judge = EngineConfig.model_validate({"model": "town-1", "endpoint": endpoint})
    recipe = rafts(tmp_path).model_copy(update={"judge_engine": judge})
    before = estimate(recipe, disk.url)
    # 24 judgements of at most 160 tokens.
    assert (before.endpoint_cost, before.endpoint_limit) == (None, 24 * 160 * 2.0)
    assert "cost of the endpoints, at most: 7680, if every" in before.as_markdown()

    usage = {"prompt_tokens": 100, "cached_tokens": 40, "output_tokens": 30}
    stages = {
        name: {"num_rows": 12, "seconds": 1.0, "usage": usage} for name in ("generate", "judge")
    }
    write_shard(disk, RUNS, [run("r1", figures=json.dumps({"stages": stages}))])
    # Twice as many judgements: 120 prompt tokens, 80 cached ones, 60 of output.
    after = estimate(recipe, disk.url)
    assert after.endpoint_cost == 120 + 80 * 0.5 + 60 * 2
    assert "- cost of the endpoints: 280\n" in after.as_markdown() + "\n"


def test_prompts_whose_category_is_to_be_chosen_are_counted_and_never_as_nothing(
    tmp_path: Path, disk: Home
) -> None:
    recipe = rafts(tmp_path)
    rows = [
        {"prompt": "How do I use raft 0?", "category": "boats"},
        {"prompt": "How do I use raft 0?", "category": "boats"},
        {"prompt": "How do I bake bread?"},
        {"prompt": "Where are fish sold?"},
        {"prompt": ""},
        {"prompt": "Where is the pier?", "category": "boats"},
        {"prompt": "Where is the pier?", "category": "fish"},
    ]
    source = recipe.sources[0].model_copy(
        update={"path": jsonl(tmp_path / "rows.jsonl", rows), "assign_category": True}
    )
    recipe = recipe.model_copy(update={"sources": [source], "gpu_hour_price": 3.0})
    result = estimate(recipe, disk.url)
    assert (result.prompts, result.assignments) == (3, 2)
    assert (result.completions, result.judgements) == (3 * 2, 3 * 2 * 4)
    assert result.left_behind == {"conflicting": 2, "exact_duplicates": 1, "empty_prompt": 1}
    assert (result.cost, result.gpu_hours, result.output_tokens) == (None, None, None)
    text = result.as_markdown()
    assert "categories to choose: 2" in text and "completions to generate, at most: 6" in text
    assert "rows left behind: 2 conflicting, 1 exact_duplicates, 1 empty_prompt" in text
    assert "boats" in text and "rows.jsonl:6" in text and "pier" not in text


def test_prompts_whose_attempts_at_a_category_are_used_up_are_left_behind(
    tmp_path: Path, disk: Home
) -> None:
    recipe = rafts(tmp_path)
    rows = [{"prompt": "How do I bake bread?"}, {"prompt": "Where are fish sold?"}]
    source = recipe.sources[0].model_copy(
        update={"path": jsonl(tmp_path / "rows.jsonl", rows), "assign_category": True}
        | {"category": None}
    )
    recipe = recipe.model_copy(update={"sources": [source]})
    work = assign_work(recipe, recipe.load_pack(), model=recipe.judging_engine.version)
    stored = [
        prompt(
            text,
            prompt_id=messages_id([{"role": "user", "content": text}]),
            categories=[],
            status="unread",
            assigning_id=work.assigning_id,
            assigning_attempt=attempt,
        )
        for text, attempt in ((rows[0]["prompt"], 4), (rows[1]["prompt"], 3))
    ]
    write_shard(disk, PROMPTS, stored)
    result = estimate(recipe, disk.url)
    assert (result.prompts, result.assignments) == (1, 1)
    assert result.left_behind == {"unread": 1}


def test_estimate_counts_the_samples_of_every_judge_of_a_jury(tmp_path: Path, disk: Home) -> None:
    lone = rafts(tmp_path)
    second = lone.engine.model_copy(update={"dtype": "float32"})
    jury = lone.model_copy(update={"judge_engines": [lone.engine, second]})
    assert estimate(jury, disk.url).judgements == 2 * estimate(lone, disk.url).judgements
    refresh = Refresh(lone, disk)
    refresh.collect()
    refresh.make(refresh.generate)
    refresh.make(refresh.judge)
    # What the first judge gave as a lone one counts.
    assert estimate(lone, disk.url).judgements == 0
    assert estimate(jury, disk.url).judgements == 3 * lone.generate.samples * lone.judge.samples


def test_estimate_of_a_jury_with_the_same_judge_twice_names_both(
    tmp_path: Path, disk: Home
) -> None:
    lone = rafts(tmp_path)
    jury = lone.model_copy(update={"judge_engines": [lone.engine, lone.engine]})
    with pytest.raises(RecipeError, match=r"judge_engines\.0 and judge_engines\.1 are the same"):
        estimate(jury, disk.url)


def test_estimate_counts_the_documents_that_training_would_have_written(
    tmp_path: Path, disk: Home
) -> None:
    midtrain = MidtrainConfig(samples=2, kinds=["summary"])
    recipe = rafts(tmp_path).model_copy(update={"midtrain": midtrain})
    result = estimate(recipe, disk.url)
    assert result.documents == 2 * len(recipe.load_pack().policies)
    line = f"- documents that precept train writes first, not counted above: {result.documents}"
    assert line in result.as_markdown().splitlines()

    work = document_work(recipe, midtrain, recipe.load_pack(), model=recipe.engine.version)
    connection = connect(disk)
    connection.register("wanted_documents", work.wanted)
    [wave] = work.pending(connection)
    units = [work.unit(**row) for row in wave.to_pylist()]

    def reply(request: Request, index: int) -> str:
        return "<think>Why?</think>It keeps the peace."

    write_shard(disk, work.table, asyncio.run(work.make(units[1:], ScriptedEngine(reply))))
    assert estimate(recipe, disk.url).documents == 2
