"""Walls around the process that reads strangers' bytes.

From the outside in: resource limits, no new privileges, Landlock without a
single rule (no file, no TCP port, no signal to or socket of another process),
and a seccomp filter that knows the few system calls a decoder makes.  A thread
may be started, since the decoder of HEIC cannot do without; it shares every
wall.  A process may not.  Walls go up once and never come down; whatever must be imported is imported before.

Raw system calls, because a wall should not hang on another package.

Rule:
    Linux, Documentation/userspace-api/landlock.rst and seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from dataclasses import dataclass
from typing import Final, TypedDict


class Confinement(TypedDict):
    """Which walls stand."""

    rlimits: bool
    landlock: bool
    seccomp: bool


@dataclass(frozen=True, slots=True)
class _Machine:
    """System call numbers of one architecture."""

    audit_arch: int
    seccomp: int
    allowed: tuple[int, ...]
    without_exec: tuple[int, ...]
    own_limits: int
    clone: int
    clone3: int
    deadly: tuple[int, ...]
    foreign_abi_from: int | None = None


# allowed: read write close lseek readv writev munmap mremap madvise brk
#   rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack futex sched_yield rseq
#   restart_syscall getpid gettid getrusage clock_gettime clock_getres
#   gettimeofday getrandom exit exit_group set_robust_list
# without_exec: mmap mprotect (refused where they ask for executable memory)
# own_limits: prlimit64 (only for the process itself; hard limits hold)
# clone: only with what makes it a thread
# clone3: keeps its flags where no filter can see them; told that it is not
#   there, the C library takes clone
# deadly: execve execveat ptrace process_vm_readv process_vm_writev, which no
#   decoder calls by mistake
_MACHINES: Final = {
    "x86_64": _Machine(
        audit_arch=0xC000003E,
        seccomp=317,
        allowed=(
            0, 1, 3, 8, 19, 20, 11, 25, 28, 12, 13, 14, 15, 131, 202, 24, 334,
            219, 39, 186, 98, 228, 229, 96, 318, 60, 231, 273,
        ),
        without_exec=(9, 10),
        own_limits=302,
        clone=56,
        clone3=435,
        deadly=(59, 322, 101, 310, 311),
        # The x32 calls share the architecture and start here.
        foreign_abi_from=0x40000000,
    ),
    "aarch64": _Machine(
        audit_arch=0xC00000B7,
        seccomp=277,
        allowed=(
            63, 64, 57, 62, 65, 66, 215, 216, 233, 214, 134, 135, 139, 132, 98, 124, 293,
            128, 172, 178, 165, 113, 114, 169, 278, 93, 94, 99,
        ),
        without_exec=(222, 226),
        own_limits=261,
        clone=220,
        clone3=435,
        deadly=(221, 281, 117, 270, 271),
    ),
}  # fmt: skip

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CAPABILITY_VERSION = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_VERSION_FLAG = 1
_FS_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""Landlock ABI -> how many file system rights it knows; 16 from ABI 5."""
_SECCOMP_FILTER, _SECCOMP_TSYNC = 1, 1

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _EPERM, _ENOSYS, _ALLOW = 0x80000000, 0x00050001, 0x00050026, 0x7FFF0000
_NR, _ARCH, _ARGS = 0, 4, 16
_PROT_EXEC = 4
_CLONE_THREAD = 0x10000


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory a worker may have.

    Attributes:
        space: Address space in bytes, libraries included.
        own: Bytes of its own.
    """

    space: int
    own: int


PICTURES: Final = Memory(space=1 << 30, own=480 << 20)
"""With the pages of its libraries such a worker stays below half a gigabyte."""


def lock_down(cpu_s: int, memory: Memory = PICTURES) -> Confinement:
    """Put up every wall this kernel offers and say which stand.

    Args:
        cpu_s: CPU seconds after which the kernel ends the process for good.
        memory: How much it may have.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    has_rlimits = _limit(cpu_s, memory)
    _drop_capabilities(libc)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    has_no_new_privileges = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    has_landlock = has_no_new_privileges and _landlock(libc)
    # Last of the limits: Landlock needed a descriptor.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    has_seccomp = has_no_new_privileges and _seccomp(libc)
    if not has_seccomp:
        # This limit cannot tell a thread from a process, so it is only the second choice.
        has_rlimits = _lower(resource.RLIMIT_NPROC, 0) and has_rlimits
    return Confinement(rlimits=has_rlimits, landlock=has_landlock, seccomp=has_seccomp)


def allow_cpu(seconds: int) -> None:
    """Let this process use `seconds` more of CPU time, within what `lock_down` set for its life."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up what root may do, so that limits bind root as well; for others this changes nothing."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    libc.capset(header, bytes(24))


def _limit(cpu_s: int, memory: Memory) -> bool:
    wanted = {
        resource.RLIMIT_AS: memory.space,
        resource.RLIMIT_DATA: memory.own,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    # Each is tried, whatever became of the one before.
    outcomes = [_lower(which, value) for which, value in wanted.items()]
    return all(outcomes)


def _lower(which: int, value: int) -> bool:
    """Bring one limit down to `value`; a lower one that stands already is left."""
    try:
        _, hard = resource.getrlimit(which)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (bound, bound))
    except (OSError, ValueError):
        return False
    return True


def _landlock(libc: ctypes.CDLL) -> bool:
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)
    if version < 1:
        return False
    rights = (1 << _FS_RIGHTS.get(version, 16)) - 1
    # Later kernels read more of the structure: TCP bind and connect from
    # version 4, abstract sockets and signals from version 6.
    fields = [rights, *([3] if version >= 4 else []), *([3] if version >= 6 else [])]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    is_up = libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return bool(is_up)


def _seccomp(libc: ctypes.CDLL) -> bool:
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = _program(machine)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    return bool(libc.syscall(machine.seccomp, _SECCOMP_FILTER, _SECCOMP_TSYNC, header) == 0)


def _program(machine: _Machine) -> bytes:
    """Return the filter as BPF code, eight bytes an instruction.

    Each test jumps over nothing but its own verdict, so that an entry can be
    added without counting offsets.
    """
    code = [_op(_LOAD, _ARCH), _op(_EQUAL, machine.audit_arch, 1, 0), _op(_RETURN, _KILL), _op(_LOAD, _NR)]
    if machine.foreign_abi_from is not None:
        code += [_op(_AT_LEAST, machine.foreign_abi_from, 0, 1), _op(_RETURN, _KILL)]
    for number in machine.allowed:
        code += [_op(_EQUAL, number, 0, 1), _op(_RETURN, _ALLOW)]
    for number in machine.without_exec:
        code += [
            _op(_EQUAL, number, 0, 4),
            _op(_LOAD, _ARGS + 8 * 2),
            _op(_ANY_BIT, _PROT_EXEC, 0, 1),
            _op(_RETURN, _EPERM),
            _op(_RETURN, _ALLOW),
        ]
    code += [
        _op(_EQUAL, machine.own_limits, 0, 4),
        _op(_LOAD, _ARGS),
        _op(_EQUAL, 0, 0, 1),
        _op(_RETURN, _ALLOW),
        _op(_RETURN, _EPERM),
        # Whoever asks for a thread asks to share memory as well: the kernel demands it.
        _op(_EQUAL, machine.clone, 0, 4),
        _op(_LOAD, _ARGS),
        _op(_ANY_BIT, _CLONE_THREAD, 0, 1),
        _op(_RETURN, _ALLOW),
        _op(_RETURN, _EPERM),
        _op(_EQUAL, machine.clone3, 0, 1),
        _op(_RETURN, _ENOSYS),
    ]
    for number in machine.deadly:
        code += [_op(_EQUAL, number, 0, 1), _op(_RETURN, _KILL)]
    code.append(_op(_RETURN, _EPERM))
    return b"".join(code)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
