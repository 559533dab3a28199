"""checkpoints ← preference pairs: a reward model, which gives a prompt and its answer one score.

It learns, from the pairs that DPO takes, which of two answers the judge of the filter prefers, and
is then the reward of RL. It reads conversation and answer alone: the reasoning block before the
answer is empty, and no policy is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from specs.prompts import Message
from specs.replies import MAX_SCORE
from tasks.engine.chat_template import ChatError, ChatTemplate
from tasks.training.checkpoint import TrainingOutcome
from tasks.training.dpo import Pairs, PairText, learn_pairs
from tasks.training.judges import JudgeReply, JudgeRequest
from tasks.training.tokenise import LearnOn
from tasks.training.trainer import BestBy, DataError, Job, TrainingConfig, WorkersConfig
from tasks.training.worker import EarlyStop, run_trainer, set_up
from warehouse.home import Home

_BEST = BestBy("accuracy", "max")


class RewardModelConfig(TrainingConfig):
    """Training of a reward model on the answers of preference pairs."""

    learn_on: ClassVar[LearnOn] = "answer"

    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs."""
    max_length: int = Field(8192, gt=0)
    """Longest prompt and answer together, in tokens; longer pairs are left out and counted."""
    min_margin: float = Field(2.0, gt=0)
    """Smallest difference between the lowest scores of the two, from 0 to 10."""
    centering: float = Field(0.01, ge=0)
    """Weight of the penalty that centres the scores on 0 (arXiv 2312.09244, equation 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelTraining:
    """A reward model on preference pairs."""

    config: RewardModelConfig
    pairs: Pairs
    home: Home
    name: str = "reward_model"
    best: BestBy = _BEST

    @property
    def fingerprint(self) -> str:
        return self.pairs.set_id

    @property
    def set_id(self) -> str:
        return self.pairs.set_id

    @property
    def num_gpus(self) -> float:
        return self.config.workers.num_gpus

    def train(self, job: Job) -> TrainingOutcome:
        """Stores the pairs as a set of examples and trains on them.

        Raises DataError if the model's tokenizer has no token to pad with.
        """
        tokenizer = job.load_tokenizer()
        if not (tokenizer.pad_token or tokenizer.eos_token):
            raise DataError(
                f"tokenizer of {job.model} has neither a pad_token nor an eos_token, and "
                "reward_model pads answers with one; set pad_token in its tokenizer_config.json"
            )
        return learn_pairs(_loop, job, self.pairs, self.home)


def _loop(job: Job, texts: Sequence[PairText]) -> None:
    """Trains in one worker."""
    set_up(job)
    import datasets
    from trl import RewardConfig as Arguments
    from trl import RewardTrainer

    config = job.config
    assert isinstance(config, RewardModelConfig)
    tokenizer = job.load_tokenizer()

    # TRL would put a start token before texts and an eos token after them; the judge reads neither.
    def encode(prompt: str, reply: str) -> list[int]:
        parts = tokenizer([prompt, reply], add_special_tokens=False).input_ids
        return [token for ids in parts for token in ids]

    rows = [
        {
            "chosen_ids": encode(text.prompt, text.chosen),
            "rejected_ids": encode(text.prompt, text.rejected),
        }
        for text in texts
    ]
    arguments = Arguments(
        **{
            **job.trl_arguments(),
            "num_train_epochs": config.epochs,
            "max_length": config.max_length,
            "center_rewards_coefficient": config.centering,
            "logging_steps": 1,
        }
    )
    trainer = RewardTrainer(
        model=job.model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=job.peft_config("SEQ_CLS"),
    )
    run_trainer(trainer, job, EarlyStop())


class RewardModelJudge:
    """A reward model as the judge of a training, in the process of a worker."""

    def __init__(self, folder: str, chats: ChatTemplate, *, workers: WorkersConfig) -> None:
        """Loads the model; `chats` is the template of the model that it was trained from."""
        import ray.train.torch
        import torch
        from transformers import AutoModelForSequenceClassification

        self._chats = chats
        self._rows_at_once = workers.rows_at_once
        self._device = ray.train.torch.get_device() if workers.use_gpu else torch.device("cpu")
        dtype = torch.bfloat16 if workers.computes_in_bf16() else torch.float32
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
        self._model = model.to(self._device).eval()

    async def ask(self, requests: Sequence[JudgeRequest]) -> dict[JudgeRequest, JudgeReply]:
        """Returns the score of each request, from 0 to 10: ten times the sigmoid of the model's.

        The model's own scores are unbounded. By the model of Bradley and Terry (1952,
        doi:10.2307/2334029) that it is fitted with, the sigmoid of a difference of two scores is
        the probability that the first answer is preferred; training centres the scores on 0, so
        that of a score alone is the probability that the answer is preferred to the mean answer.
        """
        replies: dict[JudgeRequest, JudgeReply] = {}
        encoded: dict[JudgeRequest, list[int]] = {}
        for request in requests:
            try:
                encoded[request] = self._encode(request)
            except ChatError as error:
                replies[request] = JudgeReply(fault=str(error))
        scores = self._score(list(encoded.values()))
        return replies | {
            request: JudgeReply(scores=[score * MAX_SCORE])
            for request, score in zip(encoded, scores, strict=True)
        }

    def _encode(self, request: JudgeRequest) -> list[int]:
        turns: list[Message] = [
            {"role": turn.role, "content": turn.content} for turn in request.prompt
        ]
        return self._chats.encode(turns, reasoning=None, answer=request.answer).input_ids

    def _score(self, rows: Sequence[list[int]]) -> list[float]:
        """Returns a score from 0 to 1 for each row of tokens."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        scores: list[float] = []
        padding = self._model.config.get_text_config().pad_token_id
        for start in range(0, len(rows), self._rows_at_once):
            batch = [torch.tensor(ids) for ids in rows[start : start + self._rows_at_once]]
            ids = pad_sequence(batch, batch_first=True, padding_value=padding)
            mask = pad_sequence([torch.ones_like(one) for one in batch], batch_first=True)
            with torch.inference_mode():
                outputs = self._model(ids.to(self._device), mask.to(self._device))
            scores += torch.sigmoid(outputs.logits[:, 0].float()).tolist()
        return scores
