"""Prompts about the rules of a policy pack, for trying a recipe without data of one's own.

They are the same for the same pack, and no measure of a model.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specs.policy import Pack

_CATEGORIES = 4
"""Most policies that are asked about."""
_RULES = 3
"""Most rules of each."""
_FEWEST = 12
"""Least number of prompts."""
_IDEALS = ("comply", "refuse", None)
"""Ideal responses in turn: a benign, a harmful and an ambiguous prompt."""


def write_files(pack: Pack, folder: Path, *, num_variants: int = 1) -> None:
    """Writes prompts with a category and without, traces, chats of capability, and a suite, into a
    new folder, which is there once it is whole.

    `num_variants` is the least number of prompts about each rule.
    """
    rows = list(_rows(pack, num_variants))
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, chosen in (("labelled", rows), ("unlabelled", rows[:3]), ("traces", rows)):
        # A prompt that two sources label differently would be a conflict.
        own = [{**row, "prompt": f"{row['prompt']} ({name})"} for row in chosen]
        _write_lines(part / f"{name}.jsonl", own)
    chats = [_chat(f"What is {n} and {n}?", f"{n} and {n} make {2 * n}.") for n in range(1, 9)]
    _write_lines(part / "capability.jsonl", chats)
    _write_lines(part / "suite.jsonl", [{**row, "target": "9"} for row in rows[:4]])
    columns = ("prompt", "category", "ideal_response")
    (part / "suite.toml").write_text(
        'name = "rules"\ntarget = "target"\nlabel = "category"\n\n[source]\n'
        + f"path = {json.dumps(str(folder / 'suite.jsonl'))}\n"
        + "".join(f'{name} = "{name}"\n' for name in columns),
        encoding="utf-8",
    )
    os.replace(part, folder)


def _rows(pack: Pack, num_variants: int) -> Iterator[dict[str, Any]]:
    """Yields prompts about the first rules of the first policies, each kind in turn, with a trace
    and a score; as many of a rule as a small pack needs."""
    policies = [policy for policy in pack.policies.values() if not policy.is_guide][:_CATEGORIES]
    rules = [(policy, rule) for policy in policies for rule in policy.rules[:_RULES]]
    if not rules:
        raise ValueError(
            f"pack {pack.id} has no rule of a policy that is no guide, to ask about; add one"
        )
    num_variants = max(num_variants, math.ceil(_FEWEST / len(rules)))
    number = 0
    for variant in range(num_variants):
        for policy, rule in rules:
            reader = f", for reader {variant}" if variant else ""
            yield {
                "prompt": f"{rule.title}: may you tell me about that{reader}?",
                "category": policy.id,
                "ideal_response": _IDEALS[number % len(_IDEALS)],
                "reasoning": f"This is about {rule.title}, rule {rule.id}.",
                "answer": f"Here is what I can say about {rule.title}.",
                "score": 9,
            }
            number += 1


def _chat(question: str, answer: str) -> dict[str, Any]:
    reply = {"role": "assistant", "content": answer, "reasoning_content": "A sum."}
    return {"messages": [{"role": "user", "content": question}, reply]}


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
