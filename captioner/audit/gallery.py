"""The report's pictures: kept clips with their captions, rejected clips with their reasons.

In: tables and filmstrips. Out: markup with the JPEGs as data URIs. Which clips are shown depends on the
hashes of their ids alone, spread over sources (kept) or reasons (rejected): nobody picks the nice ones.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from captioner.audit.markup import Html, count, data_uri, el, facts, join, length_of_time, number
from pipeline.corpus.corpus import Corpus
from pipeline.storage import sha256_hex

KEPT_SHOWN, REJECTED_SHOWN, MOSAIC_SHOWN = 24, 12, 16
KEPT_BYTES, REJECTED_BYTES = 2_800_000, 900_000  # of JPEG; a third more as base64: the page stays < 6 MB
_JPEG = b"\xff\xd8\xff"
_SIGNALS = ("motion", "camera_motion", "sharpness", "luma", "contrast", "static_ratio", "text_area")

Row = Mapping[str, Any]


def sections(
    corpus: Corpus,
    judged: Sequence[Row],
    clips: Mapping[str, Row],
    captions: Mapping[str, Sequence[Row]],
    uris: Mapping[str, str],
) -> tuple[Html, list[tuple[str, str, Html]]]:
    """A mosaic of the kept clips that are shown, and (anchor, heading, markup) of the two galleries; one
    without clips is left out."""
    kept = [row for row in judged if row["status"] == "kept"]
    rejected = [row for row in judged if row["status"] == "rejected"]
    shown_kept = spread(kept, lambda r: r["source_id"], KEPT_SHOWN)
    shown_rejected = spread(rejected, lambda r: (r["reasons"] or [""])[0], REJECTED_SHOWN)
    wanted = {row["clip_id"] for row in (*shown_kept, *shown_rejected)}
    strips = {row["clip_id"]: row for row in corpus.strips(wanted).to_pylist()} if wanted else {}
    words = {
        name: {row["clip_id"]: row for row in rows if row["clip_id"] in wanted}
        for name, rows in captions.items()
    }
    shown_kept = within_budget(shown_kept, strips, KEPT_BYTES)
    shown_rejected = within_budget(shown_rejected, strips, REJECTED_BYTES)
    out = []
    for heading, over, rows, chosen in (
        ("Kept clips", "sources", kept, shown_kept),
        ("Rejected clips", "reasons", rejected, shown_rejected),
    ):
        cards = [_card(row, clips[row["clip_id"]], strips.get(row["clip_id"]), words, uris) for row in chosen]
        how_chosen = f"{count(len(chosen))} of {count(len(rows))}, drawn by hash and spread over {over}."
        if cards:
            anchor = heading.split()[0].lower()
            out.append((anchor, heading, join(el("p", how_chosen, class_="soft"), cards)))
    return _mosaic([strips[row["clip_id"]] for row in shown_kept if row["clip_id"] in strips]), out


def spread(rows: Sequence[Row], group: Callable[[Row], str], most: int) -> list[Row]:
    """Up to `most` rows: the first of every group, then the second, …, in the order of hashed clip ids."""
    ordered = sorted(rows, key=lambda row: sha256_hex(row["clip_id"].encode()))
    rank: dict[str, int] = defaultdict(int)
    ranked = []
    for row in ordered:
        ranked.append((rank[group(row)], row))
        rank[group(row)] += 1
    return [row for _, row in sorted(ranked, key=lambda item: item[0])][:most]


def within_budget(rows: Sequence[Row], strips: Mapping[str, Row], budget: int) -> list[Row]:
    """The rows whose filmstrips fit into `budget` bytes, the first ones first."""
    fitting = []
    for row in rows:
        strip = strips.get(row["clip_id"])
        budget -= sum(len(frame) for frame in strip["frames"] or ()) if strip else 0
        if budget < 0:
            break
        fitting.append(row)
    return fitting


def _mosaic(strips: Sequence[Row]) -> Html:
    """The middle frame of the first clips, each a link to its clip below."""
    tiles = []
    for strip in [s for s in strips if _frames(s)][:MOSAIC_SHOWN]:
        frames = _frames(strip)
        image = el(
            "img", src=data_uri("image/jpeg", frames[len(frames) // 2]), alt=f"Clip {strip['clip_id']}"
        )
        tiles.append(el("a", image, href=f"#{_anchor(strip['clip_id'])}"))
    return el("div", tiles, class_="mosaic") if tiles else join()


def _anchor(clip_id: str) -> str:
    return f"clip-{clip_id}"


def _frames(strip: Row | None) -> list[bytes]:
    return [frame for frame in (strip["frames"] if strip else None) or () if frame[:3] == _JPEG]


def _card(
    judged: Row,
    clip: Row,
    strip: Row | None,
    captions: Mapping[str, Mapping[str, Row]],
    uris: Mapping[str, str],
) -> Html:
    uri = uris.get(clip["source_id"], "")
    head = el("h3", el("span", clip["clip_id"]), el("span", uri.rsplit("/", 1)[-1], title=uri))
    captions_of_clip = [
        _caption(name, rows[clip["clip_id"]]) for name, rows in captions.items() if clip["clip_id"] in rows
    ]
    words = el("div", captions_of_clip, class_="words") if captions_of_clip else join()
    reasons = [el("span", reason, class_="tag") for reason in judged["reasons"] or ()]
    if judged["duplicate_of"]:
        reasons.append(el("span", f" of {judged['duplicate_of']}", class_="soft"))
    why = el("p", reasons) if reasons else join()
    body = [head, _filmstrip(clip, strip), why, words, _measures(clip)]
    return el("article", body, class_="card", id=_anchor(clip["clip_id"]))


def _filmstrip(clip: Row, strip: Row | None) -> Html:
    frames = _frames(strip)
    if strip is None or not frames:
        return el("p", "No filmstrip.", class_="soft")
    times = [*(strip["times_s"] or ()), *[None] * len(frames)][: len(frames)]
    _, _, width, height = clip["crop"] or (0, 0, clip["width"], clip["height"])
    tall = bool(width and height and width < 0.8 * height)
    figures = []
    for frame, time_s in zip(frames, times, strict=True):
        at = "Still image" if clip["kind"] == "image" or time_s is None else f"{time_s:.2f} s"
        alt = at if at == "Still image" else f"Frame at {at}"
        sides = {"width": 256, "height": max(round(256 * height / width), 1)} if width and height else {}
        image = el(
            "img", src=data_uri("image/jpeg", frame), alt=alt, loading="lazy", decoding="async", **sides
        )
        figures.append(el("figure", image, el("figcaption", at)))
    shape = "strip one" if len(frames) == 1 else "strip tall" if tall else "strip"
    return el("div", figures, class_=shape)


def _caption(name: str, row: Row) -> Html:
    if row["status"] != "ok":
        failed = el("span", "caption failed", class_="tag failed")
        return el("div", failed, f" {name}: {row['reason'] or 'no reason given'}")
    confidence = row["confidence"]
    sure = number(confidence)
    if confidence is not None and math.isfinite(confidence):
        sure += f" ({100 * math.exp(min(confidence, 0.0)):.0f} % a token)"
    flags = [el("span", flag, class_="tag") for flag in row["flags"] or ()]
    figures = [("Captioner", name), ("Confidence", sure), ("Alignment", number(row["alignment"]))]
    detailed = el("p", row["detailed"] or "", class_="caption")
    short = el("p", row["short"] or "", class_="caption short")
    return el("div", detailed, short, el("p", flags) if flags else join(), facts(figures))


def _measures(clip: Row) -> Html:
    _, _, width, height = clip["crop"] or (0, 0, clip["width"], clip["height"])
    pairs = [("Size", f"{width} × {height}")]
    if clip["kind"] != "image":
        start_s, end_s = clip["start_s"] or 0.0, clip["end_s"] or 0.0
        pairs.append(("Length", f"{length_of_time(end_s - start_s)} from {start_s:.2f} s"))
        pairs.append(("Frame rate", f"{number(clip['fps'], 4)} fps"))
        pairs.append(("Between", f"{clip['boundary_in'] or '–'} and {clip['boundary_out'] or '–'}"))
    signals = clip["signals"] or {}
    pairs += [(n.replace("_", " "), number(signals[n])) for n in _SIGNALS if signals.get(n) is not None]
    return facts(pairs)
