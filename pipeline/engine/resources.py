"""What this machine lends a process: how many cores it may use, how many threads it then runs, which GPUs and
how much memory there are.

In: the system's own files and the environment. Out: numbers; settings of this process and its children.
Imports only the standard library: torch is told its threads where a stage has loaded it.

Waiting OpenMP threads spin by default. On cores that others use too, a spinning thread takes the core from
the very thread that it waits for, so each process that computes here lets its waiting threads sleep.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path

WAIT_POLICY = "OMP_WAIT_POLICY"
THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
DEVICES = Path("/dev")
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def allowed_cpus(
    affinity: int | None = None, cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS
) -> int:
    """The cores that this process may use, at least 1: those it may be scheduled on, and no more than the
    whole cores in the CPU quota of its control groups (a process that takes more is stopped for the rest of
    each period)."""
    if affinity is None:
        own = getattr(os, "sched_getaffinity", None)  # Linux has it
        affinity = len(own(0)) if own else os.cpu_count() or 1
    quota = cgroup_cpus(cgroups, own_cgroups)
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def cgroup_cpus(cgroups: Path, own_cgroups: Path) -> float | None:
    """The smallest CPU quota, in cores, of a process's control groups (version 1 and 2) and of those around
    them; None without one. `own_cgroups` has lines `number:controllers:path`, mounted below `cgroups`."""
    return min(_of_groups(cgroups, own_cgroups, "cpu", _quota), default=None)


def _of_groups(
    cgroups: Path, own_cgroups: Path, controller: str, read: Callable[[Path], float | None]
) -> list[float]:
    """What `read` finds in the folders of a process's control groups, for one controller."""
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:
        return []
    values: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [controllers, controller] if controllers else ["", "unified"]
        for mount in mounts:
            # Inside a container the path may be the host's: what is not there is passed over.
            around = [Path(path.lstrip("/")), *Path(path.lstrip("/")).parents]
            values += [v for folder in around if (v := read(cgroups / mount / folder)) is not None]
    return values


def _memory_limit(folder: Path) -> float | None:
    """The bytes that a control group's folder allows, of version 2 ("max": all) or of version 1."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            return float(int((folder / name).read_text()))
        except (OSError, ValueError):
            continue
    return None


def _quota(folder: Path) -> float | None:
    """The quota that a control group's folder states, in cores."""
    try:
        if (folder / "cpu.max").exists():  # version 2: "max 100000" or "150000 100000"
            quota_us, period_us = (folder / "cpu.max").read_text().split()
        else:
            quota_us = (folder / "cpu.cfs_quota_us").read_text()
            period_us = (folder / "cpu.cfs_period_us").read_text()
        return int(quota_us) / int(period_us) if int(quota_us) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def visible_gpus(environment: Mapping[str, str] = os.environ, devices: Path = DEVICES) -> tuple[str, ...]:
    """The GPUs that this process may give its workers, as CUDA_VISIBLE_DEVICES names them; asks no driver."""
    if (named := environment.get(VISIBLE_GPUS)) is not None:
        return tuple(name for name in re.split(r"[,\s]+", named) if name not in ("", "-1"))
    count = sum(bool(re.fullmatch(r"nvidia\d+", device.name)) for device in devices.glob("nvidia*"))
    return tuple(
        map(str, range(count))
    )  # CUDA counts those that it is shown; a container keeps the host's names


def show_gpus(environment: MutableMapping[str, str], names: Sequence[str]) -> None:
    """Lets a process see these GPUs and no others. Read once, when CUDA is first used."""
    environment[VISIBLE_GPUS] = ",".join(names)


def memory_gb(cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS) -> float:
    """The memory that this process may use: the machine's, and no more than its control groups allow."""
    physical_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = _of_groups(cgroups, own_cgroups, "memory", _memory_limit)
    return min([physical_bytes, *limits]) / 2**30


def let_waiting_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Sets OpenMP's wait policy in an environment that says nothing of it. It is read once, when torch is
    first imported."""
    environment.setdefault(WAIT_POLICY, "PASSIVE")


def thread_settings(cpus: float) -> dict[str, str]:
    """The environment of a process that computes on `cpus` cores (part of one counts as one)."""
    return {WAIT_POLICY: "PASSIVE", **dict.fromkeys(THREAD_COUNTS, str(threads_for(cpus)))}


def set_threads(environment: MutableMapping[str, str], cpus: float) -> None:
    """Puts these settings into an environment, but the wait policy where it has one."""
    let_waiting_threads_sleep(environment)
    environment.update(dict.fromkeys(THREAD_COUNTS, str(threads_for(cpus))))


def threads_for(cpus: float) -> int:
    return max(1, int(cpus))


def use_threads(cpus: float) -> None:
    """Lets this process, and those it starts from now on, compute on as many threads as it was given cores:
    more would take cores from its neighbours, and rounding depends on their number. Call it before
    torch is imported; one that is there already is told, too."""
    set_threads(os.environ, cpus)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads_for(cpus))


@contextmanager
def threads_restored() -> Iterator[None]:
    """Puts the thread settings back that this process had before."""
    names = (WAIT_POLICY, *THREAD_COUNTS)
    before = {name: os.environ.get(name) for name in names}
    wanted = before["OMP_NUM_THREADS"] or ""  # by a torch that is imported meanwhile
    threads = int(wanted) if wanted.isdecimal() else allowed_cpus()
    if torch := sys.modules.get("torch"):
        threads = torch.get_num_threads()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
