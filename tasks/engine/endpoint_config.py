"""An endpoint as a recipe describes it: address, key, prices, budget, and the checks before work.

The key itself is in no configuration: a recipe names the environment variable that holds it.
"""

import difflib
import json
import os
import re
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pydantic import Field, SecretStr, model_validator

from tasks import Config

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""The names of variables by convention; most keys have small letters or dashes."""
_OWN_FIELDS = (
    "model",
    "messages",
    "n",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stream",
    "chat_template_kwargs",
    "structured_outputs",
    "guided_regex",
)
"""Fields of a request that other keys of the recipe set."""
_SECONDS_TO_ANSWER = 2.0
_NUM_NAMED = 5


class Prices(Config):
    """Prices of an endpoint, each for a million tokens, in your currency."""

    input: float = Field(ge=0)
    """Price of prompt tokens."""
    cached: float | None = Field(None, ge=0)
    """Price of prompt tokens that the server's prefix cache served. Unset: as `input`."""
    output: float = Field(ge=0)
    """Price of output tokens, reasoning included."""

    def cost(self, *, prompt: int, cached: int, output: int) -> float:
        """Returns the price of so many tokens; `cached` are among those of the prompt."""
        for_cached = self.input if self.cached is None else self.cached
        cost = (prompt - cached) * self.input + cached * for_cached + output * self.output
        return cost / 1_000_000


class Budget(Config):
    """Limits on what a warehouse spends at an endpoint, over all runs that use its url and model.

    No request is sent, or sent again, that could exceed them. Each try of a request is counted
    with the most that it could take if the server does not tell its usage, if its reply never came
    whole, or if it was given up; one that the server refused is not counted, and neither are those
    that a kill finds in flight.
    """

    money: float | None = Field(None, gt=0)
    """Most that requests may cost, at `prices`. Unset: no such limit."""
    tokens: int | None = Field(None, gt=0)
    """Most tokens of prompts and outputs together. Unset: no such limit."""

    @model_validator(mode="after")
    def _check(self) -> "Budget":
        if self.money is None and self.tokens is None:
            raise ValueError("budget limits nothing: give it money or tokens, or leave it out")
        return self


class EndpointConfig(Config):
    """An OpenAI-compatible server in place of an engine of our own."""

    url: str
    """Address of the API, such as http://127.0.0.1:8000/v1."""
    key_variable: str | None = None
    """Environment variable that holds the key, such as OPENAI_API_KEY. Unset: no key is sent."""
    served_as: list[str] = []
    """Further names by which the server may call the model in its replies, such as a dated one. A
    reply of any other model is refused."""
    body: dict[str, bool | int | float | str] = {}
    """Further fields of every request, by the server's names, such as `reasoning_effort`."""
    max_in_flight: int = Field(32, gt=0)
    """Most requests at a time, over all replicas; fewer while the server answers 429."""
    retries: int = Field(8, ge=0)
    """Retries of a request that met a fault of the server or the network. They wait as the server
    asks, if that is no more than two minutes, or else up to 8 seconds."""
    timeout_seconds: float = Field(600.0, gt=0)
    """Time after which a request without an answer is sent again, in seconds; after three times as
    long it is given up."""
    prices: Prices | None = None
    """Prices of tokens. Unset: costs are not counted."""
    budget: Budget | None = None
    """Limits on what is spent. Unset: there is none."""

    @model_validator(mode="after")
    def _check(self) -> "EndpointConfig":
        # Nothing is repeated that could hold a key.
        parts = urlsplit(self.url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "url holds more than an address, such as a key; leave it out, and name the "
                "variable that holds the key as key_variable"
            )
        if parts.scheme not in ("http", "https") or not _has_place(self.url):
            raise ValueError(
                f"url is {self.url!r}; give the address of the API, such as "
                "http://127.0.0.1:8000/v1"
            )
        if self.key_variable is not None and not _VARIABLE.fullmatch(self.key_variable):
            raise ValueError(
                "key_variable is no name of an environment variable in capitals; put the key in "
                'one, and write key_variable = "OPENAI_API_KEY"'
            )
        if self.budget and self.budget.money is not None and self.prices is None:
            raise ValueError(
                f"budget.money is {self.budget.money:g} and there are no prices; add prices, or "
                "limit tokens instead"
            )
        if taken := next((name for name in self.body if name in _OWN_FIELDS), None):
            raise ValueError(f"body has {taken!r}, which the engine sets itself; leave it out")
        return self

    def __str__(self) -> str:
        """Returns what the endpoint is, in words."""
        budget = self.budget
        limits = {"money": budget and budget.money, "tokens": budget and budget.tokens}
        named = [f"{limit:g} of {name}" for name, limit in limits.items() if limit is not None]
        parts = [
            self.url,
            f"key from {self.key_variable}" if self.key_variable else "no key",
            f"budget {' and '.join(named)}" if named else "no budget",
        ]
        return ", ".join(parts)

    def read_key(self) -> SecretStr | None:
        """Returns the key, None if there is none to send; raises ValueError if it is missing."""
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise ValueError(
                f"endpoint.key_variable is {self.key_variable}, and that environment variable is "
                "not set; set it to the key of the server"
            )
        return SecretStr(key)


def _has_place(url: str) -> bool:
    """Returns whether an address has a host, and a port that is one if any."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def check_endpoint(config: EndpointConfig, model: str) -> None:
    """Raises a ValueError if the server cannot be reached, refuses the key, or lacks the model.

    Asks for the server's list of models. Some servers have none, which is no fault.
    """
    key = config.read_key()
    url = f"{config.url.rstrip('/')}/models"
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=_SECONDS_TO_ANSWER) as reply:
            listed = _names_in(json.load(reply))
    except HTTPError as error:
        if error.code in (404, 405, 501):
            return
        if error.code in (401, 403):
            raise ValueError(refused_key(config, error.code)) from None
        raise ValueError(
            f"the server at {config.url} answers {error.code} when asked for its models; mend the "
            "server, or correct endpoint.url"
        ) from None
    except ValueError:
        raise ValueError(
            f"what answers at {config.url} is no OpenAI-compatible server: its list of models "
            "cannot be read; correct endpoint.url, which most often ends on /v1"
        ) from None
    except OSError as error:
        cause = getattr(error, "reason", None) or error
        raise ValueError(
            f"no server answers at endpoint.url {config.url} ({cause}); start it, or correct the "
            "address"
        ) from error
    if listed and model not in listed:
        near = difflib.get_close_matches(model, listed, n=_NUM_NAMED, cutoff=0.4)
        names = near or listed[:_NUM_NAMED]
        raise ValueError(
            f"the server at {config.url} has no model {model!r}; set model to one of its own, such "
            f"as {', '.join(names)}"
        )


def refused_key(config: EndpointConfig, code: int) -> str:
    """Returns the sentence on a server that refuses the key, or wants one."""
    if config.key_variable is None:
        remedy = "set endpoint.key_variable to the environment variable that holds its key"
    else:
        remedy = f"set the environment variable {config.key_variable} to a key that it takes"
    return f"the server at {config.url} refuses the key ({code}); {remedy}"


def _names_in(answer: Any) -> list[str]:
    """Returns the names in a server's list of models; raises ValueError for any other answer."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no list of models")
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]
