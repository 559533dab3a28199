"""Drafts of prompts: every reply is a row, and what passes as any source's would is written."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from flows.run import RunFigures
from specs.angles import Angle
from specs.policy import Outcome as O
from specs.policy import Pack, Policy, Rule
from specs.prompts import Message
from tasks.data.candidates import read_source
from tasks.data.collect import CollectConfig
from tasks.data.drafts import DraftUnit, DraftWork, FillConfig
from tasks.data.filling import (
    FilledFile,
    StoredDraft,
    Survey,
    file_source,
    mislabelled,
    outdated,
    places_of,
    plan_drafts,
    stored_drafts,
    survey,
)
from tasks.data.sources import SourceConfig
from tasks.engine.requests import Sampling, ScriptedEngine
from tasks.stage import StageConfig
from tests.rows import jsonl, run, source, spec_text
from warehouse.catalog import connect, look_up
from warehouse.files import OutputError, append_lines
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
        wanted: pa.Table = plan_drafts(PLACES, self.drafts(), missing, work=work)
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

    def end(self, run_id: str, **changes: Any) -> None:
        """Ends a fill for B1, which has started before all drafts but its own."""
        figures = RunFigures(filled=FilledFile(str(self.path), "harbour", ["B1"])).as_json()
        ended = {"flow": "fill", "figures": figures, **changes}
        write_shard(self.home, RUNS, [run(run_id, **ended)])

    def survey(
        self, sources: list[SourceConfig], drafts: list[StoredDraft] | None = None
    ) -> Survey:
        return survey(
            sources,
            self.drafts() if drafts is None else drafts,
            path=self.path,
            config=CollectConfig(near_duplicate_threshold=None),
            pack_categories=["boats"],
        )


def add(path: Path, drafts: list[StoredDraft]) -> None:
    append_lines(path, "".join(f"{one.line()}\n" for one in drafts).encode())


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


def test_engine_error_is_asked_for_again_by_later_runs_and_not_for_ever(filling: Filling) -> None:
    [row] = filling.write({"B1": 1})
    work = filling.work(function=f"{__name__}:write")
    [broken] = [replace(one, status="error") for one in filling.drafts()]

    def planned(**changes: Any) -> list[int]:
        drafts = [replace(broken, **changes)]
        wanted = plan_drafts(PLACES, drafts, {"B1": 1}, work=work).to_pylist()
        return [one["sample_index"] for one in wanted if one["angle_id"] == row.angle_id]

    assert planned(run_id="r0") == [0]
    assert planned() == [], "another draft is asked for in its place"
    assert planned(run_id="r0", attempt=work.stage.error_attempts - 1) == []


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
    assert {row.prompt_id for row in rows} - found.prompt_ids == {rows[1].prompt_id}
    assert not filling.path.exists()


def test_file_is_a_source_of_prompts_and_its_lines_stay(filling: Filling) -> None:
    filling.write({"B1": 2})
    add(filling.path, filling.drafts())
    kept = filling.path.read_text().splitlines()[0]
    filling.path.write_text(kept)
    filling.end("r1")
    filling.run_id = "r2"
    filling.write({"B1": 1})
    fresh = [one for one in filling.drafts() if not one.is_written]
    add(filling.path, fresh)
    lines = filling.path.read_text().splitlines()
    assert lines[0] == kept and len(lines) == 2, "a line that was deleted does not come back"
    assert json.loads(lines[1])["rule"] == "B1"
    ids = [one.prompt_id for one in read_source(file_source(str(filling.path), "fill"))]
    assert ids == [_id_of(filling, line) for line in lines]


def test_line_that_was_deleted_stays_so_if_its_fill_was_killed_and_another_went_on(
    filling: Filling,
) -> None:
    filling.write({"B1": 1, "B2": 1})
    filling.end("r1", status="running")
    assert [one.is_written for one in filling.drafts()] == [False, False]
    filling.end("r2", started_at=datetime.now(UTC))
    written = {one.rule_id: one.is_written for one in filling.drafts()}
    assert written == {"B1": True, "B2": False}, "the second fill was for B1 alone"


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"{}\n", b"{}\r\n{}\r\n", b"\xef\xbb\xbf{}\n", b"caf\xe9\n", b"\n\n"]
)
def test_no_byte_of_a_file_changes_when_lines_are_added(tmp_path: Path, text: bytes) -> None:
    path, link = tmp_path / "file.jsonl", tmp_path / "link.jsonl"
    path.write_bytes(text)
    link.symlink_to(path)
    append_lines(link, b"[]\n")
    added = b"[]\n" if text.endswith(b"\n") or not text else b"\n[]\n"
    assert path.read_bytes() == text + added and link.is_symlink()


def test_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    full = Path("/dev/full")
    for path, fault in ((tmp_path, "is a folder"), (full, "cannot be written: No space left")):
        with pytest.raises(OutputError, match=fault):
            append_lines(path, b"[]\n")


def test_file_without_a_line_left_is_filled_again_with_new_drafts_alone(filling: Filling) -> None:
    filling.write({"B1": 2})
    filling.path.write_text("\n")
    for sources in ([], [file_source(str(filling.path), "fill")]):
        found = filling.survey(sources)
        assert found.drafted_ids == {one.prompt_id for one in filling.drafts()}


def test_prompt_that_a_person_changed_stays_one_for_its_rule(filling: Filling) -> None:
    filling.write({"B1": 2})
    add(filling.path, filling.drafts())
    filling.path.write_text(filling.path.read_text().replace("number 0", "number nil"))
    with filling.path.open("a") as file:
        file.write('{"messages": [{"role": "user", "content": "of no rule"}], "category": "boats"}')
    found = filling.survey([], drafts=[])
    assert [line.rule_id for line in found.lines.values()] == ["B1", "B1", None]
    assert set(found.lines) == found.prompt_ids


def test_prompt_whose_label_the_pack_has_changed_is_told_until_its_line_is_changed(
    filling: Filling,
) -> None:
    filling.write({"B1": 2})
    drafts = filling.drafts()
    add(filling.path, drafts)
    changed = PACK.with_other_outcome("B1")

    # What is written now has the new label, and conflicts with what the file says.
    anew = [replace(one, ideal_response=None) for one in drafts]

    def told() -> set[str]:
        ids = mislabelled(drafts, changed, filling.survey([], drafts=anew).lines)
        return {one.side for one in drafts if one.prompt_id in ids}

    assert told() == {"inside", "outside"}
    assert outdated(drafts, PACK) == []
    lines = filling.path.read_text().replace('"refuse"', '"comply"')
    filling.path.write_text(lines)
    assert told() == {"outside"}


def _id_of(filling: Filling, line: str) -> str | None:
    return {one.draft_id: one.prompt_id for one in filling.drafts()}[json.loads(line)["draft"]]


def test_function_that_has_nothing_to_write_is_a_row_with_its_reason(filling: Filling) -> None:
    rows = filling.write({"B2": 2})
    assert {row.side: (row.status, row.prompt_id is None) for row in rows} == {
        "inside": ("ok", False),
        "outside": ("empty_answer", True),
    }


@pytest.mark.parametrize(
    ("written", "status"),
    [
        (ValueError("no such thing"), "error"),
        ([{"role": "assistant", "content": "Take it."}], "error"),
        ([{"role": "user", "content": " "}], "error"),
        ([], "error"),
        (7, "error"),
        ([{"role": "User", "content": "Where?\r\nHere?"}], "ok"),
    ],
)
def test_function_that_fails_at_one_place_writes_the_others(
    filling: Filling, monkeypatch: pytest.MonkeyPatch, written: Any, status: str
) -> None:
    def broken(pack: Pack, angle: Angle, *, sample_index: int) -> Any:
        if angle.side == "inside":
            return [{"role": "user", "content": "Where is it?"}]
        if isinstance(written, Exception):
            raise written
        return written

    monkeypatch.setattr(sys.modules[__name__], "write", broken)
    rows = filling.write({"B1": 2})
    statuses = {row.side: row.status for row in rows}
    assert statuses == {"inside": "ok", "outside": status}
    add(filling.path, [one for one in filling.drafts() if one.status == "ok"])
    ids = {one.prompt_id for one in read_source(file_source(str(filling.path), "fill"))}
    assert ids == {row.prompt_id for row in rows if row.status == "ok"}
    assert all(row.reason for row in rows if row.status == "error")


def test_model_that_would_write_one_draft_over_and_over_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature is 0, so that all drafts"):
        FillConfig(sampling=Sampling(temperature=0))


def test_function_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no function 'town:nobody'"):
        FillConfig(function="town:nobody")
