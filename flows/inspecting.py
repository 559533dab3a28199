"""The command that shows a warehouse in a browser."""

import os
import sys
import threading
import webbrowser
from typing import Annotated

import typer

from flows import terminal
from flows.command import HomeOption, app, reading_from


@app.command("inspect")
def inspect_(
    run_id: Annotated[
        str | None, typer.Option("--run", help="Id of a run to begin with, or its start.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address to serve at. With another than 127.0.0.1, other machines reach the page, "
            "unencrypted.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port", help="Port to serve at. Unset: 2718, or a free one.", min=1, max=65535
        ),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Opens the warehouse in a browser: funnel, scores, rules, judges, chains to read and review,
    models side by side, rollouts, SQL.

    The printed address has a token, without which nobody sees the page. The page shows the rows
    that were there when it was opened or read again, and writes nothing but reviews. Ctrl-C ends
    it.
    """
    with reading_from(home) as place:
        from warehouse.app.server import serving

        terminal.line(f"precept: reading {place.url}", err=True)
        with serving(place, host=host, port=port, run_id=run_id) as address:
            terminal.line(address.url)
            sys.stdout.flush()
            terminal.line("precept: the page is served until Ctrl-C", err=True)
            if not no_browser and _has_screen():
                webbrowser.open(address.url)
            threading.Event().wait()


def _has_screen() -> bool:
    """Returns True if a browser has a window to open in; in a text terminal it would take that."""
    return sys.platform != "linux" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
