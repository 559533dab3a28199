"""documents ← rules and policies: texts that explain them, written by a model or a function.

A document that was cut, or that quotes nothing of its policy, is a row with its reason, and no
training learns it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import duckdb
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from specs.documents import DocumentKind, Subject, is_quoting, subjects
from specs.policy import Pack
from specs.prompts import document_messages
from specs.template import DEFAULT_SET, Template, load_template
from tasks import Config
from tasks.data.drafts import DECLINED, FAULTS, is_declined
from tasks.engine.requests import Engine, Request, Sample, Sampling
from tasks.paths import find_function
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending, look_up
from warehouse.tables import DOCUMENTS, Document, Table, content_id


class DocumentFunction(Protocol):
    """Writes a document in place of a model."""

    def __call__(self, subject: Subject, *, sample_index: int) -> str | None:
        """Returns a document, the same for the same arguments; None if there is none to write."""
        ...


class DocumentsConfig(Config):
    """Documents that explain the policies."""

    samples: int = Field(4, gt=0)
    """Documents of each kind about each rule, or about each policy if the kind is `summary`."""
    kinds: list[DocumentKind] = Field(["explanation", "dialogue", "summary"], min_length=1)
    """Kinds of documents: an `explanation` of a rule and its reason, a `dialogue` about a request
    at its line, a `summary` of the whole policy in other words."""
    function: str | None = None
    """A Python function that writes them, as `package.module:function`; its name is hashed into the
    ids of documents. Unset: the generator writes them, by template `document` of
    `generate.template`."""
    sampling: Sampling = Sampling(temperature=1.0)
    """Sampling of the generator as it writes documents."""

    @field_validator("function")
    @classmethod
    def _check_function(cls, name: str | None) -> str | None:
        if name is not None:
            find_function(name)
        return name

    @model_validator(mode="after")
    def _check_documents(self) -> "DocumentsConfig":
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds has a kind twice: {self.kinds}; write each once")
        if self.function is None:
            self.sampling.require_variety("midtrain", self.samples)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentUnit:
    """A subject and the documents that it lacks."""

    block_key: str
    """The spec id."""
    subject_id: str
    sample_indices: list[int]
    attempts: list[int]
    """The attempt that each of these documents would be; from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentWork:
    """Documents about a pack, for relation `wanted_documents(subject_id, spec_id)`."""

    config: DocumentsConfig
    stage: StageConfig
    pack: Pack
    model: str
    """`name@revision` of the generator."""
    run_id: str
    template: Template = field(default_factory=lambda: load_template("document", DEFAULT_SET))
    name: str = "document"
    table: Table = DOCUMENTS
    unit: type[DocumentUnit] = DocumentUnit
    subjects: Mapping[str, Subject] = field(init=False)
    """By their ids."""

    def __post_init__(self) -> None:
        about = subjects(self.pack, self.config.kinds)
        by_id = {content_id(one.spec.id, one.kind, one.wanted): one for one in about}
        object.__setattr__(self, "subjects", by_id)

    @property
    def documenting_id(self) -> str:
        """Hash of what all documents share: template, model and sampling, or the function's
        name."""
        if self.config.function:
            return content_id(self.config.function)
        return content_id(self.template.id, self.model, self.config.sampling.identity)

    @property
    def wanted(self) -> pa.Table:
        """The relation `wanted_documents`."""
        spec_ids = [subject.spec.id for subject in self.subjects.values()]
        return pa.table({"subject_id": list(self.subjects), "spec_id": spec_ids})

    @property
    def plan(self) -> "DocumentPlan":
        """The documents that the work wants."""
        return DocumentPlan(
            documenting_id=self.documenting_id,
            subject_ids=list(self.subjects),
            num_samples=self.config.samples,
        )

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the subjects that lack documents, by spec."""
        return find_pending(
            connection,
            "documents",
            wave_rows=self.stage.wave_rows,
            documenting_id=self.documenting_id,
            samples=self.config.samples,
            retries=self.stage.retries,
            error_attempts=self.stage.error_attempts,
            run_id=self.run_id,
        )

    async def make(self, units: Sequence[DocumentUnit], engine: Engine) -> list[Document]:
        """Returns the documents that the units lack, written by the engine's model."""
        requests = [
            Request(
                messages=document_messages(self.template, self.subjects[unit.subject_id]),
                num_samples=len(unit.sample_indices),
                sampling=self.config.sampling,
            )
            for unit in units
        ]
        outputs = await engine.generate(requests)
        return [
            self._row(unit, slot, _read(sample), sample)
            for unit, samples in zip(units, outputs, strict=True)
            for slot, sample in enumerate(samples)
        ]

    def make_by_function(self, units: Sequence[DocumentUnit]) -> list[Document]:
        """Returns the documents that the units lack, written by the function of the
        configuration."""
        write: DocumentFunction = find_function(self.config.function or "")
        return [
            self._row(unit, slot, _call(write, self.subjects[unit.subject_id], index), None)
            for unit in units
            for slot, index in enumerate(unit.sample_indices)
        ]

    def _row(self, unit: DocumentUnit, slot: int, read: "_Read", sample: Sample | None) -> Document:
        """Returns the row of the document that the unit lacks in this slot."""
        subject, index = self.subjects[unit.subject_id], unit.sample_indices[slot]
        if read.status == "ok" and not is_quoting(read.text, subject):
            read = _Read("unquoted", read.text, "it quotes nothing of its policy")
        return Document(
            document_id=content_id(unit.subject_id, self.documenting_id, index),
            documenting_id=self.documenting_id,
            subject_id=unit.subject_id,
            pack=self.pack.id,
            category=subject.policy.id,
            rule_id=subject.rule_id,
            kind=subject.kind,
            sample_index=index,
            attempt=unit.attempts[slot],
            status=read.status,
            reason=read.reason,
            model=self.config.function or self.model,
            num_prompt_tokens=sample.num_prompt_tokens if sample else 0,
            num_cached_tokens=sample.num_cached_tokens if sample else 0,
            num_output_tokens=sample.num_output_tokens if sample else 0,
            run_id=self.run_id,
            created_at=datetime.now(UTC),
            spec=subject.spec.text,
            text=read.text,
        )


@dataclass(frozen=True, slots=True)
class _Read:
    """An output as a document, or the reason that it is none."""

    status: str
    text: str = ""
    reason: str | None = None


def _call(write: DocumentFunction, subject: Subject, index: int) -> _Read:
    """Returns the document that a function wrote; its exception is the fault of one document."""
    try:
        text: Any = write(subject, sample_index=index)
    except Exception as error:
        return _Read("error", reason=f"{type(error).__name__}: {error}")
    if text is None:
        return _Read("empty_answer", reason="the function has nothing to write about this subject")
    if not isinstance(text, str):
        return _Read(
            "error", reason=f"the function returned {type(text).__name__}; return a text or None"
        )
    return _Read("ok", text)


def _read(sample: Sample) -> _Read:
    """Returns the document that a model wrote."""
    text = sample.reply.answer.strip()
    if sample.status != "ok" or not sample.reply.has_answer:
        return _Read(sample.status, text, sample.reason or FAULTS.get(sample.status))
    if is_declined(text):
        return _Read("refused", text, DECLINED)
    return _Read("ok", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPlan:
    """The documents that a run wanted; it tells which of them a midtraining learned."""

    documenting_id: str
    subject_ids: Sequence[str]
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedDocument:
    """A document that a midtraining learns."""

    document_id: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The documents that a midtraining learns from."""

    learned: Sequence[LearnedDocument]
    """In the order of their ids."""
    left_out: Mapping[str, int]
    """Documents that are not learned, by reason."""

    @property
    def fingerprint(self) -> str:
        """Hash of the documents' ids and texts."""
        parts = (part for one in self.learned for part in (one.document_id, one.text))
        return content_id("documents", *parts)


def choose_documents(connection: duckdb.DuckDBPyConnection, work: DocumentWork) -> Documents:
    """Returns the documents that a work wants, as far as they are made."""
    rows = look_up(
        connection,
        "wanted_documents",
        documenting_id=work.documenting_id,
        samples=work.config.samples,
    )
    faults = (row["reason"] or row["status"] for row in rows if row["status"] != "ok")
    learned = [
        LearnedDocument(document_id=row["document_id"], kind=row["kind"], text=row["text"])
        for row in rows
        if row["status"] == "ok"
    ]
    return Documents(learned=learned, left_out=dict(Counter(faults)))
