"""An endpoint as a recipe describes it: address, key, prices, budget, and the checks before work.

The key itself is in no configuration: a recipe names the environment variable that holds it.
"""

import difflib
import json
import os
import re
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

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
_SECRETS = ("key", "api_key", "apikey", "api-key", "access_token", "authorization")
"""Fields that hold keys."""
_SECONDS_TO_ANSWER = 2.0
_TRIES_IN_TIME = 3
"""Times a request may take as long as one try."""
_NUM_NAMED = 5


class Prices(Config):
    """Prices of an endpoint, each for a million tokens, in your currency."""

    input: float = Field(ge=0, allow_inf_nan=False)
    """Price of prompt tokens."""
    cached: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Price of prompt tokens that the server's prefix cache served. Unset: as `input`."""
    output: float = Field(ge=0, allow_inf_nan=False)
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

    money: float | None = Field(None, gt=0, allow_inf_nan=False)
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
    body: dict[str, object] = {}
    """Further fields of every request, by the server's names, such as `reasoning_effort`. Rows name
    them as a part of their model."""
    max_in_flight: int = Field(32, gt=0)
    """Most requests at a time, over all replicas; fewer while the server answers 429."""
    retries: int = Field(8, ge=0)
    """Retries of a request that met a fault of the server or the network. They wait as the server
    asks, if that is no more than two minutes, or else up to 8 seconds."""
    timeout_seconds: float = Field(600.0, gt=0, allow_inf_nan=False)
    """Time after which a request without an answer is sent again, in seconds; after three times as
    long it is given up."""
    prices: Prices | None = None
    """Prices of tokens. Unset: costs are not counted."""
    budget: Budget | None = None
    """Limits on what is spent. Unset: there is none."""

    @model_validator(mode="after")
    def _check(self) -> "EndpointConfig":
        # Nothing is repeated that could hold a key.
        if any(sign in self.url for sign in "@?#"):
            raise ValueError(
                "url holds more than an address, such as a key; leave it out, and name the "
                "variable that holds the key as key_variable"
            )
        if not _is_address(self.url):
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
        self._check_body()
        return self

    def _check_body(self) -> None:
        if taken := next((name for name in self.body if name in _OWN_FIELDS), None):
            raise ValueError(f"body has {taken!r}, which the engine sets itself; leave it out")
        if secret := next((name for name in self.body if name.lower() in _SECRETS), None):
            raise ValueError(
                f"body has {secret!r}, and every row would show it; name the variable that holds "
                "the key as key_variable"
            )
        try:
            json.dumps(self.body, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                "body holds a value that JSON has not, such as a date or nan; write it as text"
            ) from None

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

    @property
    def seconds_to_give_up(self) -> float:
        """Time after which a request is given up with all its retries, in seconds."""
        return _TRIES_IN_TIME * self.timeout_seconds

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
        if not (key.isascii() and key.isprintable()):
            # No header can hold it, and the errors of libraries would repeat it.
            raise ValueError(
                f"the environment variable {self.key_variable}, which endpoint.key_variable names, "
                "holds a line break or a letter that no key has; set it to the key alone"
            )
        return SecretStr(key)


def _is_address(url: str) -> bool:
    """Returns whether a text is an address with a host, and a port that is one if any."""
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    is_plain = url.isprintable() and " " not in url
    return has_place and is_plain and parts.scheme in ("http", "https")


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: the key would be sent along to whatever host it leads to."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def check_endpoint(config: EndpointConfig, model: str) -> None:
    """Raises a ValueError if the server cannot be reached, refuses the key, or lacks the model.

    Asks for the server's list of models. Some servers have none, which is no fault.
    """
    try:
        listed = _models_at(config)
    except HTTPError as error:
        if error.code in (404, 405, 501):
            return
        raise ValueError(_refusal(config, error)) from None
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


def _models_at(config: EndpointConfig) -> list[str]:
    """Returns the names in a server's list of models; raises ValueError for any other answer."""
    key = config.read_key()
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    request = Request(f"{config.url.rstrip('/')}/models", headers=headers)
    try:
        with build_opener(_NoRedirect).open(request, timeout=_SECONDS_TO_ANSWER) as reply:
            return _names_in(json.load(reply))
    except OSError:
        raise
    except (ValueError, HTTPException):
        raise ValueError(
            f"what answers at {config.url} is no OpenAI-compatible server: its list of models "
            "cannot be read; correct endpoint.url, which most often ends on /v1"
        ) from None


def _refusal(config: EndpointConfig, error: HTTPError) -> str:
    """Returns the sentence on a server that does not give its list of models."""
    if error.code in (401, 403):
        return refused_key(config, error.code)
    if 300 <= error.code < 400:
        place = str(error.headers.get("location")).partition("?")[0].removesuffix("/models")
        return (
            f"the server at {config.url} redirects to {place}; set endpoint.url to where the "
            "server is itself"
        )
    return (
        f"the server at {config.url} answers {error.code} when asked for its models; mend the "
        "server, or correct endpoint.url"
    )


def refused_key(config: EndpointConfig, code: int) -> str:
    """Returns the sentence on a server that refuses the key, or wants one."""
    if config.key_variable is None:
        remedy = "set endpoint.key_variable to the environment variable that holds its key"
    else:
        remedy = f"set the environment variable {config.key_variable} to a key that it takes"
    return f"the server at {config.url} refuses the key ({code}); {remedy}"


def _names_in(answer: Any) -> list[str]:
    """Returns the names in a list of models; raises ValueError if it is none."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no list of models")
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]
