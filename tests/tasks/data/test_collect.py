"""Collecting: a prompt is stored once, and every other row is counted by its reason."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from specs.pack import load_pack
from tasks.data.candidates import messages_id
from tasks.data.collect import CollectConfig, collect
from tasks.data.collected import Collected
from tasks.data.counts import Counts
from tasks.data.sources import SourceConfig
from tasks.paths import PROJECT
from tests.rows import jsonl, long_text, plain, real, source, source_rows
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import list_shards
from warehouse.tables import PROMPTS, content_id
from warehouse.upkeep import compact

PACK_CATEGORIES = ("boats", "bread", "fish")


def run(
    home: Home,
    *sources: SourceConfig,
    pack_categories: Sequence[str] = PACK_CATEGORIES,
    **options: Any,
) -> Collected:
    collected = collect(
        sources,
        config=CollectConfig(**options),
        pack_categories=pack_categories,
        home=home,
        connection=connect(home),
    )
    for counts in collected.counts.values():
        assert counts.read == sum_of_outcomes(counts)
    return collected


def sum_of_outcomes(counts: Counts) -> int:
    parts = asdict(counts)
    bad = parts.pop("bad")
    return int(sum(parts.values()) - counts.read - counts.stored + sum(bad.values()))


def stored(home: Home) -> list[dict[str, Any]]:
    rows = connect(home).sql("FROM prompts ORDER BY created_at, prompt_id")
    return list(rows.to_arrow_table().to_pylist())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path / "home"))


# Counting and refusing.


def test_bad_rows_are_counted_by_reason_and_the_good_ones_kept(tmp_path: Path, home: Home) -> None:
    rows = [
        *source_rows("one", "", " \n "),
        *source_rows("two", category="weather"),
        {"prompt": "three", "category": None},
        {"prompt": "four", "category": []},
        {"prompt": 5, "category": "boats"},
        {},
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    counts = run(home, source(path, category_map={"weather": ""})).counts["asked"]
    assert counts.left_out == 1
    assert counts.bad == {
        "empty_prompt": 2,
        "no_category": 2,
        "not_text": 1,
        "unreadable_row": 1,
    }
    assert (counts.read, counts.kept, counts.stored) == (8, 1, 1)


def test_a_source_without_usable_rows_is_refused(tmp_path: Path, home: Home) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [*source_rows("", ""), {"prompt": 1, "category": ""}])
    with pytest.raises(ValueError) as caught:
        run(home, source(path))
    assert str(caught.value) == (
        "source 'asked': none of its 3 rows can be used (empty_prompt 2, not_text 1); "
        "check which columns it names"
    )
    assert list_shards(home, PROMPTS) == []


def test_an_unknown_category_refuses_the_run_and_says_how_to_map_it(
    tmp_path: Path, home: Home
) -> None:
    rows = [
        *source_rows("a"),
        *source_rows("b", "c", category="Weather"),
        *source_rows("d", category="Tax"),
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError) as caught:
        run(home, source(path))
    assert str(caught.value) == (
        "source 'asked': category 'Weather' of 2 rows (and 1 more labels) is not in the pack, "
        'which has boats, bread, fish; map it in category_map ("" leaves its rows out) or set '
        "assign_category"
    )
    assert list_shards(home, PROMPTS) == []


def test_a_recipe_that_names_a_category_the_pack_lacks_is_refused(
    tmp_path: Path, home: Home
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", source_rows("a"))
    with pytest.raises(ValueError, match="categories names 'weather', which is not a category"):
        run(home, source(path, categories=["weather"]))
    with pytest.raises(ValueError, match="category_map names 'weather'"):
        run(home, source(path, category_map={"boats": "weather"}))
    with pytest.raises(ValueError, match="has no categories: give it category"):
        run(home, SourceConfig(name="asked", path=path))


def test_rows_that_agree_are_duplicates_of_the_first_source_that_has_them(
    tmp_path: Path, home: Home
) -> None:
    first = jsonl(tmp_path / "first.jsonl", source_rows("one", "two", "one"))
    rows = [*source_rows("two"), *source_rows("three", category="fish")]
    second = jsonl(tmp_path / "second.jsonl", rows)
    collected = run(home, source(first, name="first"), source(second, name="second"))
    assert collected.counts["first"].exact_duplicates == 1
    assert collected.counts["second"].exact_duplicates == 1
    assert collected.prompts["categories"].to_pylist() == [["boats"], ["boats"], ["fish"]]
    sources = {row["messages"][0]["content"]: row["source"] for row in stored(home)}
    assert sources == {"one": "first", "two": "first", "three": "second"}
    assert not collected.conflicts


LABELLED = [
    {"prompt": "one", "category": "boats", "ideal": "comply"},
    {"prompt": "one", "category": "boats", "ideal": "refuse"},
    {"prompt": "two", "category": "boats", "ideal": None},
    {"prompt": "two", "category": "fish", "ideal": None},
    {"prompt": "three", "category": "bread", "ideal": "comply"},
    {"prompt": "four", "category": "bread", "ideal": None},
    {"prompt": "four", "category": "bread", "ideal": "refuse"},
    {"prompt": "one", "category": "bread", "ideal": None},
]


@pytest.mark.parametrize("num_sources", [1, 2])
@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        ("leave_out", {"three": (["bread"], "comply"), "four": (["bread"], "refuse")}),
        (
            "join",
            {
                "one": (["boats", "bread"], None),
                "two": (["boats", "fish"], None),
                "three": (["bread"], "comply"),
                "four": (["bread"], "refuse"),
            },
        ),
    ],
)
def test_rows_that_disagree_are_counted_and_named_whatever_their_order(
    tmp_path: Path, rule: str, labels: dict[str, Any], num_sources: int
) -> None:
    ids = {messages_id([{"role": "user", "content": text}])[:12]: text for text in ("one", "two")}
    for seed in range(6):
        home = Home(str(tmp_path / f"home{seed}"))
        rows = random.Random(seed).sample(LABELLED, len(LABELLED))
        parts = [rows] if num_sources == 1 else [rows[:3], rows[3:]]
        paths = [jsonl(tmp_path / f"{place}.jsonl", part) for place, part in enumerate(parts)]
        sources = [source(path, name=path, ideal_response="ideal") for path in paths]
        collected = run(home, *sources, conflicts=rule)
        found = {
            row["messages"][0]["content"]: (row["categories"], row["ideal_response"])
            for row in stored(home)
        }
        assert found == labels
        assert collected.conflicts.num_prompts == 2
        named = {name.split(":")[0]: name for name in collected.conflicts.named}
        assert {ids[name] for name in named} == {"one", "two"}
        assert all(".jsonl:" in name and "boats" in name for name in named.values())
        conflicting = sum(counts.conflicting for counts in collected.counts.values())
        assert conflicting == (5 if rule == "leave_out" else 0)


def test_a_prompt_that_an_evaluation_set_labels_otherwise_is_named(
    tmp_path: Path, home: Home
) -> None:
    held = [
        {"prompt": "one", "ideal": "refuse"},
        {"prompt": "two", "ideal": "refuse"},
        {"prompt": "two", "ideal": "comply"},
        {"prompt": "two", "ideal": "comply"},
    ]
    evaluation = SourceConfig(
        name="held", path=jsonl(tmp_path / "held.jsonl", held), ideal_response="ideal"
    )
    path = jsonl(tmp_path / "rows.jsonl", source_rows("one", "three"))
    asked = source(path, ideal_response_value="comply")
    collected = run(home, asked, decontaminate=[evaluation])
    counts, held_out = collected.counts["asked"], collected.evaluations["held"]
    assert (counts.kept, counts.contaminated, counts.conflicting) == (1, 1, 0)
    assert (held_out.kept, held_out.exact_duplicates) == (2, 2)
    assert collected.conflicts.num_prompts == 2


def test_near_duplicates_are_left_out_unless_the_threshold_is_unset(
    tmp_path: Path, home: Home
) -> None:
    rows = source_rows(long_text(1), long_text(1) + " please", long_text(2), "Hello.", "Hello!")
    path = jsonl(tmp_path / "rows.jsonl", rows)
    counts = run(home, source(path)).counts["asked"]
    assert (counts.kept, counts.near_duplicates) == (4, 1)
    counts = run(home, source(path), near_duplicate_threshold=None).counts["asked"]
    assert (counts.kept, counts.near_duplicates) == (5, 0)


def test_prompts_of_an_evaluation_set_are_never_collected(tmp_path: Path, home: Home) -> None:
    held_out = jsonl(
        tmp_path / "held.jsonl",
        [{"question": "How are you?"}, {"question": long_text(1, 40)}, {"question": ""}],
    )
    texts = ("how are  YOU", "Say this: " + long_text(1, 13), "How are you today?")
    path = jsonl(tmp_path / "rows.jsonl", source_rows(*texts))
    evaluation = SourceConfig(name="held", path=held_out, prompt="question")
    collected = run(home, source(path), decontaminate=[evaluation])
    counts = collected.counts["asked"]
    assert (counts.contaminated, counts.kept) == (2, 1)
    held = collected.evaluations["held"]
    assert (held.read, held.kept, held.bad) == (3, 2, {"empty_prompt": 1})


def test_an_evaluation_set_without_usable_rows_is_refused(tmp_path: Path, home: Home) -> None:
    held_out = jsonl(tmp_path / "held.jsonl", [{"prompt": ""}])
    path = jsonl(tmp_path / "rows.jsonl", source_rows("one"))
    evaluation = SourceConfig(name="held", path=held_out)
    with pytest.raises(ValueError, match="'held': none of its 1 rows can be used"):
        run(home, source(path), decontaminate=[evaluation])
    assert list_shards(home, PROMPTS) == []


# Storing.


def test_a_prompt_of_megabytes_is_kept_whole(tmp_path: Path, home: Home) -> None:
    text = " ".join(f"word{number}" for number in range(300_000))
    path = jsonl(tmp_path / "rows.jsonl", source_rows(text, text + " more"))
    counts = run(home, source(path)).counts["asked"]
    assert (counts.kept, counts.near_duplicates) == (1, 1)
    (row,) = stored(home)
    assert row["messages"][0]["content"] == text


def test_text_that_looks_like_sql_or_a_template_is_stored_as_it_is(
    tmp_path: Path, home: Home
) -> None:
    odd = "'; DROP TABLE prompts; -- {{spec}} <|im_end|> <think>"
    run(home, source(jsonl(tmp_path / "rows.jsonl", source_rows(odd))))
    assert plain(stored(home)[0]["messages"]) == [{"role": "user", "content": odd}]


def test_all_labels_of_a_prompt_are_in_its_row_and_hashed_as_its_version(
    tmp_path: Path, home: Home
) -> None:
    given = {"prompt": "a", "category": ["fish", "boats"], "how": "base64", "note": "n\ud800"}
    path = jsonl(tmp_path / "rows.jsonl", [given])
    chosen = source(
        path,
        ideal_response_value="safe_complete",
        language="de",
        transform="how",
        metadata=["note"],
        split="held_out",
    )
    run(home, chosen)
    (row,) = stored(home)
    assert row["categories"] == ["boats", "fish"] and row["status"] == "ok"
    assert (row["source"], row["split"]) == ("asked", "held_out")
    assert (row["ideal_response"], row["language"]) == ("safe_complete", "de")
    assert (row["transform"], row["metadata"]) == ("base64", ["n\ufffd"])
    labels = [["boats", "fish"], "safe_complete", "asked", "held_out", "de", "base64", ["n\ufffd"]]
    assert row["version"] == content_id(json.dumps(labels, ensure_ascii=False))


def test_collecting_the_same_source_again_writes_nothing(tmp_path: Path, home: Home) -> None:
    path = jsonl(tmp_path / "rows.jsonl", source_rows("one", "two"))
    first = run(home, source(path))
    shards, rows = list_shards(home, PROMPTS), stored(home)
    again = run(home, source(path))
    assert again.counts["asked"].stored == 0
    assert (list_shards(home, PROMPTS), stored(home)) == (shards, rows)
    assert again.prompts.equals(first.prompts)


def test_only_prompts_that_are_new_are_written(tmp_path: Path, home: Home) -> None:
    path = jsonl(tmp_path / "rows.jsonl", source_rows("one", "two"))
    run(home, source(path))
    jsonl(tmp_path / "rows.jsonl", source_rows("zero", "two", "one"))
    collected = run(home, source(path))
    assert collected.counts["asked"].stored == 1
    assert len(stored(home)) == 3 and len(list_shards(home, PROMPTS)) == 2


def test_a_label_may_change_and_change_back(tmp_path: Path, home: Home) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "one", "category": "Vessel"}])
    revisions = []
    for target in ("boats", "fish", "fish", "boats", "boats"):
        collected = run(home, source(path, category_map={"Vessel": target}))
        (row,) = stored(home)
        assert row["categories"] == [target]
        assert collected.prompts["categories"].to_pylist() == [[target]]
        revisions.append(row["revision"])
    assert revisions == [0, 1, 1, 2, 2]
    assert len(list_shards(home, PROMPTS)) == 3
    compact(home, PROMPTS)
    assert len(list_shards(home, PROMPTS)) == 1
    assert [row["categories"] for row in stored(home)] == [["boats"]]


@pytest.mark.parametrize(
    "change",
    [
        {"ideal_response_value": "refuse"},
        {"split": "test"},
        {"language": "de"},
        {"name": "renamed"},
        {"metadata": ["note"]},
        {"transform": "note"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_any_label_is_a_new_revision(
    tmp_path: Path, home: Home, change: dict[str, Any]
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "category": "boats", "note": "n"}])
    run(home, source(path))
    (counts,) = run(home, source(path, **change)).counts.values()
    assert counts.stored == 1
    assert [row["revision"] for row in stored(home)] == [1]


def test_rows_are_written_in_order_a_shard_at_a_time(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.collect.ROWS_PER_SHARD", 10)
    path = jsonl(tmp_path / "rows.jsonl", source_rows(*(f"question {n}" for n in range(25))))
    collected = run(home, source(path))
    assert len(list_shards(home, PROMPTS)) == 3
    texts_by_id = {row["prompt_id"]: row["messages"][0]["content"] for row in stored(home)}
    texts = [texts_by_id[prompt_id] for prompt_id in collected.prompts["prompt_id"].to_pylist()]
    assert texts == [f"question {n}" for n in range(25)]


# Real data.

STAR1_LABELS = {
    "Illicit / Criminal Behavior": "illicit_behavior",
    "Harassment / Hate / Discrimination": "harassment",
    "Violence / Physical Harm": "violence",
    "Self-Harm": "self_harm",
    "Sexual / Adult": "erotic_content",
    "Privacy / Personal Data": "privacy",
    "Intellectual Property": "",
    "Misinformation / Disinformation": "",
}


def xstest(**options: Any) -> SourceConfig:
    return SourceConfig(
        name="xstest",
        path=real("xstest/xstest_prompts.csv"),
        ideal_response="label",
        ideal_response_map={"safe": "comply", "unsafe": "refuse"},
        **options,
    )


def test_xstest_is_collected_with_its_ideal_responses(home: Home) -> None:
    collected = run(home, xstest(categories=["boats"], label_as_metadata=True))
    counts = collected.counts["xstest"]
    assert (counts.read, counts.kept, counts.bad) == (450, 450, {})
    outcomes = connect(home).sql(
        "SELECT ideal_response, metadata, count(*) FROM prompts GROUP BY ALL ORDER BY ALL"
    )
    assert outcomes.fetchall() == [
        ("comply", ["the ideal response is comply"], 250),
        ("refuse", ["the ideal response is refuse"], 200),
    ]
    assert run(home, xstest(categories=["boats"], label_as_metadata=True)).counts[
        "xstest"
    ] == Counts(read=450, kept=450)


def test_labels_of_star1_are_mapped_to_the_safety_pack(home: Home) -> None:
    categories = list(load_pack(PROJECT / "specs" / "safety").policies)
    star1 = SourceConfig(
        name="star1",
        path=real("star1/STAR-1.json"),
        prompt="question",
        category="category",
        category_map=STAR1_LABELS,
    )
    collected = run(home, star1, pack_categories=categories)
    counts = collected.counts["star1"]
    assert (counts.read, counts.kept, counts.bad) == (985, 774, {})
    assert counts.left_out == 211
    stored_categories = {name for row in stored(home) for name in row["categories"]}
    assert stored_categories == {target for target in STAR1_LABELS.values() if target}
    partly = {label: target for label, target in STAR1_LABELS.items() if label != "Self-Harm"}
    with pytest.raises(ValueError, match="'Self-Harm' of 84 rows is not in the pack"):
        run(home, star1.model_copy(update={"category_map": partly}), pack_categories=categories)


def test_gsm8k_is_left_out_if_it_is_an_evaluation_set(home: Home) -> None:
    path = real("gsm8k/test.jsonl")
    held_out = SourceConfig(name="held", path=path, prompt="question")
    gsm8k = SourceConfig(name="gsm8k", path=path, prompt="question", categories=["boats"])
    collected = run(home, xstest(categories=["boats"]), gsm8k, decontaminate=[held_out])
    assert collected.counts["xstest"].contaminated == 0
    assert collected.counts["gsm8k"].contaminated == 1319
