"""A refresh over two nodes of a Ray cluster, one of which is killed half-way.

    python tests/benchmarks/kill_node.py [--prompts 252] [--at judgements]

Starts on this machine a head and a node of one processor each, refreshes Harbour with an engine on
each, and kills the node with all its processes once half of the completions or judgements are
stored. Prints the tokens of each engine at that moment (one of them may have loaded later), the
rows that were lost or doubled in the end, and the factory's metrics as Prometheus reads them.
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

from warehouse.catalog import connect, read
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
RAY = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--num-gpus=0"]
RAY += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", "--block"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_node(
    environment: dict[str, str], metrics_port: int, *options: str
) -> subprocess.Popen[bytes]:
    command = [*RAY, f"--metrics-export-port={metrics_port}", *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for_nodes(environment: dict[str, str], count: int) -> None:
    check = f"import ray; ray.init(logging_level='ERROR'); assert len(ray.nodes()) >= {count}"
    for _ in range(30):
        command = [sys.executable, "-c", check]
        if subprocess.run(command, env=environment, capture_output=True).returncode == 0:
            return
        time.sleep(2)
    raise SystemExit(f"the cluster has fewer than {count} nodes after 30 checks")


def kill_all(process: subprocess.Popen[bytes]) -> int:
    """Kills a node and its descendants, as a power cut would; returns the number of processes."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.wait()
    return len(family)


def metrics(port: int, pattern: str) -> dict[str, float]:
    """Returns a node's metrics whose names match, by name and labels."""
    text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    lines = re.findall(rf"^({pattern}\S*) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def query(home: Path, sql: str) -> Any:
    return read(connect(Home(str(home))), sql).fetchall()


def tokens_by_engine(home: Path) -> dict[str, int]:
    """Returns the output tokens that each engine last wrote, by engine."""
    files = sorted(home.glob("engines/*/*.json"))
    return {file.stem: json.loads(file.read_text())["output_tokens"] for file in files}


def refresh_and_kill(
    node: subprocess.Popen[bytes],
    environment: dict[str, str],
    *,
    home: Path,
    num_prompts: int,
    table: str,
) -> int:
    """Refreshes Harbour, and kills the node at half of a table's rows; returns the exit code."""
    half = num_prompts if table == "completions" else 4 * num_prompts
    command = [sys.executable, "-m", "flows", "refresh", "harbour", "--home", str(home)]
    command += ["--set", f"sources.0.limit={num_prompts}", "--set", "engine.replicas=2"]
    command += ["--set", "engine.num_cpus=1"]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    num_rows = 0
    while run.poll() is None:
        count = f"SELECT count(*) FROM {table}_raw"
        num_rows = query(home, count)[0][0] if home.exists() else 0
        if num_rows >= half:
            break
        time.sleep(0.2)
    tokens = tokens_by_engine(home)
    num_processes = kill_all(node)
    print(f"killed a node of {num_processes} processes at {num_rows} of {2 * half} {table}")
    print(f"tokens that each engine had written by then: {tokens}")
    return run.wait(timeout=1200)


def print_losses(home: Path, *, num_prompts: int) -> None:
    """Prints the rows that the warehouse lacks, holds twice, or holds as errors."""
    for table, key in (("completions", "completion_id"), ("judgements", "judgement_id")):
        [(rows, ids)] = query(home, f"SELECT count(*), count(DISTINCT {key}) FROM {table}_raw")
        print(f"{table}: {rows} rows, doubled {rows - ids}")
    counts = "SELECT count(*), count_if(status = 'error') FROM completions"
    [(num_completions, num_errors)] = query(home, counts)
    verdicts = query(home, "SELECT verdict, count(*) FROM verdicts GROUP BY 1 ORDER BY 1")
    lost = 2 * num_prompts - num_completions
    print(f"lost {lost}, errors {num_errors}, {dict(verdicts)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=252)
    parser.add_argument("--at", choices=("completions", "judgements"), default="completions")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp()) / "home"
    port, head_metrics, node_metrics = free_port(), free_port(), free_port()
    address = f"127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(24),
    }
    head = start_node(
        environment, head_metrics, "--head", f"--port={port}", f"--dashboard-port={free_port()}"
    )
    wait_for_nodes(environment, 1)
    node = start_node(environment, node_metrics, f"--address={address}")
    try:
        wait_for_nodes(environment, 2)
        began = time.monotonic()
        exit_code = refresh_and_kill(
            node, environment, home=home, num_prompts=options.prompts, table=options.at
        )
        print(f"exit code {exit_code}, {time.monotonic() - began:.0f} s")
        print_losses(home, num_prompts=options.prompts)
        # Ray exports metrics every ten seconds.
        time.sleep(15)
        for name, value in sorted(metrics(head_metrics, "ray_precept").items()):
            print(f"{name} {value:g}")
        print(f"metrics of vLLM: {len(metrics(head_metrics, 'ray_vllm'))}")
    finally:
        for process in (node, head):
            if process.poll() is None:
                kill_all(process)


if __name__ == "__main__":
    main()
