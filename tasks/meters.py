"""Counters and gauges of the factory that Ray exports to Prometheus.

A counter vanishes with the process that holds it, and runs end before Prometheus asks. So one
detached actor of the cluster counts for all runs. A cluster that ends with its run has none.
"""

import os
from dataclasses import dataclass
from typing import Any

COUNTERS = {
    "precept_rows": ("Rows committed.", ("table", "status")),
    "precept_tokens": ("Tokens of the engines.", ("stage", "kind")),
    "precept_accepted": ("Completions that all samples of the judge accepted.", ()),
    "precept_gpu_seconds": ("GPUs times seconds.", ("stage",)),
}
GAUGES = {"precept_waiting": ("Units that a stage has yet to commit.", ("stage",))}
"""By name, the help text and the labels of each metric. Ray puts `ray_` before the name, and
Prometheus `_total` after that of a counter."""


class CounterActor:
    """The actor that holds the counters and gauges."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        self._metrics: dict[str, Any] = {
            **{name: Counter(name, *texts) for name, texts in COUNTERS.items()},
            **{name: Gauge(name, *texts) for name, texts in GAUGES.items()},
        }

    def add(self, name: str, value: float, labels: dict[str, str]) -> None:
        if value:
            self._metrics[name].inc(value, labels)
        else:
            # Ray's counters refuse 0, but Prometheus needs a first sample to see an increase.
            self._metrics[name]._record(0.0, labels)

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        self._metrics[name].set(value, labels)


@dataclass(frozen=True, slots=True)
class Meter:
    """A run's handle on the counters; no call waits, because metrics must not slow the work."""

    actor: Any

    @classmethod
    def of_cluster(cls) -> "Meter":
        """Returns the meter of the cluster at `$RAY_ADDRESS`, which all runs share.

        Returns one that counts nothing if the run has a cluster of its own.
        """
        import ray

        if not os.environ.get("RAY_ADDRESS") or not ray.is_initialized():
            return cls(None)
        options = {
            "name": "precept_figures",
            "namespace": "precept",
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": -1,
            "num_cpus": 0,
            # On the head node, which stays; a driver's own node leaves with its run.
            "resources": {"node:__internal_head__": 0.001},
        }
        return cls(ray.remote(CounterActor).options(**options).remote())

    def begin(self, stage: str, table: str) -> None:
        """Publishes zeros, because Prometheus's increase() ignores a counter's first sample."""
        for kind in ("prompt", "cached", "output"):
            self.add("precept_tokens", 0, stage=stage, kind=kind)
        for status in ("ok", "error"):
            self.add("precept_rows", 0, table=table, status=status)
        self.add("precept_accepted", 0)
        self.add("precept_gpu_seconds", 0, stage=stage)

    def add(self, name: str, value: float, **labels: str) -> None:
        """Adds to a counter."""
        if self.actor is not None:
            self.actor.add.remote(name, float(value), labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        if self.actor is not None:
            self.actor.set.remote(name, float(value), labels)
