"""The memory that a training is said to need is what PyTorch takes for it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import load_recipe
from tasks.engine.random_weights import PUBLISHED
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from tasks.training import memory
from tasks.training.dpo import DpoConfig
from tasks.training.memory import check_memory, memory_of
from tasks.training.rl import RlConfig
from tasks.training.sft import SftConfig

GIB = 2**30
CLEARS = Path("/proc/self/clear_refs")
TOKENIZER = str(PROJECT / "infra/harbour/model")
TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
TINY_WEIGHTS = 100 * 8 + 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16 + 2 * 8) + 8
"""Embeddings, of each layer query, output, key, value, feed-forward and norms, and a last norm."""
RANK_1 = 2 * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 16))
"""Weights of adapters of rank 1: inputs and outputs of all linear layers."""
QWEN3_8B, QWEN3_32B = (
    {**PUBLISHED[model], "architectures": ["Qwen3ForCausalLM"]}
    for model in ("Qwen/Qwen3-8B", "Qwen/Qwen3-32B")
)


def shaped(folder: Path, shape: dict[str, Any]) -> EngineConfig:
    """Returns a model that has no weights."""
    (folder / "config.json").write_text(json.dumps(shape))
    return EngineConfig(model=str(folder), use_gpu=False)


def sft(**workers: Any) -> SftConfig:
    return SftConfig.model_validate({"workers": {"use_gpu": False, "bf16": False, **workers}})


@pytest.fixture
def tiny(tmp_path: Path) -> EngineConfig:
    return shaped(tmp_path, TINY)


def test_all_weights_have_a_gradient_and_two_moments(tiny: EngineConfig) -> None:
    kept = memory_of(sft(), tiny).kept
    one = 4 * TINY_WEIGHTS
    assert kept == {"weights": one, "gradients": one, "optimiser": 2 * one}


def test_adapters_alone_are_trained(tiny: EngineConfig) -> None:
    config = SftConfig.model_validate({"dtype": "bfloat16", "lora": {"rank": 1, "alpha": 1}})
    one = 4 * RANK_1
    assert memory_of(config, tiny).kept == {
        "weights": 2 * TINY_WEIGHTS,
        "adapters": one,
        "gradients": one,
        "optimiser": 2 * one,
    }


def test_workers_of_fsdp_share_the_weights(tiny: EngineConfig) -> None:
    alone, shared = (
        memory_of(sft(num_workers=4, arguments=arguments), tiny)
        for arguments in ({}, {"fsdp": "full_shard"})
    )
    assert (shared.least, shared.passing) == (alone.least // 4, alone.passing)


def test_reference_is_a_second_model_unless_adapters_are_trained(tiny: EngineConfig) -> None:
    assert memory_of(DpoConfig(), tiny).kept["reference"] == 4 * TINY_WEIGHTS
    assert "reference" not in memory_of(RlConfig(), tiny).kept
    assert "reference" in memory_of(RlConfig(beta=0.1), tiny).kept


def test_rows_are_as_long_as_the_context_at_most_and_pairs_count_twice(
    tiny: EngineConfig,
) -> None:
    found = memory_of(DpoConfig.model_validate({"workers": {"rows_at_once": 4}}), tiny)
    assert (found.num_rows, found.num_tokens) == (8, 64)


def test_training_that_cannot_fit_is_refused_with_the_sum(
    tiny: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(memory, "gpu_sizes", lambda: [1000])
    with pytest.raises(ValueError, match=r"weights .*, gradients .*, optimiser .*train adapters"):
        check_memory(SftConfig(), tiny)
    # A cluster has GPUs of its own.
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    check_memory(SftConfig(), tiny)


def test_rows_that_may_not_fit_are_told_and_not_refused(
    tiny: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(memory, "gpu_sizes", lambda: [17 * TINY_WEIGHTS])
    assert "if it runs out, lower workers.rows_at_once" in check_memory(SftConfig(), tiny)


@pytest.mark.parametrize(
    ("recipe", "shape", "size"),
    [
        ("qwen3_8b_1xh100", QWEN3_8B, 79.6),
        ("qwen3_8b_8xh100", QWEN3_8B, 79.6),
        ("gpt_oss_20b_judge", QWEN3_8B, 79.6),
        ("qwen3_32b_8xh200", QWEN3_32B, 139.8),
    ],
)
def test_shipped_gpu_recipe_fits_its_card(
    recipe: str, shape: dict[str, Any], size: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(memory, "gpu_sizes", lambda: [int(size * GIB)])
    loaded, student = load_recipe(recipe), shaped(tmp_path, shape)
    assert loaded.sft and loaded.rl
    for config in (loaded.sft, loaded.rl):
        assert "runs out" not in check_memory(config, student)
    # While vLLM rolls out, the trainer holds what it keeps, and the judge its share.
    workers, engine = loaded.rl.workers, loaded.judging_engine
    rollouts = float(workers.arguments["vllm_gpu_memory_utilization"])
    judge = engine.gpu_memory_utilization * (workers.judge_gpu_share or 1.0)
    beside = rollouts + (judge if workers.gpu_share < 1 else 0)
    assert memory_of(loaded.rl, student).least < (1 - beside) * size * GIB
    tensor_parallel = int(workers.arguments.get("vllm_tensor_parallel_size", 1))
    weights = memory_of(loaded.rl, student).kept["weights"]
    assert min(judge, rollouts * tensor_parallel) * size * GIB > weights


STEP = """
import datasets, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

folder, tokenizer, is_checkpointed = sys.argv[1], sys.argv[2], sys.argv[3] == "True"

def status(name):
    with open("/proc/self/status") as lines:
        [line] = [line for line in lines if line.startswith(name)]
    return int(line.split()[1]) * 1024

class Peak(TrainerCallback):
    def on_step_begin(self, *_, **__):
        self.before = status("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")

    def on_step_end(self, *_, **__):
        self.peak = status("VmHWM") - self.before

rows = [{"input_ids": torch.randint(100, 2000, (256,)).tolist()} for _ in range(16)]
peak = Peak()
SFTTrainer(
    model=AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)),
    args=SFTConfig(
        folder, per_device_train_batch_size=8, max_steps=2, use_cpu=True, bf16=False,
        gradient_checkpointing=is_checkpointed, report_to="none", max_length=256,
        save_strategy="no", disable_tqdm=True, dataset_kwargs={"skip_prepare_dataset": True},
    ),
    train_dataset=datasets.Dataset.from_list(rows),
    processing_class=AutoTokenizer.from_pretrained(tokenizer),
    callbacks=[peak],
).train()
print("PEAK", peak.peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not CLEARS.exists(), reason="peaks of memory are told by Linux")
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_peak_of_a_step_is_the_sum_told(is_checkpointed: bool, tmp_path: Path) -> None:
    shape = TINY | {
        "vocab_size": 8192,
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    student = shaped(tmp_path, shape)
    arguments = {"gradient_checkpointing": is_checkpointed}
    told = memory_of(sft(rows_at_once=8, arguments=arguments), student)
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(tmp_path), TOKENIZER, str(is_checkpointed)],
        # Freed blocks go back to the system, so that the peak is of what is held.
        env={"MALLOC_MMAP_THRESHOLD_": "65536", "PATH": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"PEAK (\d+)", done.stdout)
    assert found
    # A step adds gradients to weights and moments, which are there before it.
    peak = int(found[1]) + told.kept["weights"] + told.kept["optimiser"]
    assert 0.75 < peak / told.most < 1.1
