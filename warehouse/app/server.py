"""Serves the page on one port, to browsers that have its token."""

import contextlib
import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warehouse.app.desk import open_desk
from warehouse.home import Home

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 2718
_PAGE = Path(__file__).parent / "page.py"
_SECONDS_TO_START = 30.0
_SECONDS_TO_STOP = 3.0
_HEADERS = (
    # Tables show an address of a picture as the picture: data must not make a browser fetch it.
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        b"connect-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none'; "
        b"form-action 'self'; base-uri 'self'",
    ),
)
"""Headers of every reply."""


class ServerError(ValueError):
    """A page that cannot be served: marimo is not installed, or the port is taken."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a page."""

    host: str
    port: int
    token: str
    """Secret that the page asks for; the URL has it."""

    @property
    def url(self) -> str:
        """The page's URL, which opens it without a further question."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?access_token={self.token}"


@contextlib.contextmanager
def serving(
    home: Home, *, host: str = DEFAULT_HOST, port: int | None = None, run_id: str | None = None
) -> Iterator[Address]:
    """Serves the page of a warehouse until the block ends; yields its address.

    Without a port, the default one is taken if it is free, else any free one. The page begins with
    a run if the start of its id is given. Raises ServerError if marimo is missing or the port
    cannot be had, QuestionError for an unknown run, and ShardError if another version of Precept
    wrote the warehouse.
    """
    with listening(host, port) as listener:
        marimo = _marimo()
        address = Address(host, listener.getsockname()[1], secrets.token_urlsafe(24))
        open_desk(home, run_id=run_id)
        import uvicorn

        builder = marimo.create_asgi_app(quiet=True, token=address.token)
        config = uvicorn.Config(
            _closed(builder.with_app(path="", root=str(_PAGE)).build()),
            log_level="error",
            timeout_graceful_shutdown=1,
            # Pings of a second keep a browser's connection from being closed as idle.
            ws_ping_interval=1,
            ws_ping_timeout=60,
        )
        server = uvicorn.Server(config)
        # In a thread of its own it leaves the signals to the command.
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        _wait_until(server, thread)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(_SECONDS_TO_STOP)


def _closed(app: Any) -> Any:
    """Returns an ASGI app whose pages load nothing from elsewhere, and stand in no other page."""

    async def reply(scope: Any, receive: Any, send: Any) -> None:
        async def send_closed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await app(scope, receive, send_closed)

    return reply


def _wait_until(server: Any, thread: threading.Thread) -> None:
    """Returns once a server answers; raises ServerError if it ends before."""
    pause = threading.Event()
    waited = 0.0
    while not server.started:
        if not thread.is_alive() or waited > _SECONDS_TO_START:
            raise ServerError("the page's server did not start; see precept doctor")
        pause.wait(0.05)
        waited += 0.05


@contextlib.contextmanager
def listening(host: str, port: int | None) -> Iterator[socket.socket]:
    """Yields a socket that listens; raises ServerError if the port cannot be had."""
    if not host:
        # A socket would take it for every address of the machine.
        raise ServerError("--host is empty; give an address, such as 127.0.0.1")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    tries = [port] if port is not None else [DEFAULT_PORT, 0]
    for number in tries:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            # At once: until it listens, another process may bind the same port.
            listener.listen()
        # Not every text can be looked up as a host, nor every number be a port.
        except (OSError, OverflowError, UnicodeError) as error:
            listener.close()
            if number == tries[-1]:
                cause = error.strerror if isinstance(error, OSError) else error
                raise ServerError(
                    f"the page cannot be served at {host}:{number}: {cause}; give another "
                    "--host or --port"
                ) from error
            continue
        with listener:
            yield listener
        return


def _marimo() -> Any:
    """Returns marimo, which keeps to itself; raises ServerError if a library is missing."""
    try:
        import altair  # noqa: F401
        import marimo
    except ImportError as error:
        raise ServerError(
            f"the page needs {error.name}, which is not installed; run pip install 'precept[app]'"
        ) from error
    logging.getLogger("marimo").setLevel(logging.ERROR)
    return marimo
