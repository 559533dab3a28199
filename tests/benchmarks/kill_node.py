"""A refresh over two nodes of a Ray cluster, one of which is killed half-way.

    python tests/benchmarks/kill_node.py [--prompts 252] [--at judgements]

Starts a head with one processor and a node with another on this machine, refreshes Harbour with an
engine on each, and kills the second node and all that runs on it when half of the completions, or
of the judgements, are there. Prints what each engine had written by then (one of them may have
loaded later), what was lost or doubled in the end, and the factory's own figures as Prometheus
would read them.
"""

import argparse
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

from warehouse.catalog import connect
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
RAY = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--num-gpus=0"]
RAY += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", "--block"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start_node(environment: dict[str, str], metrics: int, *options: str) -> subprocess.Popen[bytes]:
    command = [*RAY, f"--metrics-export-port={metrics}", *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for_nodes(environment: dict[str, str], count: int) -> None:
    check = f"import ray; ray.init(logging_level='ERROR'); assert len(ray.nodes()) >= {count}"
    for _ in range(30):
        if (
            subprocess.run(
                [sys.executable, "-c", check], env=environment, capture_output=True
            ).returncode
            == 0
        ):
            return
        time.sleep(2)
    raise SystemExit("the cluster does not come up")


def kill_all(process: subprocess.Popen[bytes]) -> int:
    """Kills a node with everything below it, as a power cut would; returns how many processes."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        one.send_signal(signal.SIGKILL)
    process.wait()
    return len(family)


def figures(port: int, pattern: str) -> dict[str, float]:
    """Usage of a node whose names match, with their labels."""
    text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    lines = re.findall(rf"^({pattern}\S*) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def query(home: Path, sql: str) -> Any:
    return connect(Home(str(home))).execute(sql).fetchall()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=252)
    parser.add_argument("--at", choices=("completions", "judgements"), default="completions")
    options = parser.parse_args()
    num_prompts = options.prompts
    half = num_prompts if options.at == "completions" else 4 * num_prompts
    folder = Path(tempfile.mkdtemp())
    home, port, ports = folder / "home", free_port(), (free_port(), free_port())
    address = f"127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(24),
    }
    head = start_node(
        environment, ports[0], "--head", f"--port={port}", f"--dashboard-port={free_port()}"
    )
    wait_for_nodes(environment, 1)
    node = start_node(environment, ports[1], f"--address={address}")
    try:
        wait_for_nodes(environment, 2)
        began = time.monotonic()
        command = [sys.executable, "-m", "flows", "refresh", "harbour", "--home", str(home)]
        command += ["--set", f"sources.0.limit={num_prompts}", "--set", "engine.replicas=2"]
        command += ["--set", "engine.num_cpus=1"]
        run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while run.poll() is None:
            rows = f"SELECT count(*) FROM {options.at}_raw"
            made = query(home, rows)[0][0] if home.exists() else 0
            if made >= half:
                break
            time.sleep(0.2)
        engines = query_engines(home)
        killed = kill_all(node)
        print(f"killed a node of {killed} processes at {made} of {2 * half} {options.at}")
        print(f"tokens that each engine had written by then: {engines}")
        run.wait(timeout=1200)
        took = time.monotonic() - began
        for table, key in (("completions", "completion_id"), ("judgements", "judgement_id")):
            [(rows, ids)] = query(home, f"SELECT count(*), count(DISTINCT {key}) FROM {table}_raw")
            print(f"{table}: {rows} rows, doubled {rows - ids}")
        [(made, errors)] = query(
            home, "SELECT count(*), count_if(status = 'error') FROM completions"
        )
        verdicts = query(home, "SELECT verdict, count(*) FROM verdicts GROUP BY 1 ORDER BY 1")
        print(
            f"exit code {run.returncode}, {took:.0f} s; lost {2 * num_prompts - made}, "
            f"errors {errors}, {dict(verdicts)}"
        )
        time.sleep(15)
        for name, value in sorted(figures(ports[0], "ray_precept").items()):
            print(f"{name} {value:g}")
        print(f"figures of vLLM: {len(figures(ports[0], 'ray_vllm'))}")
    finally:
        for one in (node, head):
            if one.poll() is None:
                kill_all(one)


def query_engines(home: Path) -> dict[str, int]:
    files = sorted(home.glob("engines/*/*.json"))
    return {file.stem: json.loads(file.read_text())["output_tokens"] for file in files}


if __name__ == "__main__":
    main()
