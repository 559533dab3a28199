"""The lineage of a checkpoint: the trainings that led to it, and the model that they began from.

It follows from the checkpoints themselves, each of which names its parent: the order in which ids
are given or recorded says nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import duckdb

from warehouse.catalog import find_checkpoints, look_up
from warehouse.tables import Checkpoint


class CheckpointError(ValueError):
    """No checkpoint, or several, for an id."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """The trainings that led to a checkpoint, and the model that they began from."""

    stages: tuple[str, ...]
    """Stages of training, from the first to the checkpoint's own."""
    root: str | None
    """`name@revision` of the model that the first began from. None: the warehouse lacks a parent,
    so the stages before are not known."""

    @property
    def name(self) -> str:
        """The titles of the stages, as `midtrain+SFT`; `?+RL` if there were others that are not
        known."""
        stages = [STAGE_TITLES[stage] for stage in self.stages]
        return "+".join(stages if self.root else ["?", *stages])

    def begins_from(self, model: str) -> bool:
        """Returns whether the first training began from a model, given by its version; True if
        the warehouse cannot tell."""
        return self.root in (None, weights_of(model))

    @property
    def place(self) -> tuple[object, ...]:
        """The sort key of tables: fewer trainings first, those of one number by their stages."""
        ranks = [list(STAGE_TITLES).index(stage) for stage in self.stages]
        return (len(ranks), self.root is None, ranks)


STAGE_TITLES = {"midtrain": "midtrain", "sft": "SFT", "dpo": "DPO", "rl": "RL"}
"""Titles of the stages that train a student, in the order in which a recipe trains them."""


def lineage_of(connection: duckdb.DuckDBPyConnection, checkpoint: Checkpoint) -> Lineage:
    """Returns the lineage of a checkpoint, as far as the warehouse has its ancestors."""
    stages = [checkpoint.stage]
    while checkpoint.parent_id is not None:
        parents = find_checkpoints(connection, [checkpoint.parent_id])
        if not parents:
            return Lineage(tuple(stages), None)
        [checkpoint] = parents
        stages.insert(0, checkpoint.stage)
    return Lineage(tuple(stages), weights_of(checkpoint.parent))


def weights_of(version: str) -> str:
    """Returns the `name@revision` of a model's version, without the settings that it is served
    with."""
    return version.split(" {", 1)[0]


def students(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Returns the checkpoints of students, which answer prompts; a reward model only scores
    answers."""
    return [checkpoint for checkpoint in checkpoints if checkpoint.stage in STAGE_TITLES]


def choose_checkpoints(
    connection: duckdb.DuckDBPyConnection, starts: Sequence[str]
) -> list[Checkpoint]:
    """Returns the student's checkpoint of each id, of which the start is enough.

    Raises CheckpointError if no checkpoint, or more than one, has an id that starts so, or if it
    is that of a reward model.
    """
    chosen = []
    for start in starts:
        rows = look_up(connection, "checkpoints_by_start", start=start) if start else []
        rows = [row for row in rows if row["checkpoint_id"] == start] or rows
        if len(rows) != 1:
            listed = ", ".join(row["checkpoint_id"] for row in rows)
            raise CheckpointError(
                f"several checkpoints have ids that start with {start!r}: {listed}; give more of "
                "one"
                if rows
                else f"no checkpoint has an id that starts with {start!r}; precept ask ancestry "
                "lists them"
            )
        checkpoint = Checkpoint(**rows[0])
        if not students([checkpoint]):
            raise CheckpointError(
                f"checkpoint {checkpoint.checkpoint_id} is a reward model, which answers no "
                f"prompt; give the id of a checkpoint of {', '.join(STAGE_TITLES)}"
            )
        chosen.append(checkpoint)
    return chosen


def latest_fine_tuned(
    connection: duckdb.DuckDBPyConnection, recipe: str, *, base: str, set_id: str
) -> Checkpoint | None:
    """Returns the latest whole fine-tuned checkpoint of a recipe that descends from `base` and
    learned another set than `set_id`, or None.

    The checkpoint of the set itself would be its own start: the same training would then never be
    found again.
    """
    rows = look_up(connection, "fine_tuned", recipe=recipe, set_id=set_id)
    checkpoints = (Checkpoint(**row) for row in rows)
    root = weights_of(base)
    return next((one for one in checkpoints if lineage_of(connection, one).root == root), None)


def learned_set(connection: duckdb.DuckDBPyConnection, checkpoint: Checkpoint) -> str | None:
    """Returns the set of examples that a checkpoint, or else its nearest ancestor, was fine-tuned
    on; None if the warehouse knows of none."""
    while checkpoint.stage != "sft":
        parents = find_checkpoints(connection, [checkpoint.parent_id or ""])
        if not parents:
            return None
        [checkpoint] = parents
    return checkpoint.set_id


def in_table_order(
    connection: duckdb.DuckDBPyConnection, checkpoints: Sequence[Checkpoint]
) -> list[Checkpoint]:
    """Returns the checkpoints by their lineages, each once, in whatever order they come: SFT, RL,
    SFT+RL."""
    by_id = {checkpoint.checkpoint_id: checkpoint for checkpoint in checkpoints}
    return sorted(
        by_id.values(),
        key=lambda checkpoint: (
            lineage_of(connection, checkpoint).place,
            checkpoint.created_at,
            checkpoint.checkpoint_id,
        ),
    )
