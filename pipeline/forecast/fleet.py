"""How long a run takes on given nodes, and what that costs. Pure.

In: seconds of work and of loading by stage, the nodes. Out: hours on the clock and money, as the arrays of
pipeline/forecast/estimates.py. Stages come one after another, each on as many workers as its resources leave
room for; all nodes are paid for from the first to the last minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.config import PricesConfig
from pipeline.engine.stage import Resources
from pipeline.errors import UsageError
from pipeline.forecast.estimates import NONE, Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """`nodes` of the same kind, and what their CPUs and GPUs cost (of the prices only those: what else a node
    has is rented with it)."""

    nodes: int = 1
    node_cpus: float = 1.0
    node_gpus: float = 0.0
    prices: PricesConfig = field(default_factory=PricesConfig)

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.node_cpus < 1 or self.node_gpus < 0:
            raise UsageError(
                f"{self.nodes} nodes of {self.node_cpus:g} CPUs and {self.node_gpus:g} GPUs",
                expected="a node and a CPU at least",
            )

    @property
    def hour(self) -> float:
        """What an hour of all nodes costs; 0: not known."""
        prices = self.prices
        return self.nodes * (self.node_cpus * prices.cpu_hour + self.node_gpus * prices.gpu_hour)

    def workers(self, need: Resources) -> int:
        """How many workers that need this find room."""
        on_a_node = int(self.node_cpus // need.cpus)
        if need.gpus:
            on_a_node = min(on_a_node, int(self.node_gpus // need.gpus + 1e-9))
        if not on_a_node:
            raise UsageError(
                f"no node has {need.cpus:g} CPUs and {need.gpus:g} GPUs, which one worker needs",
                fix="--node-cpus, --node-gpus",
            )
        return self.nodes * on_a_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Of one stage: seconds of all workers together, those of loading in each, and what a worker needs."""

    worker_s: Array
    load_s: float
    resources: Resources


def clock_hours(works: Mapping[str, Work], fleet: Fleet) -> Array:
    """Hours from the first task to the last."""
    seconds = (w.worker_s / fleet.workers(w.resources) + w.load_s for w in works.values())
    return sum(seconds, NONE) / 3600
