"""Three rules of Harbour without a prompt: named, filled, and what is accepted of them then.

    python tests/benchmarks/coverage.py [--prompts 480] [--floor 5] [--rules B3 F1 T5]

No prompt of the recipe asks for what these rules are about. Coverage is counted after a refresh,
the rules are filled, and coverage is counted again after a second refresh that reads the file. The
oracle says how many of the accepted completions are right.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from flows.coverage import RuleCoverage, cover
from flows.recipe import Recipe, load_recipe
from infra.harbour import world
from infra.harbour.oracle import grade, read_request
from infra.harbour.world import PACK
from specs.pack import load_pack
from specs.policy import Pack
from tasks.paths import PROJECT
from warehouse.catalog import connect, look_up
from warehouse.home import Home

PROMPTS = PROJECT / "infra" / "harbour" / "prompts" / "train.jsonl"


def starved(pack: Pack, rules: Sequence[str], *, prompts: int) -> list[str]:
    """Returns lines of Harbour's prompts, none of which a rule of these covers."""
    lines = []
    for line in PROMPTS.read_text(encoding="utf-8").splitlines(keepends=True):
        request = read_request(json.loads(line)["messages"])
        [step] = world.steps_for(pack, request)
        if step.rule.id not in rules:
            lines.append(line)
    return lines[:prompts]


def recipe(folder: Path, *, with_fill: bool) -> Recipe:
    """Returns Harbour with the prompts in a folder, and those of the fill."""
    loaded = load_recipe("harbour", overrides=[f"sources.0.path={folder / 'prompts.jsonl'}"])
    if not with_fill:
        return loaded
    fill = loaded.sources[0].model_copy(
        update={
            "name": "fill",
            "path": str(folder / "fill.jsonl"),
            "language_column": None,
        }
    )
    return loaded.model_copy(update={"sources": [*loaded.sources, fill]})


def show(title: str, rules: Sequence[RuleCoverage], chosen: Sequence[str]) -> None:
    """Prints the coverage of the chosen rules, and of the others together."""
    print(title)
    print(f"{'rule':8}{'prompts':>8}{'drafted':>9}{'citing':>8}{'accepted':>10}{'mean':>7}")
    for rule in rules:
        if rule.rule_id in chosen:
            print(
                f"{rule.rule_id:8}{rule.num_prompts:8}{rule.num_drafted:9}"
                f"{rule.num_completions:8}{rule.num_accepted:10}{rule.mean_score or 0:7.2f}"
            )
    others = [rule for rule in rules if rule.rule_id not in chosen]
    print(
        f"{'others':8}{sum(one.num_prompts for one in others):8}"
        f"{sum(one.num_drafted for one in others):9}"
        f"{sum(one.num_completions for one in others):8}"
        f"{sum(one.num_accepted for one in others):10}"
    )


def right(home: Path, pack: Pack, rules: Sequence[str]) -> str:
    """Returns the oracle's word on the completions for prompts that a rule of these covers."""
    total = accepted = hits = num_right = 0
    for row in look_up(connect(Home(str(home))), "completions_with_verdicts"):
        request = read_request(row["messages"])
        [step] = world.steps_for(pack, request)
        if step.rule.id not in rules:
            continue
        is_right = grade(pack, row["messages"], answer=row["answer"], cited=row["cited"]).right
        total, num_right = total + 1, num_right + is_right
        accepted += row["verdict"] == "accepted"
        hits += is_right and row["verdict"] == "accepted"
    return f"{total} completions, {num_right} right; {accepted} accepted, {hits} of them right"


def main() -> None:
    """Prints the coverage before and after a fill."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=480)
    parser.add_argument("--floor", type=int, default=5)
    parser.add_argument("--rules", nargs="*", default=["B3", "F1", "T5"])
    chosen = parser.parse_args()
    from flows.fill import FillOptions, fill
    from flows.refresh import refresh

    pack = load_pack(PACK)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "home"
        lines = starved(pack, chosen.rules, prompts=chosen.prompts)
        (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
        began = time.monotonic()
        refresh(recipe(folder, with_fill=False), str(home))
        seconds = time.monotonic() - began
        before = cover(Home(str(home)), pack, floor=chosen.floor)
        show(f"after the first refresh ({seconds:.0f} s)", before, chosen.rules)
        under = [rule.rule_id for rule in before if rule.under_floor]
        print(f"under the floor: {', '.join(under)}")
        began = time.monotonic()
        options = FillOptions(
            out=str(folder / "fill.jsonl"), rules=tuple(chosen.rules), floor=chosen.floor
        )
        filled = fill(recipe(folder, with_fill=False), str(home), options)
        print(
            f"fill ({time.monotonic() - began:.0f} s): drafts {dict(filled.statuses)}, left out "
            f"{filled.counts.left_behind}, written {filled.num_written}; prompts then "
            f"{ {one.rule_id: one.after for one in filled.rules} }"
        )
        began = time.monotonic()
        refresh(recipe(folder, with_fill=True), str(home))
        seconds = time.monotonic() - began
        after = cover(Home(str(home)), pack, floor=chosen.floor)
        show(f"after the second refresh ({seconds:.0f} s)", after, chosen.rules)
        others = [name for name in pack.rule_ids if name not in chosen.rules]
        print(f"filled rules: {right(home, pack, chosen.rules)}")
        print(f"other rules:  {right(home, pack, others)}")


if __name__ == "__main__":
    main()
