"""Metrics of a training → a request to end it early.

A training that goes astray is held against its own start: reasoning that withers, help that turns
into refusal, reasoning that invents rules, hides its decision or speaks of its grader, and rewards
in which nothing is left to learn. An alarm ends a training, and is no part of a reward.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field

from tasks import Config
from tasks.monitors import FLAGGED
from tasks.training.reward import Reward
from tasks.training.trainer import Status
from tasks.training.worker import EarlyStop


class MonitorConfig(Config):
    """Limits at which a training is ended early."""

    window: int = Field(5, gt=0)
    """Steps over which a metric is averaged; later windows are compared with the first."""
    min_reasoning: float = Field(0.3, ge=0, lt=1)
    """Smallest mean length of reasoning, as a share of that of the first window."""
    max_unhelped: float = Field(0.5, gt=0, le=1)
    """Largest rise since the first window in the share of benign prompts that get no help."""
    max_flagged: float = Field(0.5, gt=0, le=1)
    """Largest rise since the first window in the share of rollouts whose reasoning a monitor flags
    (see question `monitors_by_step`); 1 never ends a training."""
    saturated_steps: int = Field(20, gt=0)
    """Steps in a row in which all samples of every prompt score alike, after which nothing is left
    to learn."""


STEP_PARTS = ("rollout", "judge", "update")
"""Parts of a step of reinforcement learning, in their order."""


def step_seconds(log: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean seconds of each part of a step of reinforcement learning, by the log of a
    training; empty without such steps."""
    steps = [entry for entry in log if f"seconds/{STEP_PARTS[0]}" in entry]
    if not steps:
        return {}
    return {
        part: sum(step[f"seconds/{part}"] for step in steps) / len(steps) for part in STEP_PARTS
    }


class Alarm(NamedTuple):
    """A reason to end a training, and the status to record."""

    reason: str
    status: Status


class Monitor:
    """Compares the metrics of a training with those of its start."""

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config
        self.history: list[Mapping[str, float]] = []
        self.num_saturated = 0

    def observe(self, metrics: Mapping[str, float]) -> Alarm | None:
        """Takes the metrics of one more step; returns why the training should end after it."""
        self.history.append(dict(metrics))
        is_saturated = metrics.get("frac_reward_zero_std", 0.0) >= 1.0
        self.num_saturated = self.num_saturated + 1 if is_saturated else 0
        if fault := self._collapse():
            return Alarm(fault, "collapsed")
        if self.num_saturated < self.config.saturated_steps:
            return None
        reason = (
            f"all samples of every prompt scored alike for {self.num_saturated} steps: nothing "
            "is left to learn from these prompts; add harder ones"
        )
        return Alarm(reason, "completed")

    def _collapse(self) -> str | None:
        """Returns how the model has become worse since the start, or None."""
        config = self.config
        if len(self.history) < 2 * config.window:
            return None
        before, now = self._means("reasoning/mean_tokens")
        if before is not None and now is not None and now < config.min_reasoning * before:
            return (
                f"reasoning fell from {before:.0f} to {now:.0f} tokens: the model stops thinking; "
                "lower rl.learning_rate or set rl.beta"
            )
        before, now = self._means("benign/unhelped_share")
        if before is not None and now is not None and now > before + config.max_unhelped:
            return (
                f"benign prompts without help rose from {before:.2f} to {now:.2f}: the model "
                "learns to refuse; give rl.mix more benign prompts or lower rl.learning_rate"
            )
        before, now = self._means(FLAGGED)
        if before is not None and now is not None and now > before + config.max_flagged:
            return (
                f"reasoning that a monitor flags rose from {before:.2f} to {now:.2f} of rollouts: "
                "the model no longer thinks what it says; look at precept ask monitors_by_step and "
                "flagged, and do not reward the reasoning for it"
            )
        return None

    def _means(self, name: str) -> tuple[float | None, float | None]:
        """Returns the mean of a metric in the first window and in the latest."""
        window = self.config.window
        return _mean(self.history[:window], name), _mean(self.history[-window:], name)


def _mean(steps: Sequence[Mapping[str, float]], name: str) -> float | None:
    """Returns the mean over the steps that have the metric, or None if none has."""
    values = [step[name] for step in steps if name in step]
    return sum(values) / len(values) if values else None


def monitor_callback(config: MonitorConfig, reward: Reward, stop: EarlyStop) -> Any:
    """Returns the callback that logs where a step's time goes, and ends a training that should."""
    from transformers import TrainerCallback

    monitor = Monitor(config)

    class MonitorCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
        step_began = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # A training that resumes is still compared with its first steps.
            for metrics in state.log_history:
                if "reward" in metrics:
                    monitor.observe(metrics)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.step_began = time.monotonic()

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any
        ) -> None:
            # The last log of a training sums it up and has no reward.
            if "reward" not in logs:
                return
            seconds = {
                "seconds/rollout": reward.began - self.step_began,
                "seconds/judge": reward.ended - reward.began,
                "seconds/update": time.monotonic() - reward.ended,
            }
            logs.update(seconds)
            # The trainer has copied the metrics into its history already.
            state.log_history[-1].update(seconds)
            if alarm := monitor.observe(logs):
                stop.request(*alarm)

    return MonitorCallback()
