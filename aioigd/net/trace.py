"""Who traces the traffic? A tracer gets every datagram and HTTP exchange; without one it costs a look at a variable.

``aioigd.testing.recording`` puts its recorder here. It counts for what is done in the same context: by the task that
put it there, and by those it starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol

__all__ = ["HttpExchange", "Tracer", "tracer"]


_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class HttpExchange(NamedTuple):
    """An HTTP request and what came of it.

    ``began`` is a time of the loop's clock, ``seconds`` how long it took. ``failure`` is the name of the exception
    where no reply came; ``status``, ``reply_headers`` and ``reply`` mean nothing then.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    began: float
    seconds: float
    status: int = 0
    reply_headers: Mapping[str, str] = _NO_HEADERS
    reply: bytes = b""
    failure: str = ""


class Tracer(Protocol):
    """What receives the traffic."""

    def datagram(self, direction: Literal["in", "out"], payload: bytes, peer: str) -> None:
        """Take a datagram of SSDP, whatever is in it; ``peer`` is the address of the other side."""

    def pcp_datagram(self, direction: Literal["in", "out"], payload: bytes, peer: str, failure: str = "") -> None:
        """Take a datagram of PCP or NAT-PMP; ``failure`` is the exception where nobody listens at the peer."""

    def exchange(self, exchange: HttpExchange) -> None:
        """Take an HTTP request with its reply."""


tracer: Final[ContextVar[Tracer | None]] = ContextVar("aioigd_tracer", default=None)
