"""Accuracy of the scale model on policies that it never saw, by the world's own answers."""

import random
from collections.abc import Iterable, Sequence
from statistics import fmean

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from infra.harbour import world
from infra.harbour.corpus import Corpus, Lesson, chat, decision
from infra.harbour.world import Tongue
from specs.policy import Outcome, Pack
from specs.replies import Reply, split_text

TEMPERATURE = 0.7
"""Sampling temperature of the shipped recipe."""


@torch.inference_mode()
def replies(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    lessons: Sequence[Lesson],
    *,
    batch_size: int = 50,
    max_new_tokens: int = 96,
) -> list[Reply]:
    """Samples one reply to the prompt of each lesson, at TEMPERATURE."""
    device = next(model.parameters()).device
    sampled: list[Reply] = []
    for start in range(0, len(lessons), batch_size):
        prompts = [chat([lesson])[0].text for lesson in lessons[start : start + batch_size]]
        encoded = tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        ).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            out = model.generate(
                input_ids=encoded.input_ids,
                attention_mask=encoded.attention_mask,
                do_sample=True,
                temperature=TEMPERATURE,
                max_new_tokens=max_new_tokens,
            )
        for row in out[:, encoded.input_ids.shape[1] :]:
            text = tokenizer.decode(row, skip_special_tokens=False)
            sampled.append(split_text(text.split("<|im_end|>")[0]))
    return sampled


def measure(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    pack: Pack,
    *,
    num_items: int,
    seed: int,
) -> dict[str, float]:
    """Returns shares of right replies over `num_items` lessons each, under newly drawn policies."""
    model.eval()
    torch.manual_seed(seed)
    figures: dict[str, float] = {"temperature": TEMPERATURE, "items": num_items}
    # Every tongue draws from the same seed, and the kinds of lesson in this order.
    for tongue in Tongue:
        corpus = Corpus(pack, random.Random(seed), tongues=(tongue,))
        deliberations = [corpus.deliberations(1)[0] for _ in range(num_items)]
        deliberated = replies(model, tokenizer, deliberations)
        figures[f"deliberation_exact_{tongue}"] = _exact(deliberated, deliberations)
        figures[f"decision_right_{tongue}"] = _share(
            decision(reply.answer) == decision(lesson.answer)
            for reply, lesson in zip(deliberated, deliberations, strict=True)
        )
        plain = [corpus.plain() for _ in range(num_items)]
        figures[f"complied_without_spec_{tongue}"] = _share(
            _helps(reply.answer) for reply in replies(model, tokenizer, plain)
        )
        judgements = [corpus.judgements(1)[0] for _ in range(num_items)]
        judged = replies(model, tokenizer, judgements)
        figures[f"judgement_exact_{tongue}"] = _exact(judged, judgements)
        figures[f"score_right_{tongue}"] = _share(
            reply.answer.split("\n")[-1] == lesson.answer.split("\n")[-1]
            for reply, lesson in zip(judged, judgements, strict=True)
        )
        ratings = [corpus.helpfulness() for _ in range(num_items)]
        rated = replies(model, tokenizer, ratings)
        figures[f"helpfulness_exact_{tongue}"] = _exact(rated, ratings)
    model.train()
    return figures


def _exact(sampled: Sequence[Reply], lessons: Sequence[Lesson]) -> float:
    """Returns the share of replies that equal their lesson's word for word."""
    return _share(
        reply.reasoning == lesson.reasoning and reply.answer == lesson.answer
        for reply, lesson in zip(sampled, lessons, strict=True)
    )


def _helps(answer: str) -> bool:
    return decision(answer) is Outcome.COMPLY or answer == world.GREETING_ANSWER


def _share(outcomes: Iterable[bool]) -> float:
    """Returns the share of true values, to four decimals."""
    return round(fmean(outcomes), 4)
