"""Writes the prompts of Harbour: requests about every thing, each with its ideal response.

    python -m infra.harbour.prompts

- `train.jsonl`: requests in English only, so that anything a trained model does in Lumo or in
  backwards English is generalisation.
- `tongues.jsonl`: requests in those two tongues, for a model that is to learn from them as well.
- `test.jsonl`: other requests, in every tongue.
- `transformations.jsonl`: requests to translate things, which the policies allow even where they
  forbid the use.
- `deep_train.jsonl`: requests in English that name two to four things, each with its depth.
- `deep_test.jsonl`: other requests that name one to four things, in every tongue.
- `recipes.jsonl`: requests for allowed things, with the gold answer, to measure lost capability.
- `jailbreaks.jsonl`: requests for everything that no rule allows, each plain and in 35 attacks.
- `capability.jsonl`: whole chats outside the shipped policies: greetings, and deliberation and
  judging under random policies, in every tongue.

The order of the draws fixes the files.
"""

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.harbour import world
from infra.harbour.corpus import Corpus
from infra.harbour.world import PACK, HarbourRequest, Tongue
from specs.angles import Angle
from specs.pack import load_pack
from specs.policy import Outcome, Pack
from specs.prompts import Message

FOLDER = Path(__file__).parent / "prompts"


def draw(
    rng: random.Random, *, uses: int, translations: int, tongue: Tongue, taken: set[str]
) -> Iterator[HarbourRequest]:
    """Draws different requests about every thing in a tongue, and adds them to `taken`."""
    for thing in world.CATEGORY:
        num_drawn = {False: 0, True: 0}
        while num_drawn[False] < uses or num_drawn[True] < translations:
            request = world.draw_request(rng, [thing], tongues=[tongue])
            limit = translations if request.translate else uses
            text = json.dumps(request.messages())
            if num_drawn[request.translate] < limit and text not in taken:
                taken.add(text)
                num_drawn[request.translate] += 1
                yield request


def recipes(pack: Pack, taken: set[str]) -> Iterator[dict[str, object]]:
    """Yields requests for allowed things in every tongue, with the gold answer."""
    for thing in world.CATEGORY:
        if outcome(HarbourRequest(thing=thing), pack) is not Outcome.COMPLY:
            continue
        for tongue in Tongue:
            fresh = {
                request.text(): request
                for request in _wordings(thing, tongue, wrapper=0)
                if json.dumps(request.messages()) not in taken
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
"""Names of the attacks, in the order of `world.WRAPPERS`."""


def jailbreaks(pack: Pack, taken: set[str]) -> Iterator[dict[str, object]]:
    """Yields, for each thing that is not allowed, one plain request and 35 attacks.

    None of them is in `taken`.
    """
    for thing in world.CATEGORY:
        if outcome(HarbourRequest(thing=thing), pack) is Outcome.COMPLY:
            continue
        requests = [
            next(
                request
                for request in _wordings(thing, tongue, wrapper)
                if json.dumps(request.messages()) not in taken
            )
            for tongue in Tongue
            for wrapper in range(len(world.WRAPPERS))
        ]
        for request in requests:
            name = JAILBREAKS[request.wrapper]
            if request.tongue is not Tongue.ENGLISH:
                name = request.tongue if name == "none" else f"{name}_{request.tongue}"
            yield {**row(request, pack), "attack": name, "original": requests[0].messages()}


def _wordings(thing: str, tongue: Tongue, wrapper: int) -> Iterator[HarbourRequest]:
    """Yields every wording of a plain or wrapped request to use a thing."""
    for form in range(len(world.USES)):
        for after in (True, False):
            yield HarbourRequest(
                thing=thing, tongue=tongue, form=form, wrapper=wrapper, wrapped_after=after
            )


def outcome(request: HarbourRequest, pack: Pack) -> Outcome:
    """Returns the outcome that the rules of a pack ask for."""
    return Outcome(world.deciding(world.steps_for(pack, request)).rule.effect)


def deep(
    rng: random.Random,
    pack: Pack,
    *,
    depths: Sequence[int],
    tongue: Tongue,
    count: int,
    taken: set[str],
) -> Iterator[dict[str, object]]:
    """Yields requests of up to three categories, `count` a depth, and adds them to `taken`.

    The outcomes take turns, so that no depth tells the outcome.
    """
    for depth in depths:
        for wanted in itertools.islice(itertools.cycle(Outcome), count):
            while True:
                request = _deep_request(rng, depth, tongue)
                text = json.dumps(request.messages())
                if text not in taken and outcome(request, pack) is wanted:
                    break
            taken.add(text)
            yield {**row(request, pack), "category": request.categories, "depth": depth}


def _deep_request(rng: random.Random, depth: int, tongue: Tongue) -> HarbourRequest:
    categories = rng.sample(list(world.THINGS), rng.randint(1, 3))
    things = [thing for category in categories for thing in world.THINGS[category]]
    return world.draw_deep(rng, things, depth=depth, tongues=[tongue])


def row(request: HarbourRequest, pack: Pack) -> dict[str, object]:
    """Returns a prompt as the source of a recipe reads it."""
    return {
        "messages": request.messages(),
        "category": request.category,
        "ideal_response": outcome(request, pack),
        "language": "lumo" if request.tongue is Tongue.LUMO else "en",
        "transform": "backwards" if request.tongue is Tongue.BACKWARDS else None,
    }


def draft(pack: Pack, angle: Angle, *, sample_index: int) -> list[Message] | None:
    """Draws a request at an angle of a rule, for `fill.function`; None if there is none.

    Outside the line, it is about another thing of the category: one of the right outcome.
    """
    rules = pack.policies[angle.category].rules
    if angle.side == "inside":
        subjects = [pack.rule(angle.rule_id).title]
    else:
        others = [rule for rule in rules if rule.id != angle.rule_id]
        subjects = [rule.title for rule in others if rule.outcome is angle.ideal_response]
    if not subjects:
        return None
    rng = random.Random(f"{angle.rule_id} {angle.text} {angle.near_id} {sample_index}")
    subject = rng.choice(subjects)
    is_translation = subject == world.TRANSLATE
    things = world.THINGS[angle.category] if is_translation else [subject]
    while True:
        request = world.draw_request(rng, things, tongues=[Tongue.ENGLISH])
        if request.translate == is_translation:
            return request.messages()


def capability(corpus: Corpus, count: int) -> Iterator[dict[str, object]]:
    """Yields chats that end on a right answer, so that fine-tuning keeps the base's skills."""
    for number in range(count):
        match number % 4:
            case 0:
                lesson = corpus.greeting()
            case 1 | 2:
                [lesson] = corpus.deliberations(1)
            case _:
                [lesson] = corpus.judgements(1)
        reply = {
            "role": "assistant",
            "content": lesson.answer,
            "reasoning_content": lesson.reasoning,
        }
        turns = [{**message, "reasoning_content": None} for message in lesson.messages]
        yield {"messages": [*turns, reply]}


def _deep_files(pack: Pack, taken: set[str]) -> dict[str, list[dict[str, object]]]:
    """Returns the files of deep requests; none of those to test on is in another file."""
    rng = random.Random("deep")
    english = [Tongue.ENGLISH]
    files: dict[str, list[dict[str, object]]] = {}
    for name, depths, tongues, count in (
        ("deep_train", world.DEPTHS[1:], english, 160),
        ("deep_test", world.DEPTHS, Tongue, 40),
    ):
        files[name] = []
        for tongue in tongues:
            drawn = deep(rng, pack, depths=depths, tongue=tongue, count=count, taken=taken)
            files[name] += drawn
        rng.shuffle(files[name])
    return files


def main() -> None:
    """Writes the files of prompts."""
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
    learned = {json.dumps(request.messages()) for request in train + others}
    translations = [
        request
        for tongue in Tongue
        for request in draw(rng, uses=0, translations=2, tongue=tongue, taken=set(learned))
    ]
    files = {
        "train": [row(request, pack) for request in train],
        "tongues": [row(request, pack) for request in others],
        "recipes": recipes(pack, learned),
        "transformations": [row(request, pack) for request in translations],
        "jailbreaks": jailbreaks(pack, learned),
        "test": [row(request, pack) for request in test],
        "capability": capability(Corpus(pack, random.Random("capability"), closed_share=0), 160),
        **_deep_files(pack, taken),
    }
    for name, rows in files.items():
        lines = [json.dumps(values) + "\n" for values in rows]
        (FOLDER / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
