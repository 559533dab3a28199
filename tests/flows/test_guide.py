"""A category of guide rules goes through the whole chain, and the starter pack uses each part."""

import asyncio
import re
from pathlib import Path

import pyarrow as pa
from typer.testing import CliRunner

from flows.__main__ import app
from flows.project import STARTER_PACK
from flows.recipe import Recipe
from specs.adherence import load_adherence
from specs.pack import load_pack
from specs.replies import Reply, ReplyStatus
from specs.rubrics import GradingRequest, PropositionsRubric
from tasks.data.generate import GenerateConfig, GenerateWork
from tasks.data.judge import JudgeConfig, JudgeWork
from tasks.engine.requests import ScriptedEngine
from tasks.stage import StageConfig
from tasks.training.reward import kind_of
from tests.flows.test_traces import SCORED, fetch, jsonl, refreshed, row
from tests.rows import prompt
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, PROMPTS

PACK = load_pack(STARTER_PACK)
TONE = PACK.spec(["tone"])
OPEN = prompt("Are you open?", categories=["tone"], ideal_response=None)


def test_a_prompt_of_guide_rules_is_answered_and_judged_under_them(disk: Home) -> None:
    write_shard(disk, PROMPTS, [OPEN])
    config = GenerateConfig(samples=1)
    common = {"stage": StageConfig(), "specs": {TONE.id: TONE}, "run_id": "r"}
    generating = GenerateWork(config=config, model="g@1", rules=PACK.rules, **common)
    writer = ScriptedEngine(lambda request, index: "<think>Rule T1 [T1] holds.</think>No.")
    [written] = _made(disk, generating, writer)
    assert written.cited == ["T1"] and written.status == "ok"
    write_shard(disk, COMPLETIONS, [written])
    judging = JudgeWork(
        config=JudgeConfig(samples=1),
        model="j@1",
        generation_id=config.generation_id("g@1"),
        num_completions=1,
        **common,
    )
    judge = ScriptedEngine(lambda request, index: "<think>Short.</think>Score: 9")
    [judged] = _made(disk, judging, judge)
    assert judged.score == 9
    for engine in (writer, judge):
        [request] = engine.requests
        assert "[T1, guide]" in "".join(message["content"] for message in request.messages)


def _made(home: Home, work: GenerateWork | JudgeWork, engine: ScriptedEngine) -> list:  # type: ignore[type-arg]
    connection = connect(home)
    wanted = {"prompt_id": [OPEN.prompt_id], "spec_id": [TONE.id]}
    connection.register("wanted", pa.table(wanted))
    units = [work.unit(**one) for wave in work.pending(connection) for one in wave.to_pylist()]
    return list(asyncio.run(work.make(units, engine)))  # type: ignore[arg-type]


def test_an_accepted_answer_under_guide_rules_becomes_an_example(
    tmp_path: Path, disk: Home
) -> None:
    rows = [row("Are you open?", "<think>Rule T1 holds.</think>No.", score=[9, 9])]
    traces = {"name": "bought", "path": jsonl(tmp_path / "traces.jsonl", rows), "model": "org/R1"}
    traces |= {"prompt": "prompt", "response": "response", "categories": ["tone"], **SCORED}
    wanted = Recipe.model_validate({"name": "m", "pack": str(STARTER_PACK), "traces": [traces]})
    _, curated = refreshed(wanted, disk)
    assert curated.num_chosen == 1
    assert fetch(disk, "SELECT categories, ideal_response FROM examples") == [(["tone"], None)]
    assert kind_of(None) == "ambiguous"


def test_answers_under_guide_rules_are_graded_by_the_style_of_guide() -> None:
    rubric = PropositionsRubric(load_adherence(STARTER_PACK))
    chat = [{"role": "user", "content": "Are you open?"}]
    request = GradingRequest(conversation=chat, answer="No.", categories=["tone"])  # type: ignore[arg-type]
    for flatters, style in (("no", 1.0), ("yes", 0.0)):
        answer = f"is_short: yes\nflatters: {flatters}"
        assert rubric.read(Reply(ReplyStatus.OK, "", answer), request).scores["style"] == style
    adherence = rubric.adherence
    assert adherence.style_of(None, ["tone", "orders"]) is None
    assert adherence.style_of(None, []) is None
    assert adherence.style_of("refuse", ["orders"]) == "refuse"


def test_new_pack_passes_the_check_and_uses_each_part_of_the_format(tmp_path: Path) -> None:
    folder = str(tmp_path / "my pack")
    run = CliRunner().invoke(app, ["policies", "new", folder])
    assert run.exit_code == 0
    assert f"next: precept policies check '{folder}'" in run.stdout
    assert "then: precept preview RECIPE --set 'pack=" in run.stdout
    assert CliRunner().invoke(app, ["policies", "check", folder]).exit_code == 0
    pack = load_pack(folder)
    assert load_adherence(folder).styles.keys() == {"comply", "refuse", "safe_complete", "guide"}
    orders = pack.policies["orders"]
    assert all((orders.goal, orders.scope, orders.terms, orders.levels, orders.unclear))
    assert all((orders.style, orders.authority, pack.authorities))
    first, second, *_ = orders.rules
    assert all((first.includes, first.excludes, first.cases, first.unclear, first.authority))
    assert any(item.goto is None for item in first.excludes) and first.cases[0].because
    assert {label for label, _ in second.examples[0].turns} >= {"System", "User", "Good answer"}
    assert pack.policies["tone"].is_guide
    again = CliRunner().invoke(app, ["policies", "new", folder])
    assert again.exit_code == 2


def test_a_mistake_in_a_heading_is_one_fault_whatever_its_cases_and_examples_have(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mine"
    CliRunner().invoke(app, ["policies", "new", str(folder)])
    tone = folder / "tone.md"
    text = tone.read_text(encoding="utf-8")
    assert "- Case: " in text and "### Example: " in text
    tone.write_text(re.sub(r"^(## T1 .*)\(guide\)$", r"\1(deny)", text, flags=re.M), "utf-8")
    run = CliRunner().invoke(app, ["policies", "check", str(folder)])
    assert run.exit_code == 2 and "faults: 1, findings: 0" in run.stdout
    assert "unknown outcome 'deny'; use comply, refuse, safe_complete, guide" in run.stderr
