"""What can be known to be wrong is told before Prefect, Ray or a model starts."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows import preflight
from flows.lock import BusyError, lock
from flows.preflight import AddressError, Command, check
from flows.recipe import Recipe, RecipeError, load_recipe
from tasks.training.trainer import DataError
from warehouse.home import Home


@pytest.fixture(autouse=True)
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "RAY_ADDRESS", "PRECEPT_WAIT_SECONDS"):
        monkeypatch.delenv(name, raising=False)


def bare() -> Recipe:
    """Harbour with its data alone."""
    sections = ("sft", "dpo", "rl", "evaluate", "calibrate", "ablate")
    return load_recipe("harbour").model_copy(update=dict.fromkeys(sections))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "train",
            r"no section \[midtrain\], \[sft\], \[dpo\] or \[rl\], and precept train needs one",
        ),
        ("evaluate", r"no section \[evaluate\]"),
        ("calibrate", r"no section \[calibrate\]"),
        ("ablate", r"no section \[ablate\]"),
    ],
)
def test_missing_section_is_told(command: Command, sentence: str, disk: Home) -> None:
    with pytest.raises(RecipeError, match=sentence):
        check(command, bare(), disk.url)


@pytest.mark.parametrize("command", ["refresh", "run", "estimate"])
def test_recipe_that_only_refreshes_is_good_for_its_commands(command: Command, disk: Home) -> None:
    check(command, bare(), disk.url)


@pytest.mark.parametrize("command", ["refresh", "evaluate", "calibrate", "run", "ablate"])
def test_shipped_recipe_passes_every_check(command: Command, disk: Home) -> None:
    check(command, load_recipe("harbour"), disk.url)


GOLD = "{name = 'oracle', function = 'infra.harbour.oracle:grade_answer'}"
JUDGE = "{name = 'judge', rubric = 'policy'}"


@pytest.mark.parametrize(
    ("command", "override", "sentence"),
    [
        ("refresh", "sources.0.path='nowhere.csv'", "nowhere.csv"),
        ("refresh", "sources.0.category='colour'", "colour"),
        ("run", "sources.0.path='nowhere.csv'", "nowhere.csv"),
        ("evaluate", "evaluate.suites=['nope']", "no suite 'nope'"),
        ("calibrate", "calibrate.suites=['nope']", "no suite 'nope'"),
        (
            "calibrate",
            "calibrate.graders.1.criteria=['nope']",
            "grader 'judge': no criterion 'nope'",
        ),
        ("evaluate", "evaluate.graders.1.criteria=['nope']", "grader 'judge': no criterion 'nope'"),
        ("calibrate", f"calibrate.graders=[{GOLD}]", "calibrate has no judge among its graders"),
        ("calibrate", f"calibrate.graders=[{JUDGE}]", "calibrate has no gold among its graders"),
        ("calibrate", "calibrate.graders.1.saw='answer'", "neither precision nor recall has a"),
        ("ablate", "ablate.suites=['nope']", "no suite 'nope'"),
        ("train", "engine.reasoning_parser='qwen3'", "rl needs a model whose reasoning"),
    ],
)
def test_what_a_recipe_names_and_cannot_be_used_is_told(
    command: Command, override: str, sentence: str, disk: Home
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check(command, load_recipe("harbour", overrides=[override]), disk.url)


def test_training_without_examples_is_told(disk: Home) -> None:
    with pytest.raises(DataError, match=r"has no examples in .*; run precept refresh first"):
        check("train", load_recipe("harbour"), disk.url)


HOLD = "import sys, time; from flows.lock import lock; from flows.run import home_at\n"
HOLD += "with lock(home_at(sys.argv[1])): print('held', flush=True); time.sleep(600)"


@pytest.fixture
def holder(disk: Home) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to the warehouse."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, disk.url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_writer_is_told_unless_the_command_waits(
    holder: subprocess.Popen[str], disk: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BusyError, match=f"process {holder.pid} on .* is writing to"):
        check("refresh", bare(), disk.url)
    monkeypatch.setenv("PRECEPT_WAIT_SECONDS", "60")
    check("refresh", bare(), disk.url)


def test_a_look_at_the_lock_does_not_keep_a_writer_out(disk: Home) -> None:
    from filelock import FileLock

    from flows.lock import _lock_path

    with lock(disk):
        pass
    look = FileLock(_lock_path(disk), thread_local=False)
    look.acquire()
    threading.Timer(0.1, look.release).start()
    with lock(disk):
        pass


@pytest.mark.parametrize("home", ["file", "file/below"])
def test_home_that_cannot_be_one_is_told(home: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((OSError, ValueError)):
        check("refresh", bare(), str(tmp_path / home))


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "ray://127.0.0.1:x{}"])
def test_ray_cluster_that_does_not_answer_is_told(
    form: str, disk: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = form.format(closed_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(AddressError, match=f"no Ray cluster answers at RAY_ADDRESS={address}"):
        check("refresh", bare(), disk.url)


class Server(BaseHTTPRequestHandler):
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, *words: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Callable[[int], str]]:
    """Starts a server that answers as Prefect's does; takes the status of its answers."""
    started = []

    def start(code: int) -> str:
        handler = type("Handler", (Server,), {"code": code})
        serving = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        started.append(serving)
        return f"http://127.0.0.1:{serving.server_port}"

    yield start
    for serving in started:
        serving.shutdown()
        serving.server_close()


def test_prefect_server_that_answers_is_taken_with_or_without_a_password(
    server: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in (200, 401):
        monkeypatch.setenv("PREFECT_API_URL", f"{server(code)}/api")
        preflight.require_prefect()


def test_prefect_server_that_does_not_answer_is_told(
    server: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (f"http://127.0.0.1:{closed_port()}/api", server(200), "nonsense", "http://[x/api"):
        monkeypatch.setenv("PREFECT_API_URL", url)
        with pytest.raises(AddressError, match="no Prefect server answers at PREFECT_API_URL="):
            preflight.require_prefect()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("judge.k=3", "--set judge.k=3: unknown key 'judge.k'"),
        ("judg.samples=3", "--set judg.samples=3: unknown key 'judg': did you mean 'judge'?"),
        ("judge.samples=none", "--set judge.samples=none: judge.samples: "),
        ("sft.batch_size=5", "--set sft.batch_size=5: sft: batch_size 5 must be a multiple"),
        ("sources.0.paht='x'", "--set sources.0.paht='x': unknown key 'sources.0.paht'"),
    ],
)
def test_fault_of_an_override_is_blamed_on_it(override: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as seen:
        load_recipe("harbour", overrides=["judge.threshold=7", override])
    assert str(seen.value).startswith(sentence)
    assert "threshold=7" not in str(seen.value) and "toml" not in str(seen.value)


def test_fault_of_the_file_is_blamed_on_it_beside_one_of_an_override(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'pack = "specs/harbour"\nsouces = []\n[[sources]]\nname = "a"\npath = "a.csv"\n'
    )
    with pytest.raises(RecipeError) as seen:
        load_recipe(file, overrides=["judge.samples=none"])
    by_override, by_file = str(seen.value).split("; ")
    assert by_override.startswith("--set judge.samples=none: judge.samples: ")
    assert by_file.startswith(f"{file}: unknown key 'souces'")


def test_value_with_a_line_break_is_a_text() -> None:
    recipe = load_recipe("harbour", overrides=["name='a'\njudge.samples=1"])
    assert recipe.name == "'a'\njudge.samples=1"


JURY = 'judge_engines=[{model="infra/harbour/model", use_gpu=false, max_model_len=2048}'
TWICE = f"{JURY}, {JURY.removeprefix('judge_engines=[')}]"


def test_judge_that_sits_on_a_jury_twice_is_refused_in_one_sentence(disk: Home) -> None:
    with pytest.raises(
        RecipeError, match=r"judge_engines\.0 and judge_engines\.1 are the same"
    ) as it:
        check("refresh", load_recipe("harbour", overrides=[TWICE]), disk.url)
    assert "\n" not in str(it.value) and "leave one out" in str(it.value)
    otherwise = TWICE.replace("max_model_len=2048}]", 'max_model_len=2048, dtype="float32"}]')
    check("refresh", load_recipe("harbour", overrides=[otherwise]), disk.url)


def test_jury_beside_a_lone_judge_is_refused() -> None:
    with pytest.raises(RecipeError, match="judge_engine and judge_engines are both set"):
        load_recipe("harbour", overrides=[f"{JURY}]", "judge_engine.model=infra/harbour/model"])


def test_each_judge_of_a_jury_is_checked_under_its_own_name(disk: Home) -> None:
    wrong = TWICE.replace("max_model_len=2048}]", "max_model_len=20480000}]")
    with pytest.raises(RecipeError, match=r"^judge_engines\.1: "):
        check("refresh", load_recipe("harbour", overrides=[wrong]), disk.url)


def test_criterion_without_anchors_is_refused_where_the_recipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine" / "criteria").mkdir(parents=True)
    (tmp_path / "mine" / "criteria" / "tone.md").write_text("Is it friendly?\n- 0: rude\n")
    overrides = [f"judge.template=['{tmp_path}/mine', 'harbour']", "judge.criteria=['tone']"]
    with pytest.raises(RecipeError, match="no anchor says what a score of 10 means") as refusal:
        load_recipe("harbour", overrides=overrides)
    assert "\n" not in str(refusal.value)
    with pytest.raises(RecipeError, match="no criterion 'tune'"):
        load_recipe("harbour", overrides=["judge.criteria=['tune']"])
