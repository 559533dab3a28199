"""How long it takes to find what is missing among ten million prompts, and in how much memory.

    python tests/benchmarks/planning.py [--prompts 10000000] [--finished 9900000]

Writes completions of one sample each for most of the prompts, then asks for the pending work in a
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
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import generate
from tasks.generate import GenerateConfig
from warehouse.catalog import connect
from warehouse.shards import Home
from warehouse.tables import COMPLETIONS, PROMPTS

CONFIG = GenerateConfig(samples=1)
MODEL = "model@revision"


def write(home: Home, *, num_prompts: int, num_finished: int, per_shard: int) -> None:
    """Shards of finished rows and of the prompts that are not, as a run would leave them."""
    generation_id = CONFIG.generation_id(MODEL)
    connection = duckdb.connect()
    Path(home.folder(COMPLETIONS)).mkdir(parents=True)
    columns = {
        "completion_id": f"left(sha256(concat_ws('|', md5(i::VARCHAR), md5((i % 7)::VARCHAR), "
        f"'{generation_id}', 0)), 32)",
        "prompt_id": "md5(i::VARCHAR)",
        "spec_id": "md5((i % 7)::VARCHAR)",
        "generation_id": f"'{generation_id}'",
        "status": "'ok'",
        "finish_reason": "'stop'",
        "model": f"'{MODEL}'",
        "cited": "['B1']",
        "cited_unknown": "[]::VARCHAR[]",
        "run_id": "'run'",
        "created_at": "TIMESTAMPTZ '2026-01-01 00:00:00+00'",
        "answer": "'answer ' || i",
        "reasoning": "'reasoning ' || i",
    }
    select = ", ".join(
        f"{columns.get(field.name, 'NULL' if field.nullable else '0')} AS {field.name}"
        for field in COMPLETIONS.schema
    )
    for start in range(0, num_finished, per_shard):
        end = min(num_finished, start + per_shard)
        data = (
            connection.sql(f"SELECT {select} FROM range({start}, {end}) AS r(i)")
            .to_arrow_table()
            .cast(COMPLETIONS.schema)
        )
        pq.write_table(data, f"{home.folder(COMPLETIONS)}/{start}.parquet", compression="zstd")
    Path(home.folder(PROMPTS)).mkdir(parents=True)
    missing = [
        {
            "prompt_id": row[0],
            "categories": ["boats"],
            "ideal_response": None,
            "metadata": [],
            "messages": [{"role": "user", "content": "How do I use the ferry?"}],
        }
        for row in connection.sql(
            f"SELECT md5(i::VARCHAR) FROM range({num_finished}, {num_prompts}) AS r(i)"
        ).fetchall()
    ]
    filler = {"int64": 0, "string": "", "timestamp[us, tz=UTC]": 0}
    for row in missing:
        for field in PROMPTS.schema:
            row.setdefault(field.name, filler.get(str(field.type)))
    pq.write_table(
        pa.Table.from_pylist(missing, schema=PROMPTS.schema),
        f"{home.folder(PROMPTS)}/missing.parquet",
    )


def plan(home: Home, *, num_prompts: int) -> dict[str, float]:
    """Finds the pending work; the relation of what is wanted is made first, and not counted."""
    connection = connect(home)
    wanted = connection.sql(
        "SELECT md5(i::VARCHAR) AS prompt_id, md5((i % 7)::VARCHAR) AS spec_id "
        f"FROM range({num_prompts}) AS r(i)"
    ).to_arrow_table()
    connection.register("wanted", wanted)
    began = time.monotonic()
    pending = generate.pending(connection, config=CONFIG, model=MODEL, retries=1, wave_rows=100_000)
    units = sum(wave.num_rows for wave in pending)
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
