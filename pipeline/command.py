"""The words of the command line, shared by every verb: how one is added, what all of them offer, how results
and errors are said.

In: `add_verbs` functions, one a package (its verbs.py). Out: a parser whose result has `function`; exit
codes. Knows no verb and imports nothing heavy: `--help` answers at once.
"""

import argparse
import json
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.ending import BROKEN_PIPE, Stopped, stopping_on_signals
from pipeline.errors import ConfigError, FramemillError, StorageError, UsageError

Args = argparse.Namespace
Function = Callable[[Args], int]
LOG = logging.getLogger(__name__)
PACKAGES = ("framemill", "pipeline", "captioner", "tokenizer_stage", "training")
LOG_LEVELS = ("debug", "info", "warning", "error")


class Verbs:
    """The verbs of one parser."""

    def __init__(self, summary: str, version: str) -> None:
        self.parser = argparse.ArgumentParser(prog="framemill", description=summary)
        self.parser.add_argument("--version", action="version", version=f"framemill {version}")
        self.version = version
        self.names: list[str] = []
        self._verbs = self.parser.add_subparsers(dest="verb", metavar="VERB", required=True)
        self._groups: dict[str, Any] = {}

    def add(
        self, name: str, function: Function, example: str, *, settings: bool = False, resumes: bool = False
    ) -> Callable[..., argparse.Action]:
        """A verb (`bench shots` is one of a group), whose help is the function's docstring; its add_argument.
        With `settings` it takes --config and --set. One that `resumes` goes on where a signal stopped it."""
        group, _, word = name.rpartition(" ")
        if group and group not in self._groups:
            holder = self._verbs.add_parser(group, help=f"{group}: see framemill {group} --help")
            self._groups[group] = holder.add_subparsers(dest="subverb", metavar="VERB", required=True)
        told = (function.__doc__ or "").strip()
        verb = (self._groups[group] if group else self._verbs).add_parser(
            word, help=told, description=told, epilog=f"example: framemill {name} {example}"
        )
        verb.set_defaults(function=function, resumes=resumes)
        verb.add_argument("--json", action="store_true", help="one JSON object on stdout")
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
        verb.add_argument("--log-level", choices=LOG_LEVELS, default="warning", help="of the log on stderr")
        verb.add_argument("--log-file", metavar="FILE", help="write the log there too, from level info on")
        if settings:
            verb.add_argument("--config", help="a TOML file of config values")
            verb.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help="one config value"
            )
        self.names.append(name)
        return verb.add_argument


def show(args: Args, result: Mapping[str, Any], lines: Sequence[str] | None = None) -> None:
    """The result on stdout: one JSON object with --json, else the lines, else `key: value`. Characters that
    its encoding lacks are spelled out: the work is done, whatever its report can be written in.

    Raises:
        BrokenPipeError: nobody reads on (`… | head`).
        StorageError: stdout is a file on a full disk, or closed.
    """
    if sys.stdout is None:
        raise StorageError("cannot write the result to stdout: it is closed")
    encoding = sys.stdout.encoding or "utf-8"
    if args.json:
        text = json.dumps(result, ensure_ascii=encoding.lower() != "utf-8")
    else:
        text = "\n".join(lines if lines is not None else [f"{k}: {v}" for k, v in result.items()])
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"cannot write the result to stdout: {reason}") from error


def run(verbs: Verbs, words: Sequence[str]) -> int:
    """Parses, runs the verb, and turns every end into an exit code and at most one line: 0 done, 1 finished
    with failures above the limit or could not finish, 2 wrong use, 141 nobody reads the output, and 128 plus
    the signal where one stopped it (130 Ctrl-C, 143 SIGTERM, 129 SIGHUP)."""
    args = verbs.parser.parse_args(words)
    try:
        with stopping_on_signals():
            return _logged(verbs, args, words)
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        word = "interrupted" if stopped.signum == signal.SIGINT else "terminated"
        _say(f"framemill: {word}" + ("; the same command goes on from here" if args.resumes else ""))
        return stopped.exit_code
    except BrokenPipeError:
        if args.debug:
            raise
        return BROKEN_PIPE
    except (FramemillError, OSError) as error:  # of an OSError, the system's own words and the path
        if args.debug:
            raise
        _say(f"framemill: {error}")
        return 2 if isinstance(error, UsageError | ConfigError) else 1


def _logged(verbs: Verbs, args: Args, words: Sequence[str]) -> int:
    args.run_id = secrets.token_hex(4)
    with logging_to(args.log_level, args.log_file, args.run_id, as_json=args.json):
        LOG.info("framemill %s %s", verbs.version, " ".join(words))
        try:
            code = int(args.function(args))
        except BaseException as error:
            LOG.info("ended by %s: %s", type(error).__name__, error)
            raise
        LOG.info("exit code %d", code)
        return code


def _say(line: str) -> None:
    """A line on stderr, if anybody can still read it."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def logging_to(level: str, path: str | None, run_id: str, *, as_json: bool) -> Iterator[None]:
    """The project's log on stderr from `level` on, and in a file from `info` on; each line has the run's
    identity, as its receipts have, so that the lines of two runs in one file can be told apart."""
    text = logging.Formatter(f"%(asctime)s {run_id} %(levelname)s %(name)s: %(message)s")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setFormatter(_JsonLine(run_id) if as_json else text)
    handlers[0].setLevel(level.upper())
    if path:
        try:
            handlers.append(logging.FileHandler(path, encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise UsageError(f"cannot write the log {path}: {error.strerror}", fix="--log-file") from error
        handlers[1].setFormatter(text)
        handlers[1].setLevel(min(logging.INFO, handlers[0].level))
    root, loggers = logging.getLogger(), [logging.getLogger(name) for name in PACKAGES]
    levels = [logger.level for logger in loggers]
    for handler in handlers:
        root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(min(handler.level for handler in handlers))
    try:
        yield
    finally:
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


class _JsonLine(logging.Formatter):
    """A log record as one JSON object, beside the JSON lines of the progress."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        row = {"time": self.formatTime(record), "run": self._run_id, "level": record.levelname.lower()}
        row |= {"logger": record.name, "log": record.getMessage()}
        return json.dumps(row, ensure_ascii=False)
