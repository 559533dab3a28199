"""The engines of a run, as Ray actors: started when first asked for, kept warm until closed.

An actor owns one engine for its life and outlasts a stage, so that one warm engine generates and
judges where the model is the same. An engine that dies, or makes no progress for a set time, ends
its process: Ray starts a new one and asks it again.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tasks.engine.cluster import autoscales, end_actors, logs_of_engines, require_room
from tasks.engine.faults import message_of, printed_cause, root_cause
from tasks.engine.requests import EngineConfig, EngineError
from tasks.engine.usage import Usage
from warehouse.home import Home


def count_replicas(config: EngineConfig) -> int:
    """Returns the number of replicas to start: those that the cluster has room for now.

    A cluster that has lost a node runs fewer; one that grows on demand gets them all. Raises
    RoomError if there is no room for one.
    """
    import ray

    if autoscales():
        return config.replicas
    cluster = ray.cluster_resources()
    require_room(
        cluster,
        config.resources,
        what=f"an engine for {config.model}",
        remedy="use a recipe for this machine, or set PRECEPT_AUTOSCALES=1 if the cluster grows",
    )
    fits = (int(cluster[name] / each) for name, each in config.resources.items() if each)
    replicas = min([config.replicas, *fits])
    if replicas < config.replicas:
        logging.getLogger("precept.engine").warning(
            f"{replicas} of {config.replicas} engines for {config.model}: no room for more"
        )
    return replicas


def actor_options(config: EngineConfig) -> dict[str, Any]:
    """Returns the options of an actor that holds an engine: its share of the node, its restarts."""
    resources = config.resources
    return {
        "num_cpus": resources["CPU"],
        "num_gpus": resources.get("GPU", 0),
        "max_restarts": -1,
        # A request is a call that waits; vLLM itself limits how many sequences run.
        "max_concurrency": 1000,
    }


def engine_maker(
    config: EngineConfig, *, home: Home | None = None, live_folder: str | None = None
) -> "partial[Any]":
    """Returns the engine of a configuration, to be made inside an actor: its class and arguments.

    `home` keeps the account of an endpoint; `live_folder` takes the usage for `precept status`.
    Raises ValueError if the key of an endpoint is missing here.
    """
    if config.endpoint is not None:
        from tasks.engine.endpoint import EndpointEngine

        key = config.endpoint.read_key()
        return partial(EndpointEngine, config, key, home=home, live_folder=live_folder)
    from tasks.engine.vllm_engine import VLLMEngine

    return partial(VLLMEngine, config.located(), live_folder)


@dataclass(slots=True)
class EnginePool:
    """The engines that a run holds at a time: all of one configuration."""

    live_folder: str | None = None
    """Folder in which engines write their usage for `precept status`. Unset: they do not."""
    home: Home | None = None
    """Warehouse that keeps the accounts of endpoints. Unset: none does."""
    num_started: int = 0
    """Models loaded so far."""
    _config: EngineConfig | None = None
    _handles: list[Any] = field(default_factory=list)
    _starting: list[Any] = field(default_factory=list)

    def start_for(self, config: EngineConfig) -> list[Any]:
        """Returns handles of engines with this configuration, which may still be loading.

        Stops those of another configuration first.
        """
        import ray

        if config != self._config:
            self.close()
            replicas = count_replicas(config)
            maker = engine_maker(config, home=self.home, live_folder=self.live_folder)
            actor = ray.remote(maker.func).options(**actor_options(config))
            self._handles = [actor.remote(*maker.args, **maker.keywords) for _ in range(replicas)]
            self._starting = [
                handle.start.options(max_task_retries=2).remote() for handle in self._handles
            ]
            self._config = config
            self.num_started += replicas
        return self._handles

    @property
    def is_loading(self) -> bool:
        """True until `wait` has seen every model loaded."""
        return bool(self._starting)

    def wait(self) -> None:
        """Waits until every model is loaded; raises EngineError if one cannot be."""
        import ray
        from ray.exceptions import RayError

        config, starting = self._config, self._starting
        self._starting = []
        try:
            ray.get(starting)
        except RayError as error:
            assert config is not None
            self.close()
            cause = printed_cause(error) or message_of(root_cause(error))
            raise EngineError(
                f"no engine for {config.model}: {cause}; check "
                "engine.model, its revision and the memory that engine.max_model_len and the cache "
                f"ask for; the engine's own output is in {logs_of_engines()}"
            ) from error

    def adopt(self, config: EngineConfig, handles: Sequence[Any]) -> None:
        """Takes over actors that were made elsewhere, as tests do with scripted engines."""
        self.close()
        self._config, self._handles = config, list(handles)

    def usage(self) -> Usage:
        """Returns the usage of all engines together, without those that restart or are gone."""
        import ray
        from ray.exceptions import RayError

        total = Usage()
        for handle in self._handles:
            try:
                total += ray.get(handle.usage.remote())
            except RayError:
                continue
        return total

    def close(self) -> None:
        """Stops the engines and frees what they held."""
        if self._handles:
            end_actors(self._handles)
        self._handles = []
        self._starting = []
        self._config = None
