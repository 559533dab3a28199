"""A student that is another model than the generator learns and is evaluated in its place."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.evaluate import base_arm
from flows.preflight import check
from flows.recipe import Recipe, RecipeError, load_recipe
from flows.run import RunContext
from flows.train import _parent
from tasks.engine.chat_template import NOT_LEARNED, ChatTemplate
from tasks.engine.pool import EnginePool
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from tests.tasks.engine.byte_tokenizers import byte_tokenizer
from warehouse.home import Home

MODEL = PROJECT / "infra" / "harbour" / "model"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """The folder of a model with other settings than the generator's."""
    folder = tmp_path / "pupil"
    shutil.copytree(MODEL, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "top_k": 7}))
    return folder


def with_student(folder: Path) -> Recipe:
    return load_recipe(
        "harbour",
        overrides=[f"student.model={str(folder)!r}", "student.use_gpu=false"],
    )


def run_of(recipe: Recipe, home: Home) -> RunContext:
    record: Any = None
    return RunContext(
        recipe=recipe, home=home, pack=recipe.load_pack(), engines=EnginePool(), record=record
    )


def test_student_is_the_parent_of_checkpoints_and_the_base_arm(student: Path, disk: Home) -> None:
    recipe = with_student(student)
    run = run_of(recipe, disk)
    parent = _parent(run, {})
    assert parent.version.startswith("pupil@") and parent.version != recipe.engine.version
    assert recipe.evaluate is not None
    base = base_arm(run, recipe.evaluate, name="base")
    assert (base.arm.model, base.engine.model) == (parent.version, str(student))
    assert run.generation_id == run_of(load_recipe("harbour"), disk).generation_id


def test_generator_is_the_student_where_none_is_named(disk: Home) -> None:
    recipe = load_recipe("harbour")
    parent = _parent(run_of(recipe, disk), {})
    assert (parent.engine, parent.version) == (recipe.engine, recipe.engine.version)


def test_student_without_a_model_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"student names no model; set student\.model"):
        load_recipe("harbour", overrides=["student.use_gpu=false"])


@pytest.mark.parametrize("lacking", [("chat_template.jinja",), ("tokenizer_config.json",)])
def test_student_without_a_chat_template_is_refused_before_anything_starts(
    student: Path, tmp_path: Path, lacking: tuple[str, ...]
) -> None:
    for name in ("chat_template.jinja", *lacking):
        (student / name).unlink(missing_ok=True)
    home = tmp_path / "home"
    with pytest.raises(RecipeError, match=r"^student: .*no chat template") as caught:
        check("run", with_student(student), str(home))
    assert not home.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        (("tokenizer.json",), r"tokenizer cannot be read \(.*[a-z]\); put .* tokenizer.json into"),
        (("tokenizer.json", "tokenizer_config.json"), "has no tokens for plain text; put the"),
    ],
)
def test_student_without_a_tokenizer_is_refused_before_anything_starts(
    student: Path, tmp_path: Path, lacking: tuple[str, ...], message: str
) -> None:
    for name in lacking:
        (student / name).unlink()
    with pytest.raises(RecipeError, match=f"^student: .*{message}") as caught:
        check("run", with_student(student), str(tmp_path / "home"))
    assert "\n" not in str(caught.value)


def test_student_that_leaves_the_reasoning_out_of_its_template_learns_it_all_the_same() -> None:
    tokenizer = byte_tokenizer(["<|im_start|>", "<|im_end|>"], template=CHATML)
    row = ChatTemplate(tokenizer).encode(
        [{"role": "user", "content": "Which boat?"}],
        reasoning="Rule B1 covers it.",
        answer="Take the skiff.",
    )
    learned = tokenizer.decode([token for token in row.labels if token != NOT_LEARNED])
    assert learned == "<think>\nRule B1 covers it.\n</think>\n\nTake the skiff.<|im_end|>"


def test_model_that_was_asked_to_think_thinks_unasked_once_it_is_trained() -> None:
    engine = EngineConfig(model=str(MODEL), reasons="prompted")
    assert engine.with_model("trained").reasons is True
