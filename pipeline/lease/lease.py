"""One writer a corpus: a lease in the corpus itself, on any store that creates a file only if there is none.

In: a root (local, a shared disk, s3://) and the verb that wants to write. Out: a held lease, or a UsageError
that names who holds it. Never trusts a clock of this machine: a lease is as old as its store says, by the
store's own clock.

Leases are numbered, `.lease-000007`; the highest is the one that counts. Who wants it creates the next
number, and only one can: S3 by PUT with `If-None-Match: *`, a disk by O_EXCL, which holds on NFS too. No
number is ever used again, since the highest stays when it is let go of (it says so), so whoever was asleep
meanwhile finds a higher one. The holder renews its own every BEAT_S; one that was not renewed for STALE_S, or
whose process is known to be dead, may be taken over by the next number.
"""

import getpass
import json
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pipeline.ending import send_to_main
from pipeline.errors import StorageError, UsageError
from pipeline.lease.lease_stores import DiskLeases, S3Leases
from pipeline.storage import is_remote

LOG = logging.getLogger(__name__)
PREFIX, DIGITS = ".lease-", 6  # hidden: no reader lists it
BEAT_S = 10.0  # how often a holder renews
RELEASED = b"released\n"  # what a lease says that was let go of
STALE_S = 60.0  # a lease that was not renewed for so long is nobody's


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease. `process` tells processes of one machine apart, also after a reboot."""

    token: str
    owner: str
    host: str
    pid: int
    process: str
    verb: str
    since: str

    @classmethod
    def here(cls, verb: str) -> "Holder":
        """This process. `since` is for people only: no decision rests on this machine's clock."""
        try:
            owner = getpass.getuser()
        except (KeyError, OSError):  # a container without that user
            owner = str(os.getuid())
        return cls(
            token=secrets.token_hex(8),
            owner=owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            process=process_identity(os.getpid()),
            verb=verb,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @classmethod
    def read(cls, data: bytes) -> "Holder | None":
        """None for a lease that was let go of. Of one that is being written just now nothing is known."""
        if data == RELEASED:
            return None
        try:
            row = json.loads(data)
            return cls(**{field.name: row[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return cls(token="", owner="?", host="?", pid=0, process="", verb="?", since="?")

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @property
    def is_dead(self) -> bool:
        """Whether it ran on this machine, as far as this process can see, and does so no more."""
        machine = process_identity(os.getpid()).rpartition(" ")[0]
        here = bool(machine) and self.process.rpartition(" ")[0] == machine
        return here and process_identity(self.pid) != self.process


def process_identity(pid: int) -> str:
    """Boot, space of process ids, and start time of a process; without such a process or /proc, less."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{machine} {'' if state in 'ZX' else rest[18]}"
    except OSError:
        return f"{machine} "


class LeaseStore(Protocol):
    """Files beside each other in one folder, by name."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file that is not there; False, with nothing changed, when it is."""

    def ages_s(self) -> Mapping[str, float]:
        """Every lease and the seconds since it was last written, by the store's clock."""

    def read(self, name: str) -> bytes:
        """A file's bytes; empty when there is none."""

    def renew(self, name: str, data: bytes) -> None:
        """Writes a file of the caller's own again, which makes it new."""

    def delete(self, name: str) -> None: ...


class Lease:
    """One held lease. `lost` says why it is held no more."""

    def __init__(self, store: LeaseStore, holder: Holder, name: str) -> None:
        self._store, self._holder, self._name = store, holder, name
        self._ended = threading.Event()
        self.lost = ""

    def beat(self) -> bool:
        """Renews it, if it is still the one that counts."""
        newest, held = _newest(self._store.ages_s()), self._store.read(self._name)
        if newest != self._name or held != self._holder.to_bytes():
            thief = Holder.read(self._store.read(newest)) if newest else None
            by = f" by {thief.owner} on {thief.host} (framemill {thief.verb})" if thief else ""
            self.lost = f"it was taken over{by} while this command was not heard of for {STALE_S:g} s"
            return False
        self._store.renew(self._name, held)
        return True

    def keep(self, on_loss: Callable[[], None], beat_s: float) -> None:
        """Renews until `release`; on a thread of its own. A store that cannot be reached is no loss: nothing
        can be written there either, and the next beat asks again."""
        while not self._ended.wait(beat_s):
            try:
                if not self.beat():
                    on_loss()
                    return
            except (StorageError, OSError) as error:
                LOG.warning("the lease was not renewed: %s", error)

    def release(self) -> None:
        """Lets go of it, where it is still held; its number stays."""
        self._ended.set()
        with suppress(StorageError, OSError):
            if not self.lost and self._store.read(self._name) == self._holder.to_bytes():
                self._store.renew(self._name, RELEASED)


def take(store: LeaseStore, verb: str, where: str) -> Lease:
    """The lease of a store.

    Raises:
        UsageError: somebody else holds it.
    """
    ages, holder = store.ages_s(), Holder.here(verb)
    newest, number = _newest(ages), 0
    if newest:
        number, before = int(newest.removeprefix(PREFIX)), Holder.read(store.read(newest))
        if before and not before.is_dead and ages[newest] < STALE_S:
            raise _refusal(before, where, STALE_S - ages[newest])
        if before:
            LOG.warning("%s: taking over from %s, who is gone", where, _named(before))
    name = f"{PREFIX}{number + 1:0{DIGITS}d}"
    if not store.create(name, holder.to_bytes()) or _newest(store.ages_s()) != name:
        if store.read(name) == holder.to_bytes():  # a number from before a sleep: others are higher
            store.delete(name)
        winner = Holder.read(store.read(_newest(store.ages_s()) or name))
        raise _refusal(winner, where, STALE_S)
    for old in ages:
        store.delete(old)
    return Lease(store, holder, name)


def _newest(ages: Mapping[str, float]) -> str | None:
    return max(ages, key=lambda name: int(name.removeprefix(PREFIX)), default=None)


def _named(holder: Holder) -> str:
    return (
        f"{holder.owner} on {holder.host} (framemill {holder.verb}, pid {holder.pid}, since {holder.since})"
    )


def _refusal(holder: Holder | None, where: str, left_s: float) -> UsageError:
    who = _named(holder) if holder else "somebody who began in the same second"
    return UsageError(
        f"another framemill command is writing to {where}: {who}",
        fix=f"wait for it to end; if it has died, this can go on in {max(1.0, left_s):.0f} s",
    )


@contextmanager
def held(root: str, verb: str, *, beat_s: float = BEAT_S) -> Iterator[Lease]:
    """Holds the corpus at `root` for one writer. When the lease is lost meanwhile (this machine slept), the
    main thread is stopped as by SIGTERM, and the block ends in the error that says so.

    Raises:
        UsageError: somebody else holds it, or took it over.
        StorageError: nothing can be written there.
    """
    lease = take(_store(root), verb, root)

    def stop() -> None:
        if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN, None):
            send_to_main(signal.SIGTERM)

    thread = threading.Thread(target=lease.keep, args=(stop, beat_s), daemon=True)
    thread.start()
    try:
        yield lease
    except BaseException as error:
        if lease.lost:
            raise _loss(root, lease) from error
        raise
    finally:
        lease.release()
        thread.join()
    if lease.lost:
        raise _loss(root, lease)


def _loss(root: str, lease: Lease) -> UsageError:
    fix = "run the command again when that one has ended; it goes on from here"
    return UsageError(f"this command no longer holds {root}: {lease.lost}", fix=fix)


def _store(root: str) -> LeaseStore:
    return S3Leases(root, PREFIX) if is_remote(root) else DiskLeases(Path(root), PREFIX)
