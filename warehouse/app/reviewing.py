"""Stores the reviews of the page, which writes nothing else."""

from collections.abc import Mapping
from typing import Any

from warehouse.app.snapshot import Session
from warehouse.characters import visible
from warehouse.reviews import Decision, ReviewError, add_review, default_reviewer


def default_name() -> str:
    """Returns the reviewer's name to begin with; "" if neither variable nor system has one."""
    try:
        return default_reviewer()
    except ReviewError:
        return ""


def save(
    session: Session, row: Mapping[str, Any], decision: Decision, *, reviewer: str, note: str
) -> str:
    """Stores a review of a listed completion, and returns the sentence that says so, or why not."""
    try:
        review = add_review(
            session.snapshot.home, row["completion_id"], row["text_id"], decision, reviewer, note
        )
        session.see_reviews()
    # A damaged shard of reviews is a ValueError of Arrow's.
    except (ValueError, OSError) as error:
        return f"Not saved: {visible(str(error))}"
    return f"Saved: {decision} by {visible(review.reviewer)} on {row['completion_id'][:12]}"
