"""Where the other services of a gateway are: each is looked for when it is first asked for, and kept in mind.

Ports are mapped on one service, which the search has found. What counts bytes and what opens pinholes are services
beside it, and the description says where. It is read again, as nothing else was kept of it; nothing that it says
leads away from the address where it was read. The firewall goes by the IPv6 address that it is asked from, so it is
asked over IPv6: where the gateway was found over IPv4, it is searched for over IPv6 first, in the same network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final, TypeVar

from ..core.calls import Call
from ..core.finder import Finder
from ..errors import DiscoveryError, IGDError, InvalidResponseError, RefusedError, TransportError, UnsupportedError
from ..net.interfaces import is_our_address, public_ipv6_address, same_network_ipv6, source_address_for
from ..results import UPnPResult
from .search import SearchOptions
from .soap_client import NOT_THERE, Channel
from .wire.description import Service, parse_description
from .wire.url import HttpUrl, parse_url

__all__ = ["our_ipv6_address", "with_firewall", "with_service"]

T = TypeVar("T")
Use = Callable[[Channel], Awaitable[T]]

_SEARCH_TIME: Final = 3.0
"""Seconds to look for a gateway over IPv6, as a part of the call that needs it."""
_NO_SUCH_ACTION: Final = frozenset({401, 602})


async def with_service(channel: Channel, name: str, use: Use[T], call: Call) -> T:
    """Use another service of a gateway by its name in lower case.

    Raises IGDError with INVALID_GATEWAY where the gateway has no such service, or the service no such action.
    """

    async def find() -> Channel:
        url = _description_url(channel)
        service = await _described(channel, url, _our_address(channel, url), name, call)
        return channel.beside(service, _our_address(channel, url))

    return await _use(channel, (name, ""), find, use)


async def with_firewall(channel: Channel, name: str, source: str, use: Use[T], call: Call) -> T:
    """Use a service of a gateway at its IPv6 address, from the address ``source``, or any of ours if it is not ours.

    Raises IGDError: INVALID_GATEWAY as :func:`with_service`; NO_DEVICES or NO_GATEWAY where the gateway is not found
    over IPv6, SOCKET_ERROR where this machine has no IPv6.
    """

    async def find() -> Channel:
        url = _description_url(channel)
        if ":" not in url.host:
            # What it does not name here it will not name there, and the search is saved.
            await _described(channel, url, _our_address(channel, url), name, call)
            url = await _found_over_ipv6(channel, call)
        ours = source if source and is_our_address(source) else source_address_for(url.host)
        return channel.beside(await _described(channel, url, ours, name, call), ours)

    return await _use(channel, (name, source), find, use)


def our_ipv6_address(channel: Channel) -> str:
    """Return the IPv6 address of this machine for a pinhole; raises TransportError where there is none."""
    return "::1" if ip_address(channel.our_address.partition("%")[0]).is_loopback else public_ipv6_address()


async def _use(channel: Channel, key: tuple[str, str], find: Callable[[], Awaitable[Channel]], use: Use[T]) -> T:
    known = channel.others.get(key)
    if known is not None:
        try:
            return await _typed(use(known))
        except IGDError as error:
            if not _is_gone(error):
                raise
            channel.others.pop(key, None)  # restarted, perhaps: its places are others then
    found = channel.others[key] = await find()
    return await _typed(use(found))


async def _typed(work: Awaitable[T]) -> T:
    try:
        return await work
    except RefusedError as error:
        if error.error_code in _NO_SUCH_ACTION:
            raise UnsupportedError(error.message, error.error_code) from error
        raise


def _is_gone(error: IGDError) -> bool:
    if isinstance(error, TransportError):
        return not error.may_have_arrived
    return isinstance(error, InvalidResponseError) and error.status in NOT_THERE


def _description_url(channel: Channel) -> HttpUrl:
    try:
        return parse_url(channel.device.description_url)
    except ValueError:
        raise UnsupportedError(
            f"it is not known where {channel.device.igd_control_url} is described, so not what else is there"
        ) from None


def _our_address(channel: Channel, url: HttpUrl) -> str:
    """Return the address to ask from: the one towards the gateway, if it is of the family of the URL."""
    ours = channel.our_address
    return ours if ours and (":" in ours) == (":" in url.host) else source_address_for(url.host)


async def _described(channel: Channel, url: HttpUrl, source: str, name: str, call: Call) -> Service:
    reply = await channel.read(url, call, source)
    service = parse_description(reply.body, url).service(name)
    if service is None or not service.control_urls:
        raise UnsupportedError(f"the gateway at {url} has no service {name}")
    return service


async def _found_over_ipv6(channel: Channel, call: Call) -> HttpUrl:
    """Return where the gateway describes itself over IPv6, by its UDN."""
    udn = channel.device.udn
    if not udn:
        raise DiscoveryError("the gateway has no UDN by which to know it over IPv6", UPnPResult.NO_GATEWAY)
    options = SearchOptions(source_address=same_network_ipv6(channel.our_address), ipv6=True)
    call.start()
    left = call.deadline - asyncio.get_running_loop().time()
    device, _ = await Finder(channel.http, options).find_gateway(min(_SEARCH_TIME, max(left, 0.01)), udn)
    return parse_url(device.description_url)
