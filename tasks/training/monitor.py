"""Figures of a training → why it should end early."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from tasks import Config
from tasks.training.reward import Reward
from tasks.training.trainer import EarlyStop


class MonitorConfig(Config):
    """When a training that goes astray is ended."""

    window: int = Field(5, gt=0)
    """Steps that a figure is averaged over; the first window is what later ones are held to."""
    min_reasoning: float = Field(0.3, ge=0, lt=1)
    """Least length of reasoning, as a share of that at the start."""
    max_unhelped: float = Field(0.5, gt=0, le=1)
    """Largest share of benign prompts that get no help beyond that at the start."""
    saturated_steps: int = Field(20, gt=0)
    """Steps in a row in which all samples of every prompt score alike: nothing is left to learn."""


def _watching(config: MonitorConfig, reward: Reward, stop: EarlyStop) -> Any:
    """The callback that logs where the time of a step goes and ends a training that collapses."""
    from transformers import TrainerCallback

    monitor = Monitor(config)

    class Watching(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
        began = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # A training that goes on is held to how it began.
            for logs in state.log_history:
                if "reward" in logs:
                    monitor.look(logs)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.monotonic()

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any
        ) -> None:
            if "reward" not in logs:
                return
            # The trainer has noted these figures already; it keeps the same dictionary's copy.
            now = time.monotonic()
            seconds = {
                "seconds/rollout": reward.began - self.began,
                "seconds/judge": reward.ended - reward.began,
                "seconds/update": now - reward.ended,
            }
            logs.update(seconds)
            state.log_history[-1].update(seconds)
            if reason := monitor.look(logs):
                stop.because(reason, status="collapsed")
            elif monitor.nothing_left:
                stop.because(monitor.nothing_left, status="completed")

    return Watching()


class Monitor:
    """Holds the figures of a training against those of its start."""

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config
        self.history: list[Mapping[str, float]] = []
        self.num_saturated = 0

    @property
    def nothing_left(self) -> str | None:
        """Said where no step has anything to learn from any more."""
        if self.num_saturated < self.config.saturated_steps:
            return None
        return (
            f"all samples of every prompt scored alike for {self.num_saturated} steps: nothing "
            "is left to learn from these prompts; add harder ones"
        )

    def look(self, logs: Mapping[str, float]) -> str | None:
        """Why the training should end after this step, if it should."""
        config = self.config
        self.history.append(dict(logs))
        alike = logs.get("frac_reward_zero_std", 0.0)
        self.num_saturated = self.num_saturated + 1 if alike >= 1.0 else 0
        if len(self.history) < 2 * config.window:
            return None
        first, last = self.history[: config.window], self.history[-config.window :]
        before, now = _mean(first, "reasoning/mean_tokens"), _mean(last, "reasoning/mean_tokens")
        if before is not None and now is not None and now < config.min_reasoning * before:
            return (
                f"reasoning fell from {before:.0f} to {now:.0f} tokens: the model stops thinking; "
                "lower rl.learning_rate or set rl.beta"
            )
        before, now = _mean(first, "benign/unhelped_share"), _mean(last, "benign/unhelped_share")
        if before is not None and now is not None and now > before + config.max_unhelped:
            return (
                f"benign prompts without help rose from {before:.2f} to {now:.2f}: the model "
                "learns to refuse; give rl.mix more benign prompts or lower rl.learning_rate"
            )
        return None


def _mean(steps: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [step[name] for step in steps if name in step]
    return sum(values) / len(values) if values else None
