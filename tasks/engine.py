"""vLLM behind Ray: messages in, samples out.

Here is what an engine is asked and what it gives, and the actors that hold engines. An actor owns
one engine for its life and outlasts a stage, so that one warm engine serves generating and judging
where the model is the same. An engine that dies, or makes no progress for a set time, ends its
process: Ray starts it anew and asks it again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from specs.prompts import Message
from specs.replies import Reply, ReplyStatus, split_text
from tasks import Config

PROJECT = Path(__file__).parents[1]
_SECONDS_TO_END = 20.0


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
class Figures:
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

    def since(self, before: "Figures") -> "Figures":
        """What was done after `before` was taken; all of it, where the engine began anew since."""
        if self.steps < before.steps:
            return self
        return Figures(
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

    async def figures(self) -> Figures:
        return Figures(output_tokens=len(self.requests))

    async def stop(self) -> None:
        """There is nothing to end."""

    def _sample(self, text: str) -> Sample:
        words = len(text.split())
        return Sample(split_text(text), finish_reason="stop", num_output_tokens=words)


def find_room(config: EngineConfig) -> int:
    """How many replicas to start: as many as the cluster has room for, which may have lost a node.

    All of them where `$PRECEPT_AUTOSCALES` is set: what waits for a place brings nodes. Raises
    EngineError where there is no room for one; Ray would wait for ever.
    """
    import ray

    if os.environ.get("PRECEPT_AUTOSCALES"):
        return config.replicas
    there = ray.cluster_resources()
    gpus = config.tensor_parallel_size if config.use_gpu else 0
    room = config.replicas
    for name, each in (("GPU", gpus), ("CPU", config.num_cpus)):
        found = there.get(name, 0)
        if each > found:
            raise EngineError(
                f"an engine for {config.model} needs {each:g} {name}s and the Ray cluster has "
                f"{found:g}; give a recipe for this machine, or set PRECEPT_AUTOSCALES=1 where "
                "nodes come when they are wanted"
            )
        if each:
            room = min(room, int(found / each))
    if room < config.replicas:
        logging.getLogger("precept.engine").warning(
            f"{room} of {config.replicas} engines for {config.model}: there is no room for more"
        )
    return room


def end(handles: Sequence[Any]) -> None:
    """Ends actors that hold engines, and frees what they held."""
    import ray

    # vLLM frees what it holds only if it is told to end.
    ended = [handle.stop.remote() for handle in handles]
    ray.wait(ended, num_returns=len(ended), timeout=_SECONDS_TO_END)
    for handle in handles:
        ray.kill(handle)


@dataclass(slots=True)
class Engines:
    """The engines of a run: started when first asked for, kept warm until they are closed."""

    live_folder: str | None = None
    _config: EngineConfig | None = None
    _handles: list[Any] = field(default_factory=list)
    _starting: list[Any] = field(default_factory=list)
    num_started: int = 0
    """Models loaded in this run."""

    def serving(self, config: EngineConfig) -> list[Any]:
        """Handles of engines with this configuration, which may still load; others are stopped."""
        import ray

        from tasks.serving import VLLMEngine

        if config != self._config:
            self.close()
            room = find_room(config)
            options: dict[str, Any] = {
                "num_cpus": config.num_cpus,
                "num_gpus": config.tensor_parallel_size if config.use_gpu else 0,
                "max_restarts": -1,
                "max_concurrency": 1000,
            }
            actor = ray.remote(VLLMEngine).options(**options)
            # An actor may work in another folder than this process.
            found = config.model_copy(update={"model": config.model_path})
            self._handles = [actor.remote(found, self.live_folder) for _ in range(room)]
            self._starting = [
                handle.start.options(max_task_retries=2).remote() for handle in self._handles
            ]
            self._config = config
            self.num_started += room
        return self._handles

    def wait(self) -> None:
        """Waits until every model is loaded; raises EngineError where one cannot be."""
        import ray
        from ray.exceptions import RayError

        config, starting = self._config, self._starting
        self._starting = []
        try:
            ray.get(starting)
        except RayError as error:
            assert config is not None
            self.close()
            words = str(getattr(error, "cause", None) or error).strip() or type(error).__name__
            raise EngineError(
                f"no engine for {config.model}: {words.splitlines()[-1]}; check engine.model, its "
                "revision and the memory that engine.max_model_len and the cache ask for; what the "
                "engine printed is in /tmp/ray/session_latest/logs"
            ) from error

    def use(self, config: EngineConfig, handles: Sequence[Any]) -> None:
        """Serves a configuration by actors that were made elsewhere."""
        self.close()
        self._config, self._handles = config, list(handles)

    def figures(self) -> Figures:
        """The figures of all engines together; one that starts anew or is gone counts nothing."""
        import ray
        from ray.exceptions import RayError

        total = Figures()
        for handle in self._handles:
            try:
                one = ray.get(handle.figures.remote())
            except RayError:
                continue
            total.prompt_tokens += one.prompt_tokens
            total.cached_tokens += one.cached_tokens
            total.output_tokens += one.output_tokens
            total.steps += one.steps
            total.running += one.running
            total.seconds_to_start = max(total.seconds_to_start, one.seconds_to_start)
        return total

    def close(self) -> None:
        """Stops the engines and frees what they held."""
        if self._handles:
            end(self._handles)
        self._handles = []
        self._starting = []
        self._config = None
