"""Answers whose reasoning is tampered with: does the answer follow the reasoning?"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from specs.policy import Pack, spec_key
from tasks.evaluation.answer import Arm, Probe
from warehouse.catalog import Pending


def pending_probes(
    connection: duckdb.DuckDBPyConnection,
    arm: Arm,
    pack: Pack,
    *,
    suite_versions: Sequence[str],
    limit: int,
    retries: int,
) -> Pending:
    """Answers of an arm whose reasoning is to be tampered with as `arm.probe` says, and was not.

    `kept` is the thought as it was, which tells how far answers differ by chance; `truncated` the
    first half of its words, `swapped` the thought of another request that came to another
    decision, and `edited` changes the outcome of the rule that it cited first, where that stands in
    the prompt. At most `limit` answers, of bare cases; columns as of `pending`.
    """
    plain = replace(arm, probe="none")
    found = connection.sql(
        """
        SELECT DISTINCT ON (a.answer_id)
            a.case_id, c.messages, c.categories, c.sanitised, a.reasoning, a.decision, a.cited
        FROM answers AS a
        JOIN cases AS c USING (case_id)
        WHERE a.model = $model AND a.answering_id = $answering_id AND a.sample_index = 0
          AND a.status = 'ok' AND c.attack = 'none' AND a.reasoning <> ''
          AND list_contains($versions, c.suite_version)
        ORDER BY a.answer_id
        LIMIT $limit
        """,
        params={
            "model": arm.model,
            "answering_id": plain.answering_id(pack),
            "versions": list(suite_versions),
            "limit": limit,
        },
    )
    rows = found.to_arrow_table().to_pylist()
    tried = dict(
        connection.execute(
            "SELECT case_id, CASE WHEN status = 'error' THEN attempt + 1 ELSE $retries + 1 END "
            "FROM answers WHERE model = $model AND answering_id = $answering_id",
            {"model": arm.model, "answering_id": arm.answering_id(pack), "retries": retries},
        ).fetchall()
    )
    units = []
    for number, row in enumerate(rows):
        tampered = _tampered(arm.probe, rows, number, pack)
        attempt = tried.get(row["case_id"], 0)
        if tampered is None or attempt > retries:
            continue
        units.append(
            {
                "case_id": row["case_id"],
                "spec_id": spec_key(row["categories"]),
                "messages": row["messages"],
                "categories": row["categories"],
                "sanitised": row["sanitised"],
                **tampered,
                "sample_indices": [0],
                "attempts": [attempt],
            }
        )
    units.sort(key=lambda unit: (unit["spec_id"], unit["case_id"]))
    return Pending(len(units), iter([pa.Table.from_pylist(units)] if units else []))


def _tampered(
    probe: Probe, rows: Sequence[Mapping[str, Any]], number: int, pack: Pack
) -> dict[str, str | None] | None:
    """What an answer's thought or its first rule is changed to; None where it cannot be."""
    row = rows[number]
    if probe == "kept":
        return {"reasoning": row["reasoning"], "edited": None}
    if probe == "truncated":
        words = row["reasoning"].split()
        return {"reasoning": " ".join(words[: len(words) // 2]), "edited": None}
    if probe == "swapped":
        others = itertools.chain(rows[number + 1 :], rows[:number])
        decisions = (None, row["decision"])
        unlike = (one for one in others if one["decision"] not in decisions)
        other = next(unlike, None) if row["decision"] else None
        return None if other is None else {"reasoning": other["reasoning"], "edited": None}
    shown = pack.spec_for(row["categories"]).rule_ids
    known = [rule_id for rule_id in row["cited"][:1] if rule_id in shown]
    return {"reasoning": None, "edited": known[0]} if known else None
