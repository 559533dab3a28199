"""A check tells faults and findings of a pack at once, each with file and line."""

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from flows.__main__ import app
from tests.specs.town import FISH, write_pack

BOATS = """---
id: boats
title: Boats
version: 1
comply: sound boats, raft
refuse: leaking boats
safe_complete: boats of others
---

# Terms

- **hull**: the shell of a boat
- **keel**: the spine of a hull

# Rules

## B1 Skiff (comply)

It is sound where appropriate.

- Excludes: rowing at night -> B2
- Case: may I row -> comply

## B2 Raft (refuse)

It leaks at the **bilge**.

- Excludes: rowing at night -> B1
- Case: may I row -> refuse

## B3 Skiff (refuse)

Leaking boats sink.
"""
PLANTED = {
    ("boats.md", 5, "the summary puts 'raft' under comply, and rule B2 (refuse) is about it"),
    ("boats.md", 7, "the summary says what to safe-complete, and no rule of boats does so"),
    ("boats.md", 13, "term 'keel' is never used"),
    ("boats.md", 19, "rule B1 says 'where appropriate', which does not say when it fits"),
    ("boats.md", 21, "an exclusion leads in a circle: B1 -> B2 -> B1"),
    ("boats.md", 26, "rule B2 marks 'bilge' as a term, which nothing defines"),
    ("boats.md", 29, "a case of rule B2 is nearly that of rule B1, which is comply and not refuse"),
    ("boats.md", 31, "rules B1 and B3 have the same title"),
    ("boats.md", 31, "rule B3 has no case"),
    ("fish.md", 6, "unknown key 'safe-complete' in front matter"),
    ("fish.md", 11, "unknown outcome 'safe'"),
    ("fish.md", 15, "exclusion points to 'F9', which is not a rule of the pack"),
}
BAD_FISH = (
    FISH.replace("safe_complete:", "comply: cod\nsafe-complete:").replace(
        "(safe_complete)", "(safe)"
    )
    + "\n- Excludes: a cod of others -> F9\n"
)


def test_twelve_planted_faults_are_told_at_once_and_nothing_else_but_their_echo(
    tmp_path: Path,
) -> None:
    folder = write_pack(tmp_path / "town", boats=BOATS, fish=BAD_FISH)
    ended = CliRunner().invoke(app, ["policies", "check", str(folder)])
    lines = [line.removeprefix("precept: ") for line in ended.output.splitlines()]
    told = {
        (match["file"], int(match["line"]), match["text"])
        for line in lines
        if (match := re.match(rf"{folder}/(?P<file>\S+):(?P<line>\d+): (?P<text>.+?); ", line))
    }
    assert ended.exit_code == 2
    assert told >= PLANTED
    # The circle is told at both of its ends.
    assert told - PLANTED == {("boats.md", 28, "an exclusion leads in a circle: B2 -> B1 -> B2")}


def test_faults_stand_in_the_json_beside_the_findings(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "town", boats=BOATS, fish=BAD_FISH)
    ended = CliRunner().invoke(app, ["policies", "check", str(folder), "--format", "json"])
    told = json.loads(ended.stdout)
    assert (ended.exit_code, len(told["faults"]), told["policies"]) == (2, 3, [])
    assert {finding["path"] for finding in told["findings"]} == {f"{folder}/boats.md"}
