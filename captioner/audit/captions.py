"""The report's section on captions: how long, how varied, how sure, which flags.

In: the captions tables by captioner. Out: markup. Judges no caption.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from captioner.audit.charts import Series, histogram, proportional_bar
from captioner.audit.markup import Html, count, el, join, number, percent, table
from captioner.audit.text import TextStatistics, quantile, text_statistics
from captioner.quality import FLAGS

COMPARED_WORDS = 10_000  # diversity falls with length: captioners are compared over equally many words

Row = Mapping[str, Any]


def section(captions: Mapping[str, Sequence[Row]]) -> Html:
    """All captioners: a comparison table, then each one's figures."""
    texts = {
        name: {
            style: [r[style] or "" for r in rows if r["status"] == "ok"] for style in ("short", "detailed")
        }
        for name, rows in captions.items()
    }
    whole = {name: {s: text_statistics(t) for s, t in by.items()} for name, by in texts.items()}
    compared = {
        style: min([COMPARED_WORDS, *(by[style].words for by in whole.values() if by[style].words)])
        for style in ("short", "detailed")
    }
    rows = []
    for name, by_style in texts.items():
        for style, captions_of in by_style.items():
            statistics = text_statistics(captions_of, compare_words=compared[style])
            rows.append((f"{name} · {style}", *_figures(statistics)))
    head = ("Captions", "Count", "Words", "Distinct-1", "Distinct-2")
    over = ", ".join(f"{count(words)} words ({style})" for style, words in compared.items())
    note = (
        "Words: the median, and the lengths that 90\u00a0% lie between. Distinct-n: the share of "
        f"n-word sequences that differ among the first {over}."
    )
    blocks = [_captioner(name, rows_of, whole[name]) for name, rows_of in captions.items()]
    return join(el("p", note), table("Length and variety", head, rows, numeric=(1, 2, 3, 4)), blocks)


def _figures(statistics: TextStatistics) -> tuple[str, str, str, str]:
    if not statistics.captions:
        return "0", "–", "–", "–"
    ordered = sorted(statistics.lengths)
    low, middle, high = (f"{quantile(ordered, share):.0f}" for share in (0.05, 0.5, 0.95))
    length = f"{middle} ({low}–{high})"
    return count(statistics.captions), length, number(statistics.distinct_1), number(statistics.distinct_2)


def _captioner(name: str, rows: Sequence[Row], statistics: Mapping[str, TextStatistics]) -> Html:
    ok = [row for row in rows if row["status"] == "ok"]
    by = sorted({f"{row['captioner']} ({(row['captioner_sha256'] or 'no weights')[:12]})" for row in ok})
    out = [el("h3", name), el("p", f"Made by {', '.join(by) or 'no one yet'}.", class_="soft")]
    if not ok:
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
        histogram("Confidence", "mean log-probability of a token", [_series(_measured(ok, "confidence"))]),
        histogram("Alignment", "cosine of picture and text", [_series(_measured(ok, "alignment"))]),
    ]
    out.append(el("div", charts, class_="charts"))
    flags = Counter(flag for row in ok for flag in row["flags"] or ())
    flagged = sum(bool(row["flags"]) for row in ok)
    out.append(el("p", f"Flagged: {count(flagged)} of {count(len(ok))} clips ({percent(flagged, len(ok))})."))
    if flags:
        ordered = sorted(flags.items(), key=lambda item: (-item[1], item[0]))
        flag_rows = [(flag, FLAGS.get(flag, ""), count(n), percent(n, len(ok))) for flag, n in ordered]
        out.append(table("Flags", ("Flag", "Meaning", "Clips", "Share"), flag_rows, numeric=(2, 3)))
    for style in ("short", "detailed"):
        repeated = [(text, count(n)) for text, n in statistics[style].repeated]
        if repeated:
            title = f"Most repeated {style} captions"
            out.append(table(title, ("Text", "Times"), repeated, numeric=(1,)))
    openers = [_openers(f"How {s} captions begin", statistics[s]) for s in ("short", "detailed")]
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


def _series(values: Sequence[float]) -> Series:
    return Series(name="all", style="kept", values=values)


def _measured(rows: Sequence[Row], column: str) -> list[float]:
    return [row[column] for row in rows if row[column] is not None]
