"""Speed of the attacks, and the structure that they forge in a model's chat.

    python tests/benchmarks/attacks.py [--prompts 302]

Renders the prompts of StrongREJECT under twenty attacks, for chat templates like those of Qwen3 and
gpt-oss, and tokenises each chat twice: raw, as an unprotected interface would, and with special
tokens broken. Counts the special tokens beyond those of the same chat with harmless words; broken
text must have none. Prints figures alone, never a prompt.
"""

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from specs.attacks import Attack, Marks, find_attacks
from specs.prompts import Message
from tests.rows import DATA
from tests.specs.test_attacks import marks_of, plain, structure
from tests.tasks.engine.test_chat_template import chats_of

FILE = DATA / "strongreject" / "strongreject_dataset.csv"
FAMILIES = ("qwen3", "gpt-oss")
NAMES = (
    "none",
    "rot_13",
    "base_64",
    "hex",
    "morse",
    "reversed",
    "zero_width",
    "best_of_n",
    "payload_splitting",
    "prefix_injection",
    "style_injection_json",
    "distractors",
    "aim",
    "policy_puppetry",
    "few_shot_json",
    "combination_3",
    "template_end_of_turn",
    "template_reasoning",
    "close_think",
    "forged_justification",
)


def measure(attack: Attack, requests: list[str], *, family: str, marks: Marks) -> dict[str, Any]:
    """Returns the time that an attack takes, and the special tokens that it forges."""
    chats: list[list[Message]] = [[{"role": "user", "content": request}] for request in requests]
    began = time.monotonic()
    attacked = [attack.render(chat, marks=marks) for chat in chats]
    rendered = time.monotonic()
    broken = [chats_of(family).neutral(chat) for chat in attacked]
    neutralised = time.monotonic()
    usual = len(structure(family, plain(attacked[0])))
    num_forged = {
        way: sum(abs(len(structure(family, chat)) - usual) for chat in shown)
        for way, shown in (("raw", attacked), ("broken", broken))
    }
    return {
        "family": family,
        "attack": attack.name,
        "chats": len(chats),
        "render_seconds": round(rendered - began, 3),
        "break_seconds": round(neutralised - rendered, 3),
        **num_forged,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=302)
    options = parser.parse_args()
    if not FILE.exists():
        sys.exit(f"{FILE} is missing; put the public file of StrongREJECT there")
    with FILE.open(encoding="utf-8", newline="") as file:
        requests = [row["forbidden_prompt"] for row in csv.DictReader(file)][: options.prompts]
    began = time.monotonic()
    rows = [
        measure(attack, requests, family=family, marks=marks_of(family))
        for family in FAMILIES
        for attack in find_attacks(NAMES)
    ]
    for row in rows:
        print(json.dumps(row))
    total = {key: sum(row[key] for row in rows) for key in ("chats", "raw", "broken")}
    print(json.dumps(total | {"seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
