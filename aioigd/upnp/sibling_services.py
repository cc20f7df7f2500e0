"""Where the other services of a gateway are: each is looked up when it is first asked, and cached.

Ports are mapped on one service, which the search has found. What counts bytes and what opens pinholes are services
beside it, and the description says where. It is read again, as nothing else was kept of it; nothing that it says
leads away from the address where it was read. The firewall goes by the IPv6 address that it is asked from, so it is
asked over IPv6: where the gateway was found over IPv4, it is searched for over IPv6 first, in the same network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from async_timeout import timeout_at

from ..core.backend import Candidate, Rank, SearchScope
from ..core.calls import Operation, Undo
from ..errors import DiscoveryError, IGDError, InvalidResponseError, RefusedError, UnsupportedError, is_gone
from ..models import Device
from ..net.interfaces import is_our_address, public_ipv6_address, same_network_ipv6, source_address_for
from ..results import UPnPResult
from .net.http import HttpClient
from .search import DeviceSearch
from .soap_client import SoapClient
from .wire.description import Service, parse_description, udn_key
from .wire.error_codes import UPnPErrorCode
from .wire.soap import Action
from .wire.url import HttpUrl, parse_url

__all__ = ["SiblingServices", "our_ipv6_address", "search_by_udn"]

_SEARCH_TIME: Final = 3.0
"""Seconds to look for a gateway over IPv6, as a part of the call that needs it."""


class SiblingServices:
    """The services of the gateway that is spoken to by ``client``."""

    def __init__(self, client: SoapClient) -> None:
        self._client = client
        self._clients: dict[tuple[str, str], SoapClient] = {}
        """By the name of the service, and the address of this machine to ask a firewall from."""

    async def call(self, op: Operation, service: str, *actions: Action) -> list[Mapping[str, str]]:
        """Send actions to a service (its name in lower case) at the same time, and return what each of them outputs.

        Raises UnsupportedError where the gateway has no such service, or the service no such action.
        """
        return await self._call(op, (service, ""), actions)

    async def call_firewall(
        self, op: Operation, service: str, source: str, action: Action, *, undo: Undo | None = None
    ) -> Mapping[str, str]:
        """Send an action to a service at its IPv6 address, from ``source``, or any address of ours if it is not ours.

        ``undo``: how to take back what the action may change. Raises UnsupportedError as :meth:`call`; DiscoveryError
        where the gateway is not found over IPv6, NoRouteError where this machine has no IPv6.
        """
        (values,) = await self._call(op, (service, source), (action,), over_ipv6=True, undo=undo)
        return values

    async def _call(
        self,
        op: Operation,
        key: tuple[str, str],
        actions: tuple[Action, ...],
        *,
        over_ipv6: bool = False,
        undo: Undo | None = None,
    ) -> list[Mapping[str, str]]:
        find = self._find_over_ipv6 if over_ipv6 else self._find
        client = self._clients.get(key)
        if client is not None:
            try:
                return await _call_all(client, op, actions, undo)
            except IGDError as error:
                if not is_gone(error):
                    raise
                self._clients.pop(key, None)  # it may have restarted, and have other URLs now
        client = self._clients[key] = await find(op, *key)
        return await _call_all(client, op, actions, undo)

    async def _find(self, op: Operation, service: str, _: str) -> SoapClient:
        url = self._description_url()
        source = self._source_for(url)
        return self._client.for_service(await self._described(op, url, source, service), source)

    async def _find_over_ipv6(self, op: Operation, service: str, source: str) -> SoapClient:
        url = self._description_url()
        if ":" not in url.host:
            # What it does not name here it will not name there, and the search is saved.
            await self._described(op, url, self._source_for(url), service)
            url = await self._search_over_ipv6(op, service)
        ours = source if source and is_our_address(source) else source_address_for(url.host)
        return self._client.for_service(await self._described(op, url, ours, service), ours)

    def _description_url(self) -> HttpUrl:
        try:
            return parse_url(self._client.device.description_url)
        except ValueError:
            raise UnsupportedError(
                f"the description of {self._client.device.igd_control_url} is not known, and so not its other services"
            ) from None

    def _source_for(self, url: HttpUrl) -> str:
        """Return the address to ask from: the one towards the gateway, if it is of the family of the URL."""
        ours = self._client.local_address
        return ours if ours and (":" in ours) == (":" in url.host) else source_address_for(url.host)

    async def _described(self, op: Operation, url: HttpUrl, source: str, name: str) -> Service:
        reply = await self._client.get(url, op, source)
        service = parse_description(reply.body, url).service(name)
        if service is None or not service.control_urls:
            raise UnsupportedError(f"the gateway at {url} has no service {name}")
        return service

    async def _search_over_ipv6(self, op: Operation, service: str) -> HttpUrl:
        """Return where the gateway describes itself over IPv6, by its UDN (UDA 1.1 section 2.3)."""
        udn = self._client.device.udn
        if not udn:
            raise DiscoveryError("the gateway has no UDN by which to know it over IPv6", UPnPResult.NO_GATEWAY)
        scope = SearchScope(source_address=same_network_ipv6(self._client.local_address), ipv6=True)
        now = asyncio.get_running_loop().time()
        until = min(now + _SEARCH_TIME, max(op.deadline, now + 0.01))
        return parse_url((await search_by_udn(self._client.http, scope, udn, until, service)).description_url)


async def search_by_udn(http: HttpClient, scope: SearchScope, udn: str, until: float, service: str = "") -> Device:
    """Return the gateway that has this UDN; raises DiscoveryError where it does not answer before ``until``.

    ``service``: the name in lower case of one that it is to have; another description of it may have more of them. One
    without it is returned where no other one comes.
    """
    found: asyncio.Future[Device] = asyncio.get_running_loop().create_future()
    without: list[Device] = []

    def report(candidate: Candidate | None) -> None:
        if (
            candidate is None
            or udn_key(candidate.device.udn) != udn_key(udn)
            or candidate.rank is Rank.USELESS
            or found.done()
        ):
            return
        if not service or any(f":service:{service}:" in text.lower() for text in candidate.types):
            found.set_result(candidate.device)
        else:
            without.append(candidate.device)

    async with DeviceSearch(http, scope, until, report) as search:
        try:
            async with timeout_at(until):
                return await found
        except TimeoutError:
            if without:
                return without[-1]
            raise search.failure() from None


def our_ipv6_address(local_address: str) -> str:
    """Return the IPv6 address of this machine for a pinhole.

    ``local_address``: the one towards the gateway. Raises NoRouteError where there is none.
    """
    return "::1" if ip_address(local_address.partition("%")[0]).is_loopback else public_ipv6_address()


async def _call_all(
    client: SoapClient, op: Operation, actions: tuple[Action, ...], undo: Undo | None
) -> list[Mapping[str, str]]:
    try:
        return await asyncio.gather(*(client.call(action, op, undo=undo) for action in actions))
    except RefusedError as error:
        if UPnPErrorCode.is_unsupported(error.error_code):
            raise UnsupportedError(error.message, error.error_code) from error
        raise
    except InvalidResponseError as error:
        if error.status == 400:  # as some say to an action that they do not have
            raise UnsupportedError(error.message) from error
        raise
