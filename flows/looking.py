"""The commands that look at what is there, and hand it over."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from flows import terminal
from flows.command import (
    AsJson,
    FormatOption,
    HomeOption,
    Limit,
    Overrides,
    RecipeName,
    app,
    reading_from,
    user_errors,
)


@app.command()
def report(
    run_id: Annotated[
        str | None, typer.Argument(help="Id of a run, or its start. Unset: the latest evaluation.")
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
    with reading_from(home) as place:
        from warehouse.catalog import connect, latest_evaluation
        from warehouse.files import require_folder
        from warehouse.reports import inspect_log
        from warehouse.reports import report as reporting

        require_folder(out)
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
            f"{again} --jsonl{terminal.home_option(home)}",
        )


@app.command()
def diff(
    run_a: Annotated[str, typer.Argument(help="Id of a run, or its start.")],
    run_b: Annotated[str, typer.Argument(help="Id of the run to compare it with.")],
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Compares two runs: settings, edited policies, what they made, and metrics, B less A."""
    with reading_from(home) as place:
        from flows import show
        from specs.parts import changes
        from warehouse.catalog import connect
        from warehouse.reports.compare import compare, specs_of

        connection = connect(place)
        found = compare(connection, run_a, run_b)
        texts = [specs_of(connection, run_id) for run_id in (found.run_a, found.run_b)]
        show.compared(found, changes(*texts), as_json=as_json)


@app.command()
def preview(
    recipe: RecipeName,
    count: Annotated[int, typer.Option("-n", help="Prompts to render.", min=1)] = 3,
    set_: Overrides = None,
) -> None:
    """Renders prompts as the generator and the judge are shown them; writes nothing."""
    with user_errors():
        from flows.preview import preview as work
        from flows.recipe import load_recipe

        work(load_recipe(recipe, overrides=set_ or []), count=count)


@app.command()
def status(home: HomeOption = None, as_json: AsJson = False) -> None:
    """Shows the tables of the warehouse, its last runs, and the run in progress."""
    with reading_from(home) as place:
        from flows.status import show_status

        show_status(place, as_json=as_json)


@app.command()
def ask(
    question: Annotated[
        str | None, typer.Argument(help="A named question. Unset: lists them.")
    ] = None,
    home: HomeOption = None,
    format_: FormatOption = "table",
    limit: Limit = None,
    as_json: AsJson = False,
    sql_text: Annotated[bool, typer.Option("--sql", help="Print the SQL instead.")] = False,
) -> None:
    """Answers a named question about the data."""
    with user_errors():
        from warehouse.catalog import query_doc, query_names, query_text

        if question is None:
            for name in query_names():
                terminal.line(f"{name:24} {query_doc(name)}")
            return
        text = query_text(question)
        if sql_text:
            terminal.text(text)
            return
    with reading_from(home) as place:
        from flows.reading import chosen_format, print_rows
        from warehouse.catalog import answer_batches, connect

        rows = answer_batches(connect(place), question, limit=limit)
        print_rows(rows, chosen_format(format_, as_json=as_json))


@app.command()
def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            help="SQL over the views, see `precept status`. Unset, or `-`: reads stdin."
        ),
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
    with user_errors():
        from flows.reading import chosen_format, print_rows, query_of
        from warehouse.statement import check_statement, run_statement

        text = query_of(query, file)
        check_statement(text)
    with reading_from(home) as place:
        kind = chosen_format(format_, as_json=as_json)
        print_rows(run_statement(place, text, limit=limit), kind)


@app.command()
def views(home: HomeOption = None) -> None:
    """Prints the views of the warehouse as SQL that any DuckDB runs: precept views > views.sql."""
    with reading_from(home) as place:
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
    with reading_from(home) as place:
        from flows.row import show_row as work

        work(place, row_id, as_json=as_json)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A shipped recipe, to print it. Unset: lists them.")
    ] = None,
) -> None:
    """Lists the recipes that come with Precept, with the machine each needs, or prints one."""
    with user_errors():
        from flows.recipe import load_recipe, recipe_path, shipped_recipes

        if name is not None:
            terminal.text(recipe_path(name).read_text(encoding="utf-8"), end="")
            return
        for shipped in shipped_recipes():
            first = recipe_path(shipped).read_text(encoding="utf-8").splitlines()[0]
            templates = load_recipe(shipped).generate.template
            terminal.line(f"{shipped:24} {first.removeprefix('# ')} Templates: {templates}.")
