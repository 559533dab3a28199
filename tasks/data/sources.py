"""Sources of prompts: where they lie, and the meaning of their columns."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from specs.policy import Outcome
from tasks import Config
from tasks.data.columns import top_column
from tasks.paths import Located, LocatedFolder

Role = Literal["system", "user", "assistant", "tool"]
"""The roles of a chat as every model is shown them."""

USUAL_COLUMNS = ("messages", "prompt", "conversations", "conversation")
"""The columns in which prompts are looked for, in this order, where a source names none."""

TOOL_COLUMNS = ("tools", "functions")
"""The columns in which data sets list the tools of a chat."""

BESIDE_CHAT = (*TOOL_COLUMNS, "system", "system_prompt")
"""The columns that belong to a chat, and are shown to a model only where `system` names them."""

_EXCLUSIVE = (
    ("prompt", "messages"),
    ("prompt", "turns"),
    ("messages", "turns"),
    ("category", "categories"),
    ("ideal_response", "ideal_response_value"),
    ("path", "dataset_config"),
    ("path", "revision"),
    ("dataset", "delimiter"),
    ("dataset", "skip_lines"),
)
"""Pairs of keys of which a source may set one at most."""
_NEEDS = {
    "category_map": ("category",),
    "ideal_response_map": ("ideal_response",),
    "label_as_metadata": ("ideal_response", "ideal_response_value"),
}
"""Keys that need one of these others: without it they would have no effect."""


class SourceConfig(Config):
    """A source of prompts: its files or data set, and the meaning of its columns. A column within
    another is named with dots, as `instances.0.input`; a CSV column without a name is `column_N`,
    counted from 1."""

    name: str = Field(min_length=1)
    """Name of the source in rows, counts and messages."""
    path: Located | None = None
    """A file, folder or glob of CSV, TSV, JSON, JSONL or Parquet, each also packed as .gz, .zst,
    .bz2 or .xz; on this machine or on a store, as `s3://bucket/folder` or `hf://datasets/owner/name`.
    Unset: `dataset`."""
    dataset: LocatedFolder | None = None
    """A data set on Hugging Face, or a local folder that `datasets` can read. Unset: `path`."""
    dataset_config: str | None = None
    """Configuration of the data set. Unset: its only one."""
    dataset_split: str = "train"
    """Split of the data set."""
    revision: str | None = None
    """Commit of the data set; pin it, so that the same rows are read again. Unset: the newest."""
    rows_key: str | None = None
    """Key of a JSON object that holds the rows. Unset: its only key that holds a list."""
    delimiter: str | None = Field(None, pattern=r'^[^"\r\n]$')
    """Character between the columns of CSV. Unset: a comma; in .tsv files a tab."""
    skip_lines: int = Field(0, ge=0)
    """Lines before the header of CSV."""
    max_row_bytes: int = Field(8_388_608, gt=0)
    """Longest row of a file, in bytes; a longer one is refused with its line."""
    prompt: str | list[str] | dict[str, str] | None = None
    """Column with the text of a single prompt; or columns whose texts are joined by blank lines,
    without those that are empty; or a table from languages to columns, which makes each row a
    prompt in every language. Unset: `prompt`, if there is no `messages`."""
    messages: str | None = None
    """Column with a chat, a list of role and content or of from and value. A chat that ends on the
    assistant is asked up to its last user turn. Unset: `messages`, `conversations` or
    `conversation`, if there is one."""
    turns: list[str] = []
    """Columns with the user's turns, in their order, each a text or a list of texts; empty ones are
    left out."""
    system: str | list[str] | None = None
    """Column with a system message that comes before the prompt; or columns whose texts are joined
    by blank lines; none where all are empty. Tools that are named in a column are shown so too."""
    role_map: dict[str, Role] = {}
    """From the source's roles to a chat's; case does not count. `developer`, `human`, `gpt`, `bot`,
    `model`, `function` and `observation` are known."""
    category: str | None = None
    """Column with the category of a prompt, or with a list of categories, also as text in the
    manner of JSON or Python."""
    categories: list[str] = []
    """Categories of every prompt of the source, instead of a column."""
    category_map: dict[str, str] = {}
    """From the source's labels to the pack's categories; "" leaves the rows of a label out."""
    assign_category: bool = False
    """Let the judge model choose the category of prompts that have none the pack knows."""
    ideal_response: str | None = None
    """Column with the ideal response: comply, refuse or safe_complete; of a list, the first label
    that says one."""
    ideal_response_map: dict[str, Literal["comply", "refuse", "safe_complete", ""]] = {}
    """From the source's labels to ideal responses; "" if a label does not say."""
    ideal_response_value: Outcome | None = None
    """Ideal response to every prompt of the source, instead of a column."""
    language: str | None = None
    """Language of prompts for which no column gives one. Unset: `en`, which no exported data set
    claims."""
    language_column: str | None = None
    """Column with the language."""
    transform: str | None = None
    """Column with the change that was made to the text: an encoding, an attack."""
    metadata: list[str] = []
    """Columns with findings that a judge may be shown; each value is one finding."""
    label_as_metadata: bool = False
    """Make the ideal response a finding as well: "the ideal response is refuse"."""
    keep: list[str] = []
    """Further columns, for a suite: gold answers, classes, the prompt before an attack."""
    split: str = "train"
    """`train`, or the name of an evaluation set."""
    limit: int | None = Field(None, gt=0)
    """Rows to read. Unset: all."""

    @model_validator(mode="after")
    def _check(self) -> "SourceConfig":
        if (self.path is None) == (self.dataset is None):
            given = "neither" if self.path is None else "both"
            raise ValueError(f"source {self.name!r} has {given}: give it either path or dataset")
        for key, other in _EXCLUSIVE:
            if getattr(self, key) and getattr(self, other):
                raise ValueError(
                    f"source {self.name!r} has both {key} and {other}: leave one of them out"
                )
        if isinstance(self.prompt, dict) and self.language_column:
            raise ValueError(
                f"source {self.name!r} has languages in prompt and language_column: leave one of "
                "them out"
            )
        for key, needed in _NEEDS.items():
            if getattr(self, key) and not any(getattr(self, name) for name in needed):
                raise ValueError(
                    f"source {self.name!r} has {key} without {needed[0]}: add {needed[0]}"
                )
        return self

    @property
    def text_columns(self) -> list[str]:
        """The columns named for the text of prompts. Empty: the usual ones are looked for."""
        if self.messages or self.turns:
            return [self.messages] if self.messages else self.turns
        if isinstance(self.prompt, dict):
            return list(self.prompt.values())
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt or [])

    @property
    def system_columns(self) -> list[str]:
        """The columns named for the system message."""
        return [self.system] if isinstance(self.system, str) else list(self.system or [])

    @property
    def roles(self) -> dict[str, str]:
        """The role map with its keys case-folded."""
        return {name.strip().casefold(): role for name, role in self.role_map.items()}

    @property
    def kept_columns(self) -> list[str]:
        """The columns whose values candidates carry."""
        return self.keep

    @property
    def columns(self) -> list[str]:
        """The columns that the source must have."""
        named = (
            *self.text_columns,
            *self.system_columns,
            self.category,
            self.ideal_response,
            self.language_column,
            self.transform,
            *self.metadata,
            *self.kept_columns,
        )
        return list(dict.fromkeys(name for name in named if name))

    def needed(self, columns: Sequence[str]) -> list[str]:
        """Returns those of a file's columns that are read."""
        usual = () if self.text_columns else USUAL_COLUMNS
        named = {*self.columns, *usual, *BESIDE_CHAT}
        tops = {top_column(name) for name in named}
        return [name for name in columns if name in named or name in tops]
