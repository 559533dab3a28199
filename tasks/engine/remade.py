"""The prompt of a row, made again from what the warehouse recorded of it.

No row holds its prompt: it follows from ids that the row has. Each id is computed again from the
parts, and a part that has changed since is named instead of shown.
"""

import json
from dataclasses import dataclass
from typing import Any

from specs.policy import Spec
from tasks.engine.faults import first_line
from tasks.engine.model_files import find_folder
from tasks.engine.rendering import Renderer
from tasks.engine.requests import EngineConfig, Request
from tasks.engine.turns import TurnsError


class RemakeError(ValueError):
    """A prompt that cannot be made again; the message says which part is not at hand."""


@dataclass(frozen=True, slots=True)
class Check:
    """An id that was computed again from the parts and is that of the row."""

    name: str
    value: str
    of: str
    """The parts that it is the hash of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remade:
    """A request as it was sent for a row."""

    request: Request
    checks: tuple[Check, ...]
    """The evidence that it is the same."""
    is_draft: bool = False
    """True if the row is a revision of what this request gave."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request as the model read it."""

    text: str
    """The prompt, byte for byte; of an endpoint, the messages as JSON."""
    num_tokens: int | None
    """Its tokens; None of an endpoint, which has the tokenizer."""


def check(name: str, recorded: str | None, again: str, *, of: str) -> Check:
    """Returns the check of an id; raises RemakeError if it has become another."""
    if recorded != again:
        raise RemakeError(
            f"the prompt cannot be made again: {name} of these parts ({of}) is {again}, and the "
            f"row has {recorded or 'none'}, so one of the parts has changed since"
        )
    return Check(name, again, of)


def require_spec(spec_id: str, text: str | None) -> Spec:
    """Returns a stored spec, of which only the text reaches a model; raises RemakeError if the
    warehouse lacks it."""
    if text is None:
        raise RemakeError(f"the prompt cannot be made again: spec {spec_id} is not stored")
    return Spec(categories=(), detail="full", text=text, rule_ids=())


def render(request: Request, config: EngineConfig) -> Rendered:
    """Returns a request as the model of an engine reads it.

    Raises RemakeError if the model's tokenizer is not at hand or cannot write it.
    """
    if config.endpoint is not None:
        from tasks.engine.endpoint import turns_of

        turns = turns_of(request, config)
        return Rendered(json.dumps(turns, ensure_ascii=False, indent=2), None)
    try:
        # Tells at once that a model is not there, which transformers tries for long.
        find_folder(config)
        renderer = Renderer(_tokenizer(config), config)
        text = renderer.prompt(request)
    except (OSError, ValueError, TurnsError) as error:
        raise RemakeError(
            f"the chat template of {config.model} is not at hand: {first_line(error)}"
        ) from error
    return Rendered(text, len(renderer.encode(text)))


def _tokenizer(config: EngineConfig) -> Any:
    """Returns the tokenizer that the engine takes, which its arguments may name."""
    from transformers import AutoTokenizer

    arguments = config.engine_args
    return AutoTokenizer.from_pretrained(
        arguments.get("tokenizer", config.model_path),
        revision=arguments.get("tokenizer_revision", config.revision),
        trust_remote_code=arguments.get("trust_remote_code", False),
    )
