"""The sub-commands of `precept policies`, which help the authors of policy packs."""

import shlex
from typing import Annotated

import typer

from flows import terminal
from flows.command import app, user_errors

policies = typer.Typer(help="Policy packs.", no_args_is_help=True)
app.add_typer(policies, name="policies")


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
