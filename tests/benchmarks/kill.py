"""Runs that are killed at random moments and started again: what is lost, doubled, paid twice.

    python tests/benchmarks/kill.py [--runs 20] [--prompts 252]

First one undisturbed refresh of Harbour, then so many that are killed with SIGKILL at a moment
drawn from the time an undisturbed one takes, and run again to the end. With PREFECT_API_URL set to
a server that runs, starting takes less of it. While a run goes on, DuckDB counts its rows every
second. Tokens are what the engines had counted when they were last heard of, at
most half a second before a kill.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb

from warehouse.catalog import connect
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]


def start(home: Path, num_prompts: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows", "refresh", "harbour", "--home", str(home)]
    command += ["--set", f"sources.0.limit={num_prompts}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=PROJECT)


def tokens_spent(home: Path) -> int:
    """What all engines of all runs of a home had made when they were last heard of."""
    files = home.glob("engines/*/*.json")
    return sum(json.loads(file.read_text())["output_tokens"] for file in files)


class Poll:
    """Counts rows once a second in a thread, and what went wrong with that."""

    def __init__(self, home: Path) -> None:
        self.home, self.num_queries, self.faults = home, 0, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        last = 0
        while not self._done.wait(1.0):
            self.num_queries += 1
            try:
                query = "SELECT count(*), count(DISTINCT completion_id) FROM completions_raw"
                [(rows, ids)] = connect(Home(str(self.home))).execute(query).fetchall()
                self.faults += rows != ids or rows < last
                last = rows
            except duckdb.Error as error:
                print(error, file=sys.stderr)
                self.faults += 1

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def ids(home: Path) -> dict[str, list[str]]:
    connection = connect(Home(str(home)))
    keys = {"completions": "completion_id", "judgements": "judgement_id"}
    return {
        table: [row[0] for row in connection.execute(f"SELECT {key} FROM {table}_raw").fetchall()]
        for table, key in keys.items()
    }


def unsettled(home: Path) -> int:
    """Completions that should have a verdict and have none."""
    query = "SELECT count(*) FROM verdicts WHERE verdict = 'unjudged' AND num_judged < 4"
    [(count,)] = connect(Home(str(home))).execute(query).fetchall()
    return int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=252)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    totals = {"lost": 0, "doubled": 0, "unsettled": 0, "queries": 0, "query_faults": 0}
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        began = time.monotonic()
        assert start(plain, options.prompts).wait() == 0
        seconds = time.monotonic() - began
        wanted = set(ids(plain)["completions"])
        paid = tokens_spent(plain)
        print(f"undisturbed: {seconds:.0f} s, {len(wanted)} completions, {paid} tokens", flush=True)
        for number in range(options.runs):
            home = Path(folder) / f"killed-{number}"
            poll = Poll(home)
            run = start(home, options.prompts)
            moment = rng.uniform(0, seconds)
            try:
                run.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
            assert start(home, options.prompts).wait() == 0
            poll.stop()
            found = ids(home)
            completions = found["completions"]
            totals["lost"] += len(wanted - set(completions))
            totals["doubled"] += sum(len(rows) - len(set(rows)) for rows in found.values())
            totals["unsettled"] += unsettled(home)
            totals["queries"] += poll.num_queries
            totals["query_faults"] += poll.faults
            ratios.append(tokens_spent(home) / paid)
            share = f"tokens {ratios[-1]:.3f} of one pass"
            print(f"killed at {moment:.0f} s: {share}; so far {json.dumps(totals)}", flush=True)
    mean = sum(ratios) / len(ratios)
    print(
        json.dumps({**totals, "tokens_mean": round(mean, 3), "tokens_max": round(max(ratios), 3)})
    )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(PROJECT))
    main()
