"""Training whose worker is killed again and again: steps done, rollouts lost or doubled, time.

    python tests/benchmarks/kill_training.py --home .precept [--kills 10]

On a copy of a warehouse that `precept refresh harbour` has filled. Half of the kills hit the
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
from pathlib import Path

import psutil

from warehouse.catalog import connect
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
RL_STEPS = 20


def workers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "RayTrainWorker" in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def progress(home: Path) -> dict[str, tuple[int, int]]:
    """Steps done and to do of each training, by its folder."""
    return {
        path.parent.name: tuple(json.loads(path.read_text()))
        for path in home.glob("training/*/progress.json")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        left = shutil.ignore_patterns("training", "checkpoints", "models", "rollouts", "engines")
        shutil.copytree(options.home, home, ignore=left)
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
        run = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
        hit: list[str] = []
        per_stage = {0: options.kills // 2, 1: options.kills - options.kills // 2}
        target: dict[str, int] = {}
        seen: list[str] = []
        while run.poll() is None:
            time.sleep(0.05)
            for name, (step, total) in progress(home).items():
                if name not in seen:
                    seen.append(name)
                kills_here = sum(one.startswith(name) for one in hit)
                if name != seen[-1] or kills_here >= per_stage[seen.index(name)]:
                    continue
                # The step of the next kill: later than the last one, before the end.
                wanted = target.setdefault(
                    f"{name}{kills_here}",
                    rng.randint(1 + kills_here * total // 8, (1 + kills_here) * total // 8 + 1),
                )
                if step >= wanted and step < total and workers():
                    for worker in workers():
                        worker.send_signal(signal.SIGKILL)
                    hit.append(f"{name} at {step}")
                    print(f"killed: {len(hit)}, at step {step} of {total}", flush=True)
                    time.sleep(5)
        connection = connect(Home(str(home)))
        stages = connection.sql("SELECT stage, status, num_steps FROM checkpoints").fetchall()
        steps = connection.sql("SELECT step, count(*) FROM rollouts GROUP BY 1").fetchall()
        sizes = {count for _, count in steps}
        print(
            json.dumps(
                {
                    "exit": run.returncode,
                    "kills": len(hit),
                    "stages": stages,
                    "steps_without_rollouts": RL_STEPS - len(steps),
                    "rollouts_a_step": sorted(sizes),
                    "seconds": round(time.monotonic() - began),
                }
            )
        )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(PROJECT))
    main()
