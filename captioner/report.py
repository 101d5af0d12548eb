"""The report of a corpus: one self-contained HTML page for auditors and researchers.

In: a corpus and, when there is one, the folder of a training run. Out: `report/index.html`, the same
bytes for the same corpus. Reads tables and filmstrips only: decodes no video, runs no model, judges
nothing and leaves the corpus otherwise as it is.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from captioner import report_captions, report_gallery, report_training
from captioner.charts import ASPECT, Scale, Series, histogram, proportional_bar
from captioner.page import Html, count, el, folded, join, length_of_time, page, percent, table
from pipeline import tables
from pipeline.corpus import CONFIG_PATH, Corpus
from pipeline.status import status
from pipeline.storage import Storage

REPORT_PATH = "report/index.html"
ROWS_SHOWN = 200  # of a table of failures; the counts by reason above it are complete

Row = Mapping[str, Any]


def write_report(corpus: Corpus, run_dir: str | None = None) -> None:
    """Commits the page to `report/index.html` of the corpus."""
    html = render_report(corpus, None if run_dir is None else Storage(run_dir))
    corpus.storage.write_bytes(REPORT_PATH, html.encode())


def render_report(corpus: Corpus, run: Storage | None) -> str:
    """The page as text."""
    counts = status(corpus)
    sources = corpus.sources().to_pylist()
    clips = {row["clip_id"]: row for row in corpus.clips().to_pylist()}
    judged = [row for row in corpus.judged().sort_by("clip_id").to_pylist() if row["clip_id"] in clips]
    captions = {name: corpus.captions(name).to_pylist() for name in counts["captions"]}
    uris = {row["source_id"]: row["uri"] for row in sources if row["source_id"]}

    mosaic, galleries = report_gallery.sections(corpus, judged, clips, captions, uris)
    sections = [("overview", "From files to samples", _overview(counts, judged, clips))]
    if any(part.get("failed") for part in _failed_counts(counts)):
        sections.append(
            ("failures", "What failed, and why", _failures(corpus, counts, sources, clips, captions))
        )
    if judged:
        sections.append(("measures", "What the clips are like", _distributions(judged, clips)))
    if captions:
        sections.append(("captions", "Captions", report_captions.section(captions)))
    sections += galleries
    if run is not None:
        sections.append(("training", "Training", report_training.section(run)))
    if corpus.storage.exists(CONFIG_PATH):
        text = corpus.storage.read_bytes(CONFIG_PATH).decode("utf-8", "replace")
        how = el("p", "The resolved config and the fingerprint of each stage, as this corpus stores them.")
        body = join(how, folded(CONFIG_PATH, el("pre", text, tabindex=0)))
        sections.append(("config", "How it was made", body))
    return page("Corpus report", join(el("p", corpus.root, class_="soft"), mosaic), sections)


# -- overview -------------------------------------------------------------------------------------


def _overview(counts: Row, judged: Sequence[Row], clips: Mapping[str, Row]) -> Html:
    if not counts["sources"]["total"] and not clips:
        return el(
            "p",
            "This corpus is empty: no source has been taken in yet. Run ",
            el("code", "framemill analyze SRC --out CORPUS"),
            " first.",
        )
    by_state = [_state(name, style, judged, clips) for name, style in _JUDGED]
    unjudged_s = sum(_duration(row) for row in clips.values()) - sum(seconds for *_, seconds in by_state)
    by_state.append(("not judged yet", "pending", counts["clips"]["pending"], max(unjudged_s, 0.0)))
    return join(
        _headline(counts),
        el("h3", "The funnel"),
        _funnel(counts, by_state),
        _totals(counts, by_state),
        _rejections(judged),
    )


_JUDGED = (("kept", "kept"), ("rejected", "rejected"), ("failed", "failed"))


def _state(
    name: str, style: str, judged: Sequence[Row], clips: Mapping[str, Row]
) -> tuple[str, str, int, float]:
    """(name, style, clips, seconds) of the clips judged so."""
    ids = [row["clip_id"] for row in judged if row["status"] == name]
    return name, style, len(ids), sum(_duration(clips[i]) for i in ids)


def _duration(clip: Row) -> float:
    return max((clip["end_s"] or 0.0) - (clip["start_s"] or 0.0), 0.0) if clip["kind"] != "image" else 0.0


def _headline(counts: Row) -> Html:
    sources, clips = counts["sources"], counts["clips"]
    kept = clips["status"].get("kept", 0)
    told = [
        ("Sources", count(sources["total"]), f"{length_of_time(sources['duration_s'])} of footage"),
        ("Clips found", count(clips["total"]), "shots, every one of them"),
        ("Clips kept", count(kept), f"{percent(kept, clips['total'])}, {length_of_time(clips['kept_s'])}"),
    ]
    for name, part in counts["captions"].items():
        ok = part["status"].get("ok", 0)
        told.append((f"Captioned · {name}", count(ok), f"{percent(ok, kept)} of the kept"))
    for name, part in counts["latents"].items():
        shards = f"{count(part['shards'])} shard{'s' * (part['shards'] != 1)}"
        encoded = part["status"].get("ok", 0)
        told.append((f"Encoded · {name}", count(encoded), f"{shards}, {count(part['tokens'])} tokens"))
    boxes = [el("div", el("dt", name), el("dd", value, el("small", more))) for name, value, more in told]
    return el("dl", boxes, class_="headline")


def _funnel(counts: Row, by_state: Sequence[tuple[str, str, int, float]]) -> Html:
    """A bar a step; every bar of clips has the same scale, so the shrinking can be seen."""
    sources, total = counts["sources"], counts["clips"]["total"]
    kept = counts["clips"]["status"].get("kept", 0)
    states = [("ok", "kept"), ("salvaged", "rejected"), ("failed", "failed")]
    parts = [(name, style, sources["status"].get(name, 0)) for name, style in states]
    steps = [("Sources", f"{count(sources['total'])} files", sources["total"], parts)]
    steps[0][3].append(("pending", "pending", sources["pending"]))
    steps.append(("Clips", f"{count(total)} clips", total, [(n, s, k) for n, s, k, _ in by_state]))
    for title, group in (("Captioned", "captions"), ("Encoded", "latents")):
        for name, part in counts[group].items():
            ok, failed = (part["status"].get(state, 0) for state in ("ok", "failed"))
            missing = max(kept - ok - failed, 0)
            done = [("ok", "kept", ok), ("failed", "failed", failed), ("missing", "pending", missing)]
            steps.append((f"{title} · {name}", f"of {count(kept)} kept clips", total, done))
    return join([_step(*step) for step in steps])


def _step(name: str, told: str, whole: int, parts: Sequence[tuple[str, str, int]]) -> Html:
    bar = proportional_bar([(style, value) for _, style, value in parts], whole)
    key = [el("li", el("span", f"{n} {count(v)}"), class_=style) for n, style, v in parts if v]
    return el(
        "div",
        el("div", name, el("span", told), class_="name"),
        bar,
        el("ul", key, class_="key"),
        class_="bar",
    )


def _totals(counts: Row, by_state: Sequence[tuple[str, str, int, float]]) -> Html:
    sources, total = counts["sources"], counts["clips"]["total"]
    rows = [("Sources", count(sources["total"]), "", length_of_time(sources["duration_s"]))]
    for name in ("ok", "salvaged", "failed", "pending"):
        value = sources["pending"] if name == "pending" else sources["status"].get(name, 0)
        rows.append((f"– {name}", count(value), percent(value, sources["total"]), ""))
    copies = sources["copies"]
    rows.append(
        ("Files of equal content (counted above)", count(copies), percent(copies, sources["total"]), "")
    )
    rows.append(("Clips", count(total), "", length_of_time(sum(s for *_, s in by_state))))
    for name, _, value, seconds in by_state:
        rows.append((f"– {name}", count(value), percent(value, total), length_of_time(seconds)))
    kept = counts["clips"]["status"].get("kept", 0)
    for title, group in (("Captioned", "captions"), ("Encoded", "latents")):
        for set_name, part in counts[group].items():
            ok, failed = (part["status"].get(state, 0) for state in ("ok", "failed"))
            rows.append((f"{title} · {set_name}", count(ok), f"{percent(ok, kept)} of kept", ""))
            rows.append(("– failed", count(failed), percent(failed, kept), ""))
    return folded(
        "The same as a table", table("Counts", ("What", "Count", "Share", "Time"), rows, numeric=(1, 2, 3))
    )


def _rejections(judged: Sequence[Row]) -> Html:
    rejected = [row["reasons"] or ["no reason given"] for row in judged if row["status"] == "rejected"]
    if not rejected:
        return join()
    named = Counter(reason for reasons in rejected for reason in set(reasons))
    alone = Counter(reasons[0] for reasons in rejected if len(set(reasons)) == 1)
    ordered = sorted(named, key=lambda reason: (-named[reason], reason))
    rows = [
        (r, count(named[r]), percent(named[r], len(rejected)), count(alone[r]), count(named[r] - alone[r]))
        for r in ordered
    ]
    several = len(rejected) - sum(alone.values())
    both = f"{count(several)} clip{'s' * (several != 1)}"
    rows.append(("Clips rejected", count(len(rejected)), "100 %", count(sum(alone.values())), both))
    head = ("Reason", "Clips", "Of rejected", "Only this", "With others")
    told = el(
        "p", "A clip can be rejected for several reasons, so the counts can exceed the total in the last row."
    )
    return join(
        el("h3", "Why clips were rejected"), told, table("Rejected clips", head, rows, numeric=(1, 2, 3, 4))
    )


# -- failures -------------------------------------------------------------------------------------


def _failed_counts(counts: Row) -> list[Mapping[str, int]]:
    parts = [counts["sources"], counts["clips"], *counts["captions"].values(), *counts["latents"].values()]
    return [part["status"] for part in parts]


def _failures(
    corpus: Corpus,
    counts: Row,
    sources: Sequence[Row],
    clips: Mapping[str, Row],
    captions: Mapping[str, Sequence[Row]],
) -> Html:
    groups = [("Sources", "uri", sources), ("Clips", "clip_id", list(clips.values()))]
    groups += [(f"Captions · {name}", "clip_id", rows) for name, rows in captions.items()]
    groups += [(f"Samples · {name}", "clip_id", _index(corpus, name)) for name in counts["latents"]]
    out = [el("p", "A failure is neither a rejection nor a low score: the work could not be done.")]
    for title, column, rows in groups:
        failed = [
            (row[column], row["reason"] or "no reason given") for row in rows if row["status"] == "failed"
        ]
        if not failed:
            continue
        reasons = Counter(reason for _, reason in failed)
        ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        out.append(el("h3", f"{title}: {count(len(failed))} failed"))
        if len(reasons) < len(failed):
            grouped = [(reason, count(n)) for reason, n in ordered[:ROWS_SHOWN]]
            out.append(table("By reason", ("Reason", "Count"), grouped, numeric=(1,)))
        each = table(
            _shown(len(failed)), ("File" if column == "uri" else "Clip", "Reason"), failed[:ROWS_SHOWN]
        )
        out.append(each if len(failed) <= 12 else folded("One by one", each))
    return join(out)


def _shown(total: int) -> str:
    return "Each of them" if total <= ROWS_SHOWN else f"The first {ROWS_SHOWN} of {count(total)}"


def _index(corpus: Corpus, name: str) -> list[Row]:
    path = f"latents/{name}/index.parquet"
    if not corpus.storage.exists(path):
        return []
    rows = tables.from_parquet(corpus.storage.read_bytes(path), tables.INDEX)
    failed: list[Row] = rows.filter(pc.equal(rows["status"], "failed")).to_pylist()
    return failed


# -- distributions --------------------------------------------------------------------------------


def _distributions(judged: Sequence[Row], clips: Mapping[str, Row]) -> Html:
    videos = [row for row in judged if row["kind"] != "image"]
    charts = [
        _measure("Duration", "s", videos, clips, _duration),
        _measure("Motion", "", videos, clips, lambda clip: _signal(clip, "motion")),
        _measure("Sharpness", "", judged, clips, lambda clip: _signal(clip, "sharpness")),
        _measure("Aspect ratio", "width : height", judged, clips, _aspect, ASPECT),
    ]
    images = len(judged) - len(videos)
    still = (
        f" {count(images)} of the clips are images: they have no duration and no motion." if images else ""
    )
    key = [el("li", el("span", name), class_=style) for name, style in _JUDGED[:2]]
    told = el("p", f"Counts of clips by what was measured on them, kept and rejected stacked.{still}")
    return join(told, el("ul", key, class_="key"), el("div", charts, class_="charts"))


def _measure(
    title: str,
    unit: str,
    judged: Sequence[Row],
    clips: Mapping[str, Row],
    measure: Callable[[Row], float | None],
    scale: Scale | None = None,
) -> Html:
    series = []
    for name, style in _JUDGED[:2]:
        values = [measure(clips[row["clip_id"]]) for row in judged if row["status"] == name]
        series.append(Series(name=name, style=style, values=[v for v in values if v is not None]))
    return histogram(title, unit, series, scale=scale)


def _signal(clip: Row, name: str) -> float | None:
    value: float | None = (clip["signals"] or {}).get(name)
    return value


def _aspect(clip: Row) -> float | None:
    _, _, width, height = clip["crop"] or (0, 0, clip["width"], clip["height"])
    return width / height if width and height else None
