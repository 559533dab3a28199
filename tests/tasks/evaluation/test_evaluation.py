"""A whole evaluation: what is refused before it starts, the work of its stages, and its plan."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from flows.recipe import SUITES
from infra.harbour.world import PACK
from tasks.engine.requests import EngineConfig, Sampling
from tasks.evaluation.arms import ServedArm
from tasks.evaluation.evaluation import (
    EvaluateConfig,
    EvaluationSetup,
    check,
    graders_of,
    probes_of,
)
from tasks.evaluation.plan import EvaluationPlan, PlannedSuite
from tasks.stage import StageConfig
from tests.tasks.evaluation.test_answer import HARBOUR
from warehouse import catalog

VIEWS = Path(catalog.__file__).parent / "views" / "evaluation.sql"
GRADERS = [
    {"name": "oracle", "function": "infra.harbour.oracle:grade_answer"},
    {"name": "judge", "rubric": "policy", "suites": ["harbour"]},
    {"name": "style", "rubric": "propositions"},
]
ATTACK = {"suite": "harbour", "grader": "oracle", "script": "infra/harbour/attacker.toml"}


def config(**options: Any) -> EvaluateConfig:
    given = {"suites": ["harbour", "harbour_recipes"], "graders": GRADERS} | options
    return EvaluateConfig.model_validate(given)


def evaluation(**options: Any) -> EvaluationSetup:
    chosen = config(**options)
    engine = EngineConfig(model="org/model", revision="1")
    arms = [ServedArm.of_base(engine, chosen, name="base", model="m@1")]
    in_context = chosen.model_copy(update={"context": "category"})
    arms.append(ServedArm.of_base(engine, in_context, name="shown", model="m@1"))
    arms.append(arms[0].within(6))
    return EvaluationSetup(
        config=chosen,
        pack=HARBOUR,
        suites=(
            PlannedSuite(suite="harbour", suite_version="v1"),
            PlannedSuite(suite="harbour_recipes", suite_version="v2"),
        ),
        spec_ids={"boats": "s"},
        arms=(*arms, *probes_of(chosen, arms[:1])),
        graders=graders_of(chosen, pack=HARBOUR, pack_folder=PACK, judges=["j@1"]),
        judge="j@1",
        stage=StageConfig(),
        run_id="r",
    )


def test_every_judge_of_a_jury_grades_by_the_policy_and_the_first_alone_by_other_rubrics() -> None:
    judges = ["town@1", "sea@2"]
    graders = graders_of(config(), pack=HARBOUR, pack_folder=PACK, judges=judges)
    assert [(one.config.name, getattr(one, "model", None)) for one in graders] == [
        ("oracle", None),
        ("judge by town", "town@1"),
        ("judge by sea", "sea@2"),
        ("style", "town@1"),
    ]
    lone = {one.grading_id for one in evaluation().graders}
    alone = graders_of(config(), pack=HARBOUR, pack_folder=PACK, judges=["sea@2"])
    assert graders[2].grading_id == alone[1].grading_id, "its grades are those of a lone judge"
    assert lone.isdisjoint({graders[1].grading_id, graders[2].grading_id})
    alike = graders_of(config(), pack=HARBOUR, pack_folder=PACK, judges=["town@1", "town@2"])
    assert [one.config.name for one in alike[1:3]] == ["judge by town@1", "judge by town@2"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"suites": ["harbor"]}, "no suite 'harbor'"),
        ({"suites": ["harbour", "harbour"]}, "two suites are named 'harbour'"),
        ({"suites": ["strongreject"]}, "category_map names 'harassment', which is not a category"),
        ({"graders": [GRADERS[0] | {"function": "a:b"}]}, "no grader 'a:b'"),
        ({"graders": [GRADERS[0] | {"suites": ["none"]}]}, "no suite 'none'"),
        ({"multiturn": ATTACK | {"suite": "xstest"}}, "multiturn.suite is 'xstest'"),
        ({"multiturn": ATTACK | {"grader": "style"}}, "multiturn.grader 'style' does not tell"),
        ({"multiturn": ATTACK | {"script": "none.toml"}}, "no script 'none.toml'"),
    ],
)
def test_evaluation_that_names_what_cannot_be_used_is_refused(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check(config(**options), shipped=SUITES, pack_folder=PACK)


def test_grader_of_propositions_needs_a_pack_that_has_some(tmp_path: Path) -> None:
    check(config(), shipped=SUITES, pack_folder=PACK)
    with pytest.raises(ValueError, match=r"grader 'style' asks about propositions, and .* has no"):
        check(config(), shipped=SUITES, pack_folder=tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"graders": [GRADERS[0], GRADERS[0]]}, "two graders are named 'oracle'"),
        ({"multiturn": ATTACK | {"grader": "none"}}, "multiturn.grader is 'none'"),
        ({"samples": 2, "sampling": Sampling(temperature=0)}, "temperature is 0 with 2 samples"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        config(**options)


def test_suites_of_a_recipe_are_looked_up_beside_it_and_their_sources_beside_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.toml").write_text('[source]\npath = "mine.jsonl"\n')
    (tmp_path / "mine.jsonl").write_text("")
    given = {"suites": ["mine.toml", "harbour"], "graders": GRADERS[:1]}
    context = {"folder": str(tmp_path)}
    beside = EvaluateConfig.model_validate(given, context=context)
    assert beside.suites == [str(tmp_path / "mine.toml"), "harbour"]
    check(beside, shipped=SUITES, pack_folder=PACK)


def test_grader_grades_all_arms_in_its_own_suites_alone() -> None:
    whole = evaluation()
    versions = {
        grader.config.name: whole.grade_work(grader).suite_versions for grader in whole.graders
    }
    assert versions == {"oracle": ("v1", "v2"), "judge": ("v1",), "style": ("v1", "v2")}
    assert len(whole.grade_work(whole.graders[0]).arms) == 3


def test_arms_are_attacked_that_have_no_policies_no_own_limit_and_no_tampering() -> None:
    whole = evaluation(multiturn=ATTACK, faithfulness={})
    assert [served.arm.label for served in whole.attacked] == ["base"]
    assert evaluation().attacked == () and evaluation().attack is None


@pytest.mark.parametrize(
    ("options", "needs_judge"),
    [({}, False), ({"script": None}, True), ({"grader": "judge"}, True)],
)
def test_attack_needs_the_judge_beside_unless_script_and_function_do(
    options: dict[str, Any], needs_judge: bool
) -> None:
    attack = evaluation(multiturn=ATTACK | options).attack
    assert attack is not None and attack.needs_judge is needs_judge


def test_probes_share_the_place_of_their_arm_in_tables() -> None:
    plan = evaluation(faithfulness={}).plan(threshold=8)
    assert [(arm.position, arm.arm, arm.probe) for arm in plan.arms] == [
        (0, "base", "none"),
        (1, "shown", "none"),
        (2, "base, 6 tokens", "none"),
        (0, "base", "kept"),
        (0, "base", "truncated"),
        (0, "base", "swapped"),
    ]
    assert {grader.threshold for grader in plan.graders} == {0.8}


def test_views_read_the_plan_by_the_names_and_types_of_its_fields() -> None:
    text = VIEWS.read_text(encoding="utf-8")
    read = dict(re.findall(r"from_json\(evaluation->'(\w+)', '(\[.*?\])'\)", text, re.DOTALL))
    parts = get_type_hints(EvaluationPlan)
    assert read.keys() | {"samples"} == parts.keys()
    for name, declared in read.items():
        [columns] = json.loads(declared)
        row = get_args(parts[name])[0]
        assert list(columns) == [field.name for field in fields(row)], name
        for column, hint in get_type_hints(row).items():
            assert columns[column] == json_type(hint), (name, column)


def json_type(hint: Any) -> Any:
    """The type that DuckDB reads values of a Python type as."""
    options = [option for option in get_args(hint) if option not in (type(None), Ellipsis)]
    if getattr(hint, "__origin__", None) is tuple:
        return [json_type(options[0])]
    kinds = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE"}
    return kinds[options[0] if options else hint]
