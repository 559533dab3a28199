"""Drafts of prompts: every reply is a row, and what passes as any source's would is written."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from specs.angles import Angle
from specs.policy import Outcome as O
from specs.policy import Pack, Policy, Rule
from specs.prompts import Message
from tasks.data.candidates import read_source
from tasks.data.collect import CollectConfig
from tasks.data.drafts import DraftUnit, DraftWork, FillConfig
from tasks.data.filling import (
    StoredDraft,
    append_lines,
    count_prompts,
    file_source,
    places_of,
    plan_drafts,
    stored_drafts,
    survey,
)
from tasks.engine.requests import ScriptedEngine
from tasks.stage import StageConfig
from tests.rows import jsonl, run, source, spec_text
from warehouse.catalog import connect, look_up
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import DRAFTS, RUNS, SPECS

RULES = (
    Rule(id="B1", title="raft", outcome=O.REFUSE, text="raft is stolen", includes=("its oars",)),
    Rule(id="B2", title="skiff", outcome=O.COMPLY, text="skiff is fine"),
)
BOATS = Policy(id="boats", title="", version="1", summary={}, terms=(), rules=RULES)
PACK = Pack(id="harbour", title="", version="1", principles="", style={}, policies={"boats": BOATS})
SPEC = PACK.spec(["boats"])
PLACES = places_of(PACK, ["B1", "B2"], {"boats": SPEC})
BY_ID = {place.id: place for places in PLACES.values() for place in places}


def write(pack: Pack, angle: Angle, *, sample_index: int) -> list[Message] | None:
    """A writer that has nothing to say across the line of B2."""
    if angle.rule_id == "B2" and angle.side == "outside":
        return None
    return [{"role": "user", "content": f"{angle.text[-20:]}, number {sample_index}?"}]


class Filling:
    """A fill without Prefect: it plans, writes and surveys."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(str(folder / "home"))
        self.path = folder / "fill.jsonl"
        self.run_id = "r1"
        write_shard(self.home, SPECS, [spec_text(SPEC.id, text=SPEC.text)])

    def work(self, **config: Any) -> DraftWork:
        return DraftWork(
            config=FillConfig(**config),
            stage=StageConfig(),
            pack=PACK,
            places=BY_ID,
            model="writer@1",
            run_id=self.run_id,
        )

    def drafts(self) -> list[StoredDraft]:
        rows = look_up(connect(self.home), "drafts_of_rules", pack="harbour", rule_ids=["B1", "B2"])
        return stored_drafts(rows)

    def units(self, work: DraftWork, missing: Mapping[str, int]) -> list[DraftUnit]:
        connection: duckdb.DuckDBPyConnection = connect(self.home)
        wanted: pa.Table = plan_drafts(PLACES, self.drafts(), missing, drafting_id=work.drafting_id)
        connection.register("wanted_drafts", wanted)
        return [DraftUnit(**row) for wave in work.pending(connection) for row in wave.to_pylist()]

    def ask(self, text: str, missing: Mapping[str, int]) -> list[Any]:
        """Has a scripted engine write what is missing."""
        work = self.work()
        engine = ScriptedEngine(lambda request, index: text)
        rows = asyncio.run(work.make(self.units(work, missing), engine))
        write_shard(self.home, DRAFTS, rows)
        return rows

    def write(self, missing: Mapping[str, int]) -> list[Any]:
        """Has the function write what is missing."""
        work = self.work(function=f"{__name__}:write")
        rows = work.make_by_function(self.units(work, missing))
        write_shard(self.home, DRAFTS, rows)
        return rows


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    return Filling(tmp_path)


def test_drafts_are_spread_over_both_sides_and_all_angles(filling: Filling) -> None:
    units = filling.units(filling.work(), {"B1": 6, "B2": 1})
    asked = Counter[tuple[str, str, str]]()
    for unit in units:
        angle = BY_ID[unit.angle_id].angle
        asked[angle.rule_id, angle.side, angle.text[:24]] += len(unit.sample_indices)
    assert asked == {
        ("B1", "inside", "a request that rule B1 c"): 2,
        ("B1", "inside", "a request of this kind, "): 1,
        ("B1", "outside", "a request that looks lik"): 3,
        ("B2", "inside", "a request that rule B2 c"): 1,
    }


def test_same_drafts_again_are_not_asked_for_and_more_go_on(filling: Filling) -> None:
    first = filling.write({"B1": 3})
    again = filling.units(filling.work(function=f"{__name__}:write"), {})
    assert again == []
    second = filling.write({"B1": 3})
    assert len({row.draft_id for row in [*first, *second]}) == 6
    assert len({row.prompt_id for row in [*first, *second]}) == 6


@pytest.mark.parametrize(
    ("reply", "status", "text"),
    [
        ("<think>Who asks?</think>Where is the raft?", "ok", "Where is the raft?"),
        ('<think>Who asks?</think> "Where is the raft?"\n', "ok", "Where is the raft?"),
        ('<think>a</think>"Raft" or "skiff"', "ok", '"Raft" or "skiff"'),
        ("<think>No.</think>I'm sorry, I can't help with that.", "refused", None),
        ("<think>On and on", "unclosed", None),
        ("<think>a</think>", "empty_answer", None),
    ],
)
def test_every_reply_is_a_row(filling: Filling, reply: str, status: str, text: str | None) -> None:
    [row] = filling.ask(reply, {"B1": 1})
    assert (row.status, row.rule_id, row.side) == (status, "B1", "inside")
    assert [turn.content for turn in row.messages] == ([text] if text else [])
    assert (row.prompt_id is None) == (text is None) == bool(row.reason)


def test_label_is_that_of_the_pack_whatever_the_writer_says(filling: Filling) -> None:
    rows = filling.ask("<think>a</think>May I? The right response is comply.", {"B1": 2})
    assert {(row.side, row.ideal_response) for row in rows} == {
        ("inside", "refuse"),
        ("outside", "comply"),
    }


def test_engine_error_is_asked_for_again_in_place_of_a_new_draft(filling: Filling) -> None:
    [row] = filling.write({"B1": 1})
    filling.run_id = "r2"
    work = filling.work(function=f"{__name__}:write")
    broken = [replace(one, status="error") for one in filling.drafts()]
    wanted = plan_drafts(PLACES, broken, {"B1": 1}, drafting_id=work.drafting_id).to_pylist()
    assert [(one["angle_id"], one["sample_index"]) for one in wanted] == [(row.angle_id, 0)]


def test_drafts_pass_the_cleaning_of_sources_and_leave_theirs_alone(
    filling: Filling, tmp_path: Path
) -> None:
    rows = filling.write({"B1": 4})
    texts = [row.messages[0].content for row in rows]
    known = source(
        jsonl(tmp_path / "known.jsonl", [{"prompt": texts[0]}]),
        category=None,
        categories=["boats"],
        ideal_response_value=rows[0].ideal_response,
    )
    held_out = source(
        jsonl(tmp_path / "suite.jsonl", [{"prompt": texts[1]}]), name="suite", category=None
    )
    found = survey(
        [known],
        filling.drafts(),
        path=filling.path,
        config=CollectConfig(decontaminate=[held_out], near_duplicate_threshold=None),
        pack_categories=["boats"],
    )
    assert found.counts.left_behind == {"exact_duplicates": 1, "contaminated": 1}
    assert found.drafted_ids == {row.prompt_id for row in rows[2:]}
    counted = count_prompts(["B1", "B2"], filling.drafts(), {}, found.prompt_ids)
    assert counted == {"B1": 3, "B2": 0}, "the known prompt is one for the rule all the same"
    assert not filling.path.exists()


def test_file_is_a_source_of_prompts_and_its_lines_stay(filling: Filling) -> None:
    filling.write({"B1": 2})
    append_lines(filling.path, filling.drafts())
    kept = filling.path.read_text().splitlines()[0]
    filling.path.write_text(kept)
    write_shard(filling.home, RUNS, [run("r1")])
    filling.run_id = "r2"
    filling.write({"B1": 1})
    fresh = [one for one in filling.drafts() if not one.is_written]
    append_lines(filling.path, fresh)
    lines = filling.path.read_text().splitlines()
    assert lines[0] == kept and len(lines) == 2, "a line that was deleted does not come back"
    assert json.loads(lines[1])["rule"] == "B1"
    ids = [one.prompt_id for one in read_source(file_source(str(filling.path), "fill"))]
    assert ids == [_id_of(filling, line) for line in lines]


def _id_of(filling: Filling, line: str) -> str | None:
    return {one.draft_id: one.prompt_id for one in filling.drafts()}[json.loads(line)["draft"]]


def test_function_that_has_nothing_to_write_is_a_row_with_its_reason(filling: Filling) -> None:
    rows = filling.write({"B2": 2})
    assert {row.side: (row.status, row.prompt_id is None) for row in rows} == {
        "inside": ("ok", False),
        "outside": ("empty_answer", True),
    }


def test_function_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no function 'town:nobody'"):
        FillConfig(function="town:nobody")
