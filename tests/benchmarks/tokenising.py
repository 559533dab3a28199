"""Time and memory that a million examples take to become tokens with labels.

    python tests/benchmarks/tokenising.py [--examples 1000000]

Writes sets of a tenth and of all of the examples, and tokenises each in a process of its own.
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

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.rows import example
from warehouse.home import Home
from warehouse.shards import write_all
from warehouse.tables import EXAMPLES, AssistantTurn, Turn, content_id

PROJECT = Path(__file__).parents[2]


def fill(home: Home, count: int) -> None:
    """Writes a set of examples, no two of which are alike."""
    base = example("base")
    reasoning = "The user asks about the ferry. The boats policy has ferry [B1, comply]. I comply."
    examples = (
        replace(
            base,
            completion_id=content_id(number),
            prompt=[Turn(role="user", content=f"How do I use the ferry number {number}?")],
            completion=[
                AssistantTurn(
                    role="assistant",
                    content=f"For the ferry take salt and wax, {number}.",
                    reasoning_content=reasoning,
                )
            ],
        )
        for number in range(count)
    )
    write_all(home, EXAMPLES, examples)


def tokenise(home: str) -> None:
    from transformers import AutoTokenizer

    from tasks.engine.chat_template import ChatTemplate
    from tasks.training.tokenise import SftData
    from tasks.training.tokenise import tokenise as tokenise_set
    from warehouse.catalog import connect

    tokenizer = AutoTokenizer.from_pretrained(PROJECT / "infra" / "harbour" / "model")
    connection = connect(Home(home))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    data = SftData(set_id="set", max_length=8192)
    tokenised = tokenise_set(connection, ChatTemplate(tokenizer), data, Path(home) / "tokens")
    figures = {
        "rows": tokenised.figures.num_rows,
        "tokens": tokenised.figures.num_tokens,
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
