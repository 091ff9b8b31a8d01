"""What a process behind the walls can still do, tried from inside one."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
from functools import cache

import pytest

from gateway.deidentify import lockdown

PROLOGUE = """
import ctypes, errno, json, mmap, os, resource, signal, socket, sys, threading
from gateway.deidentify.lockdown import allow_cpu, lock_down
libc = ctypes.CDLL(None, use_errno=True)
walls = lock_down({cpu_s})

def told(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    except ValueError:
        # The resource module's word for EPERM.
        return "EPERM"
    except (MemoryError, RuntimeError) as error:
        return type(error).__name__
    return "done"

def raw(number, *arguments):
    ctypes.set_errno(0)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def say(what):
    os.write(1, json.dumps(what).encode())
    os._exit(0)
"""


def inside(script: str, cpu_s: int = 60) -> subprocess.CompletedProcess[bytes]:
    """Run `script` in a process that locks itself down first."""
    program = PROLOGUE.format(cpu_s=cpu_s) + script
    return subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, timeout=60, check=False, cwd="/"
    )


@cache
def walls() -> dict[str, bool]:
    return dict(json.loads(inside("say(walls)").stdout))


def needs_wall(name: str) -> None:
    if not walls()[name]:
        pytest.skip(f"this kernel offers no {name}")


def test_resource_limits_stand_everywhere() -> None:
    assert walls().keys() == {"rlimits", "landlock", "seccomp"}
    assert walls()["rlimits"]


def test_files_sockets_processes_and_signals_are_out_of_reach() -> None:
    needs_wall("seccomp")
    outcome = inside("""
say({
    "read_file": told(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    "write_file": told(lambda: os.open("/tmp/x", os.O_WRONLY | os.O_CREAT)),
    "list": told(lambda: os.listdir("/")),
    "stat": told(lambda: os.stat("/etc/passwd")),
    "delete": told(lambda: os.unlink("/tmp/x")),
    "internet": told(lambda: socket.socket(socket.AF_INET)),
    "local": told(lambda: socket.socket(socket.AF_UNIX)),
    "pair": told(socket.socketpair),
    "fork": told(os.fork),
    "thread": told(threading.Thread(target=print).start),
    "signal": told(lambda: os.kill(1, 0)),
    "own_signal": told(lambda: os.kill(os.getpid(), 0)),
    "environ": told(lambda: os.open("/proc/self/environ", os.O_RDONLY)),
    "become": told(lambda: os.setuid(0)),
    "descriptor": told(lambda: os.dup(1)),
    "executable_memory": told(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)),
    "plain_memory": told(lambda: mmap.mmap(-1, 4096)),
    "lots_of_memory": told(lambda: bytearray(3 << 30)),
    "foreign_limits": told(lambda: resource.prlimit(os.getpid(), resource.RLIMIT_CPU)),
    "raise_limit": told(lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))),
})
""")
    assert outcome.returncode == 0, outcome.stderr
    answers = json.loads(outcome.stdout)
    assert answers.pop("plain_memory") == "done"
    assert answers.pop("lots_of_memory") == "MemoryError"
    # A thread stands behind the same walls, and the decoder of HEIC needs one.
    assert answers.pop("thread") == "done"
    assert set(answers.values()) == {"EPERM"}, answers


def test_landlock_alone_closes_the_file_system() -> None:
    needs_wall("landlock")
    program = """
import errno, os
import ctypes
from gateway.deidentify import lockdown
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert lockdown._landlock(libc)
for path, flags in (("/etc/passwd", os.O_RDONLY), ("/tmp", os.O_RDONLY | os.O_DIRECTORY)):
    try:
        os.open(path, flags)
    except OSError as error:
        assert error.errno == errno.EACCES
    else:
        raise SystemExit(9)
"""
    assert subprocess.run([sys.executable, "-I", "-c", program], check=False, cwd="/").returncode == 0


@pytest.mark.parametrize("number", range(5))
def test_to_run_a_program_or_to_trace_one_is_death(number: int) -> None:
    needs_wall("seccomp")
    call = lockdown._MACHINES[platform.machine()].deadly[number]
    assert inside(f"raw({call}, 0, 0, 0, 0, 0)").returncode == -signal.SIGSYS


def test_a_busy_loop_ends_at_its_cpu_time() -> None:
    outcome = inside("allow_cpu(0)\nwhile True: pass", cpu_s=10)
    assert outcome.returncode == -signal.SIGXCPU


def test_no_wall_depends_on_another() -> None:
    needs_wall("seccomp")
    # A machine whose system calls nobody has listed: rlimits and Landlock must stand all the same.
    outcome = inside("say(walls)").stdout
    program = PROLOGUE.format(cpu_s=60).replace(
        "walls = ", "import platform\nplatform.machine = lambda: 'riscv64'\nwalls = "
    )
    other = subprocess.run(
        [sys.executable, "-I", "-c", program + "say(walls)"], capture_output=True, check=True
    )
    assert json.loads(other.stdout) == {**json.loads(outcome), "seccomp": False}


@pytest.mark.parametrize("machine", sorted(lockdown._MACHINES))
def test_every_filter_is_short_and_ends_in_a_refusal(machine: str) -> None:
    program = lockdown._program(lockdown._MACHINES[machine])
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096
    assert program.endswith(lockdown._op(lockdown._RETURN, lockdown._EPERM))


@pytest.mark.parametrize("machine", sorted(lockdown._MACHINES))
def test_no_call_is_listed_twice(machine: str) -> None:
    known = lockdown._MACHINES[machine]
    listed = [*known.allowed, *known.without_exec, known.own_limits, known.clone, known.clone3, *known.deadly]
    assert len(listed) == len(set(listed))
