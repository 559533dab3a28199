"""A pack that uses every part of the format, and the spec that it comes to."""

from pathlib import Path

STYLE = """---
id: rental
title: A boat rental
version: 1
---
# Principles
Help guests first.
# Authority
- platform: the rental's own rules
- developer: the operator of one pier
- user: the guest
# refuse
Say sorry.
# guide
Write two sentences.
"""

BOATS = """---
id: boats
title: Boats
version: 1
refuse: boats at night
guide: how to name boats
authority: platform
---
# Goal
Guests come home.

They come home dry.
# Scope
Holds for:
- boats
  1. with oars
  2. with sails
# Terms
- **night**: the dark hours
  - dusk counts
# Levels
- **high**: a danger to life
- low: a nuisance
# Rules
## B1 Night (refuse, developer, high)
No boat leaves at night. The hours:

| month | from |
|---|---|
| May | 9 \\| 10 |

Then this:

```text
Case: x (comply)
  - B9
```
- Includes: a raft
- Excludes: a moored boat
  - with a rope
- Excludes: names -> B2
- Case: May I row at midnight? -> refuse
  - Because: It is dark.
  - even by torch
- Unclear: If the hour is not given, ask.

### Example: An early row (refuse)
System: You rent boats.
Answer in rhyme.

Developer: Night rents are fine.

User: A boat at
four, please?

Good answer: Sorry.

Come at noon.

Bad answer: Sure:
- oars
- rope

Because: It is night.
## B2 Names (guide)
Name a boat by its number.
- Case: Which boat is mine?
  - Because: Names change.
### Example: A name
User: Which?
Answer: Boat 7.
# When unclear
- If two rules hold, take the safer.
# Style
Be brief.
"""

SPEC = """# Policies
- boats: refuse boats at night; guide how to name boats
# Principles
Help guests first.
# Authority
From highest to lowest; a lower one cannot override a higher one.
- platform: the rental's own rules
- developer: the operator of one pier
- user: the guest
# Style
- refuse: Say sorry.
- guide: Write two sentences.
# Policy boats (platform)
Goal: Guests come home. They come home dry.
Scope: Holds for:
  - boats
    1. with oars
    2. with sails
- night: the dark hours
  - dusk counts
Level high: a danger to life
Level low: a nuisance
Rules marked guide neither comply nor refuse; they say how to answer.
- Night [B1, refuse, high, developer]: No boat leaves at night. The hours:
    | month | from |
    |---|---|
    | May | 9 \\| 10 |
    Then this:
    ```text
    Case: x (comply)
      - B9
    ```
  Includes: a raft
  Excludes: a moored boat
    - with a rope
  Excludes: names (see B2)
  Case: May I row at midnight? (refuse), because It is dark.
    - even by torch
  Unclear: If the hour is not given, ask.
  Example: An early row (refuse)
    System: You rent boats. Answer in rhyme.
    Developer: Night rents are fine.
    User: A boat at four, please?
    Good answer: Sorry.
      Come at noon.
    Bad answer: Sure:
      - oars
      - rope
    Because: It is night.
- Names [B2, guide]: Name a boat by its number.
  Case: Which boat is mine? (because Names change.)
  Example: A name
    User: Which?
    Answer: Boat 7.
Unclear: If two rules hold, take the safer.
Style: Be brief."""


def write_grown(folder: Path) -> Path:
    """Writes the pack into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "style.md").write_text(STYLE, encoding="utf-8")
    (folder / "boats.md").write_text(BOATS, encoding="utf-8")
    return folder
