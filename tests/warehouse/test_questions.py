"""Questions of a user's own stand beside those that ship, and can do nothing but read."""

from pathlib import Path

import pytest

from tests.flows.test_command_line import home, invoke
from warehouse.catalog import QuestionError
from warehouse.home import Home
from warehouse.questions import Question, answer, find_question, list_questions, read_variables

__all__ = ["home"]


def own(folder: Path, name: str, text: str) -> Path:
    path = folder / "queries" / f"{name}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_shipped_question_is_told_in_one_whole_sentence() -> None:
    for question in list_questions([]):
        assert question.sentence.endswith(".") and question.sentence[0].isupper()
        assert question.doc.startswith(question.sentence)
        assert ". " not in question.sentence


def test_own_questions_lie_beside_the_recipe_and_in_the_working_folder(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "project" / "recipe.toml"
    own(
        recipe.parent,
        "beside",
        "-- Prompts of the project. More of it.\nselect count(*) n from prompts",
    )
    recipe.write_text("")
    own(tmp_path, "here", "-- Verdicts.\nselect verdict from verdicts order by 1;")
    _, out, _ = invoke("ask", "--recipe", str(recipe))
    assert "beside                 Prompts of the project.\n" in out and "here " in out
    assert "More of it" not in out and "funnel " in out
    assert "Prompts of the project." not in invoke("ask")[1]
    code, out, _ = invoke("ask", "beside", "--recipe", str(recipe), "--home", home, "--json")
    assert (code, out) == (0, '[\n{"n": 1}\n]\n')
    assert '{"verdict": "accepted"}' in invoke("ask", "here", "--home", home, "--json")[1]
    code, _, err = invoke("ask", "beside", "--home", home)
    assert code == 2 and "no query 'beside'; there are" in err and "here" in err
    code, _, err = invoke("ask", "here", "--recipe", "none.toml", "--home", home)
    assert code == 2 and "none.toml" in err and err.count("\n") == 1


def test_own_question_with_the_name_of_another_is_refused(tmp_path: Path) -> None:
    path = own(tmp_path / "a", "funnel", "-- Mine.\nselect 1")
    with pytest.raises(QuestionError, match=r"funnel\.sql has the name of a question that ships"):
        find_question("funnel", [tmp_path / "a"])
    with pytest.raises(QuestionError, match="rename it"):
        list_questions([tmp_path / "a"])
    assert find_question("worst", [tmp_path / "a"]).is_shipped
    path.rename(path.with_stem("mine"))
    own(tmp_path / "b", "mine", "-- Mine.\nselect 1")
    with pytest.raises(QuestionError, match=r"question in .*a/queries/mine.sql; rename it"):
        find_question("mine", [tmp_path / "a", tmp_path / "b"])
    assert find_question("mine", [tmp_path / "a", tmp_path / "a" / "."]).name == "mine"


@pytest.mark.parametrize(
    "text",
    ["copy prompts to 'x.csv'", "from read_text('/etc/hosts')", "select 1; select 2", "drop"],
)
def test_own_question_can_only_read(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    own(tmp_path, "mine", f"-- Mine.\n{text}")
    code, out, err = invoke("ask", "mine", "--home", home)
    assert (code, out) == (2, "") and "queries/mine.sql: " in err and err.count("\n") == 1
    assert not Path("x.csv").exists()


def test_question_reads_variables_of_the_command_line(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own(tmp_path, "mine", "-- The variable.\nselect coalesce(getvariable('q')::double, 0.1) as q")
    command = ("ask", "mine", "--home", home, "--json")
    assert '{"q": 0.1}' in invoke(*command)[1]
    assert '{"q": 0.3}' in invoke(*command, "--variable", "q=0.3")[1]
    for wrong in ("q", "q 1=2", "Q=1"):
        code, _, err = invoke(*command, "--variable", wrong)
        assert code == 2 and "write it as in q=0.3" in err
    with pytest.raises(QuestionError, match="q is set twice"):
        read_variables(["q=1", "q=2"])


def test_shipped_question_reads_variables(home: str) -> None:
    question = find_question("goodness", [])
    answer(Home(home), question, variables={"q": "0.5"}).read_all()
    with pytest.raises(QuestionError, match="no evaluation yet"):
        answer(Home(home), question, variables={"run": "abc"})


def test_question_without_a_comment_says_how_to_give_it_one() -> None:
    question = Question("mine", "select 1", Path("queries/mine.sql"), is_shipped=False)
    assert question.sentence == (
        "(queries/mine.sql begins with no comment that says what it answers.)"
    )
