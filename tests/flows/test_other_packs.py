"""Packs that are not about safety go through the stages unchanged, by their shipped recipes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from flows.preflight import check
from flows.preview import measure_of
from flows.recipe import SUITES, Recipe, load_recipe, recipe_path
from specs.policy import Pack
from specs.prompts import generator_messages, judge_messages
from specs.template import load_template
from tasks.data.candidates import Candidate, read_source
from tasks.evaluation.suites import build_suite, load_suite
from warehouse.catalog import connect, read
from warehouse.home import Home

if TYPE_CHECKING:
    from flows.evaluate import Evaluated
    from flows.run import Refreshed

pytestmark = pytest.mark.timeout(1800)
"""The first test of a pack waits for its whole chain, which loads six models."""

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
def test_recipe_is_one_for_a_real_model_without_the_lines_for_the_scale_model(
    name: str, tmp_path: Path
) -> None:
    lines = recipe_path(name).read_text(encoding="utf-8").splitlines()
    left = [line for line in lines if not line.endswith("  # scale model")]
    (tmp_path / "real.toml").write_text("\n".join(left), encoding="utf-8")
    recipe = load_recipe(tmp_path / "real.toml")
    assert recipe.sft and recipe.rl and recipe.evaluate
    assert (recipe.engine.model, recipe.engine.use_gpu) == ("Qwen/Qwen3-8B", True)
    assert recipe.generate.template == recipe.judge.template == "spec_first"
    assert recipe.generate.sampling.max_tokens == 8192 and recipe.sft.learning_rate == 1e-5
    assert recipe.sft.workers.use_gpu and recipe.rl.workers.use_gpu
    samplings = [recipe.evaluate.sampling, *(one.sampling for one in recipe.evaluate.graders)]
    assert min(one.max_tokens for one in samplings) > 1000


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
    # Each score that can be read lets its completion pass: the flow is tested, not the text.
    "judge.threshold=0",
    "curate.require_citation=false",
    "curate.allow_unknown_citations=true",
    "sft.epochs=1",
    "rl.steps=1",
    "rl.batch_size=8",
    "rl.workers.rows_at_once=8",
    "rl.samples=2",
    "rl.reward={samples=1, quorum=1}",
    "evaluate.limit=4",
    "evaluate.graders.0.samples=1",
)
PROMPTS_OF_EACH = 3
WHOLE = "support_desk"


@dataclass(frozen=True)
class Chain:
    """A pack that has gone through its stages."""

    name: str
    pack: Pack
    refreshed: "Refreshed"
    evaluated: "Evaluated | None"
    warehouse: duckdb.DuckDBPyConnection

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return read(self.warehouse, query).fetchall()


def cut_down(name: str, folder: Path) -> Recipe:
    """Returns a shipped recipe with three prompts of each category, those of operators first."""
    shipped = load_recipe(name)
    lines = Path(shipped.sources[0].path or "").read_text(encoding="utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: not row.get("operator"))
    chosen = [
        json.dumps(row)
        for category in shipped.load_pack().policies
        for row in [row for row in rows if row["category"] == category][:PROMPTS_OF_EACH]
    ]
    (folder / "few.jsonl").write_text("\n".join(chosen), encoding="utf-8")
    return load_recipe(name, overrides=[*CUT, f"sources.0.path={str(folder / 'few.jsonl')!r}"])


@pytest.fixture(scope="module", params=NAMES)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The pack of operators through every stage, that of guide rules up to its examples, behind
    which no stage knows a rule's kind.
    """
    from flows.align import align
    from flows.refresh import refresh

    folder = tmp_path_factory.mktemp(request.param)
    recipe, home = cut_down(request.param, folder), str(folder / "home")
    if request.param == WHOLE:
        done = align(recipe, home)
        refreshed, evaluated = done.refreshed, done.evaluated
    else:
        refreshed, evaluated = refresh(recipe, home), None
    return Chain(request.param, recipe.load_pack(), refreshed, evaluated, connect(Home(home)))


whole_chain = pytest.mark.parametrize("chain", [WHOLE], indirect=True)


@pytest.mark.slow
def test_each_prompt_is_answered_and_what_can_be_judged_is_judged(chain: Chain) -> None:
    num_prompts = PROMPTS_OF_EACH * len(chain.pack.policies)
    assert chain.rows("SELECT count(*) FROM prompts") == [(num_prompts,)]
    counts = chain.rows("SELECT count(*), count(DISTINCT completion_id) FROM completions")
    assert counts == [(2 * num_prompts, 2 * num_prompts)]
    [(num_whole,)] = chain.rows("SELECT count(*) FROM completions WHERE status = 'ok'")
    judged = chain.rows(
        "SELECT count(DISTINCT completion_id), count(*) FILTER (score IS NULL AND status = 'ok') "
        "FROM judgements"
    )
    assert judged == [(num_whole, 0)] and num_whole > 0


@pytest.mark.slow
def test_examples_hold_the_operators_words_and_none_of_the_spec(chain: Chain) -> None:
    rows = chain.rows(
        "SELECT prompt, categories FROM examples WHERE status = 'chosen' ORDER BY completion_id"
    )
    assert len(rows) == chain.refreshed.num_examples > 0
    for turns, categories in rows:
        text = "\n".join(turn["content"] for turn in turns)
        spec = chain.pack.spec(categories).text
        assert not [line for line in spec.splitlines() if len(line) > 40 and line in text]
        assert "# Polic" not in text
    systems = [turns[0]["content"] for turns, _ in rows if turns[0]["role"] == "system"]
    assert bool(systems) == (chain.name == "support_desk")


@pytest.mark.slow
def test_prompts_of_guide_rules_go_through_without_an_ideal_response(chain: Chain) -> None:
    guided = [name for name, policy in chain.pack.policies.items() if policy.is_guide]
    names = ", ".join(f"'{name}'" for name in guided)
    of_guides = f"list_has_any(categories, [{names}])"
    [(num_labelled, num_prompts)] = chain.rows(
        f"SELECT count(ideal_response), count(*) FROM prompts WHERE {of_guides}"
    )
    assert (num_labelled, num_prompts) == (0, PROMPTS_OF_EACH * len(guided))
    chosen = chain.rows(
        f"SELECT ideal_response FROM examples WHERE status = 'chosen' AND {of_guides}"
    )
    assert chosen and set(chosen) == {(None,)}


@pytest.mark.slow
@whole_chain
def test_both_trainings_end_and_their_rollouts_are_judged(chain: Chain) -> None:
    checkpoints = chain.rows("SELECT stage, status, num_steps FROM checkpoints ORDER BY created_at")
    assert [(stage, status) for stage, status, _ in checkpoints] == [
        ("sft", "completed"),
        ("rl", "completed"),
    ]
    assert checkpoints[1][2] == 1
    assert chain.rows("SELECT count(*) FROM rollouts") == [(8,)]


@pytest.mark.slow
@whole_chain
def test_base_and_trained_models_are_graded_by_policy_and_by_style(chain: Chain) -> None:
    assert chain.evaluated is not None
    arms = {row["arm"] for row in chain.evaluated.table}
    assert arms == {"base", "SFT", "SFT+RL"}
    counts = chain.rows(
        "SELECT grader, count(DISTINCT answers.model) "
        "FROM evaluations JOIN answers USING (answer_id) GROUP BY 1 ORDER BY 1"
    )
    assert counts == [("judge", 3), ("style", 3)]
    valued = chain.rows(
        "SELECT DISTINCT status FROM evaluations, unnest(scores) AS u (s) "
        "WHERE u.s.value IS NOT NULL"
    )
    assert valued == [("ok",)]
