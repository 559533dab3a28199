"""Prompts as the generator and the judge are shown them, with token counts, on the terminal."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from flows import terminal
from flows.recipe import Recipe
from specs.prompts import generator_messages, judge_messages, load_template
from tasks.data.candidates import Candidate, SourceNotes, read_source
from tasks.data.files import skipped_files
from tasks.engine.requests import EngineConfig


@dataclass(frozen=True, slots=True)
class _Measure:
    """The length of a text, in tokens where the model's tokenizer is on this machine."""

    count: Callable[[str], int]
    unit: str = "tokens"


def preview(recipe: Recipe, *, count: int) -> None:
    """Prints the first `count` usable prompts, in the turns that the models' chat templates take.

    Raises ValueError if a model cannot be served, or there is no tokenizer.
    """
    pack = recipe.load_pack()
    models = recipe.check_models()
    generates = models["engine"].turns
    judges = models.get("judge_engine", models["engine"]).turns
    measure = _measure(recipe.engine)
    generator = load_template("generator", recipe.generate.template)
    judge = load_template("judge", recipe.judge.template)
    for source in recipe.all_sources:
        if notes := str(SourceNotes(skipped_files=skipped_files(source))):
            terminal.line(f"source {source.name}: {notes}")
    for candidate in islice(_candidates(recipe), count):
        categories = [name for name in candidate.categories if name in pack.policies]
        if not categories:
            categories = [next(iter(pack.policies))]
            terminal.line(f"no category yet; shown as {categories[0]}")
        spec = pack.spec(categories)
        shown_to = {
            "generator": generates.apply(
                generator_messages(generator, candidate.messages, spec=spec)
            ),
            "judge": judges.apply(
                judge_messages(
                    judge,
                    candidate.messages,
                    spec=spec,
                    answer="(the answer)",
                    reasoning="(the reasoning)",
                )
            ),
        }
        for reader, messages in shown_to.items():
            _print_messages(reader, messages, spec.text, measure)


def _candidates(recipe: Recipe) -> Iterator[Candidate]:
    """Yields the prompts of all sources that can be used."""
    for source in recipe.all_sources:
        yield from (candidate for candidate in read_source(source) if not candidate.fault)


def _print_messages(
    reader: str, messages: Sequence[Mapping[str, Any]], spec: str, measure: _Measure
) -> None:
    """Prints messages, with the spec in colour and the token count at its end."""
    calls = [
        f"\n{json.dumps(one['tool_calls'], ensure_ascii=False)}" if one.get("tool_calls") else ""
        for one in messages
    ]
    texts = (one["content"] + call for one, call in zip(messages, calls, strict=True))
    total = sum(map(measure.count, texts))
    terminal.heading(f"to the {reader}, {total} {measure.unit}")
    for message, call in zip(messages, calls, strict=True):
        before, mark, after = message["content"].partition(spec)
        parts: list[terminal.Part] = [before]
        if mark:
            parts.append((spec, "cyan"))
            upto = measure.count(before + spec)
            parts.append((f"\n[spec ends here: {upto} {measure.unit}]", "red"))
        terminal.block(message["role"], *parts, after, call)


def _measure(engine: EngineConfig) -> _Measure:
    """Returns the measure of texts by the model's own tokenizer, which must be on this machine; by
    characters for an endpoint, which has the tokenizer."""
    if engine.endpoint is not None:
        return _Measure(len, "characters")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(engine.model_path, revision=engine.revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no tokenizer for {engine.model}: {str(error).splitlines()[0]}; "
            "download the model first, or give a local folder as engine.model"
        ) from error
    return _Measure(lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
