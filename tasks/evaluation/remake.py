"""The requests of answers and grades, made again from their rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from specs.policy import Pack, Spec
from specs.rubrics import GradingRequest, PolicyRubric
from specs.template import TemplateError, TemplateNames, load_template, shipped_sets
from tasks.engine.remade import Check, Remade, RemakeError, check, require_spec
from tasks.evaluation.answer import RECORDED, AnswerConfig, Arm, answer_request
from tasks.evaluation.evaluation import EvaluateConfig, graders_of
from tasks.evaluation.graders import GraderError, RubricGrader
from tasks.refine import RefineConfig, Refiner
from warehouse.tables import content_id, text_id

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The parts that answers and grades of a run were made from, beside their cases."""

    configs: Sequence[EvaluateConfig]
    """The evaluations that the recipe asks for."""
    pack: Pack
    """The recipe's policies as they are now."""
    pack_folder: Path
    generator_templates: TemplateNames
    judge_templates: TemplateNames
    specs: Mapping[str, str]
    """Texts of the stored specs by their ids."""
    refines: Sequence[RefineConfig] = ()
    """The ways in which arms of the recipe refine their answers."""

    def spec(self, spec_id: str | None) -> Spec | None:
        """Returns a stored spec, None without an id; raises RemakeError if it is not stored."""
        return None if spec_id is None else require_spec(spec_id, self.specs.get(spec_id))


def evaluate_configs(recipe: Mapping[str, Any]) -> list[EvaluateConfig]:
    """Returns the evaluations that the recipe of a run asks for, as far as this Precept reads
    them."""
    configs = []
    for section in ("evaluate", "calibrate"):
        try:
            if recipe.get(section):
                configs.append(EvaluateConfig.model_validate(recipe[section]))
        except ValidationError:
            continue
    return configs


def answer_again(row: Row, *, case: Row, ground: Ground) -> Remade:
    """Returns what a model was asked for an answer.

    Raises RemakeError if a part is no longer what it was, or was never recorded.
    """
    if row["model"] == RECORDED:
        raise RemakeError("no model of Precept's was asked: the answer came with its suite")
    if row["probe"] != "none":
        raise RemakeError(
            f"the prompt cannot be made again: its reasoning was tampered with ({row['probe']}), "
            "and the row does not say which answer it was taken from"
        )
    spec = ground.spec(row["spec_id"])
    arm = next((arm for arm in _arms(row, ground) if _id(arm, spec) == row["answering_id"]), None)
    if arm is None:
        raise RemakeError(
            "the prompt cannot be made again: no sampling of the recipe and no template at hand "
            f"gives the row's answering_id {row['answering_id']}; put back the generator.md of "
            "that time"
        )
    own = spec.id if spec and arm.shows_category else ""
    parts = (row["case_id"], row["model"], row["answering_id"], row["sample_index"], own)
    again = content_id(*parts)
    checks = (
        *([check("spec_id", row["spec_id"], spec.id, of="text of the spec")] if spec else []),
        Check("answering_id", row["answering_id"], "sampling, context, budget, template"),
        check("answer_id", row["answer_id"], again, of="case, model, answering_id, index, spec"),
    )
    request = answer_request(
        arm,
        case["messages"],
        # Of an arm without policies in its prompt, the spec is that of the critique.
        spec=spec if row["context"] != "none" else None,
        sanitised=case["sanitised"],
        num_samples=1,
    )
    return Remade(request=request, checks=checks, is_draft=arm.refiner is not None)


def _arms(row: Row, ground: Ground) -> Iterator[Arm]:
    """Yields the ways in which the model may have been asked."""
    for config in ground.configs:
        asked = AnswerConfig(sampling=config.sampling, context=row["context"], budget=row["budget"])
        for names in (ground.generator_templates, *shipped_sets()):
            for refine in (None, *ground.refines):
                try:
                    yield Arm(
                        name="",
                        model=row["model"],
                        checkpoint_id=row["checkpoint_id"],
                        seed=None,
                        config=asked,
                        template=load_template("generator", names),
                        refiner=_refiner(refine, asked, names, ground),
                    )
                except TemplateError:
                    continue


def _refiner(
    refine: RefineConfig | None, asked: AnswerConfig, templates: TemplateNames, ground: Ground
) -> Refiner | None:
    if refine is None:
        return None
    return Refiner.of(refine, asked.sampling, rules=ground.pack.rules, templates=templates)


def _id(arm: Arm, spec: Spec | None) -> str:
    config = arm.config
    shown = [] if config.context == "none" else [arm.template.id]
    if config.context == "summary" and spec is not None:
        shown.append(spec.id)
    return arm.answering_id_of(shown)


def grade_again(row: Row, *, answer: Row, case: Row, ground: Ground) -> Remade:
    """Returns what a judge model was asked for a grade.

    Raises RemakeError if a part is no longer what it was.
    """
    if row["model"] is None:
        raise RemakeError(f"no model was asked: grader {row['grader']} is a function")
    check("text_id", row["text_id"], text_id(answer["reasoning"], answer["answer"]), of="answer")
    stored = ground.spec(row["spec_id"])
    grader = _grader(row, ground)
    if stored is not None and isinstance(grader.rubric, PolicyRubric):
        # The spec as it was then, whatever has become of the pack.
        pack: Any = _StoredPack(stored)
        grader = replace(grader, rubric=replace(grader.rubric, pack=pack))
    question = grader.question(
        GradingRequest(
            conversation=case["original"],
            answer=answer["answer"],
            reasoning=answer["reasoning"] if row["saw"] != "answer" else None,
            ideal_response=case["ideal_response"],
            categories=case["categories"],
        ),
        num_samples=1,
    )
    if question is None:
        raise RemakeError("no model was asked: there was nothing in the answer to ask about")
    parts = (row["grading_id"], row["sample_index"], row["spec_id"] or "")
    again = content_id(row["answer_id"], row["text_id"], *parts, row["grading_context_id"])
    checks = (
        *([check("spec_id", row["spec_id"], stored.id, of="text of the spec")] if stored else []),
        Check("grading_id", row["grading_id"], "template, model, sampling, what it saw"),
        check("evaluation_id", row["evaluation_id"], again, of="answer, grading_id, index, spec"),
    )
    return Remade(request=question, checks=checks)


def _grader(row: Row, ground: Ground) -> RubricGrader:
    """Returns the grader that gives the recorded id; raises RemakeError if none does."""
    for config in ground.configs:
        rubrics = [grader for grader in config.graders if grader.rubric]
        for names in (ground.judge_templates, *shipped_sets()):
            try:
                graders = graders_of(
                    config.model_copy(update={"graders": rubrics}),
                    pack=ground.pack,
                    pack_folder=ground.pack_folder,
                    judges=[row["model"]],
                    templates=names,
                )
            except (GraderError, TemplateError):
                continue
            for grader in graders:
                if isinstance(grader, RubricGrader) and grader.grading_id == row["grading_id"]:
                    return grader
    raise RemakeError(
        f"the prompt cannot be made again: no grader of the recipe with the templates and the pack "
        f"at hand gives the row's grading_id {row['grading_id']}; put back those of that time"
    )


class _StoredPack:
    """Stands for a pack whose spec is stored, for a rubric that shows it."""

    def __init__(self, spec: Spec) -> None:
        self.spec_for = partial(lambda stored, categories: stored, spec)
