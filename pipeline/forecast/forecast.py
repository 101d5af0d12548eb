"""What a run over some sources would take, from a sample of them: `framemill plan`.

In: the inputs table, the config, the stages that need models. Out: expected hours of footage, clips, clips
that pass the rules and why others do not, seconds of work by stage, bytes, each with the range in which nine
of ten such samples hold the truth; the reason where something is unknown. Never: a file outside a temporary
folder, a random number that is not seeded.

Headers of the sources are read (headers.py), a part of their footage is drawn (sample.py) and put through
the stages themselves, the named captioner and VAE included (trial.py); ratios of the sample are carried over
to all (estimates.py). Copies are not estimated: of the pairs that a corpus holds, a tenth of it shows a
hundredth. So what is said of clips that pass the rules, and all that follows from it, is before copies are
removed: the most that a run may have to do.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.engine.tasks import task_numbers
from pipeline.forecast.estimates import NONE, Array, Draws, Totals, noise, range_of, totals
from pipeline.forecast.fleet import Fleet, Work, clock_hours
from pipeline.forecast.headers import read_headers
from pipeline.forecast.measured import Measurements, Spent
from pipeline.forecast.sample import drawn, units_of
from pipeline.forecast.trial import Sample, StageRun, try_out
from pipeline.onepass.candidates import LOOK_BACK_S
from pipeline.progress import Progress, silent
from pipeline.sandbox.sandbox import Sandbox
from pipeline.stages.costs import source_costs

PROBE_S = 60.0  # a header that takes longer is unreadable
FOOTAGE_S, FOOTAGE_SHARE = 120.0, 0.2  # how much is analysed when nobody says: the less of the two
KINDS = ("video", "image")


def forecast(
    inputs: pa.Table,
    config: Config,
    models: Mapping[str, StageRun],
    *,
    budget_s: float | None = None,
    seed: int = 0,
    fleet: Fleet | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What to expect of a run over `inputs`, from about `budget_s` seconds of their footage. `models`: the
    stages to try on clips of it, by their name, in order."""
    rows = inputs.to_pylist()
    with Sandbox(replace(config.analyze.limits(), deadline_s=PROBE_S)) as box:
        asked = read_headers(rows, box, seed)
    gigabytes = sum(row["size_bytes"] or 0 for row in rows) / 1e9
    rng = np.random.default_rng(seed)
    of_kind = totals(asked, len(rows), gigabytes, rng)
    readable = sum((of_kind[kind].sources for kind in KINDS), NONE)
    plan: dict[str, Any] = {
        "sources": len(rows),
        "gigabytes": round(gigabytes, 3),
        "asked": len(asked),
        "seed": seed,
        "unreadable": range_of(len(rows) - readable).as_dict(0),
    }
    headers = [header for header in asked if header.kind]
    if budget_s is None:
        budget_s = min(FOOTAGE_S, FOOTAGE_SHARE * float(of_kind["video"].seconds[0]))
    cut = config.analyze.shots.detector == "default"
    units = drawn(headers, budget_s, seed, cut=cut)
    if not units:
        return plan | {"analysed": 0}
    with tempfile.TemporaryDirectory(prefix="framemill-plan-") as folder:
        sample = try_out(units, Corpus(folder), config, models, progress)
    grown = len(rows) / len(asked)
    numbers = {
        kind: grown * sum(len(units_of(h, cut=cut)) for h in headers if h.kind == kind) for kind in KINDS
    }
    plan |= {"analysed": len(units), "analysed_s": round(sum(unit.seconds for unit in units), 1)}
    parts = 1 + int(task_numbers(source_costs(inputs), config.analyze.sources_per_task)[-1])
    return plan | _Estimates(sample, of_kind, numbers, parts, config, rng).plan(fleet)


class _Estimates:
    """The sample's ratios carried over to all sources; `numbers`: units of each kind there are in all;
    `parts`: tasks of the analysis."""

    def __init__(
        self,
        sample: Sample,
        of_kind: Mapping[str, Totals],
        numbers: Mapping[str, float],
        parts: int,
        config: Config,
        rng: np.random.Generator,
    ) -> None:
        self._sample, self._of_kind, self._config, self._rng = sample, of_kind, config, rng
        self._outcomes = {k: [o for o in sample.outcomes if o.unit.header.kind == k] for k in KINDS}
        self._draws = {k: Draws(len(self._outcomes[k]), numbers[k], rng) for k in KINDS}
        self._numbers, self._parts = numbers, parts
        self._clips = {kind: self._clips_of(kind) for kind in KINDS}
        self._passed = {kind: self._clips[kind] * self._share_passed(kind) for kind in KINDS}

    def plan(self, fleet: Fleet | None) -> dict[str, Any]:
        works = {"analyze": self._analysis(0)}
        cpu_s = {"analyze": self._analysis(1).worker_s}
        unknown: dict[str, str] = {}
        for name, tried in self._sample.models.items():
            if isinstance(tried, str):
                unknown[name] = tried
            else:
                works[name], cpu_s[name] = self._model(tried, 0), self._model(tried, 1).worker_s
        latents = self._latents()
        if self._config.judge.embedder:
            unknown["embed"] = "the embedder is not tried"
        plan: dict[str, Any] = {
            "hours": range_of(self._hours()).as_dict(4),
            "clips": range_of(sum(self._clips.values(), NONE)).as_dict(0),
            "passing": range_of(sum(self._passed.values(), NONE)).as_dict(0),
            "not_passing": {name: range_of(count).as_dict(0) for name, count in self._reasons().items()},
            "copies": "not estimated",
            "copies_in_sample": self._sample.copies,
            "worker_s": {name: range_of(work.worker_s).as_dict(1) for name, work in works.items()},
            "cpu_s": {name: range_of(seconds).as_dict(1) for name, seconds in cpu_s.items()},
            "load_s": {name: round(work.load_s, 1) for name, work in works.items()},
            "table_bytes": range_of(self._table_bytes()).as_dict(0),
            "latent_bytes": None if latents is None else range_of(latents).as_dict(0),
            "sample_cpu_s": round(_cpu_s(self._sample), 1),
            "unknown": unknown,
        }
        if fleet is not None and not unknown:
            hours = clock_hours(works, fleet)
            plan["clock_hours"] = range_of(hours).as_dict(3)
            plan["workers"] = {name: fleet.workers(work.resources) for name, work in works.items()}
            plan["cost"] = range_of(hours * fleet.hour).as_dict(2) if fleet.hour else None
            plan["currency"] = fleet.prices.currency
        return plan

    # -- clips ------------------------------------------------------------------------------------

    def _clips_of(self, kind: str) -> Array:
        """A clip for every source that opens, and one more for each cut, of which there are so many a
        second: short videos, too, have one."""
        outcomes, draws, total = self._outcomes[kind], self._draws[kind], self._of_kind[kind]
        starts = [o for o in outcomes if o.unit.piece == 0]
        opened = self._draws_of(kind, starts).ratio([o.spans > 0 for o in starts], [1.0] * len(starts))
        cuts = [max(0, o.spans - 1) for o in outcomes]
        rate = draws.ratio(cuts, [o.unit.seconds for o in outcomes], ghost="events")
        return total.sources * opened + total.seconds * rate

    def _draws_of(self, kind: str, some: Sequence[Any]) -> Draws:
        """Draws of a part of the sample's units; the same draws where it is all of them."""
        all_units = self._outcomes[kind]
        share = len(some) / max(1, len(all_units))
        if share == 1:
            return self._draws[kind]
        return Draws(len(some), share * self._numbers[kind], self._rng)

    def _share_passed(self, kind: str) -> Array:
        outcomes = self._outcomes[kind]
        above, below = [o.passed for o in outcomes], [o.judged for o in outcomes]
        return self._draws[kind].ratio(above, below, ghost="share", most=1.0)

    def _reasons(self) -> dict[str, Array]:
        names = dict.fromkeys(reason for o in self._sample.outcomes for reason in o.reasons)
        return {
            name: sum(
                (
                    self._clips[kind]
                    * self._draws[kind].ratio(
                        [o.reasons.count(name) for o in self._outcomes[kind]],
                        [o.judged for o in self._outcomes[kind]],
                        ghost="share",
                    )
                    for kind in KINDS
                ),
                NONE,
            )
            for name in names
        }

    def _hours(self) -> Array:
        """What headers say, corrected by what frames say; one that was not drawn may be off by its length."""
        whole = [o for o in self._outcomes["video"] if o.unit.pieces == 1 and o.spans]
        stated, decoded = [o.unit.seconds for o in whole], [o.decoded_s for o in whole]
        right = (
            self._draws_of("video", whole).ratio(decoded, stated, ghost="double") if sum(stated) else NONE + 1
        )
        return self._of_kind["video"].seconds * right / 3600

    # -- seconds and bytes ------------------------------------------------------------------------

    def _analysis(self, clock: int) -> Work:
        """Of wall time (0) or of processors (1)."""
        measured, seconds = self._sample.analysis, NONE
        for kind in KINDS:
            groups = [
                ([self._sample.outcomes[n].unit for n in piece.rows], piece.spent)
                for piece in measured.slices
                if self._sample.outcomes[piece.rows[0]].unit.header.kind == kind
            ]
            work = [sum(u.header.work(u.seconds + LOOK_BACK_S * (u.piece > 0)) for u in g) for g, _ in groups]
            units = sum(len(g) for g, _ in groups)
            draws = Draws(len(groups), self._numbers[kind] * len(groups) / max(1, units), self._rng)
            rate = draws.ratio([_seconds(spent, clock) for _, spent in groups], work)
            seconds = seconds + self._of_kind[kind].work * rate
        load_s = _seconds(measured.load or Spent(), clock)
        return Work(worker_s=seconds * noise(self._rng), load_s=load_s, resources=measured.resources)

    def _model(self, tried: Measurements, clock: int) -> Work:
        """Seconds a clip of each kind; of a kind that was not tried those of the other."""
        rates: dict[str, Array] = {}
        for kind in KINDS:
            slices = [s for s in tried.slices if tried.rows_of(s)[0]["kind"] == kind]
            clips = [len(s.rows) for s in slices]
            if slices:
                draws = Draws(len(slices), np.inf, self._rng)
                rates[kind] = draws.ratio([_seconds(s.spent, clock) for s in slices], clips)
        any_rate = next(iter(rates.values()), NONE)
        seconds = sum((self._passed[kind] * rates.get(kind, any_rate) for kind in KINDS), NONE)
        load_s = _seconds(tried.load or Spent(), clock)
        return Work(worker_s=seconds * noise(self._rng), load_s=load_s, resources=tried.resources)

    def _table_bytes(self) -> Array:
        """Filmstrips are nearly all of it; then rows, and what a part of filmstrips has beside them."""
        strips = NONE
        for kind in KINDS:
            outcomes = self._outcomes[kind]
            rate = self._draws[kind].ratio([o.strip_bytes for o in outcomes], [o.spans for o in outcomes])
            strips = strips + self._clips[kind] * rate
        around = self._parts * len(tables.to_parquet(tables.STRIPS.empty_table()))
        return strips + sum(self._clips.values(), NONE) * self._sample.row_bytes + around

    def _latents(self) -> Array | None:
        bytes_of = {k: [nbytes for kind, nbytes in self._sample.latents if kind == k] for k in KINDS}
        if not self._sample.latents:
            return None
        rates = {
            kind: Draws(len(some), np.inf, self._rng).ratio(some, [1.0] * len(some))
            for kind, some in bytes_of.items()
            if some
        }
        any_rate = next(iter(rates.values()))
        return sum((self._passed[kind] * rates.get(kind, any_rate) for kind in KINDS), NONE)


def _seconds(spent: Spent, clock: int) -> float:
    return (spent.wall_s, spent.cpu_s)[clock]


def _cpu_s(sample: Sample) -> float:
    """Of all that was measured but loading."""
    measured = [sample.analysis, *(m for m in sample.models.values() if not isinstance(m, str))]
    return sum(piece.spent.cpu_s for m in measured for piece in m.slices)
