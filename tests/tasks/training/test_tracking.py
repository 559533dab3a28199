"""Trackers get the figures of a training, on this machine, and change nothing that is learned."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows.preflight import check
from flows.recipe import RecipeError, load_recipe
from tasks.training import tracking
from tasks.training.dpo import DpoConfig
from tasks.training.rl import RlConfig
from tasks.training.sft import SftConfig
from tasks.training.tracking import TrackerError, Tracking
from tasks.training.trainer import TrainingConfig


def test_unknown_and_missing_trackers_are_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"sft\.report_to: .*'wandb'.*given: 'tensorboard'"):
        load_recipe("harbour", overrides=["sft.report_to=tensorboard"])
    monkeypatch.setattr(tracking, "_is_installed", lambda package: False)
    recipe = load_recipe("harbour", overrides=["rl.report_to=wandb"])
    with pytest.raises(TrackerError, match=r"rl\.report_to is 'wandb', which is not installed"):
        check("run", recipe, str(tmp_path / "home"))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("config", [SftConfig, DpoConfig, RlConfig])
def test_tracker_does_not_define_a_checkpoint(config: type[TrainingConfig]) -> None:
    assert config(report_to="mlflow").defining() == config().defining()
    assert "report_to" not in config().defining()


def test_trackio_is_used_where_it_is_installed_and_none_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_installed, tracker in ((True, "trackio"), (False, "none")):
        monkeypatch.setattr(tracking, "_is_installed", lambda package, is_it=is_installed: is_it)
        assert Tracking.of(None, training="sft", folder=tmp_path).tracker == tracker
    assert Tracking.of("none", training="sft", folder=tmp_path).tracker == "none"


def test_trackers_stay_on_this_machine_unless_their_own_variables_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_is_installed", lambda package: True)
    places = {"trackio": "TRACKIO_DIR", "wandb": "WANDB_DIR", "mlflow": "MLFLOW_TRACKING_URI"}
    for variable in (*places.values(), "WANDB_MODE"):
        # Whoever sets a variable to nothing has told nothing.
        monkeypatch.setenv(variable, "")
    for tracker in ("trackio", "wandb", "mlflow"):
        kept = Tracking.of(tracker, training="sft", folder=tmp_path)
        assert str(tmp_path / "tracking" / tracker) in kept.variables[places[tracker]]
        assert kept.trl_arguments("a run")["report_to"] == tracker
    told = Tracking.of("wandb", training="sft", folder=tmp_path).variables
    assert told["WANDB_MODE"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker.town")
    told = Tracking.of("wandb", training="sft", folder=tmp_path).variables
    assert told["WANDB_MODE"] == "online"
    told = Tracking.of("mlflow", training="sft", folder=tmp_path).variables
    assert told["MLFLOW_TRACKING_URI"] == "http://tracker.town"


TRAINING = """
import sys
from pathlib import Path
import datasets
from tasks.training.sft import SftConfig
from tasks.training.tracking import Tracking
from tasks.training.trainer import BestBy, Job
from tasks.training.worker import set_up

place = Path(sys.argv[1])
workers = {"use_gpu": False, "rows_at_once": 2, "bf16": False}
job = Job(
    name="sft", checkpoint_id="c" * 32, folder=str(place / "job"), model="infra/harbour/model",
    revision=None, chat_template_kwargs={}, end_ids=frozenset({1}), best=BestBy("loss", "min"),
    config=SftConfig(batch_size=2, workers=workers),
    tracking=Tracking.of("mlflow", training="sft", folder=place),
)
set_up(job)
from trl import SFTConfig, SFTTrainer

turns = {"prompt": [{"role": "user", "content": "boat"}],
         "completion": [{"role": "assistant", "content": "yes", "reasoning_content": "B1"}]}
arguments = {**job.trl_arguments(), "max_steps": 2, "logging_steps": 1, "save_strategy": "no"}
SFTTrainer(
    model=job.model, args=SFTConfig(**arguments),
    train_dataset=datasets.Dataset.from_list([turns] * 4),
    processing_class=job.load_tokenizer(),
).train()
"""


@pytest.mark.slow
def test_figures_of_every_step_land_in_the_folder_of_the_warehouse(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    kept = {name: one for name, one in os.environ.items() if not name.startswith("MLFLOW_")}
    ended = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path)], env=kept, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    with sqlite3.connect(tmp_path / "tracking" / "mlflow" / "mlflow.db") as store:
        steps = store.execute("SELECT step FROM metrics WHERE key = 'loss' ORDER BY step")
        assert [step for (step,) in steps] == [1, 2]
        [run] = store.execute("SELECT name FROM runs")
    assert run == ("sft-cccccccccccc",)
