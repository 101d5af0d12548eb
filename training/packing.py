"""The global pack plan: which samples share a sequence, for every epoch, as a pure function.

In: the length index (tokens of each sample), seed, epoch, token budget. Out: packs, each a tuple of row
numbers. Streaming best-fit with a few open bins over a shuffled stream (measured 99 % fill with 4–8 bins,
82 % next-fit, and shape buckets lose samples). The packs of all epochs form one endless sequence; step i of
rank r of W takes pack i·W + r. So the whole state of the loader is one integer and does not know W.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from pipeline.errors import ConfigError
from training.rng import keyed

OPEN_BINS = 8

Pack = tuple[int, ...]


def plan_epoch(tokens: Sequence[int], budget: int, seed: int, epoch: int) -> list[Pack]:
    """Every row once, no pack above `budget`; packs in the order of use."""
    largest = max(tokens, default=0)
    if largest > budget:
        raise ConfigError(
            f"a sample of {largest} tokens does not fit a pack of {budget}",
            fix=f"--set tokens_per_pack={largest} or encode with a smaller area or fewer frames",
        )
    order = keyed(seed, epoch, "order").permutation(len(tokens)).tolist()
    open_bins: list[tuple[int, list[int]]] = []  # (room left, rows), least room first
    packs: list[Pack] = []
    for row in order:
        at = bisect.bisect_left(open_bins, tokens[row], key=lambda one: one[0])
        if at < len(open_bins):
            room, rows = open_bins.pop(at)
        else:
            if len(open_bins) == OPEN_BINS:
                packs.append(tuple(open_bins.pop(0)[1]))  # the fullest leaves
            room, rows = budget, []
        rows.append(row)
        bisect.insort(open_bins, (room - tokens[row], rows), key=lambda one: one[0])
    packs.extend(tuple(rows) for _, rows in open_bins)
    # bins close in the order of fullness at the end: mix them so that no part of an epoch differs
    return [packs[i] for i in keyed(seed, epoch, "packs").permutation(len(packs))]


class PackPlan:
    """The endless sequence of packs; `locate` turns a position into (epoch, pack)."""

    def __init__(self, tokens: Sequence[int], budget: int, seed: int) -> None:
        if not tokens:
            raise ConfigError("there are no samples to train on", fix="framemill encode CORPUS")
        self.tokens, self.budget, self.seed = list(tokens), budget, seed
        self._starts = [0]  # position of each epoch's first pack
        self._epoch, self._packs = 0, plan_epoch(tokens, budget, seed, 0)

    def locate(self, position: int) -> tuple[int, Pack]:
        """The epoch and the rows of the pack at `position` (0, 1, 2, …)."""
        while position >= self._starts[-1] + len(self._epoch_packs(len(self._starts) - 1)):
            self._starts.append(self._starts[-1] + len(self._packs))
        epoch = bisect.bisect_right(self._starts, position) - 1
        return epoch, self._epoch_packs(epoch)[position - self._starts[epoch]]

    def _epoch_packs(self, epoch: int) -> list[Pack]:
        if epoch != self._epoch:
            self._epoch, self._packs = epoch, plan_epoch(self.tokens, self.budget, self.seed, epoch)
        return self._packs
