"""Who may have how much of a machine or a cluster, where several stages run at the same time.

In: what a worker of each stage needs, how many it would have, what each node has. Out: numbers of workers.
Amounts are CPUs, GPUs and GB of memory. Pure, but for the list of the stages that run at present, which
threads share.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.engine.stage import Resources
from pipeline.errors import UsageError

Amounts = Mapping[str, float]
UNITS = {"CPU": "CPUs", "GPU": "GPUs", "memory": "GB of memory"}
KEYS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory_gb"}
EPSILON = 1e-6


@dataclass(slots=True, eq=False)
class Claim:
    """A stage that runs: what a worker of it needs, how many workers it would have now, and how many it has
    that are there."""

    need: Amounts
    wanted: int = 0
    present: int = 0


@dataclass(slots=True, eq=False)
class Claims:
    """Those of one executor. Take `lock` for whatever must happen at once."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    all: list[Claim] = field(default_factory=list)

    @contextmanager
    def entered(self, need: Amounts) -> Iterator[Claim]:
        """A claim that stands while the block runs."""
        claim = Claim(need=need)
        with self.lock:
            self.all.append(claim)
        try:
            yield claim
        finally:
            with self.lock:
                self.all.remove(claim)

    def share(self, claim: Claim, nodes: Sequence[Amounts]) -> int:
        """How many workers it should have of these nodes."""
        with self.lock:
            counts = shares([(other.need, other.wanted) for other in self.all], nodes)
            return counts[self.all.index(claim)]


def amounts(need: Resources) -> dict[str, float]:
    """What a worker takes. A GPU holds a whole number of equal fractions: a third and a little counts as a
    half."""
    gpus = 1 / int(1 / need.gpus + EPSILON) if 0 < need.gpus < 1 else need.gpus
    wanted = {"CPU": need.cpus, "GPU": gpus, "memory": need.memory_gb}
    return {name: amount for name, amount in wanted.items() if amount}


def shares(claims: Sequence[tuple[Amounts, int]], nodes: Sequence[Amounts]) -> list[int]:
    """How many workers each (need, most) may have, one each in turn until nothing more fits anywhere. Nodes
    with fewer GPUs are filled first, so that nobody takes the cores beside a GPU who does not need it."""
    free = [dict(node) for node in sorted(nodes, key=lambda node: node.get("GPU", 0.0))]
    counts, at = [0] * len(claims), [0] * len(claims)  # at: the first node that may still hold one more
    open_claims = [number for number, (_, most) in enumerate(claims) if most > 0]
    while open_claims:
        for number in tuple(open_claims):
            need, most = claims[number]
            while at[number] < len(free) and not fits(need, free[at[number]]):
                at[number] += 1
            if at[number] == len(free):
                open_claims.remove(number)
                continue
            node = free[at[number]]
            node |= {name: node[name] - amount for name, amount in need.items()}
            counts[number] += 1
            if counts[number] == most:
                open_claims.remove(number)
    return counts


def fits(need: Amounts, node: Amounts) -> bool:
    return all(node.get(name, 0.0) + EPSILON >= amount for name, amount in need.items())


def refuse_too_large(need: Resources, nodes: Sequence[Amounts], where: str, names: Sequence[str]) -> None:
    """UsageError where no node has so much as one worker needs, of these names alone."""
    wanted = {name: amount for name, amount in amounts(need).items() if name in names}
    if not nodes or any(fits(wanted, node) for node in nodes):
        return
    most = {name: max(node.get(name, 0.0) for node in nodes) for name in wanted}
    short = next((name for name, amount in wanted.items() if amount > most[name] + EPSILON), "CPU")
    raise UsageError(
        f"a worker needs {wanted[short]:g} {UNITS[short]}",
        expected=f"no more than {where} has: {most[short]:.4g}",
        fix=f"{need.fix(KEYS[short], f'{most[short]:.4g}')}, or a larger one",
    )


def lack(need: Amounts, nodes: Sequence[Amounts]) -> str:
    """What a worker waits for, of a cluster: what there is too little of, else what others have."""
    has = {name: sum(node.get(name, 0.0) for node in nodes) for name in need}
    short = [name for name, amount in need.items() if has[name] + EPSILON < amount]
    name = short[0] if short else next((other for other in ("GPU", "CPU") if other in need), "memory")
    unit = UNITS[name].removesuffix("s") if need[name] == 1 and name != "memory" else UNITS[name]
    return f"{need[name]:g} {unit} (the cluster has {has[name]:.4g}{'' if short else ', in use'})"
