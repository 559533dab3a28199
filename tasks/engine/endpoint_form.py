"""A request in the fields that a server takes: what it refuses is left out, and told once."""

import re
from dataclasses import dataclass, replace
from typing import Any

from specs.replies import ReplyForm, ReplyStart
from tasks.engine.requests import EngineConfig, Request

_LIMITS = ("max_tokens", "max_completion_tokens")
_STRUCTURE = ("structured_outputs", "guided_regex")
"""The field of vLLM's structured outputs, and that of older versions."""


@dataclass(frozen=True, slots=True)
class Form:
    """The fields that a server takes, as far as it has shown."""

    takes_several: bool = True
    """True if one request may ask for several samples, by `n`."""
    takes_pattern: bool = True
    """True if a reply can be held to a regular expression."""
    takes_max_tokens: bool = True
    """True for `max_tokens`, false for `max_completion_tokens`."""
    takes_top_p: bool = True
    takes_temperature: bool = True
    """False if the server samples at 1 and wants no word of it, as for the field above."""

    def fields(self, request: Request, count: int, config: EngineConfig) -> dict[str, Any]:
        """Returns the fields beside model and messages of a request for `count` samples."""
        sampling = request.sampling
        fields: dict[str, Any] = {_LIMITS[not self.takes_max_tokens]: sampling.max_tokens}
        if self.takes_temperature:
            fields["temperature"] = sampling.temperature
        if self.takes_top_p:
            # Always said: vLLM would take the default from the model's own generation_config.
            fields["top_p"] = sampling.top_p
        if count > 1:
            fields["n"] = count
        if request.form and self.takes_pattern:
            pattern = _pattern_of(request.form, config)
            fields |= {"structured_outputs": {"regex": pattern}, "guided_regex": pattern}
        if config.chat_template_kwargs:
            fields["chat_template_kwargs"] = config.chat_template_kwargs
        assert config.endpoint is not None
        return fields | config.endpoint.body

    def without(self, complaint: str, fields: dict[str, Any]) -> "Form | None":
        """Returns the form to try after a server refused these fields with this complaint; None if
        there is nothing that could be left out.

        A setting that shapes replies is left out only where its value is the server's own default.
        """
        if "max_tokens" in fields and "max_completion_tokens" in complaint:
            return replace(self, takes_max_tokens=False)
        if fields.get("top_p") == 1 and "top_p" in complaint:
            return replace(self, takes_top_p=False)
        if fields.get("temperature") == 1 and "temperature" in complaint:
            return replace(self, takes_temperature=False)
        if "n" in fields and re.search(r"['\"`]n['\"`]|\bn\b *(=|>|must|should|is)", complaint):
            return replace(self, takes_several=False)
        # Servers complain of a pattern in many words, and of few other fields.
        if any(name in fields for name in _STRUCTURE):
            return replace(self, takes_pattern=False)
        return replace(self, takes_several=False) if "n" in fields else None

    def both(self, other: "Form") -> "Form":
        """Returns the form that leaves out what either does."""
        return Form(
            *(getattr(self, name) and getattr(other, name) for name in Form.__dataclass_fields__)
        )

    @property
    def notes(self) -> list[str]:
        """What the server does not do as it was asked, in words; nothing of mere spelling."""
        notes = []
        if not self.takes_several:
            notes.append("the server gives one sample a request, so several are asked one by one")
        if not self.takes_pattern:
            notes.append(
                "the server refuses structured outputs, so replies are not held to their form"
            )
        return notes


def _pattern_of(form: ReplyForm | str, config: EngineConfig) -> str:
    """Returns the regular expression of a reply; servers differ in where its reasoning stands."""
    if isinstance(form, str):
        return form
    starts: dict[bool | str, ReplyStart] = {"prompted": "reasoning", False: "answer", True: "any"}
    return form.pattern(starts[config.reasons])
