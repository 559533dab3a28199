"""The commands that read policies of other forms into a pack, and write a pack's policies out."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows import terminal
from flows.command import user_errors
from flows.policies import policies

NOT_PLACED = "not_placed.txt"
"""The file of an imported pack that lists what is not in it; the ending keeps it from being read as
a policy."""

Kind = Literal["model_spec", "classifier", "taxonomy"]
Labels = Literal["binary", "names", "json"]
Effect = Literal["refuse", "comply", "safe_complete", "guide"]


@policies.command("import")
def policies_import(
    source: Annotated[str, typer.Argument(help="The document: Markdown or plain text.")],
    folder: Annotated[str, typer.Argument(help="Folder of the new pack.")],
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="`model_spec`: OpenAI's Model Spec. `classifier`: the prompt of a safeguard "
            "classifier. `taxonomy`: a paragraph a category. Unset: told by the document's form."
        ),
    ] = None,
    outcome: Annotated[
        Effect, typer.Option(help="Outcome of the rules made of a taxonomy.")
    ] = "refuse",
) -> None:
    """Makes a policy pack of a document, and lists what of it has no place there."""
    with user_errors():
        from specs.importers import import_pack

        text = _read(Path(source))
        place = Path(folder)
        if place.exists():
            raise ValueError(f"{folder} exists; give the name of a new folder")
        kind = kind or _kind_of(text, source)
        try:
            imported = import_pack(text, kind, name=Path(source).stem, outcome=outcome)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        listed = [f"{item.line}: {item.text} ({item.reason})" for item in imported.not_placed]
        files = {**imported.files, NOT_PLACED: "\n".join(listed) + "\n"}
        _write(place, files if listed else dict(imported.files))
        _print_imported(imported, folder)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error


def _kind_of(text: str, source: str) -> Kind:
    from specs.importers import KINDS, kind_of

    kind = kind_of(text)
    if kind is None:
        kinds = ", ".join(f"--kind {name}" for name in KINDS)
        raise ValueError(f"the form of {source} does not tell its kind; give one of {kinds}")
    terminal.line(f"precept: {source} reads as {kind}; --kind names another", err=True)
    return kind


def _write(place: Path, files: dict[str, str]) -> None:
    """Writes the files of a new folder, all together or not at all."""
    place = place.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as temporary:
        whole = Path(temporary) / "pack"
        whole.mkdir()
        for name, text in files.items():
            (whole / name).write_text(text, encoding="utf-8")
        shutil.move(whole, place)


def _print_imported(imported: Any, folder: str) -> None:
    terminal.line(
        f"{folder}: {imported.num_sections} sections, {imported.num_rules} rules, "
        f"{imported.num_examples} examples"
    )
    reasons = Counter(item.reason for item in imported.not_placed)
    for reason, count in reasons.most_common():
        terminal.line(f"not placed: {count:4} × {reason}")
    if reasons:
        terminal.line(f"{folder}/{NOT_PLACED} lists each with its line")
    for sentence in imported.to_finish:
        terminal.line(f"to finish: {sentence}")
    terminal.line(f"next: precept policies check {folder}")


@policies.command("export")
def policies_export(
    pack: Annotated[str, typer.Argument(help="Folder of a policy pack.")],
    categories: Annotated[
        list[str] | None, typer.Argument(help="Categories to export. Unset: all, with `--out`.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="New folder for a file each. Unset: one policy is printed."),
    ] = None,
    labels: Annotated[
        Labels,
        typer.Option(
            help="How the classifier replies. `binary`: 1 or 0. `names`: refuse, safe_complete or "
            "comply. `json`: 1 or 0 with the id of the rule."
        ),
    ] = "binary",
    examples: Annotated[
        int | None, typer.Option(help="Most examples of a prompt. Unset: all.", min=0)
    ] = None,
) -> None:
    """Writes policies as prompts that open safeguard classifiers read."""
    with user_errors():
        from specs.export import export_policy

        chosen = _chosen(pack, categories)
        if out is None and len(chosen) != 1:
            raise ValueError(f"{len(chosen)} policies cannot be printed as one; give --out FOLDER")
        if out is not None and Path(out).exists():
            raise ValueError(f"{out} exists; give the name of a new folder")
        exported = {
            policy.id: export_policy(policy, labels=labels, most=examples) for policy in chosen
        }
        if out is None:
            terminal.text(next(iter(exported.values())).text, end="")
        else:
            _write(Path(out), {f"{name}.md": one.text for name, one in exported.items()})
        for name, one in exported.items():
            _tell_exported(name, one)


def _chosen(pack: str, categories: Sequence[str] | None) -> list[Any]:
    from specs.pack import load_pack

    loaded = load_pack(pack)
    for name in categories or ():
        if name not in loaded.policies:
            known = ", ".join(loaded.policies)
            raise ValueError(f"pack {pack} has no category {name!r}; use one of {known}")
    return [loaded.policies[name] for name in categories or loaded.policies]


def _tell_exported(name: str, exported: Any) -> None:
    """Tells on stderr how long a prompt is, and what of the policy it leaves out."""
    from specs.export import BEST_TOKENS, tokens_of

    tokens = tokens_of(exported.text)
    words = f"{name}: about {tokens} tokens, {exported.num_examples} examples"
    if exported.left_out:
        words += f"; without {', '.join(exported.left_out)}"
    if tokens > BEST_TOKENS:
        words += f"; safeguard classifiers do best with {BEST_TOKENS} or fewer"
    terminal.line(f"precept: {words}", err=True)
