"""Examples become tokens with labels: some are learned, some left out, some sets refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from tasks.engine.chat_template import NOT_LEARNED, ChatTemplate
from tasks.paths import PROJECT
from tasks.training.capability import write_chats
from tasks.training.checkpoint import checkpoint_id
from tasks.training.rl import RlConfig
from tasks.training.sft import (
    BEST,
    CapabilityConfig,
    RowsWorkersConfig,
    SftConfig,
    SftTraining,
    learning_order,
    make_trainer,
)
from tasks.training.tokenise import SftData, Tokenised, tokenise
from tasks.training.trainer import DataError, Job, WorkersConfig
from tests.rows import example, jsonl, spec_text
from warehouse.catalog import connect, look_up, stream
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import EXAMPLES, SPECS, AssistantTurn, Turn, content_id

MODEL = PROJECT / "infra" / "harbour" / "model"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


def reply(reasoning: str, answer: str) -> list[AssistantTurn]:
    return [AssistantTurn(role="assistant", content=answer, reasoning_content=reasoning)]


def fill(home: Home, count: int) -> None:
    write_shard(home, EXAMPLES, [example(content_id(number)) for number in range(count)])


def rows_of(tokenised: Tokenised) -> list[dict[str, Any]]:
    return [row for path in tokenised.files for row in pq.read_table(path).to_pylist()]


def learned_text(tokenizer: Any, row: dict[str, Any]) -> str:
    return str(tokenizer.decode([token for token in row["labels"] if token != NOT_LEARNED]))


def make(home: Home, tokenizer: Any, folder: Path, **options: Any) -> Tokenised:
    training = SftTraining.of("set", config=SftConfig(**options), home=home)
    return tokenise(connect(home), ChatTemplate(tokenizer), training.data, folder)


def test_labels_are_the_reasoning_and_the_answer_and_nothing_of_the_prompt(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 3)
    [row, *others] = rows_of(make(disk, tokenizer, tmp_path / "data"))
    text = learned_text(tokenizer, row)
    assert text == ("<think>Rule B1 covers it, and so I comply.</think>Take the skiff.<|im_end|>")
    assert "ferry" not in text and "ferry" in tokenizer.decode(row["input_ids"])
    assert row["num_prompt_tokens"] == row["labels"].count(NOT_LEARNED)
    num_learned = row["num_reasoning_tokens"] + row["num_answer_tokens"]
    assert len(row["labels"]) == row["num_prompt_tokens"] + num_learned
    assert len(others) == 2


def test_answers_alone_are_learned_if_the_recipe_says_so(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 3)
    rows = rows_of(make(disk, tokenizer, tmp_path / "data", learn_on="answer"))
    texts = {learned_text(tokenizer, row) for row in rows}
    assert texts == {"<think></think>Take the skiff.<|im_end|>"}
    whole = SftTraining.of("set", config=SftConfig(), home=disk)
    alone = SftTraining.of("set", config=SftConfig(learn_on="answer"), home=disk)
    assert whole.fingerprint != alone.fingerprint
    assert "learn_on" not in whole.config.defining() and "learn_on" in alone.config.defining()


def test_rows_that_cannot_be_learned_whole_are_counted_and_never_cut(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    long = example("aa", completion=reply("the ferry " * 400, "Take it."))
    empty = example("bb", completion=reply("", "Take it."))
    write_shard(disk, EXAMPLES, [long, empty, example("cc")])
    figures = make(disk, tokenizer, tmp_path / "data", max_length=200).figures
    assert figures.num_rows == 1
    assert sum(figures.left_out.values()) == 2
    assert figures.left_out["longer than 200 tokens"] == 1


def test_set_with_a_spec_in_a_prompt_is_refused(disk: Home, tokenizer: Any, tmp_path: Path) -> None:
    write_shard(disk, SPECS, [spec_text("s", text="B1: the ferry is stolen")])
    leaking = [Turn(role="user", content="Go by this: B1: the ferry is stolen. And the ferry?")]
    write_shard(disk, EXAMPLES, [example("aa", prompt=leaking), example("bb")])
    with pytest.raises(DataError, match="1 prompts of set set hold their spec"):
        make(disk, tokenizer, tmp_path / "data")


def test_empty_set_is_refused_with_the_remedy(disk: Home, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run precept refresh"):
        make(disk, tokenizer, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_interrupted_tokenising_starts_over_and_a_finished_one_is_read(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 5)
    partial = tmp_path / "data.partial"
    partial.mkdir()
    (partial / "part-000000000000.parquet").write_bytes(b"half a file")
    first = make(disk, tokenizer, tmp_path / "data")
    written = {path: Path(path).stat().st_mtime_ns for path in first.files}
    assert make(disk, tokenizer, tmp_path / "data") == first
    assert {path: Path(path).stat().st_mtime_ns for path in first.files} == written
    assert len(rows_of(first)) == first.figures.num_rows == 5


def test_capability_data_has_its_configured_share(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 30)
    path = PROJECT / "infra" / "harbour" / "prompts" / "capability.jsonl"
    capability = CapabilityConfig(path=str(path), share=0.25)
    tokenised = make(disk, tokenizer, tmp_path / "data", capability=capability, max_length=2048)
    assert tokenised.figures.sources == {"examples": 30, "capability": 10}
    rows = [row for row in rows_of(tokenised) if row["source"] == "capability"]
    assert len(rows) == 10
    assert all(learned_text(tokenizer, row).count("</think>") == 1 for row in rows)


def chat(content: Any, *, reasoning: Any = "A ferry is allowed.", **turn: Any) -> dict[str, Any]:
    answer = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {"messages": [{"role": "user", "content": "May I take the ferry?"}, answer | turn]}


def learned_of(tokenizer: Any, tokenised: Tokenised) -> list[str]:
    rows = [row for row in rows_of(tokenised) if row["source"] == "capability"]
    return sorted(learned_text(tokenizer, row).split("</think>")[1] for row in rows)


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}]},
        chat(4),
        chat({"ferry": "yes"}),
        chat("Yes.", role="narrator"),
        {"messages": "no chat"},
        {"messages": None},
        {"other": 1},
    ],
)
def test_odd_row_of_capability_data_is_left_out_and_changes_no_other(
    disk: Home, tokenizer: Any, tmp_path: Path, odd: dict[str, Any]
) -> None:
    fill(disk, 30)
    path = jsonl(tmp_path / "chats.jsonl", [chat("Take it."), odd, chat("Take the skiff.")])
    capability = CapabilityConfig(path=path, share=0.5)
    tokenised = make(disk, tokenizer, tmp_path / "data", capability=capability)
    assert learned_of(tokenizer, tokenised) == ["Take it.<|im_end|>", "Take the skiff.<|im_end|>"]
    [(reason, count)] = tokenised.figures.left_out.items()
    assert count == 1
    assert reason.endswith(" in capability data, first at chats.jsonl:2")


def test_texts_of_capability_data_are_themselves_and_parts_are_joined(tmp_path: Path) -> None:
    texts = ["2024-01-01", "123e4567-e89b-12d3-a456-426614174000", "4", "null", '"quoted"']
    rows = [chat(text) for text in texts]
    parts = [{"type": "text", "text": text} for text in ("Take", "it.")]
    rows.append({**chat(parts), "late": 1})
    for name, count in (("texts", 5), ("parts", 6)):
        path = Path(jsonl(tmp_path / f"{name}.jsonl", rows[:count]))
        assert write_chats(path, tmp_path / name) == {}
        stored = pq.read_table(tmp_path / name).to_pylist()
        assert [row["answer"] for row in stored] == [*texts, "Take\nit."][:count]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_capability_data_is_read_by_its_own_name_and_columns(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "messages=1" / "it's [a] *"
    folder.mkdir(parents=True)
    path = folder / f"chats.{ending}"
    if ending == "jsonl":
        jsonl(path, [chat("There.")])
    else:
        pq.write_table(pa.Table.from_pylist([chat("There.")]), path)
    assert write_chats(path, folder / "chats") == {}
    connection = connect(Home(str(tmp_path / "home")))
    [[row]] = stream(connection, "capability_chats", batch_rows=9, path=str(folder / "chats"))
    assert row["answer"] == "There."


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        (chat(None), "empty_answer"),
        (chat("\u200b"), "empty_answer"),
        (chat("", tool_calls=[{"name": "tides"}]), "ends_on_call"),
        (chat("<think>a</think>b"), "malformed"),
        (chat("<think>a", reasoning=None), "unclosed"),
        ({"messages": chat("Take it.")["messages"][1:]}, "no_prompt"),
    ],
)
def test_capability_row_without_prompt_or_answer_is_left_out(
    tmp_path: Path, odd: dict[str, Any], fault: str
) -> None:
    path = Path(jsonl(tmp_path / "chats.jsonl", [chat("Take it."), odd]))
    assert write_chats(path, tmp_path / "chats") == {
        f"{fault} in capability data, first at chats.jsonl:2": 1
    }


def test_reasoning_of_a_capability_row_is_found_in_every_usual_place(tmp_path: Path) -> None:
    rows = [
        chat("Take it.", reasoning=None),
        chat("<think>B3 allows it.</think>Take it.", reasoning=None),
        chat("Take it.", reasoning=None),
        chat("Take it."),
    ]
    rows[2]["messages"][1]["reasoning"] = "B3 allows it."
    path = Path(jsonl(tmp_path / "chats.jsonl", rows))
    assert write_chats(path, tmp_path / "chats") == {}
    stored = pq.read_table(tmp_path / "chats").to_pylist()
    found = [(row["reasoning"], row["answer"]) for row in stored]
    allowed = ("B3 allows it.", "Take it.")
    assert found == [("", "Take it."), allowed, allowed, ("A ferry is allowed.", "Take it.")]


def test_reasoning_that_first_appears_late_is_learned(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 3)
    plain = {"messages": chat("Take it.")["messages"][:1]}
    path = jsonl(tmp_path / "chats.jsonl", [plain] * 3000 + [chat("Take it.")])
    capability = CapabilityConfig(path=path, share=0.5)
    tokenised = make(disk, tokenizer, tmp_path / "data", capability=capability)
    assert tokenised.figures.sources["capability"] == 1
    assert sum(tokenised.figures.left_out.values()) == 3000


def test_capability_file_that_is_not_json_is_refused_with_its_line(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 3)
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(chat("Take it.")) + "\n{")
    with pytest.raises(DataError, match=r"chats\.jsonl:2: not JSON"):
        make(disk, tokenizer, tmp_path / "data", capability=CapabilityConfig(path=str(path)))


def test_row_that_was_written_twice_is_learned_once(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    write_shard(disk, EXAMPLES, [example("aa"), example("bb")])
    write_shard(disk, EXAMPLES, [example("aa")])
    assert make(disk, tokenizer, tmp_path / "data").figures.num_rows == 2


def test_every_epoch_learns_from_every_row_once_and_the_order_is_always_the_same() -> None:
    config = SftConfig(epochs=2.5, batch_size=8, workers={"rows_at_once": 8})
    lengths = [number * 7 % 300 for number in range(1000)]
    order = learning_order(lengths, config)
    assert order == learning_order(lengths, config)
    assert len(order) == 2500
    assert sorted(order[:1000]) == sorted(order[1000:2000]) == list(range(1000))
    assert order[:1000] != order[1000:2000]
    first_batch = [lengths[row] for row in order[:8]]
    assert max(first_batch) - min(first_batch) < 30


def test_capability_file_without_reasoning_is_refused_in_one_sentence(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 3)
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}]}))
    with pytest.raises(DataError, match=r"no column messages .* reasoning_content"):
        make(disk, tokenizer, tmp_path / "data", capability=CapabilityConfig(path=str(path)))


def test_missing_capability_file_is_refused_with_the_places_looked_in(disk: Home) -> None:
    config = SftConfig(capability=CapabilityConfig(path="chats.jsonl"))
    with pytest.raises(DataError, match=r"no file chats\.jsonl \(looked beside the recipe, "):
        SftTraining.of("set", config=config, home=disk)


def continued(home: Home, tokenizer: Any, folder: Path, **options: Any) -> Tokenised:
    """Tokenises set `new` for a checkpoint that has learned set `old`."""
    config = SftConfig(start="latest", **options)
    training = SftTraining.of("new", config=config, home=home, learned_set="old")
    return tokenise(connect(home), ChatTemplate(tokenizer), training.data, folder)


def fill_sets(home: Home, *, num_old: int, num_kept: int, num_new: int) -> None:
    """Writes set `old`, and set `new`, which keeps some of its examples and has others."""
    old = [f"0a{number:02}" for number in range(num_old)]
    new = [f"0b{number:02}" for number in range(num_new)]
    rows = [example(name, set_id="old") for name in old]
    rows += [example(name, set_id="new") for name in [*old[:num_kept], *new]]
    write_shard(home, EXAMPLES, rows)


def test_continued_training_learns_what_is_new_and_repeats_a_share_of_what_was_learned(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill_sets(disk, num_old=12, num_kept=9, num_new=4)
    tokenised = continued(disk, tokenizer, tmp_path / "data", replay=0.6)
    assert tokenised.figures.sources == {"examples": 4, "replay": 6}
    ids = {(row["source"], row["row_id"][:2]) for row in rows_of(tokenised)}
    assert ids == {("examples", "0b"), ("replay", "0a")}


def test_share_that_is_more_than_what_was_learned_repeats_all_of_it(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill_sets(disk, num_old=5, num_kept=2, num_new=4)
    figures = continued(disk, tokenizer, tmp_path / "data", replay=0.9).figures
    assert figures.sources == {"examples": 4, "replay": 2}


def test_continued_training_without_a_share_learns_the_whole_set(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill_sets(disk, num_old=5, num_kept=3, num_new=4)
    assert continued(disk, tokenizer, tmp_path / "data").figures.sources == {"examples": 7}


def test_capability_data_has_its_share_of_a_continued_training(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill_sets(disk, num_old=10, num_kept=10, num_new=6)
    path = PROJECT / "infra" / "harbour" / "prompts" / "capability.jsonl"
    figures = continued(
        disk,
        tokenizer,
        tmp_path / "data",
        replay=0.5,
        max_length=2048,
        capability=CapabilityConfig(path=str(path), share=0.25),
    ).figures
    assert figures.sources == {"examples": 6, "replay": 6, "capability": 4}


def test_a_set_of_which_all_is_learned_is_refused_with_the_remedy(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill_sets(disk, num_old=5, num_kept=3, num_new=0)
    with pytest.raises(DataError, match="has no example that the checkpoint has not learned"):
        continued(disk, tokenizer, tmp_path / "data", replay=0.5)


def test_two_sets_repeat_different_examples(disk: Home) -> None:
    names = [f"0a{number:02}" for number in range(20)]
    sets = ("old", "new", "newer")
    write_shard(disk, EXAMPLES, [example(one, set_id=name) for name in sets for one in names])
    connection = connect(disk)
    orders = {}
    for name in ("new", "newer"):
        rows = look_up(connection, "learned_examples", set_id=name, learned_set="old")
        orders[name] = [row["row_id"] for row in rows]
    assert orders["new"] != orders["newer"]
    assert sorted(orders["new"]) == sorted(orders["newer"]) == names


def test_replay_without_a_start_is_refused() -> None:
    with pytest.raises(ValueError, match='set start = "latest", or leave replay out'):
        SftConfig(replay=0.5)


def test_start_and_replay_define_a_checkpoint_when_they_are_set(disk: Home) -> None:
    plain, continuing = SftConfig(), SftConfig(start="latest")
    repeating = SftConfig(start="latest", replay=0.5)
    assert len({config.defining() for config in (plain, continuing, repeating)}) == 3
    assert "start" not in plain.defining() and "replay" not in plain.defining()

    def data(config: SftConfig, learned_set: str | None) -> str:
        training = SftTraining.of("set", config=config, home=disk, learned_set=learned_set)
        return training.fingerprint

    # Without a share the data are the set alone, whatever the checkpoint has learned.
    assert data(plain, None) == data(continuing, "a") == data(repeating, None)
    assert len({data(plain, None), data(repeating, "a"), data(repeating, "b")}) == 3


def losses(disk: Home, folder: Path, **workers: Any) -> tuple[list[float], int]:
    """Returns the loss of each step of a training on rows of many lengths, and the numbers of a
    pass that stand for nothing."""
    config = SftConfig(
        batch_size=8,
        epochs=1,
        learning_rate=1e-3,
        workers={"use_gpu": False, "bf16": False, "rows_at_once": 8, **workers},
    )
    job = Job(
        name="sft",
        checkpoint_id="c",
        folder=str(folder),
        model=str(MODEL),
        revision=None,
        chat_template_kwargs={},
        end_ids=frozenset({2}),
        config=config,
        best=BEST,
    )
    data = SftTraining.of("set", config=config, home=disk).data
    tokenizer = job.load_tokenizer()
    rows = tokenise(connect(disk), ChatTemplate(tokenizer), data, folder / "data")
    trainer = make_trainer(job, rows)
    batches = list(trainer.get_train_dataloader())
    padding = sum(int((batch["input_ids"] == tokenizer.pad_token_id).sum()) for batch in batches)
    trainer.train()
    log = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return log, padding


def test_rows_in_line_without_padding_are_learned_as_padded_ones_are(
    disk: Home, tmp_path: Path
) -> None:
    lengths = {content_id(n): n % 7 + 1 for n in range(32)}
    rows = [
        example(key, completion=reply("I look at the rule. " * length, "Take the skiff."))
        for key, length in lengths.items()
    ]
    write_shard(disk, EXAMPLES, rows)
    padded, num_padding = losses(disk, tmp_path / "padded")
    in_line, num_none = losses(disk, tmp_path / "line", padding_free=True)
    assert len(padded) == 4 and padded[-1] < padded[0]
    assert in_line == pytest.approx(padded, rel=2e-3)
    assert num_padding > 0 == num_none


def test_rows_are_laid_in_line_unasked_only_on_gpus_with_flash_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for is_there in (False, True):
        monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: is_there)  # noqa: B023
        assert RowsWorkersConfig(use_gpu=True).lays_rows_in_line() is is_there
        assert not RowsWorkersConfig(use_gpu=False).lays_rows_in_line()
        assert not RowsWorkersConfig(use_gpu=True, padding_free=False).lays_rows_in_line()


def test_execution_settings_do_not_change_the_id_of_a_checkpoint(tmp_path: Path) -> None:
    plain = SftConfig()
    moved = SftConfig.model_validate({"workers": {"num_workers": 8, "use_gpu": False}})
    other = SftConfig(learning_rate=2e-5)
    capability = tmp_path / "capability.jsonl"
    capability.write_text(json.dumps({"messages": []}))

    def id_of(config: SftConfig, path: Path | None = None, set_id: str = "set") -> str:
        data = SftData(set_id=set_id, max_length=config.max_length, capability=path)
        return checkpoint_id("sft", config, data.fingerprint, "parent@1")

    assert id_of(plain) == id_of(moved)
    assert len({id_of(plain), id_of(other), id_of(plain, set_id="b")}) == 3
    assert id_of(plain) != id_of(plain, capability)


def test_limits_of_judges_do_not_change_the_id_of_a_checkpoint() -> None:
    plain, slower, stricter = (
        RlConfig.model_validate({"reward": reward})
        for reward in (
            {},
            {"call_seconds": 9.0, "in_flight": 1, "batch_seconds": 9.0},
            {"gate": 9.0},
        )
    )
    assert plain.defining() == slower.defining() != stricter.defining()


@pytest.mark.parametrize(
    ("capability", "workers", "is_bf16"),
    [
        ("AVX2", WorkersConfig(use_gpu=False), False),
        ("AVX512", WorkersConfig(use_gpu=False), True),
        ("AVX2", WorkersConfig(use_gpu=True), True),
        ("AVX2", WorkersConfig(use_gpu=False, bf16=True), True),
        ("AVX512", WorkersConfig(use_gpu=False, bf16=False), False),
    ],
)
def test_only_machines_that_are_quick_at_bfloat16_compute_in_it_unasked(
    capability: str, workers: WorkersConfig, is_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert workers.computes_in_bf16() is is_bf16
