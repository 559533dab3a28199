"""A check tells faults and findings of a pack at once, each with file and line."""

import json
import re
from pathlib import Path

import pytest
from click.testing import Result
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


Told = set[tuple[str, int, str]]


def check(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["policies", "check", str(folder), *options])


def told_of(folder: Path, ended: Result) -> Told:
    lines = [line.removeprefix("precept: ") for line in ended.output.splitlines()]
    return {
        (match["file"], int(match["line"]), match["text"])
        for line in lines
        if (match := re.match(rf"{folder}/(?P<file>\S+):(?P<line>\d+): (?P<text>.+?); ", line))
    }


def test_twelve_planted_faults_are_told_at_once_and_nothing_else(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "town", boats=BOATS, fish=BAD_FISH)
    ended = check(folder)
    assert ended.exit_code == 2
    assert told_of(folder, ended) == PLANTED


def test_a_file_with_a_fault_is_checked_for_what_its_words_alone_tell(tmp_path: Path) -> None:
    vague = BAD_FISH.replace("Send them to the weaver.", "Send them where appropriate.")
    folder = write_pack(tmp_path / "town", boats=BOATS, fish=vague)
    ended = check(folder)
    fault = "rule F1 says 'where appropriate', which does not say when it fits"
    assert told_of(folder, ended) - PLANTED == {("fish.md", 13, fault)}
    assert f"checked in part: {folder}/fish.md" in ended.output


def test_a_file_that_is_not_utf_8_hides_no_fault_of_another(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "town", boats=BOATS)
    (folder / "fish.md").write_bytes(b"---\nid: caf\xe9\n")
    ended = check(folder)
    assert ended.exit_code == 2
    told = told_of(folder, ended)
    assert {line for file, line, _ in told if file == "fish.md"} == {2}
    assert {one for one in PLANTED if one[0] == "boats.md"} <= told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--full", "9"], "--full '9' is no range"),
        (["-n", "3"], "-n has no effect without --model"),
        (["--model", "harbour", "--full", "0-9"], "--full has no effect with --model"),
    ],
)
def test_an_option_that_means_nothing_is_refused(
    tmp_path: Path, options: list[str], message: str
) -> None:
    ended = check(write_pack(tmp_path / "town"), *options)
    assert (ended.exit_code, message in ended.output) == (2, True), ended.output


def test_sizes_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = check(Path("specs/safety"))
    assert ended.exit_code == 0
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert re.search(r"^self_harm +13 +6 +1 +6 +45 +4$", ended.stdout, re.MULTILINE)


def test_faults_stand_in_the_json_beside_the_findings(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "town", boats=BOATS, fish=BAD_FISH)
    ended = check(folder, "--format", "json")
    told = json.loads(ended.stdout)
    assert (ended.exit_code, len(told["faults"]), told["policies"]) == (2, 3, [])
    assert {finding["path"] for finding in told["findings"]} == {f"{folder}/boats.md"}
    assert told["in_part"] == [f"{folder}/fish.md"]
