"""An evaluation that is killed over and over: whether an answer or a vote is lost or doubled.

    python tests/benchmarks/kill_evaluation.py [--kills 10] [--prompts 252] [--seed 1]

One undisturbed evaluation of Harbour's base model, and one that is killed with SIGKILL so many
times, each at a moment drawn from the time that the undisturbed one took, before it may end. Both
must come to the same answers and votes. With PREFECT_API_URL set to a server that runs, starting
takes less of the time.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from warehouse.catalog import ask, connect
from warehouse.shards import Home

PROJECT = Path(__file__).parents[2]
KEYS = {"cases": "case_id", "answers": "answer_id", "evaluations": "evaluation_id"}


def start(home: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows", "evaluate", "harbour", "--home", str(home)]
    for change in ("evaluate.samples=2", f"evaluate.limit={options.prompts}"):
        command += ["--set", change]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PROJECT
    )


def ids(home: Path) -> dict[str, list[str]]:
    connection = connect(Home(str(home)))
    return {
        table: [row[0] for row in connection.sql(f"SELECT {key} FROM {table}_raw").fetchall()]
        for table, key in KEYS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=252)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        plain, killed = Path(folder) / "plain", Path(folder) / "killed"
        began = time.monotonic()
        assert start(plain, options).wait() == 0
        seconds = time.monotonic() - began
        wanted = ids(plain)
        counts = {table: len(rows) for table, rows in wanted.items()}
        print(f"undisturbed: {seconds:.0f} s, {json.dumps(counts)}", flush=True)
        num_killed = 0
        while num_killed < options.kills:
            run = start(killed, options)
            moment = rng.uniform(0, seconds)
            try:
                run.wait(timeout=moment)
                print(f"came to its end before {moment:.0f} s", flush=True)
                break
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
                num_killed += 1
            rows = {table: len(found) for table, found in ids(killed).items()}
            print(f"killed at {moment:.0f} s: {json.dumps(rows)}", flush=True)
        assert start(killed, options).wait() == 0
        found = ids(killed)
        told = {
            table: {
                "wanted": len(set(wanted[table])),
                "lost": len(set(wanted[table]) - set(found[table])),
                "foreign": len(set(found[table]) - set(wanted[table])),
                "doubled": len(found[table]) - len(set(found[table])),
            }
            for table in KEYS
        }
        cells = connect(Home(str(killed))).sql(
            "SELECT count(*), count(*) FILTER (answer_id IS NULL) FROM cells"
        )
        print(json.dumps({"kills": num_killed, **told, "cells, empty": cells.fetchall()[0]}))
        means = [
            {(row["metric"], row["slice"], row["grader"]): row["num_answers"] for row in rows}
            for rows in (
                ask(connect(Home(str(home))), "evaluation").to_pylist() for home in (plain, killed)
            )
        ]
        print("same cells graded:", means[0] == means[1])


if __name__ == "__main__":
    main()
