"""The verbs of the latent side: their arguments, and what each runs."""

from pipeline.command import Args, Verbs, show


def add_verbs(verbs: Verbs) -> None:
    """Adds the verbs of this package."""
    add = verbs.add("verify", verify, "corpus")
    add("corpus")
    add("--latents", default="default", help="name of the latent set")
    compared = "how many latents to compare with their source; 0: decode none at all"
    add("--decode-back", type=int, default=4, help=compared)
    add = verbs.add("vae train", vae_train, "--media toy/videos my-clips --out my-vae", settings=True)
    add("--media", required=True, nargs="+", help="folders of videos and images")
    add("--out", required=True)
    add = verbs.add("vae eval", vae_eval, "--media my-clips --json")
    add("--media", required=True)
    add("--vae", default="builtin:")


def verify(args: Args) -> int:
    """Check every shard: hashes, counts, finite values, latents against filmstrips, some against sources."""
    from pipeline.corpus.corpus import Corpus
    from tokenizer_stage.verify import verify as check

    found = check(Corpus(args.corpus).require(), args.latents, decode_back=args.decode_back)
    show(args, found)
    return 0 if not found["errors"] else 1


def vae_train(args: Args) -> int:
    """Train the built-in causal video VAE, from its closed-form start."""
    from pipeline.progress import progress_bar
    from pipeline.settings import load
    from tokenizer_stage.vae.train import TrainVaeConfig, train_vae

    with progress_bar("vae", "steps", machine=args.json) as report:
        config = load(TrainVaeConfig(), args.config, args.set)
        show(args, train_vae(args.media, args.out, config, progress=report))
    return 0


def vae_eval(args: Args) -> int:
    """Reconstruction PSNR of a VAE on a folder of media, beside its closed-form start."""
    from pipeline.progress import progress_bar
    from tokenizer_stage.vae.evaluate import evaluate

    with progress_bar("vae eval", "files", machine=args.json) as report:
        show(args, evaluate(args.vae, args.media, progress=report))
    return 0
