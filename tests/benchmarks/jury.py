"""A jury of two scale models beside each judge alone, by the oracle, and the tokens of races.

    python tests/benchmarks/jury.py --second /tmp/judge [--prompts 120] [--votes 4]

`--second` is the folder of another model that judges Harbour, as this command makes it:

    python -m infra.harbour.train --start-from infra/harbour/model --seed 7 --minutes 10 \\
        --out /tmp/judge

Completions are written at temperature 2, so that many are wrong. Both judges are asked for all
votes of all completions; every filter is then computed from the same scores. Afterwards the same
completions are judged twice more, by newly drawn votes: each judge racing alone, and the jury
racing over its judges.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.recipe import Recipe, load_recipe
from infra.harbour.oracle import grade
from specs.pack import load_pack
from tasks.stage import StageFigures
from warehouse.catalog import ask, connect, read
from warehouse.home import Home

FIRST = "the shipped model"
SECOND = "the other one"


@dataclass(frozen=True, slots=True)
class Scored:
    """A completion, whether it is right, and the votes of each judge."""

    is_right: bool
    votes: tuple[tuple[float | None, ...], tuple[float | None, ...]]

    def passes(self, judge: int, k: int, threshold: float) -> bool:
        """Returns whether the first k votes of a judge accept the completion."""
        return all(vote is not None and vote >= threshold for vote in self.votes[judge][:k])


def recipe(second: str, *, prompts: int, votes: int, mode: str) -> Recipe:
    """Returns Harbour with both judges as a jury."""
    loaded = load_recipe(
        "harbour",
        overrides=[
            f"sources.0.limit={prompts}",
            f"judge.samples={votes}",
            f"judge.mode={mode}",
            "generate.sampling.temperature=2.0",
        ],
    )
    other = loaded.engine.model_copy(update={"model": str(Path(second).absolute())})
    return loaded.model_copy(update={"judge_engines": [loaded.engine, other]})


def refresh(wanted: Recipe, home: Path) -> dict[str, StageFigures]:
    """Refreshes a warehouse; returns the stages of its judges."""
    from flows.refresh import refresh as flow

    stages = flow(wanted, str(home)).figures.stages
    return {name: figures for name, figures in stages.items() if name.startswith("judge")}


def copy_completions(source: Path, target: Path) -> Path:
    """Copies all that is older than any judgement."""
    for table in ("prompts", "specs", "completions"):
        shutil.copytree(source / table, target / table)
    return target


def read_scores(home: Path, judges: Sequence[str], *, votes: int) -> list[Scored]:
    """Returns the completions that were judged, by completion."""
    connection, pack = connect(Home(str(home))), load_pack("specs/harbour")
    query = """
        SELECT completion_id, any_value(p.messages), any_value(c.answer), any_value(c.cited),
            list({model: j.model, index: j.sample_index, score: j.score})
        FROM judgements AS j JOIN completions AS c USING (completion_id, prompt_id)
        JOIN prompts AS p USING (prompt_id)
        GROUP BY completion_id
    """
    scored = []
    for _, messages, answer, cited, given in connection.execute(query).fetchall():
        scores = {(one["model"], one["index"]): one["score"] for one in given}
        mine, others = (
            tuple(scores.get((judge, index)) for index in range(votes)) for judge in judges
        )
        right = grade(pack, messages, answer=answer, cited=cited).right
        scored.append(Scored(right, (mine, others)))
    return scored


def print_filters(rows: Sequence[Scored], *, votes: int, threshold: float) -> None:
    """Prints precision and recall of each filter, by the oracle."""
    num_right = sum(row.is_right for row in rows)
    print(f"{len(rows)} completions judged, {num_right} right by the oracle")
    print(f"{'filter':34}{'votes':>6}{'kept':>6}{'wrong':>6}{'precision':>11}{'recall':>8}")
    filters: list[tuple[str, int, int]] = [
        (f"{FIRST} alone", votes, 0),
        (f"{SECOND} alone", 0, votes),
        ("both", votes // 2, votes // 2),
        ("both", votes, votes),
    ]
    for name, mine, others in filters:
        kept = [
            row.is_right
            for row in rows
            if row.passes(0, mine, threshold) and row.passes(1, others, threshold)
        ]
        hits = sum(kept)
        print(
            f"{name:34}{mine + others:6}{len(kept):6}{len(kept) - hits:6}"
            f"{hits / max(1, len(kept)):11.4f}{hits / max(1, num_right):8.4f}"
        )
    sets = [[row.passes(judge, votes, threshold) for row in rows] for judge in (0, 1)]
    pairs = list(zip(*sets, strict=True))
    print(
        f"accepted at {votes} votes each: both {pairs.count((True, True))}, only {FIRST} "
        f"{pairs.count((True, False))}, only {SECOND} {pairs.count((False, True))}, neither "
        f"{pairs.count((False, False))}"
    )


def print_tokens(name: str, stages: dict[str, StageFigures]) -> None:
    """Prints what the judges of some refreshes read and wrote."""
    total = sum(stages.values(), StageFigures())
    usage = total.usage
    print(
        f"{name:34}{total.num_rows:10}{usage.prompt_tokens:12}{usage.output_tokens:10}"
        f"{total.seconds:9.0f}"
    )


def accepted(home: Path) -> set[str]:
    query = "SELECT completion_id FROM verdicts WHERE accepted"
    return {name for (name,) in read(connect(Home(str(home))), query).fetchall()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--second", required=True, help="Folder of the second judge.")
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--votes", type=int, default=4)
    arguments = parser.parse_args()
    size = {"prompts": arguments.prompts, "votes": arguments.votes}
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in ("full", "alone", "jury")}
        full = recipe(arguments.second, mode="full", **size)
        race = recipe(arguments.second, mode="race", **size)
        tokens = {"full": refresh(full, places["full"])}
        for name in ("alone", "jury"):
            copy_completions(places["full"], places[name])
        tokens["alone"] = {
            engine.model: refresh(
                race.model_copy(update={"judge_engines": [], "judge_engine": engine}),
                places["alone"],
            )["judge"]
            for engine in race.judge_engines
        }
        tokens["jury"] = refresh(race, places["jury"])
        judges = [engine.version for engine in full.judge_engines]
        rows = read_scores(places["full"], judges, votes=arguments.votes)
        print_filters(rows, votes=arguments.votes, threshold=full.judge.threshold)
        for row in ask(connect(Home(str(places["full"]))), "jury").to_pylist():
            print({name: value for name, value in row.items() if name != "judging_id"})
        print(f"{'judges':34}{'judgements':>10}{'prompt':>12}{'output':>10}{'seconds':>9}")
        print_tokens("full", tokens["full"])
        print_tokens("each racing alone", tokens["alone"])
        print_tokens("the jury racing over its judges", tokens["jury"])
        same = accepted(places["full"]) & accepted(places["jury"])
        print(
            f"accepted in full {len(accepted(places['full']))}, in the race of the jury "
            f"{len(accepted(places['jury']))}, in both {len(same)}"
        )


if __name__ == "__main__":
    main()
