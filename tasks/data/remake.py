"""The requests of completions and judgements, made again from their rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from specs.criteria import judging_template
from specs.policy import Spec
from specs.prompts import judge_messages
from specs.template import (
    DEFAULT_SET,
    Template,
    TemplateError,
    TemplateNames,
    load_template,
    shipped_sets,
)
from tasks.data.candidates import messages_id
from tasks.data.generate import GenerateConfig, generation_id_of
from tasks.data.judge import JudgeConfig, judging_id_of
from tasks.engine.remade import Check, Remade, RemakeError, check
from tasks.engine.requests import Request
from tasks.refine import Refiner
from warehouse.tables import content_id, text_id

Row = Mapping[str, Any]


def completion_request(row: Row, *, prompt: Row, spec: Spec, settings: Mapping[str, Any]) -> Remade:
    """Returns what the generator was asked for a completion, or for the draft of one that it
    revised.

    `settings` is section `generate` of the recipe of its run. Raises
    RemakeError if a part is no longer what it was.
    """
    config = _configured(GenerateConfig, settings)
    checks = [*_common_checks(row, prompt, spec)]
    refiner = _refiner(config)
    made = {
        generation_id_of(one, config, row["model"], refiner=refiner): one
        for one in _templates(config.template, lambda names: load_template("generator", names))
    }
    template = _template_of(made, row["generation_id"], "generator", config.template)
    checks += [
        Check("generation_id", row["generation_id"], f"template {template.name}, model, sampling"),
        check(
            "completion_id",
            row["completion_id"],
            content_id(row["prompt_id"], row["spec_id"], row["generation_id"], row["sample_index"]),
            of="prompt, spec, generation_id, sample index",
        ),
    ]
    messages = config.messages(template, prompt["messages"], spec=spec)
    request = Request(messages=messages, num_samples=1, sampling=config.sampling)
    return Remade(request=request, checks=tuple(checks), is_draft=refiner is not None)


def _refiner(config: GenerateConfig) -> Refiner | None:
    """Returns what revised completions; raises RemakeError if its templates are not at hand."""
    try:
        return config.refiner({})
    except TemplateError as error:
        raise RemakeError(
            f"the templates of critique and revision are no longer at hand: {error}"
        ) from error


def judgement_request(
    row: Row, *, completion: Row, prompts: Sequence[Row], spec: Spec, settings: Mapping[str, Any]
) -> Remade:
    """Returns what the judge was asked for a judgement.

    `prompts` are all revisions of the prompt, whose metadata the judge may have been shown;
    `settings` is section `judge` of the recipe of its run. Raises RemakeError if a part is no
    longer what it was.
    """
    config = _configured(JudgeConfig, settings)
    checks = [
        *_common_checks(row, prompts[0], spec),
        check(
            "text_id",
            row["text_id"],
            text_id(completion["reasoning"], completion["answer"]),
            of="reasoning and answer",
        ),
    ]
    made = {
        judging_id_of(one, config, row["model"]): one
        for one in _templates(
            config.template, lambda names: judging_template(names, config.criteria)
        )
    }
    template = _template_of(made, row["judging_id"], "judge", config.template)
    shown = _metadata_of(row, prompts, config)
    checks += [
        Check("judging_id", row["judging_id"], f"template {template.name}, model, sampling"),
        Check("judgement_id", row["judgement_id"], "prompt, text, spec, judging_id, index"),
    ]
    messages = judge_messages(
        template,
        prompts[0]["messages"],
        spec=spec,
        answer=completion["answer"],
        reasoning=completion["reasoning"],
        metadata=shown,
    )
    request = Request(messages=messages, num_samples=1, sampling=config.sampling)
    return Remade(request=request, checks=tuple(checks))


def _metadata_of(row: Row, prompts: Sequence[Row], config: JudgeConfig) -> list[str]:
    """Returns the findings of others that the judge was shown; raises RemakeError if no revision
    of the prompt has them."""
    for prompt in prompts:
        shown = list(prompt["metadata"]) if config.show_metadata else []
        again = content_id(
            row["prompt_id"],
            row["text_id"],
            row["spec_id"],
            row["judging_id"],
            row["sample_index"],
            *shown,
        )
        if again == row["judgement_id"]:
            return shown
    raise RemakeError(
        "the prompt cannot be made again: no revision of the prompt has the metadata that the "
        f"judge was shown, as judgement_id {row['judgement_id']} is of another text"
    )


def _common_checks(row: Row, prompt: Row, spec: Spec) -> Iterator[Check]:
    yield check("prompt_id", row["prompt_id"], messages_id(prompt["messages"]), of="messages")
    yield check("spec_id", row["spec_id"], spec.id, of="text of the spec")


def _configured(kind: Any, settings: Mapping[str, Any]) -> Any:
    """Returns a configuration of a run; with the default templates if its own are gone.

    Raises RemakeError if another version of Precept wrote the settings.
    """
    for changes in ({}, {"template": DEFAULT_SET}):
        try:
            return kind.model_validate({**settings, **changes})
        except ValidationError as error:
            fault = error
    raise RemakeError(
        f"the prompt cannot be made again: this Precept does not read the settings of its run "
        f"({fault.error_count()} faults; the first: {fault.errors()[0]['msg']})"
    )


def _templates(names: TemplateNames, load: Any) -> Iterator[Template]:
    """Yields the templates that may have been used: the recipe's, then those that ship."""
    candidates: Iterable[TemplateNames] = (names, *shipped_sets())
    for one in candidates:
        try:
            yield load(one)
        except TemplateError:
            continue


def _template_of(
    made: Mapping[str, Template], recorded: str, kind: str, names: TemplateNames
) -> Template:
    """Returns the template that gives the recorded id; raises RemakeError if none does."""
    if recorded in made:
        return made[recorded]
    where = names if isinstance(names, str) else ", ".join(names)
    raise RemakeError(
        f"the template of the {kind} is no longer at hand: neither that of {where} as it is now "
        f"nor one that ships gives the row's id {recorded}; put back the file of that time"
    )
