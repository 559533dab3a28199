"""answer → critique → revision: a model improves its own answer before the answer counts.

The steps are fixed. An arm that refines needs no training (Madaan et al., Self-Refine, arXiv
2303.17651); training on revisions made under randomly drawn rules is Constitutional AI (Bai et al.,
arXiv 2212.08073).
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
from tasks.engine.requests import WITHHELD, Engine, Request, Sample, Sampling


class RefineConfig(Config):
    """Critique and revision of each answer by the model that gave it."""

    rounds: int = Field(1, gt=0)
    """Rounds of critique and revision per answer."""
    rules: Literal["none", "category", "drawn"] = "none"
    """Policies that a critique is shown: `none`, the prompt's `category` in full, or one rule of
    it, `drawn` at random for each critique."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Answers to one conversation."""

    key: str
    """Identifies the conversation; with the index of an answer it seeds the choice of a drawn
    rule."""
    messages: Sequence[Message]
    spec: Spec
    """The policies of the conversation."""
    indices: Sequence[int]
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class _Draft:
    """One answer, or what it has become so far."""

    of: Drafts
    key: str
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
        """Rounds, rules and template ids, as they are hashed into ids."""
        parts = (self.config.rounds, self.config.rules, self.critique.id, self.revision.id)
        return " ".join(map(str, parts))

    async def refined(self, conversations: Sequence[Drafts], engine: Engine) -> list[list[Sample]]:
        """Returns the last revision of each draft, by conversation.

        The tokens of a sample are those of all that led to it; the counts of its reply are its own.
        A draft that cannot be read stays as it is; one whose critique or revision cannot be read,
        or was not asked for, gives a sample that says so.
        """
        current = [
            _Draft(drafts, f"{drafts.key} {index}", sample)
            for drafts in conversations
            for index, sample in zip(drafts.indices, drafts.samples, strict=True)
        ]
        for number in range(1, self.config.rounds + 1):
            places = [place for place, draft in enumerate(current) if _is_answer(draft.sample)]
            requests = [self._criticise(current[place], number) for place in places]
            critiques = await _one_each(engine, requests)
            criticised = []
            for place, critique in zip(places, critiques, strict=True):
                sample = _after(current[place].sample, critique, f"critique {number}")
                if _is_answer(critique):
                    criticised.append((place, sample))
                else:
                    current[place] = replace(current[place], sample=sample)
            requests = [self._revise(current[place], critique) for place, critique in criticised]
            revisions = await _one_each(engine, requests)
            for (place, critique), revision in zip(criticised, revisions, strict=True):
                sample = _after(critique, revision, f"revision {number}")
                current[place] = replace(current[place], sample=sample)
        refined = iter(draft.sample for draft in current)
        return [list(itertools.islice(refined, len(drafts.samples))) for drafts in conversations]

    def _criticise(self, draft: _Draft, number: int) -> Request:
        messages = critique_messages(
            self.critique,
            draft.of.messages,
            answer=draft.sample.reply.answer,
            rules=self.rules_shown(draft.of.spec, key=f"{draft.key} {number}"),
        )
        return Request(messages=messages, num_samples=1, sampling=self.sampling)

    def rules_shown(self, spec: Spec, *, key: str) -> str:
        """Returns what a critique is shown of a spec; a rule is drawn by the key."""
        if self.config.rules == "category":
            return spec.text
        if self.config.rules == "none" or not spec.rule_ids:
            return ""
        return self.rules[random.Random(key).choice(spec.rule_ids)].render()

    def _revise(self, draft: _Draft, critique: Sample) -> Request:
        messages = revision_messages(
            self.revision,
            draft.of.messages,
            answer=draft.sample.reply.answer,
            critique=critique.reply.answer,
        )
        return Request(messages=messages, num_samples=1, sampling=self.sampling)


def _is_answer(sample: Sample) -> bool:
    """Returns True if a sample has a whole answer, with reasoning before it or without."""
    return sample.is_whole and sample.reply.has_answer


async def _one_each(engine: Engine, requests: Sequence[Request]) -> list[Sample]:
    """Returns the one sample of each request."""
    return [sample for [sample] in await engine.generate(requests)] if requests else []


def _after(before: Sample, sample: Sample, step: str) -> Sample:
    """Returns a sample with the tokens of the one before it added; `step` names one that cannot be
    read."""
    reason = sample.reason
    if not _is_answer(sample) and sample.fault not in WITHHELD:
        reason = f"{step}: {sample.reason or sample.status}"
    return replace(
        sample,
        reason=reason,
        num_prompt_tokens=_sum(before.num_prompt_tokens, sample.num_prompt_tokens),
        num_cached_tokens=_sum(before.num_cached_tokens, sample.num_cached_tokens),
        num_output_tokens=_sum(before.num_output_tokens, sample.num_output_tokens),
    )


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right
