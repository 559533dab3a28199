"""The command that serves a model's folder elsewhere, with the parser that splits its replies."""

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass

from specs.replies import Marks
from tasks.engine.families import find_marks
from tasks.engine.requests import EngineConfig

_PARSERS = ("deepseek_r1", "olmo3")
"""Parsers of <think> tags: as tokens of their own, and as text."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is served elsewhere."""

    command: str
    parser: str | None
    """vLLM's reasoning parser. None: no parser takes the model's replies apart."""
    marks: Marks
    """The marks around the reasoning."""


def serving_of(engine: EngineConfig, *, folder: str, vocabulary: Collection[str]) -> Serving:
    """Returns how to serve a folder that holds a model which an engine has served or trained."""
    parser, marks = _parser(engine, vocabulary)
    arguments = ["vllm", "serve", folder]
    if parser:
        arguments += ["--reasoning-parser", parser]
    if engine.dtype != "auto":
        arguments += ["--dtype", engine.dtype]
    if engine.max_model_len:
        arguments += ["--max-model-len", str(engine.max_model_len)]
    if engine.chat_template_kwargs:
        options = json.dumps(engine.chat_template_kwargs)
        arguments += ["--default-chat-template-kwargs", options]
    return Serving(shlex.join(arguments), parser, marks)


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
