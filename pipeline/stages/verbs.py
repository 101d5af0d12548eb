"""The verbs of the data side that need this package alone: their arguments, and what each runs."""

from typing import Any

from pipeline.command import Args, Verbs, show
from pipeline.config import load_config
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.garbage import compact


def add_verbs(verbs: Verbs) -> None:
    """Adds the verbs of this package."""
    add = verbs.add("toyworld", toyworld, "toy --videos 12 --images 4 --seed 1", settings=True)
    add("out", help="folder to write")
    add("--videos", type=int, default=12)
    add("--images", type=int, default=4)
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=1, help="processes (the bytes do not depend on it)")
    add = verbs.add("plan", plan, "videos/ --json", settings=True)
    add("src", nargs="+", help="as for analyze")
    add("--out", dest="corpus", help="a corpus: say which of its sources SRC does not name any more")
    add("--seconds", type=float, default=120.0, help="how much footage to analyse")
    verbs.add("status", status, "corpus --json")("corpus")
    add = verbs.add("takedown", takedown, "corpus 0123456789abcdef --dry-run", resumes=True)
    add("corpus")
    add("source", nargs="+", help="a source_id, or a uri of the sources table")
    add("--reason", default="", help="why, for takedowns.parquet")
    add("--dry-run", action="store_true", help="list what is affected and change nothing")
    add = verbs.add("compact", compact, "corpus --dry-run", resumes=True)
    add("corpus")
    add("--dry-run", action="store_true", help="say what would be deleted, and change nothing")


def toyworld(args: Args) -> int:
    """Render a toy world: real H.264 videos and images with exact truth (cuts, facts, captions)."""
    from pathlib import Path

    from pipeline.progress import progress_bar
    from pipeline.settings import load
    from pipeline.toyworld.world import ToyWorldConfig, render_corpus

    given = {"videos": args.videos, "images": args.images, "seed": args.seed}
    config = load(ToyWorldConfig(), args.config, args.set, given)
    with progress_bar("toyworld", "files", machine=args.json) as report:
        render_corpus(Path(args.out), config, progress=report, workers=args.workers)
    show(
        args,
        {"out": args.out, "videos": args.videos, "images": args.images, "truth": f"{args.out}/truth.jsonl"},
    )
    return 0


def plan(args: Args) -> int:
    """Say from a sample of the sources what a run would take; writes nothing."""
    from pipeline.progress import progress_bar
    from pipeline.sources.absent import absent_inputs, absent_line, absent_remark
    from pipeline.sources.discover import discover
    from pipeline.stages.forecast import forecast, forecast_lines

    sources = discover(args.src)
    remarks: dict[str, Any] = {}
    lines: list[str] = []
    if args.corpus:
        corpus = Corpus(args.corpus).require()
        gone, before = corpus.taken_down_keys(), corpus.inputs()
        absent = absent_inputs(before, sources.inputs, gone, sources.closed)
        remarks["absent"] = absent_remark(absent, keep=False)
        lines = list(filter(None, [absent_line(absent, before.num_rows, keep=False)]))
    with progress_bar("plan", machine=args.json) as report:
        expected = forecast(
            sources.inputs, load_config(args.config, args.set), budget_s=args.seconds, progress=report
        )
    show(args, {**expected, **remarks}, [*forecast_lines(expected), *lines])
    return 0


def status(args: Args) -> int:
    """Count sources, clips, captions and shards by status and reason."""
    from pipeline.corpus.status import status as count
    from pipeline.corpus.status import status_lines

    counts = count(Corpus(args.corpus).require())
    show(args, counts, status_lines(counts))
    return 0


def takedown(args: Args) -> int:
    """Erase sources from every table and shard, and keep them from coming back."""
    from contextlib import nullcontext

    from pipeline.corpus.takedown import as_dict, as_lines, take_down

    corpus = Corpus(args.corpus).require()
    with nullcontext() if args.dry_run else corpus.writing("takedown"):
        traces = take_down(corpus, args.source, reason=args.reason, dry_run=args.dry_run)
    show(args, as_dict(traces) | {"dry_run": args.dry_run}, as_lines(traces, dry_run=args.dry_run))
    return 0
