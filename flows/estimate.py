"""What a refresh would make, and what that would cost, without making or writing anything."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flows.recipe import Recipe
from flows.run import home_at
from tasks.data import collect as collecting
from warehouse.catalog import connect
from warehouse.home import Home


@dataclass(frozen=True, slots=True)
class Estimate:
    """Rows that are missing, and tokens and time for them by what was measured before."""

    prompts: int
    """Prompts that the recipe wants."""
    new_prompts: int
    completions: int
    """Samples to generate; those of prompts whose category is still to be chosen are left out."""
    judgements: int
    """At most: a judge that races stops at the first score under the threshold, and what is not
    well formed is not judged."""
    output_tokens: int | None
    """Null where nothing of the recipe was ever made here."""
    hours: float | None
    gpu_hours: float | None
    cost: float | None
    """GPU-hours at the recipe's price; null where it says none."""

    def as_markdown(self) -> str:
        """The estimate as a list."""
        told = "not known yet: nothing of this recipe was made here before"
        return "\n".join(
            [
                f"- prompts wanted: {self.prompts}, of which new: {self.new_prompts}",
                f"- completions to generate: {self.completions}",
                f"- judgements to make, at most: {self.judgements}",
                f"- output tokens: {told if self.output_tokens is None else self.output_tokens}",
                f"- hours of engines: {told if self.hours is None else format(self.hours, '.2g')}",
                *([f"- GPU-hours: {self.gpu_hours:.2g}"] if self.gpu_hours else []),
                *([f"- cost: {self.cost:.2f}"] if self.cost is not None else []),
            ]
        )


_MISSING = """
    WITH slots AS (
        SELECT w.prompt_id, w.spec_id, unnest(range($samples)) AS sample_index FROM wanted AS w
    ),
    -- As a refresh asks for them: what an engine failed to answer is asked again, up to a limit.
    made AS (
        SELECT prompt_id, spec_id, sample_index, completion_id, status
        FROM completions_all
        WHERE generation_id = $generation_id
          AND (
              status <> 'error'
              OR (attempt >= $retries AND attempt + 1 >= $error_attempts)
          )
    ),
    voted AS (
        SELECT completion_id, judgement_id, score
        FROM judgements_all
        WHERE judging_id = $judging_id
          AND NOT (score IS NULL AND attempt < $retries)
          AND NOT (status = 'error' AND attempt + 1 < $error_attempts)
    ),
    lacking AS (
        SELECT count(*) AS completions
        FROM slots
        LEFT JOIN made USING (prompt_id, spec_id, sample_index)
        WHERE made.completion_id IS NULL
    ),
    judged AS (
        SELECT m.completion_id, count(j.judgement_id) AS votes, min(j.score) AS lowest
        FROM slots
        JOIN made AS m USING (prompt_id, spec_id, sample_index)
        LEFT JOIN voted AS j ON j.completion_id = m.completion_id
        WHERE m.status = 'ok'
        GROUP BY ALL
    ),
    unjudged AS (
        SELECT coalesce(sum(greatest(0, $votes - votes)), 0) AS votes
        FROM judged
        WHERE NOT ($race AND coalesce(lowest, 10) < $threshold)
    )
    SELECT completions, completions * $votes + unjudged.votes FROM lacking, unjudged
"""

_PAID = """
    SELECT figures->'generate' AS generate, figures->'judge' AS judge
    FROM runs
    WHERE recipe = ? AND flow = 'refresh' AND status = 'completed'
"""


def estimate(recipe: Recipe, home: str | None = None) -> Estimate:
    """What `refresh` would make now. Raises what it would raise of a recipe or a source."""
    pack = recipe.load_pack()
    connection = connect(home_at(home))
    known = {row[0] for row in connection.execute("SELECT prompt_id FROM prompts").fetchall()}
    with tempfile.TemporaryDirectory() as folder:
        collected = collecting.collect(
            recipe.sources,
            config=recipe.collect,
            pack_categories=list(pack.policies),
            home=Home(folder),
            connection=connection,
        )
    rows = [
        (row["prompt_id"], pack.spec(row["categories"]).id)
        for row in collected.prompts.to_pylist()
        if row["categories"]
    ]
    wanted = pa.table(
        {
            "prompt_id": pa.array([row[0] for row in rows], pa.string()),
            "spec_id": pa.array([row[1] for row in rows], pa.string()),
        }
    )
    connection.register("wanted", wanted)
    [(completions, judgements)] = connection.execute(
        _MISSING,
        {
            "samples": recipe.generate.samples,
            "votes": recipe.judge.samples,
            "threshold": recipe.judge.threshold,
            "race": recipe.judge.mode == "race",
            "retries": recipe.stage.retries,
            "error_attempts": recipe.stage.error_attempts,
            "generation_id": recipe.generate.generation_id(recipe.engine.version),
            "judging_id": recipe.judge.judging_id(recipe.judging_engine.version),
        },
    ).fetchall()
    paid = connection.execute(_PAID, [recipe.name]).fetchall()
    paid_for = [_share(paid, place, count) for place, count in enumerate((completions, judgements))]
    is_known = None not in paid_for
    gpus = (recipe.engine.num_gpus, recipe.judging_engine.num_gpus)
    seconds = sum(one[1] * num for one, num in zip(paid_for, gpus, strict=True) if one)
    gpu_hours = seconds / 3600 if is_known else None
    price = recipe.gpu_hour_price
    return Estimate(
        prompts=len(collected.prompts),
        new_prompts=_new(collected, known),
        completions=completions,
        judgements=judgements,
        output_tokens=round(sum(one[0] for one in paid_for if one)) if is_known else None,
        hours=sum(one[1] for one in paid_for if one) / 3600 if is_known else None,
        gpu_hours=gpu_hours,
        cost=None if gpu_hours is None or price is None else gpu_hours * price,
    )


def _share(paid: Sequence[Any], place: int, count: int) -> tuple[float, float] | None:
    """Tokens and seconds for so many rows of a stage; None where no row of it was ever made."""
    stages = [json.loads(row[place]) for row in paid if row[place]]
    made = sum(stage["rows"] for stage in stages)
    if not count:
        return (0.0, 0.0)
    if not made:
        return None
    tokens, seconds = (
        sum(stage[name] for stage in stages) for name in ("output_tokens", "seconds")
    )
    return (count * tokens / made, count * seconds / made)


def _new(collected: collecting.Collected, known: set[str]) -> int:
    return sum(name not in known for name in collected.prompts["prompt_id"].to_pylist())
