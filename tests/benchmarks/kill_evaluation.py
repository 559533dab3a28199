"""An evaluation that is killed over and over: no answer and no grade is lost or doubled.

    python tests/benchmarks/kill_evaluation.py [--kills 10] [--prompts 300] [--samples 4] [--seed 1]

One undisturbed evaluation of Harbour's base model, and one that is killed with SIGKILL so many
times, each at most eight seconds after it has begun to commit something, before it may end. Both
must come to the same answers, and every answer to its grades. With PREFECT_API_URL set to a running
server, starting takes less of the time.
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
from typing import Any

from warehouse.catalog import connect, read
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
KEYS = {
    "cases": "suite_version || case_id",
    "answers": "answer_id",
    "evaluations": "evaluation_id",
}
# Cells without an answer, and answers without all their grades.
LACKING = """
    SELECT
        (SELECT count(*) FROM cells WHERE answer_id IS NULL),
        (
            SELECT coalesce(sum(g.num_votes), 0) - (SELECT count(*) FROM run_grades)
            FROM (
                SELECT DISTINCT suite, answer_id, grading_context_id
                FROM cells
                WHERE status = 'ok'
            ) AS c
            JOIN run_graders AS g
                ON len(g.suites) = 0 OR list_contains(g.suites, c.suite)
        )
"""
MOST_SECONDS = 8.0


def start(home: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows", "evaluate", "harbour", "--home", str(home)]
    for change in (f"evaluate.samples={options.samples}", f"evaluate.limit={options.prompts}"):
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


def num_shards(home: Path) -> int:
    """Shards of answers and grades that are committed."""
    return sum(len(list(home.glob(f"{table}/*.parquet"))) for table in ("answers", "evaluations"))


def kill_repeatedly(home: Path, options: argparse.Namespace) -> int:
    """Kills the evaluation at random moments of its work; returns how often it was killed."""
    rng = random.Random(options.seed)
    for num_killed in range(options.kills):
        run = start(home, options)
        before = num_shards(home)
        while num_shards(home) == before and run.poll() is None:
            time.sleep(0.1)
        moment = rng.uniform(0, MOST_SECONDS)
        try:
            run.wait(timeout=moment)
            print("it ended before it was killed", flush=True)
            return num_killed
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
        counts = {table: len(names) for table, names in ids(home).items()}
        print(f"killed {moment:.1f} s into its work: {json.dumps(counts)}", flush=True)
    return int(options.kills)


def compare(undisturbed: Path, killed: Path) -> dict[str, Any]:
    """Returns the rows that the killed evaluation has lost, doubled or still lacks."""
    expected, resumed = ids(undisturbed), ids(killed)
    figures: dict[str, Any] = {
        table: {
            "wanted": len(set(expected[table])),
            "there": len(set(resumed[table])),
            "doubled": len(resumed[table]) - len(set(resumed[table])),
        }
        for table in KEYS
    }
    figures["lost"] = {
        table: len(set(expected[table]) - set(resumed[table])) for table in ("cases", "answers")
    }
    connection = connect(Home(str(killed)))
    [(cells, grades)] = read(connection, LACKING).fetchall()
    figures["lacking"] = {"cells without an answer": cells, "grades": int(grades)}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = Path(folder) / "undisturbed", Path(folder) / "killed"
        began = time.monotonic()
        assert start(undisturbed, options).wait() == 0
        seconds = time.monotonic() - began
        counts = {table: len(rows) for table, rows in ids(undisturbed).items()}
        print(f"undisturbed: {seconds:.0f} s, {json.dumps(counts)}", flush=True)
        num_killed = kill_repeatedly(killed, options)
        assert start(killed, options).wait() == 0
        print(json.dumps({"kills": num_killed, **compare(undisturbed, killed)}))


if __name__ == "__main__":
    main()
