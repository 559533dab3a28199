"""An error of the `openai` client → what it means for a request, and for those after it."""

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from tasks.engine.endpoint_config import EndpointConfig, refused_key
from tasks.engine.requests import UNASKED, UNREACHABLE

_TOO_LONG = re.compile(
    r"context[_ ]length|maximum context|context window|max_model_len|prompt is too long"
    r"|input is too long|too many tokens",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content[_ ](filter|policy|management)|moderation|flagged", re.IGNORECASE)
_AWAY = (429, 502, 503, 504)
"""Statuses of a server that is there again later."""
_LONGEST = 300
"""Most characters of a server's own words in a reason."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The reason why a request has no reply."""

    kind: str
    """A fault of `Sample`; one of `WITHHELD` ends the work, as every request would meet it."""
    reason: str


def fault_of(
    error: Exception, config: EndpointConfig, words: str, *, refused_with: int | None = None
) -> Fault:
    """Returns what an error means; `words` are the server's own, as `words_of` gives them.

    `refused_with` is the status of the latest try, if that was a refusal.
    """
    import openai

    from tasks.engine.endpoint_client import NOT_SENT

    where = f"the server at {config.url}"
    if isinstance(error, TimeoutError):
        # Its retries together took too long, whatever ended each.
        seconds = f"{config.seconds_to_give_up:g} s"
        if refused_with in _AWAY:
            return Fault(UNREACHABLE, f"{where} answers {refused_with} for {seconds}")
        return Fault("error", f"{where} gave no answer in {seconds}")
    if isinstance(error, openai.APIConnectionError):
        if isinstance(error.__cause__, NOT_SENT):
            return Fault(UNREACHABLE, f"{where} does not answer ({words}); start it again")
        if isinstance(error, openai.APITimeoutError):
            return Fault("error", f"{where} gave no answer in {config.timeout_seconds:g} s")
        return Fault("error", f"{where} broke off its answer ({words})")
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, config, words)
    return Fault("error", f"{where} gave an answer that cannot be read ({words})")


def _of_status(error: Any, config: EndpointConfig, words: str) -> Fault:
    code, where = error.status_code, f"the server at {config.url}"
    if code in (400, 403, 422) and (_FILTER.search(words) or error.code == "content_filter"):
        return Fault("filtered", f"{where} refuses the prompt by its content filter: {words}")
    if code in (400, 413, 422) and (_TOO_LONG.search(words) or error.code == "context_length"):
        return Fault("too_long", words)
    if code in (401, 403):
        return Fault(UNASKED, f"{refused_key(config, code)} (it says: {words})")
    if code == 402 or error.code == "insufficient_quota":
        return Fault(UNASKED, f"{where} wants to be paid first ({code}: {words}); top it up")
    if code == 404:
        return Fault(UNASKED, f"{where} has no such model or address (404: {words})")
    if code in _AWAY:
        wait = error.response.headers.get("retry-after")
        asks = f"; it asks to wait {wait} s" if wait else ""
        return Fault(UNREACHABLE, f"{where} answers {code} after all retries ({words}){asks}")
    return Fault("error", f"{where} answers {code}: {words}")


def words_of(error: Exception, key: SecretStr | None) -> str:
    """Returns what an error says in one short line, in which the key does not stand."""
    import openai

    text = str(error)
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        inner = body.get("error")
        found = body.get("message") or body.get("detail") or inner or body or error.response.text
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    elif isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
        text = str(error.__cause__)
    line = " ".join(text.split()) or type(error).__name__
    if key is not None:
        line = line.replace(key.get_secret_value(), "(the key)")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
