"""The report's pictures: kept clips with their captions, rejected clips with their reasons.

In: tables and filmstrips. Out: markup with the JPEGs as data URIs. Which clips are shown depends on the
hashes of their ids alone, spread over sources (kept) or reasons (rejected): nobody picks the nice ones.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.audit.contents import Contents, Row
from captioner.audit.markup import Html, count, data_uri, el, facts, join, length_of_time, number

KEPT_SHOWN, REJECTED_SHOWN, MOSAIC_SHOWN = 24, 12, 16
KEPT_BYTES, REJECTED_BYTES = 2_800_000, 900_000  # of JPEG; a third more as base64: the page stays < 6 MB
_JPEG = b"\xff\xd8\xff"
_SIGNALS = ("motion", "camera_motion", "sharpness", "luma", "contrast", "static_ratio", "text_area")


def sections(contents: Contents) -> tuple[Html, list[tuple[str, str, Html]]]:
    """A mosaic of the kept clips that are shown, and (anchor, heading, markup) of the two galleries; one
    without clips is left out."""
    kept, rejected = (np.flatnonzero(contents.is_judged(state)) for state in ("kept", "rejected"))
    judged = contents.judged
    first_reason = pc.fill_null(pc.list_element(_padded(judged["reasons"]), 0), "")
    chosen_kept = kept[spread(judged["clip_id"].take(kept), judged["source_id"].take(kept), KEPT_SHOWN)]
    chosen_rejected = rejected[
        spread(judged["clip_id"].take(rejected), first_reason.take(rejected), REJECTED_SHOWN)
    ]
    chosen = np.concatenate([chosen_kept, chosen_rejected])
    clips = _by_id(contents.clips.take(pa.array(contents.clip_of[chosen])))
    wanted = pa.array(list(clips), pa.string())
    strips = _by_id(contents.corpus.strips(list(clips))) if clips else {}
    words = {
        name: _by_id(rows.filter(pc.is_in(rows["clip_id"], value_set=wanted)))
        for name, rows in contents.captions.items()
    }
    uris = _uris(contents.sources, {clip["source_id"] for clip in clips.values()})
    shown_kept = within_budget(judged.take(pa.array(chosen_kept)).to_pylist(), strips, KEPT_BYTES)
    rows_rejected = judged.take(pa.array(chosen_rejected)).to_pylist()
    shown_rejected = within_budget(rows_rejected, strips, REJECTED_BYTES)
    out = []
    for heading, over, total, shown in (
        ("Kept clips", "sources", len(kept), shown_kept),
        ("Rejected clips", "reasons", len(rejected), shown_rejected),
    ):
        cards = [_card(row, clips[row["clip_id"]], strips.get(row["clip_id"]), words, uris) for row in shown]
        how_chosen = f"{count(len(shown))} of {count(total)}, drawn by hash and spread over {over}."
        if cards:
            anchor = heading.split()[0].lower()
            out.append((anchor, heading, join(el("p", how_chosen, class_="soft"), cards)))
    return _mosaic([strips[row["clip_id"]] for row in shown_kept if row["clip_id"] in strips]), out


def _by_id(rows: pa.Table) -> dict[str, Row]:
    """clip_id → row, of few rows."""
    return {row["clip_id"]: row for row in rows.to_pylist()}


def _uris(sources: pa.Table, ids: set[str]) -> dict[str, str]:
    """source_id → its uri, the last of equal files, of a few sources."""
    some = sources.filter(pc.is_in(sources["source_id"], value_set=pa.array(sorted(ids), pa.string())))
    return {row["source_id"]: row["uri"] for row in some.select(["source_id", "uri"]).to_pylist()}


def _padded(lists: pa.ChunkedArray) -> pa.Array:
    """The lists, each with a null where it is empty or missing."""
    lists = lists.combine_chunks()
    none = pa.scalar([None], lists.type)
    return pc.if_else(pc.fill_null(pc.greater(pc.list_value_length(lists), 0), False), lists, none)


def spread(clip_ids: pa.ChunkedArray, groups: pa.ChunkedArray | pa.Array, most: int) -> np.ndarray:
    """int64 [≤ most]: places of the first of every group, then of the second, …, in the order of hashed clip
    ids."""
    hashes = (hashlib.sha256(clip_id.encode()).digest()[:8] for clip_id in clip_ids.to_pylist())
    order = np.argsort(np.frombuffer(b"".join(hashes), ">u8"), kind="stable")
    codes = pa.chunked_array([groups]) if isinstance(groups, pa.Array) else groups
    group = codes.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)[order]
    by_group = np.argsort(group, kind="stable")
    fresh = np.flatnonzero(np.diff(group[by_group], prepend=-1))
    rank = np.empty(len(order), np.int64)
    rank[by_group] = np.arange(len(order)) - np.repeat(fresh, np.diff(fresh, append=len(order)))
    return order[np.argsort(rank, kind="stable")[:most]]


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
