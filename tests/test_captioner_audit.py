"""The report is one self-contained page whose numbers add up, whatever the corpus holds."""

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from captioner.audit.charts import ASPECT, Series, histogram, line_chart
from captioner.audit.gallery import spread
from captioner.audit.markup import el, length_of_time, number, percent
from captioner.audit.report import render_report, write_report
from captioner.audit.training import read_metrics
from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, JUDGED_PATH, Corpus
from pipeline.engine.tasks import part_key
from pipeline.storage import Storage

PRINT = "0123456789abcdef"
EVIL = "<script>alert('x')</script>\"'&\x00\ud800"
REASONS = (["static"], ["short", "static"], ["duplicate"])


def jpeg(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (48, 32), (shade % 256, 90, 140)).save(out, "JPEG")
    return out.getvalue()


def build_corpus(folder: Path, *, sources: int = 6, clips_each: int = 4, text: str = "") -> Corpus:
    """The last source failed; of each source's clips one is rejected and, in source 0, one failed."""
    corpus = Corpus(str(folder))
    inputs, source_rows, clips, strips, judged, captions = [], [], [], [], [], []
    for s in range(sources):
        key, source_id, uri = f"{s:016x}", f"{s + 256:016x}", f"/media/{text}v{s}.mp4"
        licence = f"{text}CC BY 4.0" if s % 2 else None
        inputs.append({"source_key": key, "uri": uri, "size_bytes": 9, "mtime_ns": 9, "licence": licence})
        failed = s == sources - 1
        row = {"source_key": key, "source_id": source_id, "uri": uri, "kind": "video", "has_audio": False}
        ends = {"status": "failed", "reason": f"{text}no video stream"} if failed else {"status": "ok"}
        source_rows.append({**row, **ends, "duration_s": 0.0 if failed else 2.0 * clips_each})
        for c in range(0 if failed else clips_each):
            clip_id = f"{source_id}-{2000 * c}-{2000 * c + 2000}"
            state = "rejected" if c == 1 else "failed" if (s, c) == (0, 2) else "kept"
            signals = {"motion": 0.1 * c + s, "sharpness": 5.0 * c}
            clip = {"clip_id": clip_id, "source_id": source_id, "kind": "video", "start_s": 2.0 * c}
            clip |= {"end_s": 2.0 * c + 2, "fps": 25.0, "width": 48, "height": 32, "crop": [0, 0, 48, 32]}
            clip |= {"signals": signals, "status": "failed" if state == "failed" else "ok"}
            clips.append({**clip, "reason": f"{text}lost" if state == "failed" else None})
            frames = [jpeg(20 * s + 5 * c + i) for i in range(8)]
            strips.append(
                {"clip_id": clip_id, "times_s": [2.0 * c + i / 4 for i in range(8)], "frames": frames}
            )
            why = REASONS[s % 3] if state == "rejected" else []
            row = {"clip_id": clip_id, "source_id": source_id, "kind": "video", "duration_s": 2.0}
            judged.append({**row, "status": state, "reasons": [text + w for w in why]})
            if state == "kept":
                caption = {"clip_id": clip_id, "captioner": "builtin:", "captioner_sha256": "ab" * 32}
                caption |= {
                    "short": f"{text}a ball",
                    "detailed": f"{text}a red ball rolls, take {c}.",
                    "flags": [],
                }
                captions.append({**caption, "confidence": -0.2 * c, "alignment": 0.3, "status": "ok"})
    captions[0] |= {"status": "failed", "reason": f"{text}empty output"}
    config = Config()
    for stage in ("analyze", "judge", "captions/builtin"):
        corpus.record(config, stage, PRINT)
    key = part_key(PRINT, [r["source_key"] for r in inputs])
    parts = [
        (INPUTS_PATH, inputs, tables.INPUTS),
        (f"sources/{key}.parquet", source_rows, tables.SOURCES),
        (f"clips/{key}.parquet", clips, tables.CLIPS),
        (f"strips/{key}.parquet", strips, tables.STRIPS),
        (JUDGED_PATH, judged, tables.JUDGED),
        (f"captions/builtin/{key}.parquet", captions, tables.CAPTIONS),
    ]
    for path, rows, schema in parts:
        corpus.storage.write_bytes(path, tables.to_parquet(tables.from_rows(rows, schema)))
    return corpus


def build_run(folder: Path, *, text: str = "") -> Storage:
    (folder / "samples").mkdir(parents=True)
    rows = [{"step": i, "loss": 1 / (1 + i / 50), "lr": 1e-3, "seconds": 0.5} for i in range(1, 201)]
    rows[99]["val_loss"], rows[199]["val_loss"] = 0.6, 0.4
    rows.insert(120, {"step": 101, "loss": 0.33, "lr": 1e-3, "resumed": True})
    lines = [json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 201, "lo']) + "\n")
    (folder / "config.json").write_text(json.dumps({"steps": 200, "note": text.replace("\ud800", "")}))
    Image.new("RGB", (96, 64)).save(folder / "samples" / "s0.png")
    (folder / "samples" / "s0.mp4").write_bytes(b"\0" * 100)
    (folder / "samples" / "s0.json").write_text(json.dumps({"prompt": f"{text}a red ball", "seed": 3}))
    return Storage(str(folder))


class Reader(HTMLParser):
    """Collects what a browser would act on, and the tags that are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images_without_alt = 0
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [given[n] or "" for n in ("src", "href", "poster", "data", "action") if n in given]
        self.handlers += [n for n in given if n.startswith("on") or n in ("style", "srcdoc")]
        self.images_without_alt += tag == "img" and not given.get("alt")
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_the_page_is_self_contained_and_well_formed(tmp_path: Path) -> None:
    html = render_report(build_corpus(tmp_path / "c"), build_run(tmp_path / "r"))
    reader = read(html)
    assert all(link.startswith(("data:", "#")) for link in reader.links)
    assert {"script", "iframe", "object", "form"}.isdisjoint(reader.tags)
    assert not reader.handlers
    assert not reader.images_without_alt
    assert "://" not in re.sub(r"data:[^\"]*", "", html)
    assert not re.search(r"url\(|@import", html)
    assert "default-src 'none'" in html.replace("&#x27;", "'")
    assert reader.tags.count("h1") == 1
    anchors = set(re.findall(r'id="([^"]+)"', html))
    assert {link[1:] for link in reader.links if link.startswith("#")} <= anchors


def test_every_string_is_escaped(tmp_path: Path) -> None:
    evil = EVIL.replace("\ud800", "").replace("\x00", "")
    html = render_report(build_corpus(tmp_path / "c", text=evil), build_run(tmp_path / "r", text=evil))
    assert "alert(" in html
    assert {"script"}.isdisjoint(read(html).tags)
    assert "<script" not in html


def test_text_that_is_no_utf8_or_a_control_character_is_replaced() -> None:
    element = el("p", EVIL, title=EVIL)
    element.encode()
    assert "\x00" not in element
    assert "<script" not in element


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path) -> None:
    run = build_run(tmp_path / "r")
    corpus = build_corpus(tmp_path / "c")
    write_report(corpus, run.root)
    first = (tmp_path / "c/report/index.html").read_bytes()
    write_report(corpus, run.root)
    assert (tmp_path / "c/report/index.html").read_bytes() == first
    shutil.rmtree(tmp_path / "c")
    again = render_report(build_corpus(tmp_path / "c"), run).encode()
    assert again == first


def cells(html: str, row: str) -> list[str]:
    """The cells of the first table row that is headed `row`."""
    row_match = re.search(rf'<th scope="row">{re.escape(row)}</th>(.*?)</tr>', html)
    assert row_match, row
    return re.findall(r"<td[^>]*>(.*?)</td>", row_match[1].replace("\u00a0", " "))


def test_the_numbers_add_up(tmp_path: Path) -> None:
    html = render_report(build_corpus(tmp_path, sources=6, clips_each=4), None)
    assert cells(html, "Sources")[0] == "6"
    assert cells(html, "– failed")[0] == "1"
    assert cells(html, "Clips")[0] == "20"
    states = [int(cells(html, f"– {name}")[0]) for name in ("kept", "rejected", "not judged yet")]
    assert states == [14, 5, 0]  # and one failed
    assert cells(html, "Captioned · builtin")[0] == "13"
    assert cells(html, "static")[0:3:2] == ["4", "2"]  # 4 clips, 2 of them for this alone
    assert cells(html, "Clips rejected") == ["5", "100 %", "3", "2"]
    assert "no video stream" in html
    assert "empty output" in html


def test_clips_that_are_not_judged_are_counted(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path)
    corpus.storage.delete(JUDGED_PATH)
    assert cells(render_report(corpus, None), "– not judged yet") == ["20", "100 %", "40.0 s"]


def test_captions_of_clips_that_are_not_kept_now_are_left_over(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path)
    judged = corpus.judged().to_pylist()
    for row in judged[:2]:  # the first of them was kept, and its caption failed
        row["status"], row["reasons"] = "rejected", ["blurred"]
    corpus.storage.write_bytes(JUDGED_PATH, tables.to_parquet(tables.from_rows(judged, tables.JUDGED)))
    html = render_report(corpus, None)
    assert cells(html, "Captioned · builtin")[:2] == ["13", "100 % of kept"]
    assert cells(html, "– left over from clips that are not kept now")[0] == "1"


def test_an_empty_corpus_says_so(tmp_path: Path) -> None:
    html = render_report(Corpus(str(tmp_path)), None)
    assert "This corpus is empty" in html
    read(html)


def test_a_run_that_has_just_begun_is_reported(tmp_path: Path) -> None:
    assert "no step yet" in render_report(Corpus(str(tmp_path)), Storage(str(tmp_path / "run")))


def test_a_resumed_run_is_one_curve(tmp_path: Path) -> None:
    metrics, resumed, unread = read_metrics(build_run(tmp_path), "metrics.jsonl")
    steps = [row["step"] for row in metrics]
    assert steps == [*range(1, 102), *range(121, 201)]
    assert (resumed, unread) == ([101], 1)


def test_training_figures_are_in_the_text(tmp_path: Path) -> None:
    html = render_report(Corpus(str(tmp_path / "c")), build_run(tmp_path / "r"))
    assert cells(html, "Held-out validation loss") == ["0.6", "0.4"]
    assert "a red ball" in html
    assert "<video" in html


def test_the_gallery_takes_from_every_group_before_it_takes_twice() -> None:
    ids = pa.chunked_array([[f"{i:03d}" for i in range(100)]])
    groups = pa.chunked_array([[str(i % 5 if i < 50 else 0) for i in range(100)]])
    chosen = spread(ids, groups, 10)
    assert sorted(groups.take(pa.array(chosen)).to_pylist()) == sorted("0123401234")
    backwards = pa.array(range(99, -1, -1))
    assert (99 - spread(ids.take(backwards), groups.take(backwards), 10)).tolist() == chosen.tolist()
    assert not set(chosen.tolist()) <= set(range(10))  # not the first by name
    assert spread(ids.slice(0, 0), groups.slice(0, 0), 10).tolist() == []


def test_a_histogram_draws_every_value() -> None:
    values = [0.0, 1.0, 1.0, 2.0, 50.0, float("nan")]
    svg = histogram("Motion", "px", [Series(name="kept", style="kept", values=values)], bins=10)
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([\d.]+)"', svg)]
    assert sum(heights) / max(heights) == pytest.approx(5 / 4)  # four values in the tallest bar
    assert '<rect class="kept" x="44.5"' in svg  # which is the first, at the axis
    assert "median 1" in svg
    assert "nothing measured" in histogram("Motion", "", [Series(name="k", style="kept", values=[])])
    for same in ([3.0], [16 / 9] * 5):
        read(histogram("Aspect", "", [Series(name="k", style="kept", values=same)], scale=ASPECT))


def test_a_line_chart_survives_any_points() -> None:
    spike = [(float(i), 1e9 if i == 300 else 1.0 + i / 600) for i in range(600)]
    for points in ([], [(1.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, float("inf")), (2.0, 1.0)], spike):
        svg = line_chart("Loss", "step", "loss", [("", points)], marks=[1.5])
        read(svg)
        assert "nan" not in svg
        places = [float(y) for _, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", svg)]
        assert all(0 <= y <= 150 for y in places)


def test_numbers_for_people() -> None:
    assert [length_of_time(s) for s in (4.21, 59.97, 75, 5000)] == [
        "4.2 s",
        "1 min 0 s",
        "1 min 15 s",
        "1 h 23 min",
    ]
    assert [percent(1, 3), percent(1, 100_000), percent(99_999, 100_000), percent(0, 0)] == [
        "33.3\u00a0%",
        "<0.1\u00a0%",
        ">99.9\u00a0%",
        "–",
    ]
    assert [number(v) for v in (None, 0.01234, -2.0, 12345.6)] == ["–", "0.0123", "−2", "12,346"]


@pytest.mark.slow
def test_a_browser_shows_the_page_without_complaint(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on PATH")
    corpus = build_corpus(tmp_path / "c", text="averylongnamewithoutanyspace" * 4)
    write_report(corpus, build_run(tmp_path / "r").root)
    page = (tmp_path / "c/report/index.html").read_text()
    probe = tmp_path / "probe.html"  # the page in a frame as wide as a phone, which tells its own width
    inner = page.replace("&", "&amp;").replace('"', "&quot;")
    script = "f.onload=()=>document.title='w'+f.contentDocument.documentElement.scrollWidth"
    probe.write_text(
        f'<iframe id="f" width="375" height="800" srcdoc="{inner}"></iframe><script>{script}</script>'
    )
    options = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync --no-first-run"
    )
    dom = ""
    for target in (tmp_path / "c/report/index.html", probe):
        profile = tmp_path / f"profile-{target.stem}"
        command = [chromium, *options.split(), "--enable-logging=stderr", f"--user-data-dir={profile}"]
        command += ["--virtual-time-budget=3000", "--dump-dom", target.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        assert not console, console
        dom = done.stdout
    width_px = re.search(r"<title>w(\d+)</title>", dom)
    assert width_px, dom[:200]
    assert 300 < int(width_px[1]) <= 375
