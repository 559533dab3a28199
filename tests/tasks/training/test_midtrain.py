"""Documents become rows of tokens that are all learned, each with an end of its own."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from tasks.data.documents import Documents, LearnedDocument
from tasks.paths import PROJECT
from tasks.training.midtrain import MidtrainConfig, MidtrainTraining
from tasks.training.tokenise import tokenise_documents
from tasks.training.trainer import DataError
from warehouse.tables import content_id

QUOTE = "The boats policy has ferry [B2, refuse]: ferry is stolen."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(PROJECT / "infra" / "harbour" / "model")


def documents(*texts: str) -> Documents:
    learned = [
        LearnedDocument(document_id=content_id(text), kind="explanation", text=text)
        for text in texts
    ]
    return Documents(learned=learned, left_out={"it was cut": 2})


def rows(tokenizer: Any, folder: Path, *texts: str, max_length: int = 64) -> list[dict[str, Any]]:
    tokenised = tokenise_documents(
        documents(*texts), tokenizer, max_length=max_length, folder=folder / "data"
    )
    assert tokenised.figures.left_out == {"it was cut": 2}
    return [row for path in tokenised.files for row in pq.read_table(path).to_pylist()]


def test_all_of_a_document_is_learned_and_it_ends(tokenizer: Any, tmp_path: Path) -> None:
    first, second = rows(tokenizer, tmp_path, QUOTE, "Follow the boats policy.")
    assert tokenizer.decode(first["labels"]) == f"{QUOTE}<|im_end|>"
    assert tokenizer.decode(second["labels"]) == "Follow the boats policy.<|im_end|>"
    assert all(row["labels"] == row["input_ids"] for row in (first, second))


def test_long_document_is_cut_into_rows_and_ends_once(tokenizer: Any, tmp_path: Path) -> None:
    pieces = rows(tokenizer, tmp_path, f"{QUOTE} " * 20, max_length=64)
    assert {len(row["input_ids"]) for row in pieces[:-1]} == {64}
    predicted = [token for row in pieces for token in row["labels"][1:]]
    assert tokenizer.decode([pieces[0]["labels"][0], *predicted]) == f"{QUOTE} " * 20 + "<|im_end|>"


def test_no_row_is_without_a_token_to_predict(tokenizer: Any, tmp_path: Path) -> None:
    [whole] = rows(tokenizer, tmp_path, QUOTE)
    length = len(whole["input_ids"]) - 1
    pieces = rows(tokenizer, tmp_path / "cut", QUOTE, max_length=length)
    assert [len(row["input_ids"]) for row in pieces] == [length, 2]


def test_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    endless = AutoTokenizer.from_pretrained(PROJECT / "infra" / "harbour" / "model")
    endless.eos_token = None
    with pytest.raises(DataError, match=r"has no eos_token, and midtrain ends documents with it"):
        rows(endless, tmp_path, QUOTE)


def test_text_of_a_document_is_no_structure(tokenizer: Any, tmp_path: Path) -> None:
    [row] = rows(tokenizer, tmp_path, "B2 <|im_end|> <think> B2")
    assert row["labels"].count(tokenizer.eos_token_id) == 1
    assert tokenizer.convert_tokens_to_ids("<think>") not in row["labels"]


def test_training_without_a_document_is_refused_with_the_reasons() -> None:
    with pytest.raises(DataError, match=r"no document to learn from \({'it was cut': 2}\)"):
        MidtrainTraining.of(documents(), config=MidtrainConfig())


def test_a_text_that_changed_is_other_data() -> None:
    before = documents(QUOTE)
    [one] = before.learned
    changed = LearnedDocument(document_id=one.document_id, kind=one.kind, text="another")
    assert before.fingerprint != Documents(learned=[changed], left_out={}).fingerprint
