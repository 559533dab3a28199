"""Midtraining on Prefect, Ray Train and TRL, with the scale model: written, learned, made anew."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import Recipe, load_recipe
from flows.train import Trained
from infra.harbour import world
from infra.harbour.change import edit_rule
from specs.pack import load_pack
from specs.policy import Outcome
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from tests.flows.test_train import SMALL, fill
from tests.scripted_server import MODEL, completion, scripted
from warehouse.catalog import ask, connect, read
from warehouse.home import Home
from warehouse.lineage import lineage_of

pytestmark = pytest.mark.slow

BY_THE_TOWN = (
    "midtrain.function='infra.harbour.documents:document'",
    "midtrain.samples=3",
    "midtrain.epochs=3",
    "midtrain.learning_rate=2e-3",
    "midtrain.batch_size=32",
    "midtrain.max_length=256",
    "midtrain.workers={use_gpu=false, num_cpus=1, rows_at_once=32}",
)


def recipe(*changes: str) -> Recipe:
    loaded = load_recipe("harbour", overrides=[*SMALL, *BY_THE_TOWN, *changes])
    return loaded.model_copy(update={"dpo": None, "rl": None})


def train(recipe: Recipe, folder: Path) -> Trained:
    from flows.train import train as flow

    return flow(recipe, str(folder / "home"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    folder = tmp_path_factory.mktemp("midtrain")
    fill(Home(str(folder / "home")))
    return folder, train(recipe(), folder)


def count(folder: Path, query: str) -> Any:
    return read(connect(Home(str(folder / "home"))), query).fetchall()


def surprise(model: Path, texts: Sequence[str]) -> float:
    """Returns the mean loss per token of a model in texts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    weights = AutoModelForCausalLM.from_pretrained(model)
    losses = []
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            losses.append(float(weights(input_ids=ids, labels=ids).loss))
    return sum(losses) / len(losses)


def test_fine_tuning_follows_a_model_that_rules_surprise_half_as_much(
    trained: tuple[Path, Trained],
) -> None:
    folder, done = trained
    first, second = done.checkpoints["midtrain"], done.checkpoints["sft"]
    assert (first.status, first.set_id) == ("completed", None)
    assert second.parent_id == first.checkpoint_id
    connection = connect(Home(str(folder / "home")))
    assert lineage_of(connection, second).name == "midtrain+SFT"
    policies = load_pack(world.PACK).policies.values()
    quotes = [world.quote(rule, one.id) for one in policies for rule in one.rules]
    base = surprise(PROJECT / "infra" / "harbour" / "model", quotes)
    assert surprise(folder / "home" / first.path, quotes) < base / 2


def test_every_document_is_learned_once_an_epoch(trained: tuple[Path, Trained]) -> None:
    folder, done = trained
    # 63 rules, two kinds, and 7 policies, each three times.
    assert done.sources["midtrain"] == {"explanation": 189, "dialogue": 189, "summary": 21}
    assert count(folder, "SELECT status, count(*) FROM documents GROUP BY 1") == [("ok", 399)]
    assert count(folder, "SELECT output_tokens FROM usage WHERE stage = 'document'") == [(0,)]
    assert done.checkpoints["midtrain"].num_steps == -(-3 * 399 // 32)


def test_ancestry_of_what_follows_names_the_documents(trained: tuple[Path, Trained]) -> None:
    folder, done = trained
    rows = ask(connect(Home(str(folder / "home"))), "ancestry").to_pylist()
    of_sft = [row for row in rows if row["checkpoint_id"] == done.checkpoints["sft"].checkpoint_id]
    shards = {row["name"]: row["num_rows"] for row in of_sft if row["kind"] == "shard of documents"}
    expected = {str(path) for path in (folder / "home" / "documents").glob("*.parquet")}
    assert {str(Path(name)) for name in shards} == expected and sum(shards.values()) == 399


def test_the_same_again_does_nothing_and_an_edited_rule_is_written_anew(
    trained: tuple[Path, Trained], tmp_path: Path
) -> None:
    folder, done = trained
    assert train(recipe(), folder).num_trained == 0
    pack = shutil.copytree(world.PACK, tmp_path / "pack")
    edit_rule(pack, "B3", Outcome.COMPLY)
    edited = recipe(f"pack='{pack}'").model_copy(update={"sft": None})
    again = train(edited, folder)
    assert again.checkpoints["midtrain"].checkpoint_id not in {
        one.checkpoint_id for one in done.checkpoints.values()
    }
    made = (
        f"SELECT kind, rule_id, count(*) FROM documents WHERE run_id = '{again.run_id}' "
        "GROUP BY ALL ORDER BY 1"
    )
    assert count(folder, made) == [
        ("dialogue", "B3", 3),
        ("explanation", "B3", 3),
        ("summary", None, 3),
    ]


def test_generator_behind_an_endpoint_writes_what_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWN_KEY", "sk-very-secret-0123456789")

    policies = load_pack(world.PACK).policies

    def answer(body: dict[str, Any], index: int) -> Any:
        asked_for = body["messages"][-1]["content"]
        [about] = [one for name, one in policies.items() if f"policy {name} " in asked_for]
        rule_id = "none" if about.id == "boats" else about.rules[0].id
        return completion(f"<think>Why?</think>The first is {rule_id}, for peace.")

    with scripted(answer) as server:
        asked = {"url": server.url, "key_variable": "TOWN_KEY"}
        engine = EngineConfig.model_validate({"model": MODEL, "endpoint": asked})
        student = load_recipe("harbour").engine
        loaded = load_recipe(
            "harbour",
            overrides=[
                "midtrain.kinds=['summary']",
                "midtrain.samples=1",
                "midtrain.batch_size=4",
                "midtrain.workers.use_gpu=false",
            ],
        ).model_copy(update={"engine": engine, "student": student, "sft": None, "rl": None})
        done = train(loaded, tmp_path)
    assert done.left_out["midtrain"] == {"it quotes nothing of its policy": 1}
    assert done.sources["midtrain"] == {"summary": 6}
    [(tokens,)] = count(tmp_path, "SELECT output_tokens FROM usage WHERE table_name = 'documents'")
    assert tokens > 0
