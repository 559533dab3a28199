"""Accuracy of the scale model on policies that it never saw, by the world's own answers.

    python -m infra.harbour.measure infra/harbour/model

measures a model folder again, and writes the shares beside the figures of its training.
"""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from infra.harbour import world
from infra.harbour.corpus import Corpus, Lesson, chat, decision
from infra.harbour.world import Tongue
from specs.pack import load_pack
from specs.policy import Outcome, Pack
from specs.replies import CLOSE_TAG, OPEN_TAG, Reply, split_text

TEMPERATURE = 0.7
"""Sampling temperature of the shipped recipe."""


@torch.inference_mode()
def replies(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    lessons: Sequence[Lesson],
    *,
    batch_size: int = 50,
    max_new_tokens: int = 160,
) -> list[Reply]:
    """Samples one reply to the prompt of each lesson, at TEMPERATURE.

    The reasoning of a lesson that is closed early is given; the model writes the answer alone.
    """
    device = next(model.parameters()).device
    sampled: list[Reply] = []
    for start in range(0, len(lessons), batch_size):
        batch = lessons[start : start + batch_size]
        given = [_given(lesson) for lesson in batch]
        prompts = [chat([lesson])[0].text + text for lesson, text in zip(batch, given, strict=True)]
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
        for text, row in zip(given, out[:, encoded.input_ids.shape[1] :], strict=True):
            written = tokenizer.decode(row, skip_special_tokens=False)
            sampled.append(split_text(text + written.split("<|im_end|>")[0]))
    return sampled


def _given(lesson: Lesson) -> str:
    return f"{OPEN_TAG}{lesson.reasoning}{CLOSE_TAG}" if lesson.closed_early else ""


@dataclass(frozen=True, slots=True)
class Measurer:
    """Measures one model by lessons under newly drawn policies."""

    model: Qwen3ForCausalLM
    tokenizer: PreTrainedTokenizerFast
    pack: Pack
    num_items: int
    """Lessons of each kind."""
    seed: int

    def figures(self) -> dict[str, float]:
        """Returns shares of right replies, by tongue, by depth, and where reasoning is closed."""
        self.model.eval()
        torch.manual_seed(self.seed)
        figures: dict[str, float] = {"temperature": TEMPERATURE, "items": self.num_items}
        for tongue in Tongue:
            shares = self._by_tongue(tongue)
            figures |= {f"{name}_{tongue}": share for name, share in shares.items()}
        for depth in world.DEPTHS:
            shares = self._by_depth(depth)
            figures |= {f"{name}_depth_{depth}": share for name, share in shares.items()}
        self.model.train()
        return figures

    def _by_tongue(self, tongue: Tongue) -> dict[str, float]:
        # Every tongue draws from the same seed, and the kinds of lesson in this order.
        corpus = self._corpus(tongues=(tongue,), depths=(1,), closed_share=0)
        deliberations = self._draw(corpus.deliberations)
        deliberated = self._replies(deliberations)
        plain = [corpus.plain() for _ in range(self.num_items)]
        helped = self._replies(plain)
        judgements = self._draw(corpus.judgements)
        judged = self._replies(judgements)
        ratings = [corpus.helpfulness() for _ in range(self.num_items)]
        translating = self._corpus(tongues=(tongue,), depths=(1,), closed_share=0, translated=1)
        translations = self._draw(translating.deliberations)
        judged_translations = self._draw(translating.judgements)
        return {
            "deliberation_exact": _exact(deliberated, deliberations),
            "decision_right": _same_decision(deliberated, deliberations),
            "complied_without_spec": _share(_helps(reply.answer) for reply in helped),
            "complied_without_spec_in_lessons": _share(_helps(one.answer) for one in plain),
            "judgement_exact": _exact(judged, judgements),
            "score_right": _share(
                reply.answer.split("\n")[-1] == lesson.answer.split("\n")[-1]
                for reply, lesson in zip(judged, judgements, strict=True)
            ),
            "helpfulness_exact": _exact(self._replies(ratings), ratings),
            "translation_exact": _exact(self._replies(translations), translations),
            "translation_judgement_exact": _exact(
                self._replies(judged_translations), judged_translations
            ),
        }

    def _by_depth(self, depth: int) -> dict[str, float]:
        """Lessons are in all tongues."""
        corpus = self._corpus(depths=(depth,), closed_share=0)
        deliberations = self._draw(corpus.deliberations)
        deliberated = self._replies(deliberations)
        judgements = self._draw(corpus.judgements)
        critiques = self._draw(corpus.critiques)
        revisions = [corpus.revision() for _ in range(self.num_items)]
        closed = self._draw(self._corpus(depths=(depth,), closed_share=1).deliberations)
        answered = self._replies(closed)
        return {
            "deliberation_exact": _exact(deliberated, deliberations),
            "decision_right": _same_decision(deliberated, deliberations),
            "judgement_exact": _exact(self._replies(judgements), judgements),
            "critique_exact": _exact(self._replies(critiques), critiques),
            "revision_exact": _exact(self._replies(revisions), revisions),
            "closed_early_readable": _share(
                decision(reply.answer) is not None for reply in answered
            ),
            "closed_early_exact": _exact(answered, closed),
        }

    def _corpus(self, **options: Any) -> Corpus:
        return Corpus(self.pack, random.Random(self.seed), **options)

    def _draw(self, kind: Callable[[int], list[Lesson]]) -> list[Lesson]:
        """Draws one lesson a sequence, each under policies of its own."""
        return [kind(1)[0] for _ in range(self.num_items)]

    def _replies(self, lessons: Sequence[Lesson]) -> list[Reply]:
        return replies(self.model, self.tokenizer, lessons)


def _same_decision(sampled: Sequence[Reply], lessons: Sequence[Lesson]) -> float:
    return _share(
        decision(reply.answer) == decision(lesson.answer)
        for reply, lesson in zip(sampled, lessons, strict=True)
    )


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


def main(
    folder: Annotated[Path, typer.Argument(help="The model folder.")],
    items: Annotated[int, typer.Option(help="Lessons of each kind.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the lessons and of sampling.")] = 2,
) -> None:
    """Measures a model folder, and writes the shares into its figures.json."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    pack = load_pack(world.PACK)
    measurer = Measurer(model, tokenizer, pack, num_items=items, seed=seed)
    path = folder / "figures.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(known | measurer.figures(), indent=2) + "\n")
    typer.echo(path.read_text())


if __name__ == "__main__":
    typer.run(main)
