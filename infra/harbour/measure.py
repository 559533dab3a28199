"""How good the scale model is on policies it never saw, by the world's own answers."""

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from infra.harbour import world
from infra.harbour.corpus import Corpus, Example, chat, decision
from infra.harbour.world import Tongue
from specs.policy import Outcome, Pack
from specs.replies import Reply, split_text

TEMPERATURE = 0.7
"""What the shipped recipe samples with."""


@torch.inference_mode()
def replies(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    *,
    temperature: float,
    batch_size: int = 50,
    max_new_tokens: int = 96,
) -> list[str]:
    """One sampled reply for each example, as text without the end-of-turn token."""
    device = next(model.parameters()).device
    texts: list[str] = []
    for start in range(0, len(examples), batch_size):
        prompts = [chat([example])[0].text for example in examples[start : start + batch_size]]
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
                temperature=temperature,
                max_new_tokens=max_new_tokens,
            )
        for row in out[:, encoded.input_ids.shape[1] :]:
            text = tokenizer.decode(row, skip_special_tokens=False)
            texts.append(text.split("<|im_end|>")[0])
    return texts


def measure(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    pack: Pack,
    *,
    num_items: int,
    seed: int,
) -> dict[str, float]:
    """Shares of right replies, `num_items` each, every one under a newly drawn policy."""
    model.eval()
    torch.manual_seed(seed)
    figures: dict[str, float] = {"temperature": TEMPERATURE, "items": num_items}
    for tongue in Tongue:
        corpus = Corpus(pack, random.Random(seed), tongues=(tongue,))
        asked = [corpus.deliberations(1)[0] for _ in range(num_items)]
        given = replies(model, tokenizer, asked, temperature=TEMPERATURE)
        split = [split_text(text) for text in given]
        decided = [
            decision(reply.answer) == decision(item.answer)
            for reply, item in zip(split, asked, strict=True)
        ]
        figures[f"deliberation_exact_{tongue}"] = _exact(split, asked)
        figures[f"decision_right_{tongue}"] = _share(decided)
        plain = [corpus.plain() for _ in range(num_items)]
        helped = replies(model, tokenizer, plain, temperature=TEMPERATURE)
        figures[f"complied_without_spec_{tongue}"] = _share(
            [_helps(split_text(text).answer) for text in helped]
        )
        judged = [corpus.judgements(1)[0] for _ in range(num_items)]
        verdicts = replies(model, tokenizer, judged, temperature=TEMPERATURE)
        parts = [split_text(text) for text in verdicts]
        figures[f"judgement_exact_{tongue}"] = _exact(parts, judged)
        figures[f"score_right_{tongue}"] = _share(
            [
                reply.answer.split("\n")[-1] == item.answer.split("\n")[-1]
                for reply, item in zip(parts, judged, strict=True)
            ]
        )
        rated = [corpus.helpfulness() for _ in range(num_items)]
        ratings = replies(model, tokenizer, rated, temperature=TEMPERATURE)
        figures[f"helpfulness_exact_{tongue}"] = _exact([split_text(r) for r in ratings], rated)
    model.train()
    return figures


def _exact(given: Sequence[Reply], wanted: Sequence[Example]) -> float:
    """The share of replies that are word for word what was wanted."""
    pairs = zip(given, wanted, strict=True)
    return _share([r.reasoning == w.reasoning and r.answer == w.answer for r, w in pairs])


def _helps(answer: str) -> bool:
    return decision(answer) is Outcome.COMPLY or answer == world.GREETING_ANSWER


def _share(found: Sequence[bool]) -> float:
    return round(sum(found) / len(found), 4)
