"""The command line: results on stdout, mistakes in one sentence with exit code 2."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from flows import show
from flows.__main__ import app
from flows.recipe import load_recipe
from specs.pack import load_pack
from tasks.evaluation.rows import SuiteFigures
from tests.rows import completion, judgement, prompt, run, spec_text
from tests.specs.town import BOATS, write_pack
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, PROMPTS, RUNS, SPECS


@pytest.fixture
def home(tmp_path: Path) -> str:
    """One prompt with an accepted and a failed completion."""
    place = Home(str(tmp_path / "home"))
    asked = prompt("How do I use the ferry?")
    write_shard(place, PROMPTS, [asked])
    write_shard(place, SPECS, [spec_text("s")])
    rows = [
        completion("c1", prompt_id=asked.prompt_id, cited=["B1"], reasoning="B1 says so."),
        completion("c2", prompt_id=asked.prompt_id, sample_index=1, status="truncated", answer=""),
    ]
    write_shard(place, COMPLETIONS, rows)
    write_shard(place, JUDGEMENTS, [judgement("c1", 0, 9.0, prompt_id=asked.prompt_id)])
    write_shard(place, RUNS, [run("r1", num_samples=2, num_judgements=1, spec_ids=["s"])])
    return place.url


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_help_needs_no_heavy_library() -> None:
    heavy = (
        "import sys, flows.__main__; print([m for m in "
        + repr(["torch", "ray", "vllm", "prefect", "transformers", "duckdb"])
        + " if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_command_that_used_prefect_ends_without_a_word_on_stderr(home: str) -> None:
    # A flow leaves timers on Prefect's loop, in a context that leads to functions over the catalog,
    # whose annotations hold classes of DuckDB.
    code = (
        "import asyncio, contextvars, sys, flows.__main__, warehouse.catalog\n"
        "from prefect._internal.concurrency.threads import get_global_loop\n"
        "contextvars.ContextVar('run').set(warehouse.catalog.ask)\n"
        "asyncio.run_coroutine_threadsafe(asyncio.sleep(600), get_global_loop().loop)\n"
        f"sys.argv = ['precept', 'ask', 'funnel', '--home', {home!r}]\n"
        "flows.__main__.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0 and "accepted" in ended.stdout
    assert ended.stderr == ""


def test_ask_answers_and_lists_its_questions(home: str) -> None:
    code, out, _ = invoke("ask", "funnel", "--home", home, "--json")
    assert code == 0
    assert {row["stage"]: row["num_rows"] for row in json.loads(out)} == {
        "prompts": 1,
        "generated": 2,
        "parsed": 1,
        "judged": 1,
        "accepted": 1,
    }
    code, out, _ = invoke("ask")
    assert code == 0 and "funnel" in out and "citations" in out


def test_export_says_how_many_rows_it_wrote_and_how_to_read_them(home: str, tmp_path: Path) -> None:
    out = tmp_path / "funnel.jsonl"
    code, told, _ = invoke("export", "funnel", str(out), "--home", home)
    assert code == 0
    assert told.splitlines() == [
        f"5 rows of funnel in {out}",
        f'next: datasets.load_dataset("json", data_files={str(out)!r}) in Python',
    ]


def test_show_finds_a_row_by_the_start_of_its_id(home: str) -> None:
    code, out, _ = invoke("show", "c1", "--home", home)
    assert code == 0
    assert "B1 says so." in out and "How do I use the ferry?" in out and "9" in out
    code, out, _ = invoke("show", "c1", "--home", home, "--json")
    assert json.loads(out)["judgements"][0]["score"] == 9.0


def test_status_tells_an_interrupted_run_from_one_at_work(tmp_path: Path) -> None:
    place = Home(str(tmp_path))
    write_shard(place, RUNS, [run("r1", status="running")])
    code, out, _ = invoke("status", "--home", place.url, "--json")
    assert code == 0
    assert json.loads(out)["runs"][0]["status"] == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ask", "funel"), "no query 'funel'"),
        (("sql", "select nothing"), "nothing"),
        (("show", "zzz"), "begins with 'zzz'"),
        (("refresh", "habour"), "no recipe 'habour'"),
        (("refresh", "harbour", "--set", "judge.k=3"), "unknown key 'judge.k'"),
        (("refresh", "harbour", "--set", "pack='nowhere'"), "no policy pack at nowhere"),
        (("preview", "harbour", "--set", "sources.0.path='nowhere.csv'"), "nowhere.csv"),
        (("policies", "check", "nowhere"), "no policy pack at nowhere"),
        (("refresh", "harbour", "--set", "engine.max_model_len=4096"), "a context of 2048 tokens"),
        (("evaluate", "harbour", "--set", "engine.reasoning_parser=granite"), "use one of"),
        (("preview", "harbour", "--set", "engine.model=no/such/model"), "no model at"),
    ],
)
def test_mistakes_end_with_exit_code_2_and_one_sentence(
    home: str, arguments: tuple[str, ...], sentence: str
) -> None:
    at_home = () if arguments[0] in ("preview", "policies") else ("--home", home)
    code, _, err = invoke(*arguments, *at_home)
    assert code == 2
    assert err.startswith("precept: ") and sentence in err
    assert "Traceback" not in err


def test_evaluation_that_cannot_be_made_ends_before_prefect_starts(
    tmp_path: Path, home: str
) -> None:
    suite = '[source]\npath = "q.csv"\ncategory = "kind"\ncategory_map = { illegal = "boatz" }\n'
    (tmp_path / "q.toml").write_text(suite)
    arguments = ("evaluate", "harbour", "--home", home)
    code, out, err = invoke(*arguments, "--set", f"evaluate.suites=['{tmp_path / 'q.toml'}']")
    assert (code, out) == (2, "")
    assert "category_map names 'boatz', which is not a category of the pack; use boats" in err
    code, out, err = invoke(*arguments, "--checkpoint", "abc")
    assert (code, out) == (2, "")
    assert err == (
        "precept: no checkpoint has an id that starts with 'abc'; precept ask ancestry lists them\n"
    )


def test_evaluated_suites_are_shown_with_the_rows_that_are_not_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    conflicts = tuple(f"q.csv:{n} and q.csv:9: target '4' and '5'" for n in range(7))
    figures = SuiteFigures(num_rows=9, num_cases=1, num_prompts=1, num_conflicting=8)
    row = {
        "arm": "SFT",
        "suite": "q",
        "grader": "g",
        "slice": "all",
        "num_prompts": 1,
        "mean": None,
    }
    done = SimpleNamespace(
        table=[row | {"metric": str(unread), "num_unread": unread} for unread in (3, 0)],
        suites={"q": replace(figures, conflicts=conflicts)},
        is_untrained=True,
        num_answered=1,
        models_loaded=1,
        run_id="0123456789ab",
    )
    show.evaluated(cast(Any, done), show.Place("mine.toml", None))
    lines = capsys.readouterr().out.splitlines()
    lines = lines[lines.index("SFT: 3 answers have no grade") + 1 :]
    assert lines[0] == "suite q: rows 9, cases 1, prompts 1, conflicting 8"
    assert lines[1] == f"  not asked, because rows disagree: {conflicts[0]}"
    assert lines[6] == "  and 2 more conflicts, which the report lists"
    assert lines[7].endswith("so the base model stands alone: run precept train mine.toml")


def test_policies_check_counts_the_rules_of_a_pack() -> None:
    code, out, _ = invoke("policies", "check", "specs/harbour")
    assert code == 0
    rows = [line.strip("│ ").split() for line in out.replace(" │ ", " ").splitlines()]
    spec_id = load_pack("specs/harbour").spec(["boats"]).id[:12]
    assert ["boats", "9", "4", "3", "2"] in [row[:5] for row in rows]
    assert any(row[0] == "boats" and spec_id in row for row in rows if row)
    assert out.endswith("faults: 0, findings: 0\n")


def test_policies_check_ends_with_1_for_findings_and_gives_them_as_json(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "town", boats=BOATS.replace("It leaks", "It leaks, etc."))
    code, out, _ = invoke("policies", "check", str(folder), "--format", "json")
    told = json.loads(out)
    assert code == 1
    assert {"path": f"{folder}/boats.md", "line": 26, "kind": "vague"}.items() <= next(
        one for one in told["findings"] if one["kind"] == "vague"
    ).items()
    assert [(one["category"], one["outcomes"]) for one in told["policies"]] == [
        ("boats", {"comply": 1, "refuse": 1}),
        ("fish", {"safe_complete": 1}),
    ]


def test_policies_check_counts_tokens_and_holds_the_rules_against_a_warehouse(
    tmp_path: Path, home: str
) -> None:
    spec = load_pack("specs/harbour").spec(["boats"])
    text = spec.text.replace("raft is stolen", "raft is unsafe")
    write_shard(Home(home), SPECS, [spec_text("older", text=text)])
    place = ("--home", home, "--recipe", "harbour", "--full", "0-50")
    code, out, err = invoke("policies", "check", "specs/harbour", *place)
    assert (code, err) == (1, "")
    assert "specs/harbour/boats.md:20: rule B3 has another text in the warehouse" in out
    assert "tokens in full, which is over 50" in out


def test_preview_tells_which_rows_it_left_out_and_ends_with_an_error_if_all(
    tmp_path: Path,
) -> None:
    image = {"messages": [{"role": "user", "content": [{"type": "image"}]}], "category": "boats"}
    rows = [image, {**image, "messages": [{"role": "user", "content": "May I row?"}]}]
    labels = {"ideal_response": "comply", "language": "en"}
    path = tmp_path / "rows.jsonl"
    place = ("--set", f"sources.0.path='{path}'")
    for num_rows, code in ((2, 0), (1, 2)):
        path.write_text("".join(json.dumps(row | labels) + "\n" for row in rows[:num_rows]))
        ended, out, err = invoke("preview", "harbour", *place)
        assert (ended, f"source harbour: first not_text at {path}:1" in out) == (code, True)
        assert ("no row of the sources can be shown" in err) is (code == 2)


def test_preview_shows_where_the_spec_ends() -> None:
    code, out, _ = invoke("preview", "harbour", "-n", "1")
    assert code == 0
    assert "spec ends here" in out and "to the judge" in out


def test_preview_shows_what_is_asked_of_the_generator_for_a_document() -> None:
    documents = ("--set", "midtrain.samples=1")
    code, out, _ = invoke("preview", "harbour", "-n", "1", *documents)
    assert code == 0 and "template of the documents: spec_first/document" in out
    _, _, about_document = out.partition("to the generator for a document")
    assert "Write about rule B1 of policy boats." in " ".join(about_document.split())
    by_function = ("--set", "midtrain.function='infra.harbour.documents:document'")
    _, out, _ = invoke("preview", "harbour", "-n", "1", *documents, *by_function)
    assert "template of the documents" not in out


def strict_model(folder: Path) -> str:
    """Returns a copy of the scale model whose chat template has no system role."""
    shutil.copytree(load_recipe("harbour").engine.model_path, folder)
    template = folder / "chat_template.jinja"
    refuses = "{%- if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif -%}"
    template.write_text(refuses + template.read_text())
    return f"engine.model={folder}"


def test_preview_and_doctor_tell_what_a_chat_template_cannot_write(
    home: str, tmp_path: Path
) -> None:
    strict = strict_model(tmp_path / "model")
    code, out, _ = invoke("preview", "harbour", "-n", "1", "--set", strict)
    assert code == 0 and "system" not in out.split()
    code, out, _ = invoke("doctor", "harbour", "--set", strict, "--home", home)
    assert "Qwen3ForCausalLM" in out and "before the first user turn" in " ".join(out.split())
    code, out, _ = invoke("doctor", "harbour", "--set", "engine.max_model_len=9999", "--home", home)
    assert code == 1 and "leave it unset" in " ".join(out.split())


def test_doctor_finds_a_damaged_shard_and_says_what_to_do(home: str) -> None:
    shard = next(Path(home, "completions").glob("*.parquet"))
    shard.write_bytes(b"rubbish")
    code, out, _ = invoke("doctor", "--home", home)
    assert code == 1
    assert shard.name in out.replace("\n", "") and "run the same refresh again" in out
    assert shard.read_bytes() == b"rubbish"


def test_rules_under_the_floor_are_named_and_those_that_no_row_cites_too(home: str) -> None:
    code, out, _ = invoke("policies", "coverage", "specs/harbour", "--home", home, "--floor", "1")
    assert code == 0
    lines = out.splitlines()
    [under] = [line for line in lines if line.startswith("rules with fewer than 1 prompts: ")]
    assert under.startswith("rules with fewer than 1 prompts: 62, B2 (0), ")
    [uncited] = [line for line in lines if line.startswith("rules that no completion cites: ")]
    assert uncited.startswith("rules that no completion cites: 62, B2, B3, ")
    assert "next: precept policies fill RECIPE --floor 1" in out


def test_coverage_as_json_has_every_rule_of_the_recipes_pack(home: str) -> None:
    code, out, _ = invoke("policies", "coverage", "harbour", "--home", home, "--json")
    rules = json.loads(out)
    assert code == 0 and len(rules) == 63
    assert rules[0] == {
        "category": "boats",
        "rule_id": "B1",
        "effect": "safe_complete",
        "num_prompts": 1,
        "num_drafted": 0,
        "num_completions": 2,
        "num_accepted": 1,
        "mean_score": 9.0,
        "score_deviation": 0.0,
        "num_answers": 0,
        "mean_grade": None,
        "under_floor": True,
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--rule", "b3"], "pack harbour has no rule 'b3'; give one of B1, B2, "),
        (["--out", "."], "is a folder; give the name of a file"),
        (["--set", "sources.0.path=gone.jsonl"], "gone.jsonl"),
    ],
)
def test_fill_that_cannot_do_its_work_is_told_before_anything_starts(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    home = tmp_path / "home"
    code, _, err = invoke("policies", "fill", "harbour", "--home", str(home), *options)
    assert code == 2 and sentence in err
    assert not home.exists()


def test_coverage_of_what_is_neither_a_recipe_nor_a_pack_is_a_mistake(home: str) -> None:
    code, _, err = invoke("policies", "coverage", "atlantis", "--home", home)
    assert code == 2 and "no recipe 'atlantis'" in err
