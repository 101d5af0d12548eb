"""The verbs of the data side that need this package alone: their arguments, and what each runs."""

from pipeline.command import Args, Verbs, show
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
