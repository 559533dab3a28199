"""checkpoints ← documents: next-token training on texts that explain the policies, before SFT.

Model spec midtraining (arXiv 2605.02087): plain text without a chat template, all tokens of which
are learned. Each document stands in rows of its own: in a row that several share, a model could
copy a rule from the document before instead of learning it.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from tasks.data.documents import Documents, DocumentsConfig
from tasks.training.checkpoint import TrainingOutcome
from tasks.training.sft import BEST, RowsConfig, learn_rows
from tasks.training.tokenise import tokenise_documents
from tasks.training.trainer import BestBy, DataError, Job, fit


class MidtrainConfig(DocumentsConfig, RowsConfig):
    """Documents that explain the policies, and the training on them."""

    max_length: int = Field(8192, gt=1)
    """Longest row in tokens; a longer document is cut into rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MidtrainTraining:
    """Training on documents that explain the policies."""

    config: MidtrainConfig
    documents: Documents
    name: str = "midtrain"
    best: BestBy = BEST

    @classmethod
    def of(cls, documents: Documents, *, config: MidtrainConfig) -> "MidtrainTraining":
        """Returns the training on documents; raises DataError if there is none to learn."""
        if not documents.learned:
            reasons = f" ({dict(documents.left_out)})" if documents.left_out else ""
            raise DataError(
                f"no document to learn from{reasons}; raise midtrain.samples or "
                "midtrain.sampling.max_tokens, or let another model or function write them"
            )
        return cls(config=config, documents=documents)

    @property
    def fingerprint(self) -> str:
        return self.documents.fingerprint

    @property
    def set_id(self) -> str | None:
        return None

    @property
    def num_gpus(self) -> float:
        return self.config.workers.num_gpus

    def train(self, job: Job) -> TrainingOutcome:
        """Tokenises the documents, unless an earlier attempt has, and trains on them."""
        rows = tokenise_documents(
            self.documents,
            job.load_tokenizer(),
            max_length=self.config.max_length,
            folder=Path(job.folder) / "data",
        )
        return TrainingOutcome(fit(learn_rows, job, rows), rows.figures)
