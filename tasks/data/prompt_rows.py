"""Candidates → rows of `prompts`, and the units of those whose category is still to be chosen."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from tasks.data.candidates import Candidate
from tasks.data.sources import SourceConfig
from warehouse.tables import Prompt, Turn, content_id


def prompt_row(
    candidate: Candidate,
    source: SourceConfig,
    *,
    categories: list[str],
    revision: int,
    assigning_id: str | None,
) -> Prompt:
    """Returns the row of a prompt that a source holds."""
    return with_version(
        Prompt(
            prompt_id=candidate.prompt_id,
            categories=categories,
            status="ok" if categories else "unassigned",
            ideal_response=candidate.ideal_response,
            source=source.name,
            split=source.split,
            language=candidate.language,
            transform=candidate.transform,
            metadata=candidate.metadata,
            revision=revision,
            assigning_id=assigning_id,
            created_at=datetime.now(UTC),
            messages=[Turn(**message) for message in candidate.messages],
        )
    )


def with_version(row: Prompt) -> Prompt:
    """Returns the row with the hash of its labels as its version."""
    labels = (
        row.categories,
        row.ideal_response,
        row.source,
        row.split,
        row.language,
        row.transform,
        row.metadata,
    )
    return replace(row, version=content_id(json.dumps(labels, ensure_ascii=False)))


def assign_unit(row: Prompt, pack_categories: Sequence[str]) -> dict[str, object]:
    """Returns a row of `unassigned`; all share a block key, as the judge shows all the same
    summaries of the pack first."""
    return {"block_key": content_id(*pack_categories), "prompt": asdict(row)}
