"""vLLM behind Ray: messages in, samples out.

Here is what an engine is asked and what it gives, and the actors that hold engines. An actor owns
one engine for its life and outlasts a stage, so that one warm engine serves generating and judging
where the model is the same. An engine that dies, or makes no progress for a set time, ends its
process: Ray starts it anew and asks it again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import Field

from specs.prompts import Message
from specs.replies import Reply, ReplyStatus, split_text
from tasks import Config
from tasks.paths import PROJECT


class EngineError(RuntimeError):
    """A model that cannot be served."""


class EngineConfig(Config):
    """A model and how vLLM serves it."""

    model: str = "Qwen/Qwen3-8B"
    """Hugging Face id, or a local folder (relative to the working folder or to Precept's own)."""
    revision: str | None = None
    """Commit of the model on Hugging Face; pin it, so that rows say what they were made with."""
    dtype: str = "bfloat16"
    """Type of the weights in memory."""
    max_model_len: int = Field(32768, gt=0)
    """Longest prompt and output together, in tokens."""
    max_num_seqs: int = Field(256, gt=0)
    """Sequences that one engine works on at once."""
    max_num_batched_tokens: int = Field(8192, gt=0)
    """Tokens in one step of the engine."""
    replicas: int = Field(1, gt=0)
    """Engines to run side by side."""
    tensor_parallel_size: int = Field(1, gt=0)
    """GPUs that one engine is spread over."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory for weights and cache."""
    cpu_cache_gib: int = Field(1, gt=0)
    """Memory for the cache where there is no GPU, in GiB."""
    block_size: int = Field(32, gt=0)
    """Tokens in one block of the cache; a shared prefix is served in whole blocks."""
    enforce_eager: bool = False
    """Do without compiled graphs: starts sooner, runs slower on a GPU."""
    reasons: bool = True
    """Whether the model thinks before it answers; false for a judge whose whole reply counts."""
    reasoning_parser: str | None = None
    """vLLM's parser for models whose reasoning does not stand between <think> tags; it must be one
    that tells which tokens are the answer."""
    chat_template_kwargs: dict[str, bool | str] = {}
    """Options of the model's own chat template, as enable_thinking."""
    use_gpu: bool = True
    """Whether an engine needs GPUs; false for vLLM's CPU build."""
    num_cpus: float = Field(1.0, ge=0)
    """Processors that Ray sets aside for one engine; without a GPU its threads, too."""
    stall_seconds: float = Field(600.0, gt=0)
    """An engine that makes no token for this long is restarted."""
    engine_args: dict[str, bool | int | float | str] = {}
    """Further arguments of vLLM, by the names of its AsyncEngineArgs."""

    @property
    def model_path(self) -> str:
        """The folder of a local model, else the id."""
        for base in (Path.cwd(), PROJECT):
            if (base / self.model / "config.json").is_file():
                return str(base / self.model)
        return self.model

    def of_folder(self, folder: str) -> "EngineConfig":
        """The same engine with the model that lies in a folder."""
        return self.model_copy(update={"model": folder, "revision": None})

    @property
    def num_gpus(self) -> int:
        """GPUs of all replicas together."""
        return self.replicas * self.tensor_parallel_size if self.use_gpu else 0

    @property
    def version(self) -> str:
        """`model@revision`, and whatever else of the engine shapes what it says.

        A local folder's revision is the hash of its weights, tokenizer and configuration; where it
        lies does not matter.
        """
        folder = Path(self.model_path)
        if folder.is_dir():
            name = f"{folder.name}@{_fingerprint(folder)}"
        else:
            name = f"{self.model}@{self.revision or 'main'}"
        plain = EngineConfig(model=self.model)
        shaping = {
            key: value
            for key in (
                "dtype",
                "reasons",
                "reasoning_parser",
                "chat_template_kwargs",
                "engine_args",
            )
            if (value := getattr(self, key)) != getattr(plain, key)
        }
        return f"{name} {json.dumps(shaping, sort_keys=True)}" if shaping else name


def _fingerprint(folder: Path) -> str:
    """The hash of a model folder's files, but for figures and notes beside them."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".bin", ".jinja") or file.name.startswith(
            (
                "tokenizer",
                "config.json",
                "generation_config",
                "special_tokens",
                "added_tokens",
                "vocab",
            )
        ):
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


class Sampling(Config):
    """How a model is sampled."""

    temperature: float = Field(0.6, ge=0, le=2)
    """0 is greedy; several samples of one prompt need more."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of probability that is sampled from."""
    max_tokens: int = Field(8192, gt=0)
    """Longest output in tokens; what is longer is cut and counts as truncated."""


@dataclass(frozen=True, slots=True)
class Request:
    """Messages to answer, several times over."""

    messages: list[Message]
    num_samples: int
    sampling: Sampling
    pattern: str | None = None
    """A regular expression that the visible part of the answer must match, if any."""
    budget: int | None = None
    """Most tokens of reasoning: what is longer is closed there, and the answer follows; none: as
    long as the model likes."""
    reasoning: str | None = None
    """Thoughts that the model is made to have had: it writes the answer alone."""
    raw: bool = False
    """Leave special tokens in the messages whole, as a careless interface would."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One output of an engine, or why there is none."""

    reply: Reply
    finish_reason: str | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    fault: str | None = None
    """`too_long` or `error`; None where the engine answered."""
    reason: str | None = None
    closed_by_force: bool = False
    """Whether the budget ended the reasoning."""

    @property
    def status(self) -> str:
        """The fault of the engine if any, else how the reply came out."""
        if self.fault:
            return self.fault
        return "truncated" if self.finish_reason == "length" else self.reply.status.value


def failed(fault: str, reason: str, *, num_prompt_tokens: int = 0) -> Sample:
    """The sample that stands for none."""
    empty = Reply(ReplyStatus.UNCLOSED, "", "")
    return Sample(empty, num_prompt_tokens=num_prompt_tokens, fault=fault, reason=reason)


@dataclass(slots=True)
class Usage:
    """What an engine has done since it started."""

    prompt_tokens: int = 0
    """Tokens of prompts, each sample's prompt counted."""
    cached_tokens: int = 0
    """Of these, tokens that the prefix cache served."""
    output_tokens: int = 0
    steps: int = 0
    running: int = 0
    """Sequences at work now."""
    seconds_to_start: float = 0.0

    def since(self, before: "Usage") -> "Usage":
        """What was done after `before` was taken; all of it, where the engine began anew since."""
        if self.steps < before.steps:
            return self
        return Usage(
            self.prompt_tokens - before.prompt_tokens,
            self.cached_tokens - before.cached_tokens,
            self.output_tokens - before.output_tokens,
            self.steps - before.steps,
            self.running,
            self.seconds_to_start,
        )


class Engine(Protocol):
    """Whatever answers requests: samples for each, in order."""

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]: ...


class ScriptedEngine:
    """An engine whose replies a function writes; for trying a stage without a model."""

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
        """There is nothing to load."""

    async def figures(self) -> Usage:
        return Usage(output_tokens=len(self.requests))

    async def stop(self) -> None:
        """There is nothing to end."""

    def _sample(self, text: str) -> Sample:
        words = len(text.split())
        return Sample(split_text(text), finish_reason="stop", num_output_tokens=words)
