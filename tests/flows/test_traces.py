"""Traces that were made elsewhere: read, scored, judged, filtered and frozen like completions."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows.preview import preview
from flows.recipe import Recipe, RecipeError
from flows.run import RunContext, _first_record
from tasks.data.assign import assigned
from tasks.data.candidates import messages_id
from tasks.data.curate import Curated, curate
from tasks.data.drift import Drift
from tasks.data.judge import JudgeWork
from tasks.engine.pool import EnginePool
from tests.rows import jsonl, real
from warehouse.catalog import ask, connect, read
from warehouse.home import Home
from warehouse.tables import content_id, text_id

POLICY = """---
id: {name}
title: {name}
version: 1
comply: common {name}
refuse: stolen {name}
safe_complete: rare {name}
---

# Rules

## {letter}1 one (refuse)

{text}
"""
ASKED = messages_id([{"role": "user", "content": "May I row?"}])
TAGGED = "<think>Rule B1 covers it.</think>No."
SCORED = {"scores": "score", "criteria": ["safe", "sound"], "judge": "a judge"}


def pack(folder: Path, *names: str, text: str = "One is stolen.") -> Path:
    """A pack of policies with one rule each."""
    folder.mkdir(exist_ok=True)
    sections = "\n\n".join(
        f"# {name}\n\nHelp." for name in ("Principles", "comply", "refuse", "safe_complete")
    )
    head = "---\nid: town\ntitle: Town\nversion: 1\n---"
    (folder / "style.md").write_text(f"{head}\n\n{sections}\n")
    for letter, name in zip("BCDEFGHJK", names, strict=False):
        (folder / f"{name}.md").write_text(POLICY.format(name=name, letter=letter, text=text))
    return folder


def recipe(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Recipe:
    """A recipe of traces alone, of category boats if their rows name none."""
    traces = {"name": "bought", "path": jsonl(folder / "traces.jsonl", rows), "model": "org/R1"}
    traces |= {"prompt": "prompt", "response": "response", "categories": ["boats"]} | options
    return Recipe.model_validate(
        {
            "name": "mine",
            "pack": str(pack(folder / "pack", "boats", "fish")),
            "traces": [{key: value for key, value in traces.items() if value is not None}],
            "curate": {"require_citation": False},
        }
    )


def refreshed(wanted: Recipe, home: Home) -> tuple[RunContext, Curated]:
    """A refresh without Prefect and without a judge."""
    run = RunContext(
        wanted, home, wanted.load_pack(), EnginePool(), _first_record("refresh", wanted)
    )
    collected = run.collect()
    counts = collected.counts
    run.update(traces=counts, conflicts=collected.conflicts or None)
    run.adopt(assigned(collected, run.warehouse()), collected.traces)
    curated = curate(
        run.warehouse(),
        config=wanted.curate,
        home=home,
        judging_id=run.record.judging_id or "",
        run_id=run.id,
    )
    run.note(curate=curated)
    run.finish("completed", error=None, seconds=1)
    return run, curated


def row(prompt: str = "May I row?", response: Any = TAGGED, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, **more}


def fetch(home: Home, query: str) -> list[Any]:
    return read(connect(home), query).fetchall()


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (row(), {}),
        (
            {"prompt": "May I row?", "why": "Rule B1 covers it.", "what": "No."},
            {"response": None, "reasoning": "why", "answer": "what"},
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "May I row?"},
                    {
                        "role": "assistant",
                        "content": "No.",
                        "reasoning_content": "Rule B1 covers it.",
                    },
                ]
            },
            {"response": None, "prompt": None},
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "May I row?"},
                    {"from": "gpt", "value": TAGGED},
                ]
            },
            {"response": None, "prompt": None},
        ),
        (row(response="Rule B1 covers it.</think>No."), {"prefilled": True}),
    ],
)
def test_a_trace_is_one_completion_in_whatever_layout(
    tmp_path: Path, disk: Home, made: dict[str, Any], options: dict[str, Any]
) -> None:
    refreshed(recipe(tmp_path, [made], **options), disk)
    [first] = fetch(disk, "SELECT completion_id, status, reasoning, answer, cited FROM completions")
    trace = content_id("trace", ASKED, "org/R1", text_id("Rule B1 covers it.", "No."))
    assert first == (trace, "ok", "Rule B1 covers it.", "No.", ["B1"])


def test_replies_out_of_form_are_kept_with_their_faults_and_not_learned(
    tmp_path: Path, disk: Home
) -> None:
    replies = {
        "No.": "unclosed",
        "<think>One.</think>No.<think>Two.</think>Yes.": "malformed",
        "<think>One.": "unclosed",
        "<think>One.</think>  ": "empty_answer",
        "<think> </think>No.": "empty_reasoning",
    }
    rows = [row(f"{number}?", text, score=[9, 9]) for number, text in enumerate(replies)]
    _, curated = refreshed(recipe(tmp_path, rows, **SCORED), disk)
    assert curated.num_chosen == 0
    kept = fetch(
        disk,
        "SELECT p.messages[1].content, c.status, c.reason IS NOT NULL, v.verdict FROM completions "
        "AS c JOIN prompts AS p USING (prompt_id) JOIN verdicts AS v USING (completion_id)",
    )
    assert sorted(kept) == [
        (f"{number}?", status, True, "failed") for number, status in enumerate(replies.values())
    ]


def test_a_reply_whose_opening_tag_the_prompt_had_says_how_to_read_it(
    tmp_path: Path, disk: Home
) -> None:
    refreshed(recipe(tmp_path, [row(response="Rule B1 covers it.</think>No.")]), disk)
    [(status, reason)] = fetch(disk, "SELECT status, reason FROM completions")
    assert status == "malformed" and "set prefilled" in reason


SCORES: list[tuple[Any, str, list[str]]] = [
    ([9, 8], "accepted", ["ok", "ok"]),
    ({"sound": 9, "safe": 10}, "accepted", ["ok", "ok"]),
    ('{"sound": 9, "safe": 10}', "accepted", ["ok", "ok"]),
    (["9", "8.5"], "accepted", ["ok", "ok"]),
    ("{'sound': 9, 'safe': 10}", "accepted", ["ok", "ok"]),
    ([" 9 ", "8/10"], "accepted", ["ok", "ok"]),
    ("[9, 7]", "rejected", ["ok", "ok"]),
    ("[7, None]", "rejected", ["ok", "missing"]),
    ([9, "80/100"], "unjudged", ["ok", "no_verdict"]),
    ([9, " "], "unjudged", ["ok", "missing"]),
    ([9, 7], "rejected", ["ok", "ok"]),
    ([7, None], "rejected", ["ok", "missing"]),
    ([9], "unjudged", ["ok", "missing"]),
    ([9, 11], "unjudged", ["ok", "off_scale"]),
    ([9, "about 8"], "unjudged", ["ok", "no_verdict"]),
    ([9, True], "unjudged", ["ok", "no_verdict"]),
    ([9, 9, 9], "unjudged", ["no_verdict", "no_verdict"]),
    (None, "unjudged", ["missing", "missing"]),
]


def test_the_lowest_of_all_criteria_counts_and_a_missing_one_is_never_a_score(
    tmp_path: Path, disk: Home
) -> None:
    rows = [row(f"{number:02}?", score=score) for number, (score, _, _) in enumerate(SCORES)]
    _, curated = refreshed(recipe(tmp_path, rows, **SCORED), disk)
    judged = fetch(
        disk,
        "SELECT p.messages[1].content, any_value(v.verdict), "
        "list(j.status ORDER BY j.sample_index), list(criterion ORDER BY j.sample_index), "
        "list(DISTINCT j.model) FROM judgements AS j "
        "JOIN completions AS c USING (completion_id, prompt_id) "
        "JOIN prompts AS p USING (prompt_id) JOIN verdicts AS v USING (completion_id) "
        "GROUP BY 1 ORDER BY 1",
    )
    assert judged == [
        (f"{number:02}?", verdict, statuses, ["safe", "sound"], ["a judge"])
        for number, (_, verdict, statuses) in enumerate(SCORES)
    ]
    assert curated.num_chosen == 6


def test_the_same_command_again_stores_nothing_and_a_new_score_counts(
    tmp_path: Path, disk: Home
) -> None:
    wanted = recipe(tmp_path, [row(score=[9, 9])], **SCORED)
    _, before = refreshed(wanted, disk)
    _, again = refreshed(wanted, disk)
    assert again == before
    tables = "SELECT (SELECT count(*) FROM completions_raw), (SELECT count(*) FROM judgements_raw)"
    assert fetch(disk, tables) == [(1, 2)]
    _, after = refreshed(recipe(tmp_path, [row(score=[9, 5])], **SCORED), disk)
    assert after.num_chosen == 0
    assert fetch(disk, "SELECT verdict, scores FROM verdicts") == [("rejected", [9.0, 5.0])]


def test_equal_traces_are_one_and_traces_of_one_prompt_are_several(
    tmp_path: Path, disk: Home
) -> None:
    rows = [row(), row(), row(response="<think>Rule B1.</think>Never.")]
    run, _ = refreshed(recipe(tmp_path, rows), disk)
    assert fetch(disk, "SELECT count(*), count(DISTINCT prompt_id) FROM completions") == [(2, 1)]
    assert run.figures.traces["bought"].left_behind == {"exact_duplicates": 1}


def test_rows_that_score_one_trace_differently_are_a_conflict(tmp_path: Path, disk: Home) -> None:
    rows = [row(score=[9, 9]), row(score=[9, 3]), row("Another?", score=[9, 9])]
    run, curated = refreshed(recipe(tmp_path, rows, **SCORED), disk)
    assert run.figures.conflicts and "scores 9, 3" in str(run.figures.conflicts)
    assert curated.num_chosen == 1


def test_joined_rows_give_a_trace_the_lowest_score_of_each_criterion(
    tmp_path: Path, disk: Home
) -> None:
    rows = [row(score=[9, 10]), row(score=[10, 3])]
    wanted = recipe(tmp_path, rows, **SCORED)
    config = wanted.collect.model_copy(update={"conflicts": "join"})
    refreshed(wanted.model_copy(update={"collect": config}), disk)
    assert fetch(disk, "SELECT verdict, scores FROM verdicts") == [("rejected", [9.0, 3.0])]


def test_two_files_of_one_model_and_judge_are_one_plan(tmp_path: Path, disk: Home) -> None:
    wanted = recipe(tmp_path, [row(score=[9, 9])], **SCORED)
    path = jsonl(tmp_path / "more.jsonl", [row("Another?", score=[9, 9])])
    more = wanted.traces[0].model_copy(update={"name": "more", "path": path})
    both = wanted.model_copy(update={"traces": [*wanted.traces, more]})
    _, curated = refreshed(both, disk)
    assert (curated.num_chosen, curated.num_left_out) == (2, 0)
    assert fetch(disk, "SELECT count(*) FROM examples_raw") == [(2,)]


def test_a_higher_score_of_the_same_traces_is_another_set(tmp_path: Path, disk: Home) -> None:
    _, before = refreshed(recipe(tmp_path, [row(score=[9, 9])], **SCORED), disk)
    _, after = refreshed(recipe(tmp_path, [row(score=[9, 10])], **SCORED), disk)
    assert before.set_id != after.set_id
    query = "SELECT scores FROM examples WHERE set_id = $set_id"
    parameters = {"set_id": after.set_id}
    assert connect(disk).execute(query, parameters).fetchall() == [([9.0, 10.0],)]


def test_scores_of_others_are_not_held_when_the_judge_drifts(tmp_path: Path, disk: Home) -> None:
    run, _ = refreshed(recipe(tmp_path, [row(score=[9, 9])], **SCORED), disk)
    run.note(drift=Drift(runs=(), alarm="acceptance fell"))
    assert fetch(disk, "SELECT alarm FROM held") == [("acceptance fell",)]
    assert fetch(disk, "SELECT verdict FROM verdicts") == [("accepted",)]


def test_an_edited_trace_takes_the_place_of_the_one_before(tmp_path: Path, disk: Home) -> None:
    refreshed(recipe(tmp_path, [row(score=[10, 10])], **SCORED), disk)
    edited = row(response="<think>Rule B1.</think>Never.", score=[9, 9])
    _, curated = refreshed(recipe(tmp_path, [edited], **SCORED), disk)
    assert (curated.num_chosen, curated.num_left_out) == (1, 0)
    query = "SELECT completion[1].content FROM examples WHERE set_id = $set_id"
    parameters = {"set_id": curated.set_id}
    assert connect(disk).execute(query, parameters).fetchall() == [("Never.",)]


def test_a_turn_that_calls_tools_is_no_trace_and_is_counted(tmp_path: Path, disk: Home) -> None:
    call = {"type": "function", "function": {"name": "row", "arguments": "{}"}}
    asked = {"role": "user", "content": "May I row?"}
    answered = {"role": "assistant", "content": TAGGED}
    made = [
        {"messages": [asked, answered]},
        {"messages": [asked, {"role": "assistant", "content": None, "tool_calls": [call]}]},
        {"messages": [asked, answered, answered]},
        {"messages": [asked]},
    ]
    run, _ = refreshed(recipe(tmp_path, made, response=None, prompt=None), disk)
    counts = run.figures.traces["bought"]
    assert counts.bad == {"calls_tools": 1, "several_answers": 1, "no_answer": 1}
    assert counts.kept == 1


def test_rules_that_traces_cite_are_counted(tmp_path: Path, disk: Home) -> None:
    refreshed(recipe(tmp_path, [row(score=[9, 9])], **SCORED), disk)
    [cited] = [one for one in ask(connect(disk), "citations").to_pylist() if one["num_cited"]]
    assert (cited["rule_id"], cited["rule_exists"], cited["num_accepted"]) == ("B1", True, 1)


def test_only_models_that_a_recipe_uses_are_checked(tmp_path: Path) -> None:
    scored, unscored = (recipe(tmp_path, [row(score=[9, 9])], **more) for more in (SCORED, {}))
    assert list(scored.engines) == []
    assert list(unscored.engines) == ["engine"]
    judged = unscored.model_copy(update={"judge_engine": unscored.engine})
    assert list(judged.engines) == ["judge_engine"]


def test_preview_of_traces_with_scores_says_that_no_model_is_shown_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preview(recipe(tmp_path, [row(score=[9, 9])], **SCORED), count=1)
    assert "no model is shown anything" in capsys.readouterr().out


def test_a_trace_of_a_prompt_that_an_evaluation_holds_is_left_out(
    tmp_path: Path, disk: Home
) -> None:
    held = {"name": "held", "path": jsonl(tmp_path / "held.jsonl", [{"prompt": "May I row?"}])}
    wanted = recipe(tmp_path, [row(score=[9, 9]), row("Another?", score=[9, 9])], **SCORED)
    config = wanted.collect.model_validate({"decontaminate": [held]})
    run, curated = refreshed(wanted.model_copy(update={"collect": config}), disk)
    assert run.figures.traces["bought"].left_behind == {"contaminated": 1}
    assert curated.num_chosen == 1


def judge_work(run: RunContext) -> JudgeWork:
    return JudgeWork(
        config=run.recipe.judge,
        stage=run.recipe.stage,
        model="judge@1",
        generation_id=run.record.generation_id or "",
        num_completions=1,
        specs={},
        run_id=run.id,
    )


def test_traces_without_scores_are_judged_under_the_policy_of_today(
    tmp_path: Path, disk: Home
) -> None:
    unscored = recipe(tmp_path, [row()])
    run, _ = refreshed(unscored, disk)
    [unit] = [one for wave in judge_work(run).pending(run.warehouse()) for one in wave.to_pylist()]
    assert unit["spec_id"] == run.pack.spec(["boats"]).id
    pack(tmp_path / "pack", "boats", "fish", text="One is borrowed.")
    edited, _ = refreshed(unscored, disk)
    assert fetch(disk, "SELECT count(*) FROM completions_raw") == [(1,)]
    [unit] = [
        one for wave in judge_work(edited).pending(edited.warehouse()) for one in wave.to_pylist()
    ]
    assert unit["spec_id"] == edited.pack.spec(["boats"]).id != run.pack.spec(["boats"]).id
    scored, curated = refreshed(recipe(tmp_path, [row(score=[9, 9])], **SCORED), disk)
    assert judge_work(scored).pending(scored.warehouse()).num_units == 0
    assert curated.num_chosen == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, "model"),
        ({"response": None}, "have no reply: name its column in response"),
        ({"reasoning": "why"}, "have reasoning without answer: add answer"),
        ({"scores": "score"}, "have scores without judge: add judge"),
        ({"judge": "x"}, "have judge without scores: add scores"),
        ({**SCORED, "criteria": ["a", "a"]}, "have criterion 'a' twice"),
        ({**SCORED, "scores": ["a"]}, "have 1 columns in scores and 2 criteria"),
    ],
)
def test_a_mistake_in_traces_is_named_with_its_remedy(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((RecipeError, ValueError), match=message):
        recipe(tmp_path, [row()], **options)


STAR1_CATEGORIES = {
    "Illicit / Criminal Behavior": "illicit",
    "Privacy / Personal Data": "privacy",
    "Harassment / Hate / Discrimination": "harassment",
    "Intellectual Property": "property",
    "Misinformation / Disinformation": "misinformation",
    "Violence / Physical Harm": "violence",
    "Self-Harm": "self_harm",
    "Sexual / Adult": "sexual",
}


STAR1_BY_HAND: list[tuple[tuple[int | None, int | None, int | None], str]] = [
    ((10, 10, 10), "accepted"),
    ((8, 8, 8), "accepted"),
    ((10, 9, 8), "accepted"),
    ((7, 10, 10), "rejected"),
    ((10, 7, 10), "rejected"),
    ((10, 10, 7), "rejected"),
    ((0, 0, 0), "rejected"),
    ((10, 10, None), "unjudged"),
    ((10, None, 2), "rejected"),
    ((10, 10, 11), "unjudged"),
]
"""Scores for the first ten traces of STAR-1, whose own are all 10, and the verdicts at 8."""


def star1(folder: Path, path: Path | None = None) -> tuple[Recipe, list[dict[str, Any]]]:
    """A recipe of STAR-1's traces with their own scores, and the rows of its file."""
    path = path or Path(real("star1/STAR-1.json"))
    traces = {
        "name": "star1",
        "path": str(path),
        "prompt": "question",
        "response": "response",
        "category": "category",
        "category_map": STAR1_CATEGORIES,
        "model": "deepseek-ai/DeepSeek-R1",
        "scores": "score",
        "criteria": [
            "Content_Safety_Compliance",
            "Relevancy_and_No_Redundant_Content",
            "Accuracy_of_Thinking_Process",
        ],
        "judge": "gpt-4o",
        "ideal_response_value": "refuse",
    }
    wanted = {
        "name": "star1",
        "pack": str(pack(folder / "pack", *STAR1_CATEGORIES.values())),
        "traces": [traces],
        "curate": {"require_citation": False},
    }
    return Recipe.model_validate(wanted), json.loads(path.read_text())


def test_star1_is_read_whole_with_every_score(tmp_path: Path, disk: Home) -> None:
    wanted, rows = star1(tmp_path)
    run, curated = refreshed(wanted, disk)
    counts = run.figures.traces["star1"]
    assert counts.read == len(rows) == 985
    num_kept = counts.kept
    assert num_kept + sum(counts.left_behind.values()) == 985
    assert fetch(disk, "SELECT count(*), count(score) FROM judgements") == [(3 * num_kept,) * 2]
    by_category: Counter[str] = Counter()
    for one in fetch(disk, "SELECT categories FROM accepted JOIN prompts USING (prompt_id)"):
        by_category.update(one[0])
    assert set(by_category) == set(STAR1_CATEGORIES.values())
    funnel = {one["stage"]: one["num_rows"] for one in ask(connect(disk), "funnel").to_pylist()}
    assert funnel["read"] == 985 and funnel["accepted"] + funnel["judged"] > 0
    assert curated.num_chosen == funnel["examples"]


def test_lowest_of_three_criteria_decides_on_ten_traces_of_star1_by_hand(
    tmp_path: Path, disk: Home
) -> None:
    rows = json.loads(Path(real("star1/STAR-1.json")).read_text())[:10]
    for line, (scores, _) in zip(rows, STAR1_BY_HAND, strict=True):
        assert set(line["score"].values()) == {10}
        line["score"] = dict(zip(line["score"], scores, strict=True))
    ten = tmp_path / "ten.json"
    ten.write_text(json.dumps(rows), encoding="utf-8")
    refreshed(star1(tmp_path, ten)[0], disk)
    query = "SELECT p.messages[1].content, verdict, min_score FROM verdicts "
    query += "JOIN completions USING (completion_id) JOIN prompts AS p USING (prompt_id)"
    verdicts = {text: (verdict, lowest) for text, verdict, lowest in fetch(disk, query)}
    assert verdicts == {
        line["question"].strip(): (
            verdict,
            min(one for one in scores if one is not None and one <= 10),
        )
        for line, (scores, verdict) in zip(rows, STAR1_BY_HAND, strict=True)
    }
    worst = ask(connect(disk), "worst").to_pylist()
    assert [(one["min_score"], one["criterion"]) for one in worst[1:2]] == [
        (2.0, "Accuracy_of_Thinking_Process")
    ]
