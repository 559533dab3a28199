"""Real servers, each a process on a free port of this machine."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen


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
