"""The verbs `framemill captioner …`: their arguments, and what each runs."""

from pipeline.command import Args, Verbs, show


def add_verbs(verbs: Verbs) -> None:
    """Adds the verbs of this package."""
    add = verbs.add("captioner train", captioner_train, "--toyworld toy --out my-captioner", settings=True)
    add(
        "--toyworld",
        required=True,
        help="folder made by framemill toyworld, or endless: to draw shots in memory",
    )
    add("--out", required=True)
    add = verbs.add("captioner eval", captioner_eval, "--toyworld toy-heldout --json")
    add("--toyworld", required=True)
    add("--captioner", default="builtin:")


def captioner_train(args: Args) -> int:
    """Train the built-in video captioner on the toy world."""
    from captioner.training.train import TrainConfig
    from captioner.training.train import train as train_captioner
    from pipeline.progress import progress_bar
    from pipeline.settings import load

    with progress_bar("captioner", "steps", machine=args.json) as report:
        config = load(TrainConfig(), args.config, args.set)
        show(args, train_captioner(args.toyworld, args.out, config, progress=report))
    return 0


def captioner_eval(args: Args) -> int:
    """Fact precision, recall and hallucination of a captioner on a toy world it has not seen."""
    from captioner.training.evaluate import evaluate
    from pipeline.progress import progress_bar

    with progress_bar("captioner eval", "clips", machine=args.json) as report:
        show(args, evaluate(args.captioner, args.toyworld, progress=report))
    return 0
