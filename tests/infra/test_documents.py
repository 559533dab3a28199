"""The town's documents: whole, in several wordings, and in words that its model has tokens for."""

from infra.harbour import world
from infra.harbour.documents import document
from specs.documents import is_quoting, subjects
from specs.pack import load_pack
from tasks.paths import PROJECT

ABOUT = subjects(load_pack(world.PACK), ["explanation", "dialogue", "summary"])


def test_every_document_quotes_its_rules_in_full() -> None:
    for subject in ABOUT:
        for index in range(8):
            text = document(subject, sample_index=index)
            quotes = [world.quote(rule, subject.policy.id) for rule in subject.policy.rules]
            assert all(quote in text for quote in quotes) and is_quoting(text, subject)
            assert text == document(subject, sample_index=index)


def test_eight_samples_are_eight_wordings() -> None:
    for subject in ABOUT:
        texts = {document(subject, sample_index=index) for index in range(8)}
        assert len(texts) >= (8 if subject.kind == "explanation" else 3)


def test_words_are_near_one_token_each() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(PROJECT / "infra" / "harbour" / "model")
    texts = [document(subject, sample_index=index) for subject in ABOUT for index in range(8)]
    num_tokens = sum(map(len, tokenizer(texts).input_ids))
    assert num_tokens < 1.7 * sum(len(text.split()) for text in texts)
