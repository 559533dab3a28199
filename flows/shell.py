"""The shell of `precept sql`: statements over the catalog, one after the other, which only read.

Lines are edited by prompt_toolkit. Each statement sees the rows that are there by then, also those
that a run has committed meanwhile. Nothing that goes wrong in a statement ends the shell.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from flows import terminal
from flows.completion import CatalogCompleter
from flows.errors import tell
from flows.interrupt import interrupts_raised
from flows.reading import Format, print_rows, question_folders
from warehouse.catalog import QuestionError
from warehouse.characters import one_line
from warehouse.definitions import described, described_macros
from warehouse.home import Home
from warehouse.questions import find_question, list_questions
from warehouse.session import Session, is_complete, split_statements
from warehouse.upkeep import damage_named

_MOST_ROWS = 40
"""Rows that a statement prints unless the user says otherwise."""
_FORMATS: tuple[Format, ...] = ("table", "json", "csv")
_HELP = (
    (".ask [NAME]", "Answers a question of precept ask; lists them without a name."),
    (".help", "Prints this; so does \\?."),
    (".limit N", "Prints at most N rows of a statement; .limit all prints them all."),
    (".macros", "Lists the functions that the views share."),
    (".mode FORMAT", "Prints rows as table, json or csv."),
    (".quit", "Leaves; so do Ctrl-D, .exit, exit and quit."),
    (".schema NAME", "Lists the columns of a table or view."),
    (".tables [START]", "Lists the tables and views, or those whose names start so."),
)
_LEAVE = ("exit", "quit", ".exit", ".quit", "\\q")


def open_shell(home: Home, kind: Format, *, limit: int | None = None) -> None:
    """Reads statements from the terminal and prints their rows until the user leaves.

    Raises QuestionError for a format that no terminal shows.
    """
    if kind not in _FORMATS:
        raise QuestionError(f"the shell prints {', '.join(_FORMATS)}, not {kind}; give one of them")
    shell = _Shell(home, kind, limit)
    # A warehouse that cannot be read is told now, not at the first statement.
    shell.session.words()
    terminal.lines(
        f"warehouse: {home.url}",
        "It can only be read. End a statement with a semicolon; Tab completes names, .tables lists",
        "the tables, .ask the questions and .help the rest; Ctrl-D leaves.",
    )
    with interrupts_raised():
        shell.loop()


class _Shell:
    """The settings of one shell, and its commands."""

    def __init__(self, home: Home, kind: Format, limit: int | None) -> None:
        self.session = Session(home)
        self._home = home
        self._kind = kind
        self._limit: int | None = _MOST_ROWS if limit is None else limit
        self._commands: dict[str, Callable[[str], None]] = {
            ".ask": self._ask,
            ".help": self._help,
            ".limit": self._set_limit,
            ".macros": self._macros,
            ".mode": self._set_mode,
            ".schema": self._schema,
            ".tables": self._tables,
            "\\?": self._help,
        }

    def loop(self) -> None:
        """Reads and runs until the user leaves."""
        prompt = _prompt_session(CatalogCompleter(self.session, list(self._commands)))
        while True:
            try:
                text = prompt.prompt("precept> ")
            except KeyboardInterrupt:
                continue  # the line is cleared
            except EOFError:
                return
            if text.strip().rstrip(";").strip().lower() in _LEAVE:
                return
            try:
                self._run(text.strip())
            except KeyboardInterrupt:
                terminal.line("interrupted", err=True)
            except Exception as error:
                terminal.line(tell(error).sentence, err=True)

    def _run(self, text: str) -> None:
        if text.startswith((".", "\\")):
            name, _, argument = text.rstrip(";").partition(" ")
            if name not in self._commands:
                raise QuestionError(f"no command {name!r}; .help lists them")
            self._commands[name](argument.strip())
            return
        for statement in split_statements(text):
            self._print(statement)

    def _print(self, statement: str) -> None:
        """Prints the rows of a statement, and how many there are."""
        began = time.monotonic()
        most = None if self._limit is None else self._limit + 1
        with damage_named(self._home):
            rows = self._in_thread(lambda: self.session.run(statement, limit=most).read_all())
        seconds = time.monotonic() - began
        shown = rows if self._limit is None else rows.slice(0, self._limit)
        print_rows(shown.to_reader(), self._kind)
        count = f"{shown.num_rows} row{'' if shown.num_rows == 1 else 's'}"
        if shown.num_rows < rows.num_rows:
            count = f"the first {shown.num_rows} rows (.limit all prints the others)"
        terminal.line((f"{count}, {seconds:.2f} s", "dim"), err=True)

    def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Returns what a function returns; Ctrl-C ends the statement that it runs."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work)
            try:
                return future.result()
            except KeyboardInterrupt:
                self.session.interrupt()
                raise

    def _ask(self, name: str) -> None:
        folders = question_folders(None)
        if name:
            self._print(find_question(name, folders).text)
        else:
            terminal.entries([(one.name, one.sentence) for one in list_questions(folders)])

    def _help(self, argument: str) -> None:
        terminal.entries(_HELP)

    def _macros(self, argument: str) -> None:
        terminal.entries([*described_macros().items()])

    def _tables(self, start: str) -> None:
        found = [(name, text) for name, text in described().items() if name.startswith(start)]
        if not found:
            raise QuestionError(f"no table or view starts with {start!r}; .tables lists all")
        terminal.entries(found)

    def _schema(self, name: str) -> None:
        if not name:
            raise QuestionError("name a table or view, such as .schema completions")
        found = self.session.describe(name)
        terminal.entries(
            [(one.name, ". ".join(filter(None, [one.type, one.sentence]))) for one in found]
        )

    def _set_mode(self, name: str) -> None:
        kinds = [one for one in _FORMATS if one == name]
        if not kinds:
            raise QuestionError(f"no mode {name!r}; give one of {', '.join(_FORMATS)}")
        [self._kind] = kinds

    def _set_limit(self, number: str) -> None:
        if number != "all" and not number.isdecimal():
            raise QuestionError(f"no number of rows: {number!r}; give a whole number, or all")
        self._limit = None if number == "all" else int(number)


def _prompt_session(completer: Completer) -> PromptSession[str]:
    """Returns the editor of lines, in which Enter ends a statement or begins its next line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        text = event.current_buffer.text.strip()
        is_command = not text or text.startswith((".", "\\")) or text.lower() in _LEAVE
        if is_command or is_complete(text):
            event.current_buffer.validate_and_handle()
        else:
            event.current_buffer.newline(copy_margin=False)

    return PromptSession(
        multiline=True,
        key_bindings=keys,
        prompt_continuation="     ... ",
        lexer=PygmentsLexer(SqlLexer),
        completer=completer,
        complete_while_typing=False,
        complete_in_thread=True,
        history=_history(),
        enable_open_in_editor=True,
    )


def _history() -> History:
    """Returns what was typed before, from a file in the user's cache folder."""
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        path = Path(cache) / "precept" / "sql_history"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(str(path))
    # An account without a home, as in a container, has no folder for it.
    except (OSError, RuntimeError) as error:
        terminal.line(f"precept: no history is kept: {one_line(str(error))}", err=True)
        return InMemoryHistory()
