"""Requests to an engine and its samples: messages in, samples out."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field, field_validator, model_validator

from specs.prompts import Message
from specs.replies import Reply, ReplyForm, ReplyStatus, split_text
from tasks import Config
from tasks.engine.endpoint_config import EndpointConfig
from tasks.engine.families import check_parser, marks_of
from tasks.engine.turns import THINK_FIRST
from tasks.engine.usage import Usage
from tasks.paths import Located, find


class EngineError(RuntimeError):
    """A model that cannot be served."""


_OF_OWN_ENGINES = (
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "gpu_share",
    "cpu_cache_gib",
    "block_size",
    "enforce_eager",
    "num_cpus",
    "stall_seconds",
    "engine_args",
)
"""Settings that shape an engine of our own, and have no effect on an endpoint."""


class EngineConfig(Config):
    """A model and how vLLM serves it, or the endpoint that does."""

    model: Located = "Qwen/Qwen3-8B"
    """Hugging Face id, or a local folder."""
    revision: str | None = None
    """Commit of the model on Hugging Face; pin it, so that rows name the weights that made them.
    Unset: `main`."""
    dtype: Literal["auto", "bfloat16", "float16", "half", "float32", "float"] = "bfloat16"
    """Type of the weights in memory."""
    max_model_len: int | None = Field(None, gt=0)
    """Longest prompt and output together, in tokens. Unset: the model's own context."""
    max_num_seqs: int = Field(256, gt=0)
    """Sequences that one engine runs at once."""
    max_num_batched_tokens: int = Field(8192, gt=0)
    """Tokens in one step of the engine."""
    replicas: int = Field(1, gt=0)
    """Engines to run side by side."""
    tensor_parallel_size: int = Field(1, gt=0)
    """GPUs that one engine is spread over."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory for weights and cache; of its part of one, where `gpu_share` is below
    1."""
    gpu_share: float = Field(1.0, gt=0, le=1)
    """Share of a GPU that Ray reserves for one engine, so that others, or a training, stand on the
    same GPU."""
    cpu_cache_gib: int = Field(1, gt=0)
    """Memory for the cache without a GPU, in GiB."""
    block_size: int = Field(32, gt=0)
    """Tokens in one block of the cache; a shared prefix is served in whole blocks."""
    enforce_eager: bool = False
    """Run without compiled graphs: starts sooner, generates more slowly on a GPU."""
    reasons: bool | Literal["prompted"] = True
    """True if the model reasons before it answers; false for a judge whose whole reply counts;
    `prompted` asks a model that has no reasoning of its own to think between <think> tags."""
    reasoning_parser: str | None = None
    """vLLM's parser of the model's family, if it marks its reasoning by other than <think> tags.
    Unset: <think> tags."""
    chat_template_kwargs: dict[str, bool | str] = {}
    """Options of the model's own chat template, such as enable_thinking."""
    use_gpu: bool = True
    """True if an engine needs GPUs; false for vLLM's CPU build."""
    num_cpus: float = Field(1.0, ge=0)
    """Processors that Ray reserves for one engine; without a GPU also its threads."""
    stall_seconds: float = Field(600.0, gt=0)
    """Time without a new token after which an engine is restarted, in seconds."""
    engine_args: dict[str, bool | int | float | str] = {}
    """Further arguments of vLLM, by the names of its AsyncEngineArgs."""
    endpoint: EndpointConfig | None = None
    """OpenAI-compatible server that serves the model under the name `model`. Unset: an engine of
    our own does."""

    @field_validator("reasoning_parser")
    @classmethod
    def _check_parser(cls, name: str | None) -> str | None:
        if name is not None:
            check_parser(name)
        return name

    @model_validator(mode="after")
    def _check(self) -> "EngineConfig":
        marks_of(self.reasoning_parser, chat_template_kwargs=self.chat_template_kwargs)
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens} and max_num_seqs "
                f"{self.max_num_seqs}; a step has a token of each sequence: raise the former"
            )
        if self.gpu_share < 1 and self.tensor_parallel_size > 1:
            raise ValueError(
                f"gpu_share is {self.gpu_share:g} and tensor_parallel_size "
                f"{self.tensor_parallel_size}: an engine that is spread over GPUs has them for "
                "itself; leave one of the two out"
            )
        if self.reasons == "prompted" and self.reasoning_parser:
            raise ValueError(
                f"reasons is 'prompted' and reasoning_parser {self.reasoning_parser!r}; a model "
                "that is asked to think uses <think> tags: leave one of the two out"
            )
        doubled = sorted(self.engine_args.keys() & EngineConfig.model_fields.keys())
        if doubled:
            raise ValueError(f"engine_args has {doubled[0]!r}; set engine.{doubled[0]} instead")
        if self.endpoint is not None:
            self._check_endpoint(self.endpoint)
        return self

    def _check_endpoint(self, endpoint: EndpointConfig) -> None:
        fields = EngineConfig.model_fields
        idle = [name for name in _OF_OWN_ENGINES if getattr(self, name) != fields[name].default]
        if idle:
            raise ValueError(
                f"{idle[0]} is set and the model stands behind an endpoint, which has settings of "
                "its own: leave it out"
            )
        if self.replicas > endpoint.max_in_flight:
            raise ValueError(
                f"replicas is {self.replicas} and endpoint.max_in_flight {endpoint.max_in_flight}; "
                "one replica is enough for an endpoint"
            )

    @property
    def model_path(self) -> str:
        """The folder of a local model, else the id."""
        if self.endpoint is not None:
            return self.model
        folder = find(self.model, accept=lambda path: (path / "config.json").is_file())
        return str(folder) if folder else self.model

    def located(self) -> "EngineConfig":
        """Returns the configuration as an actor needs it, which may work in another folder."""
        return self.model_copy(update={"model": self.model_path})

    def with_model(self, folder: str) -> "EngineConfig":
        """Returns the same engine with a trained model, which lies in a folder.

        Training teaches a model to reason without being asked, whatever it was before.
        """
        changes = {"model": folder, "revision": None, "reasons": True, "endpoint": None}
        return self.model_copy(update=changes)

    @property
    def num_gpus(self) -> float:
        """GPUs of all replicas together."""
        if not self.use_gpu or self.endpoint is not None:
            return 0
        return self.replicas * self.tensor_parallel_size * self.gpu_share

    @property
    def memory_share(self) -> float:
        """Share of the memory of a whole GPU for weights and cache."""
        return self.gpu_memory_utilization * self.gpu_share

    @property
    def resources(self) -> dict[str, float]:
        """Resources that Ray reserves for one engine, by Ray's names."""
        if self.endpoint is not None:
            # It only waits: it must not take the processor of an engine of our own.
            return {"CPU": 0.0}
        gpus = {"GPU": self.tensor_parallel_size * self.gpu_share} if self.use_gpu else {}
        return {"CPU": self.num_cpus, **gpus}

    @property
    def takes_reasoning(self) -> bool:
        """True if the model reasons, and can be given the reasoning that its answer follows."""
        return bool(self.reasons) and self.endpoint is None

    @property
    def version(self) -> str:
        """`model@revision`, and every other setting that shapes the model's replies.

        The revision of a local folder is the hash of its weights, tokenizer and configuration;
        where the folder lies does not matter, and neither where an endpoint is.
        """
        folder = Path(self.model_path)
        if self.endpoint is None and folder.is_dir():
            name = f"{folder.name}@{_fingerprint(folder)}"
        else:
            name = f"{self.model}@{self.revision or 'main'}"
        defaults = EngineConfig(model=self.model)
        # These names are hashed into ids: a renamed field keeps its old name here.
        shaping = {
            key: value
            for key, value, default in (
                ("dtype", self.dtype, defaults.dtype),
                ("reasons", _hashed(self.reasons), defaults.reasons),
                ("reasoning_parser", self.reasoning_parser, defaults.reasoning_parser),
                ("chat_template_kwargs", self.chat_template_kwargs, defaults.chat_template_kwargs),
                ("engine_args", self.engine_args, defaults.engine_args),
                # The server may hold other weights, or split replies otherwise.
                ("endpoint", self.endpoint is not None, False),
                ("body", self.endpoint.body if self.endpoint else {}, {}),
            )
            if value != default
        }
        return f"{name} {json.dumps(shaping, sort_keys=True)}" if shaping else name


def _hashed(reasons: bool | str) -> bool | str:
    """Returns the setting as it is hashed: with the words that ask a model to think."""
    if reasons != "prompted":
        return reasons
    return f"prompted {hashlib.sha256(THINK_FIRST.encode()).hexdigest()[:8]}"


_MODEL_FILES = (
    "tokenizer",
    "config.json",
    "generation_config",
    "special_tokens",
    "added_tokens",
    "vocab",
)


def _fingerprint(folder: Path) -> str:
    """Returns the hash of the files of a model, without figures and notes that lie beside them."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        is_weights = file.suffix in (".safetensors", ".bin", ".jinja")
        if is_weights or file.name.startswith(_MODEL_FILES):
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


class Sampling(Config):
    """Sampling of a model."""

    temperature: float = Field(0.6, ge=0, le=2)
    """Temperature; 0 is greedy, and several samples of one prompt need more."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of the probability that is sampled from."""
    max_tokens: int = Field(8192, gt=0)
    """Longest output in tokens; a longer one is cut and counts as truncated."""

    def require_variety(self, section: str, samples: int) -> None:
        """Raises ValueError if several samples are asked for that would all be the same."""
        if samples > 1 and self.temperature == 0:
            raise ValueError(
                f"{section}.sampling.temperature is 0 with {samples} samples, which would all be "
                "the same: raise the temperature or ask for 1 sample"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """Messages to answer, several times over."""

    messages: list[Message]
    num_samples: int
    sampling: Sampling
    form: ReplyForm | str | None = None
    """Form of a judge's reply, or a regular expression of the whole output; not together with a
    budget. Unset: the reply is free."""
    budget: int | None = None
    """Most tokens of reasoning; longer reasoning is closed there, and the answer follows. Unset:
    as long as the model likes."""
    reasoning: str | None = None
    """Reasoning to put before the answer, so that the model writes the answer alone."""
    raw: bool = False
    """Leave special tokens in the messages whole, as an interface without protection would."""

    def __post_init__(self) -> None:
        if self.form is not None and self.budget is not None:
            raise ValueError("a reply that is held to a form has no budget: leave one of them out")


@dataclass(frozen=True, slots=True)
class Sample:
    """One output of an engine, or why there is none."""

    reply: Reply
    finish_reason: str | None = None
    num_prompt_tokens: int | None = 0
    num_cached_tokens: int | None = 0
    num_output_tokens: int | None = 0
    """None, as the two above, if an endpoint did not tell."""
    fault: str | None = None
    """`too_long`, `filtered` by an endpoint, or `error`; one of `WITHHELD` if the request was not
    sent; None if the engine answered."""
    reason: str | None = None
    closed_by_force: bool = False
    """True if the budget ended the reasoning."""

    @property
    def num_reasoning_tokens(self) -> int | None:
        """Tokens of the reasoning; None if an endpoint did not tell."""
        return None if self.num_output_tokens is None else self.reply.num_reasoning_tokens

    @property
    def num_answer_tokens(self) -> int | None:
        """Tokens of the answer; None if an endpoint did not tell."""
        return None if self.num_output_tokens is None else self.reply.num_answer_tokens

    @property
    def is_whole(self) -> bool:
        """True if the engine gave an output that was not cut short."""
        return not self.fault and self.finish_reason != "length"

    @property
    def status(self) -> str:
        """The engine's fault, if any, else the status of the reply."""
        if self.fault:
            return self.fault
        return "truncated" if self.finish_reason == "length" else self.reply.status.value


TRUNCATED = "the output reached max_tokens"
"""The reason of a row whose output was cut short."""


UNASKED, UNREACHABLE = "unasked", "unreachable"
WITHHELD = (UNASKED, UNREACHABLE)
"""Faults of samples that were never asked for: the endpoint's budget or the recipe forbade it, or
the server was away. They come to no row, so that a later run asks for them."""


class WithheldError(RuntimeError):
    """A request that an endpoint was not sent, in work that cannot go on without its reply."""


def require_asked(samples: Sequence[Sample]) -> None:
    """Raises WithheldError if a sample was never asked for."""
    for sample in samples:
        if sample.fault in WITHHELD:
            raise WithheldError(sample.reason or sample.fault)


def failed(fault: str, reason: str, *, num_prompt_tokens: int = 0) -> Sample:
    """Returns a sample that records why a request gave no output."""
    empty = Reply(ReplyStatus.UNCLOSED, "", "")
    return Sample(empty, num_prompt_tokens=num_prompt_tokens, fault=fault, reason=reason)


class Engine(Protocol):
    """Anything that answers requests: samples for each, in order."""

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]: ...


class ScriptedEngine:
    """An engine whose replies a function of request and sample index writes, to try a stage
    without a model."""

    def __init__(self, script: Callable[[Request, int], str]) -> None:
        self.script = script
        self.requests: list[Request] = []

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        self.requests += requests
        return [
            [self._sample(self.script(request, i)) for i in range(request.num_samples)]
            for request in requests
        ]

    async def start(self) -> None:
        """Does nothing: there is no model to load."""

    async def usage(self) -> Usage:
        return Usage(output_tokens=len(self.requests))

    async def stop(self) -> None:
        """Does nothing: there is no model to free."""

    def _sample(self, text: str) -> Sample:
        words = len(text.split())
        return Sample(split_text(text), finish_reason="stop", num_output_tokens=words)
