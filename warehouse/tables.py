"""The data model on one page: row types, their Arrow schemas and the ids of rows.

A row's id is the hash of what defines it, never of how it was run. Each row class is a table; its
Arrow schema follows from the annotations, is fixed, and its version is written into every shard.
Frequently read columns come first, long texts last. The sentence under a field describes its column
in warehouse/README.md.
"""

import hashlib
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa

SCHEMA_VERSION = "3"
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
    """Policy categories, sorted; one for most prompts."""
    status: str = "ok"
    """`ok`; `unassigned` if the judge found no category; or the engine's fault when it was
    asked."""
    ideal_response: str | None
    """`comply`, `refuse`, `safe_complete`, or null if nobody said."""
    source: str
    """Name of the source in the recipe."""
    split: str
    """`train`, or the name of an evaluation set."""
    language: str
    """Language of the text."""
    transform: str | None
    """Change that was made to the text (an encoding, an attack); null without one."""
    metadata: list[str]
    """Findings of others that a judge may be shown: "the ideal response is refuse"."""
    revision: int = 0
    """Number of times that the labels of the prompt have changed; the highest counts."""
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
    """Hash of the text: the spec version."""
    pack: str
    """Id of the policy pack."""
    pack_version: str
    """Version of the pack, as its style.md says."""
    categories: list[str]
    """Categories that the text holds in full."""
    detail: str
    """`full` or `summary`."""
    rule_ids: list[str]
    """Rules that the text holds in full."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    text: str
    """The text that a model was shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sample of the generator: reasoning and answer apart, or why there is none."""

    completion_id: str
    """Hash of prompt, spec, template, model, sampling and sample index."""
    text_id: str
    """Hash of reasoning and answer. Judgements carry it, so a regenerated row is judged again."""
    prompt_id: str
    """The prompt."""
    spec_id: str
    """The spec that stood before the prompt."""
    generation_id: str
    """Hash of what all completions of a run share: template, model@revision, sampling."""
    sample_index: int
    """Number of the sample among those of its kind; from 0."""
    attempt: int
    """Number of the attempt; from 0. Only an engine error is tried again."""
    status: str
    """`ok`, or truncated, unclosed, malformed, empty_answer, empty_reasoning, too_long, error."""
    reason: str | None
    """The fault in words; null without one."""
    finish_reason: str | None
    """The engine's reason for the end of the output: `stop` or `length`; null without an output."""
    model: str
    """`name@revision` of the generator."""
    num_prompt_tokens: int
    """Tokens of the prompt."""
    num_cached_tokens: int
    """Tokens of the prompt that the prefix cache served."""
    num_reasoning_tokens: int
    """Tokens of the reasoning."""
    num_answer_tokens: int
    """Tokens of the answer."""
    cited: list[str]
    """Rule ids that the reasoning cites, in order of first mention."""
    cited_unknown: list[str]
    """Rule ids that the reasoning cites and no rule has."""
    run_id: str
    """The run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    answer: str
    """Text that the user sees; empty without a usable output."""
    reasoning: str
    """Text before the answer; what there was of it if it was never closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One sample of the judge. Where no score could be read it is null, never 0."""

    judgement_id: str
    """Hash of completion and its text, spec, judge model, template, sampling and sample index."""
    completion_id: str
    """The completion."""
    text_id: str
    """Hash of the text that was judged: the completion's at that time."""
    spec_id: str
    """The spec that the judge was shown."""
    judging_id: str
    """Hash of what all judgements of a run share: template, model@revision, sampling, view."""
    sample_index: int
    """Number of the sample among those of its kind; from 0."""
    attempt: int
    """Number of the attempt; from 0. An error or an unread score is tried again within a budget."""
    status: str
    """`ok`, or no_verdict, off_scale, refused, unclosed, truncated, too_long, error."""
    reason: str | None
    """The reason that there is no score; null if there is one."""
    score: float | None
    """Score from 0 to 10; null if it could not be read."""
    agrees: bool | None
    """Whether the judge agreed with the prompt's metadata; null if it was shown none or did not
    say."""
    saw_reasoning: bool
    """Whether the judge was shown the reasoning."""
    model: str
    """`name@revision` of the judge."""
    finish_reason: str | None
    """The engine's reason for the end of the output: `stop` or `length`; null without an output."""
    num_prompt_tokens: int
    """Tokens of the prompt."""
    num_cached_tokens: int
    """Tokens of the prompt that the prefix cache served."""
    num_output_tokens: int
    """Tokens of the output."""
    run_id: str
    """The run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    rationale: str
    """The judge's words before the score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One accepted completion in a frozen set, and why it was chosen or left out.

    What is chosen is a training row. The spec is not in it.
    """

    set_id: str
    """Fingerprint of the frozen set."""
    completion_id: str
    """The completion."""
    prompt_id: str
    """The prompt."""
    status: str
    """`chosen` or `left_out`."""
    reason: str
    """`best of n`, or uncited, cites_unknown, dangling, not_best, balance; preferred or
    dispreferred in a set of pairs."""
    categories: list[str]
    """Policy categories, sorted."""
    ideal_response: str | None
    """`comply`, `refuse`, `safe_complete`, or null if nobody said."""
    spec_id: str
    """The spec that the completion was made and judged under."""
    score: float
    """Lowest judge score, from 0 to 10."""
    scores: list[float]
    """All judge scores, in the order of the samples."""
    cited: list[str]
    """Rule ids that the reasoning cites, in order of first mention."""
    run_id: str
    """The run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    prompt: list[Turn]
    """The chat that is trained on, without any spec."""
    completion: list[AssistantTurn]
    """The assistant turn that is learned: reasoning and answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One trained model: what it began from, what it learned from, where it lies."""

    checkpoint_id: str
    """Hash of stage, configuration, data and parent."""
    revision: int = 0
    """Number of times that a stopped training has gone on; the highest counts."""
    stage: str
    """`sft`, `dpo` or `rl`."""
    status: str
    """`completed`; `stopped`, and it can go on; `collapsed`, and it must not."""
    reason: str | None
    """The reason that the training ended before its last step; null if it did not."""
    model: str
    """`name@revision` of the trained model, as on the rows that it makes."""
    parent: str
    """`name@revision` of the model that it began from."""
    parent_id: str | None
    """The checkpoint that it began from; null for a model from elsewhere."""
    set_id: str | None
    """The set of examples that it learned from; null in reinforcement learning."""
    data_fingerprint: str
    """Hash of the data that it learned from."""
    num_rows: int
    """Rows that it learned from."""
    num_steps: int
    """Optimiser steps that were done."""
    recipe: str
    """Name of the recipe."""
    run_id: str
    """The run that made the row."""
    git_commit: str | None
    """Commit of Precept's sources, with `+` if they were changed; null outside a checkout."""
    seconds: float
    """Duration in seconds."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    path: str
    """Folder of the model, relative to the warehouse."""
    config: str
    """Configuration of the stage, as JSON."""
    metrics: str
    """Metrics of the training as JSON: the `last` of each, and the `log` of all steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One answer that a model in training gave, its votes and its reward."""

    rollout_id: str
    """Hash of checkpoint, step, rank and position in the batch."""
    checkpoint_id: str
    """The checkpoint that the training leads to."""
    step: int
    """Optimiser steps done before; from 0."""
    rank: int
    """Number of the training worker; from 0."""
    position: int
    """Place in the worker's batch; from 0."""
    attempt: int
    """Number of times that the training had begun anew; a repeated step replaces its rollouts."""
    prompt_id: str
    """The prompt."""
    spec_id: str
    """The spec that the judge was shown."""
    kind: str
    """`harmful`, `benign` or `ambiguous`: the reward that the prompt has."""
    status: str
    """`ok`, or truncated, unclosed, malformed, empty_answer, empty_reasoning."""
    reward: float | None
    """Reward from 0 to 1; null if the judge failed, never 0 for that."""
    reason: str | None
    """The reason that there is no reward; null if there is one."""
    compliance: list[float]
    """Scores of compliance that could be read, from 0 to 10."""
    helpfulness: list[float]
    """Scores of helpfulness that could be read, from 0 to 10; empty if it was not asked for."""
    num_votes: int
    """Judge samples asked for, of each kind."""
    num_reasoning_tokens: int
    """Tokens of the reasoning."""
    num_answer_tokens: int
    """Tokens of the answer."""
    run_id: str
    """The run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    answer: str
    """Text that the user sees; empty without a usable output."""
    reasoning: str
    """Text before the answer; what there was of it if it was never closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure of a graded answer; null where it could not be had."""

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
    """Hash of the messages as asked and of how they came about; the same in every suite version."""
    suite: str
    """Name of the suite."""
    prompt_id: str
    """The prompt before the attack."""
    attack: str
    """`none`, or the name of the attack."""
    attack_version: str
    """Version of the attack; `file` if the source held the attacked prompt."""
    seed: int
    """Seed of the attack."""
    sanitised: bool
    """Whether special tokens in the text are broken, as they should be; false for a model behind an
    interface that lets users forge them."""
    categories: list[str]
    """Policy categories, sorted."""
    ideal_response: str | None
    """`comply`, `refuse`, `safe_complete`, or null if nobody said."""
    language: str
    """Language of the prompt."""
    transform: str | None
    """Change that was made to the text (an encoding); null without one."""
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
    """The case."""
    checkpoint_id: str | None
    """The checkpoint that answered; null for a model from elsewhere."""
    model: str
    """`name@revision` of the model that answered."""
    answering_id: str
    """Hash of what all answers of an arm share: sampling, context, reasoning budget, probe."""
    context: str
    """Policies in the prompt: `none`, `summary` or `category`."""
    spec_id: str | None
    """The spec that stood in the prompt; null without one."""
    budget: int | None
    """Most tokens of reasoning, after which it is closed; null without a limit."""
    probe: str
    """`none`, or what was done to the reasoning: `kept`, `truncated`, `swapped`, `edited`."""
    sample_index: int
    """Number of the sample among those of its kind; from 0."""
    attempt: int
    """Number of the attempt; from 0. Only an engine error is tried again."""
    status: str
    """`ok`, or the reason that there is no answer, as of completions."""
    reason: str | None
    """The fault in words; null without one."""
    finish_reason: str | None
    """The engine's reason for the end of the output: `stop` or `length`; null without an output."""
    decision: str | None
    """The outcome that the reasoning settles on; null if it names none."""
    cited: list[str]
    """Rule ids that the reasoning cites, in order of first mention."""
    cited_unknown: list[str]
    """Rule ids that the reasoning cites and no rule has."""
    closed_by_force: bool
    """Whether the budget ended the reasoning."""
    num_prompt_tokens: int
    """Tokens of the prompt."""
    num_reasoning_tokens: int
    """Tokens of the reasoning."""
    num_answer_tokens: int
    """Tokens of the answer."""
    run_id: str
    """The run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    answer: str
    """Text that the user sees; empty without a usable output."""
    reasoning: str
    """Text before the answer; what there was of it if it was never closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One vote of one grader on one answer, always on the prompt before the attack."""

    evaluation_id: str
    """Hash of answer and its text, grading_id, sample index, spec and grading context."""
    answer_id: str
    """The answer."""
    text_id: str
    """Hash of the text that was graded: the answer's at that time."""
    grading_id: str
    """Hash of the grader: its version, or template, model, sampling and what it saw."""
    grader: str
    """Name of the grader in the recipe."""
    saw: str
    """`answer` or `answer+reasoning`."""
    sample_index: int
    """Number of the sample among those of its kind; from 0."""
    attempt: int
    """Number of the attempt; from 0. A grade that could not be read is asked for again within a
    budget."""
    status: str
    """`ok`, or the reason that there is no grade, as of judgements."""
    reason: str | None
    """The fault in words; null without one."""
    model: str | None
    """`name@revision` of the grader; null for a function."""
    template_id: str | None
    """Version of the template that the grader was shown; null for a function."""
    spec_id: str | None
    """The spec that the grader was shown; null without one."""
    grading_context_id: str
    """Hash of what the grader saw of the case: the case's."""
    scores: list[Score]
    """Scores by name, from 0 to 1; null if the grade could not be read."""
    num_output_tokens: int
    """Tokens of the output."""
    run_id: str
    """The run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    rationale: str
    """The grader's words before its scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One exchange of a multi-turn attack: what the attacker said, and what the model answered."""

    exchange_id: str
    """Hash of model, attack and prompt, and of the place in the tree."""
    parent_id: str | None
    """The exchange before it; null for the first."""
    prompt_id: str
    """The goal of the attack."""
    checkpoint_id: str | None
    """The checkpoint that was attacked; null for a model from elsewhere."""
    model: str
    """`name@revision` of the model that was attacked."""
    attacking_id: str
    """Hash of attacker, search, sampling and scorer."""
    suite: str
    """Name of the suite whose prompts are attacked."""
    turn: int
    """Number of the turn; from 1."""
    branch: int
    """Number of the attacker's proposal; from 0."""
    attempt: int
    """Number of the attempt; from 0. A tree is grown again after an engine error."""
    status: str
    """`ok`, or the reason that there is no answer, as of completions; `no_proposal` ends a tree
    whose attacker has nothing more to say."""
    reason: str | None
    """The fault in words; null without one."""
    harm: float | None
    """Harm of the answer for the search, from 0 to 1; null if it could not be scored."""
    num_answer_tokens: int
    """Tokens of the answer."""
    run_id: str
    """The run that made the row."""
    created_at: datetime
    """Time at which the row was made, in UTC."""
    message: str
    """Text of the attacker."""
    answer: str
    """Text that the user sees; empty without a usable output."""
    reasoning: str
    """Text before the answer; what there was of it if it was never closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One flow run: what was asked for, with what, and what it came to."""

    run_id: str
    """Random id of the run."""
    flow: str
    """Name of the flow, such as `refresh`."""
    recipe: str
    """Name of the recipe."""
    status: str
    """`running`, `completed` or `failed`; a killed run stays at `running`."""
    revision: int
    """Revision of this record; 0 at the start of the run, and the highest counts."""
    generation_id: str | None
    """What all completions of the run share; null if it wanted none."""
    judging_id: str | None
    """What all judgements of the run share; null if it wanted none."""
    spec_ids: list[str]
    """Specs that the run wanted: with generation_id and judging_id they say which rows are
    current."""
    num_samples: int
    """Completions per prompt that the run wanted."""
    num_judgements: int
    """Judge samples per completion that the run wanted."""
    threshold: float
    """Lowest accepted score of the run, from 0 to 10."""
    set_id: str | None
    """The set of examples that the run froze; null if it froze none."""
    started_at: datetime
    """Start of the run, in UTC."""
    ended_at: datetime | None
    """End of the run, in UTC; null until then."""
    seconds: float
    """Duration in seconds."""
    gpu_hours: float
    """GPUs times hours of its stages and trainings."""
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
    row: type
    key: tuple[str, ...]
    about: "Table | None" = None
    """The table whose texts its rows judge."""

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
        """The columns that tell all rows apart, also those of one key; shards are named by them."""
        names = ("attempt", "revision", "version")
        return (*self.key, *(name for name in names if name in self.schema.names))

    @property
    def time_column(self) -> str:
        """The column with the time of a row: of equal rows the first one counts."""
        return "created_at" if "created_at" in self.schema.names else "started_at"


PROMPTS = Table("prompts", Prompt, ("prompt_id",))
SPECS = Table("specs", SpecText, ("spec_id",))
COMPLETIONS = Table("completions", Completion, ("completion_id",))
JUDGEMENTS = Table("judgements", Judgement, ("judgement_id",), about=COMPLETIONS)
EXAMPLES = Table("examples", Example, ("set_id", "completion_id"))
CHECKPOINTS = Table("checkpoints", Checkpoint, ("checkpoint_id",))
ROLLOUTS = Table("rollouts", Rollout, ("rollout_id",))
CASES = Table("cases", Case, ("suite_version", "case_id"))
ANSWERS = Table("answers", Answer, ("answer_id",))
EVALUATIONS = Table("evaluations", Evaluation, ("evaluation_id",), about=ANSWERS)
EXCHANGES = Table("exchanges", Exchange, ("exchange_id",))
RUNS = Table("runs", Run, ("run_id",))
TABLES = {
    table.name: table
    for table in (
        PROMPTS,
        SPECS,
        COMPLETIONS,
        JUDGEMENTS,
        EXAMPLES,
        CHECKPOINTS,
        ROLLOUTS,
        CASES,
        ANSWERS,
        EVALUATIONS,
        EXCHANGES,
        RUNS,
    )
}


@cache
def _schema(name: str, row: type) -> pa.Schema:
    hints = get_type_hints(row)
    columns = [_field(field.name, hints[field.name]) for field in fields(row)]
    return pa.schema(columns, metadata={"table": name, "schema_version": SCHEMA_VERSION})


def _field(name: str, hint: Any) -> pa.Field:
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
