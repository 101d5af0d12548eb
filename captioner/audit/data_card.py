"""The report's data card: what a corpus is, how it was made, what was removed, what it is good for.

In: the contents of a corpus. Out: markup. Says "unknown" where nothing was said, counts
instead of praising, and states the limits that follow from how a corpus is made. Judges nothing.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import pipeline
from captioner.audit.captions import flagged_of, made_by
from captioner.audit.contents import Contents, duration_s, equals, numbers, ranked, tally
from captioner.audit.markup import Html, count, el, join, length_of_time, percent, table
from pipeline.config import Config
from pipeline.corpus.corpus import TAKEN_DOWN
from pipeline.corpus.shards import INFO_NAME, read_info
from pipeline.errors import FormatError
from pipeline.operation.reasons import by_class
from pipeline.storage import Storage

UNKNOWN, NO_REASON = "unknown", "no reason given"
LISTED = 24  # licences and reasons that are listed one by one; the rest is summed up
CAPTIONERS = {  # scheme of a captioner's name → what its captions can be relied on for
    "builtin": "It knows only the toy world: on any other footage its captions are wrong.",
    "truth": "The toy world's own record of what it drew: true of its shots, and of nothing else.",
    "coca": "A model of single pictures: it says nothing reliable of motion, order or the camera.",
    "hf": "A general vision–language model: it can name what is not there and miss what is.",
    "openai": "A general model behind a server: it can name what is not there and miss what is, and another "
    "model may answer under the same name tomorrow.",
}


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
    held = _held(contents.sources)
    own = _filled(held["original"])
    intro = (
        f"{count(held.num_rows)} files that could be decoded, of which {count(own)} came with a caption of "
        "their own. Kept clips are spans of these files; the corpus holds no copy of a file, only small "
        "frames, figures, captions and latents."
    )
    return join(
        el("p", intro),
        _grouped("By kind", "Kind", contents, "kind"),
        _grouped("By licence, as the manifests say", "Licence", contents, "licence"),
    )


def _held(sources: pa.Table) -> pa.Table:
    """The sources that could be decoded and may be used."""
    lost = pc.is_in(sources["status"], value_set=pa.array(["failed", TAKEN_DOWN]))
    return sources.filter(pc.invert(lost))


def _filled(column: pa.ChunkedArray) -> int:
    """How many texts are there and not empty."""
    return pc.sum(pc.greater(pc.utf8_length(column), 0)).as_py() or 0


def _known(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts, UNKNOWN where there is none."""
    texts = pc.fill_null(column, "")
    return pc.if_else(pc.equal(texts, ""), UNKNOWN, texts)


def _grouped(title: str, head: str, contents: Contents, column: str) -> Html:
    """Files, footage and kept clips by a column of the sources; files of equal content share their clips,
    which count for the first of them by uri."""
    held = _held(contents.sources)
    files = _sums(_known(held[column]), np.nan_to_num(numbers(held["duration_s"])))
    kept = np.flatnonzero(contents.is_judged("kept"))
    source_of = pc.index_in(contents.judged["source_id"].take(kept), value_set=held["source_id"])
    of_clip_s = duration_s(contents.clips)[contents.clip_of[kept]]
    clips = _sums(_known(held[column].take(source_of)), of_clip_s)
    order = [group for group, _ in ranked({group: n for group, (n, _) in files.items()})]
    rows = [(group, [group]) for group in order[:LISTED]]
    if rest := order[LISTED:]:
        rows.append((f"{count(len(rest))} others", rest))
    none = (0, 0.0)
    cells = [
        (
            name,
            count(sum(files[g][0] for g in groups)),
            length_of_time(sum(files[g][1] for g in groups)),
            count(sum(clips.get(g, none)[0] for g in groups)),
            length_of_time(sum(clips.get(g, none)[1] for g in groups)),
        )
        for name, groups in rows
    ]
    heads = (head, "Files", "Footage", "Kept clips", "Kept time")
    return table(title, heads, cells, numeric=(1, 2, 3, 4))


def _sums(groups: pa.ChunkedArray, seconds: np.ndarray) -> dict[str, tuple[int, float]]:
    """Group → how many, and their seconds in all."""
    rows = pa.table({"group": groups, "seconds": seconds})
    summed = rows.group_by("group").aggregate([("seconds", "count"), ("seconds", "sum")]).to_pylist()
    return {row["group"]: (row["seconds_count"], row["seconds_sum"]) for row in summed}


def _recipe(contents: Contents) -> Html:
    corpus, config = contents.corpus, contents.corpus.config()
    rows: list[tuple[str, str]] = [("Report written by", f"framemill {pipeline.__version__}")]
    rows.append(("Shots", f"detector {config.analyze.shots.detector}, one decode a source"))
    rows.append(("Kept or rejected", _judgement(config)))
    for name, captions in contents.captions.items():
        for captioner, sha256 in made_by(captions.filter(pc.equal(captions["status"], "ok"))):
            rows.append((f"Captions · {name}", f"{captioner}, weights {sha256 or UNKNOWN}"))
    for name in contents.encoded:
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
    sources, judged, counts = contents.sources, contents.judged, contents.counts
    takedowns = contents.corpus.takedowns()["reason"]
    failed = sources.filter(pc.equal(sources["status"], "failed"))["reason"]
    rejected = judged.filter(pc.equal(judged["status"], "rejected"))["reasons"]
    lost = pc.list_flatten(judged.filter(pc.equal(judged["status"], "failed"))["reasons"])
    rows = [
        ("Files that could not be decoded", _classes(failed), count(len(failed))),
        ("Files taken down for good", _listed(tally(_reasons(takedowns))), count(len(takedowns))),
        ("Files equal to another file", "their clips count once", count(counts["sources"]["copies"])),
        ("Clips rejected", _listed(tally(_reasons(pc.list_flatten(rejected)))), count(len(rejected))),
        ("Clips that failed", _classes(lost), count(counts["clips"]["status"].get("failed", 0))),
        ("Clips not judged yet", "", count(counts["clips"]["pending"])),
    ]
    note = "A clip can be rejected for several reasons."
    return join(table("Not in the corpus", ("What", "Why", "Count"), rows, numeric=(2,)), el("p", note))


def _reasons(column: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = pc.fill_null(column, "")
    return pc.if_else(pc.equal(texts, ""), NO_REASON, texts)


def _classes(reasons: pa.ChunkedArray) -> str:
    """The classes of the reasons, the commonest first."""
    return _listed(by_class(tally(pc.fill_null(reasons, "")))["reasons"])


def _listed(counts: Mapping[str, int]) -> str:
    """ "4 × static, 2 × duplicate": the commonest first."""
    ordered = ranked(counts)
    listed = [f"{count(n)} × {reason}" for reason, n in ordered[:LISTED]]
    rest = sum(n for _, n in ordered[LISTED:])
    return ", ".join([*listed, *([f"{count(rest)} × others"] if rest else [])])


def _captions(contents: Contents) -> Html:
    if not contents.captions:
        return el("p", "There are none: no captioner has been run on this corpus.")
    frames = contents.corpus.config().analyze.strip_frames
    how = (
        f"Each kept clip has a short and a detailed text, written from at most {frames} frames of it. No "
        "person checks them. Confidence says how sure a captioner was of its words, not how likely they are "
        "to be true; flags are checks of the text alone."
    )
    rows = []
    for name, captions in contents.captions.items():
        ok = captions.filter(pc.equal(captions["status"], "ok"))
        made = {(captioner or name).partition(":")[0] for captioner, _ in made_by(ok)}
        schemes = sorted(made or {name.split("-")[0]})
        limits = " ".join(CAPTIONERS.get(scheme, f"Nothing is known of {scheme}.") for scheme in schemes)
        rows.append((name, limits, count(ok.num_rows), percent(flagged_of(ok), ok.num_rows)))
    head = ("Captioner", "What it can be relied on for", "Captions", "Flagged")
    return join(el("p", how), table("Captioners", head, rows, numeric=(2, 3)))


def _limits(contents: Contents) -> list[str]:
    sources = contents.sources
    current = sources.filter(pc.not_equal(sources["status"], TAKEN_DOWN))
    total = count(current.num_rows)
    unlicensed = current.num_rows - _filled(current["licence"])
    salvaged = int(equals(current["status"], "salvaged").sum())
    hdr = pc.sum(pc.is_in(current["transfer"], value_set=pa.array(["pq", "hlg"]))).as_py() or 0
    sound = pc.sum(current["has_audio"]).as_py() or 0
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
    if not contents.corpus.config().judge.dedup:
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
