"""Categories that sources name, held against those of the pack: a name that it lacks is refused."""

from collections import Counter
from collections.abc import Sequence

from tasks.data.candidates import short
from tasks.data.sources import SourceConfig


def require_pack_categories(source: SourceConfig, pack_categories: Sequence[str]) -> None:
    """Raises ValueError if `categories` or `category_map` names a category that the pack lacks."""
    targets = [target for target in source.category_map.values() if target]
    for key, named in (("categories", source.categories), ("category_map", targets)):
        unknown = next((name for name in named if name not in pack_categories), None)
        if unknown:
            raise ValueError(
                f"source {source.name!r}: {key} names {unknown!r}, which is not a category of the "
                f"pack; use {', '.join(pack_categories)}"
            )


def unknown_labels(
    source: SourceConfig, unknown: Counter[str], pack_categories: Sequence[str], *, remedy: str
) -> str:
    """Returns the sentence on labels of rows that are not categories of the pack.

    `unknown` counts the rows of each label; `remedy` ends the sentence.
    """
    (label, num_rows), *others = unknown.most_common()
    more = f" (and {len(others)} more labels)" if others else ""
    return (
        f"source {source.name!r}: category {short(label)} of {num_rows} rows{more} is not in "
        f"the pack, which has {', '.join(pack_categories)}; {remedy}"
    )


MAP_LABELS = 'map it in category_map ("" leaves its rows out)'
"""The remedy for labels that are not categories of the pack."""
