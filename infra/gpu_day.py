"""Measures Precept on a machine with one GPU and no network: one JSON, one page, a log a part.

Run by infra/gpu_day.sh. Each part is commands of Precept in processes of their own. The page names
the part that failed with the end of its log, and the others go on: a day with a GPU is rare.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from infra.rule_prompts import write_files
from specs.pack import load_pack
from tasks.engine.random_weights import shape_of, write_model
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from tasks.provenance import package_versions, source_commit
from tasks.training.monitor import step_seconds
from warehouse.catalog import connect, look_up, read
from warehouse.home import Home

_RECIPES = PROJECT / "flows" / "recipes"
_STUDENT = "Qwen/Qwen3-8B"
SMALL, LARGE = "smollm2_135m_1xh100", "qwen3_8b_1xh100"
"""Recipes for one GPU."""
SMALL_CHANGES = ("rl.steps=20", "evaluate.limit=50")
CPU_CHANGES = ("sources.0.limit=24", "sft.epochs=1", "rl.steps=2", "evaluate.limit=8")
KILL_CHANGES = ("engine.use_gpu=true", "engine.gpu_memory_utilization=0.3")
"""Changes to recipe Harbour, whose model a GPU serves as well."""
_SECONDS_TO_END = 15.0
"""Seconds in which a command that is ended may clean up."""

_STAGES = ("assign", "generate", "judge")
"""Stages of a refresh that an engine works on."""

Figures = dict[str, Any]


class PartError(RuntimeError):
    """A part whose command failed or took too long; `figures` are what it measured all the same."""

    def __init__(self, message: str, figures: Figures | None = None) -> None:
        super().__init__(message)
        self.figures: Figures = figures or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the day: what it measured, or why it failed."""

    name: str
    seconds: float
    figures: Figures = field(default_factory=dict)
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The folders of a day, and how much is done in it."""

    out: Path
    models: Path
    is_cpu: bool
    minutes: float
    """Time limit of one command, in minutes."""

    @property
    def smollm2(self) -> Path:
        return PROJECT / ".precept-real" / "smollm2"

    def home(self, name: str) -> Path:
        """Returns the warehouse of a part."""
        return self.out / "homes" / name

    def run(self, part: str, *command: str, accept: Sequence[int] = (0,)) -> str:
        """Runs Python with these arguments and returns what it printed. Both streams go to files of
        the part while it runs: PART.out and PART.log.

        Raises PartError if its exit code is not one to `accept`, or it takes longer than the limit.
        """
        log = self.out / f"{part}.log"
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1"}
        fault = None
        with (self.out / f"{part}.out").open("w+") as out, log.open("a+") as err:
            print(f"$ {' '.join(command)}", file=err, flush=True)
            start = err.tell()
            # A session of its own, of which no engine is left on the GPU, however this ends.
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=out,
                stderr=err,
                cwd=PROJECT,
                env=environment,
                start_new_session=True,
            )
            try:
                process.wait(timeout=60 * self.minutes)
            except subprocess.TimeoutExpired:
                fault = f"took more than {self.minutes:g} minutes (--minutes)"
            finally:
                _end_group(process)
            out.seek(0)
            err.seek(start)
            printed, errors = out.read(), err.read()
        if fault is None and process.returncode not in accept:
            lines = (errors or printed).strip().splitlines() or ["it printed nothing"]
            fault = f"failed: {lines[-1]}"
        if fault:
            raise PartError(f"{' '.join(command[:4])} {fault}; see {log}")
        return printed

    def precept(
        self, part: str, command: str, *arguments: str, accept: Sequence[int] = (0,)
    ) -> Any:
        """Returns what a command of Precept prints as JSON."""
        printed = self.run(part, "-m", "flows", command, *arguments, "--json", accept=accept)
        return last_json(printed)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process with all that it started, and waits for it."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_SECONDS_TO_END)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_json(printed: str) -> Any:
    """Returns the object on the last line that a command printed."""
    return json.loads(printed.strip().splitlines()[-1])


def doctor(day: Day) -> Figures:
    """Checks the machine, without the models."""
    # It exits with 1 if a check fails.
    checks = day.precept("doctor", "doctor", "--home", str(day.home("doctor")), accept=(0, 1))
    figures = {check["name"]: check["found"] for check in checks}
    _require_all(checks, figures)
    return figures


def dry_run(day: Day) -> Figures:
    """Runs the chain of the recipe for one GPU with random weights in small, on processors."""
    outcome = day.precept("dry_run", "doctor", LARGE, "--random-weights", accept=(0, 1))
    figures = {part["name"]: part["rows"] for part in outcome["parts"]}
    _require_all(outcome["parts"], figures)
    return figures


def _require_all(checks: Sequence[Mapping[str, Any]], figures: Figures) -> None:
    """Raises PartError with the figures if a check is not ok."""
    if faults := [check["name"] for check in checks if not check["ok"]]:
        raise PartError(f"faults of {', '.join(faults)}; mend them as precept doctor says", figures)


def small_chain(day: Day) -> Figures:
    """Runs the whole chain on a small model: SmolLM2 on a GPU, the scale model without one."""
    if day.is_cpu:
        return _chain(day, "small_chain", "harbour", CPU_CHANGES)
    data = os.environ.get("PRECEPT_DATA")
    if data is None:
        raise PartError(
            "PRECEPT_DATA is unset, and the traces of SmolLM2 are read from there; set it to the "
            "folder of the public data"
        )
    day.run("small_chain", "-m", "infra.smollm2", str(day.smollm2))
    place = str(day.smollm2.parent)
    day.run("small_chain", "-m", "infra.real.thoughts", "folder", data, place)
    return _chain(day, "small_chain", SMALL, SMALL_CHANGES)


def large_chain(day: Day) -> Figures:
    """Runs the whole chain on a model of 8 billion weights: judge, rollouts and trainer on one
    GPU."""
    student = _student(day, replies=True)
    changes = large_chain_changes(student, _prompts(day))
    return student.as_figures | _chain(day, "large_chain", LARGE, changes)


def large_chain_changes(student: "Student", prompts: Path) -> list[str]:
    """Returns the changes to recipe `LARGE` for a student and the folder of prompts."""
    columns = 'prompt = "prompt", category = "category", ideal_response = "ideal_response"'
    path = json.dumps(str(prompts / "labelled.jsonl"))
    recipe = tomllib.loads((_RECIPES / f"{LARGE}.toml").read_text(encoding="utf-8"))
    num_graders = len(recipe["evaluate"]["graders"])
    return [
        f"engine.model={student.folder}",
        f'sources=[{{ name = "rules", path = {path}, {columns} }}]',
        f"evaluate.suites=[{json.dumps(str(prompts / 'suite.toml'))}]",
        *(f"evaluate.graders.{number}.suites=[]" for number in range(num_graders)),
        # The prompts about a rule are much alike.
        "collect.near_duplicate_threshold=1.0",
        *(["curate.require_citation=false"] if student.is_random else []),
        "rl.steps=5",
    ]


def throughput(day: Day) -> Figures:
    """Compares the stage with bare vLLM, and the prefix-cache hits of two sets of templates."""
    command = ["tests/benchmarks/throughput.py", "--templates-only"]
    if day.is_cpu:
        command += ["--samples", "1", *_settings(["sources.0.limit=24"])]
        return dict(last_json(day.run("throughput", *command)))
    student = _student(day, replies=False)
    changes = throughput_changes(student, _prompts(day))
    command += ["--recipe", LARGE, "--samples", "8", *_settings(changes)]
    return student.as_figures | dict(last_json(day.run("throughput", *command)))


def throughput_changes(student: "Student", prompts: Path) -> list[str]:
    """Returns the changes to recipe `LARGE` for a student that writes on, and the folder of
    prompts."""
    path = json.dumps(str(prompts / "labelled.jsonl"))
    return [
        f"engine.model={student.folder}",
        f'sources=[{{ name = "rules", path = {path}, category = "category" }}]',
        "collect.near_duplicate_threshold=1.0",
        # All outputs are cut at the same length, so both sides have the same work.
        "engine.reasons=false",
        "generate.sampling.max_tokens=512",
    ]


def kill(day: Day) -> Figures:
    """Kills refreshes at random moments and runs them again: rows lost, doubled, paid for twice."""
    runs, prompts = ("1", "24") if day.is_cpu else ("5", "252")
    command = ["tests/benchmarks/kill.py", "--runs", runs, "--prompts", prompts]
    if not day.is_cpu:
        command += _settings(KILL_CHANGES)
    return dict(last_json(day.run("kill", *command)))


PARTS: Mapping[str, Callable[[Day], Figures]] = {
    part.__name__: part for part in (doctor, small_chain, large_chain, throughput, kill)
}
"""The parts of a day with a GPU, in their order."""
CPU_PARTS: Mapping[str, Callable[[Day], Figures]] = {
    part.__name__: part for part in (doctor, dry_run, small_chain, throughput, kill)
}
"""Those of a day without one."""


def _chain(day: Day, part: str, recipe: str, changes: Sequence[str]) -> Figures:
    """Runs the whole chain of a recipe and returns its figures."""
    home = day.home(part)
    # Of a day that is repeated, the whole is measured again.
    shutil.rmtree(home, ignore_errors=True)
    day.precept(part, "run", recipe, *_settings(changes), "--home", str(home))
    return figures_of(home, recipe)


def _settings(changes: Sequence[str]) -> list[str]:
    return [argument for change in changes for argument in ("--set", change)]


def _prompts(day: Day) -> Path:
    """Returns the folder of the prompts about the safety pack, which are written once."""
    folder = day.out / "prompts"
    if not folder.is_dir():
        write_files(load_pack(PROJECT / "specs" / "safety"), folder, num_variants=16)
    return folder


@dataclass(frozen=True, slots=True)
class Student:
    """The model of the large parts, and whose weights it has."""

    folder: Path
    is_random: bool

    @property
    def as_figures(self) -> Figures:
        return {"weights": f"{'random' if self.is_random else 'real'}, {self.folder}"}


def _student(day: Day, *, replies: bool) -> Student:
    """Returns the student: real weights where they are at hand, else random ones in its published
    shape, which are written once.

    A student that does not reply has random weights always; with the real tokenizer, if it is at
    hand.
    """
    real = day.models / _STUDENT.rpartition("/")[2]
    has_real = (real / "config.json").is_file()
    if replies and has_real:
        return Student(real, is_random=False)
    folder = day.out / "models" / ("replies" if replies else "writes_on")
    if not folder.is_dir():
        engine = EngineConfig(model=str(real) if has_real else _STUDENT)
        write_model(folder, shape_of(engine), engine=engine, replies=replies)
    return Student(folder, is_random=True)


def figures_of(home: Path, recipe: str) -> Figures:
    """Returns what a chain came to: stages, accepted completions, and seconds of its trainings."""
    connection = connect(Home(str(home)))
    figures: Figures = {}
    gpu_seconds = 0.0
    for stage in _STAGES:
        [paid] = look_up(connection, "paid", recipe=recipe, stage=stage)
        if not paid["num_rows"]:
            continue
        gpu_seconds += paid["gpu_seconds"]
        figures |= {
            f"{stage}, rows": paid["num_rows"],
            f"{stage}, seconds": round(paid["seconds"], 2),
            f"{stage}, output tokens a second": _ratio(paid["output_tokens"], paid["seconds"]),
            f"{stage}, prefix-cache hit rate": _ratio(paid["cached_tokens"], paid["prompt_tokens"]),
        }
    [(accepted,)] = read(
        connection, "SELECT count(*) FROM verdicts WHERE verdict = 'accepted'"
    ).fetchall()
    figures["accepted"] = accepted
    figures["accepted per GPU-hour of the stages"] = _ratio(accepted, gpu_seconds / 3600)
    columns = "stage, status, reason, num_steps, metrics"
    checkpoints = read(connection, f"SELECT {columns} FROM checkpoints ORDER BY created_at")
    for stage, status, reason, num_steps, metrics in checkpoints.fetchall():
        figures[f"{stage}, status"] = f"{status}: {reason}" if reason else status
        figures |= {
            f"{stage}, {name}": value
            for name, value in _of_training(num_steps, json.loads(metrics)).items()
        }
    return figures


def _of_training(num_steps: int, metrics: Mapping[str, Any]) -> Figures:
    """Returns steps, tokens a second and, of reinforcement learning, seconds a step by part."""
    last = metrics["last"]
    return {
        "steps": num_steps,
        "tokens a second": _ratio(last.get("num_tokens"), last.get("train_runtime")),
        **{
            f"seconds of {part} a step": _ratio(seconds, 1.0)
            for part, seconds in step_seconds(metrics["log"]).items()
        },
    }


def _ratio(amount: float | None, per: float | None) -> float | None:
    """Returns a quotient to four digits, or None if there is nothing to divide by."""
    return float(f"{amount / per:.4g}") if amount is not None and per else None


def machine() -> Figures:
    """Returns the GPU, the processors, the versions of what runs on them, and the commit."""
    return {
        "gpu": _gpu() or "none",
        "processors": os.cpu_count(),
        "commit": source_commit() or "unknown",
        **package_versions(),
    }


def _gpu() -> str | None:
    """Returns name, memory and driver of the GPU; None if there is none."""
    query = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if shutil.which(query[0]) is None:
        return None
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def measure(day: Day, parts: Mapping[str, Callable[[Day], Figures]]) -> list[Part]:
    """Returns the parts that were asked for, each measured or with its fault.

    Writes the page after each part; parts of earlier calls stay on it until they are measured
    again.
    """
    measured: list[Part] = []
    for name, part in parts.items():
        print(f"{name} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        figures: Figures = {}
        fault = None
        try:
            figures = part(day)
        except Exception as error:  # a day with a GPU goes on with the other parts
            if isinstance(error, PartError):
                figures = error.figures
            fault = f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - began, 1)
        measured.append(Part(name=name, seconds=seconds, figures=figures, fault=fault))
        _write(day, measured[-1])
    return measured


def _write(day: Day, part: Part) -> None:
    """Writes the JSON and the page of a part and those measured before."""
    path = day.out / "gpu_day.json"
    before = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.is_file() else []
    by_name = {each["name"]: Part(**each) for each in before}
    parts = list((by_name | {part.name: part}).values())
    facts = machine()
    content = {"machine": facts, "is_cpu": day.is_cpu, "parts": [asdict(each) for each in parts]}
    _replace(path, json.dumps(content, indent=2) + "\n")
    _replace(day.out / "gpu_day.md", as_markdown(facts, parts))


def _replace(path: Path, text: str) -> None:
    """Writes a file that is whole at every moment."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def as_markdown(facts: Figures, parts: Sequence[Part]) -> str:
    """Returns the page: the facts about the machine, and a table for each part."""
    gpu = facts["gpu"]
    sections = [f"# A day with {gpu}" if gpu != "none" else "# A day without a GPU", _table(facts)]
    for part in parts:
        sections.append(f"## {part.name}, {part.seconds:g} s")
        if part.fault:
            sections.append(f"failed: {_cell(part.fault)}")
        if part.figures:
            sections.append(_table(part.figures))
    return "\n\n".join(sections) + "\n"


def _table(figures: Figures) -> str:
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in figures.items()]
    return "\n".join(["| | |", "|--|--|", *rows])


def _cell(value: Any) -> str:
    text = "not measured" if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    """Ends the process with the clean-up of what it is doing."""
    sys.exit(128 + signum)


def main() -> None:
    """Measures the parts that are named, or all; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.gpu_day", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of model folders")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--cpu", action="store_true", help="measure small parts without a GPU")
    parser.add_argument("--minutes", type=float, default=60, help="time limit of one command")
    parser.add_argument("parts", nargs="*", help="parts to measure, in this order; unset: all")
    options = parser.parse_args()
    choice = CPU_PARTS if options.cpu else PARTS
    if unknown := set(options.parts) - choice.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; give some of {', '.join(choice)}")
    # Python's own handlers would end this process without the commands that it has started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    day = Day(
        out=options.out.absolute(),
        models=options.models.absolute(),
        is_cpu=options.cpu,
        minutes=options.minutes,
    )
    day.out.mkdir(parents=True, exist_ok=True)
    measured = measure(day, {name: choice[name] for name in options.parts or choice})
    print(day.out / "gpu_day.md")
    if any(part.fault for part in measured):
        sys.exit(1)


if __name__ == "__main__":
    main()
