"""The sub-commands of `precept policies`, which help the authors of policy packs."""

from typing import Annotated, Literal

import typer

from flows.command import HomeOption, app, user_errors

policies = typer.Typer(help="Policy packs.", no_args_is_help=True)
app.add_typer(policies, name="policies")

ReportFormat = Annotated[
    Literal["table", "json"], typer.Option("--format", help="How the outcome is printed.")
]


@policies.command("check")
def policies_check(
    pack: Annotated[str, typer.Argument(help="Folder of a policy pack.")],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Recipe whose model counts the tokens. Unset: words."),
    ] = None,
    full: Annotated[
        str | None,
        typer.Option("--full", help="Range of a policy in full: `2000-5000`. Unset: 0-5000."),
    ] = None,
    summary: Annotated[
        str | None,
        typer.Option("--summary", help="Range of a policy's summary: `60-150`. Unset: 0-150."),
    ] = None,
    home: HomeOption = None,
    format_: ReportFormat = "table",
) -> None:
    """Checks a policy pack: its sizes, and what its author most likely did not mean.

    Exit code 0 if there is nothing to mend, 1 for findings, 2 for a pack that cannot be loaded. The
    rules are compared with a warehouse, if one is there: a changed text needs another version.
    """
    with user_errors():
        from flows import policy_check

        budgets = policy_check.budgets_of(full, summary)
        checked = policy_check.check_pack(pack, budgets=budgets, recipe=recipe, home=home)
        policy_check.show_checked(checked, as_json=format_ == "json")
        raise typer.Exit(policy_check.exit_code(checked))
