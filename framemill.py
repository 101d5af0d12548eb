"""framemill: raw video and images in; a captioned corpus of latents and a text-to-video model out.

The command line: the verbs that compose all packages, and `main`; every other verb stands in its package's
verbs.py. Results go to stdout, logs and progress to stderr. Exit 0: done; 1: finished with failures above the
limit, or could not finish; 2: wrong use; 130, 143, 129: stopped by Ctrl-C, SIGTERM, SIGHUP; 141: nobody
reads the output.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import captioner.audit.verbs
import captioner.training.verbs
import pipeline
import pipeline.bench.verbs
import pipeline.forecast.verbs
import pipeline.stages.verbs
import tokenizer_stage.verbs
import training.run.verbs
from pipeline.command import Args, Verbs, show
from pipeline.command import run as run_verb
from pipeline.config import Config, load_config
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.failures import FailureLimit
from pipeline.ending import leave, occupy_closed_streams
from pipeline.engine.beside import Beside, beside
from pipeline.engine.resources import let_waiting_threads_sleep
from pipeline.engine.runner import Executor, LocalExecutor, RunSummary, StageStopped
from pipeline.progress import Progress
from pipeline.stages.outcome import AHEAD, conclude, keep_driven, nothing_done, say_lost

FLAGS = {  # flags that stand for config keys
    "captioner": "caption.captioner",
    "vae": "encode.vae",
    "encoder": "text.encoder",
    "captions": "text.captions",
    "preset": "judge.preset",
    "decontaminate": "judge.decontaminate",
}


def add_verbs(verbs: Verbs) -> None:
    """Adds the verbs that run stages of several packages over a corpus."""
    _add_staged(verbs, "analyze", analyze, "videos/ --out corpus")
    add = _add_staged(verbs, "judge", judge, "corpus --preset strict --what-if signals.motion.min=0.2")
    add("--decontaminate", metavar="EVAL", help="reject what shows footage of these media, or of this corpus")
    add("--preset", help="strict | standard | keep-all, or a TOML file of rules")
    add(
        "--what-if",
        action="append",
        default=[],
        metavar="RULE=VALUE",
        help="only print the funnel that this rule would give, such as signals.motion.min=0.2",
    )
    add = _add_staged(verbs, "caption", caption, "corpus --captioner builtin:")
    add("--captioner", help="builtin: | truth:FILE | coca:MODEL/TAG | hf:REPO | openai:URL#MODEL")
    add = _add_staged(verbs, "encode", encode, "corpus --vae builtin:")
    add("--vae", help="builtin: | diffusers:REPO")
    add = _add_staged(verbs, "text", text, "corpus --encoder builtin:")
    add("--encoder", help="builtin: | hf:REPO | hf:REPO#SUBFOLDER")
    add("--captions", metavar="NAME", help="a caption set (default: that of caption.captioner)")
    add = _add_staged(verbs, "run", run, "videos/ --out corpus --executor ray")
    add("--captioner", help="as for caption")
    add("--vae", help="as for encode")
    add("--stream", action="store_true", help="caption clips that pass the rules while others are analyzed")


def _add_staged(verbs: Verbs, name: str, function: Callable[[Args], int], example: str) -> Callable[..., Any]:
    """A verb that runs stages over a corpus; its add_argument."""
    add = verbs.add(name, function, example, settings=True, resumes=True)
    if name in ("analyze", "run"):
        add("src", nargs="+", help="media, folders, globs, lists, manifests, tars, s3://")
        add("--out", dest="corpus", required=True, help="the corpus folder (or s3:// prefix)")
        add("--keep-absent", action="store_true", help="keep sources of the last run that SRC does not name")
    else:
        add("corpus", help="the corpus folder")
    add("--executor", choices=["local", "ray"], default="local")
    add(
        "--workers",
        type=int,
        help="processes (default: the cores; on Ray as many as fit). 1: all in this one",
    )
    add(
        "--max-failed",
        type=FailureLimit.parse,
        default="5%",
        metavar="LIMIT",
        help="exit with 1 when more items of a table failed: 5%% or 0.05 of them, or 10 of them",
    )
    add("--retry-failed", action="store_true", help="try items that failed in earlier runs again")
    return add


# -- the stages -----------------------------------------------------------------------------------


def analyze(args: Args) -> int:
    """Decode every source once: shots, signals, prints, filmstrips."""
    return _run_stages(args, [_analyze])


def judge(args: Args) -> int:
    """Decide from the tables which clips are kept, and why not; decodes nothing."""
    if not args.what_if:
        return _run_stages(args, [_judge])
    from pipeline.stages.judge import what_if, what_if_lines

    corpus = Corpus(args.corpus).require()
    config, vectors = _config(args, corpus.config()), None
    if config.judge.embedder:
        from captioner.embed import load_embedder

        vectors = corpus.embeddings(load_embedder(config.judge.embedder).dir_name)
    funnel = what_if(corpus, config, args.what_if, vectors)
    show(args, funnel, what_if_lines(funnel))
    return 0


def caption(args: Args) -> int:
    """Write a short and a detailed caption for every kept clip."""
    return _run_stages(args, [_caption])


def encode(args: Args) -> int:
    """Encode the kept clips into WebDataset shards of native-aspect latents."""
    return _run_stages(args, [_encode])


def text(args: Args) -> int:
    """Store the features that a text encoder gives of the captions, beside the latents."""
    return _run_stages(args, [_text])


def run(args: Args) -> int:
    """The whole data side: analyze, judge, caption, encode, report."""
    first = _analyze_and_caption if args.stream else _analyze
    return _run_stages(args, [first, _judge, _caption_beside_latents, _encode, _report])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the stages of one command share. `progress(title)` gives a stage's report; `remarks` is what they
    add to the result beside their counts."""

    args: Args
    corpus: Corpus
    config: Config
    executor: Executor
    progress: Callable[[str], Progress]
    remarks: dict[str, Any] = field(default_factory=dict)


StageRun = Callable[[_Run], list[RunSummary]]


def _analyze(run: _Run, beside: Beside = nullcontext) -> list[RunSummary]:
    from pipeline.stages.analyze import analyze_corpus
    from pipeline.stages.intake import take_in

    inputs, remarks = take_in(run.corpus, run.args.src, keep_absent=run.args.keep_absent)
    run.remarks.update(remarks)
    of_run = run.corpus, inputs, run.config, run.executor, run.progress("analyze")
    return [analyze_corpus(*of_run, retry_failed=run.args.retry_failed, beside=beside)]


def _analyze_and_caption(run: _Run) -> list[RunSummary]:
    """Clips that pass the rules are captioned while others are analyzed."""
    from captioner.ahead import Ahead, TakenOver

    run.remarks[AHEAD] = asdict(TakenOver())
    if isinstance(run.executor, LocalExecutor):
        print("--stream: one worker alone analyzes first, and captions what is kept", file=sys.stderr)
        return _analyze(run)
    ahead = Ahead(run.corpus, run.config, run.executor, run.progress("ahead"))
    analyzed = _analyze(run, ahead.beside)
    return [*ahead.summaries, *analyzed]


def _judge(run: _Run) -> list[RunSummary]:
    from pipeline.stages.judge import judge_corpus

    summaries, vectors, report = [], None, run.progress("judge")
    if run.config.judge.embedder:
        from captioner.embed import embed_corpus

        retry, embedding = run.args.retry_failed, run.progress("embed")
        embedded, vectors = embed_corpus(run.corpus, run.config, run.executor, embedding, retry_failed=retry)
        if embedded.lost:  # judged over fewer vectors, clips would leave the set for a fault of the storage
            why = f"embed lost {len(embedded.lost)} of its {embedded.tasks} tasks, and judge was not begun"
            raise StageStopped(why, fix="run the same command again to go on", summary=embedded)
        summaries.append(embedded)
    return [*summaries, judge_corpus(run.corpus, run.config, run.executor, report, vectors)]


def _caption(run: _Run) -> list[RunSummary]:
    from captioner.recaption import recaption_corpus

    _take_over(run)
    retry, report = run.args.retry_failed, run.progress("caption")
    return [recaption_corpus(run.corpus, run.config, run.executor, report, retry_failed=retry)]


def _caption_beside_latents(run: _Run) -> list[RunSummary]:
    """Captions and latents both need the verdicts and nothing of each other, so both are made at once, each
    on its own resources, where the executor has workers for two."""
    from captioner.recaption import recaption_corpus
    from tokenizer_stage.encode import latents_ahead

    if isinstance(run.executor, LocalExecutor):
        return _caption(run)
    _take_over(run)
    retry, latents = run.args.retry_failed, list[RunSummary]()

    def made_beside() -> AbstractContextManager[None]:
        report = run.progress("latents")
        work = latents_ahead(run.corpus, run.config, run.executor, report, retry_failed=retry)
        return beside(run.executor, work, latents)

    of_run = run.corpus, run.config, run.executor, run.progress("caption")
    captioned = recaption_corpus(*of_run, retry_failed=retry, beside=made_beside)
    return [*latents, captioned]


def _take_over(run: _Run) -> None:
    """What was captioned ahead, by this run or one that was killed, is kept or dropped."""
    from captioner.ahead import take_over

    taken = take_over(run.corpus, run.config)
    if taken.captioned:
        run.remarks[AHEAD] = asdict(taken)


def _encode(run: _Run) -> list[RunSummary]:
    from tokenizer_stage.encode import encode_corpus

    retry, report = run.args.retry_failed, run.progress("encode")
    return [encode_corpus(run.corpus, run.config, run.executor, report, retry_failed=retry)]


def _text(run: _Run) -> list[RunSummary]:
    from tokenizer_stage.text.stage import encode_texts

    retry, report = run.args.retry_failed, run.progress("text")
    return [encode_texts(run.corpus, run.config, run.executor, report, retry_failed=retry)]


def _report(run: _Run) -> list[RunSummary]:
    from captioner.audit.report import write_report

    started = time.monotonic()
    write_report(run.corpus, None)
    seconds = time.monotonic() - started
    return [RunSummary(stage="report", tasks=1, lost=(), counts={}, seconds=seconds)]


def _run_stages(args: Args, stages: Sequence[StageRun]) -> int:
    """Runs the stages in order over one corpus, prints what each did, and judges the failures."""
    from pipeline.progress import progress_table

    corpus = Corpus(args.corpus)
    config = _config(args, None if "src" in args else corpus.require().config())
    with corpus.writing(args.verb, args.run_id), progress_table(machine=args.json) as progress:
        shared = _Run(args=args, corpus=corpus, config=config, executor=_executor(args), progress=progress)
        summaries: list[RunSummary] = []
        stop = ""
        try:
            for stage in stages:
                summaries += stage(shared)
                keep_driven(corpus, summaries)
                if stop := nothing_done(summaries[-1]):
                    break
        except StageStopped as stopped:
            summaries.append(stopped.summary)
            stop = str(stopped)
        finally:
            say_lost(summaries)
    if stop:
        print(f"framemill: {stop}", file=sys.stderr)
    return max(conclude(args, corpus, summaries, shared.remarks), 1 if stop else 0)


def _config(args: Args, base: Config | None) -> Config:
    given = {key: vars(args).get(flag) for flag, key in FLAGS.items()}  # a verb has some of these flags
    return load_config(args.config, args.set, base, given)


def _executor(args: Args) -> Executor:
    if args.executor == "ray":
        from pipeline.engine.ray_executor import RayExecutor

        return RayExecutor(workers=args.workers)
    if args.workers == 1:
        return LocalExecutor()
    from pipeline.engine.pool import PoolExecutor

    return PoolExecutor(args.workers)


def model_stages() -> Mapping[str, Callable[..., RunSummary]]:
    """The stages that need models, by their name, in order."""
    from captioner.recaption import recaption_corpus
    from tokenizer_stage.encode import encode_corpus

    return {"caption": recaption_corpus, "encode": encode_corpus}


def all_verbs() -> Verbs:
    """Every verb of the command line."""
    verbs = Verbs((__doc__ or "").split("\n")[0], pipeline.__version__)
    pipeline.forecast.verbs.add_verbs(verbs, model_stages)
    for add in (
        pipeline.stages.verbs.add_verbs,
        add_verbs,
        captioner.audit.verbs.add_verbs,
        captioner.training.verbs.add_verbs,
        tokenizer_stage.verbs.add_verbs,
        training.run.verbs.add_verbs,
        pipeline.bench.verbs.add_verbs,
    ):
        add(verbs)
    return verbs


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb that the words name; the exit code. Without words it is the program: it runs those of the
    command line, and ends the process."""
    if argv is None:
        occupy_closed_streams()
        try:
            code = main(sys.argv[1:])
        except SystemExit as ended:  # --help, or words that do not parse
            code = int(ended.code or 0)
        except KeyboardInterrupt:  # before there was a verb
            code = 128 + signal.SIGINT
        leave(code)
    let_waiting_threads_sleep(os.environ)  # before a verb imports torch
    words = list(argv)
    if words[:2] == ["train", "eval"]:
        words[:2] = ["train-eval"]
    return run_verb(all_verbs(), words)


if __name__ == "__main__":
    sys.exit(main())
