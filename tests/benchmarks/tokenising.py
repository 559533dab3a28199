"""Time and memory to make a million examples into tokens with labels.

    python tests/benchmarks/tokenising.py [--examples 1000000]

Writes a set of so many examples, then tokenises it in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.rows import example
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import EXAMPLES, AssistantTurn, Turn, content_id

PROJECT = Path(__file__).parents[2]
ROWS_PER_SHARD = 20_000


def fill(home: Home, count: int) -> None:
    base = example("base")
    thought = "The user asks about the ferry. The boats policy has ferry [B1, comply]. I comply."
    for start in range(0, count, ROWS_PER_SHARD):
        rows = []
        for number in range(start, min(count, start + ROWS_PER_SHARD)):
            reply = AssistantTurn(
                role="assistant",
                content=f"For the ferry take salt and wax, {number}.",
                reasoning_content=thought,
            )
            turn = Turn(role="user", content=f"How do I use the ferry number {number}?")
            name = content_id(number)
            rows.append(replace(base, completion_id=name, prompt=[turn], completion=[reply]))
        write_shard(home, EXAMPLES, rows)


def tokenise(home: str) -> None:
    from transformers import AutoTokenizer

    from tasks.engine.chat_template import ChatTemplate
    from tasks.training.sft import SftConfig
    from tasks.training.sft import tokenise as make
    from warehouse.catalog import connect

    tokenizer = AutoTokenizer.from_pretrained(PROJECT / "infra" / "harbour" / "model")
    connection = connect(Home(home))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    made = make(
        connection,
        ChatTemplate(tokenizer),
        config=SftConfig(),
        set_id="set",
        capability=None,
        folder=Path(home) / "tokens",
    )
    figures = {
        "rows": made.num_rows,
        "tokens": made.num_tokens,
        "seconds": round(time.monotonic() - began, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "before_gib": round(before / 2**20, 2),
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--tokenise", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tokenise:
        tokenise(options.tokenise)
        return
    with tempfile.TemporaryDirectory() as folder:
        for count in (options.examples // 10, options.examples):
            home = f"{folder}/{count}"
            fill(Home(home), count)
            command = [sys.executable, __file__, "--tokenise", home]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    main()
