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
        from flows.comparison import compared
        from specs.parts import changes
        from warehouse.catalog import connect
        from warehouse.reports.compare import compare, specs_of

        connection = connect(place)
        found = compare(connection, run_a, run_b)
        texts = [specs_of(connection, run_id) for run_id in (found.run_a, found.run_b)]
        compared(found, changes(*texts), as_json=as_json)


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
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="A recipe file. Questions of your own lie in folder `queries` beside it, and in "
            "that of the working folder.",
        ),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--variable", help="Set a variable that the question reads: `q=0.3`."),
    ] = None,
    home: HomeOption = None,
    format_: FormatOption = "table",
    limit: Limit = None,
    as_json: AsJson = False,
    sql_text: Annotated[bool, typer.Option("--sql", help="Print the SQL instead.")] = False,
) -> None:
    """Answers a named question about the data: one that ships, or a file `queries/NAME.sql` of
    your own."""
    with user_errors():
        from flows.reading import question_folders
        from warehouse.questions import answer, find_question, list_questions, read_variables

        folders = question_folders(recipe)
        if question is None:
            named = [(one.name, one.sentence) for one in list_questions(folders)]
            terminal.entries(named)
            return
        found = find_question(question, folders)
        values = read_variables(variables or [])
        if sql_text:
            terminal.text(found.text)
            return
    with reading_from(home) as place:
        from flows.reading import chosen_format, print_rows

        kind = chosen_format(format_, as_json=as_json)
        print_rows(answer(place, found, variables=values, limit=limit), kind)


@app.command()
def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            help="SQL over the views, see `precept status`. Unset: opens a shell on a terminal, "
            "and reads stdin elsewhere, as `-` does."
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
    """Runs your own DuckDB query over the views of the warehouse, or opens a shell over them; both
    can only read."""
    with user_errors():
        from flows.reading import chosen_format, print_rows, query_of, wants_shell
        from warehouse.statement import check_statement, run_statement

        kind = chosen_format(format_, as_json=as_json)
        is_shell = wants_shell(query, file)
        if not is_shell:
            text = query_of(query, file)
            check_statement(text)
    with reading_from(home) as place:
        if is_shell:
            from flows.shell import open_shell

            open_shell(place, kind, limit=limit)
        else:
            print_rows(run_statement(place, text, limit=limit), kind)


@app.command()
def views(
    out: Annotated[
        str | None,
        typer.Argument(help="A file on .duckdb to write them to. Unset: prints them as SQL."),
    ] = None,
    home: HomeOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is no catalog of this warehouse.")
    ] = False,
) -> None:
    """Writes the views of the warehouse as a small file that any DuckDB opens, or prints them as
    SQL that any DuckDB runs: precept views > views.sql.

    The file holds no data and reads the shards at each query, so rows that are written later are
    seen. Run the command again once a table has its first rows, or the warehouse has moved.
    """
    with reading_from(home) as place:
        if out is None:
            from warehouse.script import views_script

            terminal.text(views_script(place), end="")
            return
        from warehouse.catalog_file import write_catalog

        path = write_catalog(place, out, replace=force)
        terminal.lines(
            f"{path}: the views of {place.url}, without data",
            f"next: duckdb -readonly {shlex.quote(out)}, or "
            f"duckdb.connect({out!r}, read_only=True) in Python",
        )


@app.command("show")
def show_row(
    row_id: Annotated[
        str,
        typer.Argument(help="Id of a row of any table, or its start; or of a rule, such as `K3`."),
    ],
    prompt: Annotated[
        bool,
        typer.Option(
            "--prompt",
            help="Print what the model was asked for the row instead, byte for byte, made again "
            "from its parts and held against the ids of the row.",
        ),
    ] = False,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Shows what has an id on one page: a completion with its conversation, reasoning, answer,
    scores, verdict and lineage."""
    with reading_from(home) as place:
        from flows.row import show_row as work

        work(place, row_id, with_prompt=prompt, as_json=as_json)


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
