"""Two packs, or a pack and the specs that rows were made under → what differs, word by word."""

import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Literal

from specs.parts import Change, changes
from specs.policy import Pack

Piece = tuple[Literal["same", "removed", "added"], str]
"""Words that stand in both texts, or in one of them."""
_WORD = re.compile(r"\n[ ]*|[^\s]+[ ]?|[ ]+")


def full_texts(pack: Pack) -> list[str]:
    """Returns the full spec of each category of a pack."""
    return [pack.spec([category]).text for category in pack.policies]


def pack_changes(
    before: Sequence[str], after: Sequence[str], *, names: tuple[str, str] = ("A", "B")
) -> list[Change]:
    """Returns the parts in which the specs of two packs differ; `names` are those of the packs, for
    a policy that one of them lacks."""
    sides = {"only in A": f"only in {names[0]}", "only in B": f"only in {names[1]}"}
    return [
        replace(change, change=sides.get(change.change, change.change))
        for change in changes(before, after)
    ]


def word_pieces(before: str, after: str) -> list[Piece]:
    """Returns the pieces of an edited text, in reading order.

    ("raft is stolen", "raft is unsafe") → [same "raft is ", removed "stolen", added "unsafe"]
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    pieces: list[Piece] = []
    matcher = SequenceMatcher(a=old, b=new, autojunk=False)
    for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        removed, added = "".join(old[old_start:old_end]), "".join(new[new_start:new_end])
        if tag == "equal":
            pieces.append(("same", added))
            continue
        pieces += [("removed", removed)] if removed else []
        pieces += [("added", added)] if added else []
    return pieces
