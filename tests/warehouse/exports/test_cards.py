"""Cards: valid for the Hub, true in every figure, and silent about what nobody said."""

import json
import re
from collections.abc import Iterator
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
    later,
    run,
    spec_text,
)
from tests.warehouse.exports.town import RECIPE, fill, refreshed
from warehouse.catalog import connect, find_checkpoints
from warehouse.exports.card import checkpoint_card, dataset_card
from warehouse.exports.dataset import DatasetOptions, ExportError, export_rows
from warehouse.exports.figures import Figures, figures_of_checkpoint, figures_of_dataset
from warehouse.exports.folders import Publisher, export_checkpoint, export_dataset, kind_of
from warehouse.exports.recipe_file import LEFT_OUT, recipe_file
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import (
    ANSWERS,
    CASES,
    CHECKPOINTS,
    EVALUATIONS,
    EXAMPLES,
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


CHECKPOINT = "c" * 32


def fill_model(home: Home, folder: Path) -> Checkpoint:
    """Two trainings, of which the second is exported, with an evaluation of it."""
    shared: dict[str, Any] = {
        "status": "completed", "reason": None, "num_rows": 5, "num_steps": 7, "recipe": "harbour",
        "git_commit": "abc", "seconds": 12.5, "created_at": later(3), "config": "{}",
        "metrics": "{}", "path": "models/c",
    }  # fmt: skip
    rows = [
        Checkpoint(
            checkpoint_id="a" * 32, stage="sft", model="a@1", parent="base@22", parent_id=None,
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
    arms = [
        {"position": 0, "arm": "SFT+RL", "seed": None, "model": "c@1", "checkpoint_id": CHECKPOINT,
         "answering_id": "a", "context": "none", "budget": None, "probe": "none"},
    ]  # fmt: skip
    plan = {
        "arms": arms,
        "suites": [{"suite": "town", "suite_version": "v"}],
        "graders": [
            {"grader": "oracle", "grading_id": "oracle", "saw": "answer", "reduce": "mean",
             "threshold": 0.8, "num_votes": 1, "suites": []}
        ],
        "rules": [], "specs": [], "exchanges": [], "samples": 1,
    }  # fmt: skip
    trained = {
        "trainings": {
            name: {"num_rows": 5, "num_steps": 7, "seconds": 12.5, "num_gpus": 2}
            for name in ("sft", "rl")
        }
    }
    recipe = load_recipe("harbour").model_dump_json()
    write_shard(
        home,
        RUNS,
        [
            run("trained", flow="train", resolved_recipe=recipe, figures=json.dumps(trained)),
            run("evaluated", flow="evaluate", figures=json.dumps({"evaluation": plan})),
        ],
    )
    write_shard(home, CASES, [case("case", suite="town")])
    write_shard(home, ANSWERS, [answer("an", model="c@1", checkpoint_id=CHECKPOINT)])
    write_shard(home, EVALUATIONS, [evaluation("an", 0, scores=[Score(name="safe", value=1.0)])])
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "stage.json"):
        (folder / name).write_text(name)
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
    assert kind_of(out) == "checkpoint" and load_recipe(out / "recipe.toml").name == "harbour"
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert "began from, base@22, has a licence of its own" in card.text
    assert "(SFT, then RL)" in card.text
    assert f"| SFT | `{'a' * 32}` | base@22 | 5 | 7 | 12.5 | `{'f' * 32}` |" in card.text
    row = next(line for line in card.text.splitlines() if line.startswith("| town |"))
    assert re.fullmatch(
        r"\| town \| not_unsafe \| all \| oracle \| SFT\+RL \| 1 \| (–|[\d.]+) to (–|1) \| 1 \|",
        row.replace("\\", ""),
    ), row


def test_every_figure_of_a_model_card_is_a_value_of_a_named_query(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill_model(home, tmp_path / "models" / "c")
    marked = Marked(figures_of_checkpoint(connect(home), CHECKPOINT))
    card = checkpoint_card(marked.figures, given=OF_MODEL)
    numbers = set(numbers_on(card)) - FIXED
    assert numbers <= set(marked.numbers) and len(numbers) > 15
    told = {marked.numbers[number].split(".")[0] for number in numbers}
    assert told == {"lineage", "ancestors", "trainings", "evaluation"}


def test_model_that_nobody_evaluated_is_said_to_be_unmeasured(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "home"))
    fill_model(home, tmp_path / "models" / "c")
    card = checkpoint_card(figures_of_checkpoint(connect(home), "a" * 32), given=OF_MODEL)
    assert "how safe or capable it is has not been measured" in card
    assert ModelCard(card).data.base_model == "org/base"
