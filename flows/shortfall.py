"""Why a refresh came to no example: the stage that left nothing, its likely cause, the remedy."""

from collections.abc import Mapping, Sequence
from typing import Any

_REASONS = {
    ("prompts", "unread"): (
        "the judge model's choice of their category could not be read",
        "set judge.constrain, raise judge.sampling.max_tokens or take a judge model that follows "
        "the form, or give the categories in the source",
    ),
    ("prompts", "unassigned"): (
        "the judge model found no category of the pack that fits them",
        "widen the summaries of the policies, or give the categories in the source",
    ),
    ("prompts", "too_long"): (
        "they do not fit into the judge model's context when it is to choose their category",
        "raise max_model_len of the judging engine, or give the categories in the source",
    ),
    ("prompts", "error"): (
        "the judge model could not be asked for their category",
        "mend what the log's lines 'fault table=prompts' say",
    ),
    ("prompts", "contaminated"): (
        "the evaluation sets in collect.decontaminate hold them",
        "collect other prompts, or hold out other sets",
    ),
    ("prompts", "conflicting"): (
        "rows label them in different ways",
        'give each prompt one label, or set collect.conflicts to "join"',
    ),
    ("prompts", "left_out"): (
        "category_map leaves their labels out",
        "map a label to a category of the pack",
    ),
    ("parsed", "truncated"): (
        "they were cut before they ended",
        "raise generate.sampling.max_tokens",
    ),
    ("parsed", "too_long"): (
        "their prompts do not fit into the model's context",
        "raise engine.max_model_len",
    ),
    ("parsed", "error"): (
        "the engine failed on them",
        "mend what the log's lines 'fault table=completions' say",
    ),
    ("accepted", "held for approval"): (
        "they are held because the judge has drifted",
        "look at them with precept ask drift, and approve the run if they are right",
    ),
}
"""By stage and main reason: the likely cause, and the remedy."""

_STAGES = {
    "prompts": ("no row of the sources can be used", "read the counts of each source"),
    "generated": ("the generator made none", "run the same refresh again"),
    "parsed": (
        "they are not reasoning and an answer in the form that is asked for",
        "take a model that reasons between <think> tags, set engine.reasoning_parser to its "
        "family, or train it on traces first; precept ask worst and precept show tell more",
    ),
    "judged": (
        "no score could be read from the judge model's replies",
        "see why with precept ask unjudged, and set judge.constrain, raise "
        "judge.sampling.max_tokens or take a judge model that follows the form",
    ),
    "accepted": (
        "the judge model gave each of them a score under judge.threshold",
        "read its rationales with precept ask worst, and mend the policies, the generator or the "
        "threshold",
    ),
    "examples": (
        "curate left all of them out",
        "read the reasons in table examples, and loosen [curate] or take a generator that cites "
        "rules",
    ),
}
"""The same of other reasons, by stage."""

_OF_TRACES = {
    "parsed": (
        "they are not reasoning and an answer in the form of a completion",
        "name their columns in reasoning and answer, or set prefilled if replies lack the opening "
        "<think> tag; precept ask worst and precept show tell more",
    ),
    "examples": (
        "curate left all of them out",
        "read the reasons in table examples, and loosen [curate]: traces that cite no rules need "
        "require_citation = false",
    ),
}
"""The same where all completions are traces."""

_OF_SCORES = {
    "judged": (
        "no score that came with them could be read",
        "see why with precept ask unjudged, and mend scores and criteria of the traces, or leave "
        "both and judge out, so that the judge model judges them",
    ),
    "accepted": (
        "a score that came with each of them is under judge.threshold",
        "lower judge.threshold, or take other traces",
    ),
}
"""The same where all scores came with traces."""

_OF_JUDGE = ("unread", "unassigned", "too_long", "error")
"""Reasons of prompts for which the judge model chose no category."""


def shortfall(
    funnel: Sequence[Mapping[str, Any]],
    assignment_reasons: Mapping[str, str],
    *,
    of_traces: bool = False,
    of_scores: bool = False,
) -> str:
    """Returns in a sentence why a refresh that froze no example came to none.

    It tells the stage that left nothing, or the choice of categories if most prompts ended there.
    `assignment_reasons` are the reasons of prompts without a category, by their status. `of_traces`
    is true if all completions are traces, `of_scores` if their scores came with all of them.
    """
    stages = _STAGES | (_OF_TRACES if of_traces else {}) | (_OF_SCORES if of_scores else {})
    before = 0
    for row in funnel:
        stage, left_behind, num_rows = row["stage"], row["left_behind"], row["num_rows"]
        # The most frequent reason comes first: "24 unread, 3 exact_duplicates".
        count, _, main = left_behind.split(", ")[0].partition(" ")
        by_judge = stage == "prompts" and main in _OF_JUDGE and int(count) > num_rows
        if stage in stages and (num_rows == 0 or by_judge):
            cause, remedy = _REASONS.get((stage, main), stages[stage])
            if by_judge and main in assignment_reasons:
                cause += f" ({assignment_reasons[main]})"
            counted = f" ({left_behind})" if left_behind else ""
            return f"No example came of {before} {_NOUNS[stage]}{counted}: {cause}; {remedy}."
        before = num_rows
    return (
        "No example came of this recipe: those in the funnel are of other recipes, which share the "
        "warehouse; see precept ask acceptance_by_category."
    )


_NOUNS = {
    "prompts": "rows",
    "generated": "prompts",
    "parsed": "completions",
    "judged": "well-formed completions",
    "accepted": "judged completions",
    "examples": "accepted completions",
}
"""The rows that each stage starts from."""
