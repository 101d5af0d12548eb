"""The report's first section: how many files, clips, captions and samples there are, and where they went.

In: the contents of a corpus. Out: markup. Every total is the sum of its parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from captioner.audit.charts import proportional_bar
from captioner.audit.contents import STATES, Contents, Row, duration_s, ranked, tally
from captioner.audit.markup import Html, count, el, folded, join, length_of_time, percent, table

NO_REASON = "no reason given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The clips of one state; `style` is its colour."""

    name: str
    style: str
    clips: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What was made of the kept clips: one captioner's captions, or one set of latents."""

    title: str
    ok: int
    failed: int
    missing: int  # kept, but neither done nor failed
    others: int  # rows of clips that are not kept now
    more: str  # for the headline


def section(contents: Contents) -> Html:
    """Headline figures, the funnel as bars and as a table, and the reasons of rejection."""
    counts = contents.counts
    if not counts["sources"]["total"] and not contents.clips.num_rows:
        how = el("code", "framemill analyze SRC --out CORPUS")
        return el("p", "This corpus is empty: no source has been taken in yet. Run ", how, " first.")
    states, derived = _states(contents), _derived(contents)
    return join(
        _headline(counts, derived),
        el("h3", "The funnel"),
        _funnel(counts, states, derived),
        folded("The same as a table", _totals(counts, states, derived)),
        _rejections(contents),
    )


def _states(contents: Contents) -> list[Judged]:
    of_clip_s = duration_s(contents.clips)
    of_judged_s, left_s = of_clip_s[contents.clip_of], float(of_clip_s.sum())
    states = []
    for name in STATES:
        mask = contents.is_judged(name)
        seconds = float(of_judged_s[mask].sum())
        left_s -= seconds
        states.append(Judged(name=name, style=name, clips=int(mask.sum()), seconds=seconds))
    waiting = contents.counts["clips"]["pending"]
    left_s = left_s if waiting else 0.0  # not the rounding of the sums
    return [*states, Judged(name="not judged yet", style="pending", clips=waiting, seconds=left_s)]


def _derived(contents: Contents) -> list[Derived]:
    counts = contents.counts
    kept = counts["clips"]["status"].get("kept", 0)
    sets = []
    for name, rows in contents.captions.items():
        states, total = tally(rows["status"]), counts["captions"][name]["total"]
        sets.append(
            (f"Captioned · {name}", states, total, f"{percent(states.get('ok', 0), kept)} of the kept")
        )
    for name, index in contents.encoded.items():
        states = tally(index["status"])
        shards, total = counts["latents"][name]["shards"], counts["latents"][name]["samples"]
        tokens = pc.sum(index.filter(pc.equal(index["status"], "ok"))["tokens"]).as_py() or 0
        size = f"{count(shards)} shard{'s' * (shards != 1)}, {count(tokens)} tokens"
        sets.append((f"Encoded · {name}", states, total, size))
    return [
        Derived(
            title=title,
            ok=states.get("ok", 0),
            failed=states.get("failed", 0),
            missing=kept - states.get("ok", 0) - states.get("failed", 0),
            others=total - sum(states.values()),
            more=more,
        )
        for title, states, total, more in sets
    ]


def _headline(counts: Row, derived: Sequence[Derived]) -> Html:
    sources, clips = counts["sources"], counts["clips"]
    kept = clips["status"].get("kept", 0)
    headlines = [
        ("Sources", count(sources["total"]), f"{length_of_time(sources['duration_s'])} of footage"),
        ("Clips found", count(clips["total"]), "shots, every one of them"),
        ("Clips kept", count(kept), f"{percent(kept, clips['total'])}, {length_of_time(clips['kept_s'])}"),
    ]
    headlines += [(part.title, count(part.ok), part.more) for part in derived]
    boxes = [el("div", el("dt", name), el("dd", value, el("small", more))) for name, value, more in headlines]
    return el("dl", boxes, class_="headline")


def _source_states(sources: Row) -> list[tuple[str, str, int]]:
    """(state, colour, files)"""
    styles = (("ok", "kept"), ("salvaged", "rejected"), ("failed", "failed"))
    states = [(name, style, sources["status"].get(name, 0)) for name, style in styles]
    gone = sources["status"].get("taken down", 0)
    return [
        *states,
        *([("taken down", "failed", gone)] if gone else []),
        ("pending", "pending", sources["pending"]),
    ]


def _funnel(counts: Row, states: Sequence[Judged], derived: Sequence[Derived]) -> Html:
    """A bar a step; every bar of clips has the same scale, so that the shrinking can be seen."""
    files, total = counts["sources"]["total"], counts["clips"]["total"]
    kept = counts["clips"]["status"].get("kept", 0)
    judged = [(state.name, state.style, state.clips) for state in states]
    steps = [
        _step("Sources", f"{count(files)} files", files, _source_states(counts["sources"])),
        _step("Clips", f"{count(total)} clips", total, judged),
    ]
    for part in derived:
        done = [
            ("ok", "kept", part.ok),
            ("failed", "failed", part.failed),
            ("missing", "pending", part.missing),
        ]
        steps.append(_step(part.title, f"of {count(kept)} kept clips", total, done))
    return join(steps)


def _step(name: str, total: str, whole: int, parts: Sequence[tuple[str, str, int]]) -> Html:
    title = el("div", name, el("span", total), class_="name")
    bar = proportional_bar([(style, value) for _, style, value in parts], whole)
    key = [el("li", el("span", f"{state} {count(n)}"), class_=style) for state, style, n in parts if n]
    return el("div", title, bar, el("ul", key, class_="key"), class_="bar")


def _totals(counts: Row, states: Sequence[Judged], derived: Sequence[Derived]) -> Html:
    sources, total = counts["sources"], counts["clips"]["total"]
    files, kept, copies = sources["total"], counts["clips"]["status"].get("kept", 0), sources["copies"]
    rows = [("Sources", count(files), "", length_of_time(sources["duration_s"]))]
    rows += [(f"– {name}", count(n), percent(n, files), "") for name, _, n in _source_states(sources)]
    rows.append(("Copies of another source (counted above)", count(copies), percent(copies, files), ""))
    rows.append(("Clips", count(total), "", length_of_time(sum(state.seconds for state in states))))
    for state in states:
        share, time = percent(state.clips, total), length_of_time(state.seconds)
        rows.append((f"– {state.name}", count(state.clips), share, time))
    for part in derived:
        rows.append((part.title, count(part.ok), f"{percent(part.ok, kept)} of kept", ""))
        rows.append(("– failed", count(part.failed), percent(part.failed, kept), ""))
        rows.append(("– missing", count(part.missing), percent(part.missing, kept), ""))
        if part.others:
            rows.append(("– left over from clips that are not kept now", count(part.others), "", ""))
    return table("Counts", ("What", "Count", "Share", "Time"), rows, numeric=(1, 2, 3))


def _rejections(contents: Contents) -> Html:
    rejected = contents.judged.filter(pc.equal(contents.judged["status"], "rejected"))
    if not (clips := rejected.num_rows):
        return join()
    named, alone = _named(rejected["reasons"].combine_chunks())
    rows = [
        (reason, count(n), percent(n, clips), count(alone.get(reason, 0)), count(n - alone.get(reason, 0)))
        for reason, n in ranked(named)
    ]
    single = sum(alone.values())
    rows.append(("Clips rejected", count(clips), percent(1, 1), count(single), count(clips - single)))
    head = ("Reason", "Clips", "Of rejected", "Only this", "With others")
    note = "A clip can be rejected for several reasons: the counts can exceed the total in the last row."
    numbers = table("Rejected clips", head, rows, numeric=(1, 2, 3, 4))
    return join(el("h3", "Why clips were rejected"), el("p", note), numbers)


def _named(reasons: pa.ListArray) -> tuple[dict[str, int], dict[str, int]]:
    """Reason → clips that have it, and clips that have it alone; of clips without any, NO_REASON."""
    pairs = pa.table({"clip": pc.list_parent_indices(reasons), "reason": pc.list_flatten(reasons)})
    distinct = pairs.group_by(["clip", "reason"]).aggregate([])
    of_clip = distinct.group_by("clip").aggregate([("reason", "count")])
    single = of_clip.filter(pc.equal(of_clip["reason_count"], 1))["clip"]
    named = tally(distinct["reason"])
    alone = tally(distinct.filter(pc.is_in(distinct["clip"], value_set=single))["reason"])
    if without := len(reasons) - of_clip.num_rows:
        named[NO_REASON] = named.get(NO_REASON, 0) + without
        alone[NO_REASON] = alone.get(NO_REASON, 0) + without
    return named, alone
