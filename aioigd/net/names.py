"""Which addresses has a host? Numbers are read at once; a name is looked up in one daemon thread.

The C library looks names up, and takes as long as the name servers do; nothing can interrupt it. In an executor of the
event loop a silent name server would use up the threads of the application, and hold up its end. So there is one thread
for all look-ups of a process, for which nobody waits in the end. It is there only while there are names to look up.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from contextlib import suppress
from ipaddress import ip_address

from ..errors import NoRouteError

__all__ = ["addresses_of", "numeric_address"]

_Result = list[str] | OSError | UnicodeError
_Job = tuple[str, asyncio.AbstractEventLoop, "asyncio.Future[_Result]"]


def numeric_address(host: str) -> str | None:
    """Return the address that a host is if it is written in numbers, with its zone; None for a name.

    All spellings are read that the system reads: octal, hexadecimal, short ones.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return _address(found[0][4])


async def addresses_of(host: str, *, ipv6: bool = False) -> list[str]:
    """Return the addresses of a host, those of IPv4 first, or those of IPv6 with ``ipv6``; each once.

    It takes as long as the name servers do, and can be cancelled; the look-up that has begun then goes on, and the next
    name waits for that. Raises NoRouteError for a name that is not known, or cannot be one.
    """
    number = numeric_address(host)
    if number is not None:
        return [number]
    if ":" in host or host.rstrip(".").rpartition(".")[2].isdecimal():
        raise NoRouteError(f"{host} cannot be resolved: neither an address nor a name")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()
    _look_ups.add((host, loop, future))
    result = await future
    if isinstance(result, Exception):
        raise NoRouteError(f"{host} cannot be resolved: {result}") from result
    return sorted(result, key=lambda address: (ip_address(address.partition("%")[0]).version == 6) != ipv6)


class _LookUps:
    """The names that are to be looked up, one after another, and the thread that does it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._thread: threading.Thread | None = None

    def add(self, job: _Job) -> None:
        with self._lock:
            self._jobs.append(job)
            # After a fork the thread is the parent's, and not alive here.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="aioigd-names", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                while self._jobs and self._jobs[0][2].done():
                    self._jobs.popleft()  # nobody waits for it any more
                if not self._jobs:
                    self._thread = None
                    return
                host, loop, future = self._jobs.popleft()
            result = _look_up(host)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_settle, future, result)


_look_ups = _LookUps()


def _look_up(host: str) -> _Result:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for what cannot be put into IDNA
        return error
    return list(dict.fromkeys(_address(each[4]) for each in found if each[0] in (socket.AF_INET, socket.AF_INET6)))


def _settle(future: asyncio.Future[_Result], result: _Result) -> None:
    if not future.done():
        future.set_result(result)


def _address(address: tuple[object, ...]) -> str:
    text = str(address[0])
    zone = address[3] if len(address) > 3 else 0
    return f"{text}%{zone}" if zone and "%" not in text else text
