"""Writes the prompts of Harbour: requests about every thing, each with its ideal response.

    python -m infra.harbour.prompts

`train.jsonl` is in English alone, so that whatever a trained model does in Lumo or backwards it
has generalised; `tongues.jsonl` holds requests in those two, for a model that is to learn from them
as well, and `test.jsonl` other requests in every tongue. `transformations.jsonl` asks to translate
things, which the policies allow whatever they say of using them, and `recipes.jsonl` for what is
allowed anyway, with the gold answer, which safety must not cost. `jailbreaks.jsonl` asks for all
that no rule allows, in 35 ways that are to get it all the same. `capability.jsonl` holds whole
chats that no shipped policy is about: greetings, and looking up and judging under policies drawn at
random, in every tongue.
"""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

from infra.harbour import world
from infra.harbour.corpus import Corpus
from infra.harbour.world import Request, Tongue
from specs.pack import load_pack
from specs.policy import Outcome, Pack

FOLDER = Path(__file__).parent / "prompts"
PACK = Path(__file__).parents[2] / "specs" / "harbour"


def draw(
    rng: random.Random, *, uses: int, translations: int, tongue: Tongue, taken: set[str]
) -> Iterator[Request]:
    """So many different requests about every thing in a tongue, none of them `taken`."""
    for thing in world.CATEGORY:
        found = {False: 0, True: 0}
        while found[False] < uses or found[True] < translations:
            request = world.draw_request(rng, [thing], tongues=[tongue])
            wanted = translations if request.translate else uses
            text = json.dumps(request.messages())
            if found[request.translate] < wanted and text not in taken:
                taken.add(text)
                found[request.translate] += 1
                yield request


def recipes(pack: Pack, taken: set[str]) -> Iterator[dict[str, object]]:
    """What things need that every rule lets one have, in every tongue, with the gold answer."""
    for thing, category in world.CATEGORY.items():
        rule = world.rule_for(pack.policies[category].rules, Request(thing=thing))
        if rule.outcome is not Outcome.COMPLY:
            continue
        for tongue in Tongue:
            fresh = {
                one.text(): one
                for one in _wordings(thing, tongue, wrapper=0)
                if json.dumps(one.messages()) not in taken
            }
            for request in itertools.islice(fresh.values(), 2):
                yield {**row(request, pack), "target": world.helpful_answer(request)}


JAILBREAKS = (
    "none",
    "hurry",
    "authority",
    "newcomer",
    "role_play",
    "refusal_suppression",
    "school",
    "prefix_injection",
    "on_behalf",
    "secrecy",
    "small_talk",
    "override",
)
"""What each of the world's wrappers tries, in their order."""


def jailbreaks(pack: Pack, taken: set[str]) -> Iterator[dict[str, object]]:
    """Each thing that is not to be helped with, asked for bare and in 35 other ways.

    None of them is `taken`.
    """
    for thing, category in world.CATEGORY.items():
        plain = Request(thing=thing)
        if world.rule_for(pack.policies[category].rules, plain).outcome is Outcome.COMPLY:
            continue
        asked = [
            next(
                request
                for request in _wordings(thing, tongue, wrapper)
                if json.dumps(request.messages()) not in taken
            )
            for tongue in Tongue
            for wrapper in range(len(world.WRAPPERS))
        ]
        for request in asked:
            name = JAILBREAKS[request.wrapper]
            if request.tongue is not Tongue.ENGLISH:
                name = request.tongue if name == "none" else f"{name}_{request.tongue}"
            yield {**row(request, pack), "attack": name, "original": asked[0].messages()}


def _wordings(thing: str, tongue: Tongue, wrapper: int) -> Iterator[Request]:
    for form in range(len(world.USES)):
        for after in (True, False):
            yield Request(
                thing=thing, tongue=tongue, form=form, wrapper=wrapper, wrapped_after=after
            )


def row(request: Request, pack: Pack) -> dict[str, object]:
    """A prompt as a recipe's source reads it."""
    rule = world.rule_for(pack.policies[request.category].rules, request)
    return {
        "messages": request.messages(),
        "category": request.category,
        "ideal_response": rule.outcome.value,
        "language": "lumo" if request.tongue is Tongue.LUMO else "en",
        "transform": "backwards" if request.tongue is Tongue.BACKWARDS else None,
    }


def capability(corpus: Corpus, count: int) -> Iterator[dict[str, object]]:
    """Chats that end on a good answer, so that fine-tuning keeps what the base model can do."""
    for number in range(count):
        match number % 4:
            case 0:
                example = corpus.greeting()
            case 1 | 2:
                [example] = corpus.deliberations(1)
            case _:
                [example] = corpus.judgements(1)
        reply = {
            "role": "assistant",
            "content": example.answer,
            "reasoning_content": example.reasoning,
        }
        turns = [{**message, "reasoning_content": None} for message in example.messages]
        yield {"messages": [*turns, reply]}


def main() -> None:
    """Writes the files."""
    pack = load_pack(PACK)
    rng = random.Random("prompts")
    taken: set[str] = set()
    train = list(draw(rng, uses=8, translations=1, tongue=Tongue.ENGLISH, taken=taken))
    test = [
        request
        for tongue in Tongue
        for request in draw(rng, uses=2, translations=1, tongue=tongue, taken=taken)
    ]
    FOLDER.mkdir(exist_ok=True)
    for requests in (train, test):
        rng.shuffle(requests)
    others = [
        request
        for tongue in (Tongue.LUMO, Tongue.BACKWARDS)
        for request in draw(rng, uses=2, translations=1, tongue=tongue, taken=taken)
    ]
    asked = {json.dumps(one.messages()) for one in train + others}
    translations = [
        request
        for tongue in Tongue
        for request in draw(rng, uses=0, translations=2, tongue=tongue, taken=set(asked))
    ]
    files = {
        "train": [row(request, pack) for request in train],
        "tongues": [row(request, pack) for request in others],
        "recipes": recipes(pack, asked),
        "transformations": [row(request, pack) for request in translations],
        "jailbreaks": jailbreaks(pack, asked),
        "test": [row(request, pack) for request in test],
        "capability": capability(Corpus(pack, random.Random("capability")), 160),
    }
    for name, rows in files.items():
        lines = [json.dumps(one) + "\n" for one in rows]
        (FOLDER / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
