"""Attackers: propose the next message of a multi-turn attack, from a script or by a model."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from specs.prompts import Message, attacker_messages
from specs.template import DEFAULT_SET, Template, load_template
from tasks.engine.requests import Engine, Request, Sampling, require_asked
from tasks.paths import find, places
from warehouse.tables import content_id


class AttackerError(ValueError):
    """An attacker that cannot be used."""


class AttackerDown(RuntimeError):
    """An attacker that met nothing but engine errors; its tree is grown again."""


class Attacker(Protocol):
    """Proposes what the user says next."""

    async def propose(
        self, goal: str, conversation: Sequence[Message], *, turn: int, count: int
    ) -> list[str]:
        """Returns at most `count` messages towards the goal; an empty list ends the conversation.

        `conversation` begins with the turns before the request that is the goal, if it has any;
        `turn - 1` exchanges of the attack follow. Raises AttackerDown if engine errors left it
        without any message.
        """
        ...


@dataclass(frozen=True, slots=True)
class ScriptedAttacker:
    """Proposes the n-th message of each strategy of a script, with the request put in.

    A conversation goes on with the strategies that it began with.
    """

    strategies: tuple[tuple[str, ...], ...]

    @property
    def identity(self) -> str:
        """The strategies as they are hashed into ids."""
        return json.dumps(self.strategies)

    @classmethod
    def load(cls, name: str) -> "ScriptedAttacker":
        """Reads the strategies of a TOML file: `strategies = [["Hello.", "{{request}}"], …]`.

        Raises AttackerError if there is no such file, or if it holds anything else.
        """
        path = find(name, accept=Path.is_file)
        if path is None:
            raise AttackerError(f"no script {name!r} ({places()}); give a TOML file of strategies")
        try:
            strategies = tomllib.loads(path.read_text(encoding="utf-8")).get("strategies")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise AttackerError(f"{path}: not TOML: {error}") from error
        is_whole = isinstance(strategies, list) and all(
            isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns)
            for turns in strategies
        )
        if not strategies or not is_whole:
            raise AttackerError(
                f"{path}: `strategies` must be a list of lists of strings, such as "
                '[["Hello.", "{{request}}"]]'
            )
        return cls(tuple(tuple(turns) for turns in strategies))

    async def propose(
        self, goal: str, conversation: Sequence[Message], *, turn: int, count: int
    ) -> list[str]:
        said = [message["content"] for message in conversation if message["role"] == "user"]
        # What the user said before the attack is the prompt's own.
        earlier = said[len(said) - (turn - 1) :]
        filled = [
            [text.replace("{{request}}", goal) for text in strategy] for strategy in self.strategies
        ]
        proposals = (
            texts[turn - 1]
            for texts in filled
            if len(texts) >= turn and texts[: turn - 1] == earlier
        )
        return list(dict.fromkeys(proposals))[:count]


@dataclass(frozen=True, slots=True)
class ModelAttacker:
    """A model that is shown the goal and the conversation, and writes the next message."""

    engine: Engine
    sampling: Sampling
    template: Template = field(default_factory=partial(load_template, "attacker", DEFAULT_SET))

    async def propose(
        self, goal: str, conversation: Sequence[Message], *, turn: int, count: int
    ) -> list[str]:
        # A user does not see the system message.
        seen = [message for message in conversation if message["role"] != "system"]
        request = Request(
            messages=attacker_messages(self.template, seen, goal=goal),
            num_samples=count,
            sampling=self.sampling,
        )
        [samples] = await self.engine.generate([request])
        require_asked(samples)
        if samples and all(sample.fault for sample in samples):
            raise AttackerDown(samples[0].reason or samples[0].fault)
        replies = (sample.reply for sample in samples if not sample.fault)
        texts = (reply.answer for reply in replies if reply.has_answer)
        return list(dict.fromkeys(text for text in texts if text))


def model_identity(template: Template, model: str, sampling: Sampling) -> str:
    """Returns the hash of what all proposals of a model share: template, model@revision and
    sampling."""
    return content_id(template.id, model, sampling.identity)
