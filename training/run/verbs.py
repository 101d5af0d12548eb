"""The verbs that train and sample: their arguments, and what each runs."""

from pipeline.command import Args, Verbs, show
from pipeline.errors import UsageError


def add_verbs(verbs: Verbs) -> None:
    """Adds the verbs of this package."""
    add = verbs.add(
        "train", train, "corpus --out runs/first --init builtin: --steps 500", settings=True, resumes=True
    )
    add("corpus", help="the corpus, or the folder of a latent set alone, local or s3://")
    add("--out", required=True, help="the run folder; naming an old one resumes it")
    add("--latents", default="default", help="name of the latent set")
    add("--captions", help="a caption set (default: the captions beside the latents)")
    add("--changed-set", action="store_true", help="go on although the samples are not those of the run")
    add("--init", help="start from builtin: or a run folder")
    add("--steps", type=int)
    add = verbs.add("train-eval", train_eval, "--run runs/first --json")
    add("--run", required=True, help="a run folder, or builtin:")
    add("--prompts", type=int, default=16)
    add("--steps", type=int, default=20, help="sampling steps")
    add("--sheet", metavar="PNG", help="draw the first prompts: samples above, their truth below")
    add = verbs.add("bench open", bench_open, "--samples 1000000 --out /scratch/set --json")
    add("--samples", type=int, default=1_000_000)
    add("--out", required=True, help="a folder or s3:// prefix; the synthetic set in it stays")
    add = verbs.add(
        "sample", sample, '--prompt "a red circle moves left" --size 96x64 --frames 17 --out red.mp4'
    )
    add("--prompt", required=True)
    add("--checkpoint", default="builtin:", help="builtin: or a run folder")
    add("--size", default="96x64", help="WIDTHxHEIGHT in pixels")
    add("--frames", type=int, default=17, help="1 + 4k; 1 makes an image")
    add("--fps", type=float, default=8.0)
    add("--steps", type=int, default=30)
    add("--cfg", type=float, default=4.0, help="classifier-free guidance scale")
    add("--seed", type=int, default=0)
    add("--out", default="sample.mp4", help="the .mp4 (or, for one frame, .png) to write")


def train(args: Args) -> int:
    """Train the text-conditional diffusion transformer on a corpus's latent shards, or resume a run."""
    from pipeline.corpus.corpus import Corpus
    from pipeline.corpus.latent_set import INDEX_NAME
    from pipeline.progress import progress_bar
    from pipeline.settings import load
    from training.config import TrainConfig
    from training.run.train import train as train_model

    config = load(TrainConfig(), args.config, args.set, {"steps": args.steps, "init": args.init})
    with progress_bar("train", "steps", machine=args.json) as report:
        corpus = Corpus(args.corpus)
        if not corpus.storage.exists(INDEX_NAME):
            corpus.require()
        summary = train_model(
            corpus,
            args.out,
            config,
            latents=args.latents,
            captions=args.captions,
            changed_set=args.changed_set,
            progress=report,
        )
    show(args, summary)
    return 0


def train_eval(args: Args) -> int:
    """Held-out loss of a run, and how many prompted facts its videos show."""
    from pipeline.progress import progress_bar
    from training.run.evaluate import evaluate

    with progress_bar("train eval", "prompts", machine=args.json) as report:
        show(
            args,
            evaluate(args.run, prompts=args.prompts, steps=args.steps, sheet=args.sheet, progress=report),
        )
    return 0


def bench_open(args: Args) -> int:
    """What it takes to open a latent set of so many samples, synthetic ones."""
    from pipeline.progress import progress_bar
    from training.run.opening import bench_open as bench

    with progress_bar("open", "steps", machine=args.json) as report:
        show(args, bench(args.samples, args.out, report))
    return 0


def sample(args: Args) -> int:
    """Make a video (or, with --frames 1, an image) from a prompt."""
    from training.run.sample import SampleConfig, sample_to_file

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
    show(args, sample_to_file(args.checkpoint, config, args.out))
    return 0
