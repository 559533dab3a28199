"""Rows lost, doubled or paid for twice when runs are killed at random moments and started again.

    python tests/benchmarks/kill.py [--runs 20] [--prompts 252] [--recipe harbour] [--set KEY=VALUE]

The first refresh of the recipe is undisturbed. Each later one is killed with SIGKILL at a moment
drawn from the duration of the first, and then run again to its end. If PREFECT_API_URL names a
running server, less of that duration is the start of Prefect. During every killed run a thread
counts the rows through DuckDB once a second. Tokens are the engines' own counts, written at most
half a second before the kill.
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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from flows.recipe import load_recipe
from warehouse.catalog import connect, read
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]


def start(home: Path, subject: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts a refresh; `subject` is the recipe with its changes, as arguments of the command."""
    command = [sys.executable, "-m", "flows", "refresh", *subject, "--home", str(home)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=PROJECT)


def tokens_spent(home: Path) -> int:
    """Returns the output tokens of all engines of all runs, as each last wrote them."""
    files = home.glob("engines/*/*.json")
    return sum(json.loads(file.read_text())["output_tokens"] for file in files)


class Poll:
    """A thread that counts rows once a second, and the faults that it met."""

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


def ids_by_table(home: Path) -> dict[str, list[str]]:
    """Returns the ids of all rows of completions and judgements, duplicates included."""
    connection = connect(Home(str(home)))
    keys = {"completions": "completion_id", "judgements": "judgement_id"}
    return {
        table: [row[0] for row in connection.execute(f"SELECT {key} FROM {table}_raw").fetchall()]
        for table, key in keys.items()
    }


def unsettled(home: Path) -> int:
    """Returns the number of completions that lack a verdict and judgements for one."""
    where = "verdict = 'unjudged' AND num_judged < num_judgements"
    query = f"SELECT count(*) FROM verdicts WHERE {where}"
    [(count,)] = read(connect(Home(str(home))), query).fetchall()
    return int(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """The outcome of a refresh that was killed and run again to its end."""

    moment: float
    """Seconds from the start to the kill."""
    completion_ids: frozenset[str]
    num_doubled: int
    """Rows of completions and judgements whose id stands twice."""
    num_unsettled: int
    num_queries: int
    num_query_faults: int
    tokens: int
    """Output tokens of both runs."""


def kill_and_resume(home: Path, *, subject: Sequence[str], moment: float) -> Killed:
    """Refreshes the recipe, kills the run after `moment` seconds, and runs it again to its end."""
    poll = Poll(home)
    run = start(home, subject)
    try:
        run.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert start(home, subject).wait() == 0
    poll.stop()
    ids = ids_by_table(home)
    return Killed(
        moment=moment,
        completion_ids=frozenset(ids["completions"]),
        num_doubled=sum(len(rows) - len(set(rows)) for rows in ids.values()),
        num_unsettled=unsettled(home),
        num_queries=poll.num_queries,
        num_query_faults=poll.faults,
        tokens=tokens_spent(home),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=252)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recipe", default="harbour")
    parser.add_argument("--set", action="append", default=[], help="a change to the recipe")
    options = parser.parse_args()
    num_sources = len(load_recipe(options.recipe, overrides=options.set).sources)
    limits = [f"sources.{number}.limit={options.prompts}" for number in range(num_sources)]
    changes = [*options.set, *limits]
    subject = [options.recipe, *(part for change in changes for part in ("--set", change))]
    rng = random.Random(options.seed)
    totals: Counter[str] = Counter()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        began = time.monotonic()
        assert start(undisturbed, subject).wait() == 0
        seconds = time.monotonic() - began
        expected = set(ids_by_table(undisturbed)["completions"])
        tokens = tokens_spent(undisturbed)
        print(
            f"undisturbed: {seconds:.0f} s, {len(expected)} completions, {tokens} tokens",
            flush=True,
        )
        for number in range(options.runs):
            killed = kill_and_resume(
                Path(folder) / f"killed-{number}",
                subject=subject,
                moment=rng.uniform(0, seconds),
            )
            totals["lost"] += len(expected - killed.completion_ids)
            totals["doubled"] += killed.num_doubled
            totals["unsettled"] += killed.num_unsettled
            totals["queries"] += killed.num_queries
            totals["query_faults"] += killed.num_query_faults
            ratios.append(killed.tokens / tokens)
            share = f"tokens {ratios[-1]:.3f} of one pass"
            print(
                f"killed at {killed.moment:.0f} s: {share}; so far {json.dumps(totals)}", flush=True
            )
    mean = sum(ratios) / len(ratios)
    print(
        json.dumps({**totals, "tokens_mean": round(mean, 3), "tokens_max": round(max(ratios), 3)})
    )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(PROJECT))
    main()
