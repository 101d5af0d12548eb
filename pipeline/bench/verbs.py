"""The verbs `framemill bench …`: their arguments, and what each runs."""

from pipeline.command import Args, Verbs, show


def add_verbs(verbs: Verbs) -> None:
    """Adds the verbs of this package."""
    add = verbs.add("bench dedup", bench_dedup, "--media toy --truth toy/truth.jsonl --json")
    add("--media", required=True, help="the folder that the truth speaks of")
    add("--truth", required=True, help="truth.jsonl of a toy world, or a duplicates.json")
    add("--no-mirrored", action="store_true", help="a mirrored copy is no copy")
    add = verbs.add("bench judge", bench_judge, "--rows 1000000 --json")
    add("--rows", type=int, default=100_000, help="clips of the synthetic table")
    add = verbs.add("bench corpus", bench_corpus, "--sources 20000 200000 --out /scratch --measure --json")
    add("--sources", type=int, nargs="+", required=True, help="how many, one clip each")
    add("--out", required=True, help="a folder; each corpus lies in a folder of its size, and stays")
    add("--measure", action="store_true", help="run each verb over them in a process of its own")
    add("--only", default="", metavar="WORD", help="measure the verbs whose name holds it")
    add = verbs.add("bench shots", bench_shots, "--media toy/videos --truth toy/truth.jsonl --json")
    add("--media", required=True, help="folder of videos")
    add("--truth", required=True, help="truth.jsonl of a toy world, or a cuts.json")
    add = verbs.add("bench analyze", bench_analyze, "--media videos/ --json")
    add("--media", required=True, nargs="+", help="folders of videos")
    add("--no-peer", action="store_true", help="leave PySceneDetect out")
    add = verbs.add("bench images", bench_images, "--count 4000 --json")
    add("--count", type=int, default=4000, help="images, which are made for it")
    add("--size", type=int, nargs=2, default=[96, 72], metavar=("WIDTH", "HEIGHT"), help="pixels")
    add("--seed", type=int, default=0)
    add = verbs.add("bench long", bench_long, "--media film.mp4 --hours 2 --json")
    add("--media", required=True, help="a video to loop")
    add("--hours", type=float, default=2.0)
    add("--parts", type=int, default=4, help="how many are decoded at once")
    add = verbs.add("bench fuzz", bench_fuzz, "--media videos/ --count 1000 --seed 0 --json")
    add("--media", required=True, help="folder of small media files to mutate")
    add("--count", type=int, default=1000)
    add("--seed", type=int, default=0)
    add = verbs.add("bench kill", bench_kill, "--runs 20 --seed 0 --json")
    add("--media", help="folder of media (default: a toy world made for it)")
    add("--runs", type=int, default=20)
    add("--signal", choices=["KILL", "TERM"], default="KILL", help="TERM: as a spot notice, exit code 143")
    add("--seed", type=int, default=0)
    add = verbs.add("bench exits", bench_exits, "--runs 500 --busy 2 --json")
    add("--runs", type=int, default=500)
    add("--busy", type=int, default=0, help="how many busy loops run beside them")

    add = verbs.add("bench engine", bench_engine, "--json")
    add("--tasks", type=int, default=40, help="tasks of half a second, a worker")
    add("--empty", type=int, default=2000, help="tasks that do nothing")
    add("--executor", choices=["local", "ray"], help="(default: both)")

    add = verbs.add("bench nodes", bench_nodes, "--nodes 4 --json")
    add("--nodes", type=int, default=4, help="of one CPU each")

    add = verbs.add("bench plan", bench_plan, "--media videos/ --seeds 10 --json")
    add("--media", required=True, nargs="+", help="folders of videos and images, 40 clips or more")
    add("--seeds", type=int, default=10)
    add("--seconds", type=float, help="as for plan")

    add = verbs.add("bench peers", bench_peers, "--media clips/ montages/ --cuts cuts.json --json")
    add("--media", required=True, nargs="+", help="folders of videos; the images are made of them")
    add("--cuts", help="a cuts.json or truth.jsonl: the true shots of some of them")
    add("--duplicates", help="a duplicates.json: which of them are copies")
    add("--cache", help="where environments are made (default: ~/.cache/framemill/peers)")
    add("--only", default="", metavar="WORD", help="the peers whose name holds it")

    add = verbs.add("bench zoo", bench_zoo, "--only tars/ --json")
    add("--only", default="", metavar="WORD", help="the cases whose name (axis/case) holds it")
    add("--seed", type=int, default=0)
    add("--keep", metavar="DIR", help="make the files there, to be looked at")


def bench_shots(args: Args) -> int:
    """Shot boundaries against exact truth, beside PySceneDetect's detectors."""
    from pipeline.bench.shots import bench_shots as bench

    show(args, bench(args.media, args.truth))
    return 0


def bench_dedup(args: Args) -> int:
    """Copies found against exact truth: precision and recall over pairs of clips."""
    from pipeline.bench.dedup import bench_dedup as bench

    show(args, bench(args.media, args.truth, mirrored=not args.no_mirrored))
    return 0


def bench_judge(args: Args) -> int:
    """Seconds and memory of judging and deduplicating a synthetic table of clips."""
    from pipeline.bench.judge import bench_judge as bench

    show(args, bench(args.rows))
    return 0


def bench_corpus(args: Args) -> int:
    """Synthetic corpora as a run leaves them, and what each verb costs on them: CPU seconds and memory."""
    from pathlib import Path

    from pipeline.bench.scale import bench_corpus as bench
    from pipeline.bench.scale import lines
    from pipeline.progress import progress_bar

    with progress_bar("corpus", "corpora", machine=args.json) as report:
        result = bench(args.sources, Path(args.out), measure=args.measure, only=args.only, progress=report)
    show(args, result, lines(result))
    return 0


def bench_analyze(args: Args) -> int:
    """CPU of the whole analysis over bare decoding, and against PySceneDetect with separate passes."""
    from pipeline.bench.analyze import bench_analyze as bench
    from pipeline.bench.analyze import lines

    result = bench(args.media, peer=not args.no_peer)
    show(args, result, lines(result))
    return 0


def bench_images(args: Args) -> int:
    """CPU of the analysis of many small images over bare decoding, an image."""
    from pipeline.bench.images import bench_images as bench
    from pipeline.bench.images import lines
    from pipeline.progress import progress_bar

    width_px, height_px = args.size
    with progress_bar("images", "steps", machine=args.json) as report:
        result = bench(args.count, width_px, height_px, seed=args.seed, progress=report)
    show(args, result, lines(result))
    return 0


def bench_long(args: Args) -> int:
    """A looped source of hours: memory of each worker, and its parts against one pass."""
    from pipeline.bench.long import bench_long as bench

    show(args, bench(args.media, hours=args.hours, pieces=args.parts))
    return 0


def bench_fuzz(args: Args) -> int:
    """Mutated real files: no crash of the run, no hang beyond the deadline, memory within limits."""
    from pipeline.bench.fuzz import bench_fuzz as bench
    from pipeline.progress import progress_bar

    with progress_bar("fuzz", "files", machine=args.json) as report:
        result = bench(args.media, args.count, args.seed, progress=report)
    show(args, result)
    return 0 if result["details"]["within_limits"] else 1


def bench_kill(args: Args) -> int:
    """Runs killed at random times and restarted: the same corpus, byte for byte, as an undisturbed run."""
    from signal import Signals

    from pipeline.endurance.kill import bench_kill as bench
    from pipeline.progress import progress_bar

    with progress_bar("kill", "runs", machine=args.json) as report:
        sent = Signals[f"SIG{args.signal}"]
        result = bench(args.media, args.runs, args.seed, sent=sent, progress=report)
    show(args, result)
    return 0 if result["ratio"] == 1.0 else 1


def bench_exits(args: Args) -> int:
    """Short commands in loops: each must end with exit code 0 and as quietly as it ran."""
    from pipeline.bench.exits import bench_exits as bench
    from pipeline.progress import progress_bar

    with progress_bar("exits", "commands", machine=args.json) as report:
        result = bench(args.runs, args.busy, progress=report)
    show(args, result)
    return 0 if result["ratio"] == 1.0 else 1


def bench_engine(args: Args) -> int:
    """Executors: how busy 1, 2 and 4 workers are kept, empty tasks a second, the driver's CPU a task."""
    from pipeline.endurance.engine import bench_engine as bench
    from pipeline.progress import progress_bar

    names = [args.executor] if args.executor else ["local", "ray"]
    with progress_bar("engine", "runs", machine=args.json) as report:
        result = bench(args.tasks, args.empty, names, report)
    show(args, result)
    return 0


def bench_nodes(args: Args) -> int:
    """A Ray cluster that grows from nothing, gains a node and loses some: the same bytes, and the cost."""
    from pipeline.endurance.nodes import bench_nodes as bench
    from pipeline.progress import progress_bar

    with progress_bar("nodes", "steps", machine=args.json) as report:
        result = bench(args.nodes, progress=report)
    show(args, result)
    return 0 if all(result["details"]["within"].values()) else 1


def bench_plan(args: Args) -> int:
    """What plans of different samples say, against the run: how many of their ranges hold the truth."""
    from pipeline.forecast.comparison import bench_plan as bench
    from pipeline.forecast.comparison import lines
    from pipeline.progress import progress_bar

    with progress_bar("plan", "steps", machine=args.json) as report:
        result = bench(args.media, args.seeds, args.seconds, report)
    show(args, result, lines(result))
    return 0 if result["ratio"] >= 0.9 else 1


def bench_peers(args: Args) -> int:
    """Other pipelines on the same files, each in an environment of its own: cost and quality."""
    from pathlib import Path

    from pipeline.bench.peers import bench_peers as bench
    from pipeline.bench.peers import lines
    from pipeline.progress import progress_bar

    cache = Path(args.cache or "~/.cache/framemill/peers").expanduser()
    with progress_bar("peers", "steps", machine=args.json) as report:
        result = bench(args.media, args.cuts, args.duplicates, cache, args.only, report)
    show(args, result, lines(result))
    return 0


def bench_zoo(args: Args) -> int:
    """Made media, lists and tars of every kind: what comes out against what went in."""
    from pipeline.bench.zoo import bench_zoo as bench
    from pipeline.bench.zoo import lines
    from pipeline.progress import progress_bar

    with progress_bar("zoo", "tasks", machine=args.json) as progress:
        result = bench(args.only, args.seed, args.keep, progress)
    show(args, result, lines(result))
    return 0 if result["ratio"] == 1.0 else 1
