"""Human review: what people say of completions, and which completions they are to see next.

A review is a row of table `reviews`; the newest one of each reviewer counts. View `reviewed` has
what the reviews of a completion come to: `accepted`, `rejected`, `disputed` or `unsure`. Nothing
else of a warehouse is written here, so that a review needs no lock and may come during a run.
"""

import getpass
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import duckdb
import pyarrow.dataset as ds

from warehouse.catalog import QuestionError, look_up
from warehouse.home import Home
from warehouse.shards import list_shards, write_shard
from warehouse.tables import REVIEWS, Review, content_id

Decision = Literal["accept", "reject", "unsure"]
Queue = Literal["random", "disagreement", "threshold", "rule", "drifted"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
QUEUES: tuple[Queue, ...] = get_args(Queue)

_LONGEST_NAME = 100
_MOST_ATTEMPTS = 20
"""Reviews of one completion that one person may be writing at the same moment."""


class ReviewError(ValueError):
    """A review that cannot be stored: its decision, or the name of its reviewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """A completion that waits for a review, and the reason that it does."""

    completion_id: str
    text_id: str
    """Hash of the text, for `add_review`: a review is of the text that was seen."""
    prompt_id: str
    category: str
    """Policy categories of the prompt, joined by `+`."""
    verdict: str
    """The judge's verdict: `accepted`, `rejected`, `held` or `unjudged`."""
    min_score: float | None
    """Lowest judge score, from 0 to 10; None without a score."""
    scores: list[float]
    """All judge scores, in the order of judges and samples."""
    threshold: float | None
    """Lowest accepted score; None without a plan."""
    num_reviews: int
    """People who have reviewed it, those who are unsure included."""
    num_accepting: int
    num_rejecting: int
    why: str
    """The reason that it stands in this queue, in words."""


def queue(
    connection: duckdb.DuckDBPyConnection,
    kind: Queue = "random",
    *,
    reviewer: str,
    rule: str | None = None,
    num_wanted: int = 1,
    limit: int = 20,
) -> list[QueueRow]:
    """Returns the completions that a person is to review next, those that others began first.

    `num_wanted` people are to decide on each; disputed completions come first in queue
    `disagreement`, for another person to settle. Completions that this person has reviewed are left
    out. The connection shows the reviews of the moment at which it was opened. Raises QuestionError
    for an unknown queue, and for a rule that no spec has.
    """
    if kind not in QUEUES:
        raise QuestionError(f"no queue {kind!r}; there are {', '.join(QUEUES)}")
    if (kind == "rule") != (rule is not None):
        raise QuestionError(
            f"queue {kind!r} and rule {rule!r} do not go together; give queue rule and the id of a "
            "rule, such as --rule K3"
        )
    if rule is not None and not look_up(connection, "specs_with_rule", rule_id=rule):
        raise QuestionError(f"no spec has a rule {rule!r}; see precept ask citations for the rules")
    rows = look_up(
        connection,
        "review_queue",
        queue=kind,
        reviewer=reviewer,
        rule=rule,
        num_wanted=num_wanted,
        limit=limit,
    )
    return [QueueRow(**row) for row in rows]


def reviews_of(connection: duckdb.DuckDBPyConnection, completion_id: str) -> list[Review]:
    """Returns the newest review of each reviewer of a completion, in the order of their names."""
    rows = look_up(connection, "reviews_of_completion", completion_id=completion_id)
    return [Review(**row) for row in rows]


def add_review(
    home: Home,
    completion_id: str,
    text_id: str,
    decision: Decision,
    reviewer: str,
    note: str = "",
) -> Review:
    """Stores what a person says of a completion, and returns the row.

    It replaces what the same person said of it before. Raises ReviewError for an unknown
    decision or an impossible name, and OSError if the disk or the store does not take it.
    """
    if decision not in DECISIONS:
        raise ReviewError(f"no decision {decision!r}; there are {', '.join(DECISIONS)}")
    reviewer = check_reviewer(reviewer)
    for _ in range(_MOST_ATTEMPTS):
        earlier = _reviews_by(home, completion_id, reviewer)
        revision = max((row["revision"] for row in earlier), default=-1) + 1
        review = Review(
            review_id=content_id(completion_id, text_id, reviewer, revision),
            completion_id=completion_id,
            text_id=text_id,
            reviewer=reviewer,
            revision=revision,
            decision=decision,
            created_at=datetime.now(UTC),
            note=_storable(note),
        )
        write_shard(home, REVIEWS, [review])
        # A shard of the same name that another process wrote first has kept its row.
        stored = _reviews_by(home, completion_id, reviewer)
        if any(row["created_at"] == review.created_at for row in stored):
            return review
    raise ReviewError(
        f"the review of {completion_id} by {reviewer!r} could not be stored: others of the same "
        "name keep coming; give each person a name of their own"
    )


def default_reviewer() -> str:
    """Returns the reviewer's name that `PRECEPT_REVIEWER` gives, else the name of the user.

    Raises ReviewError if neither can be a name.
    """
    name = os.environ.get("PRECEPT_REVIEWER", "")
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # an account without a name, as in a container
            name = ""
    return check_reviewer(name)


def check_reviewer(name: str) -> str:
    """Returns the name of a reviewer without spaces around it; raises ReviewError if it is none."""
    name = unicodedata.normalize("NFC", name).strip()
    is_shown = bool(name) and all(unicodedata.category(sign)[0] != "C" for sign in name)
    if not is_shown or len(name) > _LONGEST_NAME:
        raise ReviewError(
            f"{name!r} is no reviewer's name; give one of 1 to {_LONGEST_NAME} printed characters "
            "with --reviewer or PRECEPT_REVIEWER"
        )
    return name


def _storable(note: str) -> str:
    """Returns a note without the halves of characters that a terminal may hand over."""
    return note.strip().encode("utf-8", "replace").decode("utf-8")


def _reviews_by(home: Home, completion_id: str, reviewer: str) -> list[Mapping[str, Any]]:
    """Returns all revisions of what a person said of a completion, as they are stored now."""
    # A catalog lists and checks every shard of the warehouse, which is too slow for each review.
    while True:
        paths = list_shards(home, REVIEWS)
        if not paths:
            return []
        try:
            shards = ds.dataset(paths, schema=REVIEWS.schema, filesystem=home.files)
            return list(
                shards.to_table(
                    filter=(ds.field("completion_id") == completion_id)
                    & (ds.field("reviewer") == reviewer)
                ).to_pylist()
            )
        except FileNotFoundError:
            continue  # merged by `precept compact` in between; the listing is done again
