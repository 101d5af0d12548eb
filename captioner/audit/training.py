"""The report's section on a training run: what was trained, how the loss went, what it makes.

In: a run folder (config.json, metrics.jsonl, init-metrics.jsonl of the checkpoint it started from,
samples/). Out: markup. Everything in the folder may be missing or cut short: a run that was killed or is
still going is reported as far as it came.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from captioner.audit.charts import line_chart, smooth, thin
from captioner.audit.markup import (
    Html,
    count,
    data_uri,
    el,
    facts,
    folded,
    join,
    length_of_time,
    number,
    table,
)
from pipeline import runlog
from pipeline.storage import Storage

MOVIE_BYTES, SHEET_BYTES = 300_000, 400_000  # a larger file is named, not embedded
SAMPLES_BYTES = 1_500_000  # of all samples together
SAMPLES_SHOWN = 24
SAMPLE_FIGURES = ("step", "seed", "steps", "cfg", "sampler", "frames", "fps")  # of a sample's JSON

Metrics = Mapping[str, Any]
Points = list[tuple[float, float]]


def section(run: Storage) -> Html:
    """Curves, figures, samples and config of the run."""
    metrics, resumed, unread = read_metrics(run, "metrics.jsonl")
    before, before_resumed, before_unread = read_metrics(run, "init-metrics.jsonl")
    out = [el("p", run.root.rstrip("/").rpartition("/")[2], class_="soft")]
    if not metrics:
        out.append(el("p", "The run has logged no step yet."))
    else:
        out += [_summary(metrics, resumed, unread), _curves(metrics, resumed)]
    if before:
        out.append(el("h3", "The checkpoint that it started from"))
        out += [_summary(before, before_resumed, before_unread), _curves(before, before_resumed)]
    out.append(_samples(run))
    if run.exists("config.json"):
        text = run.read_bytes("config.json").decode("utf-8", "replace")
        out.append(folded("config.json", el("pre", text, tabindex=0)))
    return join(out)


def read_metrics(run: Storage, name: str) -> tuple[list[Metrics], list[float], int]:
    """(a line a step in step order, the steps at which the run resumed, unreadable lines). A resumed run
    repeats the steps after its checkpoint: the later line counts."""
    if not run.exists(name):
        return [], [], 0
    kept: list[Metrics] = []
    resumed: list[float] = []
    rows, unread = runlog.parse(run.read_bytes(name))
    for row in rows:
        back = bool(kept) and row["step"] < kept[-1]["step"]
        while kept and kept[-1]["step"] > row["step"]:
            kept.pop()
        if kept and kept[-1]["step"] == row["step"]:  # a step's training and validation lines
            row = {**kept.pop(), **row}
        if row.get("resumed") is True or back:
            resumed = [s for s in resumed if s < row["step"]] + [row["step"]]
        kept.append(row)
    return kept, resumed, unread


def _number(row: Metrics, name: str) -> float | None:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _points(metrics: Sequence[Metrics], name: str) -> Points:
    pairs = ((row["step"], _number(row, name)) for row in metrics)
    return [(float(step), value) for step, value in pairs if value is not None]


def _ends(points: Points, share: float = 0.05) -> tuple[float, float]:
    """Mean of the first and of the last `share` of the points."""
    size = max(1, int(len(points) * share))
    first, last = points[:size], points[-size:]
    return sum(y for _, y in first) / size, sum(y for _, y in last) / size


def _summary(metrics: Sequence[Metrics], resumed: Sequence[float], unread: int) -> Html:
    rows = []
    if loss := _points(metrics, "loss"):
        start, end = _ends(loss)
        rows.append(("Training loss (mean of the first and last 5 %)", number(start, 4), number(end, 4)))
    if held_out := _points(metrics, "val_loss"):
        rows.append(("Held-out validation loss", number(held_out[0][1], 4), number(held_out[-1][1], 4)))
        best = min(held_out, key=lambda point: point[1])
        rows.append((f"Best held-out loss, at step {count(int(best[0]))}", "", number(best[1], 4)))
    last = metrics[-1]
    summary = f"{count(int(last['step']))} steps"
    seconds = sum(value for _, value in _points(metrics, "seconds"))
    if seconds:
        summary += f", {length_of_time(seconds)} of steps logged"
    summary += f", resumed {count(len(resumed))} time{'s' * (len(resumed) != 1)}." if resumed else "."
    if unread:
        summary += f" {count(unread)} line{'s' * (unread != 1)} of its metrics could not be read."
    return join(el("p", summary), table("Start and end", ("Figure", "Start", "End"), rows, numeric=(1, 2)))


def _curves(metrics: Sequence[Metrics], resumed: Sequence[float]) -> Html:
    loss, held_out, rate = (_points(metrics, name) for name in ("loss", "val_loss", "lr"))
    why = " Dashed: resumed, or a new run from here; another corpus or noise level moves the loss."
    marked = why if resumed else ""
    charts = []
    if loss:
        lines = [("faint", thin(loss)), ("", thin(smooth(loss)))]
        note = f"Pale: as logged; strong: running mean over 5 % of the run.{marked}"
        charts.append(line_chart("Training loss", "step", "loss", lines, note=note, marks=resumed))
    if held_out:
        note = f"On samples that are never trained on, with fixed noise.{marked}"
        line = [("", thin(held_out))]
        charts.append(line_chart("Held-out validation", "step", "loss", line, note=note, marks=resumed))
    if rate:
        charts.append(line_chart("Learning rate", "step", "", [("", thin(rate))], marks=resumed))
    return el("div", charts, class_="charts")


# -- samples --------------------------------------------------------------------------------------


def _samples(run: Storage) -> Html:
    names = run.list("samples")
    stems = sorted({PurePosixPath(n).stem for n in names if n.endswith((".mp4", ".png", ".json"))})
    if not stems:
        return join()
    left, cards = SAMPLES_BYTES, []
    for stem in stems[:SAMPLES_SHOWN]:
        card, used = _sample(run, stem, set(names), left)
        left -= used
        cards.append(card)
    how_chosen = f"{count(len(cards))} of {count(len(stems))} samples in the run's folder, by name."
    return join(el("h3", "Samples"), el("p", how_chosen, class_="soft"), cards)


def _sample(run: Storage, stem: str, names: set[str], left: int) -> tuple[Html, int]:
    """One sample's card and the bytes that it embeds."""
    meta = _meta(run, stem, names)
    sheet = _embedded(run, f"{stem}.png", names, min(SHEET_BYTES, left))
    movie = _embedded(run, f"{stem}.mp4", names, min(MOVIE_BYTES, left - len(sheet)))
    prompt = str(meta.get("prompt") or "no prompt recorded")
    media: list[Html] = []
    if movie:
        poster = _first_frame(sheet, meta)
        movie_uri, poster_uri = (
            data_uri("video/mp4", movie),
            data_uri("image/png", poster) if poster else None,
        )
        label = f"Generated video: {prompt}"
        on = {"controls": True, "loop": True, "muted": True, "playsinline": True}
        media.append(
            el(
                "video",
                src=movie_uri,
                poster=poster_uri,
                preload="none" if poster else "metadata",
                aria_label=label,
                **on,
            )
        )
    if sheet:
        alt = f"Frames of the generated video: {prompt}" if movie else f"Generated picture: {prompt}"
        media.append(el("img", src=data_uri("image/png", sheet), alt=alt, class_="sheet"))
    if not media:
        too_large = [n for n in (f"{stem}.png", f"{stem}.mp4") if n in names]
        media.append(
            el("p", f"Too large for this page: {', '.join(too_large)}" if too_large else "No picture.")
        )
    recorded = [(n.replace("_", " "), meta.get(n)) for n in SAMPLE_FIGURES]
    figures = [(name, str(value)) for name, value in recorded if isinstance(value, int | float | str)]
    body = [el("h3", stem), el("div", media, class_="shown"), el("p", prompt, class_="caption")]
    card = el("article", body, facts(figures), class_="card")
    return card, len(sheet) + len(movie)


def _meta(run: Storage, stem: str, names: set[str]) -> Mapping[str, Any]:
    if f"{stem}.json" not in names:
        return {}
    try:
        meta = json.loads(run.read_bytes(f"samples/{stem}.json"))
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}


def _first_frame(sheet: bytes, meta: Metrics) -> bytes:
    """The first frame as PNG, cut from the left of a contact sheet; none when the sizes do not fit."""
    width_px, height_px = _number(meta, "width_px"), _number(meta, "height_px")
    if not sheet or not width_px or not height_px:
        return b""
    try:
        with Image.open(io.BytesIO(sheet), formats=("PNG",)) as picture:
            if width_px > picture.width or height_px > picture.height:
                return b""
            out = io.BytesIO()
            picture.crop((0, 0, int(width_px), int(height_px))).save(out, "PNG")
            return out.getvalue()
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return b""


def _embedded(run: Storage, name: str, names: set[str], most: int) -> bytes:
    """The file's bytes, or none when it is missing or larger than `most`."""
    data = run.read_bytes(f"samples/{name}") if name in names else b""
    return data if len(data) <= most else b""
