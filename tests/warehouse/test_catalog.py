"""Views and questions over a small warehouse give the rows counted by hand."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tests.rows import completion, example, judgement, later, prompt, run, spec_text
from warehouse.answers import export
from warehouse.catalog import QuestionError, ask, connect, query_names, query_text, read
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import (
    COMPLETIONS,
    EXAMPLES,
    JUDGEMENTS,
    PROMPTS,
    RUNS,
    SPECS,
    TABLES,
    Table,
    Turn,
    content_id,
)

SKIFF = prompt("may i take the skiff", prompt_id="skiff")
EEL = prompt("may i eat the eel", prompt_id="eel", categories=["fish"], ideal_response="refuse")


OF_SKIFF = {"prompt_id": "skiff", "spec_id": "boats1"}


def write_small_warehouse(home: Home) -> None:
    """Writes two prompts, two completions of each, two judgements of each, and superseded rows."""

    def sample(completion_id: str, prompt_id: str, spec_id: str, **changes: Any) -> Any:
        return completion(completion_id, prompt_id=prompt_id, spec_id=spec_id, **changes)

    def scores(completion_id: str, spec_id: str, *values: float | None) -> list[Any]:
        return [
            judgement(
                completion_id,
                index,
                score,
                spec_id=spec_id,
                prompt_id="eel" if spec_id == "fish1" else "skiff",
            )
            for index, score in enumerate(values)
        ]

    rows: dict[str, Sequence[Any]] = {
        "prompts": [SKIFF, EEL],
        "specs": [
            spec_text("boats1", rule_ids=["B1", "B2", "B3"]),
            spec_text("fish1", categories=["fish"], rule_ids=["F1"]),
            spec_text("boats0", rule_ids=["B1", "B9"]),
        ],
        "completions": [
            sample("good", "skiff", "boats1"),
            sample("split", "skiff", "boats1", sample_index=1, cited=["B1", "B2"]),
            sample("half", "eel", "fish1", cited=["F1"], cited_unknown=["F9"]),
            sample("open", "eel", "fish1", sample_index=1, status="unclosed", cited=[], answer=""),
            # Not current: an edited policy, more samples than the run wanted, another model.
            sample("old", "skiff", "boats0", cited=["B9"]),
            sample("fifth", "skiff", "boats1", sample_index=4),
            sample("other", "skiff", "boats1", generation_id="g0"),
        ],
        "judgements": [
            *scores("good", "boats1", 9, 10),
            *scores("split", "boats1", 9, 3),
            *scores("half", "fish1", 8, None),
            *scores("old", "boats0", 10, 10),
            judgement("good", 2, 1.0, **OF_SKIFF),
            judgement("good", 0, 0.0, **OF_SKIFF, judging_id="j0", judgement_id="x"),
        ],
        "examples": [
            example("good", set_id="set1", prompt_id="skiff"),
            example("other", set_id="set1", prompt_id="skiff", status="left_out"),
            example("old", set_id="set0", prompt_id="skiff"),
        ],
        "runs": [
            run("r0", spec_ids=["boats0"], set_id="set0"),
            run(
                "r1",
                spec_ids=["boats1", "fish1"],
                num_samples=2,
                set_id="set1",
                started_at=later(60),
            ),
            run("r2", flow="train", started_at=later(90), generation_id=None, spec_ids=[]),
        ],
    }
    for name, part in rows.items():
        write_shard(home, TABLES[name], part)


ASKED = asdict(Turn(role="user", content="may i take the skiff"))
ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "funnel": [
        ("prompts", 2, ""),
        ("generated", 4, ""),
        ("parsed", 3, "1 unclosed"),
        ("judged", 2, "1 unjudged"),
        ("accepted", 1, "1 under the threshold 8"),
        ("examples", 1, ""),
    ],
    "acceptance_by_category": [
        ("boats", "comply", 2, 1, 1, 0, 0, 0.5),
        ("fish", "refuse", 2, 0, 0, 1, 1, 0.0),
    ],
    "citations": [
        ("boats", "B1", True, 2, 1),
        ("boats", "B2", True, 1, 0),
        ("fish", "F1", True, 1, 0),
        ("boats", "B3", True, 0, 0),
        ("", "F9", False, 1, 0),
    ],
    "unjudged": [("no_verdict", None, 1, 1, "half")],
    "judge_spread": [("judge@1", None, 1.0, 1, 9.0, 0), ("judge@1", None, 6.0, 1, 3.0, 1)],
    "rl_prompts": [("skiff", "boats", "comply", 2, 0.5, [ASKED])],
    "sft_examples": [
        (
            "good",
            "skiff",
            "boats",
            "comply",
            10.0,
            ["B1"],
            [asdict(Turn(role="user", content="How do I use the ferry?"))],
            [
                {
                    "role": "assistant",
                    "content": "Take the skiff.",
                    "reasoning_content": "Rule B1 covers it, and so I comply.",
                }
            ],
        )
    ],
    "worst": [
        ("split", 3.0, [9.0, 3.0], "boats", ["B1", "B2"], "judge@1", None, "Worth 3."),
        ("half", 8.0, [8.0], "fish", ["F1"], "judge@1", None, "Worth 8."),
        ("good", 9.0, [9.0, 10.0], "boats", ["B1"], "judge@1", None, "Worth 9."),
    ],
    "accepted_chains": [
        (
            "good",
            "boats",
            "comply",
            "may i take the skiff",
            "Rule B1 covers it.",
            "Take the skiff.",
            ["B1"],
            [9.0, 10.0],
        )
    ],
}


def rows_of(home: Home, name: str) -> list[tuple[Any, ...]]:
    table = ask(connect(home), name)
    return [tuple(row.values()) for row in table.to_pylist()]


def test_every_question_has_the_answer_counted_by_hand(home: Home) -> None:
    write_small_warehouse(home)
    for name, answer in ANSWERS.items():
        assert rows_of(home, name) == answer, name


def test_completions_without_all_judgements_are_unjudged_because_samples_are_missing(
    home: Home,
) -> None:
    write_small_warehouse(home)
    fresh = [
        completion(name, prompt_id="eel", spec_id="fish1", cited=["F1"])
        for name in ("never", "partly", "unread")
    ]
    write_shard(home, TABLES["completions"], fresh)
    samples = [("partly", 0, 9.0), ("unread", 0, None), ("never", 2, None)]
    judgements = [judgement(*sample, prompt_id="eel", spec_id="fish1") for sample in samples]
    write_shard(home, TABLES["judgements"], judgements)
    reason = "samples of the judge are still to be made"
    assert rows_of(home, "unjudged") == [
        ("missing", reason, 0, 3, "never"),
        ("no_verdict", None, 2, 2, "half"),
    ]


def test_every_question_can_be_asked_of_a_small_warehouse_and_of_none(home: Home) -> None:
    assert set(ANSWERS) <= set(query_names())
    empty = connect(home)
    columns = {name: ask(empty, name).column_names for name in query_names()}
    write_small_warehouse(home)
    filled = connect(home)
    for name in query_names():
        assert ask(filled, name).column_names == columns[name]
        assert query_text(name).startswith("-- "), f"{name} does not say what it answers"


def test_unknown_question_is_refused_with_the_names_of_all_questions() -> None:
    with pytest.raises(QuestionError, match="no query 'views'; there are acceptance_by_category"):
        query_text("views")


def test_an_empty_warehouse_has_empty_views_of_the_right_types(home: Home) -> None:
    connection = connect(home)
    for table in TABLES.values():
        rows = connection.sql(f"FROM {table.name}_all").to_arrow_table()
        assert rows.num_rows == 0
        assert rows.schema.names == table.schema.names
    assert read(connection, "SELECT count(*) FROM verdicts").fetchall() == [(0,)]


def test_views_of_an_empty_and_a_filled_table_have_the_same_types(disk: Home) -> None:
    def types(table: Table) -> list[str]:
        relation = connect(disk).sql(f"FROM {table.name}_all")
        return [str(kind) for kind in relation.types]

    empty = {name: types(table) for name, table in TABLES.items()}
    write_small_warehouse(disk)
    assert {name: types(table) for name, table in TABLES.items()} == empty


def test_a_connection_shows_one_moment_and_the_next_one_what_was_written_since(home: Home) -> None:
    write_shard(home, PROMPTS, [SKIFF])
    connection = connect(home)
    write_shard(home, PROMPTS, [EEL])
    assert connection.sql("SELECT count(*) FROM prompts").fetchall() == [(1,)]
    assert connect(home).sql("SELECT count(*) FROM prompts").fetchall() == [(2,)]


def test_each_connection_shows_its_own_warehouse_and_relations(tmp_path: Path) -> None:
    here, there, new = (Home(str(tmp_path / name)) for name in ("here", "there", "new"))
    write_shard(here, PROMPTS, [SKIFF])
    write_shard(there, PROMPTS, [EEL])
    first, second, third = connect(here), connect(there), connect(new)
    first.register("wanted", pa.table({"prompt_id": ["skiff"], "spec_id": ["s"]}))
    query = "SELECT prompt_id FROM prompts"
    assert first.sql(query).fetchall() == first.sql("SELECT prompt_id FROM wanted").fetchall()
    first.close()
    assert second.sql(query).fetchall() == [("eel",)]
    assert third.sql(query).fetchall() == second.sql("FROM wanted").fetchall() == []


def test_threads_ask_at_once(disk: Home) -> None:
    write_small_warehouse(disk)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(verdicts, [disk] * 8))
    assert found == [verdicts(disk)] * 8


def test_an_id_is_shown_once_by_its_latest_attempt_and_the_row_that_came_first(
    home: Home,
) -> None:
    write_shard(home, COMPLETIONS, [completion("c", status="error")])
    write_shard(home, COMPLETIONS, [completion("c", attempt=1, answer="first"), completion("d")])
    write_shard(
        home, COMPLETIONS, [completion("c", attempt=1, answer="second", created_at=later(1))]
    )
    shown = connect(home).sql(
        "SELECT completion_id, status, answer FROM completions_all ORDER BY ALL"
    )
    assert shown.fetchall() == [("c", "ok", "first"), ("d", "ok", "Take the skiff.")]


def test_superseded_rows_stay_and_only_current_ones_are_shown(disk: Home) -> None:
    write_small_warehouse(disk)
    connection = connect(disk)

    def ids(view: str) -> set[str]:
        rows = connection.sql(f"SELECT completion_id FROM {view}").fetchall()
        return {row[0] for row in rows}

    assert ids("completions") == {"good", "split", "half", "open"}
    assert ids("completions_all") - ids("completions") == {"old", "fifth", "other"}
    assert ids("judgements") == {"good", "split", "half"}


def verdicts(home: Home) -> dict[str, str]:
    rows = read(connect(home), "SELECT completion_id, verdict FROM verdicts").fetchall()
    assert len(rows) == len(dict(rows))
    return dict(rows)


def test_verdict_follows_the_lowest_score_and_never_an_unread_one(disk: Home) -> None:
    write_small_warehouse(disk)
    assert verdicts(disk) == {
        "good": "accepted",
        "split": "rejected",
        "half": "unjudged",
        "open": "failed",
    }


def test_latest_run_of_a_recipe_sets_the_threshold(disk: Home) -> None:
    write_small_warehouse(disk)
    write_shard(
        disk,
        RUNS,
        [run("r3", spec_ids=["boats1"], num_samples=2, threshold=3.0, started_at=later(120))],
    )
    assert verdicts(disk) == {"good": "accepted", "split": "accepted"}


def test_recipes_that_share_completions_are_counted_once(disk: Home) -> None:
    write_small_warehouse(disk)
    write_shard(
        disk,
        RUNS,
        [run("r3", recipe="mild", spec_ids=["boats1"], num_samples=2, threshold=3.0)],
    )
    rows = rows_of(disk, "funnel")
    assert {stage: count for stage, count, _ in rows[:5]} == {
        "prompts": 2,
        "generated": 4,
        "parsed": 3,
        "judged": 2,
        "accepted": 2,
    }
    # What one of them accepts is not also counted as rejected.
    assert rows[4] == ("accepted", 2, "")


COUNTS = {
    "asked": {
        "read": 20,
        "kept": 3,
        "to_assign": 5,
        "unassigned": 1,
        "exact_duplicates": 2,
        "near_duplicates": 1,
        "contaminated": 2,
        "conflicting": 2,
        "left_out": 1,
        "stored": 3,
        "bad": {"empty_prompt": 2, "unknown_role: $boss": 1},
    },
    "$.odd/name": {"read": 1, "kept": 0, "left_out": 1, "bad": {}},
}


def left(text: str) -> int:
    """Returns the sum of the numbers in "2 unread, 1 too_long"."""
    return sum(int(part.split(" ")[0]) for part in text.split(", ") if part)


def test_the_funnel_adds_up_from_rows_of_the_sources_to_examples(disk: Home) -> None:
    asked = [prompt(str(n), prompt_id=str(n)) for n in range(5)]
    completions = [
        completion(f"{n}{k}", prompt_id=str(n), sample_index=k, status=status)
        for n, k, status in [
            *((n, k, "ok") for n in range(4) for k in (0, 1)),
            (4, 0, "truncated"),
        ]
    ]
    judgements = [
        *(
            judgement(f"{n}{k}", j, 9.0, prompt_id=str(n))
            for n in (0, 1)
            for k in (0, 1)
            for j in (0, 1)
        ),
        *(judgement(name, 0, 7.0, prompt_id=name[0]) for name in ("20", "21", "30")),
        judgement("31", 0, None, prompt_id="3"),
    ]
    examples = [
        example("00", prompt_id="0"),
        example("01", prompt_id="0", status="left_out", reason="not_best"),
        example("10", prompt_id="1", status="left_out", reason="uncited"),
        example("11", prompt_id="1"),
    ]
    figures = {
        "collect": COUNTS,
        "assigned": {"ok": 2, "unassigned": 1, "unread": 1, "too_long": 1},
    }
    for name, rows in (
        ("prompts", asked),
        ("completions", completions),
        ("judgements", judgements),
        ("examples", examples),
        ("runs", [run("r", num_samples=2, set_id="set", figures=json.dumps(figures))]),
    ):
        write_shard(disk, TABLES[name], rows)
    funnel = rows_of(disk, "funnel")
    assert funnel == [
        ("read", 21, ""),
        (
            "prompts",
            5,
            "2 conflicting, 2 contaminated, 2 empty_prompt, 2 exact_duplicates, 2 left_out, "
            "2 unassigned, 1 near_duplicates, 1 too_long, 1 unknown_role: $boss, 1 unread",
        ),
        ("generated", 9, "1 not generated yet"),
        ("parsed", 8, "1 truncated"),
        ("judged", 7, "1 unjudged"),
        ("accepted", 4, "3 under the threshold 8"),
        ("examples", 2, "1 not_best, 1 uncited"),
    ]
    for before, (_, after, text) in zip(
        [21, 5 * 2, *(count for _, count, _ in funnel[2:])], funnel[1:], strict=False
    ):
        assert before - left(text) == after


def test_prompts_of_earlier_runs_are_told_from_those_that_the_latest_run_wants(
    disk: Home,
) -> None:
    completions = [completion(str(n), prompt_id=str(n)) for n in range(3)]
    write_shard(disk, COMPLETIONS, completions)
    figures = {"collect": {"asked": {"read": 1, "kept": 1}}}
    write_shard(disk, RUNS, [run("r", num_samples=1, figures=json.dumps(figures))])
    assert rows_of(disk, "funnel")[:3] == [
        ("read", 1, ""),
        ("prompts", 3, "2 more from earlier runs"),
        ("generated", 3, ""),
    ]


def test_a_run_that_wants_nothing_has_no_current_completions(disk: Home) -> None:
    write_shard(disk, COMPLETIONS, [completion("old")])
    figures = {"collect": {"asked": {"read": 24, "to_assign": 24}}, "assigned": {"unread": 24}}
    write_shard(disk, RUNS, [run("r", spec_ids=[], figures=json.dumps(figures))])
    assert rows_of(disk, "funnel")[:3] == [
        ("read", 24, ""),
        ("prompts", 0, "24 unread"),
        ("generated", 0, ""),
    ]


def test_a_judge_that_was_shown_other_metadata_replaces_its_own_judgement(disk: Home) -> None:
    write_small_warehouse(disk)
    later_judgements = [
        judgement("split", n, 9.0, **OF_SKIFF, judgement_id=f"n{n}", created_at=later(5))
        for n in (0, 1)
    ]
    write_shard(disk, JUDGEMENTS, later_judgements)
    assert verdicts(disk)["split"] == "accepted"


@pytest.mark.parametrize(
    "parts", [("a", "b", 0), ("a|b", "é🐟", 12), ("", "", -1), ("True", "x@y", 3)]
)
def test_sql_and_python_compute_the_same_content_id(disk: Home, parts: tuple[object, ...]) -> None:
    rows = connect(disk).execute(
        "SELECT content_id([$a, $b, $c::VARCHAR])", dict(zip("abc", parts, strict=True))
    )
    assert rows.fetchall() == [(content_id(*parts),)]


def sql_text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_export_is_one_whole_file_with_every_row(disk: Home, tmp_path: Path, ending: str) -> None:
    write_shard(disk, EXAMPLES, [example("a"), example("b"), example("c", status="left_out")])
    write_shard(disk, RUNS, [run("r", set_id="set")])
    out = tmp_path / f"it's.{ending}"
    assert export(connect(disk), "sft_examples", str(out)) == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]
    exported = duckdb.sql("FROM query($sql)", params={"sql": f"FROM {sql_text(str(out))}"})
    assert [row[0] for row in exported.fetchall()] == ["a", "b"]
    with pytest.raises(QuestionError, match=r"\.parquet, \.jsonl, \.json, \.csv"):
        export(connect(disk), "sft_examples", str(tmp_path / "rows.xlsx"))


def test_rows_of_a_view_have_the_fields_of_their_row_class(disk: Home) -> None:
    write_small_warehouse(disk)
    connection = connect(disk)
    for table in (PROMPTS, SPECS, EXAMPLES):
        row = connection.sql(f"FROM {table.name} LIMIT 1").to_arrow_table().to_pylist()[0]
        assert list(row) == [field.name for field in fields(table.row)]
    ((turn,),) = connection.sql(
        "SELECT messages[1] FROM prompts WHERE prompt_id = 'eel'"
    ).fetchall()
    assert Turn(**turn) == EEL.messages[0]


def test_folder_named_like_a_column_adds_and_changes_nothing(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "status=failed" / "run_id=7"))
    write_shard(home, PROMPTS, [prompt("May I row?")])
    connection = connect(home)
    assert connection.sql("SELECT status FROM prompts").fetchall() == [("ok",)]
    assert connection.table("prompts").columns == PROMPTS.schema.names
    assert connection.sql("SELECT kind FROM shards WHERE kind <> ''").fetchall() == [("prompts",)]
