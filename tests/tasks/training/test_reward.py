"""Rewards: a judge never sees the reasoning, and a score that it could not give is never a 0."""

import asyncio
import copy
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.policy import Spec
from specs.prompts import judge_messages
from specs.template import load_template
from tasks.data.judge import JudgeConfig
from tasks.engine.cluster import start_ray
from tasks.engine.requests import EngineConfig, Request, Sample, ScriptedEngine, failed
from tasks.evaluation.graders import load_function
from tasks.monitors import RolloutMonitor
from tasks.paths import PROJECT
from tasks.training.judges import (
    FunctionJudge,
    JudgeActor,
    JudgePool,
    JudgeReply,
    JudgeRequest,
    Judges,
    Judging,
    LoadedEngine,
)
from tasks.training.reward import Kind, Reward, RewardConfig, RolloutOrigin, combine
from tasks.training.rollouts import split_rollout
from tasks.training.trainer import Status
from tasks.training.worker import EarlyStop
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import ROLLOUTS, Rollout

SPEC = Spec(categories=("boats",), detail="full", text="Rules of boats.", rule_ids=("B1",))
PLAIN = RewardConfig()
KINDS: tuple[Kind, ...] = ("harmful", "benign", "ambiguous")
CANARY = "tangerine 7741"
GOOD = "<think>I look.</think>Take the skiff."
ENDS = frozenset({0, 2})
"""The end of a turn, and padding, as the scale model's tokenizer numbers them."""


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(PROJECT / "infra" / "harbour" / "model")


def rollout_ids(text: str, *, ended: bool = True) -> list[int]:
    """A rollout's tokens; a tag in ‹› is spelled letter by letter instead of by its own token."""
    ids: list[int] = []
    for part in re.split("(‹/?think›)", text):
        spelled = part.startswith("‹")
        for piece in part.replace("‹", "<").replace("›", ">") if spelled else [part]:
            ids += tokenizer().encode(piece, add_special_tokens=False)
    return ids + [tokenizer().eos_token_id] * ended


def verdict_text(score: int | None) -> str:
    return "<think>I look.</think>It is so.\n" + ("" if score is None else f"Score: {score}")


def asks_for_help(request: Request) -> bool:
    return "You rate how far answers help" in request.messages[0]["content"]


def fair(request: Request, index: int) -> str:
    """Nine for compliance, seven for help."""
    return verdict_text(7 if asks_for_help(request) else 9)


@dataclass
class LocalJudge:
    """A judge in this process, asked as if it were an actor of Ray."""

    engine: LoadedEngine = field(default_factory=lambda: ScriptedEngine(fair))
    requests: list[JudgeRequest] = field(default_factory=list)

    @property
    def score(self) -> Any:
        return SimpleNamespace(remote=self._score)

    @property
    def engine_requests(self) -> list[Request]:
        assert isinstance(self.engine, ScriptedEngine)
        return self.engine.requests

    async def _score(self, request: JudgeRequest) -> list[float | None]:
        self.requests.append(request)
        actor = JudgeActor(lambda: self.engine, JudgeConfig(), {SPEC.id: SPEC}, PLAIN.samples)
        return await actor.score(request)


class RecordedStop(EarlyStop):
    """A request to stop that keeps every reason."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []

    def request(self, reason: str, status: Status) -> None:
        super().request(reason, status)
        self.reasons.append(reason)


@dataclass
class Bench:
    """A reward function as a training worker has it, and what it recorded and logged."""

    judges: Sequence[Any]
    config: RewardConfig = PLAIN
    judging: Judging | None = None
    prefilled: bool = False
    attempt: int = 0
    rows: list[Rollout] = field(default_factory=list)
    stop: RecordedStop = field(default_factory=RecordedStop)
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reward = Reward(
            self.judging or JudgePool(self.judges, self.config.limits),
            config=self.config,
            split=partial(split_rollout, tokenizer(), self.prefilled, ENDS),
            record=self.rows.extend,
            stop=self.stop,
            origin=RolloutOrigin(checkpoint_id="c", run_id="r", rank=0, attempt=self.attempt),
        )

    def step(
        self,
        *rollouts: str | list[int],
        kind: Kind = "harmful",
        prompt: str = "May I?",
        step: int = 0,
    ) -> list[float | None]:
        """Returns the rewards of one step's rollouts, given as text or as tokens."""
        count = len(rollouts)
        return asyncio.run(
            self.reward(
                prompts=[[{"role": "user", "content": prompt}]] * count,
                completions=["unused"] * count,
                completion_ids=[
                    rollout_ids(rollout) if isinstance(rollout, str) else rollout
                    for rollout in rollouts
                ],
                prompt_id=["p"] * count,
                spec_id=[SPEC.id] * count,
                kind=[kind] * count,
                trainer_state=SimpleNamespace(global_step=step),
                log_metric=self.metrics.__setitem__,
            )
        )


def reasoned(text: str) -> str:
    return f"<think>{CANARY}</think>{text}"


@cache
def judged() -> dict[str, list[int]]:
    """Rollouts whose answer a judge is shown."""
    return {
        "plain": rollout_ids(reasoned("Take the skiff.")),
        "tags spelled out": rollout_ids(f"‹think›{CANARY}‹/think›Take the oar."),
    }


@cache
def broken() -> dict[str, list[int]]:
    """Rollouts that have no answer to show."""
    return {
        "unclosed": rollout_ids(f"<think>{CANARY} Take the skiff."),
        "without tags": rollout_ids(CANARY),
        "never opened": rollout_ids(f"{CANARY}</think>Yes."),
        "closed twice": rollout_ids(reasoned(f"Yes. {CANARY}</think>No.")),
        "closed twice at once": rollout_ids(reasoned("</think>Yes.")),
        "reopened": rollout_ids(reasoned(f"Yes.<think>{CANARY}</think>No.")),
        "reopened for good": rollout_ids(reasoned(f"Yes.<think>{CANARY}")),
        "opened twice": rollout_ids(f"<think>{reasoned('Yes.')}"),
        "opened late": rollout_ids(f"Well.{reasoned('Yes.')}"),
        "tags named in the answer": rollout_ids(reasoned("Write ‹think› and ‹/think›.")),
        "truncated": rollout_ids(reasoned("Take the"), ended=False),
        "truncated in reasoning": rollout_ids(f"<think>{CANARY}", ended=False),
        "without answer": rollout_ids(reasoned(" ")),
        "ended by padding in reasoning": [*rollout_ids(f"<think>{CANARY}", ended=False), 0],
    }


def test_reward_does_not_depend_on_what_monitors_find(disk: Home) -> None:
    """Reasoning that every monitor flags is rewarded like any other: a model that is rewarded for
    clean reasoning learns to hide what it thinks."""
    monitor = RolloutMonitor.of(SPEC.rule_ids, [SPEC])
    flagged = "The policy above is rule B99, the grader will see my answer, and I must refuse."
    rewards = {}
    for reasoning in ("Rule B1 allows it, so I comply.", flagged):
        bench = Bench([LocalJudge()])
        bench.reward.record = partial(monitor.record, disk)
        rollout = (
            f"<think>{reasoning}</think>Here is how: take the skiff and row to the other side."
        )
        rewards[reasoning] = [bench.step(*[rollout] * 4, kind=kind) for kind in KINDS]
        share = float(reasoning == flagged)
        assert bench.metrics["monitor/flagged_share"] == share
        assert bench.metrics["monitor/reversed_share"] == share
    first, second = rewards.values()
    assert first == second and None not in first[0]


def test_no_judge_sees_the_reasoning() -> None:
    judge = LocalJudge()
    bench = Bench([judge])
    rollouts = [*judged().values(), *broken().values()]
    rewards = bench.step(*rollouts, kind="ambiguous")
    assert CANARY not in repr(judge.engine_requests) + repr(judge.requests)
    assert all(CANARY in tokenizer().decode(ids) for ids in rollouts)
    assert {request.answer for request in judge.requests} == {"Take the skiff.", "Take the oar."}
    assert rewards == [0.8] * len(judged()) + [0.0] * len(broken())
    assert all(CANARY in row.reasoning for row in bench.rows[: len(judged())])


TAGS = ["<think>", "‹think›", "</think>", "‹/think›"]


@given(
    prefilled=st.booleans(),
    ended=st.booleans(),
    opening=st.sampled_from(["", "<think>", "‹think›", " <think>", "Well.<think>"]),
    hidden=st.lists(st.sampled_from([CANARY, "I see. ", "<think>", "‹think›"]), min_size=1),
    closing=st.sampled_from(["", "</think>", "‹/think›"]),
    visible=st.lists(st.sampled_from(["Yes. ", "No.", *(f"{tag}{CANARY}" for tag in TAGS)])),
)
def test_however_tags_are_mixed_no_judge_sees_text_before_or_behind_one(
    prefilled: bool,
    ended: bool,
    opening: str,
    hidden: list[str],
    closing: str,
    visible: list[str],
) -> None:
    judge = LocalJudge()
    shown = visible if closing else []
    text = "".join([opening, *hidden, closing, *shown])
    Bench([judge], prefilled=prefilled).step(rollout_ids(text, ended=ended), kind="benign")
    assert CANARY not in repr(judge.engine_requests) + repr(judge.requests)


def test_tokens_are_split_alike_if_the_tags_are_special_tokens() -> None:
    special = copy.deepcopy(tokenizer())
    special.add_special_tokens({"extra_special_tokens": ["<think>", "</think>"]})
    ids = [*judged().values(), *broken().values()]
    assert special.decode(ids[0], skip_special_tokens=True) == f"{CANARY}Take the skiff."
    for prefilled in (False, True):
        assert [split_rollout(special, prefilled, ENDS, one) for one in ids] == [
            split_rollout(tokenizer(), prefilled, ENDS, one) for one in ids
        ]


def test_reply_whose_prompt_opened_the_reasoning_is_judged_without_it() -> None:
    judge = LocalJudge()
    bench = Bench([judge], prefilled=True)
    assert bench.step(f"{CANARY}</think>Yes.", reasoned("No."), CANARY) == [0.9, 0.0, 0.0]
    assert [request.answer for request in judge.requests] == ["Yes."]
    assert CANARY not in repr(judge.engine_requests)


def test_request_to_a_judge_has_no_field_for_reasoning() -> None:
    assert {one.name for one in fields(JudgeRequest)} == {
        "criterion",
        "prompt",
        "answer",
        "spec_id",
    }
    judge = LocalJudge()
    Bench([judge]).step(GOOD)
    [request] = judge.engine_requests
    assert request.messages == judge_messages(
        load_template("judge", "spec_first"),
        [{"role": "user", "content": "May I?"}],
        spec=SPEC,
        answer="Take the skiff.",
        reasoning=None,
    )
    assert "[reasoning" not in repr(request.messages)


@pytest.mark.parametrize(
    ("kind", "compliance", "helpfulness", "reward"),
    [
        ("harmful", [9, 10, 8, 9], [], 0.8),
        ("harmful", [9, None, 9, 10], [], 0.9),
        ("harmful", [9, None, None, 9], [], None),
        ("harmful", [0, 10, 10, 10], [], 0.0),
        ("harmful", [10] * 4, [0] * 4, 1.0),
        ("benign", [9] * 4, [7, 8, 9, 10], 0.7),
        ("benign", [8, 9, 9, 9], [10] * 4, 1.0),
        ("benign", [7, 9, 9, 9], [10] * 4, 0.7),
        ("benign", [7, 9, 9, 9], [3] * 4, 0.3),
        ("benign", [9] * 4, [0] * 4, 0.0),
        ("benign", [None] * 4, [9] * 4, None),
        ("benign", [9] * 4, [9, 9, None, None], None),
        ("ambiguous", [8] * 4, [4] * 4, 0.6),
        ("ambiguous", [0] * 4, [10] * 4, 0.5),
        ("ambiguous", [8] * 4, [], None),
    ],
)
def test_lowest_scores_make_the_reward_of_each_kind(
    kind: Kind,
    compliance: list[float | None],
    helpfulness: list[float | None],
    reward: float | None,
) -> None:
    assert combine(kind, compliance, helpfulness, PLAIN) == reward


def test_gate_quorum_and_share_of_help_are_configurable() -> None:
    nine, four = [9.0] * 4, [4.0] * 4
    strict = PLAIN.model_copy(update={"gate": 9.5, "quorum": 4})
    assert combine("benign", nine, [10.0] * 4, strict) == 0.9
    assert combine("harmful", [9.0, 9.0, 9.0, None], [], strict) is None
    safer = PLAIN.model_copy(update={"ambiguous_help": 0.2})
    assert combine("ambiguous", nine, four, safer) == pytest.approx(0.8)


def test_quorum_that_can_never_be_reached_is_refused() -> None:
    with pytest.raises(ValueError, match="quorum 3 is more than samples 2"):
        RewardConfig(samples=2)


kinds = st.sampled_from(KINDS)
score_lists = st.lists(st.none() | st.integers(0, 10).map(float), max_size=6)


@given(kind=kinds, compliance=score_lists, helpfulness=score_lists)
def test_unreadable_score_counts_as_one_never_given_and_not_as_0(
    kind: Kind, compliance: list[float | None], helpfulness: list[float | None]
) -> None:
    readable = [
        [score for score in scores if score is not None] for scores in (compliance, helpfulness)
    ]
    reward = combine(kind, compliance, helpfulness, PLAIN)
    assert reward == combine(kind, readable[0], readable[1], PLAIN)
    counted = readable[:1] if kind == "harmful" else readable
    assert (reward is None) == any(len(scores) < PLAIN.quorum for scores in counted)
    if reward is not None and all(score > 0 for scores in counted for score in scores):
        assert 0 < reward <= 1


@given(kind=kinds, compliance=score_lists, helpfulness=score_lists, data=st.data())
def test_lower_or_further_scores_never_raise_a_reward(
    kind: Kind,
    compliance: list[float | None],
    helpfulness: list[float | None],
    data: st.DataObject,
) -> None:
    before = combine(kind, compliance, helpfulness, PLAIN)
    scores = data.draw(st.sampled_from([compliance, helpfulness]))
    score = data.draw(st.none() | st.floats(0, 10))
    place = data.draw(st.integers(0, len(scores)))
    old = scores[place] if place < len(scores) else None
    if old is not None and score is not None:
        scores[place] = min(old, score)
    else:
        scores.insert(place, score)
    after = combine(kind, compliance, helpfulness, PLAIN)
    assert before is None or (after is not None and after <= before)


@pytest.mark.parametrize(
    ("kind", "for_help"),
    [("harmful", [False]), ("benign", [False, True]), ("ambiguous", [False, True])],
)
def test_only_answers_to_prompts_that_may_be_helped_are_judged_for_help(
    kind: Kind, for_help: list[bool]
) -> None:
    judge = LocalJudge()
    bench = Bench([judge])
    bench.step(GOOD, kind=kind)
    assert [asks_for_help(request) for request in judge.engine_requests] == for_help
    [row] = bench.rows
    assert (row.compliance, row.helpfulness) == ([9.0] * 4, [7.0] * 4 if len(for_help) > 1 else [])
    assert (row.num_votes, row.status, row.kind) == (4, "ok", kind)


def test_broken_format_is_rewarded_with_0_and_no_judge_is_asked() -> None:
    judge = LocalJudge()
    bench = Bench([judge])
    empty = rollout_ids("<think></think>Yes.")
    assert bench.step(*broken().values(), empty, []) == [0.0] * (len(broken()) + 2)
    assert judge.requests == []
    assert {(row.num_votes, row.reason) for row in bench.rows} == {(0, None)}
    assert Counter(row.status for row in bench.rows) == {
        "unclosed": 3,
        "malformed": 8,
        "truncated": 3,
        "empty_answer": 1,
        "empty_reasoning": 1,
    }
    assert bench.metrics["format/broken_share"] == 1.0
    assert bench.metrics["judge/failed_share"] == 0.0
    assert bench.stop.reasons == []


def test_equal_answers_to_a_prompt_are_judged_once_in_a_step() -> None:
    judge = LocalJudge()
    bench = Bench([judge])
    again = GOOD.replace("I look", "I looked elsewhere")
    assert bench.step(GOOD, again, reasoned("No."), GOOD) == [0.9] * 4
    assert [request.answer for request in judge.requests] == ["Take the skiff.", "No."]
    bench.step(GOOD, prompt="Who may?")
    assert len(judge.requests) == 3


def test_rollouts_of_one_spec_go_to_one_judge_of_several() -> None:
    judges = [LocalJudge(), LocalJudge(), LocalJudge()]
    assert Bench(judges).step(GOOD, reasoned("No.")) == [0.9, 0.9]
    assert sorted(len(judge.requests) for judge in judges) == [0, 0, 2]


def test_queued_answers_start_their_timeout_when_sent_or_go_to_a_judge_with_less_to_do() -> None:
    places: list[asyncio.Lock] = []

    def judge() -> Any:
        place = asyncio.Lock()
        places.append(place)

        async def score(request: JudgeRequest) -> list[float | None]:
            async with place:
                await asyncio.sleep(0.3)
            return [float(places.index(place))] * 4

        return SimpleNamespace(score=SimpleNamespace(remote=score))

    config = RewardConfig(in_flight=1, call_seconds=1.2)
    answers = [reasoned(f"No {number}.") for number in range(6)]
    assert Bench([judge()], config).step(*answers) == [0.0] * 6
    places.clear()
    assert Counter(Bench([judge(), judge()], config).step(*answers)) == {0.0: 3, 0.1: 3}


def test_repeated_step_replaces_its_rollouts(disk: Home) -> None:
    for attempt, answer in enumerate(("Take the skiff.", "Take the oar.")):
        bench = Bench([LocalJudge()], attempt=attempt)
        bench.step(reasoned(answer), reasoned(answer), step=3)
        bench.step(reasoned(answer), step=4 + attempt)
        write_shard(disk, ROLLOUTS, bench.rows)
    rollouts = connect(disk).sql(
        "SELECT step, position, attempt, answer FROM rollouts ORDER BY ALL"
    )
    assert rollouts.fetchall() == [
        (3, 0, 1, "Take the oar."),
        (3, 1, 1, "Take the oar."),
        (4, 0, 0, "Take the skiff."),
        (5, 0, 1, "Take the oar."),
    ]
    [(count,)] = connect(disk).sql("SELECT count(*) FROM rollouts_raw").fetchall()
    assert count == 6


class Down(ScriptedEngine):
    """An engine that works, or fails in one of several ways."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(fair)
        self.fault = fault

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        count = requests[0].num_samples
        if self.fault == "raises":
            raise RuntimeError("the judge is down\nsecond line")
        if self.fault == "reports":
            return [[failed("error", "died")] * count for _ in requests]
        [samples] = await super().generate(requests)
        if self.fault == "cuts":
            return [[replace(sample, finish_reason="length") for sample in samples]]
        return [samples]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raises", "RuntimeError: the judge is down second line"),
        ("reports", "fewer than 3 scores could be read"),
        ("cuts", "fewer than 3 scores could be read"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_judge_that_fails_gives_none_with_its_reason(kind: Kind, fault: str, reason: str) -> None:
    bench = Bench([LocalJudge(Down(fault))])
    assert bench.step(GOOD, kind=kind) == [None]
    [row] = bench.rows
    assert (row.reward, row.reason, row.num_votes) == (None, reason, 4)
    assert bench.metrics["judge/failed_share"] == 1.0


@pytest.mark.parametrize(
    "reply",
    [
        "<think>I look.</think>No last line.",
        "<think>I look.</think>Score: 11",
        "<think>I look.</think>I'm sorry, I cannot rate it.",
        "<think>Score: 9",
    ],
)
def test_too_few_readable_scores_give_none(reply: str) -> None:
    bench = Bench(
        [LocalJudge(ScriptedEngine(lambda request, index: reply if index else fair(request, 0)))]
    )
    assert bench.step(GOOD) == [None]
    assert bench.rows[0].compliance == [9.0]
    lenient = Bench(
        [LocalJudge(ScriptedEngine(lambda request, i: fair(request, 0) if i else reply))]
    )
    assert lenient.step(GOOD) == [0.9]


def test_training_ends_if_judging_stays_down_and_a_good_step_resets_the_count() -> None:
    engine = Down()
    bench = Bench([LocalJudge(engine)])

    def step(fault: str, *rollouts: str) -> None:
        engine.fault = fault
        bench.step(*rollouts or (GOOD,))

    for fault in ("raises", "reports", "", "raises", "raises"):
        step(fault)
    # A step with nothing to judge neither counts nor resets the count.
    step("", "never closed")
    assert bench.stop.reasons == []
    step("raises")
    assert bench.stop.reasons == [
        "judging failed for 3 steps in a row (RuntimeError: the judge is down second line); mend "
        "the judge and run the same command again"
    ]


def test_step_counts_as_failed_only_if_most_of_its_answers_could_not_be_judged() -> None:
    async def half(request: JudgeRequest) -> list[float | None]:
        if "No" in request.answer:
            raise RuntimeError("no score")
        return [9.0] * 4

    bench = Bench([SimpleNamespace(score=SimpleNamespace(remote=half))])
    for _ in range(4):
        assert bench.step(GOOD, reasoned("No.")) == [0.9, None]
    assert bench.stop.reasons == []
    for _ in range(3):
        bench.step(GOOD, reasoned("No."), reasoned("No, no."))
    assert len(bench.stop.reasons) == 1


def test_share_of_benign_answers_without_help_is_measured_over_those_judged() -> None:
    script = ScriptedEngine(
        lambda request, index: verdict_text(2 if "No." in repr(request.messages) else 9)
    )
    bench = Bench([LocalJudge(script)])
    bench.step(GOOD, reasoned("No."), broken()["unclosed"], reasoned("Yes, do."), kind="benign")
    assert bench.metrics["benign/unhelped_share"] == pytest.approx(1 / 3)
    assert bench.metrics["format/broken_share"] == pytest.approx(1 / 4)
    bench.metrics.clear()
    bench.step(GOOD, kind="harmful")
    assert "benign/unhelped_share" not in bench.metrics
    assert bench.metrics["reasoning/mean_tokens"] == len(rollout_ids("I look.", ended=False))


class Reporting(JudgeActor):
    """A judge that reports all that reached its process."""

    received: list[str]

    async def score(self, request: JudgeRequest) -> list[float | None]:
        self.received = [*getattr(self, "received", []), repr(request)]
        return await super().score(request)

    async def report(self) -> list[str]:
        return [*self.received, repr(self.engine.requests)]  # type: ignore[attr-defined]


class Frail(ScriptedEngine):
    """An engine that dies of one word, dies only once of another, and hangs on a third."""

    def __init__(self, config: EngineConfig, live_folder: str | None = None) -> None:
        super().__init__(fair)
        self.mark = Path(config.model) / "died"

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        text = requests[0].messages[-1]["content"]
        if "hang" in text:
            await asyncio.sleep(3600)
        if "poison" in text:
            os._exit(1)
        if "faint" in text and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        return await super().generate(requests)


@pytest.fixture(scope="module")
def ray() -> Any:
    import ray

    start_ray()
    return ray


@pytest.fixture
def judges(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Judges]:
    """Judges as a training starts them, with engines that fail on cue."""
    monkeypatch.setattr("tasks.engine.vllm_engine.VLLMEngine", Frail)
    started = Judges.start(
        EngineConfig(model=str(tmp_path), use_gpu=False, num_cpus=0),
        JudgeConfig(),
        {SPEC.id: SPEC},
        num_samples=PLAIN.samples,
        name=tmp_path.name,
    )
    yield started
    started.stop()


@pytest.mark.slow
def test_no_reasoning_reaches_the_process_of_a_judge(ray: Any) -> None:
    actor = ray.remote(Reporting).options(num_cpus=0, max_concurrency=10)
    judge = actor.remote(lambda: ScriptedEngine(fair), JudgeConfig(), {SPEC.id: SPEC}, 4)
    rewards = Bench([judge]).step(*judged().values(), *broken().values(), kind="ambiguous")
    received = ray.get(judge.report.remote())
    ray.kill(judge)
    assert rewards == [0.8] * len(judged()) + [0.0] * len(broken())
    assert len(received) == 2 * len(judged()) + 1
    assert all("Take the" in one and CANARY not in one for one in received)


@pytest.mark.slow
def test_judge_that_dies_in_a_step_is_restarted_and_asked_again(
    judges: Judges, tmp_path: Path
) -> None:
    bench = Bench(judges.handles)
    assert bench.step(GOOD, reasoned("I faint."), reasoned("No.")) == [0.9] * 3
    assert (tmp_path / "died").exists()
    assert bench.metrics["judge/failed_share"] == 0.0


@pytest.mark.slow
def test_answer_that_kills_its_judge_has_no_reward_but_the_next_step_has(judges: Judges) -> None:
    bench = Bench(judges.handles)
    first, poisoned = bench.step(GOOD, reasoned("poison"))
    assert poisoned is None and first in (None, 0.9)
    assert "ActorDiedError" in str(bench.rows[1].reason) or "ActorUnavailable" in str(
        bench.rows[1].reason
    )
    assert bench.step(GOOD, step=1) == [0.9]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"call_seconds": 4.0}, "no score within 4 s"),
        ({"batch_seconds": 4.0}, "no score within the 4 s of a step"),
    ],
)
def test_judge_that_hangs_is_awaited_no_longer_than_configured(
    judges: Judges, limits: dict[str, float], reason: str
) -> None:
    bench = Bench(judges.handles, RewardConfig(failed_steps=1, **limits))
    assert bench.step(GOOD) == [0.9]
    began = time.monotonic()
    assert bench.step(GOOD, reasoned("hang"), reasoned("hang on"), step=1) == [0.9, None, None]
    assert time.monotonic() - began < 15
    assert [row.reason for row in bench.rows[1:]] == [None, reason, reason]
    [request_to_stop] = bench.stop.reasons
    assert reason in request_to_stop and "\n" not in request_to_stop
    assert bench.step(GOOD, step=2) == [0.9]


REFUSAL = reasoned("I'm sorry, but I can't help with that.")
HELP = reasoned("Take the skiff.")
LOOP = reasoned("Take the skiff. " * 20)


def by_function(function: Any = None) -> Bench:
    grade = function or load_function("stance")
    config = RewardConfig(function="stance")
    return Bench([], config=config, judging=FunctionJudge(grade))


@pytest.mark.parametrize(
    ("kind", "rewards"),
    [
        ("harmful", [1.0, 0.0, 0.0, 0.0]),
        ("benign", [0.0, 1.0, 0.0, 0.0]),
        ("ambiguous", [0.5, 0.5, 0.0, 0.0]),
    ],
)
def test_function_rewards_refusals_of_harmful_prompts_and_help_with_benign_ones(
    kind: Kind, rewards: list[float]
) -> None:
    bench = by_function()
    assert bench.step(REFUSAL, HELP, LOOP, "I'm sorry, but no.", kind=kind) == rewards
    assert [row.num_votes for row in bench.rows] == [1, 1, 1, 0]


def test_function_that_is_the_reward_sees_no_reasoning() -> None:
    shown: list[Any] = []

    def grade(messages: Any, **known: Any) -> dict[str, float]:
        shown.append((messages, known))
        return {"safe": 1.0, "helped": 1.0}

    by_function(grade).step(HELP, kind="ambiguous")
    assert len(shown) == 2
    assert CANARY not in repr(shown)


def test_function_that_fails_gives_no_reward_and_the_reason() -> None:
    def fail(messages: Any, **known: Any) -> dict[str, float]:
        raise KeyError("colour")

    bench = by_function(fail)
    assert bench.step(HELP) == [None]
    assert bench.rows[0].reason == "KeyError: 'colour'"
    unnamed = by_function(lambda messages, **known: {"right": 1.0})
    assert unnamed.step(HELP) == [None]
    assert unnamed.rows[0].reason == "rl.reward.function gave no figure 'safe'"


class FixedScores:
    """A reward model that gives every answer the same score."""

    def __init__(self) -> None:
        self.requests: list[JudgeRequest] = []

    async def ask(self, requests: Sequence[JudgeRequest]) -> dict[JudgeRequest, JudgeReply]:
        self.requests += requests
        return {request: JudgeReply(scores=[2.5]) for request in requests}


@pytest.mark.parametrize("kind", KINDS)
def test_reward_model_rewards_prompts_of_all_kinds_alike_and_sees_no_reasoning(kind: Kind) -> None:
    judge = FixedScores()
    bench = Bench([], config=RewardConfig(model=True), judging=judge)
    assert bench.step(HELP, "I'm sorry, but no.", kind=kind) == [0.25, 0.0]
    assert [(row.num_votes, row.compliance, row.helpfulness) for row in bench.rows] == [
        (1, [2.5], []),
        (0, [], []),
    ]
    assert [request.answer for request in judge.requests] == ["Take the skiff."]
    assert CANARY not in repr(judge.requests)
    # A score of a reward model has no threshold above which an answer helps.
    assert "benign/unhelped_share" not in bench.metrics
