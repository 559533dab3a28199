"""`show`, `status`, `diff`: any row whole; what is being done; what two runs differ in."""

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import show
from flows.__main__ import app
from flows.calibrate import Calibrated
from flows.doctor import Check
from flows.evaluate import Evaluated
from flows.fill import Filled
from flows.lock import lock
from flows.run import Refreshed, RunFigures
from flows.steps import progress_bar
from flows.train import Trained
from specs.pack import load_pack
from tasks.data.collect import Counts
from tasks.stage import StageFigures
from tests.hostile import hostile_texts, is_plain
from tests.rows import (
    answer,
    case,
    completion,
    evaluation,
    example,
    judgement,
    later,
    prompt,
    rollout,
    run,
    spec_text,
)
from tests.specs.test_parts import edited
from warehouse.characters import one_line
from warehouse.home import Home
from warehouse.reports.recommend import recommend
from warehouse.shards import write_shard
from warehouse.tables import (
    ANSWERS,
    CASES,
    CHECKPOINTS,
    COMPLETIONS,
    EVALUATIONS,
    EXAMPLES,
    EXCHANGES,
    JUDGEMENTS,
    PROMPTS,
    ROLLOUTS,
    RUNS,
    SPECS,
    Checkpoint,
    Exchange,
    SpecText,
    Turn,
)
from warehouse.upkeep import Damaged

PACK = load_pack("specs/harbour")
RATIONALE = " ".join(f"word{number}" for number in range(300))
IDS = {
    noun: f"{sign}" * 31 + "1"
    for noun, sign in zip(
        ("completion", "prompt", "run", "answer", "case", "grade", "judgement", "checkpoint",
         "rollout", "exchange", "set of examples"),
        "0123456789a", strict=True,
    )
}  # fmt: skip


def spec_row(categories: list[str], pack: Any = PACK, **changes: Any) -> SpecText:
    spec = pack.spec(categories)
    return spec_text(
        spec.id, categories=categories, text=spec.text, rule_ids=list(spec.rule_ids), **changes
    )


SPEC = spec_row(["boats"])


def checkpoint(checkpoint_id: str, **changes: Any) -> Checkpoint:
    row: dict[str, Any] = {
        **{"checkpoint_id": checkpoint_id, "stage": "sft", "status": "completed", "reason": None},
        **{"model": "m@1", "parent": "base@1", "parent_id": None, "set_id": None, "num_rows": 3},
        **{"data_fingerprint": "f", "num_steps": 2, "recipe": "harbour", "run_id": "r"},
        **{"git_commit": None, "seconds": 1.0, "created_at": later(0), "path": "models/m"},
        **{
            "config": "{}",
            "metrics": json.dumps({"last": {"loss": 0.5}, "log": [{"loss": 1}] * 9}),
        },
    }
    return Checkpoint(**{**row, **changes})


def exchange(exchange_id: str, **changes: Any) -> Exchange:
    row: dict[str, Any] = {
        **{"exchange_id": exchange_id, "parent_id": None, "prompt_id": "p", "checkpoint_id": None},
        **{"model": "m@1", "attacking_id": "k", "suite": "harbour", "turn": 1, "branch": 0},
        **{"attempt": 0, "status": "ok", "reason": None, "harm": 0.25, "num_answer_tokens": 1},
        **{"run_id": "r", "created_at": later(0), "message": "Pretty please?"},
        **{"answer": "I will not.", "reasoning": "Rule B3."},
    }
    return Exchange(**{**row, **changes})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A row of every table, and completions of every verdict."""
    place = Home(str(tmp_path_factory.mktemp("home")))
    asked = prompt("How do I use the raft?", prompt_id=IDS["prompt"], ideal_response="refuse")
    shared = {"prompt_id": IDS["prompt"], "spec_id": SPEC.spec_id}
    verdicts = {
        "good": [9.0, 8.0],
        "bad": [9.0, 3.0],
        "open": [9.0, None],
        IDS["completion"]: [8.0, 9.0],
    }
    rows: dict[Any, list[Any]] = {
        PROMPTS: [asked],
        SPECS: [SPEC],
        COMPLETIONS: [
            *(completion(name, cited=["B3"], **shared) for name in verdicts),
            completion("short", status="truncated", reason="cut at 160 tokens", **shared),
        ],
        JUDGEMENTS: [
            judgement(name, number, score, **shared, rationale=RATIONALE)
            for name, scores in verdicts.items()
            for number, score in enumerate(scores)
        ],
        EXAMPLES: [
            example("good", set_id=IDS["set of examples"], status="left_out", reason="not_best")
        ],
        CHECKPOINTS: [checkpoint(IDS["checkpoint"])],
        ROLLOUTS: [rollout(IDS["rollout"], prompt_id=IDS["prompt"])],
        CASES: [case(IDS["case"], target="the raft is stolen")],
        ANSWERS: [answer(IDS["answer"], case_id=IDS["case"])],
        EVALUATIONS: [
            evaluation(IDS["answer"], 0, evaluation_id=IDS["grade"], rationale=RATIONALE)
        ],
        EXCHANGES: [exchange(IDS["exchange"])],
        RUNS: [run(IDS["run"], spec_ids=[SPEC.spec_id], num_judgements=2, threshold=8.0)],
    }
    rows[JUDGEMENTS].append(
        judgement("gone", 0, 5.0, judgement_id=IDS["judgement"], rationale=RATIONALE)
    )
    for table, stored in rows.items():
        write_shard(place, table, stored)
    return place.url


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("noun", IDS)
def test_any_id_is_shown_by_its_first_digits(home: str, noun: str) -> None:
    code, out, err = invoke("show", IDS[noun][:12], "--home", home)
    assert (code, err) == (0, "")
    assert out.startswith(f"{noun} {IDS[noun]}\n") and "…" not in out
    code, out, _ = invoke("show", IDS[noun], "--home", home, "--json")
    assert code == 0 and IDS[noun] in json.loads(out).values()


def test_rationales_are_shown_whole_at_any_width(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in ("80", "120", ""):
        monkeypatch.setenv("COLUMNS", width)
        for row_id in ("bad", IDS["judgement"], IDS["grade"], IDS["answer"]):
            _, out, _ = invoke("show", row_id, "--home", home)
            assert RATIONALE in " ".join(out.split())


@pytest.mark.parametrize(
    ("row_id", "sentence"),
    [
        ("good", "verdict: accepted\n"),
        (
            "bad",
            "verdict: rejected: sample 1 of the judge gave 3, which is under the threshold 8\n",
        ),
        (
            "open",
            "verdict: unjudged: 1 of 2 judge samples were read; "
            "sample 1 of the judge is no_verdict\n",
        ),
        ("short", "verdict: failed: it is truncated, cut at 160 tokens\n"),
    ],
)
def test_completion_says_why_it_is_not_accepted(home: str, row_id: str, sentence: str) -> None:
    _, out, _ = invoke("show", row_id, "--home", home)
    assert sentence in out
    assert "category: boats\nideal response: refuse\n" in out and "threshold: 8\n" in out
    assert ("example: left_out (not_best) in set " in out) == (row_id == "good")


def test_rule_is_shown_with_its_policy_text(home: str) -> None:
    code, out, _ = invoke("show", "B3", "--home", home)
    assert code == 0
    assert "category: boats\n" in out and "completions that cite it: 5\n" not in out
    assert "  - raft [B3, refuse]: raft is stolen\n" in out


@pytest.mark.parametrize(
    ("row_id", "sentence"),
    [
        ("", "the id is empty"),
        (" ", "the id is empty"),
        ("zzz", "no id begins with 'zzz'"),
        ("K3", "no id begins with 'K3'"),
        ("B", "9 ids begin with 'B': give more of one of rule B1, rule B2"),
    ],
)
def test_id_that_is_none_or_many_is_one_sentence(home: str, row_id: str, sentence: str) -> None:
    code, out, err = invoke("show", row_id, "--home", home)
    assert (code, out) == (2, "")
    assert sentence in err and err.count("\n") == 1


def test_ids_of_several_tables_that_start_alike_are_listed(tmp_path: Path) -> None:
    place = Home(str(tmp_path))
    write_shard(place, PROMPTS, [prompt("a", prompt_id="ab1")])
    write_shard(place, RUNS, [run("ab2")])
    _, _, err = invoke("show", "ab", "--home", place.url)
    assert "2 ids begin with 'ab': give more of one of prompt ab1, run ab2" in err


def status(home: Home, *options: str) -> str:
    code, out, _ = invoke("status", "--home", home.url, *options)
    assert code == 0
    return out


def test_status_names_the_flow_in_progress_and_its_time(tmp_path: Path) -> None:
    place, now = Home(str(tmp_path)), datetime.now(UTC)
    ended = run("old", started_at=later(-60), status="failed", error="ValueError: no\nsuch [/red]")
    with lock(place):
        hold_since(place, now - timedelta(seconds=75))
        started = now - timedelta(seconds=75)
        write_shard(
            place, RUNS, [ended, run("new", flow="train", status="running", started_at=started)]
        )
        out = status(place)
        assert re.search(
            r"train of recipe harbour has been running for 1 min 1\d s, run new\n", out
        )
        assert "run old: ValueError: no\n  such [/red]\n" in out
    out = status(place)
    assert "running" not in out and "interrupted" in out


def test_run_that_was_killed_is_not_running_while_another_process_writes(tmp_path: Path) -> None:
    place = Home(str(tmp_path))
    started = datetime.now(UTC) - timedelta(hours=1)
    write_shard(place, RUNS, [run("killed", status="running", started_at=started)])
    with lock(place):
        out = status(place)
    assert "interrupted" in out and "has been running" not in out
    assert "a process has been writing for" in out


def hold_since(home: Home, moment: datetime) -> None:
    """Makes the lock of a warehouse look as old as that."""
    os.utime(f"{home.root}/writer.lock.holder", (moment.timestamp(), moment.timestamp()))


def test_diff_names_the_edited_rule_and_both_its_texts(tmp_path: Path) -> None:
    place = Home(str(tmp_path))
    other = spec_row(["boats"], edited("B3", "raft is fine"))
    write_shard(place, SPECS, [SPEC, other])
    runs = [run("a1", spec_ids=[SPEC.spec_id]), run("b1", spec_ids=[other.spec_id])]
    write_shard(place, RUNS, runs)
    _, out, _ = invoke("diff", "a", "b", "--home", place.url)
    for text in ("boats", "rule B3", "edited", "raft is stolen", "raft is fine"):
        assert text in out
    assert "rule B2" not in out
    _, out, _ = invoke("diff", "a", "b", "--home", place.url, "--json")
    [change] = json.loads(out)["policies"]
    assert (change["category"], change["part"], change["change"]) == ("boats", "rule B3", "edited")


def test_diff_of_one_run_or_of_two_flows_says_so(tmp_path: Path) -> None:
    place = Home(str(tmp_path))
    write_shard(place, RUNS, [run("a1"), run("b1", flow="train"), run("a2", flow="train")])
    _, out, _ = invoke("diff", "a1", "a1", "--home", place.url)
    assert out == "both ids are of run a1, which does not differ from itself\n"
    _, out, _ = invoke("diff", "a1", "b1", "--home", place.url)
    assert out.startswith("run A is of flow refresh and run B of flow train: ")
    assert "What was made" not in out
    code, _, err = invoke("diff", "a", "b1", "--home", place.url)
    assert code == 2 and "2 runs have ids that start with 'a'" in err and "a2 (train)" in err


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A warehouse in which 300 texts that want to be obeyed stand wherever a text can."""
    place = Home(str(tmp_path_factory.mktemp("hostile")))
    texts = hostile_texts(300)
    rows: dict[Any, list[Any]] = {
        PROMPTS: [
            prompt(
                text, prompt_id=f"p{n}", source=text, metadata=[text], categories=[text],
                messages=[Turn(role="user", content=text)],
            )
            for n, text in enumerate(texts)
        ],
        SPECS: [
            spec_text("s", text=f"# Policy x\n- x [B1, refuse]: {''.join(texts)}", pack=texts[0])
        ],
        COMPLETIONS: [
            completion(
                f"c{n}", prompt_id=f"p{n}", status="ok" if n % 2 else text, reason=text, model=text,
                answer=text, reasoning=text, cited=[text],
            )
            for n, text in enumerate(texts)
        ],
        JUDGEMENTS: [
            judgement(
                f"c{n}", k, score, prompt_id=f"p{n}", rationale=text, reason=text, model=text
            )
            for n, text in enumerate(texts)
            for k, score in enumerate([9.0, 9.0 if n % 3 else None])
        ],
        EXCHANGES: [exchange(f"x{n}", message=text) for n, text in enumerate(texts[:9])],
        RUNS: [
            run(f"r{n}", recipe=text, flow=text, status=text, error=text, git_commit=text)
            for n, text in enumerate(texts)
        ] + [run("r", num_judgements=2, started_at=later(1), versions=json.dumps({"\x1b": texts}))],
    }  # fmt: skip
    for table, stored in rows.items():
        write_shard(place, table, stored)
    return place.url


@pytest.mark.parametrize(
    "arguments",
    [
        ("sql", "from prompts"),
        ("sql", "from completions"),
        ("sql", "from judgements"),
        ("sql", "select recipe, flow, error from runs"),
        ("sql", "from prompts", "--json"),
        ("sql", "select source as \"a\x1b[/red]\" from prompts limit 1"),
        ("ask", "worst"),
        ("ask", "accepted_chains"),
        ("ask", "unjudged"),
        ("status",),
        ("status", "--json"),
        ("show", "B1"),
        ("show", "s"),
        ("show", "r"),
        ("diff", "r1", "r2"),
        ("diff", "r1", "r2", "--json"),
        ("show", "\x1b[31m[/red]\u202e"),
        ("ask", "\x1b[31m[/red]\u202e"),
        ("show", "--\u202e[/red]"),
        ("report", "\x1b[31m[/red]\u202e"),
        ("export", "funnel", "\x1b[31m[/red]\u202e"),
        ("sql", "select '\x1b[/red]\u202e' from nowhere"),
        ("refresh", "\x1b[31m[/red]\u202e"),
        ("refresh", "harbour", "--set", "\x9b31m[/red]=1"),
        *(("show", f"{kind}{number}") for kind in "cpx" for number in range(0, 9, 4)),
    ],
)  # fmt: skip
def test_no_text_of_a_warehouse_or_an_error_is_obeyed(
    hostile: str, arguments: tuple[str, ...]
) -> None:
    code, out, err = invoke(*arguments, "--home", hostile)
    assert is_plain(out) and is_plain(err)
    assert code in (0, 2) and bool(out) == (code == 0)


def test_name_and_header_of_a_file_are_quoted_as_text(tmp_path: Path) -> None:
    headers = {"\x1b[31m[v2]\u202e.csv": "", "a.csv": "\x1b[2J[v2],\x9bb\nx,y\n"}
    for name, text in headers.items():
        path = tmp_path / name
        path.write_text(text)
        setting = f"sources.0.path={json.dumps(str(path))}"
        code, out, err = invoke("preview", "harbour", "--set", setting)
        assert (code, out) == (2, "") and is_plain(err) and "[v2]" in err


def test_every_text_of_a_table_is_printed(hostile: str) -> None:
    _, out, _ = invoke("sql", "select answer from completions", "--home", hostile)
    shown = re.sub(r"\s+", "", out)
    for text in hostile_texts(300):
        assert "[/red]" not in text or "[/red]" in shown
    assert shown.count("[/red]") == sum(text.count("[/red]") for text in hostile_texts(300))
    assert shown.count("\\x1b") == sum(text.count("\x1b") for text in hostile_texts(300))


def test_fill_says_what_came_to_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    done = Filled(
        run_id="r",
        home="h",
        out="fill.jsonl",
        num_written=0,
        rules=[],
        floor=5,
        statuses={"error": 3},
        faults=["KeyError: 'B9'", "KeyError: 'B8'"],
        counts=Counts(),
        num_mislabelled=2,
        num_hard=0,
    )
    show.filled(done, show.Place("harbour", None))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "no prompt to mine for these rules",
        "drafts: error 3",
        "error of a draft: KeyError: 'B9' (others: 1; see column reason of table drafts)",
        "prompts added to fill.jsonl: 0",
        "prompts in fill.jsonl with a label that the pack no longer gives: 2; change their "
        "ideal_response, or delete their lines",
        "next: precept refresh harbour",
    ]
    show.filled(replace(done, num_hard=None), show.Place("harbour", None))
    assert "no rule lacks prompts: each has 5 or more" in capsys.readouterr().out


def test_outcomes_of_flows_are_printed_as_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for text in ("a[/red]", "[v2] :smile:", *hostile_texts(40)):
        figures = RunFigures(
            damaged=(Damaged(table="runs", path=text, reason=text, moved_to=text),),
            collect={text: Counts(read=2, bad={text: 1})},
            stages={"assign": StageFigures(num_rows=1, statuses={text: 1})},
        )
        row = {
            **{"suite": text, "metric": text, "slice": "all", "grader": text, "arm": text},
            **{"mean": 0.5, "low": 0.25, "high": 0.75, "num_prompts": 3, "num_unread": 1},
        }
        held = {
            **{
                "grader": text,
                "criterion": text,
                "gold": text,
                "threshold": 8,
                "k": 1,
                "precision": 0.5,
            },
            **{"recall": 0.5, "f1": 0.5, "num_answers": 2, "num_gold": 1},
            **{"low": 0.1, "high": 0.9, "tokens": 2.0, "tokens_racing": 1.0, "num_judges": 1},
        }
        place = show.Place(text, str(tmp_path))
        funnel = [{"stage": text, "num_rows": 1, "left_behind": text}]
        show.refreshed(Refreshed("r", str(tmp_path), funnel, text, 0, figures, 0), place)
        show.evaluated(Evaluated("r", text, [row], 1, 1, {}), place)
        show.calibrated(Calibrated("r", text, [held], {}, recommend([held], 0.9)), place)
        show.trained(Trained("r", text, {text: checkpoint("c", reason=text)}, 1), place)
        show.checks([Check(text, False, text, text)], as_json=False)
        printed = capsys.readouterr()
        assert is_plain(printed.out) and not printed.err
        assert f"source {one_line(text)}: read 2, " in printed.out


def test_progress_shows_names_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("grade a[/red]\x1b[2J", 2) as advance:
        advance(2)
    assert is_plain(capsys.readouterr().err)


def test_preview_shows_what_a_model_is_asked_as_text(tmp_path: Path) -> None:
    texts = [text for text in hostile_texts(120) if text.strip()]
    path = tmp_path / "p.jsonl"
    rows = [
        {
            **{"messages": [{"role": "user", "content": text}], "category": "boats"},
            **{"ideal_response": "comply", "language": "en"},
        }
        for text in texts
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = invoke("preview", "harbour", "-n", "90", "--set", f"sources.0.path='{path}'")
    assert code == 0, err
    assert is_plain(out) and "[/red]" in out and "\\x1b]52;c;" in out
