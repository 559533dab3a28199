"""answer ← answer: a model that criticises its own answer and revises it, before it counts.

The reasoning has a fixed course: answer, critique, revision. An arm that is asked so needs no
training (Madaan et al., Self-Refine, arXiv 2303.17651); a model that is trained on such revisions,
each made under a rule that was drawn, learns in the manner of Constitutional AI (Bai et al., arXiv
2212.08073).
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from specs.policy import Rule, Spec
from specs.prompts import Message, critique_messages, revision_messages
from specs.template import Template, TemplateNames, load_template
from tasks import Config
from tasks.engine.requests import Engine, Request, Sample, Sampling, require_asked


class RefineConfig(Config):
    """Critique and revision of each answer by the model that gave it."""

    rounds: int = Field(1, gt=0)
    """Times that an answer is criticised and revised."""
    rules: Literal["none", "category", "drawn"] = "none"
    """Policies that a critique is shown: `none`, the prompt's `category` in full, or one rule of
    it, `drawn` anew for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An answer to a conversation."""

    key: str
    """What tells the answer from others: rules are drawn by it."""
    messages: Sequence[Message]
    spec: Spec
    """The policies of the conversation."""
    sample: Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiner:
    """Has a model criticise and revise its answers."""

    config: RefineConfig
    sampling: Sampling
    rules: Mapping[str, Rule]
    """The rules of the pack by their ids."""
    critique: Template
    revision: Template

    @classmethod
    def of(
        cls,
        config: RefineConfig,
        sampling: Sampling,
        *,
        rules: Mapping[str, Rule],
        templates: TemplateNames,
    ) -> "Refiner":
        """Returns a refiner with the templates of a set; raises TemplateError without them."""
        return cls(
            config=config,
            sampling=sampling,
            rules=rules,
            critique=load_template("critique", templates),
            revision=load_template("revision", templates),
        )

    @property
    def identity(self) -> str:
        """What tells refined answers from others: rounds, rules and templates."""
        parts = (self.config.rounds, self.config.rules, self.critique.id, self.revision.id)
        return " ".join(map(str, parts))

    async def refined(self, drafts: Sequence[Draft], engine: Engine) -> list[Sample]:
        """Returns the last revision of each draft, with the tokens of all that led to it.

        A draft that cannot be read stays as it is; one whose critique or revision cannot be read
        gives a sample that says so.
        """
        current = list(drafts)
        for number in range(1, self.config.rounds + 1):
            open_ones = [place for place, one in enumerate(current) if _is_answer(one.sample)]
            ask = [self._criticise(current[place], number) for place in open_ones]
            critiques = await _one_each(engine, ask)
            for place, critique in zip(open_ones, critiques, strict=True):
                if not _is_answer(critique):
                    spoiled = _after(current[place].sample, critique, f"critique {number}")
                    current[place] = replace(current[place], sample=spoiled)
            read = [
                (place, critique)
                for place, critique in zip(open_ones, critiques, strict=True)
                if _is_answer(critique)
            ]
            ask = [self._revise(current[place], critique) for place, critique in read]
            revisions = await _one_each(engine, ask)
            for (place, critique), revision in zip(read, revisions, strict=True):
                before = _after(current[place].sample, critique, "")
                step = "" if _is_answer(revision) else f"revision {number}"
                sample = _after(before, revision, step)
                current[place] = replace(current[place], sample=sample)
        return [one.sample for one in current]

    async def refined_like(
        self, outputs: Sequence[Sequence[Sample]], drafts: Sequence[Draft], engine: Engine
    ) -> list[list[Sample]]:
        """Returns the last revision of each draft, in groups as large as those of `outputs`."""
        refined = iter(await self.refined(drafts, engine))
        return [list(itertools.islice(refined, len(samples))) for samples in outputs]

    def _criticise(self, draft: Draft, number: int) -> Request:
        messages = critique_messages(
            self.critique,
            draft.messages,
            answer=draft.sample.reply.answer,
            rules=self.rules_shown(draft.spec, key=f"{draft.key} {number}"),
        )
        return Request(messages=messages, num_samples=1, sampling=self.sampling)

    def rules_shown(self, spec: Spec, *, key: str) -> str:
        """Returns what a critique is shown of a spec; a rule is drawn by the key."""
        if self.config.rules == "category":
            return spec.text
        if self.config.rules == "none" or not spec.rule_ids:
            return ""
        return self.rules[random.Random(key).choice(spec.rule_ids)].render()

    def _revise(self, draft: Draft, critique: Sample) -> Request:
        messages = revision_messages(
            self.revision,
            draft.messages,
            answer=draft.sample.reply.answer,
            critique=critique.reply.answer,
        )
        return Request(messages=messages, num_samples=1, sampling=self.sampling)


def _is_answer(sample: Sample) -> bool:
    """Returns True if a sample has a whole answer, with reasoning before it or without."""
    return sample.is_whole and sample.reply.has_answer


async def _one_each(engine: Engine, requests: Sequence[Request]) -> list[Sample]:
    samples = [one for [one] in await engine.generate(requests)] if requests else []
    require_asked(samples)
    return samples


def _after(before: Sample, sample: Sample, step: str) -> Sample:
    """Returns a sample with the tokens of the one before it counted as its reasoning.

    `step` names it if it could not be read.
    """
    reply = sample.reply
    written = before.num_output_tokens
    if written is not None:
        reply = replace(reply, num_reasoning_tokens=reply.num_reasoning_tokens + written)
    reason = f"{step}: {sample.reason or sample.status}" if step else sample.reason
    return replace(
        sample,
        reply=reply,
        reason=reason,
        num_prompt_tokens=_sum(before.num_prompt_tokens, sample.num_prompt_tokens),
        num_cached_tokens=_sum(before.num_cached_tokens, sample.num_cached_tokens),
        num_output_tokens=_sum(before.num_output_tokens, sample.num_output_tokens),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
