"""Data sets leave in the forms that others read, whole, and without what must stay."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import duckdb
import pytest

from specs.calls import Call, calls_text
from specs.replies import ReplyStatus, split_text
from tasks.data.traces import TraceConfig, read_traces
from tests.rows import completion, example, judgement, later, prompt, review
from tests.warehouse.exports.town import SPEC, fill, refreshed, words
from warehouse.catalog import ask, connect
from warehouse.exports import dataset as exporting
from warehouse.exports.dataset import (
    CONFIGS,
    DatasetOptions,
    ExportedRows,
    ExportError,
    Form,
    export_rows,
)
from warehouse.exports.folders import Publisher, export_dataset, whole_folder
from warehouse.files import OutputError
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, EXAMPLES, JUDGEMENTS, PROMPTS, REVIEWS, RUNS, Turn

FORMS: tuple[Form, ...] = get_args(Form)
STAYED = ("asked-good", "said-good", "test-good", "ferry-old", SPEC)
"""Words of rows that a suite asks, of another split and of an older spec; and the spec."""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(str(tmp_path_factory.mktemp("town") / "home"))
    fill(home)
    return home


@pytest.fixture(scope="module")
def leaving(town: Home, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The data set of the town in every form."""
    folders = {}
    for form in FORMS:
        folders[form] = tmp_path_factory.mktemp("exports") / form
        options = DatasetOptions(form=form, all_prompts=True)
        publisher = Publisher(command="precept export dataset")
        export_dataset(town, str(folders[form]), options, publisher)
    return folders


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def export(home: Home, folder: Path, **options: Any) -> ExportedRows:
    folder.mkdir()
    return export_rows(connect(home), folder, DatasetOptions(**options))


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    relation = duckdb.sql(f"FROM read_parquet('{folder / name}/*.parquet')")
    return list(relation.to_arrow_table().to_pylist())


FIRST = {
    "trl": {"sft": ["prompt", "completion"], "rl_prompts": ["prompt"]},
    "messages": {"sft": ["messages"], "preference": ["prompt", "chosen", "rejected"]},
    "sharegpt": {"sft": ["id", "conversations"], "preference": ["id", "conversations", "chosen"]},
    "star1": {"sft": ["id", "question", "response", "category", "source", "score"]},
    "verl": {
        "rl_prompts": ["data_source", "prompt", "ability", "reward_model", "extra_info"],
        "sft": ["data_source", "messages", "ability", "extra_info"],
    },
}
"""The first columns of some configurations, by form."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("loading")
def test_every_configuration_is_loaded_offline_as_it_stands(
    leaving: dict[str, Path], form: str
) -> None:
    import datasets

    whole = {"sft": 3, "rl_prompts": 3, "preference": 3, "rejected": 3, "traces": 7}
    # Of a chat with several turns STAR-1's form has no row.
    lost = {name: 2 if name == "traces" else 1 for name in CONFIGS} if form == "star1" else {}
    for name, num_rows in whole.items():
        loaded = datasets.load_dataset(str(leaving[form]), name)
        assert list(loaded) == ["train"] and len(loaded["train"]) == num_rows - lost.get(name, 0)
        first = FIRST[form].get(name, [])
        assert loaded["train"].column_names[: len(first)] == first


def test_rows_that_a_form_cannot_hold_are_counted(town: Home, tmp_path: Path) -> None:
    exported = export(town, tmp_path / "data", form="star1")
    assert {config.name: config.num_left_out for config in exported.configs} == {
        name: 2 if name == "traces" else 1 for name in CONFIGS
    }


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_suites_superseded_rows_and_specs_stay_behind(
    leaving: dict[str, Path], form: str
) -> None:
    folder = leaving[form]
    told = "".join(
        path.read_text() for path in folder.iterdir() if path.suffix in (".md", ".json", ".toml")
    )
    told += "".join(json.dumps(rows(folder, name), default=str) for name in CONFIGS)
    assert "ferry-good" in told and "ferry-bad" in told
    assert not [words for words in STAYED if words in told]


def test_examples_that_leave_are_those_of_the_funnel(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    shutil.rmtree(tmp_path / "home" / "cases")
    funnel = {row["stage"]: row["num_rows"] for row in ask(connect(home), "funnel").to_pylist()}
    exported = export(home, tmp_path / "data")
    # All but the one of another split.
    assert exported.configs[0].num_rows == funnel["examples"] - 1 == 5


@pytest.mark.parametrize(
    ("reasoning", "turn"),
    [
        ("field", {"content": "The answer of {}.", "reasoning_content": "Rule B1 covers {}."}),
        ("thinking", {"content": "The answer of {}.", "thinking": "Rule B1 covers {}."}),
        ("tags", {"content": "<think>\nRule B1 covers {}.\n</think>\n\nThe answer of {}."}),
    ],
)
def test_reasoning_stands_where_it_was_asked_for(
    town: Home, tmp_path: Path, reasoning: Any, turn: dict[str, str]
) -> None:
    export(town, tmp_path / "data", reasoning=reasoning)
    for row in rows(tmp_path / "data", "sft"):
        name = f"{row['prompt_id']}-good"
        texts = {key: text.replace("{}", name) for key, text in turn.items()}
        assert row["completion"] == [{"role": "assistant", **texts}]
        assert row["prompt"][-1]["role"] == "user" and "B1" not in json.dumps(row["prompt"])
    pair = rows(tmp_path / "data", "preference")[0]
    assert set(pair["chosen"][0]) == set(pair["rejected"][0]) == {"role", *turn}


def test_form_of_texts_has_tags_and_no_field(town: Home, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="form 'sharegpt' has texts alone"):
        export(town, tmp_path / "refused", form="sharegpt", reasoning="field")
    export(town, tmp_path / "data", form="sharegpt")
    talk = next(r for r in rows(tmp_path / "data", "sft") if r["prompt_id"] == "talk")
    assert [turn["from"] for turn in talk["conversations"]] == [
        "system", "human", "gpt", "human", "gpt",
    ]  # fmt: skip
    reply = split_text(talk["conversations"][-1]["value"])
    assert reply.status == ReplyStatus.OK
    assert (reply.reasoning, reply.answer) == (
        "Rule B1 covers talk-good.",
        "The answer of talk-good.",
    )


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        ("trl", {"scores": "score", "criteria": ["lowest"]}),
        ("star1", {"scores": "score", "prompt": "question", "response": "response"}),
    ],
)
def test_traces_are_read_by_another_warehouse_with_their_verdicts(
    town: Home, tmp_path: Path, form: Any, keys: dict[str, Any]
) -> None:
    export(town, tmp_path / "data", form=form)
    source = TraceConfig(
        name="back",
        path=str(tmp_path / "data" / "traces"),
        model="generator",
        judge="judge",
        category="category",
        **{"criteria": ["lowest"], **keys},
    )
    read = {trace.answer: trace for trace in read_traces(source) if not trace.fault}
    back = rows(tmp_path / "data", "traces")
    assert len(read) == len(back) > 4
    for row in back:
        name = next(name for name in read if row.get("id", row.get("completion_id")) in name)
        score = row["score"]["lowest"] if form == "star1" else row["score"]
        assert read[name].status == "ok" and read[name].reasoning
        assert [one.score for one in read[name].scores] == [score]


def test_same_warehouse_is_exported_to_the_same_bytes(town: Home, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(town, tmp_path / name)
    files = list((tmp_path / "a").rglob("*.parquet"))
    assert len(files) == len(CONFIGS)
    for path in files:
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes()


def test_many_rows_are_written_to_several_files(
    town: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_BATCH_ROWS", 1)
    monkeypatch.setattr(exporting, "_ROWS_PER_FILE", 3)
    export(town, tmp_path / "data")
    files = sorted(path.name for path in (tmp_path / "data" / "traces").iterdir())
    assert files == [f"train-{number:05}.parquet" for number in range(3)]
    assert len(rows(tmp_path / "data", "traces")) == 7


def test_of_several_recipes_one_must_be_named(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    other = completion("other-1", prompt_id="ferry", generation_id="h")
    write_shard(home, COMPLETIONS, [other])
    scores = [judgement("other-1", number, 9.0, prompt_id="ferry") for number in range(2)]
    write_shard(home, JUDGEMENTS, scores)
    write_shard(home, RUNS, [refreshed("other", recipe="town+more", generation_id="h")])
    with pytest.raises(ExportError, match=r"rows of 2 recipes; give --recipe .* town, town\+more"):
        export(home, tmp_path / "refused")
    with pytest.raises(ExportError, match="no rows of recipe 'village'"):
        export(home, tmp_path / "unknown", recipes=["village"])
    export(home, tmp_path / "one", recipes=["town"])
    export(home, tmp_path / "other", recipes=["town+more"])
    export(home, tmp_path / "both", recipes=["town", "town+more"])
    ids = {
        name: {row["completion_id"] for row in rows(tmp_path / name, "traces")}
        for name in ("one", "other", "both")
    }
    assert len(ids["one"]) == 7 and ids["other"] == {"other-1"}
    assert ids["both"] == ids["one"] | ids["other"]


def test_calls_of_tools_leave_as_templates_know_them(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    call = calls_text([Call("call00001", "get_tides", {"day": "Monday"})])
    chat = [
        Turn(role="user", content="Tides?"),
        Turn(role="assistant", content="", tool_calls=call),
        Turn(role="tool", content="high", tool_call_id="call00001"),
        Turn(role="user", content="So?"),
    ]
    write_shard(home, PROMPTS, [prompt("tides", prompt_id="tides", messages=chat)])
    write_shard(home, COMPLETIONS, [completion("c", prompt_id="tides")])
    scores = [judgement("c", number, 9.0, prompt_id="tides") for number in range(2)]
    write_shard(home, JUDGEMENTS, scores)
    write_shard(home, RUNS, [refreshed("r", started_at=later(2))])
    export(home, tmp_path / "data")
    [row] = rows(tmp_path / "data", "traces")
    [told] = row["messages"][1]["tool_calls"]
    assert told["function"]["name"] == "get_tides"
    assert json.loads(told["function"]["arguments"]) == {"day": "Monday"}
    assert row["messages"][2]["tool_call_id"] == told["id"] == "call00001"
    # ShareGPT has no one place for calls, and a chat without them is another chat.
    write_shard(home, PROMPTS, [prompt("plain", prompt_id="plain")])
    write_shard(home, COMPLETIONS, [completion("d", prompt_id="plain", text_id="d")])
    exported = export(home, tmp_path / "texts", form="sharegpt")
    assert [(one.name, one.num_rows, one.num_left_out) for one in exported.configs] == [
        ("traces", 1, 1)
    ]


def test_warehouse_without_judged_rows_is_refused(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    write_shard(home, PROMPTS, [prompt("ferry")])
    with pytest.raises(ExportError, match="no run that made data; run precept refresh"):
        export(home, tmp_path / "a")
    write_shard(home, RUNS, [refreshed("r")])
    with pytest.raises(ExportError, match="no judged completion that may leave"):
        export(home, tmp_path / "b")


def test_word_of_people_goes_before_that_of_the_judge(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    decisions = {
        "ferry-good": ["reject"], "ferry-bad": ["accept"], "raft-good": ["accept", "reject"],
        "talk-good": ["unsure"],
    }  # fmt: skip
    said = [
        review(name, f"reviewer{number}", decision, text_id=words(name)["text_id"])
        for name, each in decisions.items()
        for number, decision in enumerate(each)
    ]
    write_shard(home, REVIEWS, said)
    chosen = example("ferry-bad", prompt_id="ferry", reason="reviewed: accepted", score=2.0)
    write_shard(home, EXAMPLES, [chosen])
    export(home, tmp_path / "data")
    ids = {
        name: {
            row.get("completion_id", row.get("chosen_id")) for row in rows(tmp_path / "data", name)
        }
        for name in ("sft", "preference", "rejected", "traces")
    }
    assert ids["sft"] == {"ferry-bad", "talk-good"}
    assert ids["preference"] == {"talk-good"}
    assert ids["rejected"] == {"raft-bad", "talk-bad"}
    told = {row["completion_id"]: row["review"] for row in rows(tmp_path / "data", "traces")}
    assert [told[name] for name in (*decisions, "raft-bad")] == [
        "rejected", "accepted", "disputed", "unsure", None,
    ]  # fmt: skip


def test_examples_of_a_run_in_progress_leave(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    figures = json.dumps({"curate": {"set_id": "set"}})
    write_shard(
        home,
        RUNS,
        [refreshed("now", set_id=None, figures=figures, status="running", started_at=later(5))],
    )
    exported = export(home, tmp_path / "data")
    assert (exported.configs[0].name, exported.configs[0].num_rows) == ("sft", 3)


@pytest.mark.parametrize(
    ("options", "num_left_out"),
    [({"reasoning": "field"}, 0), ({"reasoning": "tags"}, 1), ({"form": "sharegpt"}, 1)],
)
def test_reply_that_holds_a_tag_never_stands_between_tags(
    tmp_path: Path, options: dict[str, Any], num_left_out: int
) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    for name, reasoning in (("tag", "I write </think> and go on."), ("no-tag", "I <thinker>.")):
        write_shard(
            home,
            COMPLETIONS,
            [completion(name, prompt_id="raft", sample_index=2, reasoning=reasoning, text_id=name)],
        )
    exported = export(home, tmp_path / "data", **options)
    traces = exported.configs[-1]
    assert (traces.num_left_out, traces.num_rows) == (num_left_out, 9 - num_left_out)
    ids = {row.get("completion_id", row.get("id")) for row in rows(tmp_path / "data", "traces")}
    assert "no-tag" in ids and ("tag" in ids) == (not num_left_out)


def names_in(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.iterdir())


def test_interrupted_export_leaves_nothing(
    town: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("warehouse.exports.folders.dataset_card", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_dataset(town, str(tmp_path / "data"), DatasetOptions(), Publisher(command=""))
    assert not list(tmp_path.iterdir())


def an_export(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in {"figures.json": '{"kind": "dataset"}', "README.md": "", **files}.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("figures", [None, "{}", "[1, 2]", '{"kind": "portfolio"}'])
def test_folder_that_is_no_export_is_never_replaced(tmp_path: Path, figures: str | None) -> None:
    mine = an_export(tmp_path / "mine", thesis="mine")
    (mine / "figures.json").unlink()
    if figures:
        (mine / "figures.json").write_text(figures)
    for replace, fault in ((False, r"is there already; .* --force"), (True, "is no export")):
        with pytest.raises(OutputError, match=fault), whole_folder(mine, replace=replace):
            raise AssertionError("it began to write")
    assert (mine / "thesis").read_text() == "mine" and list(names_in(tmp_path)) == ["mine"]


def test_export_is_replaced_when_told_through_a_link_as_well(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(an_export(tmp_path / "mine", old=""))
    for name in ("mine", "link"):
        with whole_folder(tmp_path / name, replace=True) as folder:
            an_export(folder / "x").rename(folder / "y")
            for file in (folder / "y").iterdir():
                file.rename(folder / file.name)
            (folder / "y").rmdir()
        assert set(names_in(tmp_path / "mine")) == {"README.md", "figures.json"}
    assert (tmp_path / "link").is_symlink() and set(names_in(tmp_path)) == {"mine", "link"}


def test_what_takes_the_name_while_an_export_is_written_stays(tmp_path: Path) -> None:
    for replace, mine in ((False, an_export), (True, Path.mkdir)):
        place = tmp_path / str(replace)
        with (
            pytest.raises(OutputError, match=r"is there already|is no export"),
            whole_folder(place, replace=replace) as folder,
        ):
            (folder / "new").touch()
            mine(place)
            (place / "theirs").touch()
        assert "theirs" in names_in(place) and "new" not in names_in(place)
    assert len(list(tmp_path.iterdir())) == 2


def test_export_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    mine = an_export(tmp_path / "mine", old="")
    with pytest.raises(KeyboardInterrupt), whole_folder(mine, replace=True):
        raise KeyboardInterrupt
    with pytest.raises(OutputError, match="cannot"), whole_folder(mine, replace=True) as folder:
        folder.rmdir()
    assert "old" in names_in(mine) and list(names_in(tmp_path)) == ["mine"]


def test_place_that_takes_no_folder_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, fault in (
        (tmp_path / "file" / "data", "cannot be written"),
        ("s3://bucket/data", "is an address; give a folder of this machine"),
    ):
        with pytest.raises(OutputError, match=fault), whole_folder(place):
            raise AssertionError("it began to write")
    # As long a name as the disk takes.
    with whole_folder(tmp_path / ("ä" * 127)) as folder:
        (folder / "new").touch()
    assert list(names_in(tmp_path / ("ä" * 127))) == ["new"]
