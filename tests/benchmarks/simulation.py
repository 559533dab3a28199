"""A pool of many engines on a small machine: throughput against linear, and what random kills cost.

    python -m tests.benchmarks.simulation [--engines 64] [--kills 1000]

Engines are actors that sleep in place of a model: each holds --slots requests at a time, and a
request takes as many seconds as its name draws, --seconds on average. All that surrounds them is
the product: Ray Data's blocks, the choice of an engine, retries and shards. The first pass is
undisturbed, the second kills engines at random moments, and Ray restarts them. Linear is what the
slots would make if none were ever idle.
"""

import argparse
import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tasks.engine.cluster import start_ray
from tasks.engine.pool import EnginePool
from tasks.engine.requests import EngineConfig, Request, Sample, ScriptedEngine
from tasks.stage import Stage, StageConfig, StageFigures
from tests.echo import Echo
from warehouse.catalog import connect
from warehouse.home import Home


def reply(request: Request, index: int) -> str:
    return "<think>I sleep.</think>Done."


class SleepingEngine(ScriptedEngine):
    """An engine that takes its time, and serves a limited number of requests at once."""

    def __init__(self, slots: int, seconds: float) -> None:
        super().__init__(reply)
        self.seconds, self._slots = seconds, asyncio.Semaphore(slots)

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        await asyncio.gather(*map(self._serve, requests))
        return await super().generate(requests)

    async def _serve(self, request: Request) -> None:
        share = random.Random(request.messages[0]["content"]).uniform(0.5, 1.5)
        async with self._slots:
            await asyncio.sleep(self.seconds * share)


class Killer:
    """A thread that kills engines at random until it has killed enough or is stopped."""

    def __init__(self, handles: Sequence[Any], count: int, pause: float) -> None:
        self.num_killed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(handles, count, pause))
        self._thread.start()

    def _run(self, handles: Sequence[Any], count: int, pause: float) -> None:
        import ray

        rng = random.Random(1)
        while self.num_killed < count and not self._stop.wait(rng.uniform(0, 2 * pause)):
            ray.kill(rng.choice(handles), no_restart=False)
            self.num_killed += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def run(options: argparse.Namespace, *, kills: int, rows: int) -> tuple[StageFigures, int, float]:
    """Makes all rows; returns the figures of the stage, the kills, and the seconds that it took."""
    import ray

    actor = ray.remote(SleepingEngine).options(num_cpus=0, max_concurrency=1000, max_restarts=-1)
    handles = [actor.remote(options.slots, options.seconds) for _ in range(options.engines)]
    ray.get([handle.start.remote() for handle in handles])
    config = EngineConfig(model="scripted", use_gpu=False, num_cpus=0, replicas=options.engines)
    pool = EnginePool()
    pool.adopt(config, handles)
    units = pa.table({"id": [f"{i:07}" for i in range(rows)], "block_key": ["s"] * rows})
    with tempfile.TemporaryDirectory() as folder:
        home = Home(folder)
        in_flight = 1 + options.slots // options.block_rows
        blocks = StageConfig(block_rows=options.block_rows, blocks_in_flight=in_flight)
        stage = Stage(Echo(), pool, config, home, blocks)
        killer = Killer(handles, kills, options.pause)
        began = time.monotonic()
        try:
            stage.run([units], lambda num_units: None)
        finally:
            seconds = time.monotonic() - began
            killer.stop()
            pool.close()
        query = "SELECT count(*), count(DISTINCT completion_id) FROM completions_raw"
        [(committed, distinct)] = connect(home).execute(query).fetchall()
    linear = rows * options.seconds / (options.engines * options.slots)
    print(
        f"{options.engines} engines, {killer.num_killed} kills: {rows} rows in {seconds:.1f} s, "
        f"{linear / seconds:.2f} of linear; lost {rows - distinct}, doubled "
        f"{committed - distinct}, errors {stage.figures.statuses.get('error', 0)}"
    )
    return stage.figures, killer.num_killed, seconds


def main() -> None:
    """Prints both passes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--slots", type=int, default=32, help="requests that an engine serves")
    parser.add_argument("--seconds", type=float, default=16.0, help="mean time of a request")
    parser.add_argument("--block-rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20, help="requests a slot")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between kills")
    options = parser.parse_args()
    start_ray()
    rows = options.engines * options.slots * options.rounds
    run(options, kills=0, rows=rows)
    if options.kills:
        longest = options.kills * options.pause / options.seconds
        run(options, kills=options.kills, rows=int(options.engines * options.slots * longest))


if __name__ == "__main__":
    main()
