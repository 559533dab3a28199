"""The terminal: what comes from data is shown whole and never obeyed."""

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pyarrow as pa
import pytest

from flows import show, terminal
from flows.terminal import Column
from tests.hostile import hostile_texts, is_plain
from warehouse.characters import one_line, visible

PROJECT = Path(__file__).parents[2]
TEXTS = hostile_texts(300, surrogates=True)


@contextmanager
def printed() -> Iterator[io.StringIO]:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        yield out


@pytest.fixture(params=[None, "80"])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """No terminal and no width; a width of 80."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if request.param:
        monkeypatch.setenv("COLUMNS", request.param)
    width: str | None = request.param
    return width


WAYS: list[Callable[[str], None]] = [
    terminal.line,
    terminal.text,
    terminal.heading,
    terminal.as_json,
    lambda text: terminal.line(text, err=True),
    lambda text: terminal.block(text, text, (text, "bold")),
    lambda text: terminal.fields([(text, text)]),
    lambda text: terminal.table([Column(text), Column("n", True)], [[text, "1"]], title=text),
    lambda text: terminal.table([Column(text)], [[text]], title=text, stacked=True),
]


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_no_text_is_obeyed_however_it_is_printed(way: int, columns: str | None) -> None:
    for text in TEXTS:
        with printed() as out:
            WAYS[way](text)
        assert is_plain(out.getvalue()), text


def test_every_text_is_shown_whole() -> None:
    for text in TEXTS:
        with printed() as out:
            terminal.line(text)
            terminal.fields([("answer", text)])
        assert out.getvalue().startswith(one_line(text) + "\n")
        shown = re.sub(r"\s+", "", visible(text))
        assert shown in re.sub(r"\s+", "", out.getvalue().partition("\nanswer:")[2])


def test_markup_and_emoji_codes_are_text() -> None:
    for text in ("a[/red]", "[v2]", "[link=https://example.org]x[/link]", ":smile:", "[bold]x"):
        with printed() as out:
            terminal.table([Column(text)], [[text]], title=text)
        assert out.getvalue().count(text) == 3


def test_line_of_data_cannot_pass_for_another_row_field_or_title(columns: str | None) -> None:
    with printed() as out:
        terminal.block("answer", "yes\nreasoning\n\nscore: 10")
        terminal.fields([("answer", "yes\nscore: 10")])
        terminal.table([Column("answer")], [["yes\nscore: 10"]], title="a\nb")
        terminal.line("source a\nnext: rm -rf /")
    lines = out.getvalue().splitlines()
    assert [line for line in lines if line and not line.startswith("  ")] == [
        "answer", "answer: yes", "a\\nb", "answer: yes", "source a\\nnext: rm -rf /",
    ]  # fmt: skip


def test_rows_that_do_not_fit_stand_vertically_without_a_broken_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [f"word{number:03}" for number in range(200)]
    data = pa.table({"name": ["a", "b"], "rationale": [" ".join(words), "x" * 200]})
    for width in ("80", "120", ""):
        monkeypatch.setenv("COLUMNS", width)
        with printed() as out:
            show.table(data)
        text = out.getvalue()
        assert "name: a\n" in text and "…" not in text and "x" * 200 in text
        assert re.findall(r"word\d+", text) == words
        if width:
            assert max(len(line) for line in text.splitlines() if "x" * 200 not in line) <= int(
                width
            )
        else:
            assert f"rationale: {' '.join(words)}\n" in text


def test_rows_that_fit_are_a_grid_with_numbers_to_the_right(columns: str | None) -> None:
    with printed() as out:
        show.table(pa.table({"stage": ["a", "b"], "rows": [1, 1000], "share": [0.5, None]}))
    lines = [line.strip("│") for line in out.getvalue().splitlines()]
    assert " a     │    1 │   0.5 " in lines and " b     │ 1000 │     – " in lines


def test_no_rows_are_told() -> None:
    with printed() as out:
        show.table(pa.table({"a": pa.array([], pa.string())}), title="Runs")
    assert out.getvalue() == "Runs\nno rows\n"


def test_ids_print_twelve_digits_that_differ_and_all_in_json() -> None:
    ids = [f"{number:012x}" + "0" * 20 for number in range(2)]
    alike = ["0" * 31 + sign for sign in "ab"]
    data = pa.table({"run_id": ids, "twin_id": alike, "answer": ["0" * 32, "no id"]})
    with printed() as out:
        show.table(data)
    text = out.getvalue()
    assert f" {ids[1][:12]} " in text and ids[1] not in text
    assert alike[0] in text and text.count("0" * 32) == 1
    with printed() as out:
        for row in data.to_pylist():
            terminal.as_json(row)
    assert [json.loads(line)["run_id"] for line in out.getvalue().splitlines()] == ids


def test_nothing_prints_by_another_way() -> None:
    other = re.compile(
        r"(?<![\w.])print\(|typer\.(?:echo|secho)|Console\(|\.print\(|sys\.std\w+\.write"
    )
    found = {
        f"{path.name}:{number}"
        for folder in ("flows", "tasks", "specs", "warehouse")
        for path in (PROJECT / folder).rglob("*.py")
        if path.name != "terminal.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if other.search(line)
    }
    assert not found
