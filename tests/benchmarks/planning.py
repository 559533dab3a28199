"""Time and memory to find what is missing among ten million prompts.

    python tests/benchmarks/planning.py [--prompts 10000000] [--finished 9900000]

Writes completions of one sample each for most of the prompts, then finds the pending work in a
process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from tasks.data.generate import GenerateConfig, GenerateWork
from tasks.stage import StageConfig
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.tables import COMPLETIONS, PROMPTS, Table

CONFIG = GenerateConfig(samples=1)
MODEL = "model@revision"


def fill(home: Home, table: Table, columns: dict[str, str], *, rows: range, per_shard: int) -> None:
    """Writes shards of a table; `columns` are SQL over the row's number i, others are null or 0."""
    connection = duckdb.connect()
    Path(home.folder(table)).mkdir(parents=True)
    filler = {"string": "''", "timestamp[us, tz=UTC]": "TIMESTAMPTZ '2026-01-01 00:00:00+00'"}
    select = ", ".join(
        f"{columns.get(field.name) or filler.get(str(field.type), '0')} AS {field.name}"
        if not field.nullable or field.name in columns
        else f"NULL AS {field.name}"
        for field in table.schema
    )
    for start in range(rows.start, rows.stop, per_shard):
        end = min(rows.stop, start + per_shard)
        data = connection.sql(f"SELECT {select} FROM range({start}, {end}) AS r(i)")
        whole = data.to_arrow_table().cast(table.schema)
        pq.write_table(whole, f"{home.folder(table)}/{start}.parquet", compression="zstd")


def write(home: Home, *, num_prompts: int, num_finished: int, per_shard: int) -> None:
    """Writes all prompts and the finished rows, as a run would leave them."""
    generation_id = CONFIG.generation_id(MODEL)
    prompt_id, spec_id = "md5(i::VARCHAR)", "md5((i % 7)::VARCHAR)"
    prompts = {
        "prompt_id": prompt_id,
        "categories": "['boats']",
        "status": "'ok'",
        "metadata": "[]::VARCHAR[]",
        "messages": "[{'role': 'user', 'content': 'How do I use the ferry number ' || i || '?'}]",
    }
    fill(home, PROMPTS, prompts, rows=range(num_prompts), per_shard=per_shard)
    completions = {
        "completion_id": f"left(sha256(concat_ws('|', {prompt_id}, {spec_id}, "
        f"'{generation_id}', 0)), 32)",
        "prompt_id": prompt_id,
        "spec_id": spec_id,
        "generation_id": f"'{generation_id}'",
        "status": "'ok'",
        "cited": "['B1']",
        "cited_unknown": "[]::VARCHAR[]",
        "answer": "'answer ' || i",
        "reasoning": "'reasoning ' || i",
    }
    fill(home, COMPLETIONS, completions, rows=range(num_finished), per_shard=per_shard)


def plan(home: Home, *, num_prompts: int) -> dict[str, float]:
    """Finds the pending work; making the relation of wanted prompts is not counted."""
    connection = connect(home)
    wanted = connection.sql(
        "SELECT md5(i::VARCHAR) AS prompt_id, md5((i % 7)::VARCHAR) AS spec_id "
        f"FROM range({num_prompts}) AS r(i)"
    ).to_arrow_table()
    connection.register("wanted", wanted)
    began = time.monotonic()
    work = GenerateWork(
        config=CONFIG, stage=StageConfig(), model=MODEL, specs={}, rules={}, run_id="r"
    )
    units = sum(wave.num_rows for wave in work.pending(connection))
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"pending": units, "seconds": round(seconds, 2), "peak_gib": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000_000)
    parser.add_argument("--finished", type=int, default=9_900_000)
    parser.add_argument("--per-shard", type=int, default=50_000)
    parser.add_argument("--home")
    options = parser.parse_args()
    if options.home:
        print(json.dumps(plan(Home(options.home), num_prompts=options.prompts)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(
            Home(folder),
            num_prompts=options.prompts,
            num_finished=options.finished,
            per_shard=options.per_shard,
        )
        command = [sys.executable, __file__, "--home", folder, "--prompts", str(options.prompts)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
