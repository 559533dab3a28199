"""The sub-commands of `precept policies`, which help the authors of policy packs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows import terminal
from flows.command import (
    AsJson,
    FormatOption,
    HomeOption,
    Overrides,
    RecipeName,
    app,
    carry_out,
    load,
    print_outcome,
    reading_from,
    user_errors,
)

policies = typer.Typer(help="Policy packs.", no_args_is_help=True)
app.add_typer(policies, name="policies")


@policies.command("check")
def policies_check(
    pack: Annotated[str, typer.Argument(help="Folder of a policy pack.")],
) -> None:
    """Checks a policy pack and prints what each spec comes to."""
    with user_errors():
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


@policies.command("coverage")
def policies_coverage(
    pack: Annotated[
        str, typer.Argument(help="A recipe, or the folder of a policy pack.", metavar="RECIPE|PACK")
    ],
    floor: Annotated[int, typer.Option(min=1, help="Prompts under which a rule is named.")] = 5,
    home: HomeOption = None,
    format_: FormatOption = "table",
    as_json: AsJson = False,
) -> None:
    """Counts what exercises each rule, and names the rules that too few prompts do."""
    with reading_from(home) as place:
        from flows.coverage import print_coverage
        from flows.reading import chosen_format

        kind = chosen_format(format_, as_json=as_json)
        print_coverage(pack, place, terminal.home_option(home), floor=floor, kind=kind)


@policies.command("fill")
def policies_fill(
    recipe: RecipeName,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Id of a rule to fill; give it again for another. Unset: all."),
    ] = None,
    floor: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts that each rule is to have. Unset: `fill.floor`."),
    ] = None,
    mine: Annotated[
        bool,
        typer.Option("--mine", help="Write prompts like those that models fail on."),
    ] = False,
    below: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="With --mine: share of accepted completions, or mean reward or grade, under which "
            "models fail on a prompt.",
        ),
    ] = 0.5,
    out: Annotated[
        str, typer.Option("--out", help="File of prompts to add to, one a line of JSON.")
    ] = "fill.jsonl",
    set_: Overrides = None,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Has prompts written on both sides of the line of each rule that too few exercise."""

    def work(loaded: Any, home: str | None) -> Any:
        from flows.fill import FillOptions
        from flows.fill import fill as flow

        options = FillOptions(out=out, rules=tuple(rule or ()), floor=floor, mine=mine, below=below)
        return flow(loaded, home, options)

    with user_errors():
        from warehouse.files import require_folder

        require_folder(Path(out).absolute().parent)
        outcome = carry_out("fill", work, load(recipe, set_), home, is_flow=True)
        print_outcome(outcome, "filled", (recipe, home), as_json=as_json)
