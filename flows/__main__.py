"""The command line, `precept`.

stdout is the result, stderr the progress. A user's mistake ends with exit code 2 and one sentence.
Heavy libraries are imported inside the command that needs them, so that `--help` is instant.
"""

import atexit
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from flows.errors import discard_log, libraries_logged, tell
from flows.interrupt import ended_by_signals

app = typer.Typer(
    name="precept",
    help="A data factory for deliberative alignment.",
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


@contextmanager
def _user_errors() -> Iterator[None]:
    """Turns a user's mistake into one sentence and exit code 2, any other error into exit code 1.

    The traceback of an error that is no mistake stands in a log whose path is told.
    """
    try:
        yield
    except KeyboardInterrupt:
        # Click would add a word of its own; `ended_by_signals` says what there is to say.
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, click.ClickException):
        raise
    except Exception as error:
        told = tell(error)
        typer.echo(told.sentence, err=True)
        raise typer.Exit(told.exit_code) from error


Work = Callable[[Any, str | None], Any]
"""(recipe, home) → the outcome of a flow."""


def recipe_command(printer: str, *, is_flow: bool = True) -> Callable[[Work], Work]:
    """Makes a command of a function of recipe and home.

    The recipe is read and checked before the function imports its flow; `printer` names the
    function of flows/show.py that prints the outcome. A flow needs a Prefect server.
    """

    def decorate(work: Work) -> Work:
        name: Any = work.__name__

        def command(
            recipe: RecipeName,
            set_: Overrides = None,
            home: HomeOption = None,
            as_json: AsJson = False,
        ) -> None:
            with _user_errors():
                loaded = _load(recipe, set_)
                from flows.preflight import check

                check(name, loaded, home)
                if is_flow:
                    from flows.server import start_server

                    start_server()
                outcome = work(loaded, home)
                from flows import show

                if as_json:
                    show.as_json(outcome)
                else:
                    getattr(show, printer)(outcome, show.Place(recipe, home))

        app.command(name, help=work.__doc__)(command)
        return work

    return decorate


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


@recipe_command("evaluated")
def evaluate(recipe: Any, home: str | None) -> Any:
    """Evaluates the base model and the newest checkpoints, side by side."""
    from flows.evaluate import evaluate as flow

    return flow(recipe, home)


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
            typer.echo(str(path))
        typer.echo(f"next: precept refresh {shlex.quote(str(Path(folder) / 'recipe.toml'))}")


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
    with _user_errors():
        from flows.preflight import require_output
        from warehouse.catalog import connect, latest_evaluation
        from warehouse.reports import inspect_log
        from warehouse.reports import report as reporting

        require_output(out, is_folder=True)
        connection = connect(_home(home))
        chosen = run_id or latest_evaluation(connection)
        files = reporting.write(reporting.gather(connection, chosen), out)
        if inspect_logs:
            files += inspect_log.export(connection, chosen, f"{out}/inspect")
        if jsonl:
            samples = Path(out) / "samples.jsonl"
            inspect_log.export_jsonl(connection, chosen, samples)
            files.append(samples)
        for file in files:
            typer.echo(str(file))


@app.command()
def diff(
    run_a: Annotated[str, typer.Argument(help="Id of a run, or its start.")],
    run_b: Annotated[str, typer.Argument(help="Id of the run to compare it with.")],
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Compares two runs: their settings, what they made, and their metrics, B less A."""
    with _user_errors():
        from flows import show
        from warehouse.catalog import connect
        from warehouse.reports.compare import compare

        show.compared(compare(connect(_home(home)), run_a, run_b), as_json=as_json)


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
    with _user_errors():
        _quiet_libraries()
        from flows.nightly import approve as flow

        typer.echo(f"approved {flow(run_id, home, note=note)}; run precept refresh to take them in")


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
    """Shows the tables of the warehouse, its last runs, and engines in progress."""
    with _user_errors():
        from flows import show

        show.status(_home(home), as_json=as_json)


@app.command()
def ask(
    question: Annotated[
        str | None, typer.Argument(help="A named question; none lists them.")
    ] = None,
    home: HomeOption = None,
    as_json: AsJson = False,
    sql_text: Annotated[bool, typer.Option("--sql", help="Print the SQL instead.")] = False,
) -> None:
    """Answers a named question about the data."""
    with _user_errors():
        from flows import show
        from warehouse.catalog import ask as answer
        from warehouse.catalog import connect, query_doc, query_names, query_text

        if question is None:
            for name in query_names():
                typer.echo(f"{name:24} {query_doc(name)}")
        elif sql_text:
            typer.echo(query_text(question))
        else:
            show.table(answer(connect(_home(home)), question), as_json=as_json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="SQL over the views; see `precept status`.")],
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Runs your own DuckDB query over the views of the warehouse."""
    with _user_errors():
        from flows import show
        from warehouse.catalog import connect, read

        result = read(connect(_home(home)), query)
        if result is not None:
            show.table(result.to_arrow_table(), as_json=as_json)


@app.command("show")
def show_row(
    row_id: Annotated[
        str, typer.Argument(help="Id of a prompt, completion or spec, or its start.")
    ],
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Shows one row whole: a completion with its prompt, reasoning, answer and verdicts."""
    with _user_errors():
        from flows import show

        show.row(_home(home), row_id, as_json=as_json)


@app.command()
def export(
    question: Annotated[str, typer.Argument(help="A named question, as sft_examples.")],
    out: Annotated[str, typer.Argument(help="A file that ends on .parquet, .jsonl or .csv.")],
    home: HomeOption = None,
) -> None:
    """Writes the answer to a named question into one file, as TRL and others read it."""
    with _user_errors():
        from flows.preflight import require_output
        from warehouse.catalog import connect
        from warehouse.catalog import export as write

        require_output(out)
        typer.echo(f"{write(connect(_home(home)), question, out)} rows in {out}")


@app.command()
def compact(home: HomeOption = None) -> None:
    """Merges small shards into larger ones."""
    with _user_errors():
        from flows.lock import lock
        from warehouse.tables import TABLES
        from warehouse.upkeep import compact as merge

        place = _home(home)
        with lock(place):
            for table in TABLES.values():
                before, after = merge(place, table)
                typer.echo(f"{table.name:14} {before} shards, now {after}")


@app.command()
def doctor(home: HomeOption = None, as_json: AsJson = False) -> None:
    """Checks versions, memory, warehouse, Ray and Prefect, with the remedy for what is wrong."""
    with _user_errors():
        _quiet_libraries()
        from flows import doctor as checks
        from flows import show

        found = checks.examine(_home(home))
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
            typer.echo(f"{name:24} {len(policy.rules):3} rules  {num_words:6} words  {spec.id}")


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
            typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)
            return
        for shipped in shipped_recipes():
            first = recipe_path(shipped).read_text(encoding="utf-8").splitlines()[0]
            typer.echo(f"{shipped:24} {first.removeprefix('# ')}")


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
    with libraries_logged(), ended_by_signals(at_end=discard_log):
        app()


if __name__ == "__main__":
    main()
