"""One network namespace: a host that code and commands can be moved into.

`Namespace.inside()` moves the *calling thread* with setns(2). What the thread then makes stays there for
good: sockets, subprocesses, and threads (so also those of an executor whose first job is submitted inside, as
`loop.getaddrinfo()` and `asyncio.to_thread()` do). asyncio code in a `with namespace.inside():` block of the
main thread works as usual, because the loop makes its sockets in the thread that runs it; the other tasks of
that loop are inside as well until the block ends.

/proc/net belongs to the main thread's namespace, /proc/thread-self/net to the calling thread's; in the main
thread, where tests run, both show the namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

CLONE_NEWNET = 0x40000000


class Namespace:
    def __init__(self, name: str) -> None:
        self.name = name
        _command("ip", "netns", "add", name)
        try:
            self.run(["ip", "link", "set", "lo", "up"])
        except BaseException:
            self.delete()
            raise

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.name}") as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    def run(
        self, command: Sequence[str], *, stdin: str | None = None, timeout: float = 20.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here and capture what it says; a failure is a RuntimeError that repeats it."""
        with self.inside():
            return _command(*command, stdin=stdin, timeout=timeout, check=check)

    def sysctl(self, name: str, value: object) -> None:
        """/proc/sys/net is that of the thread that opens it."""
        with self.inside():
            Path("/proc/sys", name.replace(".", "/")).write_text(f"{value}")

    def process_ids(self) -> list[int]:
        return [int(pid) for pid in _command("ip", "netns", "pids", self.name).stdout.split()]

    def delete(self) -> None:
        """A namespace lives on, nameless, as long as a process is in it: so these go first."""
        for pid in self.process_ids():
            if pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        _command("ip", "netns", "delete", self.name)


def _setns(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def _command(
    *command: str, stdin: str | None = None, timeout: float = 20.0, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done
