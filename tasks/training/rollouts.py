"""Token ids of rollouts → reasoning and answer, by the rule that splits all replies.

The ids decide, not decoded text: a tag may be a special token, which a decoder leaves out, and the
reasoning would pass for an answer.
"""

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from specs.replies import CLOSE_TAG, OPEN_TAG, Reply, find_closing, split_tokens

RewardOn = Literal["all", "answer"]
"""Tokens that a reward moves: all that the model wrote, or those after its reasoning."""


@dataclass(frozen=True, slots=True)
class RolloutReply:
    """The reasoning and the answer of a rollout."""

    reply: Reply
    is_whole: bool
    """True if the model ended it; false if it was cut."""

    @property
    def status(self) -> str:
        return self.reply.status.value if self.is_whole else "truncated"


def split_rollout(
    tokenizer: Any, prefilled: bool, end_ids: Set[int], ids: Sequence[int]
) -> RolloutReply:
    """Splits a rollout; `prefilled` if its prompt ended on the opening tag."""
    is_whole = bool(ids) and ids[-1] in end_ids
    encode = partial(tokenizer.encode, add_special_tokens=False)
    reply = split_tokens(
        list(ids[:-1] if is_whole else ids),
        open_ids=encode(OPEN_TAG),
        close_ids=encode(CLOSE_TAG),
        decode=partial(tokenizer.decode, skip_special_tokens=False),
        prefilled=prefilled,
    )
    return RolloutReply(reply, is_whole)


def turns_key(turns: Sequence[Mapping[str, Any]]) -> str:
    """Returns the roles and texts of a prompt as one text, by which its start is found."""
    return json.dumps([[turn["role"], turn["content"]] for turn in turns])


def roll_out(
    tokenizer: Any,
    starts: Mapping[str, Sequence[int]],
    reward_on: RewardOn,
    prompts: list[Any],
    trainer: Any,
) -> dict[str, Any]:
    """Returns rollouts of which the reward moves only what the model wrote, or only its answer.

    `starts` holds the token ids that the rollouts of some prompts begin with, by `turns_key`.
    `prompts` holds each prompt once for every sample of it. The two methods of TRL's trainer are
    private; a test holds them at the locked version.
    """
    prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
    begun = [list(starts.get(turns_key(prompt), ())) for prompt in prompts]
    written, logprobs = trainer._generate_single_turn(
        [[*ids, *start] for ids, start in zip(prompt_ids, begun, strict=True)],
        images,
        fields,
        trainer.num_generations,
    )
    completion_ids = [[*start, *ids] for start, ids in zip(begun, written, strict=True)]
    if logprobs is not None:
        # Masked tokens have no part in a ratio of probabilities, but a place.
        pairs = zip(begun, logprobs, strict=True)
        logprobs = [[*[0.0] * len(start), *values] for start, values in pairs]
    if reward_on == "answer":
        decode = partial(tokenizer.decode, skip_special_tokens=False)
        close_ids = tokenizer.encode(CLOSE_TAG, add_special_tokens=False)
        mask = [answer_mask(ids, close_ids, decode) for ids in completion_ids]
    else:
        pairs = zip(begun, written, strict=True)
        mask = [[0] * len(start) + [1] * len(ids) for start, ids in pairs]
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": logprobs,
        "env_mask": mask,
    }


def answer_mask(
    ids: Sequence[int], close_ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> list[int]:
    """Returns 1 for each token after the first closing tag and 0 for the others."""
    closing = find_closing(list(ids), 0, close_ids, decode)
    return [0] * closing.stop + [1] * (len(ids) - closing.stop)
