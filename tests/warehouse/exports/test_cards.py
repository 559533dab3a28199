"""Cards: valid for the Hub, true in every figure, and silent about what nobody said."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from flows.handover import served
from flows.recipe import load_recipe
from tests.rows import (
    answer,
    case,
    evaluation,
    example,
    judgement,
    later,
    review,
    run,
    spec_text,
)
from tests.warehouse.exports.town import RECIPE, fill, refreshed, words
from warehouse.catalog import connect, find_checkpoints
from warehouse.exports.card import _number, _size, checkpoint_card, dataset_card
from warehouse.exports.dataset import DatasetOptions, ExportError, export_rows
from warehouse.exports.figures import Figures, figures_of_checkpoint, figures_of_dataset
from warehouse.exports.folders import Publisher, export_checkpoint, export_dataset, kind_of
from warehouse.exports.recipe_file import LEFT_OUT, recipe_file, shown_paths
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import (
    ANSWERS,
    CASES,
    CHECKPOINTS,
    EVALUATIONS,
    EXAMPLES,
    JUDGEMENTS,
    REVIEWS,
    RUNS,
    SPECS,
    Checkpoint,
    Score,
)

GIVEN: dict[str, Any] = {
    "title": "A town",
    "folder": "data",
    "license": None,
    "languages": [],
    "command": "precept export dataset data",
    "recipe_files": {"town": "recipe.toml"},
}
OF_MODEL: dict[str, Any] = {
    "title": "A model",
    "license": None,
    "languages": [],
    "command": "precept export checkpoint c data",
    "recipe_file": "recipe.toml",
    "base_model": "org/base",
    "serve": "vllm serve data --reasoning-parser deepseek_r_one",
    "parser": "deepseek_r_one",
    "marks": ["<think>", "</think>"],
}
FIXED = {"0", "10", "95", "2412.16339"}
"""Numbers that are no figures: the ends of the scale, the level of intervals, the paper."""
CALIBRATION = {
    "grader": "judge", "gold": "oracle", "threshold": 8, "k": 2, "precision": 0.9, "low": 0.8,
    "high": 0.95, "recall": 0.7, "recall_low": 0.6, "recall_high": 0.8, "num_answers": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Figures, Any]:
    place = tmp_path_factory.mktemp("cards")
    home = Home(str(place / "home"))
    fill(home)
    connection = connect(home)
    exported = export_rows(connection, _folder(place / "data"), DatasetOptions())
    found = figures_of_dataset(connection)
    found.rows["calibration"] = [CALIBRATION]
    found.rows["calibrations"] = [{"recipe": "town", "run_id": "calibrated"}]
    return found, exported


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


class Marked:
    """Figures in whose place stand numbers that nothing else has, to be found on a card."""

    def __init__(self, figures: Figures) -> None:
        self.numbers: dict[str, str] = {}
        self.figures = Figures(
            {name: [self.mark(name, row) for row in rows] for name, rows in figures.rows.items()},
            figures.queries,
        )

    def mark(self, place: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.mark(f"{place}.{key}", one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.mark(place, one) for one in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = f"{10_007 + 13 * len(self.numbers):,}"
            self.numbers[number] = place
            return int(number.replace(",", ""))
        if isinstance(value, str):
            # Settings are JSON; whatever else has digits is a name.
            if value.startswith("{"):
                return json.dumps({key: str(place).replace(".", " ") for key in json.loads(value)})
            return re.sub(r"\d+", "N", value)
        return "then" if hasattr(value, "year") else value

    def missing_on(self, page: str) -> set[str]:
        return {place for number, place in self.numbers.items() if number not in page}


def numbers_on(card: str) -> Iterator[str]:
    """The numbers that a card tells, without its metadata."""
    page = card.split("\n---\n", 1)[1]
    return (found.strip(".,") for found in re.findall(r"(?<![\w-])\d[\d.,]*", page))


def test_every_figure_of_a_data_set_card_is_a_value_of_a_named_query(
    figures: tuple[Figures, Any],
) -> None:
    found, exported = figures
    marked = Marked(found)
    card = dataset_card(marked.figures, exported, form="trl", reasoning="field", given=GIVEN)
    numbers = set(numbers_on(card)) - FIXED
    assert numbers <= set(marked.numbers), "figures that no query gave"
    assert len(numbers) > 60
    told = {marked.numbers[number].split(".")[0] for number in numbers}
    assert told == {
        "funnel", "configs", "languages", "categories", "models", "specs", "settings", "collected",
        "held_out", "costs", "limits", "calibration",
    }  # fmt: skip
    # A query whose figures the card leaves out would be a figure that is not told.
    silent = {place.split(".")[0] for place in marked.missing_on(card)} - told
    assert silent == set()


def test_card_of_a_data_set_tells_what_the_queries_say(figures: tuple[Figures, Any]) -> None:
    found, exported = figures
    card = dataset_card(found, exported, form="trl", reasoning="field", given=GIVEN)
    for line in (
        "| accepted | 6 | 6 under the threshold 8 |",
        "| asked | 9 | 2 | 1 | 1 | 0 | 0 | 0 |",
        "| `traces` | 7 | 3 |",
        "| generate | 1 | 10 | 400 | 300 | 123 | 20.5 | 0.0057 |",
        "| judge | oracle | 8 | 2 | 0.9 (0.8 to 0.95) | 0.7 (0.6 to 0.8) | 40 |",
        "because a suite asks them or their split is another than `train`: 3.",
        "Completions without a verdict: 1.",
        "en 2",
        "de 1",
    ):
        assert line in card
    assert "was not calibrated" not in card


def test_data_set_card_passes_the_library_and_says_that_no_licence_was_given(
    tmp_path: Path,
) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    folder = tmp_path / "data"
    export_dataset(home, str(folder), DatasetOptions(), Publisher(command="precept export …"))
    card = DatasetCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert "license" not in data and "**Licence**: none was given" in card.text
    assert data["language"] == ["en", "de"] and data["size_categories"] == ["n<1K"]
    assert data["configs"][0]["config_name"] == "sft"
    assert "was not calibrated" in card.text
    kept = json.loads((folder / "figures.json").read_text())["queries"]
    assert kept["configs"]["rows"][0]["num_rows"] == 3 and "SELECT" in kept["configs"]["sql"]
    assert kind_of(folder) == "dataset"


def test_licence_and_languages_are_those_that_were_given(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    named = refreshed(
        "later", resolved_recipe=json.dumps({**RECIPE, "license": "CC-BY-4.0"}), started_at=later(9)
    )
    write_shard(home, RUNS, [named])
    for name, given, told in (
        ("recipe", {}, ("cc-by-4.0", ["en", "de"])),
        ("option", {"license": "MIT", "languages": ["nl"]}, ("mit", ["nl"])),
    ):
        publisher = Publisher(command="", **given)
        export_dataset(home, str(tmp_path / name), DatasetOptions(), publisher)
        data = DatasetCard.load(tmp_path / name / "README.md").data
        assert (data.license, data.language) == told
    for given in ({"license": "all rights [reserved]"}, {"languages": ["English"]}):
        with pytest.raises(ExportError, match=r"give the (identifier|code)"):
            export_dataset(
                home, str(tmp_path / "x"), DatasetOptions(), Publisher(command="", **given)
            )


def told_of(home: Home, tmp_path: Path, name: str = "data", **given: Any) -> str:
    """The card of the data set of a warehouse."""
    publisher = Publisher(command="precept export …", **given)
    export_dataset(home, str(tmp_path / name), DatasetOptions(), publisher)
    return (tmp_path / name / "README.md").read_text()


def test_language_that_no_source_gives_is_not_claimed(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    silent = {**RECIPE, "sources": [{"name": "hand", "language": None}]}
    row = refreshed("later", resolved_recipe=json.dumps(silent), started_at=later(9))
    write_shard(home, RUNS, [row])
    card = told_of(home, tmp_path)
    assert "As the sources say, by the number" not in card
    assert "as the sources say, by the number of prompts: not said 3." in card
    assert "language" not in DatasetCard(card).data.to_dict()
    given = told_of(home, tmp_path, "given", languages=["nl"])
    assert "as the publisher says: nl. As the sources say, by the number of prompts: not" in given


def test_card_tells_of_reviews_and_of_a_run_that_is_not_complete(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    assert "not one that a person has checked" in told_of(home, tmp_path, "before")
    text_id = words("ferry-unread")["text_id"]
    write_shard(home, REVIEWS, [review("ferry-unread", "ann", "accept", text_id=text_id)])
    write_shard(home, RUNS, [refreshed("now", status="running", started_at=later(9))])
    card = told_of(home, tmp_path)
    assert "Completions that people have reviewed: 1 of 7." in card
    assert "The latest run of recipe town is not complete (running)" in card


def test_only_a_calibration_of_the_judge_as_it_is_now_counts(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    judge = {**RECIPE["judge"], "sampling": {"temperature": 1.0}}
    for number, (name, told) in enumerate(
        (("other", "was not calibrated"), ("same", "was calibrated, but not at the threshold"))
    ):
        recipe = {**RECIPE, "judge": judge} if name == "other" else RECIPE
        calibrated = run(
            name, flow="calibrate", recipe="town", resolved_recipe=json.dumps(recipe),
            generation_id=None, judging_id=None, started_at=later(2 + number),
            figures=json.dumps({"evaluation": PLAN}),
        )  # fmt: skip
        write_shard(home, RUNS, [calibrated])
        assert told in told_of(home, tmp_path, name)


def test_judge_with_the_weights_of_the_generator_is_told(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    own = words("raft-good")["text_id"]
    scored = judgement(
        "raft-good",
        0,
        9.0,
        prompt_id="raft",
        text_id=own,
        model='generator@1 {"dtype": "auto"}',
        attempt=1,
    )
    write_shard(home, JUDGEMENTS, [scored])
    assert "which may favour its own mistakes: 1 of 7." in told_of(home, tmp_path)


def test_samples_of_a_jury_are_those_of_each_judge(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    write_shard(home, RUNS, [refreshed("jury", jury=["j1", "j2", "j3"], started_at=later(9))])
    card = told_of(home, tmp_path)
    assert "- judge: 2 samples of a completion by each of 3 judges, fewer once" in card


def test_rows_that_the_form_cannot_hold_are_told(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    export_dataset(
        home, str(tmp_path / "data"), DatasetOptions(form="star1"), Publisher(command="")
    )
    card = (tmp_path / "data" / "README.md").read_text()
    assert "`traces` is without 2 rows that form `star1` has no place for" in card


def test_no_private_path_or_secret_leaves_with_an_export(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill(home)
    mine = {
        **RECIPE,
        "generate": {**RECIPE["generate"], "template": "/home/ann/secret-templates"},
        "judge": {**RECIPE["judge"], "criteria": ["hf_" + "a1B2" * 8]},
    }
    row = refreshed("later", resolved_recipe=json.dumps(mine), started_at=later(9))
    write_shard(home, RUNS, [row])
    told_of(home, tmp_path, folders=[("/home/ann", "~")])
    pages = [path.read_text() for path in (tmp_path / "data").iterdir() if path.is_file()]
    assert len(pages) == 3 and all("~/secret-templates" in page for page in pages)
    assert not [page for page in pages if "/home/ann" in page or "a1B2" in page]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (1234567, "1,234,567"), (0.0, "0"), (0.25, "0.25"), (1e-5, "1e-05"),
        (12.000001, "12"), (-0.5, "-0.5"), (1234.5, "1,234.5"),
    ],
)  # fmt: skip
def test_number_is_told_as_it_is(value: float | None, text: str) -> None:
    assert _number(value) == text


@pytest.mark.parametrize(
    ("num_rows", "name"),
    [
        (0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999_999, "10M<n<100M"),
        (100_000_000, "100M<n<1B"), (10**12, "n>1T"),
    ],
)  # fmt: skip
def test_size_has_the_name_that_the_hub_knows(num_rows: int, name: str) -> None:
    assert _size(num_rows) == name


def test_names_in_data_are_shown_and_not_obeyed(figures: tuple[Figures, Any]) -> None:
    found, exported = figures
    hostile = "a|b\n# <script>x</script> [y](z) \x1b"
    rows = {**found.rows, "collected": [{**found.rows["collected"][0], "source": hostile}]}
    card = dataset_card(
        Figures(rows, found.queries),
        exported,
        form="trl",
        reasoning="field",
        given={**GIVEN, "title": hostile},
    )
    assert "<script>" not in card.split("\n---\n", 1)[1] and "\x1b" not in card
    line = next(line for line in card.splitlines() if line.startswith("| a\\|"))
    assert len(re.findall(r"(?<!\\)\|", line)) == 9


def test_recipe_that_leaves_is_read_again_and_holds_no_secret(tmp_path: Path) -> None:
    resolved = load_recipe("harbour")
    path = tmp_path / "harbour.toml"
    path.write_text(recipe_file(resolved.model_dump_json(), name="harbour"))
    assert load_recipe(path) == resolved
    token, password = "hf_" + "a1B2" * 8, "sesame-open"
    text = recipe_file(
        json.dumps(
            {
                "pack": "/home/ann/pack",
                "sources": [{"path": f"https://ann:{password}@host/rows.csv"}],
                "engine": {"engine_args": {"hf_token": "x-y-z", "extra": f"a {token}"}},
                "judge": {"sampling": {"max_tokens": 160}},
            }
        ),
        name="mine",
        folders=[("/home/ann", "~")],
    )
    assert token not in text and password not in text and "x-y-z" not in text
    assert text.count(LEFT_OUT) == 3 and 'pack = "~/pack"' in text and "max_tokens = 160" in text


SECRET = "q7W3e5R9"


@pytest.mark.parametrize(
    "settings",
    [
        {"aws_secret_access_key": SECRET},
        {"X-Api-Key": SECRET},
        {"hfToken": SECRET},
        {"extra": {"passwords": [SECRET, SECRET]}},
        {"path": f"https://{SECRET}@host/rows.csv"},
        {"path": f"https://host/rows.csv?a=1&X-Amz-Signature={SECRET}&b=2"},
        {"path": f"az://box/rows.csv?sv=1&sig={SECRET}"},
        {"path": f"https://host/rows.csv?access_token={SECRET}"},
        {"header": f"Bearer {SECRET * 3}"},
    ],
)
def test_secret_stays_behind_wherever_a_recipe_has_it(settings: dict[str, Any]) -> None:
    text = recipe_file(json.dumps({"engine": settings}), name="mine")
    assert SECRET not in text and LEFT_OUT in text
    assert tomllib.loads(text)["engine"].keys() == settings.keys()


def test_what_is_no_secret_leaves_as_it_is() -> None:
    kept = {
        "eos_token": "<|im_end|>", "key_columns": ["a"], "max_tokens": 9, "path": "s3://box/a?b=c",
        "model": "org/model@main", "api_key_env": "MY_KEY",
    }  # fmt: skip
    assert tomllib.loads(recipe_file(json.dumps(kept), name="mine")) == kept


def test_path_is_shown_by_its_beginning_and_no_other_is_changed() -> None:
    folders = [("/home/ann", "~"), ("/", "root")]
    for text, shown in (
        ("file:///home/ann/x (/home/ann)", "file://~/x (~)"),
        ("/home/anna /mnt/home/ann /home/ann.old", "/home/anna /mnt/home/ann /home/ann.old"),
        ("--home=/home/ann/a:/home/ann;", "--home=~/a:~;"),
    ):
        assert shown_paths(text, folders[:1]) == shown
    assert shown_paths("a / b", folders) == "a / b"


def test_recipe_is_read_again_whatever_its_name_and_its_nulls() -> None:
    text = recipe_file(json.dumps({"x": [["a", None], {"b": None}]}), name='it\nx = "\x7f')
    assert tomllib.loads(text) == {"x": [["a"], {}]}


CHECKPOINT = "c" * 32
PLAN: dict[str, Any] = {
    "arms": [
        {"position": 0, "arm": "SFT+RL", "seed": None, "model": "c@1", "checkpoint_id": CHECKPOINT,
         "answering_id": "a", "context": "none", "budget": None, "probe": "none"},
    ],
    "suites": [{"suite": "town", "suite_version": "v"}],
    "graders": [
        {"grader": "oracle", "grading_id": "oracle", "saw": "answer", "reduce": "mean",
         "threshold": 0.8, "num_votes": 1, "suites": []}
    ],
    "rules": [], "specs": [], "exchanges": [], "samples": 1,
}  # fmt: skip
"""The plan of an evaluation of that checkpoint."""


def fill_model(home: Home, folder: Path, *, root: str = "base@22") -> Checkpoint:
    """Two trainings, of which the second is exported, with an evaluation of it."""
    shared: dict[str, Any] = {
        "status": "completed", "reason": None, "num_rows": 5, "num_steps": 7, "recipe": "harbour",
        "git_commit": "abc", "seconds": 12.5, "created_at": later(3), "config": "{}",
        "metrics": "{}", "path": "models/c",
    }  # fmt: skip
    rows = [
        Checkpoint(
            checkpoint_id="a" * 32, stage="sft", model="a@1", parent=root, parent_id=None,
            set_id="set", data_fingerprint="f" * 32, run_id="trained", **shared,
        ),
        Checkpoint(
            checkpoint_id=CHECKPOINT, stage="rl", model="c@1", parent="a@1", parent_id="a" * 32,
            set_id=None, data_fingerprint="e" * 32, run_id="trained", **shared,
        ),
    ]  # fmt: skip
    write_shard(home, CHECKPOINTS, rows)
    write_shard(home, SPECS, [spec_text("s")])
    write_shard(home, EXAMPLES, [example("x")])
    trained = {
        "trainings": {
            # Of the last arm that the run trained in this stage, which is another checkpoint.
            name: {"num_rows": 6, "num_steps": 8, "seconds": 99.0, "num_gpus": 2}
            for name in ("sft", "rl")
        }
    }
    recipe = load_recipe("harbour").model_dump_json()
    write_shard(
        home,
        RUNS,
        [
            run("trained", flow="train", resolved_recipe=recipe, figures=json.dumps(trained)),
            run("evaluated", flow="evaluate", figures=json.dumps({"evaluation": PLAN})),
        ],
    )
    write_shard(home, CASES, [case("case", suite="town")])
    write_shard(home, ANSWERS, [answer("an", model="c@1", checkpoint_id=CHECKPOINT)])
    write_shard(home, EVALUATIONS, [evaluation("an", 0, scores=[Score(name="safe", value=1.0)])])
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "stage.json", "training_args.bin"):
        (folder / name).write_text(name)
        (folder / name).chmod(0o600)
    return rows[1]


def test_checkpoint_leaves_with_its_files_lineage_and_evaluation(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    checkpoint = fill_model(home, tmp_path / "home" / "models" / "c")
    connection = connect(home)
    assert find_checkpoints(connection, [CHECKPOINT]) == [checkpoint]
    how = served(connection, checkpoint, tmp_path / "home" / "models" / "c")
    assert how.base_model is None, "a model of a folder has no id on the Hub"
    out = tmp_path / "data"
    export_checkpoint(
        connection,
        str(out),
        checkpoint,
        tmp_path / "home" / "models" / "c",
        served=how,
        publisher=Publisher(command="precept export checkpoint c", license="apache-2.0"),
    )
    assert {path.name for path in out.iterdir()} == {
        "config.json", "model.safetensors", "README.md", "recipe.toml", "figures.json",
    }  # fmt: skip
    assert {path.stat().st_mode & 0o444 for path in out.iterdir()} == {0o444}
    assert kind_of(out) == "checkpoint" and load_recipe(out / "recipe.toml").name == "harbour"
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert "began from, base@22, has a licence of its own" in card.text
    assert "(SFT, then RL)" in card.text
    assert f"| SFT | `{'a' * 32}` | base@22 | 5 | 7 | 12.5 | 0.0069 | `{'f' * 32}` |" in card.text
    row = next(line for line in card.text.splitlines() if line.startswith("| town |"))
    assert re.fullmatch(
        r"\| town \| not_unsafe \| all \| oracle \| SFT\+RL \| 1 \| (–|[\d.]+) to (–|1) \| 1 \|",
        row.replace("\\", ""),
    ), row


def test_command_that_serves_names_the_folder_alone_and_no_secret(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    checkpoint = fill_model(home, tmp_path / "home" / "models" / "c", root="org/base@22")
    recipe = load_recipe("harbour").model_dump()
    recipe["engine"]["engine_args"] = {
        "trust_remote_code": True, "enable_lora": False, "hf_token": SECRET, "seed": 3,
    }  # fmt: skip
    write_shard(home, RUNS, [run("trained", revision=9, resolved_recipe=json.dumps(recipe))])
    connection, model = connect(home), tmp_path / "home" / "models" / "c"
    how = served(connection, checkpoint, model)
    assert how.command("my data").startswith("vllm serve 'my data' ")
    flags = "--trust-remote-code --no-enable-lora --seed 3"
    assert flags in how.command("x") and SECRET not in how.command("x")
    assert how.base_model == "org/base"
    out = tmp_path / "out" / "data"
    export_checkpoint(
        connection, str(out), checkpoint, model, served=how, publisher=Publisher(command="")
    )
    card = (out / "README.md").read_text()
    assert "\nvllm serve data --" in card and str(tmp_path) not in card and SECRET not in card


def test_checkpoint_of_a_run_that_is_not_recorded_is_told(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    checkpoint = replace(fill_model(home, tmp_path / "models" / "c"), run_id="gone")
    with pytest.raises(ExportError, match=r"run gone, which trained checkpoint ccc.* not recorded"):
        served(connect(home), checkpoint, tmp_path / "models" / "c")
    unread = json.dumps({"engine": {"wheels": 4}})
    write_shard(home, RUNS, [run("trained", revision=9, resolved_recipe=unread)])
    with pytest.raises(ExportError, match=r"does not read the engine in the recipe of run trained"):
        served(connect(home), replace(checkpoint, run_id="trained"), tmp_path / "models" / "c")


def test_card_of_a_checkpoint_without_its_parent_claims_no_beginning(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill_model(home, tmp_path / "models" / "c")
    figures = figures_of_checkpoint(connect(home), CHECKPOINT)
    figures.rows["lineage"] = [row for row in figures.rows["lineage"] if row["parent_id"]]
    card = checkpoint_card(figures, given={**OF_MODEL, "base_model": None})
    assert "The model that it began from has a licence" in card.replace(
        "the model", "The model"
    ).replace("\n", " ")
    assert "(trainings that are not known, then RL)" in card
    assert "The warehouse has no record of the trainings before." in card


def test_every_figure_of_a_model_card_is_a_value_of_a_named_query(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill_model(home, tmp_path / "models" / "c")
    marked = Marked(figures_of_checkpoint(connect(home), CHECKPOINT))
    card = checkpoint_card(marked.figures, given=OF_MODEL)
    numbers = set(numbers_on(card)) - FIXED
    assert numbers <= set(marked.numbers) and len(numbers) == 13
    told = {marked.numbers[number].split(".")[0] for number in numbers}
    assert told == {"lineage", "ancestors", "evaluation"}


def test_model_that_nobody_evaluated_is_said_to_be_unmeasured(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill_model(home, tmp_path / "models" / "c")
    card = checkpoint_card(figures_of_checkpoint(connect(home), "a" * 32), given=OF_MODEL)
    assert "how safe or capable it is has not been measured" in card
    assert ModelCard(card).data.base_model == "org/base"
