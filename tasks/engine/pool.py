"""The engines of a run, as Ray actors: started when first asked for, kept warm until closed."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.engine.requests import EngineConfig, EngineError, Usage

_SECONDS_TO_END = 20.0


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

        from tasks.engine.vllm_engine import VLLMEngine

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

    def figures(self) -> Usage:
        """The figures of all engines together; one that starts anew or is gone counts nothing."""
        import ray
        from ray.exceptions import RayError

        total = Usage()
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
