"""The verbs of the latent side: their arguments, and what each runs."""

from pipeline.command import Args, Verbs, show


def add_verbs(verbs: Verbs) -> None:
    """Adds the verbs of this package."""
    add = verbs.add("verify", verify, "corpus")
    add("corpus")
    add("--latents", default="default", help="name of the latent set")
    quick = "only the index against the kept clips and the tars that are listed: no byte of a sample is read"
    add("--quick", action="store_true", help=f"{quick}, nothing is hashed or decoded")
    compared = "how many latents to compare with their source; 0: decode none at all"
    add("--decode-back", type=int, default=4, help=compared)
    add = verbs.add("bench growth", bench_growth, "--images 1000 --json")
    add("--images", type=int, default=1000)
    add = verbs.add("vae train", vae_train, "--media toy/videos my-clips --out my-vae", settings=True)
    add("--media", required=True, nargs="+", help="folders of videos and images")
    add("--out", required=True)
    add = verbs.add("vae eval", vae_eval, "--media my-clips --json")
    add("--media", required=True)
    add("--vae", default="builtin:")


def verify(args: Args) -> int:
    """Check every shard: hashes, counts, finite values, latents against filmstrips, some against sources."""
    from pipeline.corpus.corpus import Corpus

    corpus = Corpus(args.corpus).require()
    if args.quick:
        from tokenizer_stage.inventory import verify_quick

        report = verify_quick(corpus, args.latents)
    else:
        from tokenizer_stage.verify import verify as check

        report = check(corpus, args.latents, decode_back=args.decode_back)
    show(args, report)
    return 0 if not report["errors"] else 1


def bench_growth(args: Args) -> int:
    """Tars that are written again when images are added, taken down or changed."""
    from pipeline.progress import progress_bar
    from tokenizer_stage.growth import bench_growth as bench

    with progress_bar("growth", "changes", machine=args.json) as report:
        show(args, bench(args.images, report))
    return 0


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
