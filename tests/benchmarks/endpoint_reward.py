"""RL with a judge behind an endpoint: its rewards beside those of the own engine's judge.

    python tests/benchmarks/endpoint_reward.py [--steps 10] [--prompts 60]

Refines the scale model by RL, judged greedily by vLLM's own server on loopback. Then the judge
actors of the own engine score the same answers. Prints the seconds of each step that were spent on
rollouts, on waiting for the judge and on the update, and how many rewards are equal.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from flows.recipe import Recipe, load_recipe
from tasks.engine.cluster import start_ray
from tasks.training.judges import Criterion, JudgePool, JudgeRequest, Judges, PromptTurn
from tasks.training.reward import combine
from tests.benchmarks.endpoint import KEY, KEY_VARIABLE, Server, serving
from warehouse.catalog import connect
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
GREEDY = "{ temperature = 0.0, max_tokens = 160 }"
ROLLOUTS = """
    SELECT r.*, p.messages
    FROM rollouts AS r
    JOIN prompts AS p USING (prompt_id)
    WHERE r.num_votes > 0
"""


def settings(recipe: str, server: Server | None, options: argparse.Namespace) -> list[str]:
    """Returns the arguments of a command: the recipe, and what this measurement changes in it."""
    changes = [f"sources.0.limit={options.prompts}", "generate.samples=1", "judge.samples=1"]
    changes += [f"judge.sampling={GREEDY}", f"rl.steps={options.steps}"]
    changes += ["rl.batch_size=32", "rl.workers.rows_at_once=32"]
    changes += ["rl.reward={ samples = 1, quorum = 1 }"]
    if server is not None:
        changes += [f"judge_{change}" for change in server.engine(max_in_flight=64)]
    return [recipe, *(part for change in changes for part in ("--set", change))]


def run(command: str, home: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows", command, *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        cwd=PROJECT,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def without_sft(folder: Path) -> Path:
    """Returns a copy of the recipe Harbour whose only training is RL."""
    text = (PROJECT / "flows/recipes/harbour.toml").read_text()
    before, _, rest = text.partition("[sft]")
    path = folder / "harbour_rl.toml"
    path.write_text(f"{before}[rl]{rest.partition('[rl]')[2]}")
    return path


def requests_of(row: dict[str, Any]) -> dict[Criterion, JudgeRequest]:
    """Returns what a judge is asked about a rollout."""
    turns = tuple(PromptTurn(one["role"], one["content"]) for one in row["messages"])
    names: list[Criterion] = ["compliance", *(["helpfulness"] if row["kind"] != "harmful" else [])]
    return {name: JudgeRequest(name, turns, row["answer"], row["spec_id"]) for name in names}


def rewards_of_own_judge(recipe: Recipe, rows: list[dict[str, Any]]) -> list[float | None]:
    """Returns the rewards that the judge actors of the own engine give the same answers."""
    assert recipe.rl is not None
    config = recipe.rl.reward
    pack = recipe.load_pack()
    specs = [pack.spec([category]) for category in pack.policies]
    judges = Judges.start(
        recipe.engine,
        recipe.judge,
        {spec.id: spec for spec in specs},
        num_samples=config.samples,
        name="benchmark",
    )
    try:
        asked = [requests_of(row) for row in rows]
        wanted = [request for requests in asked for request in requests.values()]
        replies = asyncio.run(JudgePool(judges.handles, config.limits).ask(wanted))
    finally:
        judges.stop()
    rewards = []
    for row, requests in zip(rows, asked, strict=True):
        scores = {name: replies[request].scores for name, request in requests.items()}
        compliance, helpfulness = scores["compliance"], scores.get("helpfulness", ())
        rewards.append(combine(row["kind"], compliance, helpfulness, config))
    return rewards


def print_seconds(home: Path) -> None:
    """Prints where the time of the steps went, from the log that the trainer keeps."""
    [state, *_] = sorted(home.rglob("trainer_state.json"), key=lambda file: -file.stat().st_mtime)
    log = [entry for entry in json.loads(state.read_text())["log_history"] if "reward" in entry]
    for part in ("rollout", "judge", "update"):
        seconds = [entry[f"seconds/{part}"] for entry in log if f"seconds/{part}" in entry]
        print(f"seconds of {part}: {sum(seconds):.1f} in {len(seconds)} steps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=60)
    options = parser.parse_args()
    os.environ[KEY_VARIABLE] = KEY
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home, path = folder / "home", str(without_sft(folder))
        run("refresh", home, settings(path, None, options))
        with serving(folder) as server:
            run("train", home, settings(path, server, options))
            print(f"requests to the endpoint: {len(server.requests())}")
        print_seconds(home)
        start_ray()
        found = connect(Home(str(home))).execute(ROLLOUTS)
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        changes = settings(path, None, options)[2::2]
        again = rewards_of_own_judge(load_recipe(path, overrides=changes), rows)
        equal = sum(row["reward"] == reward for row, reward in zip(rows, again, strict=True))
        print(f"rewards of judged rollouts that are equal: {equal} of {len(rows)}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(PROJECT))
    main()
