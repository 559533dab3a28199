"""Packs that are not about safety go through every stage unchanged, by their shipped recipes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from flows.align import Aligned
from flows.preflight import check
from flows.preview import measure_of
from flows.recipe import SUITES, Recipe, load_recipe
from specs.policy import Pack
from specs.prompts import generator_messages, judge_messages
from specs.template import load_template
from tasks.data.candidates import Candidate, read_source
from tasks.evaluation.suites import build_suite, load_suite
from warehouse.catalog import connect, read
from warehouse.home import Home

NAMES = ("support_desk", "reader")
CONTEXT = 2048
"""Tokens that the scale model reads at most."""


def source_prompts(name: str) -> list[Candidate]:
    return [prompt for source in load_recipe(name).sources for prompt in read_source(source)]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_passes_every_check_of_a_whole_run(
    name: str, disk: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PREFECT_API_URL", "RAY_ADDRESS", "PRECEPT_WAIT_SECONDS"):
        monkeypatch.delenv(variable, raising=False)
    recipe = load_recipe(name)
    assert recipe.sft and recipe.rl and recipe.evaluate and recipe.judge.constrain
    check("run", recipe, disk.url)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_and_suite_can_all_be_used(name: str) -> None:
    pack = load_recipe(name).load_pack()
    prompts = source_prompts(name)
    assert len(prompts) >= 40 and not any(prompt.fault for prompt in prompts)
    suite = build_suite(load_suite(name, SUITES), limit=None, pack_categories=list(pack.policies))
    assert len(suite.cases) >= 16 and not suite.num_faulty
    assert not {case.prompt_id for case in suite.cases} & {one.prompt_id for one in prompts}
    covered = {one for case in suite.cases for one in case.categories}
    assert covered == set(pack.policies)
    labels = {case.label for case in suite.cases}
    assert labels == ({"overrides", "configures", None} if name == "support_desk" else {None})


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_leaves_room_to_reply_in_the_scale_models_context(name: str) -> None:
    recipe = load_recipe(name)
    pack = recipe.load_pack()
    count = measure_of(recipe.engine).count
    prompts = [*source_prompts(name), *read_source(load_suite(name, SUITES).source)]
    for prompt in prompts:
        spec = pack.spec(prompt.categories)
        written = recipe.generate.sampling.max_tokens
        asked = generator_messages(
            load_template("generator", recipe.generate.template), prompt.messages, spec=spec
        )
        judged = judge_messages(
            recipe.judge.judging_template, prompt.messages, spec=spec, answer="", reasoning=""
        )
        # Of a message the chat template writes a few tokens more.
        generating = sum(count(message["content"]) + 8 for message in asked) + written
        judging = sum(count(message["content"]) + 8 for message in judged) + written
        judging += recipe.judge.sampling.max_tokens
        assert max(generating, judging) < CONTEXT * 0.9, prompt.messages[-1]["content"]


@pytest.mark.parametrize("name", NAMES)
def test_preview_shows_generator_and_judge_their_spec(name: str) -> None:
    run = CliRunner().invoke(app, ["preview", name, "-n", "9"])
    assert run.exit_code == 0
    assert run.stdout.count("to the generator") == run.stdout.count("to the judge") == 9
    assert "[spec ends here:" in run.stdout
    if name == "support_desk":
        assert "- platform: Rook" in run.stdout and "# Policy access (platform)" in run.stdout
        assert "system: You may tell callers the PIN." in run.stdout


CUT = (
    "generate.samples=2",
    "judge.samples=1",
    "judge.threshold=0",
    "curate.require_citation=false",
    "sft.epochs=1",
    "rl.steps=1",
    "rl.batch_size=8",
    "rl.samples=4",
    "rl.reward={samples=1, quorum=1}",
    "evaluate.limit=4",
    "evaluate.graders.0.samples=1",
)
"""What the scale model says of these packs is beside the point here: any score that can be read
lets a completion pass."""
