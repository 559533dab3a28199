"""A warehouse from which data leaves: rows that may, superseded ones, and those of suites."""

import json
from typing import Any

from tests.rows import case, completion, example, judgement, later, prompt, run, spec_text
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import (
    CASES,
    COMPLETIONS,
    EXAMPLES,
    JUDGEMENTS,
    PROMPTS,
    RUNS,
    SPECS,
    Turn,
    text_id,
)

SPEC = "The ferry rules, which never leave: B1 says that nobody rows at night."
RECIPE: dict[str, Any] = {
    "name": "town",
    "generate": {"template": "spec_first", "samples": 2, "sampling": {"temperature": 0.7}},
    "judge": {"template": "spec_first", "mode": "race", "sampling": {"temperature": 0.6}},
    "curate": {"best_of": 1},
    "license": None,
    "sources": [{"name": "hand", "language": None, "language_column": "lang"}],
    "traces": [],
}
FIGURES: dict[str, Any] = {
    "collect": {
        "asked": {
            "read": 9, "kept": 5, "exact_duplicates": 2, "near_duplicates": 1, "contaminated": 1,
            "conflicting": 0, "left_out": 0, "unassigned": 0, "to_assign": 0, "bad": {},
        }
    },
    "stages": {
        "generate": {
            "num_rows": 10, "seconds": 20.5, "num_gpus": 1, "table": "completions",
            "usage": {"prompt_tokens": 400, "cached_tokens": 300, "output_tokens": 123},
        }
    },
}  # fmt: skip


def chat(text: str) -> list[Turn]:
    return [
        Turn(role="system", content="You are the harbour master."),
        Turn(role="user", content="Hello."),
        Turn(role="assistant", content="Good day."),
        Turn(role="user", content=text),
    ]


def words(name: str) -> dict[str, Any]:
    """The texts of a completion, by its name."""
    reasoning, answer = f"Rule B1 covers {name}.", f"The answer of {name}."
    return {"reasoning": reasoning, "answer": answer, "text_id": text_id(reasoning, answer)}


def fill(home: Home) -> None:
    """Six prompts, each with a good and a bad completion; three of them must not leave."""
    prompts = [
        prompt("ferry", prompt_id="ferry"),
        prompt("raft", prompt_id="raft", ideal_response="refuse", language="de"),
        prompt("asked by a suite", prompt_id="asked"),
        prompt("Said in the suite, twice!", prompt_id="said"),
        prompt("of a test", prompt_id="test", split="test"),
        prompt("talk", prompt_id="talk", messages=chat("talk")),
    ]
    completions, judgements, examples = [], [], []
    for asked in prompts:
        for number, (side, score) in enumerate((("good", 9.0), ("bad", 2.0))):
            name = f"{asked.prompt_id}-{side}"
            texts = words(name)
            completions.append(
                completion(name, prompt_id=asked.prompt_id, sample_index=number, **texts)
            )
            judgements += [
                judgement(name, index, score, prompt_id=asked.prompt_id, text_id=texts["text_id"])
                for index in range(2)
            ]
        examples.append(example(f"{asked.prompt_id}-good", prompt_id=asked.prompt_id))
    # Of a spec that an edit replaced, and one that the judge could not read.
    old = words("ferry-old")
    completions.append(completion("ferry-old", prompt_id="ferry", spec_id="old", **old))
    judgements.append(
        judgement("ferry-old", 0, 9.0, prompt_id="ferry", spec_id="old", text_id=old["text_id"])
    )
    examples.append(example("ferry-old", prompt_id="ferry", spec_id="old"))
    unread = words("ferry-unread")
    completions.append(completion("ferry-unread", prompt_id="ferry", sample_index=2, **unread))
    write_shard(home, PROMPTS, prompts)
    write_shard(home, SPECS, [spec_text("s", text=SPEC), spec_text("old", text="older")])
    write_shard(home, COMPLETIONS, completions)
    write_shard(home, JUDGEMENTS, judgements)
    write_shard(home, EXAMPLES, examples)
    said = [Turn(role="user", content="said in  the suite: TWICE")]
    write_shard(
        home,
        CASES,
        [case("asked"), case("other", prompt_id="other", messages=said, original=said)],
    )
    write_shard(home, RUNS, [refreshed("refreshed")])


def refreshed(run_id: str, **changes: Any) -> Any:
    row: dict[str, Any] = {
        "recipe": "town",
        "num_samples": 3,
        "set_id": "set",
        "resolved_recipe": json.dumps(RECIPE),
        "figures": json.dumps(FIGURES),
        "started_at": later(1),
        "versions": json.dumps({"duckdb": "2.0.0"}),
    }
    return run(run_id, **{**row, **changes})
