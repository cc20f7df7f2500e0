"""A client of PCP and NAT-PMP that hides nothing: it sends what it is told, and shows what comes back from where."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from typing import Any

from aioigd.models import Proto
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.common import CLIENT_PORT, GROUP_V4, NUMBER_OF, Address, unspecified_like
from aioigd.testing import EmulatedGateway

from .client import SETTLED, Heard, heard_by

__all__ = [
    "NONCE",
    "OTHER_NONCE",
    "address_of",
    "announce",
    "announcements_of",
    "ask",
    "external_address_of",
    "map_by_nat_pmp",
    "map_by_pcp",
    "one_reply",
    "pcp_request",
]

NONCE = bytes(range(12))
OTHER_NONCE = bytes(range(20, 32))
_IP_MULTICAST_ALL = 49
"""linux/in.h; not in the socket module of Python 3.11."""


async def ask(gateway: EmulatedGateway, datagram: bytes, *, patience: float = SETTLED, source: str = "") -> list[Heard]:
    """Send a datagram, and return all that comes back until it is quiet for so long."""
    family = socket.AF_INET6 if ":" in gateway.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.bind((source or gateway.address, 0))
        client.sendto(datagram, (gateway.address, gateway.pcp_port))
        return await heard_by(client, patience)


async def one_reply(gateway: EmulatedGateway, datagram: bytes, *, source: str = "") -> bytes:
    """Send a datagram, and return the one reply."""
    (reply,) = await ask(gateway, datagram, source=source)
    assert reply.sender[:2] == (gateway.address, gateway.pcp_port)
    return reply.payload


async def address_of(gateway: EmulatedGateway) -> nat_pmp.Response:
    """Ask for the external address by NAT-PMP."""
    response = nat_pmp.parse_response(await one_reply(gateway, nat_pmp.build_request(nat_pmp.AddressRequest())))
    assert response is not None
    return response


async def map_by_nat_pmp(
    gateway: EmulatedGateway,
    internal_port: int = 80,
    external_port: int = 0,
    lifetime: int = 3600,
    proto: Proto = "TCP",
    *,
    source: str = "",
) -> nat_pmp.Response:
    """Ask for a mapping by NAT-PMP, or with a lifetime of 0 for its end."""
    request = nat_pmp.MapRequest(proto, internal_port, external_port, lifetime)
    response = nat_pmp.parse_response(await one_reply(gateway, nat_pmp.build_request(request), source=source))
    assert response is not None
    return response


def pcp_request(
    client: str,
    internal_port: int = 80,
    external_port: int = 0,
    lifetime: int = 3600,
    proto: Proto | int = "TCP",
    *,
    nonce: bytes = NONCE,
    external_address: Address | None = None,
    options: Sequence[pcp.Option] = (),
) -> bytes:
    """Return a request for a mapping by PCP."""
    host = ip_address(client)
    number = proto if isinstance(proto, int) else NUMBER_OF[proto]
    suggested = unspecified_like(host) if external_address is None else external_address
    mapping = pcp.MapData(nonce, number, internal_port, external_port, suggested)
    return pcp.build_request(pcp.Request(pcp.Opcode.MAP, host, lifetime, mapping, tuple(options)))


async def map_by_pcp(
    gateway: EmulatedGateway, *arguments: Any, source: str = "", client: str = "", **more: Any
) -> pcp.Response:
    """Ask for a mapping by PCP, or with a lifetime of 0 for its end; arguments as for :func:`pcp_request`."""
    host = source or gateway.address
    request = pcp_request(client or host, *arguments, **more)
    response = pcp.parse_response(await one_reply(gateway, request, source=host))
    assert response is not None
    return response


async def announce(gateway: EmulatedGateway) -> pcp.Response:
    """Ask by PCP whether it is there."""
    request = pcp.Request(pcp.Opcode.ANNOUNCE, ip_address(gateway.address))
    response = pcp.parse_response(await one_reply(gateway, pcp.build_request(request)))
    assert response is not None
    return response


@asynccontextmanager
async def announcements_of(address: str) -> AsyncIterator[list[Heard]]:
    """Listen to the announcements of the routers on a loopback address; a context manager."""
    loop = asyncio.get_running_loop()
    heard: list[Heard] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        listener.bind((GROUP_V4, CLIENT_PORT))
        member = socket.inet_aton(GROUP_V4) + socket.inet_aton(address)
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)

        def receive() -> None:
            with suppress(BlockingIOError):
                while True:
                    one = Heard(*listener.recvfrom(65536))
                    if one.sender[0] == address:
                        heard.append(one)

        loop.add_reader(listener, receive)
        try:
            yield heard
        finally:
            loop.remove_reader(listener)


def external_address_of(response: nat_pmp.Response | pcp.Response) -> Address | None:
    """Return the external address in a response, None where there is none."""
    if isinstance(response, nat_pmp.AddressResponse):
        return response.address
    if isinstance(response, pcp.Response) and response.mapping is not None:
        return response.mapping.external_address
    return None
