"""Runs → figures of the factory that Ray tells Prometheus.

A counter goes when the process that holds it ends, and runs end before anybody has asked. So one
actor of the cluster counts for all of them. A cluster that ends with its run has none.
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
"""By name, what each figure counts, and its labels. Ray puts its own name first, and Prometheus
`_total` last where it is a counter."""


class CounterActor:
    """The actor that counts."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        self._made: dict[str, Any] = {
            **{name: Counter(name, *told) for name, told in COUNTERS.items()},
            **{name: Gauge(name, *told) for name, told in GAUGES.items()},
        }

    def add(self, name: str, value: float, labels: dict[str, str]) -> None:
        if value:
            self._made[name].inc(value, labels)
        else:
            # Ray's counters refuse 0, by which alone Prometheus sees how they began.
            self._made[name]._record(0.0, labels)

    def set(self, name: str, value: float, labels: dict[str, str]) -> None:
        self._made[name].set(value, labels)


@dataclass(frozen=True, slots=True)
class Meter:
    """What a run counts with. What is only for looking at is not waited for."""

    actor: Any

    @classmethod
    def of_cluster(cls) -> "Meter":
        """That of the cluster at `$RAY_ADDRESS`, which all runs share; else one that is silent."""
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
            # The node that stays; a driver's own leaves with its run.
            "resources": {"node:__internal_head__": 0.001},
        }
        return cls(ray.remote(CounterActor).options(**options).remote())

    def begin(self, stage: str, table: str) -> None:
        """Shows what a stage counts before it has done anything: a counter that appears with its
        first value has not increased."""
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
