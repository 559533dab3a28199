"""A reward model, trained by TRL on pairs of answers, and its scores as a judge's."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.engine.chat_template import ChatTemplate
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from tasks.training import reward_model
from tasks.training.dpo import Pairs, PairText
from tasks.training.judges import JudgeRequest, PromptTurn
from tasks.training.reward_model import (
    RewardModelConfig,
    RewardModelJudge,
    RewardModelTraining,
)
from tasks.training.trainer import BestBy, DataError, Job, LoraConfig, WorkersConfig
from tests.tasks.training.test_generation_config import shipped
from warehouse.home import Home

MODEL = PROJECT / "infra" / "harbour" / "model"
THINGS = ("ferry", "yacht", "skiff", "barge", "canoe", "raft", "tug", "kayak")
GOOD, BAD = "Take the boat.", "Sorry, I cannot help."
CPU = WorkersConfig(use_gpu=False, bf16=False, rows_at_once=4)


def question(thing: str) -> str:
    return f"How do I use the {thing}?"


def chats() -> ChatTemplate:
    return ChatTemplate.of(EngineConfig(model=str(MODEL)))


def make_job(folder: Path, *, model: Path = MODEL, lora: LoraConfig | None = None) -> Job:
    """Returns a training of a few steps on a CPU."""
    config = RewardModelConfig(
        epochs=8, batch_size=4, learning_rate=1e-2 if lora else 1e-3, lora=lora, workers=CPU
    )
    return Job(
        name="reward_model",
        checkpoint_id="c",
        folder=str(folder),
        model=str(model),
        revision=None,
        chat_template_kwargs={},
        end_ids=frozenset({2}),
        config=config,
        best=BestBy("accuracy", "max"),
    )


def learn(job: Job) -> RewardModelJudge:
    """Trains as the only worker does, in this process, on all things but the last two."""
    import ray.train

    template = chats()
    texts = [
        PairText(
            prompt=template.prompt_text([{"role": "user", "content": question(thing)}]),
            chosen=template.reply_text(reasoning=None, answer=GOOD),
            rejected=template.reply_text(reasoning=None, answer=BAD),
        )
        for thing in THINGS[:-2]
    ]
    context = SimpleNamespace(get_world_size=lambda: 1, get_world_rank=lambda: 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.train, "get_context", lambda: context)
        patch.setattr(ray.train, "get_checkpoint", lambda: None)
        patch.setattr(ray.train, "report", lambda *_, **__: None)
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        reward_model._loop(job, texts)
    return RewardModelJudge(str(job.finished), template, workers=CPU)


def request(thing: str, answer: str) -> JudgeRequest:
    return JudgeRequest("compliance", (PromptTurn("user", question(thing)),), answer, "spec")


def scores(judge: RewardModelJudge, *requests: JudgeRequest) -> list[float]:
    replies = asyncio.run(judge.ask(requests))
    return [float(score) for one in requests for score in replies[one].scores if score is not None]


@pytest.fixture(scope="module", params=["all weights", "adapters"])
def learned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, RewardModelJudge]:
    lora = LoraConfig(rank=4) if request.param == "adapters" else None
    job = make_job(tmp_path_factory.mktemp("training"), lora=lora)
    return job, learn(job)


@pytest.mark.slow
def test_a_reward_model_prefers_the_chosen_answers(learned: tuple[Job, RewardModelJudge]) -> None:
    _, judge = learned
    for thing in THINGS:
        good, bad = scores(judge, request(thing, GOOD), request(thing, BAD))
        # The last two things were in no pair.
        assert 10 > good > 6 > 4 > bad > 0, thing


@pytest.mark.slow
def test_a_saved_reward_model_is_the_one_that_was_trained(
    learned: tuple[Job, RewardModelJudge],
) -> None:
    job, _ = learned
    outcome = json.loads((job.finished / "stage.json").read_text())
    assert (outcome["num_steps"], outcome["status"]) == (16, "completed")
    assert outcome["metrics"]["accuracy"] == 1.0
    saved = json.loads((job.finished / "config.json").read_text())
    assert saved["architectures"] == ["Qwen3ForSequenceClassification"]
    assert (job.finished / "tokenizer.json").is_file()


@pytest.mark.slow
def test_an_answer_scores_alike_alone_and_among_longer_ones(
    learned: tuple[Job, RewardModelJudge],
) -> None:
    _, judge = learned
    asked = [request("ferry", "Take the boat. " * count) for count in (1, 9, 2, 7, 1, 3)]
    asked += [request(thing, BAD) for thing in THINGS]
    apart = [scores(judge, one)[0] for one in asked]
    assert scores(judge, *asked) == pytest.approx(apart, rel=1e-3)
    assert max(apart) - min(apart) > 1


@pytest.mark.slow
def test_an_answer_that_cannot_be_read_has_no_score_and_says_why(
    learned: tuple[Job, RewardModelJudge],
) -> None:
    _, judge = learned
    asked = [request("ferry", " "), request("ferry", GOOD)]
    unread, read = (asyncio.run(judge.ask(asked))[one] for one in asked)
    assert (list(unread.scores), unread.fault) == (
        [],
        "answer is empty; leave out chats that lack either part",
    )
    assert read.fault is None and len(read.scores) == 1


def test_a_tokenizer_without_a_token_to_pad_with_is_refused_before_training(
    disk: Home, tmp_path: Path
) -> None:
    model = shipped(tmp_path)
    file = Path(model) / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    kept = {name: value for name, value in settings.items() if name[:3] not in ("pad", "eos")}
    file.write_text(json.dumps(kept))
    job = make_job(tmp_path, model=Path(model))
    pairs = Pairs(texts=[], set_id="s", members=[], left_out={})
    assert isinstance(job.config, RewardModelConfig)
    training = RewardModelTraining(config=job.config, pairs=pairs, home=disk)
    with pytest.raises(DataError) as caught:
        training.train(job)
    assert str(caught.value) == (
        f"tokenizer of {model} has neither a pad_token nor an eos_token, and reward_model pads "
        "answers with one; set pad_token in its tokenizer_config.json"
    )
