"""The command by which people review completions."""

from typing import Annotated, Literal

import typer

from flows.command import HomeOption, app, reading_from


@app.command()
def review(
    row_id: Annotated[
        str | None,
        typer.Argument(help="Id of a completion, or its start. Unset: those of a queue."),
    ] = None,
    decision: Annotated[
        str | None,
        typer.Argument(help="`accept`, `reject` or `unsure`. Unset: shows it, and asks."),
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Your own words on it.")] = "",
    reviewer: Annotated[
        str | None,
        typer.Option(
            help="Name of the reviewer. Unset: `$PRECEPT_REVIEWER`, else the name of the user."
        ),
    ] = None,
    queue: Annotated[
        Literal["random", "disagreement", "threshold", "rule", "drifted"] | None,
        typer.Option(
            help="Completions to review: drawn at `random`; those that reviewers or judge scores "
            "disagree on; those nearest to the `threshold`; those that cite a `rule`; those of "
            "categories whose acceptance has `drifted`. Unset: `rule` with --rule, else `random`."
        ),
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Id of the rule that they cite.")] = None,
    count: Annotated[int, typer.Option("-n", help="Most completions.", min=1)] = 20,
    wanted: Annotated[
        int, typer.Option(min=1, help="People who are to decide on each; 2 for double review.")
    ] = 1,
    open_: Annotated[
        bool, typer.Option("--open", help="Show what may be harmful without being asked for it.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Print the queue, and ask nothing.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Shows completions one by one and stores what you say of each; the next refresh obeys it.

    Keys, or lines where there is no terminal: `a`ccept, `r`eject, `u`nsure, `n`ote, `o`pen what is
    folded, `s`kip, `q`uit. A line may go on with a note: `r cites the wrong rule`.
    """
    with reading_from(home) as place:
        from flows.review import Session, print_queue, review_one, review_queue
        from warehouse.catalog import connect
        from warehouse.reviews import check_reviewer, default_reviewer

        session = Session(
            home=place,
            connection=connect(place),
            reviewer=check_reviewer(reviewer) if reviewer is not None else default_reviewer(),
            is_open=open_,
            home_option=home,
        )
        if row_id is not None:
            review_one(session, row_id, decision, note)
            return
        rows = session.queue(
            queue or ("rule" if rule else "random"), rule=rule, num_wanted=wanted, limit=count
        )
        if list_:
            print_queue(rows)
        else:
            review_queue(session, rows)
