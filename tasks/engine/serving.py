"""The command that serves a model elsewhere, with the parser that splits its replies."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from specs.replies import Marks
from tasks.engine.families import find_marks
from tasks.engine.requests import EngineConfig
from warehouse.exports.recipe_file import names_secret

_PARSERS = ("deepseek_r1", "olmo3")
"""Parsers of <think> tags: as tokens of their own, and as text."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The command and settings that serve a model elsewhere."""

    arguments: Sequence[str]
    """Arguments of `vllm serve` after the folder."""
    parser: str | None
    """vLLM's reasoning parser. None: no parser takes the model's replies apart."""
    marks: Marks
    """The marks around the reasoning."""


def serving_of(engine: EngineConfig, *, vocabulary: Collection[str]) -> Serving:
    """Returns how to serve a model that an engine has served, or that was trained from it."""
    parser, marks = _parser(engine, vocabulary)
    arguments = ["--reasoning-parser", parser] if parser else []
    if engine.dtype != "auto":
        arguments += ["--dtype", engine.dtype]
    if engine.max_model_len:
        arguments += ["--max-model-len", str(engine.max_model_len)]
    if engine.chat_template_kwargs:
        options = json.dumps(engine.chat_template_kwargs)
        arguments += ["--default-chat-template-kwargs", options]
    for name, value in engine.engine_args.items():
        if not names_secret(name):
            arguments += _flag(name, value)
    return Serving(arguments, parser, marks)


def _flag(name: str, value: bool | int | float | str) -> list[str]:
    """Returns an argument of vLLM's as its command line spells it."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    return [f"--{dashed}", str(value)]


def _parser(engine: EngineConfig, vocabulary: Collection[str]) -> tuple[str | None, Marks]:
    """Returns the first parser that finds the marks of the model's replies, with those marks."""
    names = [engine.reasoning_parser] if engine.reasoning_parser else _PARSERS
    options = engine.chat_template_kwargs
    for name in names:
        try:
            marks = find_marks(name, chat_template_kwargs=options, vocabulary=vocabulary)
        except ValueError:
            continue
        return name, marks
    return None, find_marks(None, chat_template_kwargs=options, vocabulary=vocabulary)
