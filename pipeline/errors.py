"""The exception tree.

    FramemillError
    ├── UsageError      a wrong command line or argument          (exit code 2)
    ├── ConfigError     a wrong config file or --set              (exit code 2)
    ├── StorageError    the environment: a store, a disk or a server that does not do its part
    ├── MediaError      one bad input; becomes a `failed` row, never stops a run
    ├── ModelError      a model that is missing or is not what was asked for
    └── FormatError     a corpus, shard or checkpoint that is damaged or of another format

Every error says what failed, what was expected, and what fixes it.

Where a stage works on items there are three kinds of fault. The *item's* (MediaError: damaged, missing, not
readable by this user) is its `failed` row. The *environment's* (StorageError: refused or expired credentials,
a full disk, a server that is down) says nothing of the item: the task is lost, leaves no row, and the next
run does it. Every other FramemillError is of the *set-up* and ends the run: it would meet each item alike.
"""

import errno

ENVIRONMENT = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,  # a limit on the size of files (ulimit -f) ends a write like a full disk
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.EAGAIN,  # no more processes or threads
    }
)


class FramemillError(Exception):
    """What failed (path, value), what was expected, and the command or flag that fixes it."""

    def __init__(self, what: str, *, expected: str = "", fix: str = "") -> None:
        self.what, self.expected, self.fix = what, expected, fix
        super().__init__(what, expected, fix)

    def __str__(self) -> str:
        parts = [self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "; ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:  # survives the trip through a worker process
        return (_rebuild, (type(self), self.what, self.expected, self.fix))


def _rebuild(kind: type[FramemillError], what: str, expected: str, fix: str) -> FramemillError:
    return kind(what, expected=expected, fix=fix)


class UsageError(FramemillError):
    """The command line asks for something that does not exist or does not fit together."""


class ConfigError(FramemillError):
    """A config file or `--set` names an unknown key or a value of the wrong type."""


class StorageError(FramemillError):
    """The environment does not do its part: a path cannot be read, listed or written, a server does not
    answer. A task that meets it is lost and leaves no row."""


class MediaError(FramemillError):
    """One input is missing or cannot be decoded. Its text is the `reason` of a failed row."""


class ModelError(FramemillError):
    """A model is missing, needs an extra, or differs from the one that was asked for."""


class FormatError(FramemillError):
    """A corpus, shard or checkpoint is damaged or was written by another format or model."""


def is_environment(error: OSError) -> bool:
    """Whether an error of the system is the environment's and not of the one file or item in hand."""
    return isinstance(error, TimeoutError | ConnectionError) or error.errno in ENVIRONMENT
