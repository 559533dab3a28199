"""A dry run tries a recipe for GPUs on a CPU, and accounts for each of its options."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.dry_run import options_of, plan
from flows.recipe import load_recipe

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
def test_every_option_is_exercised_as_it_is_or_told_with_a_reason(
    name: str, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    small, changes = plan(recipe, tmp_path)
    own, tried = (one.model_dump(by_alias=True) for one in (recipe, small))
    options = options_of(recipe, changes)
    assert len(options) > 30
    for option in options:
        if option.outcome == "exercised":
            assert value_at(own, option.key) == value_at(tried, option.key), option
        else:
            assert option.why, option
    assert all(engine.num_gpus == 0 for engine in small.engines.values())
    assert not any(getattr(small, training).workers.use_gpu for training in small.trainings)


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
def test_whole_chain_of_a_gpu_recipe_runs_with_random_weights(name: str) -> None:
    command = [sys.executable, "-m", "flows", "doctor", name, "--random-weights", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    parts = {part["name"]: part for part in found["parts"]}
    assert {"assign", "generate", "judge", "curate", "sft", "rl", "evaluate"} <= parts.keys()
    assert all(part["ok"] for part in parts.values()), parts
    assert "rl.workers.use_vllm" in {
        option["key"] for option in found["options"] if option["outcome"] == "left out"
    }


def test_random_weights_need_a_recipe() -> None:
    command = [sys.executable, "-m", "flows", "doctor", "--random-weights"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "give its file or the name of a shipped one" in done.stderr
