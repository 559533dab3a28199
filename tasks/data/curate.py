"""examples ← accepted completions: a frozen, fingerprinted set that TRL can train on.

Every accepted completion gets a row: chosen, or left out with the reason. The spec is not in the
rows, and a reasoning that points at it ("the policy above") is left out.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import Field

from specs.reasoning import find_dangling
from tasks import Config
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import EXAMPLES, AssistantTurn, Example, Turn, content_id

_ROWS_PER_SHARD = 20_000


class CurateConfig(Config):
    """Which accepted completions become training rows."""

    best_of: int = Field(1, gt=0)
    """Completions kept for each prompt: those with the highest lowest score."""
    require_citation: bool = True
    """Leave out reasoning that cites no rule that exists."""
    allow_unknown_citations: bool = False
    """Keep reasoning that also cites rules that do not exist."""
    max_group_ratio: float | None = Field(None, ge=1)
    """Largest group of category and ideal response, as a multiple of the smallest; none: all."""


@dataclass(frozen=True, slots=True)
class Curated:
    """A frozen set of examples."""

    set_id: str
    num_chosen: int
    num_left_out: int


def curate(
    connection: duckdb.DuckDBPyConnection,
    *,
    config: CurateConfig,
    home: Home,
    generation_id: str,
    judging_id: str,
    run_id: str,
) -> Curated:
    """Freezes the accepted completions of `wanted(prompt_id, spec_id)` as a set of examples.

    Accepted is what passes the threshold and number of judgements of this run. The same
    completions under the same rules are the same set, and are not written again.
    """
    rows = _accepted(connection, generation_id, judging_id, run_id)
    reasons = _reasons(rows, config)
    chosen = sum(reason == CHOSEN for reason in reasons.values())
    texts = {row["completion_id"]: row["text_id"] for row in rows}
    fingerprint = hashlib.sha256(
        "\n".join(f"{key} {texts[key]} {reasons[key]}" for key in sorted(reasons)).encode()
    ).hexdigest()
    set_id = content_id(config.model_dump_json(), judging_id, fingerprint)
    [(num_known,)] = connection.execute(
        "SELECT count(*) FROM examples_all WHERE set_id = $set_id", {"set_id": set_id}
    ).fetchall()
    if num_known != len(rows):
        for start in range(0, len(rows), _ROWS_PER_SHARD):
            part = rows[start : start + _ROWS_PER_SHARD]
            examples = [
                _example(row, reasons[row["completion_id"]], set_id, run_id) for row in part
            ]
            write_shard(home, EXAMPLES, examples)
    return Curated(set_id, chosen, len(rows) - chosen)


CHOSEN = "best of n"


def _accepted(
    connection: duckdb.DuckDBPyConnection, generation_id: str, judging_id: str, run_id: str
) -> list[dict[str, Any]]:
    table: pa.Table = connection.sql(
        """
        SELECT
            c.completion_id, c.text_id, c.prompt_id, c.spec_id, c.cited, c.cited_unknown, c.answer,
            c.reasoning, p.categories, p.ideal_response, p.messages, v.min_score, v.scores
        FROM verdicts AS v
        JOIN completions AS c USING (completion_id)
        JOIN prompts AS p USING (prompt_id)
        -- Another recipe may judge the same completions by another threshold.
        JOIN runs_all AS r ON r.num_judgements = v.num_judgements AND r.threshold = v.threshold
        SEMI JOIN wanted AS w ON c.prompt_id = w.prompt_id AND c.spec_id = w.spec_id
        WHERE r.run_id = $run_id
          AND v.verdict = 'accepted'
          AND c.generation_id = $generation_id
          AND v.judging_id = $judging_id
        ORDER BY c.prompt_id, v.min_score DESC, list_avg(v.scores) DESC, c.completion_id
        """,
        params={"generation_id": generation_id, "judging_id": judging_id, "run_id": run_id},
    ).to_arrow_table()
    return list(table.to_pylist())


def _reasons(rows: Sequence[dict[str, Any]], config: CurateConfig) -> dict[str, str]:
    """Completion id → why it is chosen or left out; rows are ordered best first by prompt."""
    reasons: dict[str, str] = {}
    kept_by_prompt: dict[str, int] = defaultdict(int)
    groups: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for row in rows:
        fault = _fault(row, config)
        if not fault and kept_by_prompt[row["prompt_id"]] >= config.best_of:
            fault = "not_best"
        if not fault:
            kept_by_prompt[row["prompt_id"]] += 1
            group = ("+".join(row["categories"]), row["ideal_response"])
            groups[group].append(row["completion_id"])
        reasons[row["completion_id"]] = fault or CHOSEN
    if config.max_group_ratio and groups:
        most = int(min(map(len, groups.values())) * config.max_group_ratio)
        for members in groups.values():
            # By id, which is a hash: a fair draw that is the same every time.
            for completion_id in sorted(members)[most:]:
                reasons[completion_id] = "balance"
    return reasons


def _fault(row: dict[str, Any], config: CurateConfig) -> str | None:
    if config.require_citation and not row["cited"]:
        return "uncited"
    if row["cited_unknown"] and not config.allow_unknown_citations:
        return "cites_unknown"
    if find_dangling(row["reasoning"]) or find_dangling(row["answer"], in_answer=True):
        return "dangling"
    return None


def _example(row: dict[str, Any], reason: str, set_id: str, run_id: str) -> Example:
    answer = AssistantTurn(
        role="assistant", content=row["answer"], reasoning_content=row["reasoning"]
    )
    return Example(
        set_id=set_id,
        completion_id=row["completion_id"],
        prompt_id=row["prompt_id"],
        status="chosen" if reason == CHOSEN else "left_out",
        reason=reason,
        categories=row["categories"],
        ideal_response=row["ideal_response"],
        spec_id=row["spec_id"],
        score=row["min_score"],
        scores=row["scores"],
        cited=row["cited"],
        run_id=run_id,
        created_at=datetime.now(UTC),
        prompt=[Turn(**turn) for turn in row["messages"]],
        completion=[answer],
    )
