"""The outcome of collecting: the prompts and traces that a run wants, and the fate of all rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tasks.data.candidates import SourceNotes
from tasks.data.conflicts import Conflicts
from tasks.data.counts import Counts
from warehouse.tables import PROMPTS


@dataclass(frozen=True, slots=True)
class Collected:
    """The prompts of the sources."""

    prompts: pa.Table
    """Columns prompt_id, categories and is_asked, in the order of the sources. Categories are null
    until they are assigned; a prompt that only traces have is not asked of the generator."""
    traces: pa.Table
    """The traces that the run wants, with the columns of `trace_rows.WANTED`."""
    unassigned: pa.Table
    """Columns block_key and prompt: prompts whose category the judge model has yet to choose."""
    counts: Mapping[str, Counts]
    """By source."""
    evaluations: Mapping[str, Counts]
    """By evaluation set: rows that were read, kept to compare with, and bad."""
    conflicts: Conflicts
    """Prompts that rows of sources or of evaluation sets label in different ways."""
    notes: Mapping[str, SourceNotes]
    """By source and evaluation set, if there is anything to note."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The run that collects."""

    run_id: str = ""
    rule_ids: Sequence[str] = ()
    """Rules of the pack, which the reasoning of traces may cite."""
    assigning_id: str | None = None
    """By what the judge chooses categories: a prompt for which it found none is asked again only if
    it would now be asked otherwise. None: never."""


PROMPTS_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("is_asked", pa.bool_()),
    ]
)
UNASSIGNED_SCHEMA = pa.schema(
    [("block_key", pa.string()), ("prompt", pa.struct(list(PROMPTS.schema.remove_metadata())))]
)
