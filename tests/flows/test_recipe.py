"""Recipes: every shipped one loads, and a mistake is named with its remedy."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.ablate import ablate
from flows.arms import ablation_of, recipe_of
from flows.recipe import ArmConfig, Recipe, RecipeError, load_recipe, recipe_path, shipped_recipes
from specs.template import load_template


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_says_its_machine_first(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.load_pack().policies
    first = recipe_path(name).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first) > 20


@pytest.mark.parametrize("name", shipped_recipes())
def test_models_of_shipped_recipes_are_pinned_or_local(name: str) -> None:
    """What stands behind an endpoint is the server's own; a name that begins with a dot is made."""
    engines = [one for one in load_recipe(name).engines.values() if one.endpoint is None]
    for one in engines:
        is_made = one.model.startswith(".")
        assert is_made or Path(one.model_path).is_dir() or len(one.revision or "") == 40


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("judge.sampels=3", "unknown key 'judge.sampels': did you mean 'samples'?"),
        ("sources.0.pth='x'", "unknown key 'sources.0.pth': did you mean 'path'?"),
        ("generate.samples=0", "generate.samples: Input should be greater than 0 (given: 0)"),
        ("generate.sampling.temperature=0", "raise the temperature or ask for 1 sample"),
        ("sources=[]", "add a [[sources]] or a [[traces]] section"),
        (
            "generate.template=nope",
            "give one of the sets harbour, paper, safeguard, spec_first, or",
        ),
        ("judge.mode=fast", "judge.mode: Input should be 'race' or 'full' (given: 'fast')"),
        ("judge", "write it as judge.samples=8"),
        ("name.first=1", "'name' is not a section"),
        ("rl.reward.model=true", "rl.reward.model is true and there is no section [reward_model]"),
        (
            "rl.reward={function='stance', model=true}",
            "function 'stance' and model are both set, and an answer has one reward",
        ),
        ("sources.7.path='x'", "'sources' has 1 entries"),
    ],
)
def test_mistake_in_a_recipe_is_named_with_its_remedy(override: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("harbour", overrides=[override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_override_of_what_is_hashed_changes_ids_and_of_how_it_runs_does_not() -> None:
    plain = load_recipe("harbour").generate.generation_id("m")
    hotter = load_recipe("harbour", overrides=["generate.sampling.temperature=0.9"])
    wider = load_recipe("harbour", overrides=["stage.block_rows=2", "engine.max_num_seqs=8"])
    assert hotter.generate.generation_id("m") != plain
    assert wider.generate.generation_id("m") == plain


def test_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(RecipeError, match="harbour"):
        load_recipe("habour")


def test_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("pack = \n")
    with pytest.raises(RecipeError, match=r"mine\.toml: not TOML"):
        load_recipe(path)


GENERATOR = "=== system ===\nYou know this.\n{{spec}}\n=== conversation ===\n"


def with_templates(folder: Path, generator: str) -> Path:
    """Writes Harbour's recipe with a folder `words` beside it, which has one template."""
    (folder / "words").mkdir(parents=True)
    (folder / "words" / "generator.md").write_text(generator, encoding="utf-8")
    text = recipe_path("harbour").read_text(encoding="utf-8")
    path = folder / "mine.toml"
    path.write_text(text.replace('template = "harbour"', 'template = ["words", "harbour"]'))
    return path


def test_folder_of_templates_is_looked_up_beside_the_recipe_and_not_hashed(tmp_path: Path) -> None:
    mine = load_recipe(with_templates(tmp_path / "a", GENERATOR))
    moved = load_recipe(with_templates(tmp_path / "b", GENERATOR))
    shipped = load_recipe("harbour")
    ids = [recipe.generate.generation_id("m") for recipe in (mine, moved, shipped)]
    assert ids[0] == ids[1] != ids[2]
    assert mine.judge.judging_id("j") == shipped.judge.judging_id("j")


def test_faults_of_templates_are_told_once_with_file_and_line(tmp_path: Path) -> None:
    path = with_templates(tmp_path, "=== system ===\n{{specs}}\n=== conversation ===\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).count("generator.md:2: {{specs}} is no placeholder of generator") == 1
    assert "nothing shows the model the spec; add {{spec}}" in str(caught.value)


def test_findings_that_a_template_does_not_show_are_refused(tmp_path: Path) -> None:
    path = with_templates(tmp_path, GENERATOR)
    judge = load_template("judge", "harbour").text.replace("{{metadata}}\n", "")
    (tmp_path / "words" / "judge.md").write_text(judge, encoding="utf-8")
    assert load_recipe(path)
    with pytest.raises(RecipeError, match=r"words/judge has no \{\{metadata\}\}; add it"):
        load_recipe(path, overrides=["judge.show_metadata=true"])


def test_arm_without_a_source_is_trained_under_a_name_of_its_own() -> None:
    changes = ["ablate.arms.3.without=['tongues']", "ablate.arms.3.sources=[]"]
    with pytest.raises(RecipeError, match=r"arm 'SFT' is to do without 'tongues'; recipe harbour"):
        ablate.fn(load_recipe("harbour", overrides=changes))
    changes = ["ablate.arms.3.without=['harbour']", "ablate.arms.3.sources=[]"]
    recipe = load_recipe("harbour", overrides=changes)
    assert recipe.ablate
    with pytest.raises(RecipeError, match="arm 'SFT' is to do without all sources: leave it one"):
        ablate.fn(recipe)
    own = recipe_of(recipe, recipe.ablate, recipe.ablate.arms[3], seed=1)
    assert (own.name, own.sources) == ("harbour-harbour", [])


def test_arm_is_trained_by_the_recipe_with_its_changes() -> None:
    recipe = load_recipe("harbour")
    changes = ["generate.context = 'none'", "dpo.learn_on = 'answer'"]
    arm = ArmConfig(name="DPO", train=["dpo"], changes=changes)
    assert recipe.ablate
    own = recipe_of(recipe, recipe.ablate, arm, seed=2)
    assert own.dpo and (own.dpo.learn_on, own.dpo.seed) == ("answer", 2)
    assert own.generate == recipe.generate.model_copy(update={"context": "none"})
    # Its data are others than the recipe's; how it is trained on them is not told by a name.
    assert own.name == 'harbour+generate.context="none"'
    spelled = arm.model_copy(update={"changes": ['generate.context="none"', *changes[1:]]})
    assert recipe_of(recipe, recipe.ablate, spelled, seed=2).name == own.name
    assert (own.sft, own.rl, own.sources) == (None, None, recipe.sources)


def test_arms_of_one_recipe_are_rewarded_by_the_judge_or_by_a_reward_model() -> None:
    reward = "ablate.arms.4.changes=['rl.reward.model=true', 'reward_model.epochs=2']"
    overrides = ["ablate.arms.4.train=['reward_model', 'rl']", reward]
    recipe = load_recipe("harbour", overrides=overrides)
    ablation = ablation_of(recipe)
    rewarded, judged = (
        recipe_of(recipe, ablation, arm, seed=2) for arm in (ablation.arms[4], ablation.arms[5])
    )
    assert rewarded.reward_model and rewarded.rl and judged.rl
    assert (rewarded.reward_model.epochs, rewarded.reward_model.seed) == (2, 2)
    assert (rewarded.rl.reward.model, judged.rl.reward.model) == (True, False)
    names = {judged.name, rewarded.name}
    assert (judged.reward_model, names) == (None, {"harbour+deep"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("sft.lern_on = 'answer'", "arm 'x': changes .*unknown key 'sft.lern_on': did you mean"),
        ("sft", "arm 'x': changes 'sft' is not key=value"),
    ],
)
def test_change_of_an_arm_that_cannot_be_made_is_told(change: str, told: str) -> None:
    recipe = load_recipe("harbour")
    assert recipe.ablate
    with pytest.raises(RecipeError, match=told):
        recipe_of(recipe, recipe.ablate, ArmConfig(name="x", train=["sft"], changes=[change]), 1)


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ({"changes": ["evaluate.samples = 3"]}, "and all arms share that section; changes may set"),
        ({"changes": ["dpo.epochs = 3"]}, "and does not train dpo: add it to train"),
        ({"changes": ["sft.seed = 7"]}, "set the seeds of all arms in ablate.seeds"),
        ({"refine": {"rules": "drawn"}, "context": "summary"}, "in summary alone: set its context"),
        ({"refine": {}, "budgets": [64]}, "has both refine and budgets"),
        ({"refine": {}, "faithfulness": True}, "has both refine and faithfulness"),
        ({"train": ["reward_model"]}, "trains reward_model and not rl, which alone is rewarded"),
    ],
)
def test_arm_that_could_not_be_compared_is_refused(arm: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ArmConfig.model_validate({"name": "x", "train": ["sft"], **arm})


def test_judge_and_trainer_share_a_gpu_that_neither_spreads_over() -> None:
    recipe = load_recipe("qwen3_8b_1xh100")
    assert recipe.rl
    judge = {**recipe.engine.model_dump(exclude_unset=True), "tensor_parallel_size": 2}
    changed = recipe.model_dump(exclude_unset=True) | {"engine": judge}
    with pytest.raises(ValidationError, match=r"judge_gpu_share is 0\.4, and the judge is spread"):
        Recipe.model_validate(changed)


def test_arm_that_is_midtrained_first_is_named_for_its_trainings() -> None:
    recipe = load_recipe("harbour")
    changes = ["midtrain.samples = 2", "midtrain.function = 'infra.harbour.documents:document'"]
    arm = ArmConfig(name="midtrain+SFT", train=["sft", "midtrain"], changes=changes)
    assert recipe.ablate
    own = recipe_of(recipe, recipe.ablate, arm, seed=2)
    # Its examples are the recipe's: they are refreshed once for both.
    assert (own.trainings, own.name) == (["midtrain", "sft"], "harbour")
    assert own.midtrain and (own.midtrain.samples, own.midtrain.seed) == (2, 2)
    with pytest.raises(ValidationError, match="trains midtrain\\+SFT: a name of stages"):
        ArmConfig(name="SFT+midtrain", train=["midtrain", "sft"])


def test_ablation_makes_the_arms_that_it_is_told_to_and_names_those_it_has() -> None:
    told = ['ablate.only=["RL", "no safety"]']
    arms = ablation_of(load_recipe("harbour", overrides=told)).arms
    assert [arm.name for arm in arms] == ["no safety", "RL"]
    with pytest.raises(RecipeError, match=r"only names 'Rl'; the arms are no safety, .*, SFT, RL"):
        load_recipe("harbour", overrides=['ablate.only=["Rl"]'])


def test_fine_tuning_does_not_continue_past_a_midtraining() -> None:
    with pytest.raises(RecipeError, match=r"sft\.start 'latest' would continue"):
        load_recipe("harbour", overrides=["midtrain.samples=1", "sft.start='latest'"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["ablate.arms.3.changes=[\"sft.start='latest'\"]"], "sft.start is 'latest'"),
        (["ablate.arms.3.refine={}", "evaluate.budget=64"], "limit its first answer alone"),
        (["ablate.arms.3.changes=['sft.lern_on=1']"], "did you mean 'learn_on'"),
        (
            ["reward_model={}", "ablate.arms.4.train=['reward_model', 'rl']"],
            "trains reward_model, rl, and its rl.reward.model is false: set it to true",
        ),
        (
            ["reward_model={}", "rl.reward.model=true", "ablate.arms.4.changes=[]"],
            "arm 'RL' trains rl, and its rl.reward.model is true",
        ),
        (
            ["ablate.arms.4.changes=['rl.reward.model=true']"],
            r"there is no section \[reward_model\]",
        ),
    ],
)
def test_ablation_that_would_compare_nothing_is_refused_before_it_starts(
    overrides: list[str], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        ablation_of(load_recipe("harbour", overrides=overrides))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["generate.context='none'"], "curate.require_citation would leave all of them out"),
        (["generate.refine={}"], "set sft.learn_on = 'answer'"),
    ],
)
def test_completions_that_could_not_be_learned_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe("harbour", overrides=overrides)
