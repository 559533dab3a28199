"""A day with a GPU leaves one JSON and one page, whatever fails; its CPU form measures here."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.recipe import SUITES, load_recipe
from infra.gpu_day import (
    CPU_CHANGES,
    CPU_PARTS,
    KILL_CHANGES,
    LARGE,
    PARTS,
    SMALL,
    SMALL_CHANGES,
    Day,
    Figures,
    PartError,
    Student,
    as_markdown,
    doctor,
    large_chain_changes,
    measure,
    throughput_changes,
)
from infra.rule_prompts import write_files
from tasks.data.candidates import read_source
from tasks.evaluation.suites import load_suites
from tasks.paths import PROJECT

SCRIPT = str(PROJECT / "infra" / "gpu_day.sh")


def day(folder: Path, *, minutes: float = 1) -> Day:
    return Day(out=folder, models=folder, is_cpu=True, minutes=minutes)


def test_part_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    def fails(day: Day) -> Figures:
        day.run("fails", "-c", "import sys; sys.exit('no | GPU')")
        return {}

    measure(day(tmp_path), {"fails": fails, "works": lambda _: {"rows": 3, "rate": None}})
    told = json.loads((tmp_path / "gpu_day.json").read_text())
    first, second = told["parts"]
    assert first["fault"].startswith("PartError: -c import sys;") and "no | GPU" in first["fault"]
    assert second["figures"] == {"rows": 3, "rate": None}
    page = (tmp_path / "gpu_day.md").read_text()
    assert "no \\| GPU; see" in page and "| rate | not measured |" in page
    assert "no | GPU" in (tmp_path / "fails.log").read_text()


def test_command_that_takes_too_long_is_ended_with_all_below_it(tmp_path: Path) -> None:
    sleep = "import subprocess; subprocess.run(['sleep', '3600.25'])"
    with pytest.raises(PartError, match=r"took more than 0\.05 minutes \(--minutes\); see"):
        day(tmp_path, minutes=0.05).run("slow", "-c", sleep)
    left = subprocess.run(["pgrep", "-f", "^sleep 3600.25"], capture_output=True, text=True)
    assert not left.stdout


def test_day_that_is_ended_leaves_no_command(tmp_path: Path) -> None:
    sleep = "import subprocess; subprocess.run(['sleep', '3600.75'])"
    script = (
        "import signal, sys; from pathlib import Path; from infra import gpu_day;"
        "signal.signal(signal.SIGTERM, gpu_day._end);"
        "folder = Path(sys.argv[1]);"
        "day = gpu_day.Day(out=folder, models=folder, is_cpu=True, minutes=1);"
        f'day.run("slow", "-c", "{sleep}")'
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=PROJECT)
    wait_until(lambda: is_running("^sleep 3600.75"))
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert not is_running("^sleep 3600.75")


def is_running(pattern: str) -> bool:
    return bool(subprocess.run(["pgrep", "-f", pattern], capture_output=True).stdout)


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail("it did not come to be")


def test_doctor_that_finds_a_fault_names_it_beside_what_it_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A file stands where the warehouse would be.
    (tmp_path / "homes").mkdir()
    (tmp_path / "homes" / "doctor").touch()
    [part] = measure(day(tmp_path), {"doctor": doctor})
    assert part.fault and "home" in part.fault and part.figures["packages"] == "as locked"
    page = (tmp_path / "gpu_day.md").read_text()
    assert "failed: PartError: faults of " in page and "| packages | as locked |" in page


def test_log_of_a_part_is_written_while_it_runs(tmp_path: Path) -> None:
    look = "import sys; print('early', file=sys.stderr); print(open(sys.argv[1]).read())"
    assert "early" in day(tmp_path).run("p", "-c", look, str(tmp_path / "p.log"))


def test_part_that_is_measured_again_leaves_the_others_on_the_page(tmp_path: Path) -> None:
    measure(day(tmp_path), {"first": lambda _: {"rows": 1}, "second": lambda _: {"rows": 2}})
    measure(day(tmp_path), {"second": lambda _: {"rows": 3}})
    content = json.loads((tmp_path / "gpu_day.json").read_text())
    rows = {part["name"]: part["figures"]["rows"] for part in content["parts"]}
    assert rows == {"first": 1, "second": 3}
    page = (tmp_path / "gpu_day.md").read_text()
    assert "## first" in page and page.count("## second") == 1


def test_page_begins_with_the_machine() -> None:
    page = as_markdown({"gpu": "NVIDIA H100, 81559 MiB", "processors": 16}, [])
    assert page.startswith("# A day with NVIDIA H100, 81559 MiB\n\n| | |\n|--|--|\n| gpu |")


def test_script_says_what_it_needs() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True)
    assert done.returncode == 2
    assert "infra/gpu_day.sh WHEELS MODELS OUT" in done.stderr


def test_changes_of_a_day_with_a_gpu_make_recipes_that_load(tmp_path: Path) -> None:
    prompts, student = tmp_path / "prompts", Student(Path("/models/m"), is_random=True)
    write_files(load_recipe(LARGE).load_pack(), prompts, num_variants=16)
    large = load_recipe(LARGE, overrides=large_chain_changes(student, prompts))
    [source] = large.sources
    candidates = list(read_source(source))
    assert len(candidates) == len({one.messages[-1]["content"] for one in candidates}) == 192
    assert {one.ideal_response for one in candidates} == {"comply", "refuse", None}
    assert large.evaluate and not any(grader.suites for grader in large.evaluate.graders)
    assert load_suites(large.evaluate.suites, SUITES)[0].name == "rules"
    writes_on = load_recipe(LARGE, overrides=throughput_changes(student, prompts))
    assert (writes_on.engine.reasons, writes_on.generate.sampling.max_tokens) == (False, 512)
    assert load_recipe(SMALL, overrides=SMALL_CHANGES).rl
    assert load_recipe("harbour", overrides=KILL_CHANGES).engine.num_gpus == 1
    assert load_recipe("harbour", overrides=CPU_CHANGES).rl


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cpu_form_of_the_day_measures_every_part(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "-", str(tmp_path), str(tmp_path / "out"), "--cpu"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "out" / "gpu_day.md").read_text()
    told = json.loads((tmp_path / "out" / "gpu_day.json").read_text())
    figures = {part["name"]: part["figures"] for part in told["parts"]}
    assert list(figures) == list(CPU_PARTS) and figures.keys() - PARTS.keys() == {"dry_run"}
    chain = figures["small_chain"]
    assert chain["accepted"] > 0 and chain["accepted per GPU-hour of the stages"] is None
    assert chain["sft, tokens a second"] > 0
    parts = [f"rl, seconds of {part} a step" for part in ("rollout", "judge", "update")]
    assert all(chain[part] > 0 for part in parts)
    assert figures["throughput"]["spec_first_prefix_hit_rate"] > 0
    assert figures["throughput"]["spec_first_of_bare"] > 0
    assert (figures["kill"]["lost"], figures["kill"]["doubled"]) == (0, 0)
