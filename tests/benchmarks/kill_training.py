"""Trainings whose workers are killed repeatedly: steps done, rollouts lost or doubled, time.

    python tests/benchmarks/kill_training.py --home .precept [--kills 10]

Works on a copy of a warehouse that `precept refresh harbour` has filled. Half of the kills hit the
fine-tuning, half the reinforcement learning, each at a step drawn at random.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from warehouse.catalog import connect
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
RL_STEPS = 20


def workers(training: int) -> list[psutil.Process]:
    """Returns Ray Train's workers below the process of a training."""
    found = []
    for process in psutil.Process(training).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def progress(home: Path) -> dict[str, tuple[int, int]]:
    """Returns the steps done and all steps of each training, by its folder."""
    return {
        path.parent.name: tuple(json.loads(path.read_text()))
        for path in home.glob("training/*/progress.json")
    }


@dataclass
class Killer:
    """Kills the workers of the training in progress at steps drawn at random."""

    num_kills: int
    """Kills altogether; the first training gets half of them."""
    rng: random.Random
    trainings: list[str] = field(default_factory=list)
    """In the order in which they began."""
    targets: dict[tuple[str, int], int] = field(default_factory=dict)
    """The step of each kill, by training and number."""
    num_hits: dict[str, int] = field(default_factory=dict)

    def look(self, home: Path, training: int) -> None:
        """Kills the workers below a process if its latest training has come to its next target."""
        for name, (step, total) in progress(home).items():
            if name not in self.trainings:
                self.trainings.append(name)
            number = self.num_hits.get(name, 0)
            half = self.num_kills // 2
            most = (half, self.num_kills - half)[self.trainings.index(name)]
            if name != self.trainings[-1] or number >= most:
                continue
            # Later than the last kill, and before the end.
            first, last = 1 + number * total // 8, (1 + number) * total // 8 + 1
            target = self.targets.setdefault((name, number), self.rng.randint(first, last))
            if target <= step < total and (running := workers(training)):
                for worker in running:
                    worker.send_signal(signal.SIGKILL)
                self.num_hits[name] = number + 1
                print(f"killed at step {step} of {total}", flush=True)
                time.sleep(5)


def train(home: Path, options: argparse.Namespace) -> dict[str, object]:
    """Trains on a warehouse under fire; returns what came of it."""
    command = [sys.executable, "-m", "flows", "train", "harbour", "--home", str(home)]
    for change in (
        f"sft.workers.max_failures={options.kills}",
        f"rl.workers.max_failures={options.kills}",
        "sft.workers.save_steps=10",
        "rl.workers.save_steps=2",
        f"rl.steps={RL_STEPS}",
    ):
        command += ["--set", change]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
    killer = Killer(options.kills, random.Random(options.seed))
    while process.poll() is None:
        time.sleep(0.05)
        killer.look(home, process.pid)
    connection = connect(Home(str(home)))
    steps = connection.sql("SELECT step, count(*) FROM rollouts GROUP BY 1").fetchall()
    return {
        "exit": process.returncode,
        "kills": sum(killer.num_hits.values()),
        "trainings": connection.sql("SELECT stage, status, num_steps FROM checkpoints").fetchall(),
        "steps_without_rollouts": RL_STEPS - len(steps),
        "rollouts_a_step": sorted({count for _, count in steps}),
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        of_trainings = ("training", "checkpoints", "models", "rollouts", "engines")
        shutil.copytree(options.home, home, ignore=shutil.ignore_patterns(*of_trainings))
        print(json.dumps(train(home, options)))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(PROJECT))
    main()
