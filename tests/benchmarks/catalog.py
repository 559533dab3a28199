"""Seconds and memory of the catalog over ten million completions with their texts.

    python tests/benchmarks/catalog.py FOLDER [--completions 10000000] [--memory 8GB] [--keep]

Writes a warehouse into FOLDER (about 200 bytes of disk a completion), in shards as `precept
compact` leaves them: four completions a prompt, two samples of a judge that races, examples,
rollouts and answers, all with texts of a small pool. Then asks the funnel and the ten queries of
warehouse/README.md, each in a process of its own, and removes the folder.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from tasks.paths import PROJECT
from warehouse.catalog import connect, query_text, read
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import (
    ANSWERS,
    CASES,
    COMPLETIONS,
    EXAMPLES,
    JUDGEMENTS,
    PROMPTS,
    ROLLOUTS,
    RUNS,
    SPECS,
    Table,
)

NUM_SAMPLES, NUM_JUDGEMENTS, NUM_SPECS = 4, 2, 7
ROWS_PER_SHARD = 50_000
SENTENCES = [
    f"Sentence {number} weighs what rule B{number % 9} says of the request against its exceptions, "
    f"and finds that {'a reader in good faith' if number % 2 else 'the person who asks'} "
    f"{'may be told' if number % 3 else 'must not be told'} the part {number * 7919 % 1000}."
    for number in range(400)
]
NOON = "TIMESTAMPTZ '2026-01-01 12:00:00+00'"
FILLER = {"string": "''", "bool": "true", "timestamp[us, tz=UTC]": NOON}
ACCEPTED = "hash(c) % 10 < 7"
"""A completion, by its number c, whose scores are all over the threshold."""


NUM_SENTENCES = {"ask": 1, "reasoning": 8, "answer": 2, "rationale": 2}
"""Columns of text that a table may take, with the sentences in one of them."""
POOLS = {
    name: pa.array(" ".join(np.roll(SENTENCES, start)[:number]) for start in range(len(SENTENCES)))
    for name, number in NUM_SENTENCES.items()
}
"""The texts that rows are given, 400 of each column."""


def texts(names: Sequence[str], start: int, end: int) -> pa.Table:
    """Returns a row for each number i, with these texts."""
    random = np.random.default_rng(start)
    picks = {name: random.integers(len(SENTENCES), size=end - start) for name in names}
    columns = {name: POOLS[name].take(pa.array(pick)) for name, pick in picks.items()}
    return pa.table({"i": pa.array(range(start, end)), **columns})


def chat(content: str) -> str:
    """Returns SQL of a chat of one user turn."""
    keys = {"role": "'user'", "content": content, "tool_calls": "NULL::VARCHAR"}
    keys |= {"tool_call_id": "NULL::VARCHAR", "name": "NULL::VARCHAR"}
    return f"[{{{', '.join(f'{key!r}: {value}' for key, value in keys.items())}}}]"


def write_table(
    home: Home, table: Table, columns: Mapping[str, str], *, num_rows: int, where: str = "true"
) -> None:
    """Writes shards of a table; `columns` are SQL over the row's number i, others are null or
    empty."""
    given = [columns.get(field.name) or _filler(field) for field in table.schema]
    select = ", ".join(
        f"{value} AS {field.name}" for value, field in zip(given, table.schema, strict=True)
    )
    names = [name for name in POOLS if re.search(rf"\b{name}\b(?!')", " ".join(columns.values()))]
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    for start in range(0, num_rows, ROWS_PER_SHARD):
        connection.register("texts", texts(names, start, min(num_rows, start + ROWS_PER_SHARD)))
        rows = connection.sql(
            f"SELECT {select} FROM (SELECT *, i // {NUM_JUDGEMENTS} AS c FROM texts) WHERE {where}"
        )
        write_shard(home, table, rows.to_arrow_table().cast(table.schema))


def _filler(field: pa.Field) -> str:
    if field.nullable:
        return "NULL"
    return "[]" if pa.types.is_list(field.type) else FILLER.get(str(field.type), "0")


def write(home: Home, num_completions: int) -> None:
    """Writes every table, as a refresh, a training and an evaluation would leave them."""
    num_prompts = num_completions // NUM_SAMPLES
    spec, prompt = (
        f"md5('s' || i // {NUM_SAMPLES} % {NUM_SPECS})",
        f"md5('p' || i // {NUM_SAMPLES})",
    )
    write_table(home, PROMPTS, _prompts(), num_rows=num_prompts)
    specs = {"spec_id": "md5('s' || i)", "pack": "'pack'", "text": "repeat(reasoning, 8)"}
    specs |= {"categories": "['category' || i]", "detail": "'full'", "rule_ids": "['B1', 'B3']"}
    write_table(home, SPECS, specs, num_rows=NUM_SPECS)
    made = {"model": "'model@1'", "run_id": "'run'", "text_id": "md5('t' || i)", "status": "'ok'"}
    cited = "['B' || hash(i) % 9, 'B' || hash(i, 1) % 9]"
    completions = made | {
        **{"completion_id": "md5('c' || i)", "prompt_id": prompt, "spec_id": spec},
        **{"generation_id": "'generation'", "sample_index": f"i % {NUM_SAMPLES}", "cited": cited},
        **{"status": "if(hash(i, 2) % 50 = 0, 'truncated', 'ok')"},
        **{"num_reasoning_tokens": "200 + hash(i) % 200", "num_answer_tokens": "60"},
        **{"answer": "answer", "reasoning": "reasoning"},
    }
    write_table(home, COMPLETIONS, completions, num_rows=num_completions)
    score = f"if({ACCEPTED}, 8 + hash(i) % 3, hash(i) % 8)"
    judgements = made | {
        **{"judgement_id": "md5('j' || i)", "prompt_id": f"md5('p' || c // {NUM_SAMPLES})"},
        **{"text_id": "md5('t' || c)", "judging_id": "'judging'", "score": score},
        **{"spec_id": f"md5('s' || c // {NUM_SAMPLES} % {NUM_SPECS})"},
        **{"sample_index": f"i % {NUM_JUDGEMENTS}", "rationale": "rationale"},
    }
    # A race asks for no second sample after a score under the threshold.
    asked = f"hash(c, 2) % 50 <> 0 AND (i % {NUM_JUDGEMENTS} = 0 OR {ACCEPTED})"
    num_judgements = num_completions * NUM_JUDGEMENTS
    write_table(home, JUDGEMENTS, judgements, num_rows=num_judgements, where=asked)
    write_table(home, EXAMPLES, _examples(cited), num_rows=num_prompts)
    _write_models(home, min(50_000, num_completions), made)
    figures = {"collect": {"source": {"read": num_prompts, "kept": num_prompts, "to_assign": 0}}}
    run = {
        **{"run_id": "'run'", "flow": "'refresh'", "recipe": "'recipe'", "status": "'completed'"},
        **{"generation_id": "'generation'", "judging_id": "'judging'", "set_id": "'set'"},
        **{"spec_ids": f"[md5('s' || s) FOR s IN range({NUM_SPECS})]", "threshold": "8"},
        **{"num_samples": f"{NUM_SAMPLES}", "num_judgements": f"{NUM_JUDGEMENTS}"},
        **{"versions": "'{}'", "resolved_recipe": "'{}'", "figures": f"'{json.dumps(figures)}'"},
    }
    write_table(home, RUNS, run, num_rows=1)


def _prompts() -> dict[str, str]:
    return {
        **{"prompt_id": "md5('p' || i)", "categories": f"['category' || i % {NUM_SPECS}]"},
        **{"status": "'ok'", "source": "'source'", "split": "'train'", "language": "'en'"},
        **{"ideal_response": "if(i % 3 = 0, 'refuse', 'comply')", "messages": chat("ask")},
    }


def _examples(cited: str) -> dict[str, str]:
    reply = "'content': answer, 'reasoning_content': reasoning"
    return {
        **{"set_id": "'set'", "completion_id": f"md5('c' || i * {NUM_SAMPLES})"},
        **{"prompt_id": "md5('p' || i)", "status": "'chosen'", "reason": "'best of n'"},
        **{"categories": f"['category' || i % {NUM_SPECS}]", "scores": "[9, 10]", "score": "9"},
        **{"spec_id": f"md5('s' || i % {NUM_SPECS})", "cited": cited, "run_id": "'run'"},
        **{"prompt": chat("ask"), "completion": f"[{{'role': 'assistant', {reply}}}]"},
    }


def _write_models(home: Home, num_rows: int, made: Mapping[str, str]) -> None:
    """Writes what trainings and evaluations leave: rollouts, cases and answers."""
    replies = {"answer": "answer", "reasoning": "reasoning"}
    rollouts = (
        made
        | replies
        | {
            **{"rollout_id": "md5('r' || i)", "checkpoint_id": "'checkpoint'", "step": "i // 64"},
            **{"reward": "hash(i) % 11 / 10", "num_reasoning_tokens": "200 + hash(i) % 200"},
            **{"compliance": "[9.0]"},
        }
    )
    write_table(home, ROLLOUTS, rollouts, num_rows=num_rows)
    cases = _prompts() | {
        **{"suite_version": "'v'", "case_id": "md5('k' || i)", "suite": "'suite'"},
        **{"attack": "'none'", "original": chat("ask")},
    }
    write_table(home, CASES, cases, num_rows=num_rows // 10)
    answers = (
        made
        | replies
        | {
            **{"answer_id": "md5('a' || i)", "case_id": "md5('k' || i // 10)", "cited": "['B1']"},
            **{"context": "'none'", "probe": "'none'", "sample_index": "i % 10"},
        }
    )
    write_table(home, ANSWERS, answers, num_rows=num_rows)


def queries() -> Iterator[tuple[str, str]]:
    """Yields the funnel and the ten queries of the page, each with its title."""
    yield "funnel", query_text("funnel")
    page = (PROJECT / "warehouse" / "README.md").read_text(encoding="utf-8")
    part = page[page.index("<!-- queries -->") : page.index("<!-- end of queries -->")]
    yield from re.findall(r"^(\S[^\n]*):\n\n```sql\n(.*?)```", part, re.MULTILINE | re.DOTALL)


def answer(home: Home, query: str, *, memory: str) -> dict[str, Any]:
    """Returns the seconds and the memory of one query; those of connecting stand apart."""
    began = time.monotonic()
    connection = connect(home)
    connection.execute(f"SET memory_limit = '{memory}'")
    connected = time.monotonic() - began
    began = time.monotonic()
    num_rows = sum(batch.num_rows for batch in read(connection, query).to_arrow_reader(10_000))
    return {
        "rows": num_rows,
        "connect_seconds": round(connected, 2),
        "seconds": round(time.monotonic() - began, 2),
        "cpu_seconds": round(time.process_time(), 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--completions", type=int, default=10_000_000)
    parser.add_argument("--memory", default="8GB", help="what DuckDB may use before it spills")
    parser.add_argument("--keep", action="store_true", help="leave the warehouse where it is")
    parser.add_argument("--query", help=argparse.SUPPRESS)
    options = parser.parse_args()
    home = Home(str(options.folder))
    if options.query:
        [query] = [sql for title, sql in queries() if title == options.query]
        print(json.dumps(answer(home, query, memory=options.memory)))
        return
    if not options.folder.exists():
        began = time.monotonic()
        write(home, options.completions)
        size = sum(file.stat().st_size for file in options.folder.rglob("*.parquet")) / 2**30
        print(f"written: {size:.1f} GiB in {time.monotonic() - began:.0f} s", flush=True)
    for title, _ in queries():
        command = [sys.executable, __file__, str(options.folder), "--memory", options.memory]
        done = subprocess.run([*command, "--query", title], capture_output=True, text=True)
        outcome = done.stdout.strip() or done.stderr.strip().splitlines()[-1]
        print(f"{title}: {outcome}", flush=True)
    if not options.keep:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
