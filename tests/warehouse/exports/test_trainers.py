"""TRL's trainers take the exported configurations as they stand, and learn the reasoning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warehouse.exports.town import fill
from warehouse.exports.dataset import DatasetOptions
from warehouse.exports.folders import Publisher, export_dataset
from warehouse.home import Home

TRAININGS = """
import json, sys, tempfile
from datasets import load_dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

folder, model, cache = sys.argv[1], "infra/harbour/model", tempfile.mkdtemp()
tokenizer = AutoTokenizer.from_pretrained(model)
shared = {"output_dir": cache, "max_steps": 1, "per_device_train_batch_size": 2, "use_cpu": True,
          "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
          "report_to": "none"}
told = {"sft": [], "rewarded": []}


def load(name):
    return load_dataset(folder, name, split="train", cache_dir=cache)


def reward(completions, prompts, ideal_response, **columns):
    told["rewarded"] += ideal_response
    return [float(len(prompt)) for prompt in prompts]


trainer = SFTTrainer(
    model, SFTConfig(**shared), train_dataset=load("sft"), processing_class=tokenizer
)
for batch in trainer.get_train_dataloader():
    for labels in batch["labels"].tolist():
        told["sft"].append(tokenizer.decode([token for token in labels if token != -100]))
trainer.train()
GRPOTrainer(
    model, reward, GRPOConfig(**shared, num_generations=2, max_completion_length=8),
    train_dataset=load("rl_prompts"), processing_class=tokenizer,
).train()
trainer = DPOTrainer(
    model, args=DPOConfig(**shared), train_dataset=load("preference"), processing_class=tokenizer
)
batch = next(iter(trainer.get_train_dataloader()))
told["dpo"] = [tokenizer.decode(ids) for ids in batch["input_ids"].tolist()]
trainer.train()
print(json.dumps(told))
"""


@pytest.mark.slow
def test_each_trainer_takes_its_configuration_without_a_map(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    publisher = Publisher(command="precept export dataset")
    export_dataset(home, str(tmp_path / "data"), DatasetOptions(), publisher)
    ended = subprocess.run(
        [sys.executable, "-c", TRAININGS, str(tmp_path / "data")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    assert sorted(told["sft"]) == [
        f"<think>Rule B1 covers {name}-good.</think>The answer of {name}-good.<|im_end|>\n"
        for name in ("ferry", "raft", "talk")
    ]
    assert set(told["rewarded"]) <= {"comply", "refuse"} and told["rewarded"]
    for text in told["dpo"]:
        assert "<think>Rule B1 covers" in text and "The answer of" in text
