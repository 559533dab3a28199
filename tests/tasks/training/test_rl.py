"""GRPO: what TRL makes of rewards and masks, which prompts are rolled out, and when it all ends."""

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from specs.policy import Spec
from specs.replies import CLOSE_TAG
from tasks.data.judge import JudgeConfig
from tasks.engine.requests import ScriptedEngine
from tasks.paths import PROJECT
from tasks.training import rl as train_rl
from tasks.training.judges import JudgeActor
from tasks.training.monitor import Monitor, MonitorConfig
from tasks.training.reward import Reward
from tasks.training.rl import (
    RlConfig,
    RlPrompt,
    RlWorkersConfig,
    answer_mask,
    choose_prompts,
    order,
)
from tasks.training.trainer import DataError, EarlyStop, Job
from tests.rows import completion, judgement, prompt, rollout, run
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, PROMPTS, ROLLOUTS, RUNS

SPEC = Spec(categories=("boats",), detail="full", text="Rules of boats.", rule_ids=("B1",))
KINDS = ("harmful", "benign", "ambiguous")
PLANNED = [0.1, 0.9, None, 0.2, 0.3, 0.4, 0.7, 1.0]


class Planned(Reward):
    """Judges as ever, and then gives rewards that were fixed before."""

    given: dict[str, Any]

    async def __call__(self, *args: Any, **given: Any) -> list[float | None]:
        self.given = given
        self.judged = await super().__call__(*args, **given)
        return PLANNED


@dataclass
class Learned:
    """One step of the real trainer, and what moved the probability of each token."""

    reward_on: str
    trainer: Any = None
    logps: list[tuple[Any, Any, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def reward(self) -> Planned:
        [reward] = self.trainer.reward_funcs
        assert isinstance(reward, Planned)
        return reward

    def gradients(self) -> Iterator[tuple[float, bool, list[float], list[float]]]:
        """Of each rollout: advantage, whether it ended, gradients on reasoning and on answer."""
        tokenizer = self.trainer.processing_class
        [close] = tokenizer.encode(CLOSE_TAG)
        [(ids, there, logps)] = self.logps
        advantages = self.trainer._buffered_inputs[0]["advantages"].tolist()
        for row, advantage in enumerate(advantages):
            tokens = [one for one in ids[row].tolist() if one != tokenizer.pad_token_id]
            end = tokens.index(close) + 1 if close in tokens else len(tokens)
            moved = logps.grad[row].tolist()
            yield advantage, bool(there[row].any()), moved[:end], moved[end : len(tokens)]


def learn(home: Home, **changes: Any) -> Learned:
    """What a worker does, in this process: one step on two prompts of four rollouts each."""
    import ray.train
    from trl import GRPOTrainer

    config = RlConfig(
        steps=1,
        samples=4,
        batch_size=8,
        learning_rate=1e-3,
        workers=RlWorkersConfig(use_gpu=False, bf16=False, rows_at_once=8),
        **{"max_tokens": 100, **changes},
    )
    job = Job(
        stage="rl",
        checkpoint_id="c",
        folder=f"{home.url}/training",
        model=str(PROJECT / "infra" / "harbour" / "model"),
        revision=None,
        chat_template_kwargs={},
        end_ids=frozenset({2}),
        config=config,
        best=("reward", "max"),
    )
    engine = ScriptedEngine(lambda request, index: "<think>I look.</think>So.\nScore: 9")
    judge = JudgeActor(lambda: engine, JudgeConfig(), {SPEC.id: SPEC}, 4)
    learned = Learned(config.reward_on)
    forward = GRPOTrainer._get_per_token_logps_and_entropies

    def watched(
        self: Any, model: Any, ids: Any, there: Any, count: int, *args: Any, **named: Any
    ) -> Any:
        found = forward(self, model, ids, there, count, *args, **named)
        if found[0].requires_grad:
            found[0].retain_grad()
            learned.logps.append((ids[:, -count:], there[:, -count:], found[0]))
        return found

    def train(trainer: Any, job: Job, stop: EarlyStop) -> None:
        learned.trainer = trainer
        trainer.train()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=lambda: 0))
        patch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", watched)
        patch.setattr(train_rl, "run", train)
        patch.setattr(train_rl, "Reward", Planned)
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        train_rl._loop(
            {
                "job": job,
                "home": home,
                "run_id": "r",
                "judges": [SimpleNamespace(votes=SimpleNamespace(remote=judge.votes))],
                "rows": [
                    {
                        "prompt": [{"role": "user", "content": f"How do I use the {name}?"}],
                        "prompt_id": name,
                        "spec_id": SPEC.id,
                        "kind": kind,
                    }
                    for name, kind in (("ferry", "benign"), ("yacht", "harmful"))
                ],
            }
        )
    found = connect(home).sql("FROM rollouts ORDER BY position").to_arrow_table()
    learned.rows = found.to_pylist()
    return learned


@pytest.fixture(scope="module", params=["all", "answer"])
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    return learn(Home(str(tmp_path_factory.mktemp("home"))), reward_on=request.param)


@pytest.mark.slow
def test_rollout_without_reward_has_advantage_0_and_its_siblings_as_if_it_were_not_there(
    learned: Learned,
) -> None:
    advantages = list(learned.trainer._logs["advantages"])
    assert advantages[2] == 0.0
    for places in ((0, 1, 3), (4, 5, 6, 7)):
        rewards = [float(PLANNED[place] or 0) for place in places]
        mean, deviation = statistics.mean(rewards), statistics.stdev(rewards)
        assert [advantages[place] for place in places] == pytest.approx(
            [(reward - mean) / (deviation + 1e-4) for reward in rewards], rel=1e-4
        )


@pytest.mark.slow
def test_reward_moves_the_tokens_it_is_to_move(learned: Learned) -> None:
    everywhere = learned.reward_on == "all"
    count = 0
    for advantage, ended, reasoning, answer in learned.gradients():
        moved = ended and advantage != 0.0
        count += moved
        assert len(reasoning) > 2 and (not ended or answer)
        assert all((one != 0.0) == moved for one in answer)
        assert all((one != 0.0) == (moved and everywhere) for one in reasoning)
    assert 0 < count < len(PLANNED)


@pytest.mark.slow
def test_trl_gives_rewards_what_they_read(learned: Learned) -> None:
    given = learned.reward.given
    assert {"prompts", "completion_ids", "prompt_id", "spec_id", "kind"} <= given.keys()
    assert given["trainer_state"] is learned.trainer.state
    decode = learned.trainer.processing_class.decode
    for ids, row in zip(given["completion_ids"], learned.rows, strict=True):
        assert row["status"] != "ok" or decode(ids) == (
            f"<think>{row['reasoning']}</think>{row['answer']}<|im_end|>"
        )
    kinds = {"ferry": "benign", "yacht": "harmful"}
    assert [row["prompt_id"] for row in learned.rows] == given["prompt_id"]
    assert Counter(given["prompt_id"]) == {"ferry": 4, "yacht": 4}
    assert len(set(given["prompt_id"][:4])) == 1
    for row, turns in zip(learned.rows, given["prompts"], strict=True):
        assert turns == [{"role": "user", "content": f"How do I use the {row['prompt_id']}?"}]
        assert (row["kind"], row["spec_id"]) == (kinds[row["prompt_id"]], SPEC.id)
        assert (row["step"], row["attempt"], row["checkpoint_id"]) == (0, 0, "c")
    assert [row["reward"] for row in learned.rows] == learned.reward.judged
    assert 0.9 in learned.reward.judged


@pytest.mark.slow
def test_log_holds_what_monitors_read_and_where_the_time_went(learned: Learned) -> None:
    entry = learned.trainer.state.log_history[0]
    lengths = [row["num_reasoning_tokens"] for row in learned.rows]
    assert entry["reasoning/mean_tokens"] == pytest.approx(statistics.mean(lengths))
    assert entry["judge/failed_share"] == entry["benign/unhelped_share"] == 0.0
    assert entry["frac_reward_zero_std"] == 0.0
    seconds = [entry[f"seconds/{part}"] for part in ("rollout", "judge", "update")]
    assert all(0 < one < 60 for one in seconds)


@pytest.mark.slow
@pytest.mark.parametrize("reward_on", ["all", "answer"])
def test_rollouts_that_were_cut_are_not_learned_from(disk: Home, reward_on: str) -> None:
    learned = learn(disk, max_tokens=6, reward_on=reward_on)
    assert {(row["status"], row["reward"]) for row in learned.rows} == {("truncated", 0.0)}
    for _, ended, reasoning, answer in learned.gradients():
        assert not ended and not any(reasoning + answer)


@pytest.mark.parametrize(
    ("said", "mask"),
    [
        (["a", "</think>", "b", "c"], [0, 0, 1, 1]),
        (["a", "</think>", "b", "</think>", "c"], [0, 0, 1, 1, 1]),
        (["a", "</th", "ink>", "b"], [0, 0, 0, 1]),
        (["</think>", "b"], [0, 1]),
        (["a", "</think>"], [0, 0]),
        (["a", "b"], [0, 0]),
        ([], []),
    ],
)
def test_mask_leaves_the_tokens_after_the_first_closing_tag_however_it_is_spelled(
    said: list[str], mask: list[int]
) -> None:
    words = ["a", "b", "c", "</think>", "</th", "ink>"]
    ids = [words.index(word) for word in said]
    close = [words.index("</think>")]
    assert answer_mask(ids, close, lambda some: "".join(words[one] for one in some)) == mask


def fill(home: Home, **counts: int) -> None:
    """Prompts of each kind, and some that must not be rolled out."""
    ideals = {"harmful": "refuse", "benign": "comply", "ambiguous": None}
    rows = [
        prompt(f"{kind} {number}", ideal_response=ideals[kind])
        for kind, count in counts.items()
        for number in range(count)
    ]
    write_shard(home, PROMPTS, [*rows, prompt("of no category", categories=[])])


def chosen(home: Home, **options: Any) -> list[RlPrompt]:
    connection = connect(home)
    connection.execute("CREATE TEMP VIEW asked AS SELECT prompt_id, categories FROM prompts")
    config = RlConfig(**options)
    return choose_prompts(connection, config, generation_id="g", judging_id="j")


def test_without_a_mix_all_training_prompts_are_rolled_out(disk: Home) -> None:
    fill(disk, harmful=2, benign=3, ambiguous=4)
    found = chosen(disk)
    assert Counter(one.kind for one in found) == {"harmful": 2, "benign": 3, "ambiguous": 4}
    assert all(one.messages[0]["content"].startswith(one.kind) for one in found)
    assert {tuple(one.categories) for one in found} == {("boats",)}


@pytest.mark.parametrize(
    ("mix", "counts"),
    [
        ({"harmful": 1, "benign": 3}, {"harmful": 2, "benign": 6}),
        ({"harmful": 2, "benign": 6, "ambiguous": 0}, {"harmful": 2, "benign": 6}),
        ({"ambiguous": 1}, {"ambiguous": 5}),
        (dict.fromkeys(KINDS, 1), dict.fromkeys(KINDS, 4)),
        ({"harmful": 99, "benign": 1}, {"harmful": 4, "benign": 1}),
    ],
)
def test_mix_takes_as_many_prompts_as_its_scarcest_kind_allows_and_the_same_each_time(
    disk: Home, mix: dict[str, float], counts: dict[str, int]
) -> None:
    fill(disk, harmful=4, benign=6, ambiguous=5)
    found = chosen(disk, mix=mix)
    assert Counter(one.kind for one in found) == counts
    assert found == chosen(disk, mix=dict(reversed(mix.items())))
    assert [one.prompt_id for one in found] == sorted({one.prompt_id for one in found})


def test_prompts_that_are_not_there_are_named_in_one_sentence(disk: Home) -> None:
    fill(disk, harmful=4, ambiguous=5)
    with pytest.raises(DataError) as caught:
        chosen(disk, mix={"harmful": 1, "benign": 1})
    assert str(caught.value) == "rl.mix wants benign prompts and there are none; set it to 0"
    with pytest.raises(DataError, match="no prompts to roll out; run precept refresh"):
        chosen(disk, prompts="undecided")


def test_undecided_prompts_are_those_both_accepted_and_not(disk: Home) -> None:
    given: dict[str, list[tuple[int | None, int | None]]] = {
        "always": [(9, 9), (8, 10)],
        "never": [(9, 7), (3, 3)],
        "both": [(9, 9), (9, 7)],
        "accepted or unread": [(9, 9), (9, None)],
        "rejected or unread": [(9, 7), (9, None)],
        "unread": [(None, None), (9, None)],
        "unasked": [],
    }
    prompts = [prompt(name, prompt_id=name) for name in (*given, "failed")]
    write_shard(disk, PROMPTS, prompts)
    completions = [completion("failed 0", prompt_id="failed", status="unclosed")]
    completions.append(completion("failed 1", prompt_id="failed"))
    judgements = [judgement("failed 1", index, 9) for index in (0, 1)]
    for name, samples in given.items():
        for number, scores in enumerate(samples):
            completions.append(completion(f"{name} {number}", prompt_id=name))
            judgements += [
                judgement(f"{name} {number}", index, score) for index, score in enumerate(scores)
            ]
    write_shard(disk, COMPLETIONS, completions)
    write_shard(disk, JUDGEMENTS, judgements)
    write_shard(disk, RUNS, [run("r")])
    found = [one.prompt_id for one in chosen(disk, prompts="undecided")]
    assert found == ["both", "failed"]
    assert len(chosen(disk)) == len(prompts)


STEADY = {
    "reasoning/mean_tokens": 100.0,
    "benign/unhelped_share": 0.2,
    "frac_reward_zero_std": 0.5,
}


def look(*steps: dict[str, float], **options: Any) -> list[str | None]:
    """What a monitor says after each step."""
    monitor = Monitor(MonitorConfig(window=2, saturated_steps=3, **options))
    return [monitor.look({**STEADY, **step}) or monitor.nothing_left for step in steps]


def test_steady_figures_raise_no_alarm() -> None:
    swinging = [
        {
            "reasoning/mean_tokens": 100.0 + 60 * (-1) ** number,
            "benign/unhelped_share": 0.4 + 0.4 * (-1) ** number,
            "frac_reward_zero_std": float(number % 3 > 0),
        }
        for number in range(60)
    ]
    longer = [{"reasoning/mean_tokens": 100.0 * number} for number in range(1, 30)]
    kinder = [{"benign/unhelped_share": 1 / number} for number in range(1, 30)]
    for steps in (swinging, longer, kinder, [{}] * 50):
        assert set(look(*steps)) == {None}
    without_benign = Monitor(MonitorConfig(window=1))
    assert {without_benign.look({"reasoning/mean_tokens": 9.0}) for _ in range(9)} == {None}


def test_collapse_of_reasoning_ends_the_training() -> None:
    short = {"reasoning/mean_tokens": 20.0}
    said = look({}, {}, short, short)
    assert said[:3] == [None] * 3
    assert said[3] == (
        "reasoning fell from 100 to 20 tokens: the model stops thinking; lower rl.learning_rate or "
        "set rl.beta"
    )
    assert look({}, {}, short, short, min_reasoning=0.2)[3] is None


def test_refusal_of_benign_prompts_ends_the_training() -> None:
    unhelped = {"benign/unhelped_share": 0.8}
    said = look({}, {}, {}, unhelped, unhelped)
    assert said[:4] == [None] * 4
    assert said[4] == (
        "benign prompts without help rose from 0.20 to 0.80: the model learns to refuse; give "
        "rl.mix more benign prompts or lower rl.learning_rate"
    )
    assert look({}, {}, unhelped, unhelped, max_unhelped=0.7)[3] is None


def test_saturation_ends_the_training_only_when_it_lasts() -> None:
    alike = {"frac_reward_zero_std": 1.0}
    said = look(alike, alike, {}, alike, alike, alike)
    assert said[:5] == [None] * 5
    assert said[5] == (
        "all samples of every prompt scored alike for 3 steps: nothing is left to learn from these "
        "prompts; add harder ones"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "status"),
    [({"frac_reward_zero_std": 1.0}, "completed"), ({"reasoning/mean_tokens": 1.0}, "collapsed")],
)
@pytest.mark.parametrize("killed", [False, True])
def test_saturated_training_has_done_what_it_could_and_a_collapsed_one_has_not(
    step: dict[str, float], status: str, killed: bool
) -> None:
    stop = EarlyStop()
    config = MonitorConfig(window=2, saturated_steps=3)
    reward = SimpleNamespace(began=0.0, ended=0.0)
    watching = train_rl._watching(config, reward, stop)  # type: ignore[arg-type]
    state = SimpleNamespace(log_history=[])
    for number, figures in enumerate(({}, {}, *[step] * 5)):
        if killed and number == 3:
            # What goes on is held to how it began.
            watching = train_rl._watching(config, reward, stop)  # type: ignore[arg-type]
            watching.on_train_begin(None, state, None)
        logs = {"reward": 0.5, **STEADY, **figures}
        state.log_history.append(logs)
        watching.on_log(None, state, None, logs)
    assert stop.reason is not None and stop.status == status


def test_all_prompts_have_their_turn_before_one_comes_again() -> None:
    config = RlConfig(steps=10, batch_size=8, samples=2, workers={"rows_at_once": 8})
    asked = order(7, config)
    assert asked == order(7, config)
    assert len(asked) == 10 * 4
    assert sorted(asked[:7]) == sorted(asked[7:14]) == list(range(7))


def test_training_that_begins_anew_counts_its_attempts(disk: Home) -> None:
    assert train_rl._attempt(disk, "c") == 0
    for attempt in (0, 1, 2):
        rows = [rollout(f"{position}", position=position, attempt=attempt) for position in (0, 1)]
        write_shard(disk, ROLLOUTS, rows)
        assert train_rl._attempt(disk, "c") == attempt + 1
    assert train_rl._attempt(disk, "another") == 0
