"""The requests that an emulated gateway has received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """One search or HTTP request.

    ==============  =================================================================================
    ``kind``        the method: ``"M-SEARCH"``, ``"GET"``, ``"POST"``, or any other that was sent
    ``target``      the search target of an M-SEARCH, path and query of an HTTP request
    ``action``      the UPnP action of a POST by its SOAPAction, empty for anything else
    ``arguments``   the arguments of the action by name, in the order in which they were sent
    ``sender``      address and port of the client
    ``raw``         all of its bytes
    ``time``        seconds, by the gateway's clock, when it was complete
    ``problem``     how it violates the standards, empty where it does not
    ``connection``  the serial number of its TCP connection, from 1; 0 for a datagram
    ==============  =================================================================================
    """

    kind: str
    target: str
    action: str
    arguments: Mapping[str, str] = field(hash=False)
    sender: tuple[str, int]
    raw: bytes = field(repr=False)
    time: float
    problem: str = ""
    connection: int = 0


NO_ARGUMENTS: Mapping[str, str] = MappingProxyType({})
"""The arguments of a request that is no action."""
