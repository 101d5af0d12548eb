"""framemill: raw video and images in; a captioned corpus of latents and a text-to-video model out.

The command line: one function a verb, heavy imports inside. Results go to stdout, logs and progress
to stderr. Exit 0: done; 1: finished with failures above the limit, or could not finish; 2: wrong use.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from pipeline.command import parser
from pipeline.config import Config, load_config
from pipeline.engine.runner import Executor, RunSummary
from pipeline.errors import ConfigError, FramemillError, UsageError

Args = argparse.Namespace


# -- the data side --------------------------------------------------------------------------------


def toyworld(args: Args) -> int:
    """Render a toy world: real H.264 videos and images with exact truth (cuts, facts, captions)."""
    from pathlib import Path

    from pipeline.progress import progress_bar
    from pipeline.settings import load
    from pipeline.toyworld.world import ToyWorldConfig, render_corpus

    chosen = [f"videos={args.videos}", f"images={args.images}", f"seed={args.seed}"]
    config = load(ToyWorldConfig(), args.config, [*chosen, *args.set])
    with progress_bar("toyworld", "files", machine=args.json) as report:
        render_corpus(
            Path(args.out), config, progress=lambda done, total: report(done, total, {}), workers=args.workers
        )
    _print(
        args,
        {"out": args.out, "videos": args.videos, "images": args.images, "truth": f"{args.out}/truth.jsonl"},
    )
    return 0


def analyze(args: Args) -> int:
    """Decode every source once: shots, signals, fingerprints, filmstrips."""
    return _stages(args, ["analyze"])


def plan(args: Args) -> int:
    """Say from a sample of the sources what a run would take; writes nothing."""
    from pipeline.progress import progress_bar
    from pipeline.sources.discover import discover
    from pipeline.stages.forecast import plan_lines, plan_run

    found = discover(args.src)
    with progress_bar("plan", machine=args.json) as report:
        expected = plan_run(found.inputs, _config(args, None), budget_s=args.seconds, progress=report)
    _print(args, expected, plan_lines(expected))
    return 0


def judge(args: Args) -> int:
    """Decide from the tables which clips are kept, and why not; decodes nothing."""
    if not args.what_if:
        return _stages(args, ["judge"])
    from pipeline.corpus.corpus import Corpus
    from pipeline.stages.judge import what_if, what_if_lines

    corpus = Corpus(args.corpus).require()
    config, vectors = _config(args, corpus.config()), None
    if config.judge.embedder:
        from captioner.embed import load_embedder

        vectors = corpus.embeddings(load_embedder(config.judge.embedder).dir_name)
    found = what_if(corpus, config, args.what_if, vectors)
    _print(args, found, what_if_lines(found))
    return 0


def caption(args: Args) -> int:
    """Write a short and a detailed caption for every kept clip."""
    return _stages(args, ["caption"])


def encode(args: Args) -> int:
    """Encode the kept clips into WebDataset shards of native-aspect latents."""
    return _stages(args, ["encode"])


def run(args: Args) -> int:
    """The whole data side: analyze, judge, caption, encode, report."""
    return _stages(args, ["analyze", "judge", "caption", "encode", "report"])


def _stages(args: Args, wanted: Sequence[str]) -> int:
    """Runs the stages in order over one corpus, prints what each did, and judges the failures."""
    from pipeline.corpus.corpus import Corpus
    from pipeline.progress import progress_table
    from pipeline.sources.discover import discover
    from pipeline.stages.analyze import analyze_corpus
    from pipeline.stages.judge import judge_corpus

    corpus = Corpus(args.corpus)
    fresh = "analyze" in wanted
    config = _config(args, None if fresh else corpus.require().config())
    executor = _executor(args)
    summaries: list[RunSummary] = []
    with corpus.writing(), progress_table(machine=args.json) as progress:
        for stage in wanted:
            report = progress(stage)
            if stage == "analyze":
                found = discover(args.src)
                _say_left_out(found.ignored, found.notes)
                summaries.append(
                    analyze_corpus(
                        corpus, found.inputs, config, executor, report, retry_failed=args.retry_failed
                    )
                )
            elif stage == "judge":
                vectors = None
                if config.judge.embedder:
                    from captioner.embed import embed_corpus

                    embedded, vectors = embed_corpus(corpus, config, executor, progress("embed"))
                    summaries.append(embedded)
                summaries.append(judge_corpus(corpus, config, executor, report, vectors))
            elif stage == "caption":
                from captioner.recaption import recaption_corpus

                summaries.append(
                    recaption_corpus(corpus, config, executor, report, retry_failed=args.retry_failed)
                )
            elif stage == "encode":
                from tokenizer_stage.encode import encode_corpus

                summaries.append(
                    encode_corpus(corpus, config, executor, report, retry_failed=args.retry_failed)
                )
            elif stage == "report":
                summaries.append(_report(corpus, None))
    return _finish(args, corpus, summaries)


def _finish(args: Args, corpus: Any, summaries: Sequence[RunSummary]) -> int:
    from pipeline.corpus.status import failures_above, stage_lines, status

    counts = status(corpus)
    stages = [
        {"stage": s.stage, "tasks": s.tasks, "lost": len(s.lost), "seconds": round(s.seconds, 2), **s.counts}
        for s in summaries
    ]
    _print(args, {"corpus": args.corpus, "stages": stages, "status": counts}, stage_lines(stages, counts))
    lost = [f"{s.stage} {r.key}: {r.error}" for s in summaries for r in s.lost]
    for line in lost:
        print(f"lost task: {line}", file=sys.stderr)
    over = failures_above(args.max_failed, counts, [summary.stage for summary in summaries])
    for line in over:
        print(f"{line}, above --max-failed {args.max_failed}", file=sys.stderr)
    return 1 if lost or over else 0


def status(args: Args) -> int:
    """Count sources, clips, captions and shards by status and reason."""
    from pipeline.corpus.corpus import Corpus
    from pipeline.corpus.status import status as count
    from pipeline.corpus.status import status_lines

    counts = count(Corpus(args.corpus).require())
    _print(args, counts, status_lines(counts))
    return 0


def takedown(args: Args) -> int:
    """Erase sources from every table and shard, and keep them from coming back."""
    from pipeline.corpus.corpus import Corpus
    from pipeline.corpus.takedown import as_dict, as_lines, take_down

    corpus = Corpus(args.corpus).require()
    with corpus.writing():
        found = take_down(corpus, args.source, reason=args.reason, dry_run=args.dry_run)
    _print(args, as_dict(found) | {"dry_run": args.dry_run}, as_lines(found, dry_run=args.dry_run))
    return 0


def verify(args: Args) -> int:
    """Check every shard: hashes, counts, finite values, and decode some latents back."""
    from pipeline.corpus.corpus import Corpus
    from tokenizer_stage.verify import verify as check

    found = check(Corpus(args.corpus).require(), args.latents, decode_back=args.decode_back)
    _print(args, found)
    return 0 if not found["errors"] else 1


def report(args: Args) -> int:
    """Write the self-contained HTML report of a corpus, and of a training run when one is named."""
    from pipeline.corpus.corpus import Corpus

    corpus = Corpus(args.corpus).require()
    with corpus.writing():
        _report(corpus, args.run)
    _print(args, {"report": f"{args.corpus}/report/index.html"})
    return 0


def _report(corpus: Any, run_dir: str | None) -> RunSummary:
    from captioner.audit.report import write_report

    started = time.monotonic()
    write_report(corpus, run_dir)
    return RunSummary(stage="report", tasks=1, lost=(), counts={}, seconds=time.monotonic() - started)


# -- the model side -------------------------------------------------------------------------------


def train(args: Args) -> int:
    """Train the text-conditional diffusion transformer on a corpus's latent shards, or resume a run."""
    from pipeline.corpus.corpus import Corpus
    from pipeline.progress import progress_bar
    from pipeline.settings import load
    from training.config import TrainConfig
    from training.train import train as train_model

    chosen = {"steps": args.steps, "init": args.init}
    overrides = [f"{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]
    config = load(TrainConfig(), args.config, [*overrides, *args.set])
    with progress_bar("train", "steps", machine=args.json) as report:
        corpus = Corpus(args.corpus).require()
        summary = train_model(
            corpus, args.out, config, latents=args.latents, captions=args.captions, progress=report
        )
    _print(args, summary)
    return 0


def train_eval(args: Args) -> int:
    """Held-out loss of a run, and how many prompted facts its videos show."""
    from pipeline.progress import progress_bar
    from training.evaluate import evaluate

    with progress_bar("train eval", "prompts", machine=args.json) as report:
        _print(
            args,
            evaluate(args.run, prompts=args.prompts, steps=args.steps, sheet=args.sheet, progress=report),
        )
    return 0


def sample(args: Args) -> int:
    """Make a video (or, with --frames 1, an image) from a prompt."""
    from training.sample import SampleConfig, sample_to_file

    width, times, height = args.size.partition("x")
    if not (times and width.isdigit() and height.isdigit()):
        raise UsageError(f"--size {args.size}", expected="WIDTHxHEIGHT in pixels, such as 96x64")
    config = SampleConfig(
        prompt=args.prompt,
        width_px=int(width),
        height_px=int(height),
        frames=args.frames,
        fps=args.fps,
        steps=args.steps,
        cfg=args.cfg,
        seed=args.seed,
    )
    _print(args, sample_to_file(args.checkpoint, config, args.out))
    return 0


def captioner_train(args: Args) -> int:
    """Train the built-in video captioner on the toy world."""
    from captioner.train import TrainConfig
    from captioner.train import train as train_captioner
    from pipeline.progress import progress_bar
    from pipeline.settings import load

    with progress_bar("captioner", "steps", machine=args.json) as report:
        config = load(TrainConfig(), args.config, args.set)
        _print(args, train_captioner(args.toyworld, args.out, config, progress=report))
    return 0


def captioner_eval(args: Args) -> int:
    """Fact precision, recall and hallucination of a captioner on a toy world it has not seen."""
    from captioner.evaluate import evaluate
    from pipeline.progress import progress_bar

    with progress_bar("captioner eval", "clips", machine=args.json) as report:
        _print(args, evaluate(args.captioner, args.toyworld, progress=report))
    return 0


def vae_train(args: Args) -> int:
    """Train the built-in causal video VAE, from its closed-form start."""
    from pipeline.progress import progress_bar
    from pipeline.settings import load
    from tokenizer_stage.vae.train import TrainVaeConfig, train_vae

    with progress_bar("vae", "steps", machine=args.json) as report:
        config = load(TrainVaeConfig(), args.config, args.set)
        _print(args, train_vae(args.media, args.out, config, progress=report))
    return 0


def vae_eval(args: Args) -> int:
    """Reconstruction PSNR of a VAE on a folder of media, beside its closed-form start."""
    from pipeline.progress import progress_bar
    from tokenizer_stage.vae.evaluate import evaluate

    with progress_bar("vae eval", "files", machine=args.json) as report:
        _print(args, evaluate(args.vae, args.media, progress=report))
    return 0


def bench_shots(args: Args) -> int:
    """Shot boundaries against exact truth, beside PySceneDetect's detectors."""
    from pipeline.bench.shots import bench_shots as bench

    _print(args, bench(args.media, args.truth))
    return 0


def bench_dedup(args: Args) -> int:
    """Copies found against exact truth: precision and recall over pairs of clips."""
    from pipeline.bench.dedup import bench_dedup as bench

    _print(args, bench(args.media, args.truth, mirrored=not args.no_mirrored))
    return 0


def bench_judge(args: Args) -> int:
    """Seconds and memory of judging and deduplicating a synthetic table of clips."""
    from pipeline.bench.judge import bench_judge as bench

    _print(args, bench(args.rows))
    return 0


def bench_analyze(args: Args) -> int:
    """CPU of the whole analysis over bare decoding, and against PySceneDetect with separate passes."""
    from pipeline.bench.analyze import bench_analyze as bench
    from pipeline.bench.analyze import lines

    result = bench(args.media, peer=not args.no_peer)
    _print(args, result, lines(result))
    return 0


def bench_long(args: Args) -> int:
    """A looped source of hours: memory of each worker, and its parts against one pass."""
    from pipeline.bench.long import bench_long as bench

    _print(args, bench(args.media, hours=args.hours, parts=args.parts))
    return 0


def bench_fuzz(args: Args) -> int:
    """Mutated real files: no crash of the run, no hang beyond the deadline, memory within limits."""
    from pipeline.bench.fuzz import bench_fuzz as bench
    from pipeline.progress import progress_bar

    with progress_bar("fuzz", "files", machine=args.json) as report:
        result = bench(args.media, args.count, args.seed, progress=report)
    _print(args, result)
    return 0 if result["details"]["within_limits"] else 1


def bench_kill(args: Args) -> int:
    """Runs killed at random times and restarted: the same corpus, byte for byte, as an undisturbed run."""
    from pipeline.bench.kill import bench_kill as bench
    from pipeline.progress import progress_bar

    with progress_bar("kill", "runs", machine=args.json) as report:
        result = bench(args.media, args.runs, args.seed, progress=report)
    _print(args, result)
    return 0 if result["ratio"] == 1.0 else 1


# -- shared by the verbs --------------------------------------------------------------------------


def _config(args: Args, base: Config | None) -> Config:
    config = load_config(args.config, args.set, base)
    named = {"caption.captioner": getattr(args, "captioner", None), "encode.vae": getattr(args, "vae", None)}
    named |= {f"judge.{name}": getattr(args, name, None) for name in ("preset", "decontaminate")}
    return load_config(None, [f"{k}={json.dumps(v)}" for k, v in named.items() if v is not None], config)


def _executor(args: Args) -> Executor:
    if args.executor == "ray":
        from pipeline.engine.ray_executor import RayExecutor

        return RayExecutor(workers=args.workers)
    from pipeline.engine.runner import LocalExecutor

    return LocalExecutor()


def _print(args: Args, result: dict[str, Any], lines: Sequence[str] | None = None) -> None:
    """The result on stdout: one JSON object with --json, else the lines, else `key: value`."""
    if args.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print("\n".join(lines if lines is not None else [f"{k}: {v}" for k, v in result.items()]))


def _say_left_out(ignored: Sequence[str], notes: Sequence[str]) -> None:
    if ignored:
        shown = ", ".join(ignored[:3]) + (", …" if len(ignored) > 3 else "")
        print(f"{len(ignored)} files without a media extension left out: {shown}", file=sys.stderr)
    for note in notes[:20]:
        print(note, file=sys.stderr)
    if len(notes) > 20:
        print(f"… and {len(notes) - 20} more notes on the sources", file=sys.stderr)


VERBS = {
    "toyworld": toyworld,
    "analyze": analyze,
    "plan": plan,
    "judge": judge,
    "caption": caption,
    "encode": encode,
    "run": run,
    "status": status,
    "takedown": takedown,
    "verify": verify,
    "report": report,
    "bench dedup": bench_dedup,
    "bench judge": bench_judge,
    "bench shots": bench_shots,
    "bench analyze": bench_analyze,
    "bench long": bench_long,
    "bench fuzz": bench_fuzz,
    "bench kill": bench_kill,
    "train": train,
    "train-eval": train_eval,
    "sample": sample,
    "captioner train": captioner_train,
    "captioner eval": captioner_eval,
    "vae train": vae_train,
    "vae eval": vae_eval,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, runs the verb, and turns an error into one line and an exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] == ["train", "eval"]:
        words[:2] = ["train-eval"]
    args = parser(VERBS, (__doc__ or "").split("\n")[0]).parse_args(words)
    try:
        return int(args.function(args))
    except FramemillError as error:
        if args.debug:
            raise
        print(f"framemill: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError | ConfigError) else 1
    except KeyboardInterrupt:
        print("framemill: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
