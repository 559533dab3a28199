"""The sub-commands of `precept policies`, which help the authors of policy packs."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

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

ReportFormat = Annotated[
    Literal["table", "json"], typer.Option("--format", help="How the outcome is printed.")
]


@policies.command("new")
def policies_new(
    folder: Annotated[str, typer.Argument(help="A folder that is new or empty.")],
) -> None:
    """Writes a small pack to start from, which uses each part of the format once."""
    with user_errors():
        from flows.project import STARTER_PACK, write_starter

        for path in write_starter(STARTER_PACK, folder):
            terminal.line(str(path))
        name = shlex.quote(folder)
        override = shlex.quote(f"pack={folder}")
        terminal.line(f"next: precept policies check {name}")
        terminal.line(f"then: precept preview RECIPE --set {override}")


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
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Recipe whose judge model is asked about the rules. Unset: none is."
        ),
    ] = None,
    num_prompts: Annotated[
        int | None,
        typer.Option(
            "-n", min=0, help="With --model, prompts of the recipe for each category. Unset: 60."
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=2, help="With --model, samples for each prompt. Unset: 4."),
    ] = None,
    home: HomeOption = None,
    format_: ReportFormat = "table",
) -> None:
    """Checks a policy pack: its sizes, and what its author most likely did not mean.

    Exit code 0 if there is nothing to mend, 1 for findings, 2 for a pack that cannot be loaded. The
    rules are compared with a warehouse, if one is there: a changed text needs another version.

    With --model, a model is asked the cases of the pack and prompts of the recipe instead: rules
    that conflict, overlap or claim nothing are told, with the prompts that show it.
    """
    with user_errors():
        of_words = {"--recipe": recipe, "--full": full, "--summary": summary, "--home": home}
        of_model = {"-n": num_prompts, "--samples": samples}
        _refuse_idle_options(of_model if model is None else of_words, is_with_model=bool(model))
        if model is not None:
            _check_by_model(pack, model, (num_prompts, samples), as_json=format_ == "json")
        from flows import policy_check

        budgets = policy_check.budgets_of(full, summary)
        checked = policy_check.check_pack(pack, budgets=budgets, recipe=recipe, home=home)
        policy_check.show_checked(checked, as_json=format_ == "json")
        raise typer.Exit(policy_check.exit_code(checked))


def _check_by_model(
    pack: str, model: str, sizes: tuple[int | None, int | None], *, as_json: bool
) -> NoReturn:
    """Asks the judge model of a recipe about a pack; `sizes` are the prompts of each category and
    the samples of each prompt."""
    from flows.command import quiet_libraries

    quiet_libraries()
    from flows.policy_trial import show_tried, try_pack

    num_prompts, samples = sizes
    tried = try_pack(
        pack,
        model,
        num_prompts=60 if num_prompts is None else num_prompts,
        num_samples=samples or 4,
    )
    show_tried(tried, as_json=as_json)
    raise typer.Exit(1 if tried.doubts else 0)


def _refuse_idle_options(options: Mapping[str, Any], *, is_with_model: bool) -> None:
    """Raises ValueError if an option was given that nothing of this check reads."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        state = "with" if is_with_model else "without"
        raise ValueError(f"{', '.join(given)} has no effect {state} --model; leave it out")


@policies.command("diff")
def policies_diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="Folder of a policy pack; alone, the edited one.")
    ],
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="B",
            help="Folder of the edited pack. Unset: A is compared with what the warehouse was made "
            "with.",
        ),
    ] = None,
    home: HomeOption = None,
    format_: ReportFormat = "table",
) -> None:
    """Compares two packs, or a pack with a warehouse; says what an edit makes stale, and its cost.

    Nothing is made or written. Words in [-…-] were removed, words in {+…+} were added.
    """
    with user_errors():
        from flows.policy_diff import diff_packs, show_diff

        show_diff(diff_packs(before, after, home), as_json=format_ == "json")


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
        from flows.preflight import check_fill

        loaded = load(recipe, set_)
        check_fill(loaded, rules=rule or (), out=Path(out).resolve())
        outcome = carry_out("fill", work, loaded, home, is_flow=True)
        print_outcome(outcome, "filled", (recipe, home), as_json=as_json)
