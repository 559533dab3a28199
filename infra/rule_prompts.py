"""Prompts about the rules of a policy pack, for trying a recipe without data of one's own.

They are the same for the same pack. What a model makes of them says nothing of what it is worth.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specs.policy import Pack

_CATEGORIES, _RULES = 4, 2


def write_files(pack: Pack, folder: Path, *, num_variants: int = 1) -> None:
    """Writes prompts with a category and without, traces, chats of capability, and a suite.

    `num_variants` is the number of prompts about each rule.
    """
    rows = list(_rows(pack, num_variants))
    for name, part in (("labelled", rows), ("unlabelled", rows[:2]), ("traces", rows)):
        # A prompt that two sources label differently would be a conflict.
        own = [{**row, "prompt": f"{row['prompt']} ({name})"} for row in part]
        _write_lines(folder / f"{name}.jsonl", own)
    chats = [_chat(f"What is {n} and {n}?", f"{n} and {n} make {2 * n}.") for n in range(1, 9)]
    _write_lines(folder / "capability.jsonl", chats)
    _write_lines(folder / "suite.jsonl", [{**row, "target": "9"} for row in rows[:4]])
    columns = ("prompt", "category", "ideal_response")
    (folder / "suite.toml").write_text(
        'name = "rules"\ntarget = "target"\nlabel = "category"\n\n[source]\n'
        + f"path = {json.dumps(str(folder / 'suite.jsonl'))}\n"
        + "".join(f'{name} = "{name}"\n' for name in columns),
        encoding="utf-8",
    )


def _rows(pack: Pack, num_variants: int) -> Iterator[dict[str, Any]]:
    """Yields prompts about the rules of the first policies, with a trace and a score."""
    policies = [policy for policy in pack.policies.values() if not policy.is_guide][:_CATEGORIES]
    for policy in policies:
        for number, rule in enumerate(policy.rules[:_RULES]):
            for variant in range(num_variants):
                nth = f", for reader {variant}" if variant else ""
                yield {
                    "prompt": f"{rule.title}: may you tell me about that{nth}?",
                    "category": policy.id,
                    "ideal_response": ("comply", "refuse")[number % 2],
                    "reasoning": f"This is about {rule.title}, rule {rule.id}.",
                    "answer": f"Here is what I can say about {rule.title}.",
                    "score": 9,
                }


def _chat(question: str, answer: str) -> dict[str, Any]:
    reply = {"role": "assistant", "content": answer, "reasoning_content": "A sum."}
    return {"messages": [{"role": "user", "content": question}, reply]}


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
