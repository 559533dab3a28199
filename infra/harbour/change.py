"""A change of policy end to end: edit, diff, refresh of the stale rows, continued training, grades.

    python -m infra.harbour.change .precept-change --rule B3=comply --rule B8=refuse

Every step is a command of Precept, which is printed as it runs. The oracle grades the models before
and after under the edited policy. A full remake, in a warehouse of its own, is what the change is
compared with.
"""

import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.harbour import prompts, world
from infra.harbour.oracle import read_request
from infra.harbour.world import HarbourRequest, Tongue
from specs.pack import load_pack
from specs.policy import Outcome, Pack

RECIPE = Path(__file__).parent / "change.toml"
TRAIN = prompts.FOLDER / "train.jsonl"
TEST = prompts.FOLDER / "test.jsonl"
SUITES = ("changed rules", "rules beside them", "other categories")
"""The edited rules; the other rules of their categories; the rules of the other categories."""
METRICS = ("right", "right_decision", "right_citation", "not_unsafe", "not_overrefuse")
MODELS = ("before", "after", "full remake")


class ChangeError(ValueError):
    """An edit that cannot be made, or a folder that is in use."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command of Precept, its outcome and its duration."""

    outcome: Any
    seconds: float
    """Wall time, with the time that Prefect, Ray and the model took to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of a change."""

    changed: Mapping[str, Sequence[str]]
    """By category, the subjects of the edited rules."""
    stale: Mapping[str, int]
    """By stage, the rows that `policies diff` says are made again."""
    remade: Mapping[str, int]
    """By stage, the rows that the refresh made."""
    still_stale: int
    """Rows that are stale after the refresh."""
    learned: Mapping[str, Mapping[str, int]]
    """By model, the rows that it learned, by source."""
    num_steps: Mapping[str, int]
    """By model, the steps of its training."""
    first_loss: Mapping[str, float]
    """By model, the loss of its first step."""
    seconds: Mapping[str, float]
    """Wall time by step."""
    work_seconds: Mapping[str, float]
    """By step, the time of its stages and trainings alone."""
    accuracy: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Rows of question `evaluation`."""


def edit_rule(folder: Path, rule_id: str, outcome: Outcome) -> None:
    """Gives a rule of a Harbour pack another outcome, and raises the version of its policy.

    Raises ChangeError if no policy of the folder has the rule.
    """
    heading = re.compile(rf"^## {re.escape(rule_id)} (\S+) \(\w+\)\n\n.*$", re.MULTILINE)
    for file in sorted(folder.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        if match := heading.search(text):
            subject = match[1]
            rule = f"## {rule_id} {subject} ({outcome})\n\n{subject} is "
            text = text.replace(match[0], rule + world.QUALITIES[outcome][-1])
            file.write_text(_with_raised_version(text), encoding="utf-8")
            return
    raise ChangeError(f"no rule {rule_id!r} in {folder}; give one such as B3")


def _with_raised_version(text: str) -> str:
    return re.sub(r"^version: (\d+)$", lambda m: f"version: {int(m[1]) + 1}", text, flags=re.M)


def changed_rules(before: Pack, after: Pack) -> dict[str, list[str]]:
    """Returns, by category, the subjects of the rules that differ between two packs.

    Raises ChangeError if none does.
    """
    changed = {}
    for category, policy in after.policies.items():
        old = {rule.title: rule for rule in before.policies[category].rules}
        subjects = [rule.title for rule in policy.rules if old.get(rule.title) != rule]
        if subjects:
            changed[category] = subjects
    if not changed:
        raise ChangeError("the edited pack has the rules of the shipped one; edit a rule")
    return changed


def labelled(file: Path, pack: Pack) -> list[dict[str, Any]]:
    """Returns the prompts of a file, with the ideal response that a pack asks for."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{**row, "ideal_response": _effect(pack, row)} for row in rows]


def _effect(pack: Pack, row: Mapping[str, Any]) -> str:
    request = read_request(row["messages"])
    return str(world.deciding(world.steps_for(pack, request)).rule.effect)


def suite_rows(pack: Pack, changed: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the prompts of each suite, none of which training sees."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SUITES}
    taken = {json.dumps(row["messages"]) for row in labelled(TRAIN, pack)}
    rng = random.Random("change")
    for tongue in Tongue:
        drawn = prompts.draw(rng, uses=12, translations=2, tongue=tongue, taken=taken)
        rows[SUITES[0]] += [prompts.row(one, pack) for one in drawn if _is_changed(changed, one)]
    for row in labelled(TEST, pack):
        request = read_request(row["messages"])
        if not _is_changed(changed, request):
            rows[SUITES[1 if request.category in changed else 2]].append(row)
    return rows


def _is_changed(changed: Mapping[str, Sequence[str]], request: HarbourRequest) -> bool:
    return any(
        subject in changed.get(world.CATEGORY[thing], ())
        for thing, subject in zip(request.things, request.subjects, strict=True)
    )


def write_suites(folder: Path, pack: Pack, changed: Mapping[str, Sequence[str]]) -> list[Path]:
    """Writes the suites and their prompts; returns the files of the suites."""
    files = []
    for name, rows in suite_rows(pack, changed).items():
        path = folder / f"{name.replace(' ', '_')}.toml"
        write_rows(path.with_suffix(".jsonl"), rows)
        source = {
            "path": str(path.with_suffix(".jsonl")),
            **{key: key for key in ("messages", "category", "ideal_response", "transform")},
            "language_column": "language",
        }
        lines = [f"name = {json.dumps(name)}", 'attacks = ["none"]', "", "[source]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in source.items()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files.append(path)
    return files


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def precept(*arguments: str) -> Step:
    """Runs a command of Precept and returns its outcome; exits as the command does if it fails."""
    typer.echo(f"$ precept {shlex.join(arguments)}", err=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "flows", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    return Step(json.loads(done.stdout), round(time.monotonic() - began, 1))


@dataclass(frozen=True, slots=True)
class Change:
    """A change of policy in a folder of its own."""

    folder: Path
    pack: Path
    """Folder of the edited pack."""
    suites: Sequence[Path]

    @property
    def edits(self) -> list[str]:
        """Options that make the recipe one of the edited policy."""
        return [
            *("--set", f"pack={json.dumps(str(self.pack))}"),
            *("--set", f"sources.0.path={json.dumps(str(self.folder / 'train.jsonl'))}"),
            *("--set", f"evaluate.suites={json.dumps([str(suite) for suite in self.suites])}"),
        ]

    def run(self, command: str, home: str, *options: str) -> Step:
        """Runs a command of the recipe in a warehouse of the folder."""
        place = ("--home", str(self.folder / home))
        return precept(command, str(RECIPE), *place, *options, "--json")

    def diff(self) -> Step:
        """Compares the edited pack with the warehouse."""
        place = ("--home", str(self.folder / "warehouse"))
        return precept("policies", "diff", str(self.pack), *place, "--format", "json")


def carry_out(change: Change, changed: Mapping[str, Sequence[str]], *, full: bool) -> Report:
    """Makes the models before and after the change, and grades them under the edited policy."""
    steps = {
        "refresh before": change.run("refresh", "warehouse"),
        "train before": change.run("train", "warehouse"),
        "diff": change.diff(),
        "refresh after": change.run("refresh", "warehouse", *change.edits),
        "train after": change.run("train", "warehouse", *change.edits),
        "diff again": change.diff(),
    }
    trained = {"before": steps["train before"], "after": steps["train after"]}
    ids = [_checkpoint(step)["checkpoint_id"] for step in trained.values()]
    chosen = [option for name in ids for option in ("--checkpoint", name)]
    steps["evaluate"] = change.run("evaluate", "warehouse", *chosen, *change.edits)
    accuracy = _graded(steps["evaluate"], {"SFT": "before", "SFT+SFT": "after"})
    if full:
        for name in ("refresh", "train", "evaluate"):
            steps[f"{name} in full"] = change.run(name, "full", *change.edits)
        trained["full remake"] = steps["train in full"]
        accuracy += _graded(steps["evaluate in full"], {"SFT": "full remake"})
    stages = steps["refresh after"].outcome["figures"]["stages"]
    return Report(
        changed=changed,
        stale={row["stage"]: row["num_rows"] for row in steps["diff"].outcome["remakes"]},
        remade={name: stages[name]["num_rows"] for name in ("generate", "judge")},
        still_stale=sum(row["num_rows"] for row in steps["diff again"].outcome["remakes"]),
        learned={name: step.outcome["sources"]["sft"] for name, step in trained.items()},
        num_steps={name: _checkpoint(step)["num_steps"] for name, step in trained.items()},
        first_loss={name: first_loss(_checkpoint(step)) for name, step in trained.items()},
        seconds={name: step.seconds for name, step in steps.items()},
        work_seconds={
            name: _work_seconds(step)
            for name, step in steps.items()
            if name.startswith(("refresh", "train"))
        },
        accuracy=accuracy,
    )


def _checkpoint(step: Step) -> dict[str, Any]:
    checkpoint: dict[str, Any] = step.outcome["checkpoints"]["sft"]
    return checkpoint


def first_loss(checkpoint: Mapping[str, Any]) -> float:
    """Returns the loss of the first step of a checkpoint's training."""
    log = json.loads(checkpoint["metrics"])["log"]
    return float(next(entry["loss"] for entry in log if "loss" in entry))


def _work_seconds(step: Step) -> float:
    """Returns the time of a refresh's stages, or of a training."""
    if "checkpoints" in step.outcome:
        return float(_checkpoint(step)["seconds"])
    stages = step.outcome["figures"]["stages"].values()
    return round(float(sum(stage["seconds"] for stage in stages)), 1)


def _graded(step: Step, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the figures of the models by the names that they bear here."""
    return [
        {**row, "arm": names[row["arm"]]}
        for row in step.outcome["table"]
        if row["arm"] in names and row["slice"] == "all" and row["metric"] in METRICS
    ]


def print_report(report: Report) -> None:
    """Prints what the change made again, what it took, and what the models do after it."""
    typer.echo(f"edited rules: {json.dumps(report.changed)}")
    for stage, num_stale in report.stale.items():
        typer.echo(f"{stage}: {num_stale} rows stale, {report.remade[stage]} made again")
    typer.echo(f"stale after the refresh: {report.still_stale} rows")
    for model, learned in report.learned.items():
        rows = ", ".join(f"{count} of {source}" for source, count in learned.items())
        typer.echo(
            f"{model}: {rows}; {report.num_steps[model]} steps, first loss "
            f"{report.first_loss[model]:.3f}"
        )
    typer.echo(f"\n{'seconds':28}{'with start-up':>15}{'work alone':>12}")
    for name, seconds in report.seconds.items():
        work = report.work_seconds.get(name)
        typer.echo(f"{name:28}{seconds:15.1f}{'' if work is None else f'{work:12.1f}'}")
    heads = "".join(f"{model:>22}" for model in MODELS)
    typer.echo(f"\n{'by the edited policy':36}{heads}")
    cells = {(row["suite"], row["metric"], row["arm"]): row for row in report.accuracy}
    for suite in SUITES:
        for metric in METRICS:
            shown = [cells.get((suite, metric, model)) for model in MODELS]
            if any(shown):
                typer.echo(f"{suite:20}{metric:16}" + "".join(map(_cell, shown)))


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return f"{'–':>22}"
    return f"{row['mean']:.3f} [{row['low']:.2f}–{row['high']:.2f}]".rjust(22)


def prepare(folder: Path, rules: Sequence[str], pack: Path | None) -> tuple[Change, dict[str, Any]]:
    """Writes the edited pack, the prompts with its labels and the suites; returns the change.

    Raises ChangeError if the folder is in use, or if the edit cannot be made.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ChangeError(f"{folder} is not empty; give a folder that is new, or remove it")
    edited = folder.absolute() / "pack"
    shutil.copytree(pack or world.PACK, edited)
    for rule in rules if pack is None else ():
        rule_id, _, outcome = rule.partition("=")
        if outcome not in tuple(Outcome):
            raise ChangeError(f"{rule!r} is no edit of a rule; write it as B3=comply")
        edit_rule(edited, rule_id, Outcome(outcome))
    after = load_pack(edited)
    changed = changed_rules(load_pack(world.PACK), after)
    write_rows(folder / "train.jsonl", labelled(TRAIN, after))
    suites = write_suites(folder.absolute(), after, changed)
    return Change(folder.absolute(), edited, suites), changed


def main(
    folder: Annotated[Path, typer.Argument(help="A folder that is new or empty.")],
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Rule and its new outcome, such as B3=comply; again for another."),
    ] = None,
    pack: Annotated[
        Path | None, typer.Option(help="A copy of specs/harbour that you edited, instead.")
    ] = None,
    full: Annotated[bool, typer.Option(help="Compare with a full remake.")] = True,
) -> None:
    """Changes a policy of Harbour and follows the change through the whole chain."""
    try:
        change, changed = prepare(folder, rule or ["B3=comply", "B8=refuse"], pack)
    except ValueError as error:
        typer.echo(f"change: {error}", err=True)
        raise typer.Exit(2) from error
    report = carry_out(change, changed, full=full)
    (folder / "figures.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    print_report(report)


if __name__ == "__main__":
    typer.run(main)
