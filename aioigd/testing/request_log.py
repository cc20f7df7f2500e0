"""What an emulated gateway received, as it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """One search or HTTP request.

    ==============  =================================================================================
    ``kind``        the method: ``"M-SEARCH"``, ``"GET"``, ``"POST"``, or whatever a client made up
    ``target``      the search target of an M-SEARCH, path and query of an HTTP request
    ``action``      the UPnP action of a POST by its SOAPAction, empty for anything else
    ``arguments``   what was sent with the action, by the names of the standard, in the order sent
    ``sender``      address and port from which it came
    ``raw``         its bytes, all of them
    ``time``        seconds, by the gateway's clock, when the last of them had come
    ``problem``     what is wrong with it by the standards, empty where nothing is
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
