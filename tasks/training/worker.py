"""The work of one worker: a TRL trainer that resumes, reports to Ray Train and leaves its model.

All workers call the same functions and stop at the same step: a worker that went its own way would
leave the others waiting at a barrier for ever.
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from tasks.training.generation_config import make_savable
from tasks.training.trainer import Job, Status, TrainError


class EarlyStop:
    """A request to end training early, and the status to record."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.status: Status = "completed"

    def request(self, reason: str, status: Status) -> None:
        """Asks for the end of the training after this step; the first request counts."""
        if self.reason is None:
            self.reason, self.status = reason, status


def set_up(job: Job) -> None:
    """Sets what libraries read on import; a worker calls it first.

    Nothing phones home, and no text of prompts or completions reaches a log.
    """
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "VLLM_NO_USAGE_STATS"):
        os.environ[name] = "1"
    job.tracking.set_up()
    # TRL's warning about a row without a reward prints its prompt and its completion.
    logging.getLogger("trl").setLevel(logging.ERROR)
    if not job.workers.use_gpu:
        import torch

        torch.set_num_threads(job.workers.num_threads or max(1, int(job.workers.num_cpus)))


def run_trainer(trainer: Any, job: Job, stop: EarlyStop) -> None:
    """Trains from the latest checkpoint, if there is one, and leaves the finished model.

    Raises TrainError if the workers did not train together, or ended before the last step without
    a request to stop.
    """
    import ray.train

    context = ray.train.get_context()
    num_workers = context.get_world_size()
    num_together = trainer.accelerator.num_processes
    # On CPUs accelerate may find no process group and say nothing of it.
    if num_together != num_workers:
        raise TrainError(
            f"{num_together} of {num_workers} workers train together: each would train alone"
        )
    model = trainer.accelerator.unwrap_model(trainer.model)
    # A reward model has no generation configuration.
    if model.can_generate():
        make_savable(model.generation_config)
    trainer.add_callback(_ray_callback(job, stop))
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        trainer.train()
    else:
        with checkpoint.as_directory() as folder:
            _resume(trainer, folder)
    state = trainer.state
    if not stop.reason and state.global_step != state.max_steps:
        raise TrainError(f"{state.global_step} of {state.max_steps} steps were done")
    if stop.status == "stopped" and state.global_step == state.max_steps:
        # Stopped by its last step, it has nothing left to go on with.
        stop.status = "completed"
    _require_equal_weights(trainer, num_workers)
    _save_model(trainer, job)
    if context.get_world_rank() == 0:
        _save_outcome(trainer, job, stop)
    _wait_for_all(num_workers)


def _resume(trainer: Any, folder: str) -> None:
    """Trains on from a checkpoint; restores its model alone if it is of the last step."""
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(Path(folder) / "trainer_state.json"))
    if state.global_step < state.max_steps:
        trainer.train(resume_from_checkpoint=folder)
        return
    # A worker that died while it saved the model has no step left to train.
    trainer._load_from_checkpoint(folder)
    trainer.state = state


def _ray_callback(job: Job, stop: EarlyStop) -> Any:
    """Returns the callback that reports checkpoints and steps, and obeys a request to stop."""
    import ray.train
    from transformers import TrainerCallback

    context = ray.train.get_context()

    class RayCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Each worker writes its part of the folder that the first one reports.
            _wait_for_all(context.get_world_size())
            checkpoint = None
            if context.get_world_rank() == 0:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                checkpoint = ray.train.Checkpoint.from_directory(str(folder))
            metrics = {"step": state.global_step, **_latest(state.log_history)}
            # Before its first log a training has no such metric: that checkpoint ranks last.
            metrics.setdefault(job.best.metric, job.best.worst)
            ray.train.report(metrics, checkpoint=checkpoint)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if context.get_world_rank() == 0:
                partial = job.progress.with_suffix(".tmp")
                partial.write_text(json.dumps([state.global_step, state.max_steps]))
                partial.replace(job.progress)
            _share_stop(stop, context.get_world_size())
            if stop.reason:
                control.should_training_stop = True
                control.should_save = True

    return RayCallback()


def _latest(history: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the latest value of every metric."""
    return {
        name: float(value)
        for entry in history
        for name, value in entry.items()
        if isinstance(value, int | float)
    }


def _share_stop(stop: EarlyStop, num_workers: int) -> None:
    """Makes a worker's request to stop the request of all; the lowest rank's counts."""
    if num_workers == 1:
        return
    import torch.distributed

    requests: list[tuple[str | None, Status]] = [(None, "completed")] * num_workers
    torch.distributed.all_gather_object(requests, (stop.reason, stop.status))
    for reason, status in requests:
        if reason:
            stop.request(reason, status)


def _wait_for_all(num_workers: int) -> None:
    if num_workers > 1:
        import torch.distributed

        torch.distributed.barrier()


def _require_equal_weights(trainer: Any, num_workers: int) -> None:
    """Raises TrainError if the workers' weights differ."""
    if num_workers == 1 or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    import torch
    import torch.distributed

    model = trainer.accelerator.unwrap_model(trainer.model)
    sums = torch.stack([weights.detach().double().abs().sum() for weights in model.parameters()])
    by_worker = [torch.empty_like(sums) for _ in range(num_workers)]
    torch.distributed.all_gather(by_worker, sums)
    if not all(torch.equal(sums, others) for others in by_worker):
        raise TrainError("the weights of the workers differ after training")


def _save_model(trainer: Any, job: Job) -> None:
    """Saves the model like any other: weights in the parent's type, and its configuration."""
    import ray.train

    folder = job.finished
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        # The weights are spread over the workers, so all of them must save.
        trainer.save_model(str(folder))
        return
    if ray.train.get_context().get_world_rank() != 0:
        return
    import torch
    from transformers import AutoConfig

    shutil.rmtree(folder, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.config.lora:
        # Left apart, they would make the base model the reference of a later RL with adapters.
        model = model.merge_and_unload()
    dtype = AutoConfig.from_pretrained(job.model, revision=job.revision).dtype
    if model.can_generate():
        # An engine stops on these tokens, and the model was taught to end its turn on them.
        model.generation_config.eos_token_id = sorted(job.end_ids)
    model.to(dtype or torch.bfloat16).save_pretrained(folder)


def _save_outcome(trainer: Any, job: Job, stop: EarlyStop) -> None:
    """Saves the tokenizer and, last, how the training ended."""
    trainer.processing_class.save_pretrained(job.finished)
    history = trainer.state.log_history
    outcome = {
        "num_steps": trainer.state.global_step,
        "status": stop.status,
        "reason": stop.reason,
        "metrics": _latest(history),
        "log": [
            {name: value for name, value in entry.items() if isinstance(value, int | float)}
            for entry in history
        ],
    }
    (job.finished / "stage.json").write_text(json.dumps(outcome), encoding="utf-8")
