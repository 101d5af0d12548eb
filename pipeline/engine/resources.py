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
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
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
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [controllers, "cpu"] if controllers else ["", "unified"]
        for mount in mounts:
            # Inside a container the path may be the host's: what is not there is passed over.
            around = [Path(path.lstrip("/")), *Path(path.lstrip("/")).parents]
            quotas += [q for folder in around if (q := _quota(cgroups / mount / folder)) is not None]
    return min(quotas, default=None)


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
    numbers = [re.fullmatch(r"nvidia(\d+)", device.name) for device in devices.glob("nvidia*")]
    return tuple(sorted((number[1] for number in numbers if number), key=int))


def show_gpus(environment: MutableMapping[str, str], names: Sequence[str]) -> None:
    """Lets a process see these GPUs and no others. Read once, when CUDA is first used."""
    environment[VISIBLE_GPUS] = ",".join(names)


def memory_gb() -> float:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


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
