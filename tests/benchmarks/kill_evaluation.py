"""An evaluation that is killed over and over: whether an answer or a vote is lost or doubled.

    python tests/benchmarks/kill_evaluation.py [--kills 10] [--prompts 300] [--samples 4] [--seed 1]

One undisturbed evaluation of Harbour's base model, and one that is killed with SIGKILL so many
times, each at most eight seconds after it has begun to commit something, before it may end. Both
must come to the same answers, and every answer to its votes. With PREFECT_API_URL set to a server
that runs, starting takes less of the time.
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

from warehouse.catalog import connect
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
KEYS = {
    "cases": "suite_version || case_id",
    "answers": "answer_id",
    "evaluations": "evaluation_id",
}
# What an evaluation lacks: cells without an answer, and answers without all their votes.
LACKING = """
    SELECT
        (SELECT count(*) FROM cells WHERE answer_id IS NULL),
        (
            SELECT coalesce(sum(g.num_votes), 0) - (SELECT count(*) FROM run_ballots)
            FROM (SELECT DISTINCT suite, answer_id, grading_context_id FROM cells WHERE status = 'ok') AS c
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


def shards(home: Path) -> int:
    """How much of answers and votes is committed."""
    return sum(len(list(home.glob(f"{table}/*.parquet"))) for table in ("answers", "evaluations"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--samples", type=int, default=4)
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
            before = shards(killed)
            while shards(killed) == before and run.poll() is None:
                time.sleep(0.1)
            moment = rng.uniform(0, MOST_SECONDS)
            try:
                run.wait(timeout=moment)
                print("came to its end", flush=True)
                break
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
                num_killed += 1
            rows = {table: len(found) for table, found in ids(killed).items()}
            print(f"killed {moment:.1f} s into its work: {json.dumps(rows)}", flush=True)
        assert start(killed, options).wait() == 0
        found = ids(killed)
        told = {
            table: {
                "wanted": len(set(wanted[table])),
                "there": len(set(found[table])),
                "doubled": len(found[table]) - len(set(found[table])),
            }
            for table in KEYS
        }
        lost = {
            table: len(set(wanted[table]) - set(found[table])) for table in ("cases", "answers")
        }
        [(cells, votes)] = connect(Home(str(killed))).sql(LACKING).fetchall()
        lacking = {"cells without an answer": cells, "votes": int(votes)}
        print(json.dumps({"kills": num_killed, **told, "lost": lost, "lacking": lacking}))


if __name__ == "__main__":
    main()
