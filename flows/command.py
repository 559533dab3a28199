"""The frame of every command of `precept`: options, recipe, warehouse, and the word on a mistake.

Heavy libraries are imported inside what needs them, so that `--help` is instant.
"""

import logging
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Annotated, Any, Literal, NoReturn

import click
import typer
from typer.core import TyperGroup

from flows import terminal
from flows.errors import tell
from warehouse.characters import one_line


class Commands(TyperGroup):
    """The commands, whose errors of usage quote arguments that the terminal must not obey."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _shown_usage():
            return super().make_context(*args, **options)

    def invoke(self, *args: Any) -> Any:
        with _shown_usage():
            return super().invoke(*args)


@contextmanager
def _shown_usage() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The classes of these errors are private to Typer.
        if hasattr(error, "format_message") and hasattr(error, "message"):
            error.message = one_line(str(error.message))
        raise


app = typer.Typer(
    name="precept",
    cls=Commands,
    help="A data factory for deliberative alignment.\n\nTables are as wide as the terminal, or as "
    "`$COLUMNS` says, else 120 columns; rows that do not fit stand vertically, and nothing of "
    "them is cut.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

RecipeName = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one key of the recipe: `judge.samples=8`."),
]
HomeOption = Annotated[
    str | None,
    typer.Option("--home", help="The warehouse; else `$PRECEPT_HOME`, else `.precept`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
FormatOption = Annotated[
    Literal["table", "json", "csv", "parquet"],
    typer.Option("--format", help="How rows are printed; `csv` is as `precept export` writes it."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Most rows to print. Unset: all.", min=0)
]


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns a user's mistake into one sentence and exit code 2, any other error into exit code 1.

    The traceback of an error that is no mistake stands in a log whose path is told.
    """
    try:
        with closed_pipe_ends():
            yield
    except KeyboardInterrupt:
        # Click would add a word of its own; `ended_by_signals` says what there is to say.
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, click.ClickException):
        raise
    except Exception as error:
        told = tell(error)
        terminal.text(told.sentence, err=True)
        raise typer.Exit(told.exit_code) from error


@contextmanager
def closed_pipe_ends() -> Iterator[None]:
    """Ends the command with exit code 0 if whoever read its output has closed the pipe."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_closed(sys.stdout):
            raise
        _end_quietly()
    except SystemExit as error:
        # Rich and Typer turn a closed pipe into exit code 1.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        _end_quietly()


def _is_closed(stream: IO[str]) -> bool:
    """Returns True if nobody reads what is written to a stream."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def _end_quietly() -> NoReturn:
    """Ends the command: whoever read its output has had enough, which is no fault."""
    # Python would flush what it still holds back at exit, and fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


@contextmanager
def reading_from(home: str | None) -> Iterator[Any]:
    """Yields the warehouse to read; a user's mistake ends the command."""
    with user_errors():
        from flows.reading import reading

        with reading(home_of(home)) as place:
            yield place


Work = Callable[[Any, str | None], Any]
"""(recipe, home) → the outcome of a flow."""


def recipe_command(printer: str, *, is_flow: bool = True) -> Callable[[Work], Work]:
    """Makes a command of a function of recipe and home.

    `printer` names the function of flows/show.py that prints the outcome. A flow needs a Prefect
    server and a place to write to.
    """

    def decorate(work: Work) -> Work:
        name = work.__name__

        def command(
            recipe: RecipeName,
            set_: Overrides = None,
            home: HomeOption = None,
            as_json: AsJson = False,
        ) -> None:
            with user_errors():
                outcome = carry_out(name, work, load(recipe, set_), home, is_flow=is_flow)
                print_outcome(outcome, printer, (recipe, home), as_json=as_json)

        app.command(name, help=work.__doc__)(command)
        return work

    return decorate


def carry_out(name: Any, work: Work, recipe: Any, home: str | None, *, is_flow: bool) -> Any:
    """Returns the outcome of a command's work on a recipe, which is checked before anything slow is
    imported for it or started."""
    from flows import reading
    from flows.preflight import check

    check(name, recipe, home)
    # An estimate makes nothing, not even the folder.
    coming = reading.writing if is_flow else reading.planning
    with coming(home_of(home)):
        if is_flow:
            from flows.server import start_server

            start_server()
        return work(recipe, home)


def print_outcome(
    outcome: Any, printer: str, place: tuple[str, str | None], *, as_json: bool
) -> None:
    """Prints the outcome of a flow; `place` is the recipe's name and the home that were given."""
    from flows import show

    if as_json:
        show.as_json(outcome)
    else:
        getattr(show, printer)(outcome, show.Place(*place))


def load(recipe: str, overrides: list[str] | None) -> Any:
    """Returns the recipe, whose keys are checked before anything slow is imported for it."""
    quiet_libraries()
    from flows.recipe import load_recipe

    return load_recipe(recipe, overrides=overrides or [])


def quiet_libraries() -> None:
    """Keeps libraries' own chatter off the terminal unless the user has set their levels."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if not sys.stderr.isatty():
        # A bar that is drawn over and over fills a file with its pieces.
        for name in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(name, "1")
    # Prefect's level does not reach these two, which log at the end of a short run.
    for name in ("EventsWorker", "APILogWorker"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def home_of(home: str | None) -> Any:
    from flows.run import home_at

    return home_at(home)
