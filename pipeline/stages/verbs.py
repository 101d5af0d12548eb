"""The verbs of the data side that need this package alone: their arguments, and what each runs."""

import sys
import time
from pathlib import Path
from typing import Any

from pipeline.command import Args, Verbs, show
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.garbage import compact
from pipeline.operation.serve import address

LIVE_S, LOG_S = 2.0, 30.0  # between two looks at a run: on a terminal, in a log


def add_verbs(verbs: Verbs) -> None:
    """Adds the verbs of this package."""
    add = verbs.add("toyworld", toyworld, "toy --videos 12 --images 4 --seed 1", settings=True)
    add("out", help="folder to write")
    add("--videos", type=int, default=12)
    add("--images", type=int, default=4)
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=1, help="processes (the bytes do not depend on it)")
    add = verbs.add("status", status, "corpus --json")
    add("corpus")
    add(
        "--watch",
        type=float,
        nargs="?",
        const=0.0,
        metavar="SECONDS",
        help="go on showing what the newest run does, every so many seconds, until Ctrl-C",
    )
    add = verbs.add("metrics", metrics, "corpus --serve 9178")
    add("corpus")
    add("--serve", type=address, metavar="[HOST:]PORT", help="answer GET /metrics until Ctrl-C")
    add("--textfile", metavar="FILE.prom", help="write them there, for node_exporter's textfile collector")
    verbs.add("cost", cost, "corpus --set prices.cpu_hour=0.04", settings=True)("corpus")
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
    """Count sources, clips, captions and shards by status and class of reason; with --watch, follow a run
    from any machine."""
    from pipeline.corpus.status import status as count
    from pipeline.corpus.status import status_lines

    corpus = Corpus(args.corpus).require()
    if args.watch is not None:
        return _watch(args, corpus)
    counts = count(corpus)
    show(args, counts, status_lines(counts))
    return 0


def _watch(args: Args, corpus: Corpus) -> int:
    """Shows the newest run again and again; the tables are counted when a stage has ended."""
    from pipeline.corpus.status import status as count
    from pipeline.corpus.status import status_lines
    from pipeline.operation import watch
    from pipeline.operation.receipts import Receipts

    reader = Receipts(corpus.storage)
    counts: dict[str, Any] = {}
    counted = -1

    def read() -> dict[str, Any]:
        nonlocal counts, counted
        stages = reader.read()
        if (ended := sum(stage.ended for stage in stages)) != counted:
            counts, counted = count(corpus), ended
        return watch.view(stages, time.time()) | {"status": counts}

    live = sys.stdout.isatty() and not args.json
    views = watch.watched(read, args.watch or (LIVE_S if live else LOG_S))
    if live:
        watch.show_live(views, lambda seen: status_lines(seen["status"]))
    said: list[str] = []
    for seen in views:
        lines = watch.lines(seen)
        if args.json or lines[1:] != said[1:]:  # the first line is the time
            show(args, seen, lines)
        said = lines
    return 0


def metrics(args: Args) -> int:
    """Print what the receipts of all runs add up to, in Prometheus' text format."""
    from pipeline.operation.metrics import exposition, samples
    from pipeline.operation.receipts import Receipts
    from pipeline.operation.serve import server
    from pipeline.storage import commit_bytes

    corpus = Corpus(args.corpus).require()
    reader = Receipts(corpus.storage)

    def text() -> str:
        return exposition(samples(reader.read(), args.corpus, time.time()))

    if args.serve:
        with server(args.serve, text) as serving:
            host, port = serving.server_address[:2]
            print(f"metrics of {args.corpus} at http://{host!s}:{port}/metrics", file=sys.stderr, flush=True)
            serving.serve_forever()
    elif args.textfile:
        commit_bytes(Path(args.textfile), text().encode())
        show(args, {"metrics": args.textfile})
    else:
        families = samples(reader.read(), args.corpus, time.time())
        rows = {
            name: [{**one.labels, "name": one.name, "value": one.value} for one in of_name]
            for name, of_name in families.items()
        }
        show(args, rows, exposition(families).splitlines())
    return 0


def cost(args: Args) -> int:
    """Say what each stage has taken, in seconds and (with prices) in money an hour of kept footage, and what
    a further node would bring."""
    import pyarrow.compute as pc

    from pipeline.config import load_config
    from pipeline.operation.cost import cost as figures
    from pipeline.operation.cost import cost_lines
    from pipeline.operation.receipts import Receipts

    corpus = Corpus(args.corpus).require()
    result = figures(
        Receipts(corpus.storage).read(),
        kept_s=pc.sum(corpus.kept()["duration_s"]).as_py() or 0.0,
        stored_bytes=sum(file.size_bytes for file in corpus.storage.walk()),
        prices=load_config(args.config, args.set).prices,
    )
    show(args, result, cost_lines(result))
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
