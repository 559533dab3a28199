"""Token ids of rollouts → reasoning and answer, by the rule that splits all replies.

The ids decide, not decoded text: a tag may be a special token, which a decoder leaves out, and the
reasoning would pass for an answer.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from specs.replies import CLOSE_TAG, OPEN_TAG, Reply, find_closing, split_tokens


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


def roll_out(tokenizer: Any, prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Returns rollouts of which the reward moves only the tokens after the reasoning.

    `prompts` holds each prompt once for every sample of it. The two methods of TRL's trainer are
    private; a test holds them at the locked version.
    """
    prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
    completion_ids, logprobs = trainer._generate_single_turn(
        prompt_ids, images, fields, trainer.num_generations
    )
    decode = partial(tokenizer.decode, skip_special_tokens=False)
    close_ids = tokenizer.encode(CLOSE_TAG, add_special_tokens=False)
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": logprobs,
        "env_mask": [answer_mask(ids, close_ids, decode) for ids in completion_ids],
    }


def answer_mask(
    ids: Sequence[int], close_ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> list[int]:
    """Returns 1 for each token after the first closing tag and 0 for the others."""
    closing = find_closing(list(ids), 0, close_ids, decode)
    return [0] * closing.stop + [1] * (len(ids) - closing.stop)
