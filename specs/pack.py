"""A folder of Markdown files → Pack, checked.

A pack is a folder with one `style.md` (principles and style guidelines) and one Markdown file for
each policy; specs/README.md describes their format. A pack with faults is refused, and the error
tells all of them, each with file, line, fault and remedy.

    pack = load_pack("specs/harbour")
    spec = pack.spec(["boats"])            # all summaries, the style, and boats in full
    spec.text, spec.rule_ids
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from specs.blocks import Block
from specs.pages import Faults, Page
from specs.policy import Outcome, Pack, PackError, Policy
from specs.policy_page import named_items, parse_policy, prose
from specs.rules import EFFECTS, Found

STYLE_FILE = "style.md"
"""The one Markdown file of a pack that is not a policy: its principles and style guidelines."""

_STYLE_SECTIONS = ["Principles", "Authority", *EFFECTS]


def load_pack(path: str | Path) -> Pack:
    """Returns the pack in a folder. Raises PackError with all its faults, one a line."""
    pack, faults = read_pack(path)
    faults.raise_any()
    assert pack is not None
    return pack


def read_pack(path: str | Path) -> tuple[Pack | None, Faults]:
    """Returns the pack in a folder as far as it can be read, and its faults; None without a
    style.md. Raises PackError for a path that is no folder."""
    folder = Path(path)
    if folder.is_file():
        raise PackError(_one_file(folder))
    if not folder.is_dir():
        raise PackError(f"no policy pack at {folder}; give the folder of its Markdown files")
    faults = Faults()
    files, not_read = _files(folder)
    style_path = folder / STYLE_FILE
    style = Page.read(style_path, faults) if style_path in files else None
    if style is None:
        faults.add(folder, None, f"no {STYLE_FILE}", "add it with the pack's principles and style")
    pages = [Page.read(file, faults) for file in files if file != style_path]
    if not pages:
        faults.add(folder, None, "no policy", "add one Markdown file for each category")
    sections = style.sections(_STYLE_SECTIONS) if style else {}
    authorities = named_items(style, sections.get("Authority", [])) if style else ()
    found = Found()
    policies = _policies(pages, [name for name, _ in authorities], found)
    _check_references(found)
    pack = None
    if style:
        pack = Pack(
            id=style.take("id"),
            title=style.take("title"),
            version=style.take("version"),
            principles=prose(style, sections.get("Principles", [])),
            authorities=authorities,
            style=_parse_style(style, sections, found),
            policies=policies,
            not_read=not_read,
        )
        style.refuse_other_keys(["id", "title", "version"])
    return pack, faults


def _one_file(path: Path) -> str:
    """Returns the refusal of a single file, with the faults that it would have as a policy."""
    faults = Faults()
    page = Page.read(path, faults)
    parse_policy(page, None, Found())
    sentence = f"{path}: one file is no pack; give its folder, which needs a {STYLE_FILE}"
    try:
        faults.raise_any()
    except PackError as error:
        return f"{sentence}\n{error}"
    return sentence


_LIKE_A_POLICY = re.compile(r"\.(md|mdx|markdown|mdown|mkdn?)(\.txt)?$", re.IGNORECASE)


def _files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the Markdown files of a pack, and the names of files that look like policies and are
    not read: those of another ending, or in a folder below. Names that begin with a dot are none.
    """
    files, not_read = [], []
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or path.is_dir():
            continue
        # A link to nowhere is read, so that its fault is told; a pipe would never end.
        is_readable = path.is_file() or not path.exists()
        if path.parent == folder and path.suffix == ".md" and is_readable:
            files.append(path)
        elif _LIKE_A_POLICY.search(path.name):
            not_read.append(str(name))
    return files, tuple(not_read)


def _policies(pages: Sequence[Page], authorities: Sequence[str], found: Found) -> dict[str, Policy]:
    """Returns the policies of the pages by id; what keeps a page from being one is a fault."""
    policies: dict[str, Policy] = {}
    owners: dict[str, Page] = {}
    for page in pages:
        policy = parse_policy(page, authorities, found)
        if policy.id in owners:
            page.fault(
                page.line_of("id"),
                f"{owners[policy.id].path.name} also has the id {policy.id!r}",
                "give each policy of a pack its own id",
            )
        if policy.id:
            owners.setdefault(policy.id, page)
            policies.setdefault(policy.id, policy)
    return policies


def _parse_style(
    page: Page, sections: Mapping[str, Sequence[Block]], found: Found
) -> dict[str, str]:
    """Returns the guidelines for answers by outcome; those of an outcome that a rule, case or
    worked example has are required."""
    required = ["Principles", *(outcome.value for outcome in Outcome if outcome in found.outcomes)]
    for heading in _STYLE_SECTIONS:
        if not page.is_read or sections.get(heading):
            continue
        if heading in required:
            page.fault(1, f"no section {heading!r}", f"add '# {heading}' with its guidelines")
        elif heading in sections:
            page.fault(1, f"section {heading!r} has no text", "write it, or drop its heading")
    return {effect: prose(page, sections[effect]) for effect in EFFECTS if sections.get(effect)}


def _check_references(found: Found) -> None:
    """Adds a fault for each rule id that stands twice and each exclusion that points to no rule."""
    owners: dict[str, Page] = {}
    for page, line, rule_id in found.rules:
        if rule_id in owners:
            page.fault(
                line,
                f"rule {rule_id} is also in {owners[rule_id].path.name}",
                "give each rule of a pack its own id",
            )
        owners.setdefault(rule_id, page)
    for page, line, goto in found.exclusions:
        if goto not in owners:
            page.fault(
                line,
                f"exclusion points to {goto!r}, which is not a rule of the pack",
                f"use one of {', '.join(owners)}" if owners else "write the rule",
            )
