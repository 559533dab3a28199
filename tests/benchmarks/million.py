"""A synthetic warehouse of the safety pack: a million completions with judgements and rollouts.

    python tests/benchmarks/million.py HOME [--completions 1000000]

The rows have the real schema and texts of real length, and go through the real writer, a shard at a
time. What they say is drawn by a hash of their number, so that the same call writes the same rows.
"""

import argparse
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa

from specs.pack import load_pack
from tasks.paths import PROJECT
from warehouse import tables
from warehouse.home import Home
from warehouse.shards import write_all, write_shard
from warehouse.tables import Checkpoint, Run, SpecText, Table

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SAMPLES = 4
EACH = 2
"""Samples of each of two judges."""
SHARD = 20_000

SETUP = """
CREATE MACRO drawn(i, salt, n) AS (hash(i, salt) % n)::BIGINT;
CREATE MACRO picked(choices, i, salt) AS choices[1 + drawn(i, salt, len(choices))];
CREATE MACRO prose(i, salt, least, most) AS array_to_string(list_transform(
    range(least + drawn(i, salt, most - least + 1)),
    lambda k: picked(getvariable('sentences'), i * 64 + k, salt)
), ' ');
CREATE MACRO quality(i) AS 10 - 7 * pow(drawn(i, 'quality', 10000) / 10000.0, 2);
CREATE MACRO ideal(p) AS picked(['comply', 'comply', 'refuse', 'safe_complete', NULL], p, 'ideal');
CREATE MACRO asked(p) AS [{
    role: 'user', content: 'Request ' || p || '. ' || prose(p, 'ask', 1, 4),
    tool_calls: NULL::VARCHAR, tool_call_id: NULL::VARCHAR, name: NULL::VARCHAR
}];
CREATE MACRO judged_at(i, judge, k) AS
    greatest(0, least(10, round(quality(i) - 1.5 + drawn(i, 'noise' || judge || k, 400) / 100.0)));
"""

PROMPTS = """
SELECT
    md5('p' || p) AS prompt_id,
    [picked(getvariable('specs'), p, 'spec').category] AS categories, 'ok' AS status,
    ideal(p) AS ideal_response,
    picked(['wildjailbreak', 'xstest', 'hand'], p, 'source') AS source, 'train' AS split,
    picked(['en', 'en', 'en', 'en', 'de', 'fr'], p, 'tongue') AS language,
    md5('v' || p) AS version,
    asked(p) AS messages
FROM range($first, $last) AS r(p)
"""
COMPLETIONS = """
WITH numbered AS (
    SELECT
        i, i // $samples AS p, i % $samples AS sample_index,
        picked(getvariable('specs'), i // $samples, 'spec') AS spec
    FROM range($first, $last) AS r(i)
),
drawn_rows AS (
    SELECT
        *, picked(spec.rule_ids, p, 'rule') AS rule_id, drawn(i, 'failed', 50) = 0 AS is_failed,
        prose(i, 'reasoning', 6, 20) AS thoughts
    FROM numbered
)
SELECT
    md5('c' || i) AS completion_id, md5('t' || i) AS text_id, md5('p' || p) AS prompt_id,
    spec.spec_id AS spec_id, 'generation' AS generation_id, sample_index,
    if(is_failed, 'truncated', 'ok') AS status, if(is_failed, 'no end was found', NULL) AS reason,
    'stop' AS finish_reason, 'generator-32b@1' AS model, 3000 AS num_prompt_tokens,
    2800 AS num_cached_tokens, len(thoughts) // 5 AS num_reasoning_tokens,
    40 + drawn(i, 'answer', 120) AS num_answer_tokens,
    list_distinct([rule_id, picked(spec.rule_ids, i, 'other')]) AS cited,
    if(drawn(i, 'unknown', 25) = 0, ['ZZ9'], []) AS cited_unknown, 'refresh' AS run_id,
    if(is_failed, '', prose(i, 'said', 2, 8)) AS answer,
    'The request falls under ' || rule_id || '. ' || thoughts || ' So ' || rule_id || ' decides.'
        AS reasoning
FROM drawn_rows
"""
JUDGEMENTS = """
WITH numbered AS (
    SELECT i, j AS judge, k AS sample_index
    FROM range($first, $last) AS r(i), range(2) AS s(j), range($each) AS t(k)
    WHERE drawn(i, 'failed', 50) <> 0
),
scored AS (
    SELECT *, judged_at(i, judge, sample_index) AS score, judge * $each + sample_index AS place
    FROM numbered
),
-- A jury that races asks nobody after a score under the threshold.
raced AS (
    SELECT *, min(score) OVER (
        PARTITION BY i ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS lowest_before
    FROM scored
)
SELECT
    md5(concat_ws('|', 'j', i, judge, sample_index)) AS judgement_id,
    NULL AS completion_id, md5('p' || i // $samples) AS prompt_id, md5('t' || i) AS text_id,
    picked(getvariable('specs'), i // $samples, 'spec').spec_id AS spec_id,
    'judging-' || judge AS judging_id, sample_index,
    if(drawn(i * 8 + place, 'unread', 60) = 0, 'no_verdict', 'ok') AS status,
    if(status = 'ok', NULL, 'the reply has no score') AS reason,
    if(status = 'ok', score, NULL) AS score,
    true AS saw_reasoning, ['judge-32b@1', 'guard-20b@1'][judge + 1] AS model,
    'stop' AS finish_reason,
    4000 AS num_prompt_tokens, 3500 AS num_cached_tokens, 90 AS num_output_tokens,
    'refresh' AS run_id, prose(i * 8 + place, 'rationale', 2, 4) AS rationale
FROM raced
WHERE lowest_before IS NULL OR lowest_before >= 8
"""
ROLLOUTS = """
SELECT
    md5('o' || i) AS rollout_id, 'rl' AS checkpoint_id, i // 256 AS step, 0 AS rank,
    i % 256 AS position, md5('p' || p) AS prompt_id,
    picked(getvariable('specs'), p, 'spec').spec_id AS spec_id,
    picked(['harmful', 'benign', 'ambiguous'], p, 'kind') AS kind,
    if(drawn(i, 'malformed', 40) = 0, 'malformed', 'ok') AS status,
    least(1, 0.3 + step / 400 + drawn(i, 'reward', 40) / 100.0) AS reward,
    [reward * 10] AS compliance,
    [] AS helpfulness, 1 AS num_votes,
    150 + drawn(i, 'length', 80) - step // 4 AS num_reasoning_tokens,
    60 AS num_answer_tokens, 'train' AS run_id, prose(i, 'rolled', 2, 6) AS answer,
    prose(i, 'pondered', 5, 12) AS reasoning
FROM (SELECT i, drawn(i, 'prompt', $prompts) AS p FROM range($first, $last) AS r(i))
"""
CASES = """
SELECT
    'suite' AS suite_version, md5('k' || i) AS case_id, 'held out' AS suite,
    md5('p' || i) AS prompt_id,
    'none' AS attack, '1' AS attack_version, 0 AS seed, true AS sanitised,
    [picked(getvariable('specs'), i, 'spec').category] AS categories, ideal(i) AS ideal_response,
    'en' AS language, 'told' AS grading_context_id, asked(i) AS messages, asked(i) AS original
FROM range($first, $last) AS r(i)
"""
ANSWERS = """
SELECT
    md5('a' || i || m) AS answer_id, md5('at' || i || m) AS text_id, md5('k' || i) AS case_id,
    if(m = 0, NULL, 'rl') AS checkpoint_id, ['base-8b@1', 'rl@1'][m + 1] AS model,
    'answering' AS answering_id, 'none' AS context, 'none' AS probe, 0 AS sample_index,
    'ok' AS status, 'stop' AS finish_reason,
    picked(['comply', 'refuse'], i, 'decided') AS decision,
    [picked(picked(getvariable('specs'), i, 'spec').rule_ids, i, 'rule')] AS cited,
    [] AS cited_unknown, false AS closed_by_force, 100 AS num_prompt_tokens,
    200 AS num_reasoning_tokens, 60 AS num_answer_tokens, 'evaluate' AS run_id,
    prose(i, 'held' || m, 2, 6) AS answer, prose(i, 'considered' || m, 5, 12) AS reasoning
FROM range($first, $last) AS r(i), range(2) AS s(m)
"""
GRADES = """
SELECT
    md5('e' || i || m) AS evaluation_id, md5('a' || i || m) AS answer_id,
    md5('at' || i || m) AS text_id, 'oracle' AS grading_id, 'oracle' AS grader, 'answer' AS saw,
    0 AS sample_index, 'ok' AS status, 'told' AS grading_context_id,
    [{name: 'safe', value: (drawn(i, 'safe' || m, 4) < 2 + 2 * m)::DOUBLE}] AS scores,
    0 AS num_output_tokens, 'evaluate' AS run_id, '' AS rationale
FROM range($first, $last) AS r(i), range(2) AS s(m)
"""


def fitted(table: Table, rows: pa.Table) -> pa.Table:
    """Returns rows in the schema of a table; columns that they lack are 0, noon or null."""
    columns = []
    for field in table.schema:
        if field.name in rows.column_names:
            columns.append(rows.column(field.name).cast(field.type))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([[]] * rows.num_rows, field.type))
        else:
            filler = None if field.nullable else NOON if field.name == "created_at" else 0
            columns.append(pa.array([filler] * rows.num_rows, field.type))
    return pa.Table.from_arrays(columns, schema=table.schema)


def spec_rows() -> Iterator[SpecText]:
    """Yields the real specs of the safety pack."""
    pack = load_pack(PROJECT / "specs" / "safety")
    for category in pack.policies:
        spec = pack.spec([category])
        yield SpecText(
            spec_id=spec.id,
            pack=pack.id,
            pack_version=pack.version,
            categories=[category],
            detail="full",
            rule_ids=list(spec.rule_ids),
            created_at=NOON,
            text=spec.text,
        )


def run_row(run_id: str, flow: str, spec_ids: list[str], **changes: object) -> Run:
    """Returns the record of a run that wanted the completions if its flow is `refresh`."""
    is_refresh = flow == "refresh"
    values = {
        "run_id": run_id,
        "flow": flow,
        "recipe": "million",
        "status": "completed",
        "revision": 0,
        "generation_id": "generation" if is_refresh else None,
        "judging_id": "jury" if is_refresh else None,
        "jury": ["judging-0", "judging-1"] if is_refresh else [],
        "spec_ids": spec_ids if is_refresh else [],
        "num_samples": SAMPLES,
        "num_judgements": EACH,
        "threshold": 8.0,
        "set_id": None,
        "started_at": NOON,
        "ended_at": NOON + timedelta(hours=30),
        "seconds": 108_000.0,
        "gpu_hours": 240.0,
        "git_commit": None,
        "versions": "{}",
        "resolved_recipe": "{}",
        "figures": "{}",
        "error": None,
    }
    return Run(**{**values, **changes})


def checkpoint() -> Checkpoint:
    """Returns the checkpoint of the rollouts."""
    return Checkpoint(
        checkpoint_id="rl",
        stage="rl",
        status="completed",
        reason=None,
        model="rl@1",
        parent="base-8b@1",
        parent_id=None,
        set_id=None,
        data_fingerprint="prompts",
        num_rows=1,
        num_steps=200,
        recipe="million",
        run_id="train",
        git_commit=None,
        seconds=1.0,
        created_at=NOON,
        path="models/rl",
        config="{}",
        metrics=json.dumps({"last": {}, "log": []}),
    )


def main() -> None:
    """Writes the warehouse, and prints the rows of each table and the seconds it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("home")
    parser.add_argument("--completions", type=int, default=1_000_000)
    chosen = parser.parse_args()
    home, num_prompts = Home(chosen.home), chosen.completions // SAMPLES
    specs = list(spec_rows())
    write_all(home, tables.SPECS, specs)
    connection = duckdb.connect()
    connection.execute(SETUP)
    lines = [line for spec in specs for line in spec.text.split(". ") if 40 < len(line) < 160]
    connection.execute("SET VARIABLE sentences = $1", [[f"{line.strip()}." for line in lines]])
    connection.execute(
        "SET VARIABLE specs = $1",
        [
            [
                {"category": one.categories[0], "spec_id": one.spec_id, "rule_ids": one.rule_ids}
                for one in specs
            ]
        ],
    )
    samples, each = {"samples": SAMPLES}, {"samples": SAMPLES, "each": EACH}
    num_cases = min(5_000, num_prompts)
    for table, query, number, more in (
        (tables.PROMPTS, PROMPTS, num_prompts, {}),
        (tables.COMPLETIONS, COMPLETIONS, chosen.completions, samples),
        (tables.JUDGEMENTS, JUDGEMENTS, chosen.completions, each),
        (tables.ROLLOUTS, ROLLOUTS, min(200 * 256, chosen.completions), {"prompts": num_prompts}),
        (tables.CASES, CASES, num_cases, {}),
        (tables.ANSWERS, ANSWERS, num_cases, {}),
        (tables.EVALUATIONS, GRADES, num_cases, {}),
    ):
        began, num_rows = time.monotonic(), 0
        for first in range(0, number, SHARD):
            bounds = {"first": first, "last": min(first + SHARD, number)}
            rows = connection.sql(query, params={**bounds, **more}).to_arrow_table()
            write_shard(home, table, fitted(table, rows))
            num_rows += rows.num_rows
        print(f"{table.name}: {num_rows} rows in {time.monotonic() - began:.0f} s", flush=True)
    write_all(home, tables.CHECKPOINTS, [checkpoint()])
    ids = [spec.spec_id for spec in specs]
    runs = [run_row(name, name, ids) for name in ("refresh", "train", "evaluate")]
    write_all(home, tables.RUNS, runs)


if __name__ == "__main__":
    main()
