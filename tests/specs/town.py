"""A small pack of two policies, as text: what the tests of policies and packs write and break."""

from pathlib import Path

STYLE = """---
id: town
title: The town
version: 1
---

# Principles

Help where the rules allow it.

# comply

Name what to take.

# refuse

Say sorry.

# safe_complete

Name who can help.
"""

BOATS = """---
id: boats
title: Boats
version: 1.10
comply: sound boats
refuse: leaking boats
---

# Terms

- **hull**: the shell of a boat

# Rules

## B1 Skiff (comply)

It is safe
on a calm day.

- Includes: skiff -> shore
- Excludes: rowing at night -> B2
- Case: may I row -> comply

## B2 Raft (refuse)

It leaks.

# Style

Be brief.
"""

FISH = """---
id: fish
title: Fish
version: 1
safe_complete: rare fish
---

# Rules

## F1 Cod (safe_complete)

Send them to the weaver.
"""


def write_pack(folder: Path, **changes: str) -> Path:
    """Writes the pack into a folder; `changes` are other texts of its files, by their stems."""
    folder.mkdir(exist_ok=True)
    for name, text in {"style": STYLE, "boats": BOATS, "fish": FISH, **changes}.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return folder
