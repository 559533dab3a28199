"""Documents about policies: every reply is a row with its reason, and only what changed is made."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from specs.documents import Subject
from specs.policy import Outcome, Pack, Policy, Rule
from tasks.data.documents import (
    DocumentsConfig,
    DocumentUnit,
    DocumentWork,
    choose_documents,
)
from tasks.engine.requests import Request, Sample, ScriptedEngine
from tasks.stage import StageConfig
from tests.flows.test_show import checkpoint
from tests.rows import run
from warehouse.catalog import ask as ask_warehouse
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS, DOCUMENTS, RUNS

RAFT = Rule(id="B1", title="raft", outcome=Outcome.REFUSE, text="raft is stolen")
SKIFF = Rule(id="B2", title="skiff", outcome=Outcome.COMPLY, text="skiff is fine")


def pack(*rules: Rule) -> Pack:
    boats = Policy(id="boats", title="", version="1", summary={}, terms=(), rules=rules)
    return Pack(
        id="harbour", title="", version="1", principles="", style={}, policies={"boats": boats}
    )


def work(rules: tuple[Rule, ...] = (RAFT, SKIFF), **config: Any) -> DocumentWork:
    return DocumentWork(
        config=DocumentsConfig(samples=2, **config),
        stage=StageConfig(),
        pack=pack(*rules),
        model="writer@1",
        run_id="r",
    )


def missing(home: Home, work: DocumentWork) -> list[DocumentUnit]:
    connection = connect(home)
    connection.register("wanted_documents", work.wanted)
    return [DocumentUnit(**row) for wave in work.pending(connection) for row in wave.to_pylist()]


class Engine(ScriptedEngine):
    """A reply that ends on an ellipsis was cut."""

    def _sample(self, text: str) -> Sample:
        reason = "length" if text.endswith("…") else "stop"
        return replace(super()._sample(text), finish_reason=reason)


def ask(home: Home, work: DocumentWork, script: Any) -> Counter[str]:
    """Has a scripted engine write what is missing; returns the statuses."""
    rows = asyncio.run(work.make(missing(home, work), Engine(script)))
    write_shard(home, DOCUMENTS, rows)
    return Counter(row.status for row in rows)


def rule_of(request: Request) -> str:
    """The rule that a request asks to write about, or one of the policy."""
    _, _, kind, name, *_ = request.messages[-1]["content"].split()
    return name if kind == "rule" else "B1"


def write(request: Request, index: int) -> str:
    return f"<think>Why?</think>Rule {rule_of(request)} keeps the peace."


def stored(home: Home) -> list[dict[str, Any]]:
    return connect(home).sql("FROM documents").to_arrow_table().to_pylist()


def chosen(home: Home, work: DocumentWork) -> Any:
    connection = connect(home)
    connection.register("wanted_documents", work.wanted)
    return choose_documents(connection, work)


def test_every_kind_is_written_once_and_the_same_again_writes_nothing(disk: Home) -> None:
    assert ask(disk, work(), write) == {"ok": 10}
    counts = Counter((row["kind"], row["rule_id"]) for row in stored(disk))
    assert counts == {
        **{(kind, rule): 2 for kind in ("explanation", "dialogue") for rule in ("B1", "B2")},
        ("summary", None): 2,
    }
    assert missing(disk, work()) == []


def test_an_edited_rule_makes_only_what_is_about_it_stale(disk: Home) -> None:
    ask(disk, work(), write)
    before = chosen(disk, work())
    edited = work((RAFT, replace(SKIFF, text="skiff is common")))
    stale = [edited.subjects[unit.subject_id] for unit in missing(disk, edited)]
    assert {(one.kind, one.rule_id) for one in stale} == {
        *(("explanation", "B2"), ("dialogue", "B2"), ("summary", None)),
    }
    assert len(chosen(disk, edited).learned) == 4, "what is stale is not learned"
    ask(disk, edited, write)
    after = chosen(disk, edited)
    assert len(before.learned) == len(after.learned) == 10
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("reply", "status", "reason"),
    [
        ("<think>a</think>Boats are fun.", "unquoted", "it quotes nothing of its policy"),
        ("<think>a</think>I'm sorry, I can't assist with B1.", "refused", "declined"),
        ("<think>a</think>", "empty_answer", "nothing follows"),
        ("<think>a</think>Rule B1 is…", "truncated", "reached max_tokens"),
    ],
)
def test_what_cannot_be_learned_is_a_row_with_its_reason(
    disk: Home, reply: str, status: str, reason: str
) -> None:
    about = work((RAFT,), kinds=["explanation"])
    assert ask(disk, about, lambda request, index: reply if index else write(request, index)) == {
        "ok": 1,
        status: 1,
    }
    documents = chosen(disk, about)
    assert [one.text for one in documents.learned] == ["Rule B1 keeps the peace."]
    [(told, count)] = documents.left_out.items()
    assert reason in told and count == 1
    assert missing(disk, about) == []


def by_hand(subject: Subject, *, sample_index: int) -> str | None:
    if sample_index:
        raise KeyError("no more")
    return None if subject.kind == "summary" else f"{subject.rule_id} keeps the peace."


def test_function_writes_in_place_of_the_generator_and_its_faults_are_rows(disk: Home) -> None:
    about = work(function=f"{__name__}:by_hand")
    write_shard(disk, DOCUMENTS, about.make_by_function(missing(disk, about)))
    assert {row["model"] for row in stored(disk)} == {f"{__name__}:by_hand"}
    documents = chosen(disk, about)
    assert len(documents.learned) == 4
    assert documents.left_out == {
        "KeyError: 'no more'": 5,
        "the function has nothing to write about this subject": 1,
    }
    assert not chosen(disk, work()).learned, "the generator's are others"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"function": "nowhere:to_be_found"}, "no function 'nowhere:to_be_found': give one as"),
        ({"kinds": ["summary", "summary"]}, "kinds has a kind twice"),
        ({"sampling": {"temperature": 0}}, "midtrain.sampling.temperature is 0 with 2 samples"),
    ],
)
def test_documents_that_could_not_be_written_are_refused(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DocumentsConfig(samples=2, **config)


def test_ancestry_leaves_out_a_document_that_was_made_after_the_training(disk: Home) -> None:
    about = work((RAFT,), kinds=["explanation"], function=f"{__name__}:by_hand")
    learned, failed = about.make_by_function(missing(disk, about))
    write_shard(disk, DOCUMENTS, [learned, failed])
    plan = json.dumps({"documents": asdict(about.plan)})
    write_shard(disk, RUNS, [run("r", flow="train", figures=plan)])
    trained = checkpoint("c", stage="midtrain", created_at=datetime.now(UTC))
    write_shard(disk, CHECKPOINTS, [trained])
    changes: dict[str, Any] = {"attempt": 1, "status": "ok", "created_at": datetime.now(UTC)}
    write_shard(disk, DOCUMENTS, [replace(failed, **changes)])
    assert [row["status"] for row in stored(disk)] == ["ok", "ok"]
    ancestors = ask_warehouse(connect(disk), "ancestry").to_pylist()
    assert [row["num_rows"] for row in ancestors if row["kind"] == "shard of documents"] == [1]
