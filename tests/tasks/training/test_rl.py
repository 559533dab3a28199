"""GRPO: how TRL uses rewards and masks, which prompts are rolled out, and when a training ends."""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from specs.policy import Spec
from specs.prompts import Message
from specs.replies import CLOSE_TAG
from tasks.data.judge import JudgeConfig
from tasks.data.sources import SourceConfig
from tasks.engine.requests import EngineConfig, ScriptedEngine
from tasks.monitors import FLAGGED, RolloutMonitor
from tasks.paths import PROJECT
from tasks.training import rl
from tasks.training.judges import JudgeActor
from tasks.training.monitor import Monitor, MonitorConfig, monitor_callback
from tasks.training.reward import Kind, Reward, RewardConfig
from tasks.training.rl import (
    PrefillConfig,
    RlConfig,
    RlData,
    RlPrompt,
    RlTraining,
    RlWorkersConfig,
    RolloutRow,
    choose_prompts,
    require_unevaluated,
    rollout_order,
)
from tasks.training.rollouts import answer_mask
from tasks.training.trainer import BestBy, DataError, Job
from tasks.training.worker import EarlyStop
from tests.flows.test_show import checkpoint
from tests.rows import completion, judgement, prompt, rollout, run
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, PROMPTS, ROLLOUTS, RUNS

SPEC = Spec(categories=("boats",), detail="full", text="Rules of boats.", rule_ids=("B1",))
KINDS: tuple[Kind, ...] = ("harmful", "benign", "ambiguous")
KIND_OF: dict[str, Kind] = {"ferry": "benign", "yacht": "harmful"}
PLANNED = [0.1, 0.9, None, 0.2, 0.3, 0.4, 0.7, 1.0]


class PlannedReward(Reward):
    """Judges as usual, and then gives rewards that were fixed before."""

    arguments: dict[str, Any]

    async def __call__(self, *args: Any, **arguments: Any) -> list[float | None]:
        self.arguments = arguments
        self.judged = await super().__call__(*args, **arguments)
        return PLANNED


@dataclass
class Learned:
    """One step of the real trainer, and the gradients on the probability of each token."""

    reward_on: str
    trainer: Any = None
    logps: list[tuple[Any, Any, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def reward(self) -> PlannedReward:
        [reward] = self.trainer.reward_funcs
        assert isinstance(reward, PlannedReward)
        return reward

    def gradients(self) -> Iterator[tuple[float, bool, list[float], list[float]]]:
        """Yields advantage, end, and gradients on reasoning and on answer of each rollout."""
        tokenizer = self.trainer.processing_class
        [close] = tokenizer.encode(CLOSE_TAG)
        [(ids, mask, logps)] = self.logps
        advantages = self.trainer._buffered_inputs[0]["advantages"].tolist()
        for row, advantage in enumerate(advantages):
            tokens = [token for token in ids[row].tolist() if token != tokenizer.pad_token_id]
            end = tokens.index(close) + 1 if close in tokens else len(tokens)
            gradients = logps.grad[row].tolist()
            yield advantage, bool(mask[row].any()), gradients[:end], gradients[end : len(tokens)]


def make_job(folder: str, **changes: Any) -> Job:
    """Returns a training of one step on two prompts of four rollouts each."""
    config = RlConfig(
        steps=1,
        samples=4,
        batch_size=8,
        learning_rate=1e-3,
        workers=RlWorkersConfig(use_gpu=False, bf16=False, rows_at_once=8),
        **{"max_tokens": 100, **changes},
    )
    return Job(
        name="rl",
        checkpoint_id="c",
        folder=folder,
        model=str(PROJECT / "infra" / "harbour" / "model"),
        revision=None,
        chat_template_kwargs={},
        end_ids=frozenset({2}),
        config=config,
        best=BestBy("reward", "max"),
    )


def make_data(home: Home, prefills: Mapping[str, str] = {}) -> RlData:
    """Returns the two prompts, with a judge in this process."""
    engine = ScriptedEngine(lambda request, index: "<think>I look.</think>So.\nScore: 9")
    judge = JudgeActor(lambda: engine, JudgeConfig(), {SPEC.id: SPEC}, 4)
    rows = [
        RolloutRow(
            prompt=[{"role": "user", "content": f"How do I use the {name}?"}],
            prompt_id=name,
            spec_id=SPEC.id,
            kind=kind,
            prefill=prefills.get(name, ""),
        )
        for name, kind in KIND_OF.items()
    ]
    handle = SimpleNamespace(score=SimpleNamespace(remote=judge.score))
    monitor = RolloutMonitor.of(SPEC.rule_ids, [SPEC])
    return RlData(rows=rows, judges=[handle], home=home, run_id="r", monitor=monitor)


def learn(home: Home, *, prefills: Mapping[str, str] = {}, **changes: Any) -> Learned:
    """Trains as a worker does, in this process."""
    import ray.train
    from trl import GRPOTrainer

    job = make_job(f"{home.url}/training", **changes)
    assert isinstance(job.config, RlConfig)
    learned = Learned(job.config.reward_on)
    forward = GRPOTrainer._get_per_token_logps_and_entropies

    def watched(
        self: Any, model: Any, ids: Any, mask: Any, count: int, *args: Any, **named: Any
    ) -> Any:
        outputs = forward(self, model, ids, mask, count, *args, **named)
        if outputs[0].requires_grad:
            outputs[0].retain_grad()
            learned.logps.append((ids[:, -count:], mask[:, -count:], outputs[0]))
        return outputs

    def train(trainer: Any, job: Job, stop: EarlyStop) -> None:
        learned.trainer = trainer
        trainer.train()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=lambda: 0))
        patch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", watched)
        patch.setattr(rl, "run_trainer", train)
        patch.setattr(rl, "Reward", PlannedReward)
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        rl._loop(job, make_data(home, prefills))
    rollouts = connect(home).sql("FROM rollouts ORDER BY position").to_arrow_table()
    learned.rows = rollouts.to_pylist()
    return learned


@pytest.fixture(scope="module", params=["all", "answer"])
def learned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    return learn(Home(str(tmp_path_factory.mktemp("home"))), reward_on=request.param)


@pytest.mark.slow
def test_rollout_without_reward_has_advantage_0_and_does_not_shift_its_siblings(
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
def test_reward_moves_only_the_tokens_it_is_configured_for(learned: Learned) -> None:
    everywhere = learned.reward_on == "all"
    count = 0
    for advantage, ended, reasoning, answer in learned.gradients():
        moves = ended and advantage != 0.0
        count += moves
        assert len(reasoning) > 2 and (not ended or answer)
        assert all((gradient != 0.0) == moves for gradient in answer)
        assert all((gradient != 0.0) == (moves and everywhere) for gradient in reasoning)
    assert 0 < count < len(PLANNED)


@pytest.mark.slow
def test_trl_passes_what_the_reward_reads(learned: Learned) -> None:
    arguments = learned.reward.arguments
    assert {"prompts", "completion_ids", "prompt_id", "spec_id", "kind"} <= arguments.keys()
    assert arguments["trainer_state"] is learned.trainer.state
    decode = learned.trainer.processing_class.decode
    for ids, row in zip(arguments["completion_ids"], learned.rows, strict=True):
        assert row["status"] != "ok" or decode(ids) == (
            f"<think>{row['reasoning']}</think>{row['answer']}<|im_end|>"
        )
    assert [row["prompt_id"] for row in learned.rows] == arguments["prompt_id"]
    assert Counter(arguments["prompt_id"]) == {"ferry": 4, "yacht": 4}
    assert len(set(arguments["prompt_id"][:4])) == 1
    for row, turns in zip(learned.rows, arguments["prompts"], strict=True):
        assert turns == [{"role": "user", "content": f"How do I use the {row['prompt_id']}?"}]
        assert (row["kind"], row["spec_id"]) == (KIND_OF[row["prompt_id"]], SPEC.id)
        assert (row["step"], row["attempt"], row["checkpoint_id"]) == (0, 0, "c")
    assert [row["reward"] for row in learned.rows] == learned.reward.judged
    assert 0.9 in learned.reward.judged


@pytest.mark.slow
def test_log_holds_what_a_monitor_reads_and_where_the_time_went(learned: Learned) -> None:
    entry = learned.trainer.state.log_history[0]
    lengths = [row["num_reasoning_tokens"] for row in learned.rows]
    assert entry["reasoning/mean_tokens"] == pytest.approx(statistics.mean(lengths))
    assert entry["judge/failed_share"] == entry["benign/unhelped_share"] == 0.0
    assert entry["frac_reward_zero_std"] == 0.0
    seconds = [entry[f"seconds/{part}"] for part in ("rollout", "judge", "update")]
    assert all(0 < duration < 60 for duration in seconds)


@pytest.mark.slow
@pytest.mark.parametrize("reward_on", ["all", "answer"])
def test_cut_rollouts_are_not_learned_from(disk: Home, reward_on: str) -> None:
    learned = learn(disk, max_tokens=6, reward_on=reward_on)
    assert {(row["status"], row["reward"]) for row in learned.rows} == {("truncated", 0.0)}
    for _, ended, reasoning, answer in learned.gradients():
        assert not ended and not any(reasoning + answer)


@pytest.mark.slow
@pytest.mark.parametrize("reward_on", ["all", "answer"])
def test_rollouts_begin_with_wrong_reasoning_that_the_reward_does_not_move(
    disk: Home, reward_on: str
) -> None:
    wrong = "The user asks about the yacht. I can help."
    learned = learn(
        disk, reward_on=reward_on, prefill=PrefillConfig(tokens=9), prefills={"yacht": wrong}
    )
    # The opening tag and eight tokens, each a word or a full stop.
    begun = wrong.removesuffix(" can help.")
    by_prompt = {row["prompt_id"]: row for row in learned.rows}
    assert all(row["reasoning"].startswith(begun) for row in learned.rows[4:])
    assert not by_prompt["ferry"]["reasoning"].startswith(begun)
    assert {row["prompt_id"] for row in learned.rows[4:]} == {"yacht"}
    # The trainer learns from them in another order.
    [(ids, _, _)] = learned.logps
    texts = learned.trainer.processing_class.batch_decode(ids)
    for text, (advantage, ended, reasoning, answer) in zip(texts, learned.gradients(), strict=True):
        start = 9 if text.startswith(f"<think>{begun}") else 0
        moves = ended and advantage != 0.0
        assert not any(reasoning[:start])
        assert all((one != 0.0) == (moves and reward_on == "all") for one in reasoning[start:])
        assert all((one != 0.0) == moves for one in answer)


@pytest.mark.parametrize(
    ("tokens", "mask"),
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
def test_mask_keeps_the_tokens_after_the_first_closing_tag_however_it_is_spelled(
    tokens: list[str], mask: list[int]
) -> None:
    words = ["a", "b", "c", "</think>", "</th", "ink>"]
    ids = [words.index(word) for word in tokens]
    close = [words.index("</think>")]
    assert answer_mask(ids, close, lambda some: "".join(words[index] for index in some)) == mask


def fill(home: Home, **counts: int) -> None:
    """Writes prompts of each kind, and one that must not be rolled out."""
    ideals = {"harmful": "refuse", "benign": "comply", "ambiguous": None}
    rows = [
        prompt(f"{kind} {number}", ideal_response=ideals[kind])
        for kind, count in counts.items()
        for number in range(count)
    ]
    write_shard(home, PROMPTS, [*rows, prompt("of no category", categories=[])])


def chosen(home: Home, **options: Any) -> list[RlPrompt]:
    connection = connect(home)
    connection.execute("CREATE TEMP VIEW candidates AS SELECT prompt_id, categories FROM prompts")
    config = RlConfig(**options)
    return choose_prompts(connection, config, generation_id="g", judging_id="j")


def test_without_a_mix_all_prompts_with_a_category_are_rolled_out(disk: Home) -> None:
    fill(disk, harmful=2, benign=3, ambiguous=4)
    prompts = chosen(disk)
    assert Counter(one.kind for one in prompts) == {"harmful": 2, "benign": 3, "ambiguous": 4}
    assert all(one.messages[0]["content"].startswith(one.kind) for one in prompts)
    assert {tuple(one.categories) for one in prompts} == {("boats",)}


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
    prompts = chosen(disk, mix=mix)
    assert Counter(one.kind for one in prompts) == counts
    assert prompts == chosen(disk, mix=dict(reversed(mix.items())))
    assert [one.prompt_id for one in prompts] == sorted({one.prompt_id for one in prompts})


def test_prompts_begin_with_their_own_rejected_reasoning_or_with_that_of_the_other_kind(
    disk: Home,
) -> None:
    ideals = {"rejected": "refuse", "refused": "refuse", "helped": "comply", "alone": "comply"}
    categories = {"alone": ["lamps"]}
    write_shard(
        disk,
        PROMPTS,
        [
            prompt(
                name,
                prompt_id=name,
                ideal_response=ideal,
                categories=categories.get(name, ["boats"]),
            )
            for name, ideal in ideals.items()
        ],
    )
    scores = {"rejected": (9, 3, 5), "refused": (9,), "helped": (10,), "alone": (9,)}
    completions, judgements = [], []
    for name, given in scores.items():
        for number, score in enumerate(given):
            completion_id = f"{name} {number}"
            reasoning = f"reasoning of {completion_id}"
            completions.append(completion(completion_id, prompt_id=name, reasoning=reasoning))
            judgements.append(judgement(completion_id, 0, score, prompt_id=name))
    write_shard(disk, COMPLETIONS, completions)
    write_shard(disk, JUDGEMENTS, judgements)
    write_shard(disk, RUNS, [run("r", num_judgements=1)])
    prefill = PrefillConfig(share=1.0)
    assert {one.prompt_id: one.prefill for one in chosen(disk, prefill=prefill)} == {
        "rejected": "reasoning of rejected 1",
        "refused": "reasoning of helped 0",
        "helped": "reasoning of refused 0",
        "alone": "",
    }
    assert all(not one.prefill for one in chosen(disk))


def test_a_share_of_the_prompts_begins_with_wrong_reasoning_the_same_each_time(disk: Home) -> None:
    fill(disk, harmful=100, benign=100)
    wrong = {one.prompt_id: "Wrong." for one in chosen(disk)}
    begun = rl._prefilled(chosen(disk), wrong, PrefillConfig(share=0.3))
    assert begun == rl._prefilled(chosen(disk), wrong, PrefillConfig(share=0.3))
    assert 40 < sum(bool(one.prefill) for one in begun) < 80
    with pytest.raises(DataError, match=r"^rl\.prefill finds no wrong reasoning: "):
        chosen(disk, prefill=PrefillConfig())


def test_missing_prompts_are_named_in_one_sentence(disk: Home) -> None:
    fill(disk, harmful=4, ambiguous=5)
    with pytest.raises(DataError) as caught:
        chosen(disk, mix={"harmful": 1, "benign": 1})
    assert str(caught.value) == "rl.mix wants benign prompts and there are none; set it to 0"
    with pytest.raises(DataError, match="no prompts to roll out; run precept refresh"):
        chosen(disk, prompts="undecided")


def test_undecided_prompts_have_accepted_and_unaccepted_completions(disk: Home) -> None:
    scores_of: dict[str, list[tuple[int | None, int | None]]] = {
        "always": [(9, 9), (8, 10)],
        "never": [(9, 7), (3, 3)],
        "both": [(9, 9), (9, 7)],
        "accepted or unread": [(9, 9), (9, None)],
        "rejected or unread": [(9, 7), (9, None)],
        "unread": [(None, None), (9, None)],
        "unasked": [],
    }
    prompts = [prompt(name, prompt_id=name) for name in (*scores_of, "failed")]
    write_shard(disk, PROMPTS, prompts)
    completions = [completion("failed 0", prompt_id="failed", status="unclosed")]
    completions.append(completion("failed 1", prompt_id="failed"))
    judgements = [judgement("failed 1", index, 9, prompt_id="failed") for index in (0, 1)]
    for name, samples in scores_of.items():
        for number, scores in enumerate(samples):
            completions.append(completion(f"{name} {number}", prompt_id=name))
            judgements += [
                judgement(f"{name} {number}", index, score, prompt_id=name)
                for index, score in enumerate(scores)
            ]
    write_shard(disk, COMPLETIONS, completions)
    write_shard(disk, JUDGEMENTS, judgements)
    write_shard(disk, RUNS, [run("r")])
    undecided = chosen(disk, prompts="undecided")
    assert [one.prompt_id for one in undecided] == ["both", "failed"]
    assert len(chosen(disk)) == len(prompts)


STEADY = {
    "reasoning/mean_tokens": 100.0,
    "benign/unhelped_share": 0.2,
    "frac_reward_zero_std": 0.5,
}


def alarms(*steps: dict[str, float], **options: Any) -> list[str | None]:
    """Returns why a monitor would end the training after each step."""
    monitor = Monitor(MonitorConfig(window=2, saturated_steps=3, **options))
    seen = [monitor.observe({**STEADY, **step}) for step in steps]
    return [alarm.reason if alarm else None for alarm in seen]


def test_steady_metrics_raise_no_alarm() -> None:
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
        assert set(alarms(*steps)) == {None}
    without_benign = Monitor(MonitorConfig(window=1))
    assert {without_benign.observe({"reasoning/mean_tokens": 9.0}) for _ in range(9)} == {None}


def test_collapse_of_reasoning_ends_the_training() -> None:
    short = {"reasoning/mean_tokens": 20.0}
    reasons = alarms({}, {}, short, short)
    assert reasons[:3] == [None] * 3
    assert reasons[3] == (
        "reasoning fell from 100 to 20 tokens: the model stops thinking; lower rl.learning_rate or "
        "set rl.beta"
    )
    assert alarms({}, {}, short, short, min_reasoning=0.2)[3] is None


def test_refusal_of_benign_prompts_ends_the_training() -> None:
    unhelped = {"benign/unhelped_share": 0.8}
    reasons = alarms({}, {}, {}, unhelped, unhelped)
    assert reasons[:4] == [None] * 4
    assert reasons[4] == (
        "benign prompts without help rose from 0.20 to 0.80: the model learns to refuse; give "
        "rl.mix more benign prompts or lower rl.learning_rate"
    )
    assert alarms({}, {}, unhelped, unhelped, max_unhelped=0.7)[3] is None


def test_rise_of_flagged_reasoning_ends_the_training() -> None:
    few, many = {FLAGGED: 0.1}, {FLAGGED: 0.7}
    reasons = alarms(few, few, few, many, many)
    assert reasons[:4] == [None] * 4
    assert reasons[4] is not None
    assert reasons[4].startswith(
        "reasoning that a monitor flags rose from 0.10 to 0.70 of rollouts"
    )
    # A share that the model had from the start is no fault of the training.
    assert set(alarms(many, many, many, many, many)) == {None}
    assert set(alarms(few, few, many, many, max_flagged=1)) == {None}


def test_alarm_that_is_left_as_it_is_defines_no_other_model() -> None:
    plain, strict = RlConfig(), RlConfig(monitor=MonitorConfig(max_flagged=0.2))
    assert "max_flagged" not in plain.defining() and plain.defining() != strict.defining()


def test_saturation_ends_the_training_only_if_it_lasts() -> None:
    alike = {"frac_reward_zero_std": 1.0}
    reasons = alarms(alike, alike, {}, alike, alike, alike)
    assert reasons[:5] == [None] * 5
    assert reasons[5] == (
        "all samples of every prompt scored alike for 3 steps: nothing is left to learn from these "
        "prompts; add harder ones"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "status"),
    [({"frac_reward_zero_std": 1.0}, "completed"), ({"reasoning/mean_tokens": 1.0}, "collapsed")],
)
@pytest.mark.parametrize("killed", [False, True])
def test_saturated_training_is_completed_and_a_collapsed_one_is_not(
    step: dict[str, float], status: str, killed: bool
) -> None:
    stop = EarlyStop()
    config = MonitorConfig(window=2, saturated_steps=3)
    reward = SimpleNamespace(began=0.0, ended=0.0)
    callback = monitor_callback(config, reward, stop)  # type: ignore[arg-type]
    state = SimpleNamespace(log_history=[])
    for number, metrics in enumerate(({}, {}, *[step] * 5)):
        if killed and number == 3:
            # A training that resumes is compared with its first steps.
            callback = monitor_callback(config, reward, stop)  # type: ignore[arg-type]
            callback.on_train_begin(None, state, None)
        logs = {"reward": 0.5, **STEADY, **metrics}
        state.log_history.append(logs)
        callback.on_log(None, state, None, logs)
    assert stop.reason is not None and stop.status == status


def test_all_prompts_have_their_turn_before_one_comes_again() -> None:
    config = RlConfig(steps=10, batch_size=8, samples=2, workers={"rows_at_once": 8})
    order = rollout_order(7, config)
    assert order == rollout_order(7, config)
    assert len(order) == 10 * 4
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))


def test_judge_and_trainer_share_a_gpu(disk: Home) -> None:
    workers = RlWorkersConfig(gpu_share=0.6, judge_gpu_share=0.4)
    training = RlTraining(
        config=RlConfig(workers=workers),
        prompts=[],
        specs={},
        judge=JudgeConfig(),
        judge_engine=EngineConfig(),
        judge_model="judge@1",
        home=disk,
        run_id="r",
        rule_ids=(),
    )
    shares = [one.resources["GPU"] for one in (training.judging_engine, workers)]
    assert (shares, training.num_gpus) == ([0.4, 0.6], 1.0)
    assert training.config.defining() == RlConfig().defining()


def test_another_reward_model_makes_another_model_and_its_pairs_are_ancestors(disk: Home) -> None:
    def training(scorer: str | None, **changes: Any) -> RlTraining:
        return RlTraining(
            config=RlConfig(reward=RewardConfig(**changes)),
            prompts=[],
            specs={},
            judge=JudgeConfig(),
            judge_engine=EngineConfig(replicas=2),
            judge_model="judge@1",
            home=disk,
            run_id="r",
            rule_ids=(),
            reward_model=checkpoint(scorer, stage="reward_model", set_id="s") if scorer else None,
        )

    judged = training(None)
    first, second = (training(name, model=True) for name in ("first", "second"))
    assert len({one.fingerprint for one in (judged, first, second)}) == 3
    assert (judged.set_id, first.set_id) == (None, "s")
    assert "model" in first.config.defining() and '"model"' not in judged.config.defining()
    assert judged.num_gpus > first.num_gpus == 1


def test_restarted_training_counts_its_attempts(disk: Home) -> None:
    assert rl._next_attempt(disk, "c") == 0
    for attempt in (0, 1, 2):
        rows = [rollout(f"{position}", position=position, attempt=attempt) for position in (0, 1)]
        write_shard(disk, ROLLOUTS, rows)
        assert rl._next_attempt(disk, "c") == attempt + 1
    assert rl._next_attempt(disk, "another") == 0


def test_prompt_that_a_suite_holds_is_not_rolled_out(tmp_path: Path) -> None:
    file = tmp_path / "suite.jsonl"
    file.write_text('{"prompt": "May I use a lamp?"}\n', encoding="utf-8")
    suite = SourceConfig(name="lamps", path=str(file), prompt="prompt")

    def asked(text: str) -> RlPrompt:
        messages: list[Message] = [{"role": "user", "content": text}]
        return RlPrompt(prompt_id=text, messages=messages, categories=["lamps"], kind="benign")

    require_unevaluated([asked("May I use a boat?")], [suite])
    with pytest.raises(DataError, match="1 prompts of rl stand in suite 'lamps'"):
        require_unevaluated([asked("May I use a lamp?")], [suite])
