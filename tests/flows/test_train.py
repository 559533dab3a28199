"""The training flow on Prefect, Ray Train, TRL and vLLM, with the scale model, killed midway."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.recipe import Recipe, load_recipe
from infra.harbour import world
from infra.harbour.oracle import read_request
from tasks.data.candidates import read_source
from tasks.paths import PROJECT
from tasks.training.judges import JudgeRequest, Judges
from tests.rows import completion, example, judgement, prompt, run
from tests.tasks.training.test_generation_config import shipped
from warehouse.catalog import ask, connect, read
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, EXAMPLES, JUDGEMENTS, PROMPTS, RUNS, AssistantTurn, Turn

pytestmark = pytest.mark.slow

SMALL = (
    "sources.0.limit=30",
    "sft.max_length=256",
    "sft.epochs=2",
    "sft.capability.share=0.05",
    "sft.batch_size=8",
    "sft.workers.rows_at_once=4",
    "sft.workers.num_cpus=1",
    "sft.workers.save_steps=4",
    "dpo.batch_size=4",
    "dpo.max_length=256",
    "dpo.lora.rank=4",
    "dpo.workers.use_gpu=false",
    "rl.steps=5",
    "rl.batch_size=16",
    "rl.samples=4",
    "rl.workers.rows_at_once=16",
    "rl.workers.save_steps=1",
    "rl.max_tokens=64",
    # A judge that is killed may take minutes to load on a machine that is busy.
    "rl.reward.call_seconds=400",
    "rl.reward.batch_seconds=500",
)
TRAININGS = ("sft", "dpo", "rl")


def recipe(*changes: str) -> Recipe:
    return load_recipe("harbour", overrides=[*SMALL, *changes])


def fill(home: Home) -> None:
    """Writes the right reasoning and answer to each prompt, as a refresh would have left them."""
    loaded = recipe()
    pack = loaded.load_pack()
    examples = []
    for row in read_source(loaded.sources[0]):
        request = read_request(row.messages)
        steps = world.steps_for(pack, request)
        reply = AssistantTurn(
            role="assistant",
            content=world.right_answer(steps, request),
            reasoning_content=world.right_reasoning(steps, request),
        )
        examples.append(
            example(
                row.prompt_id,
                prompt_id=row.prompt_id,
                categories=row.categories,
                spec_id=pack.spec(row.categories).id,
                prompt=[Turn(**message) for message in row.messages],
                completion=[reply],
            )
        )
    write_shard(home, EXAMPLES, examples)
    write_shard(home, RUNS, [run("refreshed", set_id="set", generation_id=None)])


def fill_pairs(home: Home) -> None:
    """Writes a right, accepted and a wrong, rejected completion to each of four prompts."""
    loaded = recipe()
    pack = loaded.load_pack()
    version = loaded.engine.version
    generation_id = loaded.generate.generation_id(version)
    judging_id = loaded.judge.judging_id(version)
    num_judgements = loaded.judge.samples
    examples = connect(home).sql("FROM examples ORDER BY completion_id LIMIT 4").to_arrow_table()
    prompts, completions, judgements = [], [], []
    for row in examples.to_pylist():
        prompt_id, [reply] = row["prompt_id"], row["completion"]
        prompts.append(
            prompt(
                prompt_id,
                prompt_id=prompt_id,
                categories=row["categories"],
                messages=[Turn(**turn) for turn in row["prompt"]],
            )
        )
        sides = (("right", reply["content"], 10.0), ("wrong", "Sorry, I cannot help.", 0.0))
        for number, (name, answer, score) in enumerate(sides):
            completions.append(
                completion(
                    f"{name} {prompt_id}",
                    prompt_id=prompt_id,
                    spec_id=row["spec_id"],
                    generation_id=generation_id,
                    sample_index=number,
                    reasoning=reply["reasoning_content"],
                    answer=answer,
                )
            )
            judgements += [
                judgement(
                    f"{name} {prompt_id}",
                    index,
                    score,
                    prompt_id=prompt_id,
                    spec_id=row["spec_id"],
                    judging_id=judging_id,
                    judgement_id=f"{name} {prompt_id} {index}",
                )
                for index in range(num_judgements)
            ]
    write_shard(home, PROMPTS, prompts)
    write_shard(home, COMPLETIONS, completions)
    write_shard(home, JUDGEMENTS, judgements)
    refreshed = run(
        "judged",
        generation_id=generation_id,
        judging_id=judging_id,
        spec_ids=[pack.spec([name]).id for name in pack.policies],
        num_samples=2,
        num_judgements=num_judgements,
    )
    write_shard(home, RUNS, [refreshed])


def actors(kind: str, *, of: int | None = None) -> list[psutil.Process]:
    """Returns the actors of a kind below a process, this one if unset: other Rays on the machine
    are not ours to touch."""
    found = []
    for process in psutil.Process(of).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if kind in " ".join(process.cmdline()):
                found.append(process)
    return found


def steps_done(home: Path, training: str) -> int:
    """Returns the steps that the first worker of a training has counted; 0 if it has not begun."""
    files = list((home / "training").glob("*/progress.json"))
    steps = {path: json.loads(path.read_text())[0] for path in files}
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    return steps[newest] if newest and len(files) == TRAININGS.index(training) + 1 else 0


class Killer:
    """Kills actors of a kind, one plan after the other, once a training has done so many steps."""

    def __init__(self, home: Path, *plans: tuple[str, int, str]) -> None:
        self.home, self.plans = home, plans
        self.num_killed = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        for training, step, kind in self.plans:
            while steps_done(self.home, training) < step:
                if self.done.wait(0.05):
                    return
            for actor in actors(kind):
                actor.send_signal(signal.SIGKILL)
                self.num_killed += 1

    def stop(self) -> None:
        self.done.set()
        self.thread.join()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A warehouse with SFT, DPO and RL checkpoints; a worker and the judge were killed midway."""
    from flows.train import train

    home = tmp_path_factory.mktemp("train") / "home"
    fill(Home(str(home)))
    fill_pairs(Home(str(home)))
    killer = Killer(home, ("rl", 1, "JudgeActor"), ("rl", 3, "RayTrainWorker"))
    try:
        train(recipe(), str(home))
    finally:
        killer.stop()
    yield home, killer.num_killed


def test_killed_workers_and_judges_are_replaced_and_every_step_is_done(
    trained: tuple[Path, int],
) -> None:
    home, num_killed = trained
    assert num_killed == 2
    rows = connect(Home(str(home))).sql(
        "SELECT stage, status, num_steps, num_rows FROM checkpoints ORDER BY created_at"
    )
    # 30 examples and 2 of capability, each twice, 8 a step.
    assert rows.fetchall() == [
        ("sft", "completed", 8, 32),
        ("dpo", "completed", 1, 4),
        ("rl", "completed", 5, 30),
    ]


def test_adapters_are_merged_into_a_model_like_the_others(trained: tuple[Path, int]) -> None:
    files = [{path.name for path in folder.iterdir()} for folder in trained[0].glob("models/*")]
    assert len(files) == 3 and files[0] == files[1] == files[2]
    assert {"config.json", "model.safetensors", "tokenizer.json"} < files[0]


def test_rollouts_have_no_gap_after_a_kill_and_no_step_twice(trained: tuple[Path, int]) -> None:
    connection = connect(Home(str(trained[0])))
    steps = connection.sql("SELECT step, count(*) FROM rollouts GROUP BY 1 ORDER BY 1").fetchall()
    assert steps == [(step, 16) for step in range(5)]
    [(attempts,)] = connection.sql("SELECT count(DISTINCT attempt) FROM rollouts_raw").fetchall()
    assert attempts == 2
    failed = connection.sql("SELECT count(*) FROM rollouts WHERE reward IS NULL").fetchall()
    assert failed == [(0,)]


def test_ancestry_names_every_shard_and_policy(trained: tuple[Path, int]) -> None:
    home, _ = trained
    rows = ask(connect(Home(str(home))), "ancestry").to_pylist()
    of_rl = [row for row in rows if row["stage"] == "rl"]
    shards = {row["name"] for row in of_rl if row["kind"].startswith("shard of")}
    expected = {
        str(path)
        for table in ("prompts", "specs", "completions", "judgements", "examples", "rollouts")
        for path in (home / table).glob("*.parquet")
    }
    assert {str(Path(name)) for name in shards} == expected
    assert len([row for row in of_rl if row["kind"] == "checkpoint"]) == 2
    policies = [row["name"] for row in of_rl if row["kind"] == "policy"]
    assert len(policies) == len(set(policies)) > 0


def test_finished_training_is_not_done_again(trained: tuple[Path, int]) -> None:
    from flows.train import latest_training, train

    home, _ = trained
    before = sorted((home / "models").iterdir())
    again = train(recipe(), str(home))
    assert again.num_trained == 0
    assert sorted((home / "models").iterdir()) == before
    assert {row.status for row in again.checkpoints.values()} == {"completed"}
    ids = [row.checkpoint_id for row in again.checkpoints.values()]
    assert {path.name for path in before} == set(ids)
    connection = connect(Home(str(home)))
    assert latest_training(connection, recipe()) == ids
    assert latest_training(connection, recipe("sft.workers.save_steps=5")) == ids
    assert latest_training(connection, recipe("sft.learning_rate=1e-3")) == []


def test_run_records_what_it_trained_and_on_what(trained: tuple[Path, int]) -> None:
    connection = connect(Home(str(trained[0])))
    figures = read(
        connection,
        "SELECT stage, num_steps, num_rows, seconds > 0 FROM stage_figures WHERE is_training "
        "ORDER BY num_rows DESC",
    )
    assert figures.fetchall() == [("sft", 8, 32, True), ("rl", 5, 30, True), ("dpo", 1, 4, True)]
    [(sources, num_tokens)] = connection.sql(
        "SELECT figures->>'$.trainings.sft.sources', figures->>'$.trainings.sft.num_tokens' "
        "FROM runs WHERE (figures->'$.trainings.sft') IS NOT NULL"
    ).fetchall()
    assert json.loads(sources) == {"examples": 30, "capability": 2} and int(num_tokens) > 0


def test_two_workers_learn_what_one_does(trained: tuple[Path, int], tmp_path: Path) -> None:
    from flows.train import train

    query = "SELECT metrics FROM checkpoints WHERE stage = 'sft'"
    [(of_one,)] = connect(Home(str(trained[0]))).sql(query).fetchall()
    home = tmp_path / "home"
    fill(Home(str(home)))
    # The same weights, with sampling settings that transformers refuses to save as they are.
    model = shipped(tmp_path, do_sample=False, temperature=0.6)
    by_two = recipe(
        "sft.workers.num_workers=2", "sft.workers.num_cpus=0.5", f"engine.model={model}"
    )
    done = train(by_two.model_copy(update={"dpo": None, "rl": None}), str(home))
    losses = [
        json.loads(metrics)["last"]["train_loss"]
        for metrics in (of_one, done.checkpoints["sft"].metrics)
    ]
    # The training itself checks that the workers' weights are equal at the end.
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_reward_model_rewards_in_place_of_the_judge_and_is_not_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.train import latest_training, train

    def start(*args: Any, **options: Any) -> Judges:
        raise AssertionError("a judge was started")

    monkeypatch.setattr(Judges, "start", start)
    home = tmp_path / "home"
    fill(Home(str(home)))
    fill_pairs(Home(str(home)))
    changes = ("reward_model.batch_size=4", "reward_model.epochs=6", "rl.steps=2")
    loaded = recipe("rl.reward.model=true", "reward_model.workers.use_gpu=false", *changes)
    rewarded = loaded.model_copy(update={"sft": None, "dpo": None})
    done = train(rewarded, str(home))
    scorer, refined = done.checkpoints["reward_model"], done.checkpoints["rl"]
    assert (scorer.status, scorer.num_steps, scorer.num_rows) == ("completed", 6, 4)
    assert (refined.status, refined.num_steps, refined.set_id) == ("completed", 2, scorer.set_id)
    # Both begin from the student: the reward model is no link of the chain.
    assert (scorer.parent, scorer.parent_id) == (refined.parent, refined.parent_id)
    assert refined.parent == rewarded.student_engine.version and refined.parent_id is None
    connection = connect(Home(str(home)))
    rollouts = read(
        connection, "SELECT status, reward, compliance, helpfulness, num_votes FROM rollouts"
    ).fetchall()
    assert len(rollouts) == 32
    scores = [row for row in rollouts if row[0] == "ok"]
    assert all(row[1:] == (row[2][0] / 10, row[2], [], 1) for row in scores)
    assert len({row[1] for row in scores}) > 1 and all(0 < row[1] < 1 for row in scores)
    assert latest_training(connection, rewarded) == [refined.checkpoint_id]
    assert train(rewarded, str(home)).num_trained == 0


class Down:
    """A judge that cannot judge."""

    async def score(self, request: JudgeRequest) -> list[float | None]:
        raise RuntimeError("the judge is down")

    async def stop(self) -> None: ...


def test_training_whose_judge_stays_down_keeps_its_model_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from flows.train import train

    def start(*args: Any, **options: Any) -> Judges:
        return Judges([ray.remote(Down).options(num_cpus=0).remote()])

    monkeypatch.setattr(Judges, "start", start)
    long = recipe("rl.steps=50", "rl.reward.failed_steps=2")
    done = train(long.model_copy(update={"sft": None, "dpo": None}), str(tmp_path / "home"))
    checkpoint = done.checkpoints["rl"]
    assert checkpoint.status == "stopped" and 2 <= checkpoint.num_steps < 6
    assert checkpoint.reason == (
        "judging failed for 2 steps in a row (RuntimeError: the judge is down); mend the judge and "
        "run the same command again"
    )
    assert (tmp_path / "home" / checkpoint.path / "config.json").is_file()
    # Rollouts without a reward are not learned from.
    rewards = connect(Home(str(tmp_path / "home"))).sql("SELECT count(reward) FROM rollouts")
    assert rewards.fetchall() == [(0,)]


def test_cancelled_training_leaves_no_process_and_no_half_written_checkpoint(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    fill(Home(str(home)))
    command = [sys.executable, "-m", "flows", "train", "harbour", "--home", str(home)]
    for change in (*SMALL, "sft.epochs=50"):
        command += ["--set", change]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    training = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while steps_done(home, "sft") < 3:
        assert training.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    workers = actors("RayTrainWorker", of=training.pid)
    assert workers
    training.send_signal(signal.SIGINT)
    assert training.wait(timeout=90) != 0
    _, alive = psutil.wait_procs(workers, timeout=90)
    assert not alive
    assert not (home / "models").exists()
    [(status,)] = (
        connect(Home(str(home))).sql("SELECT status FROM runs WHERE flow='train'").fetchall()
    )
    assert status == "interrupted"
