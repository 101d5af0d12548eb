"""The report of a corpus: one self-contained HTML page for auditors and researchers.

In: a corpus and, when there is one, the folder of a training run. Out: `report/index.html`, the same
bytes for the same corpus. Reads tables and filmstrips only: decodes no video, runs no model, judges
nothing and leaves the corpus otherwise as it is.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.audit import captions as report_captions
from captioner.audit import data_card
from captioner.audit import gallery as report_gallery
from captioner.audit import overview as report_overview
from captioner.audit import training as report_training
from captioner.audit.charts import ASPECT, Scale, Series, histogram
from captioner.audit.contents import Contents, duration_s, equals, numbers, tally
from captioner.audit.markup import Html, count, el, folded, join, page, table
from pipeline.corpus.corpus import CONFIG_PATH, Corpus
from pipeline.operation.reasons import by_class
from pipeline.storage import Storage

REPORT_PATH = "report/index.html"
ROWS_SHOWN = 200  # of a table of failures; the counts by reason above it are complete
COMPARED = ("kept", "rejected")  # the two in a chart of what was measured; also their colours
NO_REASON = "no reason given"


def write_report(corpus: Corpus, run_dir: str | None = None) -> None:
    """Commits the page to `report/index.html` of the corpus."""
    html = render_report(corpus, None if run_dir is None else Storage(run_dir))
    corpus.storage.write_bytes(REPORT_PATH, html.encode())


def render_report(corpus: Corpus, run: Storage | None) -> str:
    """The page as text."""
    contents = Contents.of(corpus)
    mosaic, galleries = report_gallery.sections(contents)
    sections = [("overview", "From files to samples", report_overview.section(contents))]
    if contents.counts["sources"]["total"]:
        sections.append(("data-card", "Data card", data_card.section(contents)))
    if failures := _failures(contents):
        sections.append(("failures", "What failed, and why", failures))
    if contents.judged.num_rows:
        sections.append(("measures", "What the clips are like", _distributions(contents)))
    if contents.captions:
        sections.append(("captions", "Captions", report_captions.section(contents.captions)))
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


# -- failures -------------------------------------------------------------------------------------


def _failures(contents: Contents) -> Html:
    """What failed or was salvaged, by reason and one by one; empty when there is nothing."""
    groups = [("Sources", "failed", contents.sources), ("Sources", "salvaged", contents.sources)]
    groups.append(("Clips", "failed", contents.clips))
    groups += [(f"Captions · {name}", "failed", rows) for name, rows in contents.captions.items()]
    groups += [(f"Samples · {name}", "failed", rows) for name, rows in contents.encoded.items()]
    out: list[Html] = []
    for title, state, candidates in groups:
        column, named = ("uri", "File") if candidates is contents.sources else ("clip_id", "Clip")
        items = candidates.select([column, "reason"]).filter(pc.equal(candidates["status"], state))
        if not (total := items.num_rows):
            continue
        out.append(el("h3", f"{title}: {count(total)} {state}"))
        filled = pc.fill_null(items["reason"], "")
        named_reasons = pc.if_else(pc.equal(filled, ""), NO_REASON, filled)
        reasons = by_class(tally(named_reasons))["reasons"]
        if len(reasons) < total:
            grouped = [(reason, count(n)) for reason, n in list(reasons.items())[:ROWS_SHOWN]]
            out.append(table("By reason", ("Reason", "Count"), grouped, numeric=(1,)))
        shown = zip(
            *(v.slice(0, ROWS_SHOWN).to_pylist() for v in (items[column], named_reasons)), strict=True
        )
        each = table(_shown(total), (named, "Reason"), list(shown))
        out.append(each if total <= 12 else folded("One by one", each))
    note = "A failure is neither a rejection nor a low score: the work could not be done. "
    return (
        join(el("p", f"{note}Of a salvaged source, what could be decoded was used."), out) if out else join()
    )


def _shown(total: int) -> str:
    return "Each of them" if total <= ROWS_SHOWN else f"The first {ROWS_SHOWN} of {count(total)}"


# -- distributions --------------------------------------------------------------------------------


def _distributions(contents: Contents) -> Html:
    clips, is_image = contents.clips, equals(contents.judged["kind"], "image")
    charts = [
        _measure("Duration", "s", contents, duration_s(clips), ~is_image),
        _measure("Motion", "", contents, _signal(clips, "motion"), ~is_image),
        _measure("Sharpness", "", contents, _signal(clips, "sharpness")),
        _measure("Aspect ratio", "width : height", contents, _aspect(clips), scale=ASPECT),
    ]
    images = int(is_image.sum())
    still = (
        f" {count(images)} of the clips are images: they have no duration and no motion." if images else ""
    )
    key = [el("li", el("span", name), class_=name) for name in COMPARED]
    note = el("p", f"Counts of clips by what was measured on them, kept and rejected stacked.{still}")
    return join(note, el("ul", key, class_="key"), el("div", charts, class_="charts"))


def _measure(
    title: str,
    unit: str,
    contents: Contents,
    of_clip: np.ndarray,
    among: np.ndarray | None = None,
    scale: Scale | None = None,
) -> Html:
    """The histogram of a measure of the clips, float64 [C] with NaN where there is none, over the judged rows
    that are `among`, bool [N]."""
    values = of_clip[contents.clip_of]
    measured = ~np.isnan(values) if among is None else among & ~np.isnan(values)
    series = [
        Series(name=name, style=name, values=values[measured & contents.is_judged(name)]) for name in COMPARED
    ]
    return histogram(title, unit, series, scale=scale)


def _signal(clips: pa.Table, name: str) -> np.ndarray:
    return numbers(pc.struct_field(clips["signals"], name))


def _aspect(clips: pa.Table) -> np.ndarray:
    """Width over height of each clip's active picture, or of the whole where that is not known."""
    crops = clips["crop"].combine_chunks()
    known = pc.fill_null(pc.equal(pc.list_value_length(crops), 4), False)
    sizes = np.stack([np.nan_to_num(numbers(clips[name])) for name in ("width", "height")], axis=1)
    cropped = crops.filter(known).flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)[:, 2:]
    sizes[known.to_numpy(zero_copy_only=False)] = cropped
    width, height = sizes[:, 0], sizes[:, 1]
    return np.divide(width, height, out=np.full(len(sizes), np.nan), where=(width > 0) & (height > 0))
