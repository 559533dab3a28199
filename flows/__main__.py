"""The command line, `precept`.

stdout is the result, stderr the progress. A user's mistake ends with exit code 2 and one sentence.
Heavy libraries are imported inside the command that needs them, so that `--help` is instant.
"""

import atexit
import io
import logging
import os
import select
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NoReturn

import click
import typer
from typer.core import TyperGroup

from flows import terminal
from flows.errors import discard_log, libraries_logged, tell
from flows.interrupt import ended_by_signals
from warehouse.characters import one_line


class _Commands(TyperGroup):
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
    cls=_Commands,
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
def _user_errors() -> Iterator[None]:
    """Turns a user's mistake into one sentence and exit code 2, any other error into exit code 1.

    The traceback of an error that is no mistake stands in a log whose path is told.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_closed(sys.stdout):
            raise
        _end_quietly()
    except SystemExit as error:
        # Rich turns a closed pipe into exit code 1.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        _end_quietly()
    except KeyboardInterrupt:
        # Click would add a word of its own; `ended_by_signals` says what there is to say.
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, click.ClickException):
        raise
    except Exception as error:
        told = tell(error)
        terminal.text(told.sentence, err=True)
        raise typer.Exit(told.exit_code) from error


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
    # What Python still holds back would fail again when it is flushed at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(0)


@contextmanager
def _reading(home: str | None) -> Iterator[Any]:
    """Yields the warehouse to read; a user's mistake ends the command."""
    with _user_errors():
        from flows.reading import reading

        with reading(_home(home)) as place:
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
            with _user_errors():
                outcome = _carry_out(name, work, _load(recipe, set_), home, is_flow=is_flow)
                _print_outcome(outcome, printer, (recipe, home), as_json=as_json)

        app.command(name, help=work.__doc__)(command)
        return work

    return decorate


def _carry_out(name: Any, work: Work, recipe: Any, home: str | None, *, is_flow: bool) -> Any:
    """Returns the outcome of a command's work on a recipe, which is checked before anything slow is
    imported for it or started."""
    from flows import reading
    from flows.preflight import check

    check(name, recipe, home)
    # An estimate makes nothing, not even the folder.
    coming = reading.writing if is_flow else reading.planning
    with coming(_home(home)):
        if is_flow:
            from flows.server import start_server

            start_server()
        return work(recipe, home)


def _print_outcome(
    outcome: Any, printer: str, place: tuple[str, str | None], *, as_json: bool
) -> None:
    """Prints the outcome of a flow; `place` is the recipe's name and the home that were given."""
    from flows import show

    if as_json:
        show.as_json(outcome)
    else:
        getattr(show, printer)(outcome, show.Place(*place))


@recipe_command("refreshed")
def refresh(recipe: Any, home: str | None) -> Any:
    """Makes what is missing: completions, judgements, examples. Run it again to go on."""
    from flows.refresh import refresh as flow

    return flow(recipe, home)


@recipe_command("trained")
def train(recipe: Any, home: str | None) -> Any:
    """Trains on the examples: SFT, DPO, RL, as the recipe says."""
    from flows.train import train as flow

    return flow(recipe, home)


@app.command()
def evaluate(
    recipe: RecipeName,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Id of a checkpoint to evaluate, or its start; give it again for another. "
            "Unset: those of the latest training."
        ),
    ] = None,
    set_: Overrides = None,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Evaluates the base model and the newest checkpoints, side by side."""

    def work(loaded: Any, home: str | None) -> Any:
        from flows.evaluate import evaluate as flow

        return flow(loaded, home, checkpoint or None)

    with _user_errors():
        loaded = _load(recipe, set_)
        if checkpoint:
            from warehouse.catalog import connect
            from warehouse.lineage import choose_checkpoints

            # Before Prefect starts; the flow looks up again.
            with _reading(home) as place:
                choose_checkpoints(connect(place), checkpoint)
        outcome = _carry_out("evaluate", work, loaded, home, is_flow=True)
        _print_outcome(outcome, "evaluated", (recipe, home), as_json=as_json)


@recipe_command("evaluated")
def ablate(recipe: Any, home: str | None) -> Any:
    """Trains and evaluates the arms of an ablation, side by side. Run it again to go on."""
    from flows.ablate import ablate as flow

    return flow(recipe, home)


@recipe_command("calibrated")
def calibrate(recipe: Any, home: str | None) -> Any:
    """Holds the judge against gold: precision and recall of the filter by threshold and k."""
    from flows.calibrate import calibrate as flow

    return flow(recipe, home)


@recipe_command("aligned")
def run(recipe: Any, home: str | None) -> Any:
    """Does it all: refresh, train, evaluate. Run it again to go on."""
    from flows.align import align

    return align(recipe, home)


@recipe_command("estimated", is_flow=False)
def estimate(recipe: Any, home: str | None) -> Any:
    """Says what a refresh would make, and what it would cost; makes and writes nothing."""
    from flows.estimate import estimate as work

    return work(recipe, home)


@app.command()
def init(
    folder: Annotated[str, typer.Argument(help="A folder that is new or empty.")],
) -> None:
    """Writes a project of your own: a recipe, two policies, ten prompts. It runs as it is."""
    with _user_errors():
        from flows.project import write_project

        for path in write_project(folder):
            terminal.line(str(path))
        terminal.line(f"next: precept refresh {shlex.quote(str(Path(folder) / 'recipe.toml'))}")


@app.command()
def report(
    run_id: Annotated[
        str | None, typer.Argument(help="Id of a run, or its start; none: the latest evaluation.")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Folder to write to.")] = "report",
    inspect_logs: Annotated[
        bool, typer.Option("--inspect", help="Write logs for Inspect as well.")
    ] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write every answer as a line of JSON as well.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Writes an evaluation as one page of HTML, as Markdown and as JSON."""
    with _reading(home) as place:
        from flows.preflight import require_output
        from warehouse.catalog import connect, latest_evaluation
        from warehouse.reports import inspect_log
        from warehouse.reports import report as reporting

        require_output(out, is_folder=True)
        connection = connect(place)
        chosen = run_id or latest_evaluation(connection)
        files = reporting.write(reporting.gather(connection, chosen), out)
        if inspect_logs:
            files += inspect_log.export(connection, chosen, f"{out}/inspect")
        if jsonl:
            samples = Path(out) / "samples.jsonl"
            inspect_log.export_jsonl(connection, chosen, samples)
            files.append(samples)
        again = f"precept report {chosen[:12]} --out {shlex.quote(out)}"
        terminal.lines(
            *map(str, files),
            f"next: open {shlex.quote(str(files[0]))} in a browser; every answer whole: "
            f"{again} --jsonl{_home_option(home)}",
        )


@app.command()
def diff(
    run_a: Annotated[str, typer.Argument(help="Id of a run, or its start.")],
    run_b: Annotated[str, typer.Argument(help="Id of the run to compare it with.")],
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Compares two runs: settings, edited policies, what they made, and metrics, B less A."""
    with _reading(home) as place:
        from flows import show
        from specs.parts import changes
        from warehouse.catalog import connect
        from warehouse.reports.compare import compare, specs_of

        connection = connect(place)
        found = compare(connection, run_a, run_b)
        texts = [specs_of(connection, run_id) for run_id in (found.run_a, found.run_b)]
        show.compared(found, changes(*texts), as_json=as_json)


@app.command()
def serve(recipe: RecipeName, set_: Overrides = None, home: HomeOption = None) -> None:
    """Offers every flow in the Prefect UI and refreshes by the recipe's schedule; stays."""
    with _user_errors():
        from flows.preflight import require_prefect
        from flows.recipe import load_recipe

        loaded = load_recipe(recipe, overrides=set_ or [])
        loaded.load_pack()
        if not os.environ.get("PREFECT_API_URL"):
            raise ValueError(
                "PREFECT_API_URL is not set, and a schedule needs a Prefect server that stays: "
                "start one with prefect server start, and set it to http://127.0.0.1:4200/api"
            )
        require_prefect()
        name = str(Path(recipe).absolute()) if Path(recipe).is_file() else recipe
        from warehouse.home import make_home

        make_home(_home(home))
        # Each run is a process of its own, which finds warehouse and recipe by the environment.
        os.environ["PRECEPT_HOME"] = _home(home).url
        os.environ["PRECEPT_RECIPE"] = name
        from flows.deployments import serve_all

        serve_all(loaded, name, overrides=set_ or [])


@app.command()
def approve(
    run_id: Annotated[str, typer.Argument(help="Id of a held run, or its start.")],
    note: Annotated[str, typer.Option("--note", help="The reason, for the record.")] = "",
    home: HomeOption = None,
) -> None:
    """Lets the judgements of a held refresh into the examples of the next one."""
    with _reading(home):
        _quiet_libraries()
        from flows.nightly import approve as flow
        from flows.nightly import recipe_of

        approved = flow(run_id, home, note=note)
        recipe = recipe_of(_home(home), approved)
        terminal.lines(
            f"approved run {approved}: the next refresh of recipe {recipe} takes in what it judged",
            f"next: precept refresh {shlex.quote(recipe)}{_home_option(home)}",
        )


def _load(recipe: str, overrides: list[str] | None) -> Any:
    """Returns the recipe, whose keys are checked before anything slow is imported for it."""
    _quiet_libraries()
    from flows.recipe import load_recipe

    return load_recipe(recipe, overrides=overrides or [])


def _quiet_libraries() -> None:
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


@app.command()
def preview(
    recipe: RecipeName,
    count: Annotated[int, typer.Option("-n", help="Prompts to render.", min=1)] = 3,
    set_: Overrides = None,
) -> None:
    """Renders prompts as the generator and the judge are shown them; writes nothing."""
    with _user_errors():
        from flows.preview import preview as work
        from flows.recipe import load_recipe

        work(load_recipe(recipe, overrides=set_ or []), count=count)


@app.command()
def status(home: HomeOption = None, as_json: AsJson = False) -> None:
    """Shows the tables of the warehouse, its last runs, and the run in progress."""
    with _reading(home) as place:
        from flows.status import show_status

        show_status(place, as_json=as_json)


@app.command()
def ask(
    question: Annotated[
        str | None, typer.Argument(help="A named question; none lists them.")
    ] = None,
    home: HomeOption = None,
    format_: FormatOption = "table",
    limit: Limit = None,
    as_json: AsJson = False,
    sql_text: Annotated[bool, typer.Option("--sql", help="Print the SQL instead.")] = False,
) -> None:
    """Answers a named question about the data."""
    with _user_errors():
        from warehouse.catalog import query_doc, query_names, query_text

        if question is None:
            for name in query_names():
                terminal.line(f"{name:24} {query_doc(name)}")
            return
        text = query_text(question)
        if sql_text:
            terminal.text(text)
            return
    with _reading(home) as place:
        from flows.reading import print_rows
        from warehouse.catalog import answer_batches, connect

        rows = answer_batches(connect(place), question, limit=limit)
        print_rows(rows, "json" if as_json else format_)


@app.command()
def sql(
    query: Annotated[
        str | None,
        typer.Argument(help="SQL over the views, see `precept status`; `-` or none: read stdin."),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="A file that holds the query.")
    ] = None,
    home: HomeOption = None,
    format_: FormatOption = "table",
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Runs your own DuckDB query over the views of the warehouse; it can only read."""
    with _user_errors():
        from flows.reading import print_rows, query_of
        from warehouse.statement import check_statement, run_statement

        text = query_of(query, file)
        check_statement(text)
    with _reading(home) as place:
        print_rows(run_statement(place, text, limit=limit), "json" if as_json else format_)


@app.command()
def views(home: HomeOption = None) -> None:
    """Prints the views of the warehouse as SQL that any DuckDB runs: precept views > views.sql."""
    with _reading(home) as place:
        from warehouse.script import views_script

        terminal.text(views_script(place), end="")


@app.command("show")
def show_row(
    row_id: Annotated[
        str,
        typer.Argument(help="Id of a row of any table, or its start; or of a rule, such as `K3`."),
    ],
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Shows what has an id whole: a completion with prompt, reasoning, answer and verdicts."""
    with _reading(home) as place:
        from flows.row import show_row as work

        work(place, row_id, as_json=as_json)


@app.command()
def export(
    question: Annotated[str, typer.Argument(help="A named question, as sft_examples.")],
    out: Annotated[str, typer.Argument(help="A file on .parquet, .jsonl, .json or .csv.")],
    home: HomeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Writes the answer to a named question into one file, as TRL and others read it.

    Parquet and JSON hold every value as it is; JSON has null for NaN and the infinities, and bytes
    in base64. CSV is for spreadsheets, not for training: a text that one would run as a formula
    begins with an apostrophe, control characters are written as \\x1b, and lists are JSON.
    """
    with _reading(home) as place:
        from warehouse.answers import export as write
        from warehouse.catalog import connect

        num_rows = write(connect(place), question, out, replace=force)
        reader = {".jsonl": "json"}.get(Path(out).suffix, Path(out).suffix[1:])
        terminal.lines(
            f"{num_rows} rows of {question} in {out}",
            f'next: datasets.load_dataset("{reader}", data_files={out!r}) in Python',
        )


@app.command()
def compact(home: HomeOption = None) -> None:
    """Merges small shards into larger ones."""
    with _reading(home) as place:
        from flows.lock import lock
        from warehouse.catalog import connect
        from warehouse.tables import TABLES
        from warehouse.upkeep import compact as merge

        with lock(place):
            # Opened for its word on another schema version and on what is not read.
            connect(place).close()
            for table in TABLES.values():
                before, after = merge(place, table)
                terminal.line(f"{table.name:14} {before} shards, now {after}")


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe whose models to check as well.")
    ] = None,
    set_: Overrides = None,
    home: HomeOption = None,
    mend: Annotated[
        bool, typer.Option("--mend", help="Set aside the files that are no whole shards.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Checks versions, memory, warehouse, Ray, Prefect and the models of a recipe, with the remedy
    for what is wrong."""
    with _user_errors():
        _quiet_libraries()
        from flows import doctor as checks
        from flows import show

        loaded = _load(recipe, set_) if recipe else None
        found = checks.examine(_home(home), loaded, mend=mend)
        show.checks(found, as_json=as_json)
        if not all(check.ok for check in found):
            raise typer.Exit(1)


policies = typer.Typer(help="Policy packs.", no_args_is_help=True)
app.add_typer(policies, name="policies")


@policies.command("check")
def policies_check(
    pack: Annotated[str, typer.Argument(help="Folder of a policy pack.")],
) -> None:
    """Checks a policy pack and prints what each spec comes to."""
    with _user_errors():
        from specs.pack import load_pack

        loaded = load_pack(pack)
        for name, policy in loaded.policies.items():
            spec = loaded.spec([name])
            num_words = len(spec.text.split())
            terminal.line(f"{name:24} {len(policy.rules):3} rules  {num_words:6} words  {spec.id}")
        for name in loaded.not_read:
            terminal.line(
                f"precept: not read: {name}; a policy is a file that ends on .md, in the folder "
                "itself",
                err=True,
            )


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A shipped recipe, to print it. Unset: lists them.")
    ] = None,
) -> None:
    """Lists the recipes that come with Precept, with the machine each needs, or prints one."""
    with _user_errors():
        from flows.recipe import recipe_path, shipped_recipes

        if name is not None:
            terminal.text(recipe_path(name).read_text(encoding="utf-8"), end="")
            return
        for shipped in shipped_recipes():
            first = recipe_path(shipped).read_text(encoding="utf-8").splitlines()[0]
            terminal.line(f"{shipped:24} {first.removeprefix('# ')}")


def _home_option(home: str | None) -> str:
    """Returns the option of the warehouse as the user gave it, for commands that are suggested."""
    return f" --home {shlex.quote(home)}" if home else ""


def _home(home: str | None) -> Any:
    from flows.run import home_at

    return home_at(home)


def _end_event_loops() -> None:
    """Ends Prefect's event loops, whose threads would outlive the interpreter.

    A live thread keeps modules from being freed, and DuckDB's bindings report theirs as leaks.
    """
    threads = sys.modules.get("prefect._internal.concurrency.threads")
    if threads is None:
        return
    for loop in (threads._global_loop, threads._run_sync_loop):
        if loop is not None:
            loop.shutdown()
            loop.thread.join(timeout=5)


def main() -> None:
    """Entry point of `precept`."""
    # Registered before Prefect and Ray are imported, so it runs after their own exit handlers.
    atexit.register(_end_event_loops)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows few characters is shown the numbers of the others.
            stream.reconfigure(errors="backslashreplace")
    with libraries_logged(), ended_by_signals(at_end=discard_log):
        app()


if __name__ == "__main__":
    main()
