"""An OpenAI-compatible server on loopback that answers as a script says, and keeps what it got."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.servers import answering

MODEL = "town-1"
SOON = {"retry-after-ms": "10"}
"""Asks a client to come back in a hundredth of a second."""

Script = Callable[[dict[str, Any], int], Response]
"""Takes the body of a request and how many came before it."""


@dataclass
class ScriptedServer:
    """What a server answers, and what it was asked."""

    script: Script
    models: Callable[[], Response]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0
    seconds: float = 0.0
    """Time that an answer takes."""

    def reset(self, script: Script) -> None:
        """Starts anew with another script."""
        self.script, self.models, self.seconds = script, lambda: listing(MODEL), 0.0
        self.bodies, self.keys, self.most_open = [], [], 0

    async def complete(self, request: Request) -> Response:
        import anyio

        body = json.loads(await request.body())
        index = len(self.bodies)
        self.bodies.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            if self.seconds:
                await anyio.sleep(self.seconds)
            return self.script(body, index)
        finally:
            self.num_open -= 1

    async def listed(self, request: Request) -> Response:
        self.keys.append(request.headers.get("authorization", ""))
        return self.models()


def completion(
    *texts: str | None,
    model: str = MODEL,
    usage: Mapping[str, Any] | None = None,
    finish: str = "stop",
    **fields: Any,
) -> JSONResponse:
    """A chat completion with these texts; `fields` are further ones of each message."""
    told = {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
    return JSONResponse(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [
                {
                    "index": i,
                    "finish_reason": finish,
                    "message": {"role": "assistant", "content": text, **fields},
                }
                for i, text in enumerate(texts)
            ],
            "usage": told if usage is None else (dict(usage) or None),
        }
    )


def refusal(code: int, message: str, **headers: str) -> JSONResponse:
    """An error as servers word it; `code` is the status."""
    body = {"error": {"message": message, "type": "error", "code": None}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse(body, status_code=code, headers={**SOON, **named})


def half() -> Response:
    """A body that ends before the length that its header tells."""

    def parts() -> Iterator[bytes]:
        yield b'{"id": "c", "choi'

    headers = {"content-length": "400", "content-type": "application/json"}
    return StreamingResponse(parts(), headers=headers)


def listing(*names: str) -> JSONResponse:
    return JSONResponse({"object": "list", "data": [{"id": name} for name in names]})


@contextmanager
def scripted(script: Script) -> Iterator[ScriptedServer]:
    """A server that answers by the script until the block ends."""
    server = ScriptedServer(script, lambda: listing(MODEL))
    routes = [
        Route("/v1/chat/completions", server.complete, methods=["POST"]),
        Route("/v1/models", server.listed),
    ]
    with answering(routes) as address:
        server.url = f"{address}/v1"
        yield server
