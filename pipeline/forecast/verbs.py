"""The verb `framemill plan`: its arguments, and what it runs."""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.command import Args, Verbs, show


def add_verbs(verbs: Verbs, models: Callable[[], Mapping[str, Any]]) -> None:
    """Adds the verb. `models` gives the stages that need models, by their name: they stand below this
    package."""

    def plan(args: Args) -> int:
        """Say from a sample of the sources what a run would take, with ranges; writes nothing."""
        return _plan(args, models())

    add = verbs.add(
        "plan", plan, "videos/ --nodes 4 --node-cpus 16 --set prices.cpu_hour=0.04 --json", settings=True
    )
    add("src", nargs="+", help="as for analyze")
    add("--out", dest="corpus", help="a corpus: say which of its sources SRC does not name any more")
    add("--captioner", help="as for run: it is tried on a few clips")
    add("--vae", help="as for run: it is tried on a few clips")
    add("--seconds", type=float, help="how much footage to analyse (default: a fifth of it, at most 120)")
    add("--seed", type=int, default=0, help="of the sample")
    add("--nodes", type=int, default=1, help="how many nodes the run would have")
    add("--node-cpus", type=float, help="cores of a node (default: those of this machine)")
    add("--node-gpus", type=float, help="GPUs of a node (default: those of this machine)")


def _plan(args: Args, models: Mapping[str, Any]) -> int:
    from pipeline.config import load_config
    from pipeline.corpus.corpus import Corpus
    from pipeline.engine.resources import allowed_cpus, visible_gpus
    from pipeline.forecast.fleet import Fleet
    from pipeline.forecast.forecast import forecast
    from pipeline.forecast.lines import forecast_lines
    from pipeline.progress import progress_bar
    from pipeline.sources.absent import absent_inputs, absent_line, absent_remark
    from pipeline.sources.discover import discover

    given = {"caption.captioner": args.captioner, "encode.vae": args.vae}
    config = load_config(args.config, args.set, None, given)
    fleet = Fleet(
        nodes=args.nodes,
        node_cpus=args.node_cpus or allowed_cpus(),
        node_gpus=len(visible_gpus()) if args.node_gpus is None else args.node_gpus,
        prices=config.prices,
    )
    sources = discover(args.src)
    remarks: dict[str, Any] = {}
    lines: list[str] = []
    if args.corpus:
        corpus = Corpus(args.corpus).require()
        gone, before = corpus.taken_down_keys(), corpus.inputs()
        absent = absent_inputs(before, sources.inputs, gone, sources.closed)
        remarks["absent"] = absent_remark(absent, keep=False)
        lines = list(filter(None, [absent_line(absent, before.num_rows, keep=False)]))
    with progress_bar("plan", "steps", machine=args.json) as report:
        expected = forecast(
            sources.inputs,
            config,
            models,
            budget_s=args.seconds,
            seed=args.seed,
            fleet=fleet,
            progress=report,
        )
    show(args, {**expected, **remarks}, [*forecast_lines(expected), *lines])
    return 0
