"""Messages → the text that a model of our own reads, by its tokenizer's chat template."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from specs.prompts import Message, with_text
from tasks.engine.chat_template import ChatTemplate, Frame
from tasks.engine.neutral import Neutraliser
from tasks.engine.requests import EngineConfig, Request
from tasks.engine.turns import TurnRules, Written, asked_to_think, write


class Renderer:
    """The chat template of a model as an engine uses it.

    Raises TurnsError at once if the template cannot write a chat.
    """

    def __init__(self, tokenizer: Any, config: EngineConfig) -> None:
        self.tokenizer = tokenizer
        self._config = config
        self.neutral = Neutraliser(tokenizer)
        self._turns = TurnRules.of(self._apply_template)

    def prompt(self, request: Request) -> str:
        """Returns the text that a request's answer follows, byte for byte.

        Raises whatever the chat template raises on odd roles.
        """
        text = self.render(request.messages, raw=request.raw)
        if request.reasoning is None:
            return text
        return f"{text}{self.frame.opening}{self.neutral(request.reasoning)}{self.frame.between}"

    def render(self, messages: Sequence[Message], *, raw: bool = False) -> str:
        """Returns the chat template's text, of turns that it can write.

        Special tokens in the messages are broken first, unless they are to stay `raw`. Raises
        TurnsError if the template refuses the turns, or leaves one out.
        """
        if not raw:
            messages = [with_text(turn, self.neutral) for turn in messages]
        if self._config.reasons == "prompted":
            # After the tags in texts of others were broken: these are to stay.
            messages = asked_to_think(messages)
        turns = self._turns.apply(messages)
        # A template may cut raw text at the tags in it, which is what such a request is to show.
        return self._apply_template(turns) if raw else write(self._apply_template, turns)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text that the chat template wrote."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def frame(self) -> Frame:
        """The text that the chat template puts around the parts of a reply."""
        kwargs = self._config.chat_template_kwargs
        return ChatTemplate(self.tokenizer, chat_template_kwargs=kwargs).frame

    def _apply_template(self, turns: Sequence[Written]) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(turns),
                tokenize=False,
                add_generation_prompt=True,
                **self._config.chat_template_kwargs,
            )
        )
