"""The verbs as plain functions, for programs that map a port and go on.

Behind them is one mapper for each event loop (and each way of searching), which keeps its gateway in mind but
nothing open: whoever is the last to leave closes the session. A program that talks to more than _MOST_MAPPERS gateways
has the one closed that it has not used for the longest time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from .arguments import check_gateway, check_protocols, check_secret, join_gateway, usage_errors_only
from .core.background import join, may_await_at_exit
from .errors import DeadlineError, UsageError
from .mapper import PortMapper
from .models import Device, PortMapping, Proto
from .results import ProtocolName
from .text import shown

__all__ = ["add_port_mapping", "delete_port_mapping", "discover", "query_external_address"]

_MOST_MAPPERS: Final = 32
"""Mappers that an event loop keeps, unless calls are using more."""


class _Way(NamedTuple):
    """How a mapper is made; calls that say the same share one."""

    source_address: object
    location: object
    protocols: object
    gateway: object
    pcp_secret: object


class _Shared:
    """A mapper, and how many calls are using it."""

    def __init__(self, way: _Way) -> None:
        self.mapper = PortMapper(**way._asdict())
        self.users = 0


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Way, _Shared]] = WeakKeyDictionary()


async def add_port_mapping(
    port: int,
    internal_port: int = 0,
    desc: str = "",
    proto: Proto = "UDP",
    duration: int = 0,
    *,
    internal_client: str | IPv4Address | None = None,
    remote_host: str | IPv4Address = "",
    verify: bool = False,
    overwrite: bool = True,
    source_address: str | None = None,
    location: str | None = None,
    protocols: Sequence[ProtocolName] = ("upnp", "pcp", "nat-pmp"),
    gateway: str | IPv4Address | IPv6Address | None = None,
    pcp_secret: bytes | None = None,
) -> PortMapping:
    """Forward an external port of the gateway to this machine, as :meth:`PortMapper.add_port_mapping` does.

    The other arguments are those of :class:`PortMapper`. The gateway is kept in mind for the next
    call in the same event loop; no socket or session stays open.
    """
    async with _mapper(_Way(source_address, location, protocols, gateway, pcp_secret)) as mapper:
        return await mapper.add_port_mapping(
            port,
            internal_port,
            desc,
            proto,
            duration,
            internal_client=internal_client,
            remote_host=remote_host,
            verify=verify,
            overwrite=overwrite,
        )


async def delete_port_mapping(
    port: int,
    proto: Proto = "UDP",
    *,
    remote_host: str | IPv4Address = "",
    verify: bool = False,
    source_address: str | None = None,
    location: str | None = None,
    protocols: Sequence[ProtocolName] = ("upnp", "pcp", "nat-pmp"),
    gateway: str | IPv4Address | IPv6Address | None = None,
    pcp_secret: bytes | None = None,
) -> None:
    """Delete a mapping of the gateway, as :meth:`PortMapper.delete_port_mapping` does."""
    async with _mapper(_Way(source_address, location, protocols, gateway, pcp_secret)) as mapper:
        await mapper.delete_port_mapping(port, proto, remote_host=remote_host, verify=verify)


async def query_external_address(
    *,
    source_address: str | None = None,
    location: str | None = None,
    protocols: Sequence[ProtocolName] = ("upnp", "pcp", "nat-pmp"),
    gateway: str | IPv4Address | IPv6Address | None = None,
    pcp_secret: bytes | None = None,
) -> IPv4Address | IPv6Address:
    """Return the gateway's address on the internet, as :meth:`PortMapper.query_external_address` does."""
    async with _mapper(_Way(source_address, location, protocols, gateway, pcp_secret)) as mapper:
        return await mapper.query_external_address()


async def discover(
    timeout: float = 2.0,
    ttl: int = 2,
    device_filter: str = "InternetGatewayDevice",
    *,
    source_address: str | None = None,
    protocols: Sequence[ProtocolName] = ("upnp", "pcp", "nat-pmp"),
    gateway: str | IPv4Address | IPv6Address | None = None,
) -> list[Device]:
    """Return all devices that answer a search within ``timeout`` seconds, as :meth:`PortMapper.discover` does."""
    async with PortMapper(source_address=source_address, protocols=protocols, gateway=gateway) as mapper:
        return await mapper.discover(timeout, ttl, device_filter)


class _mapper:
    """Lends the running loop's mapper; the last to give it back waits until nothing of it is left open."""

    def __init__(self, way: _Way) -> None:
        self._way = way

    async def __aenter__(self) -> PortMapper:
        way = _checked_way(self._way)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError("aioigd needs a running asyncio event loop, and there is none") from None
        ways = _of_loop.setdefault(loop, {})
        self._shared = ways.pop(way) if way in ways else _Shared(way)
        ways[way] = self._shared  # behind all others, as the one that was used last
        self._shared.users += 1
        self._closing = _close_unused(ways)
        return self._shared.mapper

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ending = self._closing
        self._shared.users -= 1
        if not self._shared.users:
            ending.append(self._shared.mapper._start_releasing_sockets())
        # The undo of a call that ran into its deadline goes on behind the error.
        is_left_to_itself = isinstance(error, DeadlineError) and self._shared.mapper._queue.is_undoing
        if may_await_at_exit(kind) and not is_left_to_itself:
            for each in ending:
                await join(each)


@usage_errors_only
def _checked_way(way: _Way) -> _Way:
    """Return a way of searching as plain values: a subclass may compare as it likes."""
    return _Way(
        _plain(way.source_address, "source_address"),
        _plain(way.location, "location"),
        check_protocols(way.protocols),
        join_gateway(*check_gateway(way.gateway)),
        check_secret(way.pcp_secret),
    )


def _plain(text: object, what: str) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise UsageError(f"{what} must be of type str, not {shown(text)}")
    return str.__str__(text)


def _close_unused(ways: dict[_Way, _Shared]) -> list[asyncio.Task[None]]:
    """Begin to close the mappers that are too many, those first that have not been used for the longest time."""
    unused = [way for way, shared in ways.items() if not shared.users]
    closing = [ways.pop(way).mapper._start_closing() for way in unused[: max(0, len(ways) - _MOST_MAPPERS)]]
    return [task for task in closing if task is not None]
