"""The commands by which data and models leave: answers as files, folders with cards, the Hub."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows import terminal
from flows.command import Commands, HomeOption, app, reading_from, user_errors

_ANSWER = "answer"


class _Exports(Commands):
    """The commands of `precept export`; any other word is the name of a question."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in (*self.commands, "--help"):
            args = [_ANSWER, *args]
        return super().parse_args(ctx, args)


exports = typer.Typer(
    cls=_Exports,
    no_args_is_help=True,
    help="Writes the answer to a question as a file (`precept export QUESTION FILE`), or a data "
    "set or a checkpoint as a folder that others read.",
    rich_markup_mode="markdown",
)
app.add_typer(exports, name="export")

FormOption = Annotated[
    Literal["trl", "messages", "sharegpt", "star1", "verl"],
    typer.Option(
        "--form",
        help="Layout: `trl` (prompt and completion), `messages` (TRL, one list), `sharegpt`, "
        "`star1`, `verl`.",
    ),
]
ReasoningOption = Annotated[
    Literal["field", "tags", "thinking"] | None,
    typer.Option(
        "--reasoning",
        help="Place of the reasoning: `field` reasoning_content, think `tags` in content, or "
        "field `thinking`. Unset: `field`; `tags` in sharegpt and star1.",
    ),
]
AllPromptsOption = Annotated[
    bool,
    typer.Option(
        "--all-prompts",
        help="All judged prompts in rl_prompts, not only those with accepted and rejected "
        "completions.",
    ),
]
RecipesOption = Annotated[
    list[str] | None,
    typer.Option("--recipe", help="Recipe whose rows leave, if there are several; repeatable."),
]
LicenseOption = Annotated[
    str | None,
    typer.Option("--license", help="Identifier of the licence, such as apache-2.0."),
]
LanguagesOption = Annotated[
    list[str] | None, typer.Option("--language", help="Code of a language; may be repeated.")
]
TitleOption = Annotated[str | None, typer.Option("--title", help="Title of the card.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an export that is there.")]


@exports.command(_ANSWER)
def export_answer(
    question: Annotated[str, typer.Argument(help="A named question, as sft_examples.")],
    out: Annotated[str, typer.Argument(help="A file on .parquet, .jsonl, .json or .csv.")],
    home: HomeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Writes the answer to a named question into one file; the word `answer` may be left out.

    Parquet and JSON hold every value as it is; JSON has null for NaN and the infinities, and bytes
    in base64. CSV is for spreadsheets, not for training: a text that one would run as a formula
    begins with an apostrophe, control characters are written as \\x1b, and lists are JSON.
    """
    with reading_from(home) as place:
        from warehouse.answers import export as write
        from warehouse.catalog import connect

        num_rows = write(connect(place), question, out, replace=force)
        reader = {".jsonl": "json"}.get(Path(out).suffix, Path(out).suffix[1:])
        terminal.lines(
            f"{num_rows} rows of {question} in {out}",
            f'next: datasets.load_dataset("{reader}", data_files={out!r}) in Python',
        )


@exports.command("dataset")
def export_dataset(
    folder: Annotated[str, typer.Argument(help="A new folder.")],
    form: FormOption = "trl",
    reasoning: ReasoningOption = None,
    all_prompts: AllPromptsOption = False,
    recipe: RecipesOption = None,
    license: LicenseOption = None,
    language: LanguagesOption = None,
    title: TitleOption = None,
    force: ForceOption = False,
    home: HomeOption = None,
) -> None:
    """Writes a data set for `datasets.load_dataset`: examples, prompts for RL, preference pairs,
    rejected completions and traces, with a card of computed figures."""
    with reading_from(home) as place:
        from warehouse.exports.dataset import DatasetOptions
        from warehouse.exports.folders import export_dataset as work

        options = DatasetOptions(
            form=form, reasoning=reasoning, all_prompts=all_prompts, recipes=recipe or ()
        )
        exported = work(place, folder, options, _publisher(license, language, title, force))
        _print_exported(exported, folder)


def _print_exported(exported: Any, folder: str) -> None:
    """Prints the rows of each configuration of a data set, and what to do next."""
    for config in exported.configs:
        left = f"; {config.num_left_out} do not fit the form" if config.num_left_out else ""
        terminal.line(f"{config.num_rows:8} rows of {config.name}{left}")
    for name in exported.without_rows:
        terminal.line(f"{0:8} rows of {name}, which is left out")
    name = exported.configs[0].name
    terminal.line(
        f"next: read {shlex.quote(folder)}/README.md; datasets.load_dataset({folder!r}, {name!r}) "
        f"in Python; precept push {shlex.quote(folder)} OWNER/NAME puts it on the Hub"
    )


@exports.command("checkpoint")
def export_checkpoint(
    checkpoint: Annotated[str, typer.Argument(help="Id of a checkpoint, or its start.")],
    folder: Annotated[str, typer.Argument(help="A new folder.")],
    license: LicenseOption = None,
    language: LanguagesOption = None,
    title: TitleOption = None,
    force: ForceOption = False,
    home: HomeOption = None,
) -> None:
    """Writes a checkpoint's model with a card: lineage, evaluation, and the command that serves
    it."""
    with reading_from(home) as place:
        from flows.handover import served
        from warehouse.catalog import connect
        from warehouse.exports.folders import export_checkpoint as work
        from warehouse.lineage import choose_checkpoints
        from warehouse.models import fetch_folder

        connection = connect(place)
        [row] = choose_checkpoints(connection, [checkpoint])
        model = fetch_folder(place, row.path)
        how = served(connection, row, model)
        publisher = _publisher(license, language, title, force)
        work(connection, folder, row, model, served=how, publisher=publisher)
        terminal.lines(
            f"checkpoint {row.checkpoint_id} in {folder}",
            f"next: read {shlex.quote(folder)}/README.md; serve it: {how.command(folder)}",
        )


@app.command()
def push(
    folder: Annotated[str, typer.Argument(help="Folder of an exported data set or checkpoint.")],
    repo: Annotated[str, typer.Argument(help="Repository on the Hugging Face Hub, OWNER/NAME.")],
    public: Annotated[
        bool, typer.Option("--public", help="Show it to everybody. Unset: it is private.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the files of a repository that is there.")
    ] = False,
) -> None:
    """Pushes an export to the Hugging Face Hub, private unless told otherwise.

    The token is that of `$HF_TOKEN` or of `hf auth login`.
    """
    with user_errors():
        from tasks.hub import push as work
        from warehouse.exports.folders import kind_of

        kind = kind_of(folder)
        repo_type: Literal["dataset", "model"] = "model" if kind == "checkpoint" else "dataset"
        pushed = work(folder, repo, repo_type=repo_type, public=public, replace=force)
        seen = "public" if pushed.is_public else "private"
        terminal.line(f"{kind} {folder} is at {pushed.url} ({seen})")


def _publisher(
    license: str | None, languages: list[str] | None, title: str | None, force: bool
) -> Any:
    """Returns what the user says of an export, with the command as it was given."""
    from tasks.paths import PROJECT
    from warehouse.exports.folders import Publisher

    shown = ((str(PROJECT), "."), (str(Path.cwd()), "."), (str(Path.home()), "~"))
    return Publisher(
        command=shlex.join(["precept", *sys.argv[1:]]),
        license=license,
        languages=languages or (),
        title=title,
        folders=shown,
        replace=force,
    )
