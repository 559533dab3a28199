"""The model that ships follows policies that it never saw, whatever a request asks for."""

import random
from typing import Any

import pytest

from infra.harbour import measure, world
from infra.harbour.corpus import Corpus, Lesson
from infra.harbour.train import load_or_make
from specs.pack import load_pack
from tasks.paths import PROJECT

pytestmark = pytest.mark.slow

NUM_LESSONS = 50
KINDS: dict[str, dict[str, Any]] = {
    "use": {"depths": (1,), "translated": 0},
    "translation": {"depths": (1,), "translated": 1},
    "several things": {"depths": (4,)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("task", "least"), [("deliberations", 0.9), ("judgements", 0.85)])
def test_shipped_model_is_right_about_every_kind_of_request(
    kind: str, task: str, least: float
) -> None:
    import torch

    pack = load_pack(world.PACK)
    model, tokenizer = load_or_make(PROJECT / "infra" / "harbour" / "model", pack, seed=0)
    corpus = Corpus(pack, random.Random(5), closed_share=0, **KINDS[kind])
    lessons: list[Lesson] = [getattr(corpus, task)(1)[0] for _ in range(NUM_LESSONS)]
    torch.manual_seed(5)
    written = measure.replies(model, tokenizer, lessons)
    # A judge of several things may err on one of their parts and still come to the right score.
    right = [reply.answer == lesson.answer for reply, lesson in zip(written, lessons, strict=True)]
    assert sum(right) / NUM_LESSONS >= least
