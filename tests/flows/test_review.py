"""`precept review`: two people review, differ, a third settles it, and curating obeys."""

import os
import pty
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from flows.review import Session, review_queue
from tasks.data.curate import CurateConfig, curate
from tests.rows import completion, judgement, prompt, run, spec_text
from warehouse.catalog import ask, connect
from warehouse.home import Home
from warehouse.shards import list_shards, write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, PROMPTS, REVIEWS, RUNS, SPECS

SECRET = "tangerine 7741"
SCORES = {"a1": 9.0, "b2": 9.0, "c3": 9.0, "d4": 3.0, "e5": 3.0, "f6": 3.0}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Six completions of six prompts, of which the judge accepts three; one may be harmful."""
    place = Home(str(tmp_path / "home"))
    ideal = {"a1": "refuse"}
    write_shard(
        place,
        PROMPTS,
        [prompt(x, prompt_id=f"p {x}", ideal_response=ideal.get(x, "comply")) for x in SCORES],
    )
    write_shard(place, SPECS, [spec_text("s")])
    write_shard(
        place,
        COMPLETIONS,
        [completion(x, prompt_id=f"p {x}", answer=f"{SECRET} of {x}") for x in SCORES],
    )
    scores = [judgement(x, k, SCORES[x], prompt_id=f"p {x}") for x in SCORES for k in (0, 1)]
    write_shard(place, JUDGEMENTS, scores)
    write_shard(place, RUNS, [run("r")])
    return place


def review(home: Home, *args: str, keys: str = "", name: str | None = None) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr of a review with these lines of input."""
    named = ["--reviewer", name] if name else []
    done = CliRunner().invoke(app, ["review", *args, *named, "--home", home.url], input=keys)
    return done.exit_code, done.stdout, done.stderr


def said(home: Home) -> dict[tuple[str, str], tuple[str, str]]:
    rows = (
        connect(home).sql("SELECT completion_id, reviewer, decision, note FROM reviews").fetchall()
    )
    return {(name, reviewer): (decision, note) for name, reviewer, decision, note in rows}


def examples(home: Home) -> dict[str, str]:
    connection = connect(home)
    wanted = pa.table({"prompt_id": [f"p {x}" for x in SCORES], "spec_id": ["s"] * len(SCORES)})
    connection.register("wanted", wanted)
    done = curate(connection, config=CurateConfig(), home=home, judging_id="j", run_id="r")
    rows = connect(home).sql(
        "SELECT completion_id, reason FROM examples WHERE set_id = $id", params={"id": done.set_id}
    )
    return dict(rows.fetchall())


def test_round_of_two_reviewers_with_an_arbiter_is_obeyed(home: Home) -> None:
    """Ann and Bob review all six and differ on b2 and e5; Cyd settles b2, and nobody e5."""
    ann = {"a1": "a", "b2": "a", "c3": "r", "d4": "r", "e5": "a", "f6": "a"}
    bob = {**ann, "b2": "r", "e5": "r"}
    for name, decisions in (("ann", ann), ("bob", bob)):
        _, listed, _ = review(home, "--list", "--wanted", "2", name=name)
        order = sorted(SCORES, key=listed.index)  # the order in which the queue shows them
        keys = "".join(f"{decisions[x]}\n" for x in order)
        code, out, _ = review(home, "--wanted", "2", keys=keys, name=name)
        assert code == 0 and "6 reviewed: " in out
    assert review(home, "--wanted", "2", name="ann")[1].startswith("nothing in this queue waits")
    _, disputed, _ = review(home, "--queue", "disagreement", "--list", name="cyd")
    assert disputed.count("reviewers disagree: 1 accept, 1 reject") == 2
    words = {row["other"]: row for row in ask(connect(home), "review_agreement").to_pylist()}
    # Alike on 4 of 6; Ann accepts 4 of 6 and Bob 2 of 6, so by chance 2/3 * 1/3 * 2 = 4/9.
    assert (words["bob"]["num_shared"], words["bob"]["kappa"]) == (6, 0.4)
    assert examples(home) == {
        "a1": "best of n",
        "b2": "reviewed: disputed",
        "c3": "reviewed: rejected",
        "f6": "reviewed: accepted",
    }
    code, out, _ = review(home, "b2", "accept", "--note", "It keeps to B1.", name="cyd")
    assert (code, out) == (0, "accept b2 by cyd: It keeps to B1.\n")
    assert said(home)["b2", "cyd"] == ("accept", "It keeps to B1.")
    assert examples(home)["b2"] == "best of n"
    assert "1 accept, 1 reject" in review(home, "--queue", "disagreement", "--list", name="cyd")[1]


def test_harmful_text_is_folded_until_it_is_asked_for(home: Home) -> None:
    _, out, _ = review(home, "a1", keys="s\n", name="ann")
    assert SECRET not in out and "may be harmful" in out
    assert SECRET in review(home, "a1", keys="o\ns\n", name="ann")[1]
    assert SECRET in review(home, "b2", keys="s\n", name="ann")[1]
    assert said(home) == {}


def test_other_reviews_are_hidden_from_a_reviewer_and_shown_by_show(home: Home) -> None:
    review(home, "b2", "reject", "--note", "wrong rule", name="ann")
    assert "wrong rule" not in review(home, "b2", keys="q\n", name="bob")[1]
    shown = CliRunner().invoke(app, ["show", "b2", "--home", home.url]).stdout
    assert "wrong rule" in shown and "ann" in shown


def test_completion_of_an_unknown_prompt_is_folded(home: Home) -> None:
    write_shard(home, COMPLETIONS, [completion("g7", prompt_id="gone", answer=SECRET)])
    code, out, _ = review(home, "g7", keys="s\n", name="ann")
    assert code == 0 and SECRET not in out and "gone, which the warehouse lacks" in out
    assert SECRET in review(home, "g7", keys="o\ns\n", name="ann")[1]


def test_a_line_that_is_no_answer_decides_nothing(home: Home) -> None:
    review(home, "a1", keys="really good\nunsafe?\naccept Well put.\n", name="ann")
    assert said(home) == {("a1", "ann"): ("accept", "Well put.")}


def test_ctrl_d_at_the_keys_ends_the_review(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends, terminal = pty.openpty()
    is_over = threading.Event()

    def press() -> None:
        # Keys that are typed before the question is asked are thrown away.
        while not is_over.wait(0.1):
            os.write(ends, b"\x04")

    with os.fdopen(terminal) as keys, ThreadPoolExecutor(1) as person:
        monkeypatch.setattr(sys, "stdin", keys)
        session = Session(
            home=home, connection=connect(home), reviewer="ann", is_open=False, home_option=None
        )
        rows = session.queue("random", rule=None, num_wanted=1, limit=6)
        person.submit(press)
        try:
            review_queue(session, rows)
        finally:
            is_over.set()
    os.close(ends)
    assert "0 reviewed" in capsys.readouterr().out and said(home) == {}


def test_lines_may_bear_notes_and_end_the_review(home: Home) -> None:
    keys = "r cites the wrong rule\nn\nI like it\na\nx\nu\nq\n"
    code, out, _ = review(home, "-n", "5", keys=keys, name="ann")
    assert code == 0 and "3 reviewed: 1 reject, 1 accept, 1 unsure" in out
    assert sorted(said(home).values()) == [
        ("accept", "I like it"),
        ("reject", "cites the wrong rule"),
        ("unsure", ""),
    ]
    # The input ends with the list: nothing is decided for the person.
    assert review(home, keys="", name="bob")[0] == 0 and len(said(home)) == 3


def test_reviewer_is_named_by_the_environment(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECEPT_REVIEWER", "dee")
    review(home, "a1", "unsure")
    monkeypatch.delenv("PRECEPT_REVIEWER")
    monkeypatch.setenv("LOGNAME", "eve")
    review(home, "a1", "reject")
    assert {reviewer for _, reviewer in said(home)} == {"dee", "eve"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a1", "maybe"], "no decision 'maybe'; there are accept, reject, unsure"),
        (["p a1", "accept"], "'p a1' is the id of a prompt, and people review completions"),
        (["zz", "accept"], "no id begins with 'zz'"),
        (["a1", "accept", "--reviewer", " "], "' ' is no reviewer's name"),
    ],
)
def test_mistake_is_told_in_one_sentence(home: Home, args: list[str], message: str) -> None:
    code, out, err = review(home, *args)
    assert (code, out) == (2, "") and message.replace("' '", "''") in err and err.count("\n") == 1
    assert list_shards(home, REVIEWS) == []


def test_reviews_calibrate_the_judge_without_a_model(home: Home) -> None:
    def calibrate(*args: str) -> Any:
        return CliRunner().invoke(
            app, ["calibrate", "harbour", "--reviews", "--home", home.url, *args]
        )

    assert calibrate().exit_code == 2
    for name, decision in {"a1": "accept", "b2": "reject", "d4": "reject"}.items():
        review(home, name, decision, name="ann")
    done = calibrate("--precision", "0.5")
    assert done.exit_code == 0, done.stderr
    assert "judge@1 against reviews" in done.stdout
    assert "of 3 answers 1 are right" in done.stdout
    assert "with precision 0.500" in done.stdout and "recall 1.000" in done.stdout
