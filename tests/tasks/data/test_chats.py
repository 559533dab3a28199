"""Chats and prompts: every common layout is read as what it says, or counted with a reason."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data.candidates import NoteTaker, messages_id, read_source
from tests.rows import jsonl, source
from tests.tasks.data.test_sources import texts

USER = {"role": "user", "content": "May I sail?"}
SAID = {"role": "assistant", "content": "Yes."}


def read(tmp_path: Path, *rows: Any, **options: Any) -> list[Any]:
    path = jsonl(tmp_path / "rows.jsonl", rows)
    return list(read_source(source(path, **{"categories": ["boats"], **options})))


@pytest.mark.parametrize(
    ("written", "role"),
    [
        ("developer", "system"),
        ("SYSTEM", "system"),
        ("User", "user"),
        (" human", "user"),
        ("gpt", "assistant"),
        ("Bot", "assistant"),
        ("model", "assistant"),
    ],
)
def test_roles_of_other_clients_are_those_of_a_chat(
    tmp_path: Path, written: str, role: str
) -> None:
    [row] = read(tmp_path, {"messages": [{"role": written, "content": "x"}, USER]})
    assert row.messages == [{"role": role, "content": "x"}, USER]


def test_an_unknown_role_is_named_and_can_be_mapped(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "Narrator", "content": "x"}, USER]}
    [row] = read(tmp_path, chat)
    assert (row.fault, row.place) == ("unknown_role: Narrator", f"{tmp_path}/rows.jsonl:1")
    [row] = read(tmp_path, chat, role_map={"narrator": "system"})
    assert row.messages[0]["role"] == "system"
    [row] = read(
        tmp_path, {"messages": [{"role": "a\n\x1b[31m" + "b" * 999, "content": "x"}, USER]}
    )
    assert row.fault.isprintable() and len(row.fault) < 60


def test_a_chat_of_from_and_value_is_read_like_one_of_role_and_content(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "May I sail?"}]
    for column in ("conversations", "messages", "conversation", "prompt"):
        [row] = read(tmp_path, {column: turns})
        assert row.messages == [{"role": "system", "content": "Be brief."}, USER]


def test_a_chat_that_ends_on_the_assistant_is_asked_up_to_its_last_user_turn(
    tmp_path: Path,
) -> None:
    odd = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    tool = {"role": "tool", "content": "3"}
    first, second, third, plain = read(
        tmp_path,
        {"prompt": "not this", "messages": [USER, SAID]},
        {"messages": [USER, SAID, USER, SAID, SAID]},
        {"messages": [USER, odd, tool, SAID]},
        {"messages": [USER]},
    )
    assert first.messages == third.messages == plain.messages == [USER]
    assert second.messages == [USER, SAID, USER]
    assert [row.answer_left_off for row in (first, second, third, plain)] == [True] * 3 + [False]
    assert first.prompt_id == messages_id([USER])


def test_a_prompt_that_is_a_list_of_messages_is_a_chat(tmp_path: Path) -> None:
    rows = read(tmp_path, {"prompt": [USER, SAID, USER]}, {"prompt": "[1]"}, {"prompt": ["a"]})
    assert rows[0].messages == [USER, SAID, USER]
    assert [row.fault for row in rows] == [None, None, "not_text"]
    assert rows[1].messages[0]["content"] == "[1]"


def test_parts_of_text_are_joined_and_other_parts_are_a_fault(tmp_path: Path) -> None:
    text = {"type": "text", "text": "May I"}
    both = [text, {"type": "input_text", "text": "sail?"}]
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    contents = [[text], both, [text, image], [], "May I sail?", 4]
    rows = read(tmp_path, *({"messages": [{**USER, "content": c}]} for c in contents))
    assert [row.fault for row in rows] == [None, None, "not_text", "empty_prompt", None, "not_text"]
    assert texts(rows) == ["May I", "May I\nsail?", "May I sail?"]


def test_columns_of_a_prompt_are_joined_without_those_that_are_empty(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        {"context": "A boat.", "ask": "What is it?", "rules": "Be brief."},
        {"context": "", "ask": "What is it?", "rules": None},
        {"ask": " What?\n"},
        {"context": "A boat.", "ask": 4},
        {"context": None, "ask": " "},
        prompt=["context", "ask"],
        system="rules",
    )
    assert texts(rows) == ["A boat.\n\nWhat is it?", "What is it?", " What?\n"]
    assert rows[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert len(rows[1].messages) == 1
    assert [row.fault for row in rows[3:]] == ["not_text", "empty_prompt"]


def test_a_system_column_comes_before_a_chat_and_must_be_text(tmp_path: Path) -> None:
    rows = read(
        tmp_path, {"messages": [USER, SAID], "s": "x"}, {"messages": [USER], "s": 4}, system="s"
    )
    assert rows[0].messages == [{"role": "system", "content": "x"}, USER]
    assert rows[1].fault == "not_text"


def test_turns_of_the_user_stand_in_columns_or_in_a_list(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        {"t1": "one", "t2": "two"},
        {"t1": "one", "t2": ""},
        {"t1": ""},
        turns=["t1", "t2"],
    )
    assert [[turn["content"] for turn in row.messages] for row in rows] == [
        ["one", "two"],
        ["one"],
        [],
    ]
    assert [row.fault for row in rows] == [None, None, "empty_prompt"]
    [row] = read(tmp_path, {"turns": ["one", "two"]}, turns=["turns"])
    assert [turn["role"] for turn in row.messages] == ["user", "user"]


def test_a_row_is_a_prompt_in_each_of_its_languages(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        {"english": "Hello", "中文": "你好", "label": "a"},
        {"english": "Bye", "中文": "", "label": "b"},
        prompt={"en": "english", "zh": "中文"},
        keep=["label"],
    )
    assert [(row.language, row.kept.get("label")) for row in rows[:3]] == [
        ("en", "a"),
        ("zh", "a"),
        ("en", "b"),
    ]
    assert texts(rows) == ["Hello", "你好", "Bye"]
    assert rows[3].fault == "empty_prompt"
    with pytest.raises(ValueError, match="no column 'french'"):
        read(tmp_path, {"english": "Hello"}, prompt={"en": "english", "fr": "french"})


def test_what_is_missing_is_empty_and_not_a_text(tmp_path: Path) -> None:
    rows = read(tmp_path, {"prompt": float("nan")}, {"prompt": None}, {"prompt": 5})
    assert [row.fault for row in rows] == ["empty_prompt", "empty_prompt", "not_text"]


def test_a_column_within_another_is_named_with_dots(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        {"ask": "Sum up:", "cases": [{"input": "A ferry sails.", "ferry.no": 1}], "a.b": "x"},
        {"ask": "Hello", "cases": [], "a": {"b": "y"}},
        prompt=["ask", "cases.0.input"],
        metadata=["a.b"],
    )
    assert texts(rows) == ["Sum up:\n\nA ferry sails.", "Hello"]
    assert [row.metadata for row in rows] == [["x"], ["y"]]
    with pytest.raises(
        ValueError, match=r"no column 'cases\.0\.inputs'; its columns are ask, cases"
    ):
        read(tmp_path, {"ask": "a", "cases": [{"input": "b"}]}, prompt=["ask", "cases.0.inputs"])


def test_nested_columns_of_parquet_are_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"cases": [{"input": "A ferry."}], "ask": {"text": "Sum up:"}, "other": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    chosen = source(
        tmp_path / "rows.parquet", categories=["boats"], prompt=["ask.text", "cases.0.input"]
    )
    assert texts(read_source(chosen)) == ["Sum up:\n\nA ferry."]


def test_rows_that_hold_their_prompt_in_different_usual_columns_are_all_read(
    tmp_path: Path,
) -> None:
    rows = read(
        tmp_path,
        {"prompt": "one"},
        {"messages": [USER], "prompt": "not this"},
        {"messages": None, "prompt": "three"},
        {"conversations": [{"from": "human", "value": "four"}], "messages": []},
        {"prompt": ""},
    )
    assert texts(rows) == ["one", "May I sail?", "three", "four"]
    assert rows[4].fault == "empty_prompt"


TIDES = {"name": "get_tides", "arguments": '{"day": "Monday", "place": "Harbour"}'}
SPELLINGS = {
    "openai": [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a1", "function": TIDES}]},
        {"role": "tool", "tool_call_id": "a1", "content": "high at 4"},
    ],
    "openai with names": [
        {"role": "assistant", "tool_calls": [{"id": "x", "type": "function", "function": TIDES}]},
        {"role": "tool", "tool_call_id": "x", "name": "get_tides", "content": "high at 4"},
    ],
    "function_call": [
        {"role": "assistant", "content": "", "function_call": TIDES},
        {"role": "function", "name": "get_tides", "content": "high at 4"},
    ],
    "sharegpt": [
        {"from": "function_call", "value": json.dumps(TIDES)},
        {"from": "observation", "value": "high at 4"},
    ],
    "flat, arguments as an object": [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": json.dumps([TIDES | {"arguments": json.loads(TIDES["arguments"])}]),
        },
        {"role": "tool", "content": [{"type": "text", "text": "high at 4"}]},
    ],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_call_and_its_result_are_the_same_turns_however_a_file_spells_them(
    tmp_path: Path, spelling: str
) -> None:
    [row] = read(tmp_path, {"messages": [USER, *SPELLINGS[spelling], SAID, USER]})
    calls = '[{"arguments":{"day":"Monday","place":"Harbour"},"id":"call00001","name":"get_tides"}]'
    assert row.messages == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "high at 4", "tool_call_id": "call00001"},
        SAID,
        USER,
    ]


def test_calls_are_a_part_of_what_a_prompt_is(tmp_path: Path) -> None:
    call, result = SPELLINGS["sharegpt"]
    other = {"from": "function_call", "value": json.dumps(TIDES | {"arguments": {}})}
    rows = read(
        tmp_path,
        {"messages": [USER, call, result, USER]},
        {"messages": [USER, other, result, USER]},
        {"messages": [USER, call, result | {"value": "low"}, USER]},
    )
    assert len({row.prompt_id for row in rows}) == 3


def test_results_go_to_their_calls_whatever_their_order(tmp_path: Path) -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": ""}} for name in "ab"]
    call = {"role": "assistant", "content": "both", "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": name, "content": {"of": name}} for name in "ba"]
    [row] = read(tmp_path, {"messages": [USER, call, *results, USER]})
    assert [(turn.get("tool_call_id"), turn["content"]) for turn in row.messages[2:4]] == [
        ("call00002", '{"of": "b"}'),
        ("call00001", '{"of": "a"}'),
    ]


def test_calls_in_text_stay_text(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": '<tool_call>{"name": "get_tides"}</tool_call>'}
    result = {"role": "tool", "name": "get_tides", "content": "high at 4"}
    [row] = read(tmp_path, {"messages": [USER, said, result, USER]})
    assert row.messages == [USER, said, result, USER]


CALL = {"role": "assistant", "tool_calls": [{"id": "1", "function": TIDES}]}
RESULT = {"role": "tool", "content": "high at 4"}


@pytest.mark.parametrize(
    ("turns", "fault"),
    [
        ([USER, RESULT, USER], "result_without_call"),
        ([RESULT, USER], "result_without_call"),
        ([USER, CALL, RESULT | {"tool_call_id": "2"}, USER], "result_without_call"),
        ([USER, CALL, RESULT, RESULT, USER], "result_without_call"),
        ([USER, SAID, RESULT | {"tool_call_id": "1"}, USER], "result_without_call"),
        ([USER | {"tool_calls": CALL["tool_calls"]}, SAID, USER], "call_of_other_role"),
        ([USER, CALL, USER], "call_without_result"),
        ([USER, CALL, SAID, USER], "call_without_result"),
        ([USER, CALL, RESULT], "not_on_user_turn"),
        ([USER, CALL | {"tool_calls": ["x"]}, RESULT, USER], "unreadable_call"),
        ([USER, CALL | {"tool_calls": [{"name": "x", "arguments": "{"}]}, USER], "unreadable_call"),
        ([USER, CALL | {"tool_calls": [{"name": "x", "arguments": 3}]}, USER], "unreadable_call"),
        ([USER, CALL | {"tool_calls": [{"arguments": {}}]}, USER], "unreadable_call"),
        ([USER, {"from": "function_call", "value": "tides"}, RESULT, USER], "unreadable_call"),
        ([USER, CALL, {"role": "tool", "content": [{"type": "image"}]}, USER], "not_text"),
    ],
)
def test_calls_and_results_that_do_not_belong_together_are_told(
    tmp_path: Path, turns: list[dict[str, Any]], fault: str
) -> None:
    [row] = read(tmp_path, {"messages": turns})
    assert row.fault == fault


def test_a_chat_that_ends_on_a_call_is_asked_without_it(tmp_path: Path) -> None:
    [row] = read(tmp_path, {"messages": [USER, CALL]})
    assert (row.messages, row.answer_left_off) == ([USER], True)


def test_a_chat_may_be_written_as_python_writes_it(tmp_path: Path) -> None:
    [row, broken] = read(tmp_path, {"messages": str([USER, SAID, USER])}, {"messages": "[USER]"})
    assert (row.messages, broken.fault) == ([USER, SAID, USER], "not_a_chat")


def test_columns_of_a_system_message_are_joined_and_tools_are_shown_there(tmp_path: Path) -> None:
    tools = [{"name": "get_tides", "parameters": {"day": "text"}}]
    row = {"prompt": "May I sail?", "role": "Be brief.", "tools": tools}
    rows = [row, {"prompt": "And?", "role": "", "tools": None}]
    first, second = read(tmp_path, *rows, system=["role", "tools"])
    assert first.messages[0] == {"role": "system", "content": f"Be brief.\n\n{json.dumps(tools)}"}
    assert second.messages == [{"role": "user", "content": "And?"}]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["tools", "system"])
def test_rows_with_a_column_beside_the_chat_that_is_not_shown_are_counted(
    tmp_path: Path, ending: str, column: str
) -> None:
    rows = [{"prompt": "May I?", column: '["row"]'}, {"prompt": "And?", column: "[]"}]
    path = tmp_path / f"rows{ending}"
    if ending == ".jsonl":
        jsonl(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    for options, told in (({}, True), ({"system": column}, False)):
        reader = NoteTaker(source(path, categories=["boats"], **options))
        shown = [len(row.messages) for row in reader.candidates()]
        assert shown == [1 if told else 2, 1]
        assert (f"1 rows asked without their column {column!r}" in str(reader.notes)) is told
