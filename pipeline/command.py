"""The words of the command line: every verb's arguments, help and example.

In: what each verb runs. Out: a parser whose result has `function`. Knows no verb's code and imports
nothing heavy: `--help` answers at once.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.corpus.failures import FailureLimit

Function = Callable[[argparse.Namespace], int]
Add = Callable[..., Any]  # a verb's add_argument
Verb = Callable[[str, str], Add]  # (name, example) → the add_argument of a new verb
PLAIN = ("status", "takedown", "verify", "report", "sample", "train-eval", "captioner eval", "vae eval")


def parser(functions: Mapping[str, Function], summary: str) -> argparse.ArgumentParser:
    """The parser of all verbs; a verb's help is the docstring of its function."""
    top = argparse.ArgumentParser(prog="framemill", description=summary)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    groups: dict[str, Any] = {}

    def verb(name: str, example: str) -> Add:
        group, _, word = name.rpartition(" ")
        if group and group not in groups:
            made = verbs.add_parser(group, help=f"{group}: see framemill {group} --help")
            groups[group] = made.add_subparsers(dest="subverb", metavar="VERB", required=True)
        into = groups[group] if group else verbs
        told = (functions[name].__doc__ or "").strip()
        added = into.add_parser(
            word, help=told, description=told, epilog=f"example: framemill {name} {example}"
        )
        added.set_defaults(function=functions[name])
        added.add_argument("--json", action="store_true", help="one JSON object on stdout")
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name not in PLAIN and group != "bench":
            added.add_argument("--config", help="a TOML file of config values")
            added.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="one config value"
            )
        return added.add_argument

    _data_verbs(verb)
    _model_verbs(verb)
    _bench_verbs(verb)
    return top


def _data_verbs(verb: Verb) -> None:
    add = verb("toyworld", "toy --videos 12 --images 4 --seed 1")
    add("out", help="folder to write")
    add("--videos", type=int, default=12)
    add("--images", type=int, default=4)
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=1, help="processes (the bytes do not depend on it)")

    def staged(name: str, example: str) -> Add:
        add = verb(name, example)
        if name in ("analyze", "run"):
            add("src", nargs="+", help="media, folders, globs, lists, manifests, tars, s3://")
            add("--out", dest="corpus", required=True, help="the corpus folder (or s3:// prefix)")
        else:
            add("corpus", help="the corpus folder")
        add("--executor", choices=["local", "ray"], default="local")
        add("--workers", type=int, help="Ray workers (default: as many as fit)")
        add(
            "--max-failed",
            type=FailureLimit.parse,
            default="5%",
            metavar="LIMIT",
            help="exit with 1 when more items of a table failed: 5%% or 0.05 of them, or 10 of them",
        )
        if name != "judge":
            add("--retry-failed", action="store_true", help="try items that failed in earlier runs again")
        return add

    staged("analyze", "videos/ --out corpus")
    add = verb("plan", "videos/ --json")
    add("src", nargs="+", help="as for analyze")
    add("--seconds", type=float, default=120.0, help="how much footage to analyse")
    add = staged("judge", "corpus --preset strict --what-if signals.motion.min=0.2")
    add("--decontaminate", metavar="EVAL", help="reject what shows footage of these media, or of this corpus")
    add("--preset", help="strict | standard | keep-all, or a TOML file of rules")
    add(
        "--what-if",
        action="append",
        default=[],
        metavar="RULE=VALUE",
        help="only print the funnel that this rule would give, such as signals.motion.min=0.2",
    )
    add = staged("caption", "corpus --captioner builtin:")
    add("--captioner", help="builtin: | truth:FILE | coca:MODEL/TAG | hf:REPO | openai:URL#MODEL")
    add = staged("encode", "corpus --vae builtin:")
    add("--vae", help="builtin: | diffusers:REPO")
    add = staged("run", "videos/ --out corpus --executor ray")
    add("--captioner", help="as for caption")
    add("--vae", help="as for encode")
    verb("status", "corpus --json")("corpus")
    add = verb("takedown", "corpus 0123456789abcdef --dry-run")
    add("corpus")
    add("source", nargs="+", help="a source_id, or a uri of the sources table")
    add("--reason", default="", help="why, for takedowns.parquet")
    add("--dry-run", action="store_true", help="list what is affected and change nothing")
    add = verb("verify", "corpus")
    add("corpus")
    add("--latents", default="default", help="name of the latent set")
    add("--decode-back", type=int, default=4, help="how many latents to decode and compare with their source")
    add = verb("report", "corpus --run runs/first")
    add("corpus")
    add("--run", help="a training run to show")


def _model_verbs(verb: Verb) -> None:
    add = verb("train", "corpus --out runs/first --init builtin: --steps 500")
    add("corpus")
    add("--out", required=True, help="the run folder; naming an old one resumes it")
    add("--latents", default="default", help="name of the latent set")
    add("--captions", help="a caption set of the corpus (default: the captions in the shards)")
    add("--init", help="start from builtin: or a run folder")
    add("--steps", type=int)
    add = verb("train-eval", "--run runs/first --json")
    add("--run", required=True, help="a run folder, or builtin:")
    add("--prompts", type=int, default=16)
    add("--steps", type=int, default=20, help="sampling steps")
    add("--sheet", metavar="PNG", help="draw the first prompts: samples above, their truth below")
    add = verb("sample", '--prompt "a red circle moves left" --size 96x64 --frames 17 --out red.mp4')
    add("--prompt", required=True)
    add("--checkpoint", default="builtin:", help="builtin: or a run folder")
    add("--size", default="96x64", help="WIDTHxHEIGHT in pixels")
    add("--frames", type=int, default=17, help="1 + 4k; 1 makes an image")
    add("--fps", type=float, default=8.0)
    add("--steps", type=int, default=30)
    add("--cfg", type=float, default=4.0, help="classifier-free guidance scale")
    add("--seed", type=int, default=0)
    add("--out", default="sample.mp4", help="the .mp4 (or, for one frame, .png) to write")
    add = verb("captioner train", "--toyworld toy --out my-captioner")
    add(
        "--toyworld",
        required=True,
        help="folder made by framemill toyworld, or endless: to draw shots in memory",
    )
    add("--out", required=True)
    add = verb("captioner eval", "--toyworld toy-heldout --json")
    add("--toyworld", required=True)
    add("--captioner", default="builtin:")
    add = verb("vae train", "--media toy/videos my-clips --out my-vae")
    add("--media", required=True, nargs="+", help="folders of videos and images")
    add("--out", required=True)
    add = verb("vae eval", "--media my-clips --json")
    add("--media", required=True)
    add("--vae", default="builtin:")


def _bench_verbs(verb: Verb) -> None:
    add = verb("bench dedup", "--media toy --truth toy/truth.jsonl --json")
    add("--media", required=True, help="the folder that the truth speaks of")
    add("--truth", required=True, help="truth.jsonl of a toy world, or a duplicates.json")
    add("--no-mirrored", action="store_true", help="a mirrored copy is no copy")
    add = verb("bench judge", "--rows 1000000 --json")
    add("--rows", type=int, default=100_000, help="clips of the synthetic table")
    add = verb("bench shots", "--media toy/videos --truth toy/truth.jsonl --json")
    add("--media", required=True, help="folder of videos")
    add("--truth", required=True, help="truth.jsonl of a toy world, or a cuts.json")
    add = verb("bench analyze", "--media videos/ --json")
    add("--media", required=True, nargs="+", help="folders of videos")
    add("--no-peer", action="store_true", help="leave PySceneDetect out")
    add = verb("bench long", "--media film.mp4 --hours 2 --json")
    add("--media", required=True, help="a video to loop")
    add("--hours", type=float, default=2.0)
    add("--parts", type=int, default=4, help="how many are decoded at once")
    add = verb("bench fuzz", "--media videos/ --count 1000 --seed 0 --json")
    add("--media", required=True, help="folder of small media files to mutate")
    add("--count", type=int, default=1000)
    add("--seed", type=int, default=0)
    add = verb("bench kill", "--runs 20 --seed 0 --json")
    add("--media", help="folder of media (default: a toy world made for it)")
    add("--runs", type=int, default=20)
    add("--seed", type=int, default=0)
