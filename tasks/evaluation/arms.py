"""Arms with the engines that serve their models: the base model, checkpoints, and their probes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import duckdb

from specs.template import DEFAULT_SET, TemplateNames, load_template
from tasks.engine.requests import EngineConfig
from tasks.evaluation.answer import AnswerConfig, Arm
from tasks.evaluation.probes import PROBES
from tasks.refine import Refiner
from warehouse.home import Home
from warehouse.lineage import Lineage, lineage_of
from warehouse.models import fetch_folder
from warehouse.tables import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedArm:
    """An arm with the engine that serves its model."""

    arm: Arm
    engine: EngineConfig

    @classmethod
    def of_base(
        cls,
        engine: EngineConfig,
        config: AnswerConfig,
        *,
        name: str,
        model: str,
        templates: TemplateNames = DEFAULT_SET,
        refiner: Refiner | None = None,
    ) -> "ServedArm":
        """Returns an untrained model as an arm; `model` is its `name@revision`, and a template of
        a generator in `templates` shows it the policies."""
        arm = Arm(
            name=name,
            model=model,
            checkpoint_id=None,
            seed=None,
            config=config,
            template=load_template("generator", templates),
            refiner=refiner,
        )
        return cls(arm=arm, engine=engine)

    @classmethod
    def of_checkpoint(
        cls, base: "ServedArm", checkpoint: Checkpoint, home: Home, *, name: str, seed: int | None
    ) -> "ServedArm":
        """Returns a trained model as an arm that is asked and served as `base` is.

        Raises FileNotFoundError if the warehouse has no model for the checkpoint.
        """
        arm = replace(
            base.arm,
            name=name,
            model=checkpoint.model,
            checkpoint_id=checkpoint.checkpoint_id,
            seed=seed,
        )
        folder = fetch_folder(home, checkpoint.path)
        return cls(arm=arm, engine=base.engine.with_model(str(folder)))

    def within(self, budget: int) -> "ServedArm":
        """Returns the arm again under a limit of its reasoning, in tokens."""
        config = self.arm.config.model_copy(update={"budget": budget})
        name = f"{self.arm.name}, {budget} tokens"
        return replace(self, arm=replace(self.arm, name=name, config=config))

    @property
    def probes(self) -> list["ServedArm"]:
        """The arm again, once with each way of tampering with its reasoning.

        A rule is edited only if the model is shown the rules in full.
        """
        config = self.arm.config.model_copy(update={"samples": 1})
        shows_rules = config.context == "category"
        return [
            replace(self, arm=replace(self.arm, probe=probe, config=config))
            for probe in PROBES
            if shows_rules or probe != "edited"
        ]


def arm_names(
    connection: duckdb.DuckDBPyConnection,
    checkpoints: Sequence[Checkpoint],
    *,
    base: str | None = None,
) -> list[str]:
    """Returns a name for each checkpoint, by the trainings that led to it: `SFT`, `SFT+RL`, `RL`.

    A checkpoint that did not begin from the model `base` names the one that it began from. Arms of
    one name would count as seeds of one training: checkpoints that share a lineage bear the start
    of their ids as well. One whose training ended early says so: `SFT+RL (collapsed)`.
    """
    names = {
        checkpoint.checkpoint_id: _name(lineage_of(connection, checkpoint), base)
        + ("" if checkpoint.status == "completed" else f" ({checkpoint.status})")
        for checkpoint in checkpoints
    }
    counts = Counter(names.values())
    starts = _starts(list(names))
    return [
        names[name] if counts[names[name]] == 1 else f"{names[name]} {starts[name]}"
        for name in (checkpoint.checkpoint_id for checkpoint in checkpoints)
    ]


def _name(lineage: Lineage, base: str | None) -> str:
    if base is None or lineage.begins_from(base):
        return lineage.name
    return f"{lineage.name} of {lineage.root}"


def _starts(ids: Sequence[str]) -> dict[str, str]:
    """Returns, by id, the shortest start of at least 12 digits that tells all ids apart."""
    longest = max(map(len, ids), default=0)
    length = next(
        (size for size in range(12, longest) if len({name[:size] for name in ids}) == len(ids)),
        longest,
    )
    return {name: name[:length] for name in ids}
