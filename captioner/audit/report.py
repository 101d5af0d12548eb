"""The report of a corpus: one self-contained HTML page for auditors and researchers.

In: a corpus and, when there is one, the folder of a training run. Out: `report/index.html`, the same
bytes for the same corpus. Reads tables and filmstrips only: decodes no video, runs no model, judges
nothing and leaves the corpus otherwise as it is.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.audit import captions as report_captions
from captioner.audit import data_card
from captioner.audit import gallery as report_gallery
from captioner.audit import overview as report_overview
from captioner.audit import training as report_training
from captioner.audit.charts import ASPECT, Scale, Series, histogram
from captioner.audit.markup import Html, count, el, folded, join, page, table
from captioner.audit.overview import duration_s
from pipeline.corpus.corpus import CONFIG_PATH, Corpus
from pipeline.corpus.shards import LatentSet
from pipeline.corpus.status import status
from pipeline.operation.reasons import by_class
from pipeline.storage import Storage

REPORT_PATH = "report/index.html"
ROWS_SHOWN = 200  # of a table of failures; the counts by reason above it are complete
COMPARED = ("kept", "rejected")  # the two in a chart of what was measured; also their colours

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
    kept = pa.array([row["clip_id"] for row in judged if row["status"] == "kept"], pa.string())
    captions = {name: _of(kept, corpus.captions(name)).to_pylist() for name in counts["captions"]}
    encoded = {name: _of(kept, LatentSet(corpus.storage, name).index()) for name in counts["latents"]}
    uris = {row["source_id"]: row["uri"] for row in sources if row["source_id"]}

    mosaic, galleries = report_gallery.sections(corpus, judged, clips, captions, uris)
    overview = report_overview.section(counts, judged, clips, captions, encoded)
    sections = [("overview", "From files to samples", overview)]
    if counts["sources"]["total"]:
        contents = data_card.Contents(
            corpus=corpus,
            config=corpus.config(),
            counts=counts,
            sources=sources,
            clips=clips,
            judged=judged,
            captions=captions,
            latents=list(encoded),
        )
        sections.append(("data-card", "Data card", data_card.section(contents)))
    if failures := _failures(sources, clips, captions, encoded):
        sections.append(("failures", "What failed, and why", failures))
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
        sections.append(("config", "The settings", body))
    name = corpus.root.rstrip("/").rpartition("/")[2]
    return page("Corpus report", join(el("p", name, class_="soft"), mosaic), sections)


def _of(kept: pa.Array, rows: pa.Table) -> pa.Table:
    """The rows of clips that are kept now: judging anew leaves the captions and latents of others behind."""
    return rows.filter(pc.is_in(rows["clip_id"], value_set=kept))


# -- failures -------------------------------------------------------------------------------------


def _failures(
    sources: Sequence[Row],
    clips: Mapping[str, Row],
    captions: Mapping[str, Sequence[Row]],
    encoded: Mapping[str, pa.Table],
) -> Html:
    """What failed or was salvaged, by reason and one by one; empty when there is nothing."""
    groups = [("Sources", "failed", sources), ("Sources", "salvaged", sources)]
    groups.append(("Clips", "failed", list(clips.values())))
    groups += [(f"Captions · {name}", "failed", rows) for name, rows in captions.items()]
    for name, rows in encoded.items():
        groups.append(
            (f"Samples · {name}", "failed", rows.filter(pc.equal(rows["status"], "failed")).to_pylist())
        )
    out: list[Html] = []
    for title, state, candidates in groups:
        column, named = ("uri", "File") if candidates is sources else ("clip_id", "Clip")
        items = [(r[column], r["reason"] or "no reason given") for r in candidates if r["status"] == state]
        if not items:
            continue
        out.append(el("h3", f"{title}: {count(len(items))} {state}"))
        reasons = by_class(Counter(reason for _, reason in items))["reasons"]
        if len(reasons) < len(items):
            grouped = [(reason, count(n)) for reason, n in list(reasons.items())[:ROWS_SHOWN]]
            out.append(table("By reason", ("Reason", "Count"), grouped, numeric=(1,)))
        each = table(_shown(len(items)), (named, "Reason"), items[:ROWS_SHOWN])
        out.append(each if len(items) <= 12 else folded("One by one", each))
    note = "A failure is neither a rejection nor a low score: the work could not be done. "
    return (
        join(el("p", f"{note}Of a salvaged source, what could be decoded was used."), out) if out else join()
    )


def _shown(total: int) -> str:
    return "Each of them" if total <= ROWS_SHOWN else f"The first {ROWS_SHOWN} of {count(total)}"


# -- distributions --------------------------------------------------------------------------------


def _distributions(judged: Sequence[Row], clips: Mapping[str, Row]) -> Html:
    videos = [row for row in judged if row["kind"] != "image"]
    charts = [
        _measure("Duration", "s", videos, clips, duration_s),
        _measure("Motion", "", videos, clips, lambda clip: _signal(clip, "motion")),
        _measure("Sharpness", "", judged, clips, lambda clip: _signal(clip, "sharpness")),
        _measure("Aspect ratio", "width : height", judged, clips, _aspect, ASPECT),
    ]
    images = len(judged) - len(videos)
    still = (
        f" {count(images)} of the clips are images: they have no duration and no motion." if images else ""
    )
    key = [el("li", el("span", name), class_=name) for name in COMPARED]
    note = el("p", f"Counts of clips by what was measured on them, kept and rejected stacked.{still}")
    return join(note, el("ul", key, class_="key"), el("div", charts, class_="charts"))


def _measure(
    title: str,
    unit: str,
    judged: Sequence[Row],
    clips: Mapping[str, Row],
    measure: Callable[[Row], float | None],
    scale: Scale | None = None,
) -> Html:
    series = []
    for name in COMPARED:
        values = [measure(clips[row["clip_id"]]) for row in judged if row["status"] == name]
        series.append(Series(name=name, style=name, values=[v for v in values if v is not None]))
    return histogram(title, unit, series, scale=scale)


def _signal(clip: Row, name: str) -> float | None:
    value: float | None = (clip["signals"] or {}).get(name)
    return value


def _aspect(clip: Row) -> float | None:
    _, _, width, height = clip["crop"] or (0, 0, clip["width"], clip["height"])
    return width / height if width and height else None
