"""Prompts, and the first document of a midtraining, as the generator and the judge are shown them,
with token counts, on the terminal."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from flows import terminal
from flows.recipe import Recipe
from flows.run import document_work
from specs.lint import Measure
from specs.policy import Pack, Spec
from specs.prompts import Message, critique_messages, document_messages, judge_messages
from specs.template import load_template
from tasks.data.candidates import Candidate, NoteTaker, SourceNotes
from tasks.data.files import skipped_files
from tasks.data.sources import SourceConfig
from tasks.data.traces import TraceConfig
from tasks.engine.model_check import CheckedModel
from tasks.engine.requests import EngineConfig
from tasks.refine import Refiner


def preview(recipe: Recipe, *, count: int) -> None:
    """Prints the first `count` usable prompts, and the prompt for a document if the generator is to
    write some, in the turns that the models' chat templates take.

    Raises ValueError if a model cannot be served, there is no tokenizer, or no prompt is usable.
    """
    pack = recipe.load_pack()
    shown = [one for one in recipe.all_sources if not (isinstance(one, TraceConfig) and one.judge)]
    if not shown and not recipe.has_documents_generated:
        terminal.line("no model is shown anything: the recipe has only traces with scores")
        return
    models = recipe.check_models()
    if shown:
        _preview_prompts(recipe, pack, shown, models, count)
    if recipe.has_documents_generated:
        _preview_document(recipe, pack, models)


def _preview_prompts(
    recipe: Recipe,
    pack: Pack,
    shown: Sequence[SourceConfig],
    models: Mapping[str, CheckedModel],
    count: int,
) -> None:
    """Prints the first usable prompts of the sources that a model is shown."""
    judges = models[next(iter(recipe.judging_engines))].turns
    measure = measure_of(recipe.engine if recipe.sources else recipe.judging_engine)
    generator = load_template("generator", recipe.generate.template)
    refiner = recipe.generate.refiner(pack.rules)
    judge = recipe.judge.judging_template
    # Read first: a source that cannot be read is told before anything is printed.
    candidates = _read_beginning(recipe, shown, count)
    for reader, template in (("generator", generator), ("judge", judge)):
        terminal.line(f"template of the {reader}: {template.name}, {template.id[:12]}")
    for source, candidate in candidates:
        categories = [name for name in candidate.categories if name in pack.policies]
        if not categories:
            categories = [next(iter(pack.policies))]
            terminal.line(f"no category yet; shown as {categories[0]}")
        spec = pack.spec(categories)
        shown_to = {
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
        if not isinstance(source, TraceConfig):
            turns = models["engine"].turns
            asked = recipe.generate.messages(generator, candidate.messages, spec=spec)
            critique = _critique(refiner, candidate, spec) if refiner else []
            shown_to = {
                "generator": turns.apply(asked),
                **({"generator for its critique": turns.apply(critique)} if critique else {}),
                **shown_to,
            }
        for reader, messages in shown_to.items():
            _print_messages(reader, messages, spec.text, measure)


def _preview_document(recipe: Recipe, pack: Pack, models: Mapping[str, CheckedModel]) -> None:
    """Prints what the generator is shown for the first document of a midtraining."""
    assert recipe.midtrain
    work = document_work(recipe, recipe.midtrain, pack, model=recipe.engine.version)
    terminal.line(f"template of the documents: {work.template.name}, {work.template.id[:12]}")
    subject = next(iter(work.subjects.values()))
    messages = models["engine"].turns.apply(document_messages(work.template, subject))
    reader = "generator for a document"
    _print_messages(reader, messages, subject.spec.text, measure_of(recipe.engine))


def _critique(refiner: Refiner, candidate: Candidate, spec: Spec) -> list[Message]:
    """Returns what the generator is shown of its own answer."""
    # Those of the first round of the first completion.
    rules = refiner.rules_shown(spec, key=f"{candidate.prompt_id} 0 1")
    return critique_messages(
        refiner.critique, candidate.messages, answer="(the answer)", rules=rules
    )


def _read_beginning(
    recipe: Recipe, shown: Sequence[SourceConfig], count: int
) -> list[tuple[SourceConfig, Candidate]]:
    """Returns the first `count` usable prompts, each with its source, and prints what is left out
    before the last of them.

    Raises ValueError if there is none.
    """
    readers = {source.name: NoteTaker(source) for source in shown}
    candidates = list(islice(_candidates(shown, readers), count))
    for source in recipe.all_sources:
        # Not the counts: the rest of the rows is not read.
        bad_places = readers[source.name].notes.bad_places if source.name in readers else {}
        notes = SourceNotes(bad_places=bad_places, skipped_files=skipped_files(source))
        if str(notes):
            terminal.line(f"source {source.name}: {notes}")
    if count and not candidates:
        raise ValueError("no row of the sources can be shown; check which columns they name")
    return candidates


def _candidates(
    sources: Sequence[SourceConfig], readers: Mapping[str, NoteTaker]
) -> Iterator[tuple[SourceConfig, Candidate]]:
    """Yields the prompts of sources that can be used, each with its source."""
    for source in sources:
        rows = readers[source.name].candidates()
        yield from ((source, candidate) for candidate in rows if not candidate.fault)


def _print_messages(
    reader: str, messages: Sequence[Mapping[str, Any]], spec: str, measure: Measure
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


def measure_of(engine: EngineConfig) -> Measure:
    """Returns the measure of texts by the model's own tokenizer, which must be on this machine; by
    characters for an endpoint, which has the tokenizer."""
    if engine.endpoint is not None:
        return Measure(len, "characters")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(engine.model_path, revision=engine.revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no tokenizer for {engine.model}: {str(error).splitlines()[0]}; "
            "download the model first, or give a local folder as engine.model"
        ) from error
    # A text longer than the context is no mistake here, so the tokenizer's warning is off.
    return Measure(
        lambda text: len(tokenizer.encode(text, add_special_tokens=False, verbose=False)), "tokens"
    )
