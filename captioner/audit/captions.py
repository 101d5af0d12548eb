"""The report's section on captions: how long, how varied, how sure, which flags.

In: the captions tables by captioner. Out: markup. Judges no caption.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.audit.charts import Series, histogram, proportional_bar
from captioner.audit.contents import numbers, ranked, tally
from captioner.audit.markup import Html, count, el, join, number, percent, table
from captioner.audit.text import Diversity, TextStatistics, diversity, quantile, text_statistics
from captioner.quality import FLAGS

COMPARED_WORDS = 10_000  # diversity falls with length: captioners are compared over equally many words
STYLES = ("short", "detailed")


def section(captions: Mapping[str, pa.Table]) -> Html:
    """All captioners: a comparison table, then each one's figures."""
    good = {name: rows.filter(pc.equal(rows["status"], "ok")) for name, rows in captions.items()}
    texts = {name: {style: pc.fill_null(ok[style], "") for style in STYLES} for name, ok in good.items()}
    whole = {name: {s: text_statistics(t) for s, t in by.items()} for name, by in texts.items()}
    compared = {
        style: min([COMPARED_WORDS, *(by[style].words for by in whole.values() if by[style].words)])
        for style in STYLES
    }
    rows = []
    for name, by_style in texts.items():
        for style, captions_of in by_style.items():
            varied = diversity(captions_of, compared[style])
            rows.append((f"{name} · {style}", *_figures(whole[name][style], varied)))
    head = ("Captions", "Count", "Words", "Distinct-1", "Distinct-2")
    over = ", ".join(f"{count(words)} words ({style})" for style, words in compared.items())
    note = (
        "Words: the median, and the lengths that 90\u00a0% lie between. Distinct-n: the share of "
        f"n-word sequences that differ among the first {over}."
    )
    blocks = [_captioner(name, ok, whole[name]) for name, ok in good.items()]
    return join(el("p", note), table("Length and variety", head, rows, numeric=(1, 2, 3, 4)), blocks)


def _figures(statistics: TextStatistics, varied: Diversity) -> tuple[str, str, str, str]:
    if not statistics.captions:
        return "0", "–", "–", "–"
    ordered = np.sort(statistics.lengths)
    low, middle, high = (f"{quantile(ordered, share):.0f}" for share in (0.05, 0.5, 0.95))
    length = f"{middle} ({low}–{high})"
    return count(statistics.captions), length, number(varied.distinct_1), number(varied.distinct_2)


def made_by(ok: pa.Table) -> list[tuple[str | None, str | None]]:
    """Each captioner and the hash of its weights among captions, sorted."""
    pairs = ok.group_by(["captioner", "captioner_sha256"]).aggregate([]).to_pylist()
    return sorted(((row["captioner"], row["captioner_sha256"]) for row in pairs), key=str)


def _captioner(name: str, ok: pa.Table, statistics: Mapping[str, TextStatistics]) -> Html:
    by = sorted({f"{captioner} ({(sha256 or 'no weights')[:12]})" for captioner, sha256 in made_by(ok)})
    out = [el("h3", name), el("p", f"Made by {', '.join(by) or 'no one yet'}.", class_="soft")]
    if not (clips := ok.num_rows):
        return join(out, el("p", "No caption was made."))
    if name.startswith("builtin"):
        note = (
            "The built-in captioner knows only the toy world. On any other footage its captions are wrong, "
            "whatever their confidence says."
        )
        out.append(el("p", note, class_="note"))
    charts = [
        histogram("Short captions", "words", [_series(statistics["short"].lengths)]),
        histogram("Detailed captions", "words", [_series(statistics["detailed"].lengths)]),
        histogram("Confidence", "mean log-probability of a token", [_series(numbers(ok["confidence"]))]),
        histogram("Alignment", "cosine of picture and text", [_series(numbers(ok["alignment"]))]),
    ]
    out.append(el("div", charts, class_="charts"))
    flagged = flagged_of(ok)
    out.append(el("p", f"Flagged: {count(flagged)} of {count(clips)} clips ({percent(flagged, clips)})."))
    if flags := ranked(tally(pc.list_flatten(ok["flags"]))):
        flag_rows = [(flag, FLAGS.get(flag, ""), count(n), percent(n, clips)) for flag, n in flags]
        out.append(table("Flags", ("Flag", "Meaning", "Clips", "Share"), flag_rows, numeric=(2, 3)))
    for style in STYLES:
        repeated = [(text, count(n)) for text, n in statistics[style].repeated]
        if repeated:
            title = f"Most repeated {style} captions"
            out.append(table(title, ("Text", "Times"), repeated, numeric=(1,)))
    openers = [_openers(f"How {s} captions begin", statistics[s]) for s in STYLES]
    return join(out, el("div", openers, class_="bars"))


def _openers(title: str, statistics: TextStatistics) -> Html:
    bars = [
        el(
            "div",
            el("div", f"{text} …", el("span", percent(n, statistics.captions)), class_="name"),
            proportional_bar([("kept", n)], statistics.captions),
            class_="bar",
        )
        for text, n in statistics.openers
    ]
    return el("div", el("p", title, class_="soft"), bars)


def flagged_of(ok: pa.Table) -> int:
    """How many captions have a flag."""
    return pc.sum(pc.greater(pc.list_value_length(ok["flags"]), 0)).as_py() or 0


def _series(values: Sequence[float] | np.ndarray) -> Series:
    return Series(name="all", style="kept", values=values)
