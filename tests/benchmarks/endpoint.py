"""An endpoint beside the own engine: accepted prompts, speed, and what a kill or a budget costs.

    python tests/benchmarks/endpoint.py [--prompts 60]

vLLM's own server holds the scale model on loopback, behind a key, and notes every request that it
gets. Harbour is refreshed with greedy sampling: by the own engine; by the server; by the server
killed with SIGKILL after a quarter, a half and three quarters of the requests, and again to its
end; by the server with three quarters of the tokens as budget, and again with a raised one. At the
end the key is looked for in all that was written and printed.
"""

import argparse
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from warehouse.catalog import connect, read
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
KEY = "sk-of-the-benchmark-4711"
KEY_VARIABLE = "BENCHMARK_KEY"
NOTES_VARIABLE = "NOTES_OF_REQUESTS"
GREEDY = "{ temperature = 0.0, max_tokens = 160 }"
ACCEPTED = """
    SELECT c.prompt_id || c.reasoning || c.answer
    FROM completions AS c
    JOIN verdicts AS v USING (completion_id)
    WHERE v.verdict = 'accepted'
"""
KEPT = (
    "SELECT completion_id FROM completions_raw",
    "SELECT judgement_id FROM judgements_raw",
)
TEXTS = "SELECT prompt_id || reasoning || answer FROM completions"


class NoteRequests:
    """A layer of the server that writes the hash of every question that arrives, a line each."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.path = Path(os.environ[NOTES_VARIABLE])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path", "").endswith("/chat/completions"):
            body = b""

            async def noted() -> Any:
                nonlocal body
                message = await receive()
                body += message.get("body", b"")
                if message["type"] == "http.request" and not message.get("more_body"):
                    with self.path.open("a") as file:
                        file.write(hashlib.sha256(body).hexdigest() + "\n")
                return message

            await self.app(scope, noted, send)
        else:
            await self.app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the scale model, and the file of its requests."""

    url: str
    notes: Path

    def requests(self) -> list[str]:
        """Returns the hashes of all requests that have arrived."""
        return self.notes.read_text().split() if self.notes.exists() else []

    def engine(self, **options: int | str) -> list[str]:
        """Returns the overrides of a recipe that ask this server."""
        settings = "".join(f", {name} = {value}" for name, value in options.items())
        endpoint = f'url = "{self.url}", key_variable = "{KEY_VARIABLE}"{settings}'
        # The marks of the reasoning are tokens that a server leaves out of its replies otherwise.
        endpoint += ", body = { skip_special_tokens = false }"
        return [f'engine={{ model = "harbour", endpoint = {{ {endpoint} }} }}']


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Starts vLLM's server of the scale model with the settings of Harbour's engine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = Server(f"http://127.0.0.1:{port}/v1", folder / "requests")
    # The command `vllm` asks for the version of a package that the CPU build is not named after.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(PROJECT / "infra/harbour/model"), "--served-model-name", "harbour"]
    command += ["--host", "127.0.0.1", "--port", port, "--dtype", "bfloat16", "--enforce-eager"]
    command += ["--max-model-len", "2048", "--max-num-seqs", "128", "--block-size", "32"]
    command += ["--max-num-batched-tokens", "4096", "--api-key", KEY]
    command += ["--middleware", "tests.benchmarks.endpoint.NoteRequests"]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment = os.environ | own | {NOTES_VARIABLE: str(server.notes)}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=PROJECT, env=environment, start_new_session=True
        )
    try:
        wait_for(server, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Waits until the server answers."""
    while True:
        assert process.poll() is None, f"the server ended; see {server.notes.parent}/server.log"
        try:
            urlopen(server.url.replace("/v1", "/health"), timeout=2).close()
            return
        except URLError:
            time.sleep(1)


def start(home: Path, num_prompts: int, *overrides: str) -> subprocess.Popen[bytes]:
    """Starts a refresh of Harbour with greedy sampling, which writes beside its warehouse."""
    command = [sys.executable, "-m", "flows", "refresh", "harbour", "--home", str(home), "--json"]
    settings = [f"sources.0.limit={num_prompts}", "generate.samples=1", "judge.samples=1"]
    settings += [f"generate.sampling={GREEDY}", f"judge.sampling={GREEDY}"]
    for setting in [*settings, *overrides]:
        command += ["--set", setting]
    with (
        home.with_suffix(".printed").open("a") as out,
        home.with_suffix(".progress").open("a") as err,
    ):
        return subprocess.Popen(command, stdout=out, stderr=err, cwd=PROJECT)


def refresh(home: Path, num_prompts: int, *overrides: str) -> dict[str, Any]:
    """Refreshes to the end; returns the figures of the stages."""
    assert start(home, num_prompts, *overrides).wait() == 0, told(home)
    printed = home.with_suffix(".printed").read_text().splitlines()
    last = [line for line in printed if line.startswith("{")][-1]
    stages: dict[str, Any] = json.loads(last)["figures"]["stages"]
    return stages


def told(home: Path) -> str:
    """Returns the end of what the refreshes of a warehouse told."""
    return "".join(home.with_suffix(".progress").read_text().splitlines(keepends=True)[-3:])


def texts(home: Path, query: str) -> set[str]:
    return {row[0] for row in read(connect(Home(str(home))), query).fetchall()}


def compare(folder: Path, server: Server, num_prompts: int) -> tuple[int, int]:
    """Prints both engines beside each other; returns the server's tokens and requests."""
    own, asked = folder / "own", folder / "asked"
    stages = {
        "own engine": refresh(own, num_prompts),
        "endpoint": refresh(asked, num_prompts, *server.engine(max_in_flight=128)),
    }
    rates, spent = {}, {}
    for name, stages_of in stages.items():
        usage = [stages_of[stage]["usage"] for stage in ("generate", "judge")]
        tokens = sum(one["output_tokens"] for one in usage)
        rates[name] = tokens / sum(stages_of[stage]["seconds"] for stage in ("generate", "judge"))
        print(f"{name}: {tokens} output tokens, {rates[name]:.0f} tokens/s", flush=True)
        spent[name] = tokens + sum(one["prompt_tokens"] for one in usage)
    ratio = rates["endpoint"] / rates["own engine"]
    print(f"tokens/s of the endpoint: {ratio:.2f} of the own engine's")
    same = texts(own, TEXTS) & texts(asked, TEXTS)
    print(f"completions with equal texts: {len(same)} of {num_prompts}")
    by_own, by_asked = texts(own, ACCEPTED), texts(asked, ACCEPTED)
    shared = f"of which the same {len(by_own & by_asked)}"
    print(f"accepted: {len(by_own)} and {len(by_asked)}, {shared}", flush=True)
    return spent["endpoint"], len(server.requests())


def kill(folder: Path, server: Server, num_prompts: int, *, one_pass: int, after: int) -> None:
    """Prints the requests of a refresh that is killed after so many, and of its resumption."""
    home, before = folder / f"killed-{after}", len(server.requests())
    overrides = [*server.engine(max_in_flight=4), "stage.block_rows=1", "stage.blocks_in_flight=4"]
    run = start(home, num_prompts, *overrides)
    while run.poll() is None and len(server.requests()) - before < after:
        time.sleep(0.05)
    assert run.poll() is None, told(home)
    run.send_signal(signal.SIGKILL)
    run.wait()
    at_kill = len(server.requests()) - before
    kept = sum(map(len, (texts(home, query) for query in KEPT)))
    refresh(home, num_prompts, *overrides)
    sent = len(server.requests()) - before
    same = texts(home, ACCEPTED) == texts(folder / "asked", ACCEPTED)
    share = f"{sent} of {one_pass} requests, {sent / one_pass:.3f} of one pass"
    print(
        f"killed after {at_kill}, {kept} rows kept: {share}; accepted the same: {same}", flush=True
    )


def stop_by_budget(folder: Path, server: Server, num_prompts: int, *, spent: int) -> None:
    """Prints what a refresh without enough of a budget tells, and what is asked twice after it."""
    home, before = folder / "budget", len(server.requests())
    small, large = (f"{{ tokens = {tokens} }}" for tokens in (3 * spent // 4, 10 * spent))
    run = start(home, num_prompts, *server.engine(max_in_flight=4, budget=small))
    code = run.wait()
    at_stop = len(server.requests()) - before
    print(f"stopped by the budget after {at_stop} requests with exit code {code}: {told(home)}")
    refresh(home, num_prompts, *server.engine(max_in_flight=4, budget=large))
    asked = Counter(server.requests()[before:])
    same = texts(home, ACCEPTED) == texts(folder / "asked", ACCEPTED)
    twice = sum(asked.values()) - len(asked)
    print(
        f"resumed: {sum(asked.values())} requests, {twice} asked twice; accepted the same: {same}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=60)
    options = parser.parse_args()
    os.environ[KEY_VARIABLE] = KEY
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as server:
        folder = Path(name)
        spent, one_pass = compare(folder, server, options.prompts)
        for quarters in (1, 2, 3):
            after = one_pass * quarters // 4
            kill(folder, server, options.prompts, one_pass=one_pass, after=after)
        stop_by_budget(folder, server, options.prompts, spent=spent)
        (folder / "server.log").unlink()
        files = [file for file in folder.rglob("*") if file.is_file()]
        holding = [str(file) for file in files if KEY.encode() in file.read_bytes()]
        print(f"files that hold the key: {len(holding)} of {len(files)} {holding or ''}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(PROJECT))
    main()
