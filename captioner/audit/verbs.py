"""The verb `framemill report`: its arguments, and what it runs."""

from pipeline.command import Args, Verbs, show


def add_verbs(verbs: Verbs) -> None:
    """Adds the verb of this package."""
    add = verbs.add("report", report, "corpus --run runs/first", resumes=True)
    add("corpus")
    add("--run", help="a training run to show")


def report(args: Args) -> int:
    """Write the self-contained HTML report of a corpus, and of a training run when one is named."""
    from captioner.audit.report import write_report
    from pipeline.corpus.corpus import Corpus

    corpus = Corpus(args.corpus).require()
    with corpus.writing(args.verb):
        write_report(corpus, args.run)
    show(args, {"report": f"{args.corpus}/report/index.html"})
    return 0
