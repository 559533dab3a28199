"""The data model on one page: row types, their Arrow schemas and the ids of rows.

A row's id is the hash of what defines it, never of how it was run. Each row class is a table; its
Arrow schema follows from the annotations, is fixed, and its version is written into every shard.
Frequently read columns come first, long texts last. The sentence under a field describes its column
in warehouse/README.md.
"""

import ast
import hashlib
import inspect
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa

SCHEMA_VERSION = "7"
FORMER_TABLES = ("policies",)
"""Tables that only older schema versions have; such a folder shows a warehouse to be old."""

ID_LENGTH = 32


def content_id(*parts: object) -> str:
    """Returns the id of a row made of these parts: 32 hex digits of the SHA-256 of their `|`-join.

    The DuckDB macro `content_id([…])` computes the same of texts.
    """
    text = "|".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def text_id(reasoning: str, answer: str) -> str:
    """Returns the hash of reasoning and answer.

    Judgements and grades carry it, so that a row that was lost and regenerated under the same id
    is judged again.
    """
    return content_id(len(reasoning), reasoning, answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a chat."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    """Text of the turn."""
    tool_calls: str | None = None
    """Calls of tools that an assistant's turn makes, as a JSON list of id, name and arguments; null
    without one."""
    tool_call_id: str | None = None
    """Id of the call whose result a tool's turn is; null without one."""
    name: str | None = None
    """Name of the tool, if no call of the chat tells it; null otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantTurn:
    """The turn that is trained on, with the keys that chat templates know."""

    role: str
    """`assistant`."""
    content: str
    """The answer."""
    reasoning_content: str
    """The reasoning, under the key that most chat templates read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A chat that ends on a user turn."""

    prompt_id: str
    """Hash of the canonical messages."""
    categories: list[str]
    """Policy categories, sorted; most prompts have one."""
    status: str = "ok"
    """`ok`; `unassigned` if the judge found that no category fits; `unread` if its choice could not
    be read; or the engine's fault when the judge was asked, such as `error`."""
    reason: str | None = None
    """The reason that the judge's choice is unread or an engine's fault; null without one."""
    ideal_response: str | None
    """`comply`, `refuse`, `safe_complete`, or null if nobody said."""
    source: str
    """Name of the source in the recipe."""
    split: str
    """`train`, or the name of an evaluation set."""
    language: str
    """Language of the text."""
    transform: str | None
    """Change that the source made to the text, such as an encoding; null without one."""
    metadata: list[str]
    """Findings from elsewhere that a judge may be shown: "the ideal response is refuse"."""
    assigning_id: str | None = None
    """Hash of what the judge chose the category by: template, summaries, model@revision, sampling;
    null if the source gave the category."""
    assigning_attempt: int = 0
    """Number of earlier attempts at the judge's choice; an unread one or an engine error is retried
    within a budget."""
    revision: int = 0
    """Number of earlier rows of the prompt: its labels changed, or the judge was asked again. The
    highest counts."""
    version: str = ""
    """Hash of the labels: categories, ideal response, source, split, language, transform,
    metadata."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    messages: list[Turn]
    """The chat, which ends on a user turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecText:
    """One compiled spec(category) as a model was shown it."""

    spec_id: str
    """Hash of the text; the version of the spec."""
    pack: str
    """Id of the policy pack."""
    pack_version: str
    """Version of the pack, as its style.md says."""
    categories: list[str]
    """Categories whose rules the text has in full, sorted."""
    detail: str
    """`full`, or `summary` for a text without the rules of any category."""
    rule_ids: list[str]
    """Ids of the rules in the text."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    text: str
    """The spec as a model was shown it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sample of the generator, or a trace that was made elsewhere: reasoning and answer, or the
    fault of the output."""

    completion_id: str
    """Hash of prompt, spec, template, model, sampling and sample index; of a trace: of prompt, the
    label of its model, and text."""
    text_id: str
    """Hash of reasoning and answer. Judgements are about it: completions of one prompt with equal
    texts share theirs, and a regenerated row is judged again."""
    prompt_id: str
    """Id of the prompt."""
    spec_id: str | None
    """Id of the spec that the generator was shown; null for a trace, which is judged under the
    current spec of its prompt's categories."""
    generation_id: str
    """Hash of what all completions of a run share: template, model@revision, sampling; of traces:
    of the label of their model."""
    sample_index: int
    """Place among the completions of one prompt; from 0."""
    attempt: int
    """Number of earlier attempts; only an engine error is retried."""
    status: str
    """`ok`, a fault of the reply (a `ReplyStatus`), `truncated`, `too_long`, `filtered` by an
    endpoint, or `error`."""
    reason: str | None
    """The fault in words; null without one."""
    finish_reason: str | None
    """The engine's reason for the end of the output: `stop`, `length`, or another of an endpoint's;
    null without an output."""
    model: str
    """`name@revision` of the generator, or the label of the model that made a trace."""
    num_prompt_tokens: int | None
    """Tokens of the prompt; 0 for a trace, as the three below. All are null if an endpoint did not
    tell; what it told of several samples together is shared out by their lengths."""
    num_cached_tokens: int | None
    """Tokens of the prompt that the prefix cache served; null if an endpoint did not tell."""
    num_reasoning_tokens: int | None
    """Tokens of the reasoning; null if an endpoint did not tell."""
    num_answer_tokens: int | None
    """Tokens of the answer; null if an endpoint did not tell."""
    cited: list[str]
    """Rule ids that the reasoning cites, in order of first mention."""
    cited_unknown: list[str]
    """Rule ids that the reasoning cites and no rule has."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    answer: str
    """Text that the user sees; empty without a usable output."""
    reasoning: str
    """Text before the answer; what there was of it if it was never closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionScore:
    """The score of a completion by one criterion, of one judge sample."""

    criterion: str
    """Name of the criterion, such as `compliance`."""
    score: float
    """Score from 0 to 10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One sample of the judge, or one score that came with a trace. A score that could not be read
    is null, never 0."""

    judgement_id: str
    """Hash of prompt and text, spec, judge model, template, sampling and sample index, and of the
    metadata that the judge was shown; of a score that came with a trace: of completion and its
    text, judge, criteria and place."""
    completion_id: str | None
    """Id of the completion. In shards it is null for a sample of the recipe's judge, which is about
    a text: views show such a sample once for each completion that has the text."""
    prompt_id: str
    """Id of the prompt."""
    text_id: str
    """Hash of the text that was judged. Completions of one prompt and spec with equal texts share
    the judgement."""
    spec_id: str | None
    """Id of the spec that the judge was shown; null for a score that came with a trace."""
    judging_id: str
    """Hash of what all judgements of a run share: template, model@revision, sampling, view; of
    scores that came with traces: of their judge and its criteria."""
    criterion: str | None = None
    """Criterion that a score that came with a trace is for; null if it is for the completion as a
    whole, and for samples of the recipe's judge, which have `criteria`."""
    sample_index: int
    """Place among the judgements of one text, or of a trace; from 0."""
    attempt: int
    """Number of earlier attempts; an engine error or an unread score is retried within a budget. Of
    a score that came with a trace, the times that its file changed it."""
    status: str
    """`ok`, or no_verdict, off_scale, refused, unclosed, truncated, too_long, filtered, error;
    `missing` if a trace has no such score."""
    reason: str | None
    """The reason that there is no score; null with one."""
    score: float | None
    """Score from 0 to 10, of several criteria the lowest; null if it could not be read."""
    criteria: list[CriterionScore] = field(default_factory=list)
    """The score of each criterion; empty if the judge was asked for one score of the whole."""
    agrees: bool | None
    """True if the judge agreed with the prompt's metadata; null if it was shown none or did not
    say."""
    saw_reasoning: bool
    """True if the judge was shown the reasoning."""
    model: str
    """`name@revision` of the judge, or the name of the judge whose scores came with traces."""
    finish_reason: str | None
    """The engine's reason for the end of the output: `stop`, `length`, or another of an endpoint's;
    null without an output."""
    num_prompt_tokens: int | None
    """Tokens of the prompt; null if an endpoint did not tell."""
    num_cached_tokens: int | None
    """Tokens of the prompt that the prefix cache served; null if an endpoint did not tell."""
    num_output_tokens: int | None
    """Tokens of the output; null if an endpoint did not tell."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    rationale: str
    """The judge's words before the score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One person's verdict on one completion; of the reviews of a person, the newest counts."""

    review_id: str
    """Hash of completion and its text, reviewer and revision."""
    completion_id: str
    """Id of the completion."""
    text_id: str
    """Hash of the text that was reviewed: the completion's at that time."""
    reviewer: str
    """Name of the person."""
    revision: int
    """Number of earlier reviews of the completion by the same person; the highest counts."""
    decision: str
    """`accept`, `reject` or `unsure`."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    note: str
    """The person's own words; empty without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One completion in a frozen set that the judge or people accept, and the reason that it was
    chosen or left out.

    A chosen one is a training row, which does not contain the spec.
    """

    set_id: str
    """Fingerprint of the frozen set."""
    completion_id: str
    """Id of the completion."""
    prompt_id: str
    """Id of the prompt."""
    status: str
    """`chosen` or `left_out`."""
    reason: str
    """`best of n` if chosen, or `reviewed: accepted` if people accept what the judge does not; else
    `reviewed: rejected`, `reviewed: disputed`, uncited, cites_unknown, dangling, not_best or
    balance; in a set of pairs preferred or dispreferred."""
    categories: list[str]
    """Policy categories, sorted."""
    ideal_response: str | None
    """`comply`, `refuse`, `safe_complete`, or null if nobody said."""
    spec_id: str
    """Id of the spec that the completion was made and judged under."""
    score: float
    """Lowest judge score, from 0 to 10."""
    scores: list[float]
    """All judge scores, in the order of the samples."""
    cited: list[str]
    """Rule ids that the reasoning cites, in order of first mention."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    prompt: list[Turn]
    """The chat that is trained on, without any spec."""
    completion: list[AssistantTurn]
    """The assistant turn that is learned: reasoning and answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One trained model, with its parent, its data and its folder."""

    checkpoint_id: str
    """Hash of stage, configuration, data and parent."""
    revision: int = 0
    """Number of times that the training was resumed; the highest counts."""
    stage: str
    """`midtrain`, `sft`, `dpo`, `reward_model` or `rl`."""
    status: str
    """`completed`; `stopped`, which can be resumed; `collapsed`, which must not be."""
    reason: str | None
    """The reason that the training ended before its last step; null without one."""
    model: str
    """`name@revision` of the trained model, as on the rows that it makes."""
    parent: str
    """`name@revision` of the model that the training started from."""
    parent_id: str | None
    """Id of the checkpoint that the training started from; null for a model from elsewhere."""
    set_id: str | None
    """Id of the set of examples that it was trained on; null for `midtrain`; for `rl`, that of its
    reward model, or null without one."""
    data_fingerprint: str
    """Hash of the data that it was trained on."""
    num_rows: int
    """Rows that it was trained on."""
    num_steps: int
    """Optimiser steps of the training."""
    recipe: str
    """Name of the recipe."""
    run_id: str
    """Id of the run that made the row."""
    git_commit: str | None
    """Commit of Precept's sources, with `+` if they were changed; null outside a checkout."""
    seconds: float
    """Duration of the training in seconds."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    path: str
    """Folder of the model, relative to the warehouse."""
    config: str
    """Configuration of the stage, as JSON."""
    metrics: str
    """Metrics of the training, as JSON: the `last` value of each, and the `log` of all steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One answer of a model in training, with its judge scores and its reward."""

    rollout_id: str
    """Hash of checkpoint, step, rank and position in the batch."""
    checkpoint_id: str
    """Id of the checkpoint that the training leads to."""
    step: int
    """Number of earlier optimiser steps."""
    rank: int
    """Number of the training worker; from 0."""
    position: int
    """Place in the batch of the worker; from 0."""
    attempt: int
    """Number of earlier starts of the training; a repeated step replaces its rollouts."""
    prompt_id: str
    """Id of the prompt."""
    spec_id: str
    """Id of the spec that the judge was shown."""
    kind: str
    """`harmful`, `benign` or `ambiguous`: the kind of prompt, which has a reward of its own."""
    status: str
    """`ok`, a fault of the reply (a `ReplyStatus`) or `truncated`."""
    reward: float | None
    """Reward from 0 to 1; null, never 0, if the judge failed."""
    reason: str | None
    """The reason that there is no reward; null with one."""
    compliance: list[float]
    """Compliance scores that could be read, from 0 to 10, or the score of a reward model."""
    helpfulness: list[float]
    """Helpfulness scores that could be read, from 0 to 10; empty if none was asked for."""
    num_votes: int
    """Judge samples asked for of each score."""
    num_reasoning_tokens: int
    """Tokens of the reasoning."""
    num_answer_tokens: int
    """Tokens of the answer."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    answer: str
    """Text that the user sees; empty without a usable output."""
    reasoning: str
    """Text before the answer; what there was of it if it was never closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The findings of the monitors in the reasoning of one completion, answer or rollout, without
    a model. No reward and no filter ever reads it."""

    finding_id: str
    """Hash of kind and id of the row, its text, and the version of the monitors."""
    kind: str
    """Table of the row: `completions`, `answers` or `rollouts`."""
    row_id: str
    """Id of the row."""
    text_id: str
    """Hash of the reasoning and the answer that were read."""
    monitoring_id: str
    """Hash of the monitors and their phrases; another version reads anew."""
    cited_unknown: list[str]
    """Rule ids that the reasoning cites and no rule has."""
    cited_elsewhere: list[str]
    """Rules that it cites and that the spec of its categories does not speak of."""
    decision: str | None
    """Outcome that the end of the reasoning settles on; null if it names none."""
    outcome: str | None
    """Outcome of the answer by its words: `comply` or `refuse`; null if they leave a doubt or are
    not English."""
    is_reversed: bool
    """True if the answer does the opposite of what the reasoning decides on."""
    grading: str | None
    """The first phrase that speaks of being graded, tested or trained; null without one."""
    policy_text: str | None
    """The first phrase that speaks of a policy text as one that lies at hand; null without one."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One score of a graded answer."""

    name: str
    """Name of the score, such as `safe`."""
    value: float | None
    """Value from 0 to 1; null if it could not be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One prompt of a suite as it is asked: bare, or under an attack."""

    suite_version: str
    """Hash of the ids and labels of all cases of the suite."""
    case_id: str
    """Hash of the prompt, the messages as asked and the attack; the same in all suite versions."""
    suite: str
    """Name of the suite."""
    prompt_id: str
    """Id of the prompt before the attack."""
    attack: str
    """`none`, or the name of the attack."""
    attack_version: str
    """Version of the attack; `file` if the source held the attacked prompt."""
    seed: int
    """Seed of the attack."""
    sanitised: bool
    """True if special tokens in the text are broken, as they should be; false for a model behind an
    interface that lets users forge them."""
    categories: list[str]
    """Policy categories, sorted."""
    ideal_response: str | None
    """`comply`, `refuse`, `safe_complete`, or null if nobody said."""
    language: str
    """Language of the prompt."""
    transform: str | None
    """Change that the source made to the text, such as an encoding; null without one."""
    label: str | None
    """The suite's own class of the prompt; null without one."""
    target: str | None
    """The gold answer; null without one."""
    grading_context_id: str
    """Hash of what graders see of the case; if it changes, the case is graded again."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    messages: list[Turn]
    """The chat as asked."""
    original: list[Turn]
    """The chat before the attack, which graders are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of a model to a case."""

    answer_id: str
    """Hash of case, model, answering_id, sample index and, if it was shown, the spec of its
    category."""
    text_id: str
    """Hash of reasoning and answer. Grades carry it, so a regenerated row is graded again."""
    case_id: str
    """Id of the case."""
    checkpoint_id: str | None
    """Id of the checkpoint that answered; null for a model from elsewhere."""
    model: str
    """`name@revision` of the model that answered."""
    answering_id: str
    """Hash of what all answers of an arm share: sampling, context, reasoning budget, probe."""
    context: str
    """Spec in the prompt: `none`, `summary`, or `category` for the rules of its categories."""
    spec_id: str | None
    """Id of the spec in the prompt; null without one."""
    budget: int | None
    """Limit in tokens at which the reasoning is closed; null without one."""
    probe: str
    """`none`, or the change made to the reasoning: `kept`, `truncated`, `swapped`, `edited`."""
    sample_index: int
    """Place among the answers of one arm to one case; from 0."""
    attempt: int
    """Number of earlier attempts; only an engine error is retried."""
    status: str
    """`ok`, or the reason that there is no answer, as of completions."""
    reason: str | None
    """The fault in words; null without one."""
    finish_reason: str | None
    """The engine's reason for the end of the output: `stop`, `length`, or another of an endpoint's;
    null without an output."""
    decision: str | None
    """Outcome that the reasoning settles on; null if it names none."""
    cited: list[str]
    """Rule ids that the reasoning cites, in order of first mention."""
    cited_unknown: list[str]
    """Rule ids that the reasoning cites and no rule has."""
    closed_by_force: bool
    """True if the budget ended the reasoning."""
    num_prompt_tokens: int | None
    """Tokens of the prompt; null if an endpoint did not tell."""
    num_reasoning_tokens: int | None
    """Tokens of the reasoning, and of a draft and its critiques if the answer is a revision; null
    if an endpoint did not tell."""
    num_answer_tokens: int | None
    """Tokens of the answer; null if an endpoint did not tell."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    answer: str
    """Text that the user sees; empty without a usable output."""
    reasoning: str
    """Text before the answer; what there was of it if it was never closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One grade: one sample of a grader on one answer, shown with the prompt before the attack."""

    evaluation_id: str
    """Hash of answer and its text, grading_id, sample index, spec and grading context."""
    answer_id: str
    """Id of the answer."""
    text_id: str
    """Hash of the text that was graded: the answer's at that time."""
    grading_id: str
    """Hash of the grader: its version, or template, model, sampling and what it saw."""
    grader: str
    """Name of the grader in the recipe."""
    saw: str
    """`answer` or `answer+reasoning`."""
    sample_index: int
    """Place among the grades of one answer by one grader; from 0."""
    attempt: int
    """Number of earlier attempts; an engine error or an unread grade is retried within a budget."""
    status: str
    """`ok`, or the reason that there is no grade, as of judgements."""
    reason: str | None
    """The fault in words; null without one."""
    model: str | None
    """`name@revision` of the grader; null for a function."""
    template_id: str | None
    """Version of the template that the grader was shown; null for a function."""
    spec_id: str | None
    """Id of the spec that the grader was shown; null without one."""
    grading_context_id: str
    """Hash of what the grader saw of the case: the case's."""
    scores: list[Score]
    """Scores with their names, from 0 to 1; null values if the grade could not be read."""
    num_output_tokens: int | None
    """Tokens of the output; null if an endpoint did not tell."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    rationale: str
    """The grader's words before its scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One exchange of a multi-turn attack: the attacker's message and the model's answer."""

    exchange_id: str
    """Hash of model, attack and prompt, and of the place in the tree."""
    parent_id: str | None
    """Id of the exchange before it; null for the first."""
    prompt_id: str
    """Id of the prompt that is the goal of the attack."""
    checkpoint_id: str | None
    """Id of the checkpoint that was attacked; null for a model from elsewhere."""
    model: str
    """`name@revision` of the model that was attacked."""
    attacking_id: str
    """Hash of attacker, search, sampling and scorer."""
    suite: str
    """Name of the suite whose prompts are attacked."""
    turn: int
    """Number of the exchange in its conversation; from 1."""
    branch: int
    """Place among the attacker's proposals for this turn; from 0."""
    attempt: int
    """Number of earlier attempts; the whole tree is retried after an engine error."""
    status: str
    """`ok`, or the reason that there is no answer, as of completions; `no_proposal` ends a tree
    whose attacker has nothing more to say."""
    reason: str | None
    """The fault in words; null without one."""
    harm: float | None
    """Harm of the answer by the scorer of the search, from 0 to 1; null if it was not scored."""
    num_answer_tokens: int | None
    """Tokens of the answer; null if an endpoint did not tell."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    message: str
    """The attacker's message."""
    answer: str
    """Text that the user sees; empty without a usable output."""
    reasoning: str
    """Text before the answer; what there was of it if it was never closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One prompt that a model or a function was asked to write for a rule, or the fault of its
    output."""

    draft_id: str
    """Hash of rule, place at its line, spec, template, model, sampling and sample index."""
    drafting_id: str
    """Hash of what all drafts of a run share: template, model@revision, sampling; of a function:
    its name."""
    angle_id: str
    """Hash of the place at the line of the rule: spec, rule, side, ideal response, words, and the
    prompt that it is near."""
    spec_id: str
    """Id of the spec that holds the rule."""
    rule_id: str
    """Id of the rule that it is written for."""
    category: str
    """Category of the rule."""
    side: str
    """`inside` if the rule is to cover the prompt, `outside` if the prompt is to look so alone."""
    ideal_response: str | None
    """`comply`, `refuse` or `safe_complete`, as the pack has it of this side; null if it does not
    say."""
    near_id: str | None
    """Id of the prompt that models fail on and that this one is written like; null without one."""
    sample_index: int
    """Place among the drafts of one angle; from 0."""
    attempt: int
    """Number of earlier attempts; only an engine error is retried."""
    status: str
    """`ok`, `refused`, or the reason that there is no prompt, as of completions."""
    reason: str | None
    """The fault in words; null without one."""
    model: str
    """`name@revision` of the model that wrote it, or the name of the function."""
    prompt_id: str | None
    """Id of the prompt; null without one."""
    num_prompt_tokens: int | None
    """Tokens of the prompt; null if an endpoint did not tell."""
    num_cached_tokens: int | None
    """Tokens of the prompt that the prefix cache served; null if an endpoint did not tell."""
    num_output_tokens: int | None
    """Tokens of the output; null if an endpoint did not tell."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    angle: str
    """The place at the line of the rule, in the words that the model was given."""
    messages: list[Turn]
    """The chat, which ends on a user turn; empty without a usable output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text about the policies that a model or a function was asked to write for midtraining, or
    the fault of its output."""

    document_id: str
    """Hash of subject, template, model, sampling and sample index; of a function: of subject, its
    name and sample index."""
    documenting_id: str
    """Hash of what all documents of a run share: template, model@revision, sampling; of a function:
    its name."""
    subject_id: str
    """Hash of the part of the pack that the generator was shown, and of the words for its kind."""
    pack: str
    """Id of the policy pack."""
    category: str
    """Category of the policy."""
    rule_id: str | None
    """Id of the rule that it is about; null if it is about the whole policy."""
    kind: str
    """`explanation` or `dialogue`, about a rule, or `summary`, about a policy."""
    sample_index: int
    """Place among the documents of one kind about one subject; from 0."""
    attempt: int
    """Number of earlier attempts; only an engine error is retried."""
    status: str
    """`ok`; `unquoted` if it quotes nothing of its policy; `refused`; or the reason that it is no
    document, as of completions. Only `ok` is learned."""
    reason: str | None
    """The fault in words; null without one."""
    model: str
    """`name@revision` of the model that wrote it, or the name of the function."""
    num_prompt_tokens: int | None
    """Tokens of the prompt; null if an endpoint did not tell."""
    num_cached_tokens: int | None
    """Tokens of the prompt that the prefix cache served; null if an endpoint did not tell."""
    num_output_tokens: int | None
    """Tokens of the output; null if an endpoint did not tell."""
    run_id: str
    """Id of the run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    spec: str
    """The part of the pack that the generator was shown."""
    text: str
    """The document; what there was of it if it was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePlan:
    """Traces that a run wanted, of one model and one judge."""

    generation_id: str
    """Hash that the traces share."""
    judging_id: str | None
    """Hash that the scores which came with them share; null if the run's own judge judges them."""
    num_judgements: int | None
    """Scores of each trace; null if the run's own judge judges them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One flow run: its recipe, its plan and its outcome."""

    run_id: str
    """Random id of the run."""
    flow: str
    """Name of the flow, such as `refresh`."""
    recipe: str
    """Name of the recipe."""
    status: str
    """`running`, `completed`, `failed`, or `interrupted` by Ctrl-C or SIGTERM; a killed run stays
    at `running`."""
    revision: int
    """Number of earlier records of the run; the highest counts."""
    generation_id: str | None
    """Hash that all completions of the run share; null if it wanted none."""
    judging_id: str | None
    """Hash that all judgements of the run share, or that of all judges of a jury together; null if
    it wanted none."""
    jury: list[str] = field(default_factory=list)
    """Hashes that the judgements of each judge of a jury share, sorted; empty for a lone judge."""
    spec_ids: list[str]
    """Ids of the specs that the run wanted; with generation_id and judging_id they tell which rows
    are current."""
    traces: list[TracePlan] = field(default_factory=list)
    """Traces that the run wanted beside the completions that it generated."""
    num_samples: int
    """Completions per prompt that the run wanted."""
    num_judgements: int
    """Judge samples per completion that the run wanted, of each judge."""
    threshold: float
    """Lowest accepted score of the run, from 0 to 10."""
    set_id: str | None
    """Id of the set of examples that the run froze; null if it froze none."""
    started_at: datetime
    """Start of the run, in UTC."""
    ended_at: datetime | None
    """End of the run, in UTC; null until then."""
    seconds: float
    """Duration of the run in seconds."""
    gpu_hours: float
    """GPU-hours of the stages and trainings of the run."""
    git_commit: str | None
    """Commit of Precept's sources, with `+` if they were changed; null outside a checkout."""
    versions: str
    """Versions of packages, as JSON."""
    resolved_recipe: str
    """The recipe with every default filled in, as JSON."""
    figures: str
    """Counts and findings by part, as JSON; see the view `stage_figures`."""
    error: str | None
    """The exception that ended the run; null without one."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the warehouse: its name, row type and what makes a row unique."""

    name: str
    """Name of the table and of its folder."""
    row: type
    """Class of its rows, whose fields are its columns."""
    key: tuple[str, ...]
    """Columns of which views show each value once."""
    about: "Table | None" = None
    """The table whose rows, by their ids and texts, its rows judge."""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with table and schema version in its metadata."""
        return _schema(self.name, self.row)

    @property
    def replaced_by(self) -> str | None:
        """The column whose highest value replaces earlier rows, if the table has one."""
        return next((name for name in ("attempt", "revision") if name in self.schema.names), None)

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns that distinguish all rows, even of one key; shards are named by them."""
        names = ("attempt", "revision", "version")
        return (*self.key, *(name for name in names if name in self.schema.names))

    @property
    def time_column(self) -> str:
        """The column with the time of a row; of rows with one identity the earliest counts."""
        return "created_at" if "created_at" in self.schema.names else "started_at"


PROMPTS = Table("prompts", Prompt, ("prompt_id",))
SPECS = Table("specs", SpecText, ("spec_id",))
COMPLETIONS = Table("completions", Completion, ("completion_id",))
JUDGEMENTS = Table("judgements", Judgement, ("judgement_id",))
REVIEWS = Table("reviews", Review, ("completion_id", "reviewer"), about=COMPLETIONS)
EXAMPLES = Table("examples", Example, ("set_id", "completion_id"))
CHECKPOINTS = Table("checkpoints", Checkpoint, ("checkpoint_id",))
ROLLOUTS = Table("rollouts", Rollout, ("rollout_id",))
FINDINGS = Table("findings", Finding, ("finding_id",))
CASES = Table("cases", Case, ("suite_version", "case_id"))
ANSWERS = Table("answers", Answer, ("answer_id",))
EVALUATIONS = Table("evaluations", Evaluation, ("evaluation_id",), about=ANSWERS)
EXCHANGES = Table("exchanges", Exchange, ("exchange_id",))
DRAFTS = Table("drafts", Draft, ("draft_id",))
DOCUMENTS = Table("documents", Document, ("document_id",))
RUNS = Table("runs", Run, ("run_id",))
TABLES = {
    table.name: table
    for table in (
        PROMPTS,
        SPECS,
        COMPLETIONS,
        JUDGEMENTS,
        REVIEWS,
        EXAMPLES,
        CHECKPOINTS,
        ROLLOUTS,
        FINDINGS,
        CASES,
        ANSWERS,
        EVALUATIONS,
        EXCHANGES,
        DRAFTS,
        DOCUMENTS,
        RUNS,
    )
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, with the sentence under its field."""

    name: str
    type: str
    """Arrow's name of the type, such as `list<element: string not null>`."""
    nullable: bool
    sentence: str


def columns(table: Table) -> list[Column]:
    """Returns the columns of a table in their order.

    Raises ValueError if the field of one has no sentence under it.
    """
    sentences = _sentences(table.row)
    return [
        Column(field.name, str(field.type), field.nullable, sentences[field.name])
        for field in table.schema
    ]


def _sentences(row: type) -> dict[str, str]:
    """Returns by name the sentence under each field of a class, read from its source."""
    [definition] = ast.parse(inspect.getsource(row)).body
    assert isinstance(definition, ast.ClassDef)
    sentences = {}
    for statement, after in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
            raise ValueError(
                f"column {row.__name__}.{name} has no sentence; write one under the field"
            )
        sentences[name] = " ".join(str(after.value.value).split())
    return sentences


@cache
def _schema(name: str, row: type) -> pa.Schema:
    """Returns the Arrow schema of a row class, one column for each field."""
    hints = get_type_hints(row)
    arrow_fields = [_field(field.name, hints[field.name]) for field in fields(row)]
    return pa.schema(arrow_fields, metadata={"table": name, "schema_version": SCHEMA_VERSION})


def _field(name: str, hint: Any) -> pa.Field:
    """Returns a field of the type of an annotation; it may be null only if that has `None`."""
    options = get_args(hint)
    nullable = type(None) in options and get_origin(hint) is not list
    if nullable:
        hint = next(option for option in options if option is not type(None))
    return pa.field(name, _arrow_type(hint), nullable=nullable)


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) is list:
        return pa.list_(pa.field("element", _arrow_type(get_args(hint)[0]), nullable=False))
    if hasattr(hint, "__dataclass_fields__"):
        hints = get_type_hints(hint)
        return pa.struct([_field(field.name, hints[field.name]) for field in fields(hint)])
    return {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        datetime: pa.timestamp("us", tz="UTC"),
    }[hint]
