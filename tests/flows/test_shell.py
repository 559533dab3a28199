"""The shell of `precept sql`: it goes on after whatever a person types, and only reads."""

import shutil
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from flows.completion import CatalogCompleter
from flows.shell import open_shell
from tests.rows import completion
from tests.warehouse.test_catalog import write_small_warehouse
from warehouse.catalog import QuestionError
from warehouse.definitions import described, listed_views
from warehouse.home import Home
from warehouse.session import Session, is_complete, split_statements
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS

ENTER, CTRL_C, CTRL_D, UP = "\r", "\x03", "\x04", "\x1b[A"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    home = Home(str(tmp_path / "home"))
    write_small_warehouse(home)
    return home


def typed(home: Home, *keys: str, kind: str = "json") -> None:
    """Opens the shell for a person who presses these keys and leaves."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text("".join([*keys, CTRL_D]))
        open_shell(home, kind)  # type: ignore[arg-type]


def test_errors_are_one_line_each_and_the_shell_goes_on(
    small: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path(small.url).rglob("*"))
    typed(
        small,
        f"selec 1;{ENTER}",
        f"drop view verdicts;{ENTER}",
        f"copy prompts to 'x.csv';{ENTER}",
        f".nope{ENTER}",
        f".mode parquet{ENTER}",
        f"a line that is cleared{CTRL_C}",
        f"select 6 +{ENTER}1 as n;{ENTER}",
    )
    out, err = capsys.readouterr()
    assert out.endswith('[\n{"n": 7}\n]\n')
    faults = [line for line in err.splitlines() if line.startswith("precept: ")]
    assert len(faults) == 5
    for part, fault in zip(("selec", "DROP", "COPY", ".nope", "parquet"), faults, strict=True):
        assert part in fault
    assert sorted(Path(small.url).rglob("*")) == before and not Path("x.csv").exists()


def test_statement_may_have_several_lines_and_a_line_several_statements(
    small: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(
        small,
        f"select ';' as a{ENTER}-- not yet;{ENTER};{ENTER}select 1 as b; select 2 as c;{ENTER}",
    )
    out, _ = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("{")] == [
        '{"a": ";"}',
        '{"b": 1}',
        '{"c": 2}',
    ]


def test_commands_list_tables_columns_macros_and_questions(
    small: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("queries").mkdir()
    Path("queries", "mine.sql").write_text(
        "-- The number of prompts.\nselect count(*) n from prompts"
    )
    typed(
        small,
        *(f"{command}{ENTER}" for command in (".tables", ".schema completions", ".macros")),
        *(f"{command}{ENTER}" for command in (".ask", ".ask mine", "\\?", ".limit 1")),
        f"from range(3);{ENTER}",
    )
    out, err = capsys.readouterr()
    for line in (
        "verdicts ",
        "completion_id VARCHAR. Hash of prompt",
        "content_id(parts) ",
        "mine The number of prompts.",
        '{"n": 2}',
        ".quit ",
    ):
        assert line in " ".join(out.split())
    assert "the first 1 rows" in err and '{"range": 1}' not in out


def test_what_was_typed_is_remembered_for_the_user_alone(
    small: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(small, f"select 41 as n;{ENTER}")
    history = tmp_path / "cache" / "precept" / "sql_history"
    assert "select 41 as n;" in history.read_text() and history.stat().st_mode & 0o077 == 0
    capsys.readouterr()
    typed(small, f"{UP}{ENTER}")
    assert '{"n": 41}' in capsys.readouterr().out


def test_shell_without_a_cache_folder_keeps_no_history(
    small: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    (cache / "precept" / "sql_history").mkdir(parents=True)
    typed(small, f"select 1 as n;{ENTER}")
    shutil.rmtree(cache)
    cache.write_text("a file")
    typed(small, f"select 2 as n;{ENTER}")
    out, err = capsys.readouterr()
    assert '{"n": 1}' in out and '{"n": 2}' in out
    assert err.count("no history is kept") == 2


def test_format_that_no_terminal_shows_is_refused(small: Home) -> None:
    with pytest.raises(QuestionError, match="prints table, json, csv, not parquet"):
        typed(small, kind="parquet")


def test_rows_that_are_committed_meanwhile_are_seen_by_the_next_statement(small: Home) -> None:
    session = Session(small)

    def count() -> int:
        return int(session.run("SELECT count(*) n FROM completions_all").read_all()["n"][0].as_py())

    before = count()
    assert count() == before
    write_shard(small, COMPLETIONS, [completion("later")])
    assert count() == before + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from verd", "verdicts"),
        ("select min_sc from verdicts", None),
        ("select v. from verdicts v", None),
        (".ask funn", "funnel"),
        (".schema exam", "examples"),
        (".sch", ".schema"),
        ("select list_conc", "list_concat"),
        ("sel", "select"),
    ],
)
def test_names_are_completed(small: Home, text: str, expected: str | None) -> None:
    completer = CatalogCompleter(Session(small), [".schema", ".ask"])
    place = {"select min_sc from verdicts": 13, "select v. from verdicts v": 9}.get(text, len(text))
    found = [one.text for one in completer.get_completions(Document(text, place), CompleteEvent())]
    if expected is None:
        assert found[0] in ("min_score", "completion_id")
    else:
        assert expected in found


def test_questions_that_cannot_be_listed_leave_completion_without_names(small: Home) -> None:
    Path("queries").mkdir()
    Path("queries", "funnel.sql").write_text("-- Has the name of another.\nselect 1")
    completer = CatalogCompleter(Session(small), [".ask"])
    assert not [*completer.get_completions(Document(".ask funn", 9), CompleteEvent())]


def test_every_view_of_data_is_listed_with_a_sentence() -> None:
    assert {*listed_views()} <= {*described()}


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("select 1;", True),
        ("select 1 ; ", True),
        ("select 1", False),
        ("select ';", False),
        ("select ';'", False),
        ("select ';';", True),
        ("select 1; -- done", True),
        ("select 1 -- ;", False),
        ("select 1 /* ;", False),
        ('select 1 as "a;', False),
        ("select $$it's$$;", True),
        ("select $a$ $$;", False),
        ("select E'it\\'s';", True),
        ("select 'a\\';", True),
    ],
)
def test_statement_ends_on_a_semicolon_that_is_no_text(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


def test_statements_of_a_line_are_told_apart() -> None:
    assert len(split_statements("select ';'; from range(2); ")) == 2
