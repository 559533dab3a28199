"""Servers on a free port of this machine: real ones in processes, stand-ins in threads."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route


@contextmanager
def running(*module: str, answers: str, seconds: float) -> Iterator[str]:
    """The address of `python -m module … PORT`, once it answers at a path; ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", *module, str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + seconds
    while True:
        try:
            urlopen(f"{url}{answers}", timeout=1).close()
            break
        except (URLError, TimeoutError):
            assert server.poll() is None and time.monotonic() < deadline, f"no {module[0]}"
            time.sleep(0.2)
    yield url
    server.terminate()
    server.wait(timeout=30)


@contextmanager
def answering(routes: Sequence[Route]) -> Iterator[str]:
    """The address on loopback at which a thread answers by routes until the block ends."""
    config = uvicorn.Config(
        Starlette(routes=routes), port=0, log_level="critical", timeout_graceful_shutdown=1
    )
    serving = uvicorn.Server(config)
    thread = threading.Thread(target=serving.run, daemon=True)
    thread.start()
    while not serving.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = serving.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    serving.should_exit = True
    thread.join()
