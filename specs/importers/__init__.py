"""Documents that state policies in other forms → policy packs, with what has no place in them."""

import re
from dataclasses import replace
from typing import Literal, get_args

from specs.importers import classifier, model_spec, taxonomy
from specs.importers.imported import Imported, NotPlaced, lines_of, lost_lines
from specs.importers.prompt_sections import read_sections
from specs.pages import CONTROL

__all__ = ["KINDS", "MARKS", "Imported", "Kind", "NotPlaced", "import_pack", "kind_of"]

Kind = Literal["model_spec", "classifier", "taxonomy"]
KINDS = get_args(Kind)

MARKS = {
    "model_spec": model_spec.MARKS,
    "classifier": classifier.MARKS,
    "taxonomy": taxonomy.MARKS,
}
"""The syntax of each kind of document, which is no words."""
_ANCHORED = re.compile(r"^#+ .*\{#[\w-]+[^}]*\}\s*$", re.MULTILINE)


def kind_of(text: str) -> Kind | None:
    """Returns the kind of a document, or None if its form does not tell.

    A heading with an anchor such as `{#be_clear}` makes a Model Spec; a heading for what violates
    and one for what is safe, for terms or for examples make a classifier's prompt. Of taxonomies,
    only the lists in the prompts of Llama Guard and ShieldGemma have a form of their own.
    """
    if _ANCHORED.search(text):
        return "model_spec"
    if taxonomy.FORMS.search(text):
        return "taxonomy"
    sections = read_sections(lines_of(text))
    outcomes = {section.effect() for section in sections}
    roles = {section.role for section in sections}
    if outcomes & {"refuse", "safe_complete"} and (
        "comply" in outcomes or roles & {"definitions", "examples"}
    ):
        return "classifier"
    return None


def import_pack(
    text: str, kind: Kind, *, name: str = "policy", outcome: str = "refuse"
) -> Imported:
    """Returns the pack of a document of that kind.

    `name` is the category of a prompt without a title, `outcome` that of a taxonomy's rules. Every
    line of the document that has words is in the pack, or listed as not placed. Raises ValueError
    if the document has nothing to make a pack of, or holds a control character.
    """
    for number, line in enumerate(lines_of(text), 1):
        control = CONTROL.search(line)
        if control:
            raise ValueError(
                f"line {number} holds control character U+{ord(control[0]):04X}; take it out"
            )
    if kind == "model_spec":
        imported = model_spec.import_model_spec(text)
    elif kind == "classifier":
        imported = classifier.import_classifier(text, name)
    else:
        imported = taxonomy.import_taxonomy(text, outcome)
    packed = "\n".join(imported.files.values())
    lost = lost_lines(text, packed, imported.not_placed, MARKS[kind])
    missed = [
        NotPlaced(line=line, text=words.strip(), reason="a line that the importer does not read")
        for line, words in lost
    ]
    listed = sorted((*imported.not_placed, *missed), key=lambda item: item.line)
    return replace(imported, not_placed=tuple(listed))
