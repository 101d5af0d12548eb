"""The report's data card: what a corpus is, how it was made, what was removed, what it is good for.

In: a corpus, its rows and the sets made of them. Out: markup. Says "unknown" where nothing was said, counts
instead of praising, and states the limits that follow from how a corpus is made. Judges nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pipeline
from captioner.audit.markup import Html, count, el, join, length_of_time, percent, table
from captioner.audit.overview import duration_s
from pipeline.config import Config
from pipeline.corpus.corpus import TAKEN_DOWN, Corpus
from pipeline.corpus.shards import INFO_NAME, read_info
from pipeline.errors import FormatError
from pipeline.operation.reasons import reason_class
from pipeline.storage import Storage

UNKNOWN = "unknown"
LISTED = 24  # licences and reasons that are listed one by one; the rest is summed up
CAPTIONERS = {  # scheme of a captioner's name → what its captions can be relied on for
    "builtin": "It knows only the toy world: on any other footage its captions are wrong.",
    "truth": "The toy world's own record of what it drew: true of its shots, and of nothing else.",
    "coca": "A model of single pictures: it says nothing reliable of motion, order or the camera.",
    "hf": "A general vision–language model: it can name what is not there and miss what is.",
    "openai": "A general model behind a server: it can name what is not there and miss what is, and another "
    "model may answer under the same name tomorrow.",
}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the card speaks of. `sources` are sorted by uri, with what manifests say of them; `captions` are
    those of kept clips, by captioner; `latents` names the sets of latents."""

    corpus: Corpus
    config: Config
    counts: Row  # as `framemill status --json` gives them
    sources: Sequence[Row]
    clips: Mapping[str, Row]
    judged: Sequence[Row]
    captions: Mapping[str, Sequence[Row]]
    latents: Sequence[str]


def section(contents: Contents) -> Html:
    """The card, from what the corpus holds to what it may be used for."""
    return join(
        el("h3", "What it holds"),
        _holdings(contents),
        el("h3", "How it was made"),
        _recipe(contents),
        el("h3", "What was removed, and why"),
        _removed(contents),
        el("h3", "What the captions are"),
        _captions(contents),
        el("h3", "Known limits"),
        el("ul", [el("li", limit) for limit in _limits(contents)]),
        el("h3", "Intended use"),
        _use(),
    )


def _holdings(contents: Contents) -> Html:
    held = [row for row in contents.sources if row["status"] not in ("failed", TAKEN_DOWN)]
    own = sum(bool(row["original"]) for row in held)
    intro = (
        f"{count(len(held))} files that could be decoded, of which {count(own)} came with a caption of "
        "their own. Kept clips are spans of these files; the corpus holds no copy of a file, only small "
        "frames, figures, captions and latents."
    )
    return join(
        el("p", intro),
        _grouped("By kind", "Kind", contents, "kind"),
        _grouped("By licence, as the manifests say", "Licence", contents, "licence"),
    )


def _grouped(title: str, head: str, contents: Contents, column: str) -> Html:
    """Files, footage and kept clips by a column of the sources; files of equal content share their clips,
    which count for the first of them by uri."""
    files: Counter[str] = Counter()
    footage_s: dict[str, float] = defaultdict(float)
    group_of: dict[str, str] = {}
    for row in contents.sources:
        if row["status"] in ("failed", TAKEN_DOWN):
            continue
        group = row[column] or UNKNOWN
        files[group] += 1
        footage_s[group] += row["duration_s"] or 0.0
        group_of.setdefault(row["source_id"], group)
    kept: Counter[str] = Counter()
    kept_s: dict[str, float] = defaultdict(float)
    for row in contents.judged:
        if row["status"] == "kept":
            group = group_of.get(row["source_id"], UNKNOWN)
            kept[group] += 1
            kept_s[group] += duration_s(contents.clips[row["clip_id"]])
    order = [group for group, _ in sorted(files.items(), key=lambda item: (-item[1], item[0]))]
    rows = [(group, [group]) for group in order[:LISTED]]
    if rest := order[LISTED:]:
        rows.append((f"{count(len(rest))} others", rest))
    cells = [
        (
            name,
            count(sum(files[g] for g in groups)),
            length_of_time(sum(footage_s[g] for g in groups)),
            count(sum(kept[g] for g in groups)),
            length_of_time(sum(kept_s[g] for g in groups)),
        )
        for name, groups in rows
    ]
    heads = (head, "Files", "Footage", "Kept clips", "Kept time")
    return table(title, heads, cells, numeric=(1, 2, 3, 4))


def _recipe(contents: Contents) -> Html:
    corpus, config = contents.corpus, contents.config
    rows: list[tuple[str, str]] = [("Report written by", f"framemill {pipeline.__version__}")]
    rows.append(("Shots", f"detector {config.analyze.shots.detector}, one decode a source"))
    rows.append(("Kept or rejected", _judgement(config)))
    for name, captions in contents.captions.items():
        pairs = {(r["captioner"], r["captioner_sha256"]) for r in captions if r["status"] == "ok"}
        for captioner, sha256 in sorted(pairs, key=str):
            rows.append((f"Captions · {name}", f"{captioner}, weights {sha256 or UNKNOWN}"))
    for name in contents.latents:
        folder = Storage(f"{corpus.root}/latents/{name}")
        if not folder.exists(INFO_NAME):
            continue
        try:
            info = read_info(folder)
        except FormatError:  # of another version: its clips are counted all the same
            rows.append((f"Latents · {name}", UNKNOWN))
            continue
        grid = f"up to {info.max_frames} frames at {info.fps:g} fps, about {count(info.area_px)} pixels"
        rows.append((f"Latents · {name}", f"{info.vae}, weights {info.vae_sha256}; {grid}"))
    note = "All settings, and the fingerprint of each stage, stand at the end of this page."
    return join(table("Software, models and settings", ("Step", "What was used"), rows), el("p", note))


def _judgement(config: Config) -> str:
    judge = config.judge
    parts = [f"rules {judge.preset}" + (", changed for this corpus" if judge.rules else "")]
    parts.append("one of each group of copies stays" if judge.dedup else "copies stay")
    if judge.semantic_distance:
        parts.append(f"near in meaning ({judge.embedder}, distance {judge.semantic_distance:g}) is a copy")
    if judge.decontaminate:
        parts.append(f"footage of {judge.decontaminate} is rejected")
    return "; ".join(parts)


def _removed(contents: Contents) -> Html:
    sources, counts = contents.sources, contents.counts
    takedowns = contents.corpus.takedowns().to_pylist()
    failed = [reason_class(row["reason"] or "") for row in sources if row["status"] == "failed"]
    rejected = [row for row in contents.judged if row["status"] == "rejected"]
    unjudged = [row["reasons"] or () for row in contents.judged if row["status"] == "failed"]
    lost = [reason_class(reason) for reasons in unjudged for reason in reasons]
    reasons = [reason for row in rejected for reason in row["reasons"] or ()]
    rows = [
        ("Files that could not be decoded", _ranked(failed), count(len(failed))),
        ("Files taken down for good", _ranked([t["reason"] for t in takedowns]), count(len(takedowns))),
        ("Files equal to another file", "their clips count once", count(counts["sources"]["copies"])),
        ("Clips rejected", _ranked(reasons), count(len(rejected))),
        ("Clips that failed", _ranked(lost), count(counts["clips"]["status"].get("failed", 0))),
        ("Clips not judged yet", "", count(counts["clips"]["pending"])),
    ]
    note = "A clip can be rejected for several reasons."
    return join(table("Not in the corpus", ("What", "Why", "Count"), rows, numeric=(2,)), el("p", note))


def _ranked(reasons: Sequence[str | None]) -> str:
    """ "4 × static, 2 × duplicate": the commonest first."""
    ordered = sorted(Counter(r or "no reason given" for r in reasons).items(), key=lambda i: (-i[1], i[0]))
    listed = [f"{count(n)} × {reason}" for reason, n in ordered[:LISTED]]
    rest = sum(n for _, n in ordered[LISTED:])
    return ", ".join([*listed, *([f"{count(rest)} × others"] if rest else [])])


def _captions(contents: Contents) -> Html:
    if not contents.captions:
        return el("p", "There are none: no captioner has been run on this corpus.")
    frames = contents.config.analyze.strip_frames
    how = (
        f"Each kept clip has a short and a detailed text, written from at most {frames} frames of it. No "
        "person checks them. Confidence says how sure a captioner was of its words, not how likely they are "
        "to be true; flags are checks of the text alone."
    )
    rows = []
    for name, captions in contents.captions.items():
        ok = [row for row in captions if row["status"] == "ok"]
        schemes = sorted({(row["captioner"] or name).partition(":")[0] for row in ok} or {name.split("-")[0]})
        limits = " ".join(CAPTIONERS.get(scheme, f"Nothing is known of {scheme}.") for scheme in schemes)
        flagged = sum(bool(row["flags"]) for row in ok)
        rows.append((name, limits, count(len(ok)), percent(flagged, len(ok))))
    head = ("Captioner", "What it can be relied on for", "Captions", "Flagged")
    return join(el("p", how), table("Captioners", head, rows, numeric=(2, 3)))


def _limits(contents: Contents) -> list[str]:
    current = [row for row in contents.sources if row["status"] != TAKEN_DOWN]
    total = count(len(current))
    unlicensed = sum(not row["licence"] for row in current)
    salvaged = sum(row["status"] == "salvaged" for row in current)
    hdr = sum(row["transfer"] in ("pq", "hlg") for row in current)
    sound = sum(bool(row["has_audio"]) for row in current)
    limits = []
    if unlicensed:
        limits.append(f"The licence of {count(unlicensed)} of {total} files is unknown: no manifest says it.")
    if salvaged:
        limits.append(f"{count(salvaged)} files broke half way: only what could be decoded was used.")
    if hdr:
        limits.append(
            f"{count(hdr)} files are of high dynamic range: they are seen tone-mapped to standard range."
        )
    if sound:
        limits.append(f"{count(sound)} files have sound; nothing of it is in the corpus or its captions.")
    if not contents.config.judge.dedup:
        limits.append("Copies were not looked for.")
    else:
        limits.append("Copies are found by likeness of pictures: some that were changed much may be left.")
    limits.append("Shots and signals are measured by software and were not checked by hand.")
    limits.append(
        "Nothing here looks for persons, names, private data, trademarks or harmful content, nor for "
        "whether the footage shows the world evenly."
    )
    return limits


def _use() -> Html:
    meant = (
        "Training and evaluating models that make video and pictures from text, by those whom the licences "
        "of the sources allow it."
    )
    not_meant = (
        "It is not meant for recognising or tracing persons, and its captions are no record of what happened."
    )
    how = el("code", "framemill takedown CORPUS SOURCE_ID")
    return join(
        el("p", meant), el("p", not_meant), el("p", "A source that has to go is erased with ", how, ".")
    )
