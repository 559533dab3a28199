"""Generating makes the samples that are missing, and every sample becomes a row."""

import asyncio
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import specs
from specs.pack import load_pack
from specs.prompts import Message
from specs.template import forget_templates
from tasks.data.candidates import read_source
from tasks.data.generate import CompletionUnit, GenerateConfig, GenerateWork
from tasks.engine.requests import Engine, Request, Sample, Sampling, ScriptedEngine, failed
from tasks.refine import RefineConfig
from tasks.stage import StageConfig
from tests.rows import jsonl, prompt, source
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import list_shards, write_shard
from warehouse.tables import COMPLETIONS, PROMPTS, Completion, Prompt, Turn, content_id
from warehouse.upkeep import mend

PACK = load_pack(Path(specs.__file__).parent / "harbour")
BOATS, FISH = PACK.spec(["boats"]), PACK.spec(["fish"])
SPECS = {BOATS.id: BOATS, FISH.id: FISH}
RULE = BOATS.rule_ids[0]
SKIFF, RAFT = prompt("may i take the skiff"), prompt("may i take the raft")
EEL = prompt("may i eat the eel", categories=["fish"])
WORDS = {
    "critique": "=== user ===\nFind faults.\n{{rules}}\n{{conversation}}\n{{answer}}\n",
    "revision": "=== user ===\nMend it.\n{{conversation}}\n{{answer}}\n{{critique}}\n",
}
GOOD = f"<think>Rule {RULE} covers it.</think>Take it."


@dataclass
class Factory:
    """A stage without Ray: it finds pending units, makes their rows and commits them."""

    home: Home
    wanted: Sequence[tuple[Prompt, str]]
    config: GenerateConfig
    model: str = "generator@1"
    retries: int = 1
    run_id: str = "r"

    def connection(self) -> duckdb.DuckDBPyConnection:
        connection = connect(self.home)
        ids = {
            "prompt_id": [row.prompt_id for row, _ in self.wanted],
            "spec_id": [spec_id for _, spec_id in self.wanted],
        }
        connection.register("wanted", pa.table(ids))
        return connection

    def work(self, wave_rows: int = 100) -> GenerateWork:
        return GenerateWork(
            config=self.config,
            stage=StageConfig(retries=self.retries, wave_rows=wave_rows),
            model=self.model,
            specs=SPECS,
            rules=PACK.rules,
            run_id=self.run_id,
        )

    def waves(self, wave_rows: int = 100) -> list[list[CompletionUnit]]:
        work = self.work(wave_rows)
        pending = work.pending(self.connection())
        waves = [[work.unit(**row) for row in wave.to_pylist()] for wave in pending]
        units = [unit for wave in waves for unit in wave]
        assert pending.num_units == len(units)
        assert pending.num_samples == sum(len(unit.sample_indices) for unit in units)
        return waves

    def units(self) -> list[CompletionUnit]:
        return [unit for wave in self.waves() for unit in wave]

    def make(self, engine: Engine) -> list[Completion]:
        work = self.work()
        rows = asyncio.run(work.make(self.units(), engine))
        write_shard(self.home, work.table, rows)
        return rows

    def stored(self) -> list[dict[str, Any]]:
        sql = "FROM completions_all ORDER BY prompt_id, sample_index"
        rows: list[dict[str, Any]] = self.connection().sql(sql).to_arrow_table().to_pylist()
        return rows


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    home = Home(str(tmp_path))
    write_shard(home, PROMPTS, [SKIFF, RAFT, EEL])
    wanted = [(EEL, FISH.id), (SKIFF, BOATS.id), (RAFT, BOATS.id)]
    return Factory(home, wanted, GenerateConfig(samples=2))


def constant(text: str) -> ScriptedEngine:
    return ScriptedEngine(lambda request, index: text)


class BrokenEngine:
    """An engine that answers nothing."""

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[failed("error", "engine died")] * request.num_samples for request in requests]


def test_every_sample_becomes_a_row_and_nothing_is_pending(factory: Factory) -> None:
    engine = constant(GOOD)
    rows = factory.make(engine)
    assert len(rows) == 6 and len(engine.requests) == 3
    assert {row.status for row in rows} == {"ok"}
    assert {(row.answer, row.reasoning) for row in rows} == {
        ("Take it.", f"Rule {RULE} covers it.")
    }
    assert all(row.cited == [RULE] and row.cited_unknown == [] for row in rows)
    assert factory.units() == []


def test_a_generator_is_shown_the_spec_and_asked_for_all_samples_in_one_request(
    factory: Factory,
) -> None:
    engine = constant(GOOD)
    factory.make(engine)
    for request in engine.requests:
        assert request.num_samples == 2
        last: Message = request.messages[-1]
        spec = FISH if last["content"] == "may i eat the eel" else BOATS
        assert spec.text in request.messages[0]["content"]


def test_a_generator_without_policies_is_shown_the_chat_alone(factory: Factory) -> None:
    shown = factory.config.generation_id("generator@1")
    factory.config = GenerateConfig(samples=2, context="none")
    engine = constant(GOOD)
    rows = factory.make(engine)
    assert all(
        [message["role"] for message in request.messages] == ["user"] for request in engine.requests
    )
    # The judge is shown the policies all the same.
    assert {row.spec_id for row in rows} == {BOATS.id, FISH.id}
    assert all(row.generation_id != shown for row in rows)


def test_a_completion_that_is_revised_is_the_revision(factory: Factory) -> None:
    plain = factory.config.generation_id("generator@1")
    factory.config = GenerateConfig(samples=2, refine=RefineConfig(rules="drawn"))
    kinds = {"You improve answers": "revised", "You review answers": "criticised"}

    def script(request: Request, index: int) -> str:
        first = request.messages[0]["content"]
        kind = next((kind for start, kind in kinds.items() if first.startswith(start)), "drafted")
        return f"<think>Thus {kind}.</think>It is {kind}."

    rows = factory.make(ScriptedEngine(script))
    assert {(row.answer, row.reasoning) for row in rows} == {("It is revised.", "Thus revised.")}
    assert all(row.generation_id != plain for row in rows)


def test_machine_without_a_recipes_critique_makes_the_rows_that_were_planned(
    factory: Factory, tmp_path: Path
) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    for kind, text in WORDS.items():
        (folder / f"{kind}.md").write_text(text, encoding="utf-8")
    factory.config = GenerateConfig(refine=RefineConfig(), template=str(folder))
    work, units = factory.work(), factory.units()
    elsewhere = pickle.loads(pickle.dumps(work))
    shutil.rmtree(folder)
    forget_templates()
    [row, *_] = asyncio.run(elsewhere.make(units, constant(GOOD)))
    assert row.generation_id == work.generation_id


def test_the_id_of_a_row_is_the_hash_of_its_definition(factory: Factory) -> None:
    generation_id = factory.config.generation_id("generator@1")
    for row in factory.make(constant(GOOD)):
        assert row.completion_id == content_id(
            row.prompt_id, row.spec_id, generation_id, row.sample_index
        )


def test_a_second_run_makes_only_the_samples_that_are_new(factory: Factory) -> None:
    before = factory.make(constant(GOOD))
    factory.config = GenerateConfig(samples=3)
    after = factory.make(constant(GOOD))
    assert [row.sample_index for row in after] == [2, 2, 2]
    kept = {row.completion_id for row in before}
    assert kept <= {row["completion_id"] for row in factory.stored()}
    factory.config = GenerateConfig(samples=1)
    assert factory.units() == []


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (GenerateConfig(samples=2, sampling=Sampling(temperature=0.7)), "generator@1"),
        (GenerateConfig(samples=2, template="paper"), "generator@1"),
        (GenerateConfig(samples=2), "generator@2"),
    ],
    ids=["sampling", "template", "model"],
)
def test_another_template_model_or_sampling_makes_new_rows(
    factory: Factory, config: GenerateConfig, model: str
) -> None:
    factory.make(constant(GOOD))
    changed = replace(factory, config=config, model=model)
    assert len(changed.units()) == 3
    changed.make(constant(GOOD))
    assert len(factory.stored()) == 12
    assert factory.units() == [] == changed.units()


def test_an_edited_policy_makes_only_its_own_rows_pending(factory: Factory) -> None:
    factory.make(constant(GOOD))
    factory.wanted = [(row, "edited" if row is EEL else spec_id) for row, spec_id in factory.wanted]
    (unit,) = factory.units()
    assert (unit.prompt_id, unit.spec_id) == (EEL.prompt_id, "edited")


def test_units_come_spec_by_spec_in_waves(factory: Factory) -> None:
    waves = factory.waves(wave_rows=2)
    assert [len(wave) for wave in waves] == [2, 1]
    spec_ids = [unit.spec_id for wave in waves for unit in wave]
    assert spec_ids == sorted(spec_ids)
    assert waves[0][0].messages[0]["role"] == "user"


def test_engine_errors_are_rows_and_are_retried_within_the_budget_and_in_later_runs(
    factory: Factory,
) -> None:
    first = factory.make(BrokenEngine())
    assert {(row.status, row.reason, row.attempt) for row in first} == {("error", "engine died", 0)}
    assert [unit.attempts for unit in factory.units()] == [[1, 1]] * 3
    second = factory.make(BrokenEngine())
    assert {row.completion_id for row in second} == {row.completion_id for row in first}
    assert factory.units() == []
    factory.run_id = "a later night"
    assert [unit.attempts for unit in factory.units()] == [[2, 2]] * 3
    third = factory.make(constant(GOOD))
    assert {(row.status, row.attempt) for row in third} == {("ok", 2)}
    assert {row["status"] for row in factory.stored()} == {"ok"}
    assert factory.units() == []


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("<think>never closed", "unclosed", "never closed"),
        ("<think>a</think>b<think>c</think>d", "malformed", "tag"),
        ("<think>a</think>", "empty_answer", "nothing follows"),
        ("<think></think>b", "empty_reasoning", "no reasoning"),
    ],
)
def test_a_reply_that_cannot_be_used_is_a_row_with_its_reason_and_is_final(
    factory: Factory, text: str, status: str, reason: str
) -> None:
    rows = factory.make(constant(text))
    assert {row.status for row in rows} == {status}
    assert all(row.reason and reason in row.reason for row in rows)
    assert factory.units() == []


def test_an_output_that_was_cut_short_is_truncated_even_if_it_splits(
    factory: Factory,
) -> None:
    class Cut(ScriptedEngine):
        def _sample(self, text: str) -> Sample:
            return replace(super()._sample(text), finish_reason="length")

    rows = factory.make(Cut(lambda request, index: GOOD))
    assert {(row.status, row.reason) for row in rows} == {
        ("truncated", "the output reached max_tokens")
    }


def test_a_rule_that_does_not_exist_is_recorded_as_such(factory: Factory) -> None:
    rows = factory.make(constant(f"<think>Rule {RULE} and rule X99 say so.</think>Yes."))
    assert {(tuple(row.cited), tuple(row.cited_unknown)) for row in rows} == {((RULE,), ("X99",))}


def test_rows_of_a_damaged_shard_are_pending_again(factory: Factory) -> None:
    rows = factory.make(constant(GOOD))
    (path,) = list_shards(factory.home, COMPLETIONS)
    Path(path).write_bytes(Path(path).read_bytes()[:100])
    assert [damaged.table for damaged in mend(factory.home)] == ["completions"]
    assert len(factory.units()) == 3
    again = factory.make(constant(GOOD))
    assert {row.completion_id for row in again} == {row.completion_id for row in rows}
    assert factory.units() == []


def test_a_prompt_that_is_not_stored_is_not_counted_as_pending(factory: Factory) -> None:
    factory.wanted = [(prompt("never collected"), BOATS.id)]
    assert factory.units() == []


def test_words_of_a_template_travel_with_the_work_to_machines_that_lack_its_file(
    disk: Home, tmp_path: Path
) -> None:
    words = "=== system ===\nYou know by heart:\n{{spec}}\n=== conversation ===\n"
    (tmp_path / "generator.md").write_text(words, encoding="utf-8")
    write_shard(disk, PROMPTS, [SKIFF])
    config = GenerateConfig(samples=1, template=str(tmp_path))
    factory = Factory(disk, [(SKIFF, BOATS.id)], config)
    [[unit]] = factory.waves()
    packed = pickle.dumps(factory.work())
    (tmp_path / "generator.md").unlink()
    forget_templates()
    work, engine = pickle.loads(packed), ScriptedEngine(lambda request, index: GOOD)
    [row] = asyncio.run(work.make([unit], engine))
    assert engine.requests[0].messages[0]["content"].startswith("You know by heart:\n")
    assert row.generation_id == work.generation_id != GenerateConfig().generation_id("generator@1")


def test_calls_of_tools_are_stored_and_reach_the_generator_as_they_were(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    call = {"name": "get_tides", "arguments": '{"day": "Monday"}'}
    chat = [
        {"role": "user", "content": "When is high water?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": call}]},
        {"role": "tool", "tool_call_id": "x", "content": "at four"},
        {"role": "user", "content": "May I sail then?"},
    ]
    chosen = source(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), categories=["boats"])
    [candidate] = read_source(chosen)
    turns = [Turn(**message) for message in candidate.messages]
    row = prompt("", prompt_id=candidate.prompt_id, messages=turns)
    write_shard(home, PROMPTS, [row])
    engine = constant(GOOD)
    Factory(home, [(row, BOATS.id)], GenerateConfig(samples=1)).make(engine)
    [request] = engine.requests
    given = [{k: v for k, v in turn.items() if v is not None} for turn in request.messages]
    assert given[1:] == candidate.messages
