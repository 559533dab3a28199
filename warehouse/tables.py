"""The data model on one page: row types, their Arrow schemas and how rows are named.

A row's id is the hash of what defines it, never of how it was run. Each row class is a table; its
Arrow schema follows from the annotations, is fixed, and its version is written into every shard.
What is read most stands first; long text stands last.
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
    """The id of a row made of these parts: 32 hex digits of the SHA-256 of their `|`-join.

    DuckDB computes the same: `left(sha256(concat_ws('|', …)), 32)`.
    """
    text = "|".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def text_id(reasoning: str, answer: str) -> str:
    """What names the text that votes are about: a row that was lost and made again under the same
    id says something else."""
    return content_id(len(reasoning), reasoning, answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantTurn:
    """The turn that is trained on, with the keys that chat templates know."""

    role: str
    content: str
    reasoning_content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A chat that ends on a user turn."""

    prompt_id: str
    """Hash of the canonical messages."""
    categories: list[str]
    """Policy categories, sorted; one for most prompts."""
    status: str = "ok"
    """`ok`; `unassigned` where the judge found no category; or why it could not be asked."""
    ideal_response: str | None
    """`comply`, `refuse`, `safe_complete`, or null where nobody said."""
    source: str
    """Name of the source in the recipe it came from."""
    split: str
    """`train`, or the name of an evaluation set."""
    language: str
    transform: str | None
    """How the text was changed (an encoding, an attack), null where it was not."""
    metadata: list[str]
    """Findings of others that a judge may be shown: "the ideal response is refuse"."""
    revision: int = 0
    """Counts from 0, one more when something else is said of the prompt; the highest counts."""
    version: str = ""
    """Hash of what is said of the prompt: all of the above but its id."""
    created_at: datetime
    messages: list[Turn]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecText:
    """One compiled spec(category) as a model was shown it."""

    spec_id: str
    """Hash of the text: the spec version."""
    pack: str
    pack_version: str
    categories: list[str]
    detail: str
    """`full` or `summary`."""
    rule_ids: list[str]
    """Rules the text holds in full."""
    created_at: datetime
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One sample of the generator: reasoning and answer apart, or why there is none."""

    completion_id: str
    """Hash of prompt, spec, template, model, sampling and sample index."""
    text_id: str
    """Hash of reasoning and answer."""
    prompt_id: str
    spec_id: str
    generation_id: str
    """Hash of what all samples of a run share: template, model@revision, sampling."""
    sample_index: int
    attempt: int
    """Counts from 0; a row is tried again only after an engine error."""
    status: str
    """`ok`, or truncated, unclosed, malformed, empty_answer, empty_reasoning, too_long, error."""
    reason: str | None
    """What went wrong, in words; null where nothing did."""
    finish_reason: str | None
    model: str
    """Model id and revision, `name@revision`."""
    num_prompt_tokens: int
    num_cached_tokens: int
    num_reasoning_tokens: int
    num_answer_tokens: int
    cited: list[str]
    cited_unknown: list[str]
    """Rule ids cited that no rule has."""
    run_id: str
    created_at: datetime
    answer: str
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One sample of the judge. Where no score could be read it is null, never 0."""

    judgement_id: str
    """Hash of completion and its text, spec, judge model, template, sampling and sample index."""
    completion_id: str
    text_id: str
    """The completion's, when it was judged."""
    spec_id: str
    judging_id: str
    """Hash of what all samples of a run share: template, model@revision, sampling, view."""
    sample_index: int
    attempt: int
    status: str
    """`ok`, or no_verdict, off_scale, refused, unclosed, truncated, too_long, error."""
    reason: str | None
    score: float | None
    agrees: bool | None
    """The judge's stand on the prompt's metadata, where it was shown some."""
    saw_reasoning: bool
    model: str
    finish_reason: str | None
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    run_id: str
    created_at: datetime
    rationale: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One accepted completion in a frozen set, and why it was chosen or left out.

    What is chosen is a training row. The spec is not in it.
    """

    set_id: str
    """Fingerprint of the frozen set the row belongs to."""
    completion_id: str
    prompt_id: str
    status: str
    """`chosen` or `left_out`."""
    reason: str
    """Why: `best of n`, or uncited, cites_unknown, dangling, not_best, balance."""
    categories: list[str]
    ideal_response: str | None
    spec_id: str
    """The version of the spec it was made and judged under."""
    score: float
    """The lowest judge score."""
    scores: list[float]
    cited: list[str]
    run_id: str
    created_at: datetime
    prompt: list[Turn]
    completion: list[AssistantTurn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One trained model: what it began from, what it learned from, where it lies."""

    checkpoint_id: str
    """Hash of stage, configuration, data and parent."""
    revision: int = 0
    """Counts from 0, one more when a training that had stopped early has gone on; the highest
    counts."""
    stage: str
    """`sft`, `rl` or `dpo`."""
    status: str
    """`completed`; `stopped` where judging was down, and it can go on; or `collapsed`."""
    reason: str | None
    """Why it ended before its last step, if it did."""
    model: str
    """`name@revision` of the trained model, as on the rows that it makes."""
    parent: str
    """`name@revision` of the model it began from."""
    parent_id: str | None
    """The checkpoint it began from; null where that is a model from elsewhere."""
    set_id: str | None
    """The set of examples it learned from, where it learned from one."""
    data_fingerprint: str
    num_rows: int
    num_steps: int
    recipe: str
    run_id: str
    git_commit: str | None
    seconds: float
    created_at: datetime
    path: str
    """The folder of the model, from the home on."""
    config: str
    """The configuration of the stage as JSON."""
    metrics: str
    """Last and best metrics of the training as JSON."""


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
    position: int
    attempt: int
    """How often the training had begun anew; a step that is done again replaces its rollouts."""
    prompt_id: str
    spec_id: str
    kind: str
    """`harmful`, `benign` or `ambiguous`: which reward it has."""
    status: str
    """`ok`, or truncated, unclosed, malformed, empty_answer, empty_reasoning."""
    reward: float | None
    """Null where the judge failed; never 0 for that."""
    reason: str | None
    """Why there is no reward."""
    compliance: list[float]
    """Votes that were read, 0 to 10."""
    helpfulness: list[float]
    """The same for helpfulness, where it was asked for."""
    num_votes: int
    """Votes asked for, of each kind."""
    num_reasoning_tokens: int
    num_answer_tokens: int
    run_id: str
    created_at: datetime
    answer: str
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure of a graded answer; null where it could not be had."""

    name: str
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One prompt of a suite as it is asked: bare, or under an attack."""

    suite_version: str
    """Hash of the ids of all cases of the suite and what is said of them."""
    case_id: str
    """Hash of the messages as asked and of how they came about; the same in every suite version."""
    suite: str
    prompt_id: str
    """The prompt before the attack."""
    attack: str
    """`none`, or the name of the attack."""
    attack_version: str
    seed: int
    sanitised: bool
    """Whether special tokens in the text are broken, as they should be; false for a model behind an
    interface that lets users forge them."""
    categories: list[str]
    ideal_response: str | None
    language: str
    transform: str | None
    label: str | None
    """The suite's own class of the prompt, null where it has none."""
    target: str | None
    """The gold answer, null where there is none."""
    grading_context_id: str
    """Hash of all that graders are told of the case; what it names is graded anew where it
    changes."""
    created_at: datetime
    messages: list[Turn]
    """As asked."""
    original: list[Turn]
    """Before the attack: what graders are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of a model to a case."""

    answer_id: str
    """Hash of case, model, answering_id, sample index and the spec of its category, if shown."""
    text_id: str
    """Hash of reasoning and answer."""
    case_id: str
    checkpoint_id: str | None
    """Null for a model from elsewhere."""
    model: str
    answering_id: str
    """Hash of what all answers of an arm share: sampling, context, reasoning budget, probe."""
    context: str
    """What of the policies stood in the prompt: `none`, `summary` or `category`."""
    spec_id: str | None
    """The spec version that stood there; null for none."""
    budget: int | None
    """Most tokens of reasoning, after which it is closed; null where it was left alone."""
    probe: str
    """`none`, or what was done to the reasoning: `kept`, `truncated`, `swapped`, `edited`."""
    sample_index: int
    attempt: int
    """Counts from 0; a row is tried again only after an engine error."""
    status: str
    """`ok`, or why there is no answer, as of completions."""
    reason: str | None
    finish_reason: str | None
    decision: str | None
    """The outcome that the reasoning settles on, null where it names none."""
    cited: list[str]
    cited_unknown: list[str]
    """Rule ids cited that no rule has."""
    closed_by_force: bool
    """Whether the budget ended the reasoning."""
    num_prompt_tokens: int
    num_reasoning_tokens: int
    num_answer_tokens: int
    run_id: str
    created_at: datetime
    answer: str
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One vote of one grader on one answer, always on the prompt before the attack."""

    evaluation_id: str
    """Hash of answer and its text, grading_id, what was shown and told, and the number of the
    vote."""
    answer_id: str
    text_id: str
    """The answer's, when it was graded."""
    grading_id: str
    """Hash of the grader: its function, or template, model, sampling and what it saw."""
    grader: str
    """The grader's name in the recipe."""
    saw: str
    """`answer` or `answer+reasoning`."""
    sample_index: int
    attempt: int
    """Counts from 0; a vote that could not be read is asked for again within a budget."""
    status: str
    """`ok`, or why there is no vote, as of judgements."""
    reason: str | None
    model: str | None
    """The grader's `name@revision`; null for a function."""
    template_id: str | None
    spec_id: str | None
    """The spec version that the grader was shown, if any."""
    grading_context_id: str
    """What it was told of the case: the case's."""
    scores: list[Score]
    """From 0 to 1; null where the vote could not be read."""
    num_output_tokens: int
    run_id: str
    created_at: datetime
    rationale: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One exchange of a multi-turn attack: what the attacker said, and what the model answered."""

    exchange_id: str
    """Hash of model, attack and prompt, and of the place in the tree."""
    parent_id: str | None
    """The exchange before it; null for the first."""
    prompt_id: str
    """What the attack is to bring about."""
    checkpoint_id: str | None
    model: str
    attacking_id: str
    """Hash of attacker, search, sampling and scorer."""
    suite: str
    turn: int
    """Counts from 1."""
    branch: int
    """Which of the attacker's proposals it is; from 0."""
    attempt: int
    """Counts from 0; a tree is grown again after an engine error."""
    status: str
    """`ok`, or why there is no answer, as of completions; `no_proposal` ends a tree whose attacker
    has nothing more to say."""
    reason: str | None
    harm: float | None
    """What the search was told of the answer, 0 to 1; null where it could not be scored."""
    num_answer_tokens: int
    run_id: str
    created_at: datetime
    message: str
    answer: str
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One flow run: what was asked for, with what, and what it came to."""

    run_id: str
    flow: str
    recipe: str
    status: str
    """`running`, `completed` or `failed`."""
    revision: int
    """Revision of this record; 0 at the start of the run, and the highest counts."""
    generation_id: str | None
    judging_id: str | None
    spec_ids: list[str]
    """What the run wanted: with generation and judging id, the rows that are current."""
    num_samples: int
    num_judgements: int
    threshold: float
    set_id: str | None
    """The set of examples that the run froze."""
    started_at: datetime
    ended_at: datetime | None
    seconds: float
    gpu_hours: float
    git_commit: str | None
    versions: str
    """Package versions as JSON."""
    resolved_recipe: str
    """The recipe with every default filled in, as JSON."""
    figures: str
    """Counts, tokens, cache hits and rates of every stage as JSON."""
    error: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the warehouse: its name, row type and what makes a row unique."""

    name: str
    row: type
    key: tuple[str, ...]
    about: "Table | None" = None
    """The table whose texts its rows are votes about."""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with table and schema version in its metadata."""
        return _schema(self.name, self.row)

    @property
    def replaced_by(self) -> str | None:
        """The column whose highest value replaces the rows before it, if the table has one."""
        return next((name for name in ("attempt", "revision") if name in self.schema.names), None)

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells rows apart, also those of one key: what shards are named by."""
        names = ("attempt", "revision", "version")
        return (*self.key, *(name for name in names if name in self.schema.names))

    @property
    def time_column(self) -> str:
        """When a row was made: of rows that are the same, the first one counts."""
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
