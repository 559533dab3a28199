"""checkpoints ← preference pairs: DPO on the best against the worst completion of a prompt.

The pairs fall out of the k scores of the filter (view `preference_pairs`). They are rendered as
text by the model's own chat template, without the spec.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
from pydantic import Field

from tasks.engine.chat_template import ChatError, ChatTemplate
from tasks.training.trainer import (
    DataError,
    EarlyStop,
    Finished,
    Job,
    TrainError,
    TrainingConfig,
    fit,
    prepare,
    run,
)
from warehouse.tables import AssistantTurn, Example, Turn, content_id, text_id


class DpoConfig(TrainingConfig):
    """How a model is trained on preference pairs."""

    learning_rate: float = Field(1e-6, gt=0)
    """Highest learning rate."""
    epochs: float = Field(1.0, gt=0)
    """Times that each pair is learned from."""
    beta: float = Field(0.1, gt=0)
    """Weight of the distance from the model it begins from."""
    max_length: int = Field(8192, gt=0)
    """Longest prompt and completion in tokens; longer pairs are left out and counted."""
    min_margin: float = Field(2.0, gt=0)
    """Least difference between the lowest scores of the two, 0 to 10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What a training learns from."""

    rows: list[dict[str, str]]
    """Keys prompt, chosen and rejected, as text."""
    set_id: str
    """Hash of what is in it."""
    members: list[Example]
    """The completions of the pairs as a frozen set: preferred and dispreferred."""
    num_left_out: int


def choose_pairs(
    connection: duckdb.DuckDBPyConnection,
    chats: ChatTemplate,
    *,
    config: DpoConfig,
    generation_id: str,
    judging_id: str,
    run_id: str,
) -> Pairs:
    """The pairs of a run; raises DataError where there is none."""
    rows = (
        connection.sql(
            """
            SELECT *
            FROM preference_pairs
            WHERE generation_id = $generation_id
              AND judging_id = $judging_id
              AND chosen_score - rejected_score >= $margin
            ORDER BY chosen_id
            """,
            params={
                "generation_id": generation_id,
                "judging_id": judging_id,
                "margin": config.min_margin,
            },
        )
        .to_arrow_table()
        .to_pylist()
    )
    made = [(row, _pair(chats, row, config.max_length)) for row in rows]
    kept = [(row, pair) for row, pair in made if pair]
    if not kept:
        raise DataError(
            f"no preference pair among {len(rows)}: raise generate.samples or the temperature, or "
            "lower dpo.min_margin"
        )
    ids = [
        name
        for row, _ in kept
        for side in ("chosen", "rejected")
        for name in (row[f"{side}_id"], text_id(row[f"{side}_reasoning"], row[f"{side}_answer"]))
    ]
    set_id = content_id("pairs", judging_id, *ids)
    return Pairs(
        rows=[pair for _, pair in kept],
        set_id=set_id,
        members=[
            _member(row, side, set_id, run_id) for row, _ in kept for side in ("chosen", "rejected")
        ],
        num_left_out=len(rows) - len(kept),
    )


def _member(row: dict[str, Any], side: str, set_id: str, run_id: str) -> Example:
    """One completion of a pair as a row of its frozen set."""
    reply = AssistantTurn(
        role="assistant",
        content=row[f"{side}_answer"],
        reasoning_content=row[f"{side}_reasoning"],
    )
    return Example(
        set_id=set_id,
        completion_id=row[f"{side}_id"],
        prompt_id=row["prompt_id"],
        status="chosen" if side == "chosen" else "left_out",
        reason="preferred" if side == "chosen" else "dispreferred",
        categories=row["categories"],
        ideal_response=row["ideal_response"],
        spec_id=row["spec_id"],
        score=row[f"{side}_score"],
        scores=row[f"{side}_scores"],
        cited=row[f"{side}_cited"],
        run_id=run_id,
        created_at=datetime.now(UTC),
        prompt=[Turn(**turn) for turn in row["messages"]],
        completion=[reply],
    )


def _pair(chats: ChatTemplate, row: dict[str, Any], max_length: int) -> dict[str, str] | None:
    """One pair as text; None where it cannot be learned whole."""
    texts = {}
    for side in ("chosen", "rejected"):
        reasoning, answer = row[f"{side}_reasoning"], row[f"{side}_answer"]
        try:
            encoded = chats.encode(row["messages"], reasoning=reasoning, answer=answer)
        except ChatError:
            return None
        if len(encoded.input_ids) > max_length:
            return None
        texts[side] = chats.reply_text(reasoning=reasoning, answer=answer)
    return {"prompt": chats.prompt_text(row["messages"]), **texts}


def train(job: Job, rows: Sequence[dict[str, str]]) -> Finished:
    """Trains on the pairs; a training that was killed goes on from its last checkpoint."""
    return fit(_loop, job, rows=list(rows))


def _loop(settings: dict[str, Any]) -> None:
    """What each worker does."""
    job: Job = settings["job"]
    prepare(job)
    import datasets
    from transformers import AutoTokenizer
    from trl import DPOConfig as Arguments
    from trl import DPOTrainer

    config = job.config
    assert isinstance(config, DpoConfig)
    tokenizer = AutoTokenizer.from_pretrained(job.model, revision=job.revision)
    rows = [{**row, "prompt": _without_start(tokenizer, row["prompt"])} for row in settings["rows"]]
    arguments = Arguments(
        **{
            **job.arguments(),
            "num_train_epochs": config.epochs,
            "beta": config.beta,
            "max_length": config.max_length,
            "logging_steps": 1,
        }
    )
    trainer = DPOTrainer(
        model=job.model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=job.adapters(),
    )
    if len(trainer.train_dataset) != len(rows):
        raise TrainError(f"{len(trainer.train_dataset)} of {len(rows)} pairs reached the trainer")
    run(trainer, job, EarlyStop())


def _without_start(tokenizer: Any, text: str) -> str:
    """The prompt without the start token that the tokenizer will put before it again."""
    start = tokenizer.bos_token
    doubled = bool(start) and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(start) if doubled else text
