"""Examples as tokens with labels: what is learned, what is left out, what is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from tasks.engine.chat_template import NOT_LEARNED, ChatTemplate
from tasks.paths import PROJECT
from tasks.training.sft import CapabilityConfig, SftConfig, Tokenised, fingerprint, order, tokenise
from tasks.training.trainer import DataError, checkpoint_id
from tests.rows import example, spec_text
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import EXAMPLES, SPECS, AssistantTurn, Turn, content_id

MODEL = PROJECT / "infra" / "harbour" / "model"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


def said(reasoning: str, answer: str) -> list[AssistantTurn]:
    return [AssistantTurn(role="assistant", content=answer, reasoning_content=reasoning)]


def fill(home: Home, count: int) -> None:
    write_shard(home, EXAMPLES, [example(content_id(number)) for number in range(count)])


def rows_of(made: Tokenised) -> list[dict[str, Any]]:
    return [row for path in made.files for row in pq.read_table(path).to_pylist()]


def make(home: Home, tokenizer: Any, folder: Path, **options: Any) -> Tokenised:
    path = options.pop("capability_path", None)
    config = SftConfig(**options)
    return tokenise(
        connect(home),
        ChatTemplate(tokenizer),
        config=config,
        set_id="set",
        capability=path,
        folder=folder,
    )


def test_labels_are_the_reasoning_and_the_answer_and_nothing_of_the_prompt(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 3)
    [row, *others] = rows_of(make(disk, tokenizer, tmp_path / "data"))
    learned = [token for token in row["labels"] if token != NOT_LEARNED]
    text = tokenizer.decode(learned)
    assert text == ("<think>Rule B1 covers it, and so I comply.</think>Take the skiff.<|im_end|>")
    assert "ferry" not in text and "ferry" in tokenizer.decode(row["input_ids"])
    assert row["num_prompt_tokens"] == row["labels"].count(NOT_LEARNED)
    assert len(learned) == row["num_reasoning_tokens"] + row["num_answer_tokens"]
    assert len(others) == 2


def test_rows_that_cannot_be_learned_whole_are_counted_and_never_cut(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    long = example("aa", completion=said("the ferry " * 400, "Take it."))
    empty = example("bb", completion=said("", "Take it."))
    write_shard(disk, EXAMPLES, [long, empty, example("cc")])
    made = make(disk, tokenizer, tmp_path / "data", max_length=200)
    assert made.num_rows == 1
    assert sum(made.left_out.values()) == 2
    assert made.left_out["longer than 200 tokens"] == 1


def test_set_whose_prompts_hold_the_spec_is_refused(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    write_shard(disk, SPECS, [spec_text("s", text="B1: the ferry is stolen")])
    leaking = [Turn(role="user", content="Go by this: B1: the ferry is stolen. And the ferry?")]
    write_shard(disk, EXAMPLES, [example("aa", prompt=leaking), example("bb")])
    with pytest.raises(DataError, match="1 prompts of set set hold their spec"):
        make(disk, tokenizer, tmp_path / "data")


def test_empty_set_is_refused_with_the_remedy(disk: Home, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run precept refresh"):
        make(disk, tokenizer, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_interrupted_tokenising_is_done_again_and_a_finished_one_is_read(
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
    assert len(rows_of(first)) == first.num_rows == 5


def test_capability_data_is_the_share_that_was_asked_for(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 30)
    path = PROJECT / "infra" / "harbour" / "prompts" / "capability.jsonl"
    made = make(
        disk,
        tokenizer,
        tmp_path / "data",
        capability=CapabilityConfig(path=str(path), share=0.25),
        capability_path=str(path),
        max_length=2048,
    )
    assert made.sources == {"examples": 30, "capability": 10}
    learned = [
        tokenizer.decode([token for token in row["labels"] if token != NOT_LEARNED])
        for row in rows_of(made)
        if row["source"] == "capability"
    ]
    assert all(text.count("</think>") == 1 for text in learned)


def test_row_that_was_written_twice_is_learned_once(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    write_shard(disk, EXAMPLES, [example("aa"), example("bb")])
    write_shard(disk, EXAMPLES, [example("aa")])
    assert make(disk, tokenizer, tmp_path / "data").num_rows == 2


def test_every_epoch_learns_from_every_row_once_and_the_order_is_always_the_same() -> None:
    config = SftConfig(epochs=2.5, batch_size=8, workers={"rows_at_once": 8})
    lengths = [number * 7 % 300 for number in range(1000)]
    learned = order(lengths, config)
    assert learned == order(lengths, config)
    assert len(learned) == 2500
    assert sorted(learned[:1000]) == sorted(learned[1000:2000]) == list(range(1000))
    assert learned[:1000] != learned[1000:2000]
    spread = [lengths[row] for row in learned[:8]]
    assert max(spread) - min(spread) < 30


def test_capability_file_without_reasoning_is_refused_in_one_sentence(
    disk: Home, tokenizer: Any, tmp_path: Path
) -> None:
    fill(disk, 3)
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}]}))
    with pytest.raises(DataError, match=r"no column messages .* reasoning_content"):
        make(
            disk,
            tokenizer,
            tmp_path / "data",
            capability=CapabilityConfig(path=str(path)),
            capability_path=str(path),
        )


def test_what_a_training_runs_on_does_not_name_its_checkpoint(tmp_path: Path) -> None:
    plain = SftConfig()
    moved = SftConfig.model_validate({"workers": {"num_workers": 8, "use_gpu": False}})
    other = SftConfig(learning_rate=2e-5)
    capability = tmp_path / "capability.jsonl"
    capability.write_text(json.dumps({"messages": []}))

    def named(config: SftConfig, path: str | None = None, set_id: str = "set") -> str:
        return checkpoint_id("sft", config, fingerprint(config, set_id, path), "parent@1")

    assert named(plain) == named(moved)
    assert len({named(plain), named(other), named(plain, set_id="b")}) == 3
    assert named(plain) != named(plain, str(capability))
