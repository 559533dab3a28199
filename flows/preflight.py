"""Checks of what a command needs, before Prefect, Ray or a model starts.

Each check takes a moment, reads no more than the beginning of a file, and raises the error that the
run itself would come to minutes later.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from flows.arms import ablation_of
from flows.lock import require_free
from flows.recipe import STUDENT_TRAININGS, SUITES, TRAININGS, Recipe, RecipeError
from flows.run import home_at
from tasks.data.candidates import read_source
from tasks.data.filling import is_source, require_rules
from tasks.data.sources import SourceConfig
from tasks.engine.model_check import CheckedModel
from tasks.evaluation import evaluation
from tasks.evaluation.suites import load_suites
from tasks.training.tracking import require_installed
from tasks.training.trainer import DataError
from warehouse.catalog import check_version, connect, latest_set
from warehouse.files import require_appendable
from warehouse.home import Home, has_warehouse, make_home
from warehouse.lineage import choose_checkpoints

Command = Literal["refresh", "train", "evaluate", "ablate", "calibrate", "run", "estimate", "fill"]

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "train": STUDENT_TRAININGS,
    "evaluate": ("evaluate",),
    "calibrate": ("calibrate",),
    "ablate": ("ablate",),
}
"""By command, the sections of a recipe of which it needs one."""
_SECONDS_TO_ANSWER = 2.0


class AddressError(ValueError):
    """A server that was named and does not answer."""


def check(command: Command, recipe: Recipe, home: str | None) -> None:
    """Raises a ValueError or an OSError in one sentence if the command cannot do its work."""
    recipe.load_pack()
    recipe.require(command, *_NEEDS.get(command, ()))
    if command == "ablate":
        ablation_of(recipe)
    if command in ("refresh", "run", "ablate", "estimate"):
        _check_data(recipe.all_sources)
    _check_evaluations(command, recipe)
    if command == "estimate":
        return
    models = recipe.check_models()
    if command in ("train", "run", "ablate"):
        _require_student(recipe)
        _require_memory(recipe, models.get("student" if recipe.student else "engine"))
        _require_trackers(recipe)
    place = home_at(home)
    learns_rows = recipe.trainings != ["midtrain"]
    if command == "train" and learns_rows and not has_warehouse(place):
        raise _no_examples(recipe, place)
    make_home(place)
    require_free(place)
    check_version(place)
    if command == "train":
        _require_examples(recipe, place)
    if command in ("train", "run") and recipe.sft and recipe.sft.start not in (None, "latest"):
        choose_checkpoints(connect(place), [recipe.sft.start or ""])
    require_prefect()
    require_ray()


def _require_student(recipe: Recipe) -> None:
    """Raises RecipeError if the recipe names a student whose chats cannot be learned."""
    if recipe.student is None or not recipe.trainings:
        return
    # transformers takes seconds to import.
    from tasks.engine.chat_template import ChatError, ChatTemplate

    try:
        ChatTemplate.of(recipe.student)
    except ChatError as error:
        raise RecipeError(f"student: {recipe.student.model}: {error}") from error


def _require_memory(recipe: Recipe, student: CheckedModel | None) -> None:
    """Raises RecipeError if a training of the recipe does not fit into the memory here."""
    facts = student.facts if student else None
    if facts is None or not facts.is_large:
        return
    from tasks.training.memory import check_memory

    for name in recipe.trainings:
        try:
            check_memory(getattr(recipe, name), recipe.student_engine)
        except ValueError as error:
            raise RecipeError(f"{name}: {error}") from error


def _require_trackers(recipe: Recipe) -> None:
    """Raises TrackerError if a training reports to a tracker that is not installed."""
    for name in TRAININGS:
        training = getattr(recipe, name)
        if training:
            require_installed(training.report_to, training=name)


def check_fill(recipe: Recipe, *, rules: Sequence[str], out: Path) -> None:
    """Raises a ValueError or an OSError in one sentence if a rule is none of the pack's, or if a
    source, a suite or the file to write cannot be used."""
    require_rules(recipe.load_pack(), rules)
    _check_data([one for one in recipe.all_sources if not is_source(one, out)])
    load_suites(recipe.suite_names, SUITES)
    require_appendable(out)


def _check_data(sources: Sequence[SourceConfig]) -> None:
    """Reads the beginning of every source on this machine."""
    for source in sources:
        # A data set on Hugging Face would be downloaded.
        if source.path is not None:
            next(iter(read_source(source)), None)


def _check_evaluations(command: Command, recipe: Recipe) -> None:
    """Reads the suites, graders and attacks that the command asks for."""
    config = recipe.calibrate if command == "calibrate" else recipe.evaluate
    if command not in ("evaluate", "run", "ablate", "calibrate") or config is None:
        return
    evaluation.check(
        config,
        shipped=SUITES,
        pack_folder=recipe.pack_folder,
        engine=recipe.student_engine,
        templates=recipe.judge.template,
    )
    if command == "calibrate":
        evaluation.require_comparable(config)
    if command == "ablate" and recipe.ablate is not None:
        load_suites(recipe.ablate.suites, SUITES)


def _require_examples(recipe: Recipe, home: Home) -> None:
    """Raises DataError if a training has nothing to learn from."""
    if recipe.sft and latest_set(connect(home), recipe.name) is None:
        raise _no_examples(recipe, home)


def _no_examples(recipe: Recipe, home: Home) -> DataError:
    return DataError(
        f"recipe {recipe.name} has no examples in {home.url}; run precept refresh first"
    )


def require_prefect() -> None:
    """Raises AddressError if `$PREFECT_API_URL` is set and nothing answers there."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return
    try:
        urlopen(f"{url.rstrip('/')}/health", timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, ValueError) as error:
        # A server with a password answers too.
        if isinstance(error, HTTPError) and error.code in (401, 403):
            return
        cause = getattr(error, "reason", None) or error
        raise AddressError(
            f"no Prefect server answers at PREFECT_API_URL={url} ({cause}); give the address of "
            "its API, such as http://127.0.0.1:4200/api, start it with prefect server start, or "
            "unset PREFECT_API_URL to have one for this command alone"
        ) from error


def require_ray() -> None:
    """Raises AddressError if `$RAY_ADDRESS` names a cluster and nothing answers there."""
    address = os.environ.get("RAY_ADDRESS", "")
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if address in ("", "auto", "local"):
        return
    try:
        place = (parts.hostname or "", parts.port or 10001)
        socket.create_connection(place, timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, ValueError) as error:
        raise AddressError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); start it, give the "
            "address of its head, or unset RAY_ADDRESS to run on this machine"
        ) from error
