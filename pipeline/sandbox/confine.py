"""Takes away from a process what decoding a file never needs: sockets, programs, and other files.

In: the one file to be read, if any. Out: which protections hold; the kernel may lack them (Linux only;
seccomp since 3.5, Landlock since 5.13). They are the last line: FFmpeg is told to open no protocol but
files and no format that names other files, and this makes sure. Nothing given up can be had back.

Sources: seccomp(2), landlock(7), linux/seccomp.h, linux/landlock.h. Both work without privileges.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from pathlib import Path

NO_NEW_PRIVS, SET_SECCOMP, SECCOMP_FILTER = 38, 22, 2  # prctl
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # system calls, on every architecture
EXECUTE, READ_FILE, READ_DIR, EVERY_ACCESS = 1 << 0, 1 << 2, 1 << 3, (1 << 13) - 1  # Landlock's first version
OPEN_FILES = 64
FORBIDDEN = {  # architecture → its audit number, the numbers of the forbidden system calls
    # socket, socketpair, execve, execveat, ptrace, process_vm_readv, process_vm_writev, io_uring_setup
    "x86_64": (0xC000003E, (41, 53, 59, 322, 101, 310, 311, 425)),
    "aarch64": (0xC00000B7, (198, 199, 221, 281, 117, 270, 271, 425)),
}
_LIBC = ctypes.CDLL(None, use_errno=True)


def forbid_sockets_and_programs() -> bool:
    """From now on this thread and those it starts get "not permitted" for either; few files at a time."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    if sys.platform != "linux" or platform.machine() not in FORBIDDEN:
        return False
    program = _filter(*FORBIDDEN[platform.machine()])
    code = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    if _LIBC.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return _LIBC.prctl(SET_SECCOMP, SECCOMP_FILTER, header, 0, 0) == 0


def _filter(architecture: int, forbidden: tuple[int, ...]) -> bytes:
    """Classic BPF over struct seccomp_data: instructions of (u16 code, u8 if true, u8 if false, u32 value);
    a jump counts the instructions between it and its target."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    deny = len(forbidden) + 5
    steps = [(load, 0, 0, 4), (equal, 0, deny - 2, architecture), (load, 0, 0, 0)]
    steps.append((at_least, deny - 4, 0, 0x4000_0000))  # the x32 numbers of x86_64
    steps += [(equal, deny - 5 - i, 0, number) for i, number in enumerate(forbidden)]
    steps += [(answer, 0, 0, 0x7FFF_0000), (answer, 0, 0, 0x0005_0001)]  # allow; errno EPERM
    return b"".join(struct.pack("@HBBI", *step) for step in steps)


def read_only(*paths: Path) -> bool:
    """From now on this thread and those it starts can read these files and the installed code, and can write
    nothing. Files that are open already stay open."""
    if sys.platform != "linux":
        return False
    attributes = struct.pack("@Q", EVERY_ACCESS)
    rules = _LIBC.syscall(LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    try:
        here = str(Path(__file__).resolve().parents[2])
        for folder in {sys.prefix, sys.base_prefix, here, *filter(os.path.isdir, sys.path), "/usr", "/lib"}:
            _allow(rules, folder, EXECUTE | READ_FILE | READ_DIR)
        for path in paths:
            _allow(rules, str(path), READ_FILE)
        if _LIBC.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return _LIBC.syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    finally:
        os.close(rules)


def has_landlock() -> bool:
    """Whether this kernel can hold what `read_only` promises."""
    return sys.platform == "linux" and _LIBC.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1) > 0


def _allow(rules: int, path: str, access: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    try:
        _LIBC.syscall(LANDLOCK_ADD, rules, 1, struct.pack("=Qi", access, target), 0)
    finally:
        os.close(target)
