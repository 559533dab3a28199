"""A dry run tries a recipe for GPUs on a CPU, and accounts for each of its options."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.dry_run import _of_stage, options_of, plan
from flows.recipe import load_recipe
from tasks.paths import PROJECT

GPU_RECIPES = (
    "gpt_oss_20b_judge",
    "qwen3_32b_8xh200",
    "qwen3_8b_1xh100",
    "qwen3_8b_8xh100",
    "safeguard_endpoint",
    "smollm2_135m_1xh100",
)


def value_at(data: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(data, list):
            data = data[int(part)]
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


@pytest.mark.parametrize("name", GPU_RECIPES)
def test_every_option_is_exercised_as_it_is_or_named_with_a_reason(
    name: str, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    small, changes = plan(recipe, tmp_path)
    own, tried = (one.model_dump(by_alias=True) for one in (recipe, small))
    options = options_of(recipe, changes)
    assert len(options) > 30
    for option in options:
        if option.key.endswith("assign_category"):
            assert option.outcome == "exercised" and small.assigns
        elif option.outcome == "exercised":
            assert value_at(own, option.key) == value_at(tried, option.key), option
        else:
            assert option.why, option
    assert all(engine.num_gpus == 0 for engine in small.engines.values())
    assert not any(getattr(small, training).workers.use_gpu for training in small.trainings)


UNTRIED = {
    "drift.acceptance": "0.2",
    "license": "'mit'",
    "gpu_hour_price": "2.5",
    "collect.decontaminate": "[{ name = 's', path = 's.jsonl', prompt = 'p' }]",
    "collect.conflicts": "'join'",
    "engine.engine_args.kv_cache_dtype": "'fp8'",
    "engine.engine_args.pipeline_parallel_size": "2",
    "engine.revision": "'abc'",
    "sources.0.limit": "5",
    "sft.workers.arguments.torch_compile": "true",
    "sft.report_to": "'wandb'",
    "sft.start": "'latest'",
    "sft.replay": "0.5",
    "rl.monitor.window": "3",
    "rl.workers.use_vllm": "true",
    "evaluate.limit": "3",
    "stage.wave_rows": "1000",
}
TRIED = {
    "engine.engine_args.enable_chunked_prefill": "false",
    "engine.enforce_eager": "true",
    "sources.0.assign_category": "true",
    "sft.workers.arguments.dataloader_num_workers": "1",
    "judge.mode": "'race'",
    "rl.beta": "0.04",
}


def test_option_that_no_step_of_a_dry_run_reads_is_left_out(tmp_path: Path) -> None:
    set_ = [f"{key}={value}" for key, value in {**UNTRIED, **TRIED}.items()]
    recipe = load_recipe("qwen3_8b_1xh100", overrides=set_)
    small, changes = plan(recipe, tmp_path)
    outcomes = {option.key: option.outcome for option in options_of(recipe, changes)}
    for key in UNTRIED:
        # A section may be left out, or replaced, as one line.
        near = [each for each in outcomes if each.startswith(key) or key.startswith(each)]
        assert {outcomes[each] for each in near} == {"left out"}, (key, near)
    assert {outcomes[key] for key in TRIED} == {"exercised"}
    assert small.sft and small.sft.report_to == "none"
    assert small.engine.engine_args == {"enable_chunked_prefill": False}
    # vLLM refuses steps that are shorter than a prompt unless it may cut prompts.
    assert small.engine.max_num_batched_tokens >= (small.engine.max_model_len or 0)


def test_traces_alone_give_the_student_random_weights_too(tmp_path: Path) -> None:
    recipe = tmp_path / "traces.toml"
    recipe.write_text(
        f'pack = "{PROJECT / "specs" / "safety"}"\n[[traces]]\nname = "t"\npath = "t.jsonl"\n'
        'prompt = "p"\nanswer = "a"\nreasoning = "r"\ncategory = "c"\nscores = "s"\n'
        'judge = "j"\nmodel = "m"\n[sft]\n'
    )
    small, _ = plan(load_recipe(recipe), tmp_path)
    assert small.student_engine.model == str(tmp_path / "engine")
    assert not small.student_engine.use_gpu


def test_settings_of_an_endpoint_are_left_out(tmp_path: Path) -> None:
    recipe = load_recipe("gpt_oss_20b_judge")
    _, changes = plan(recipe, tmp_path)
    outcomes = {option.key: option.outcome for option in options_of(recipe, changes)}
    of_endpoint = {key for key in outcomes if ".endpoint." in key}
    assert of_endpoint and {outcomes[key] for key in of_endpoint} == {"left out"}


def test_part_without_a_readable_row_or_with_an_engine_fault_is_not_ok() -> None:
    assert _of_stage("judge", {"ok": 24, "unread": 3}, is_readable=True).ok
    assert not _of_stage("judge", {"ok": 24, "error": 1}, is_readable=True).ok
    assert not _of_stage("judge", {"unread": 24}, is_readable=True).ok
    assert _of_stage("assign", {"unread": 6}, is_readable=False).ok
    assert not _of_stage("assign", {"unread": 6, "too_long": 1}, is_readable=False).ok
    assert not _of_stage("grade rubric", {}, is_readable=False).ok


@pytest.mark.parametrize(
    "changes",
    [
        ["rl.samples=3", "rl.batch_size=6", "rl.workers.rows_at_once=1"],
        ["rl.samples=5", "rl.batch_size=5", "rl.workers.rows_at_once=1", "rl.steps=1"],
        ["rl.samples=7", "rl.batch_size=7", "rl.workers.rows_at_once=7"],
        ["rl.prompts=undecided", "judge.threshold=10"],
        ["sft.batch_size=1", "sft.workers.rows_at_once=1"],
        ["sft.start=0123456789ab", "curate.max_group_ratio=1.5"],
        ["rl.prefill={ share = 0.1 }"],
    ],
)
def test_valid_recipe_is_a_valid_dry_run_that_is_no_larger(
    changes: list[str], tmp_path: Path
) -> None:
    recipe = load_recipe("qwen3_8b_1xh100", overrides=changes)
    small, _ = plan(recipe, tmp_path)
    assert small.sft and recipe.sft and small.rl and recipe.rl
    assert small.sft.batch_size <= recipe.sft.batch_size
    assert small.rl.batch_size <= recipe.rl.batch_size and small.rl.steps <= recipe.rl.steps
    assert small.rl.max_tokens <= recipe.rl.max_tokens
    assert small.judge.threshold <= 9
    assert small.rl.prompts == "all"
    assert small.sft.start in (None, "latest")


def test_adapters_checkpointing_and_several_workers_are_exercised(tmp_path: Path) -> None:
    small, _ = plan(load_recipe("qwen3_8b_8xh100"), tmp_path)
    assert small.sft and small.rl
    for training in (small.sft, small.rl):
        assert training.lora and training.lora.rank == 32 and training.dtype == "bfloat16"
        assert training.workers.arguments["gradient_checkpointing"] is True
        assert (training.workers.num_workers, training.workers.bf16) == (2, True)
    assert small.rl.workers.judges == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt_oss_20b_judge", "qwen3_8b_8xh100"])
def test_whole_chain_of_a_gpu_recipe_runs_with_random_weights(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Neither is there: a dry run asks for none.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("PRECEPT_HOME", str(tmp_path / "home"))
    command = [sys.executable, "-m", "flows", "doctor", name, "--random-weights", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    parts = {part["name"]: part for part in found["parts"]}
    assert {"assign", "generate", "judge", "curate", "sft", "rl", "evaluate"} <= parts.keys()
    assert all(part["ok"] for part in parts.values()), parts
    assert not (tmp_path / "home").exists()
    assert "rl.workers.use_vllm" in {
        option["key"] for option in found["options"] if option["outcome"] == "left out"
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give its file or the name of a shipped one"),
        (["harbour", "--mend"], "leave --mend out"),
        (["harbour", "--home", "somewhere"], "leave --home out"),
        (
            ["qwen3_8b_1xh100", "--set", "engine.model=nobody/has-this"],
            "fetch its config.json, or give a local folder",
        ),
        (
            ["qwen3_8b_1xh100", "--set", "engine.reasoning_parser=mistral"],
            "rl needs a model whose reasoning stands between <think> tags",
        ),
    ],
)
def test_dry_run_that_cannot_be_is_refused_in_a_sentence(
    arguments: list[str], sentence: str
) -> None:
    command = [sys.executable, "-m", "flows", "doctor", *arguments, "--random-weights"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
