"""The sockets of a search: what they send, what they make of what comes in, and that they close."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioigd import TransportError
from aioigd.net.interfaces import Interface
from aioigd.testing import loopback_address
from aioigd.upnp.net import ssdp_search
from aioigd.upnp.net.ssdp_search import SearchReply, SsdpSearch

from ...support import settled_loop, sockets

pytestmark = pytest.mark.usefixtures("nothing_is_left")

TARGET = "upnp:rootdevice"


def reply(location: str, target: str = TARGET) -> bytes:
    return f"HTTP/1.1 200 OK\r\nLOCATION: {location}\r\nST: {target}\r\n\r\n".encode()


class Sender:
    """Somebody who sends datagrams to a search."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))

    def send(self, datagram: bytes, search: SsdpSearch) -> None:
        self.socket.sendto(datagram, local_address(search))


def local_address(search: SsdpSearch) -> tuple[str, int]:
    transport = search._endpoints[0]._transport
    assert transport is not None
    name = transport.get_extra_info("sockname")
    return name[0], name[1]


@pytest.fixture
def sender() -> Iterator[Sender]:
    with loopback_address() as address:
        sender = Sender(address)
        yield sender
        sender.socket.close()


@asynccontextmanager
async def searching(address: str, **options: Any) -> AsyncIterator[tuple[SsdpSearch, list[SearchReply]]]:
    seen: list[SearchReply] = []
    search = SsdpSearch([Interface(address, 1)], seen.append, ttl=options.pop("ttl", 2), local_port=0)
    async with search:
        yield search, seen


async def received() -> None:
    await asyncio.sleep(0.05)


async def test_a_reply_is_told_with_its_sender_and_our_address(address: str, sender: Sender) -> None:
    async with searching(address) as (search, seen):
        sender.send(reply("http://192.168.1.1/"), search)
        await received()
        (found,) = seen
        assert (found.sender, found.our_address) == (sender.address, address)
        assert found.announcement.location == "http://192.168.1.1/"


async def test_a_repeated_reply_is_told_once_and_a_different_one_again(address: str, sender: Sender) -> None:
    async with searching(address) as (search, seen):
        for datagram in (reply("http://a/"), reply("http://a/"), reply("http://b/"), reply("http://a/")):
            sender.send(datagram, search)
        await received()
        assert [reply.announcement.location for reply in seen] == ["http://a/", "http://b/"]


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x00\xff\xfe" * 100,
        b"x" * 60_000,
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nLOCATION: http://a/\r\n\r\n",
        b"NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nLOCATION: http://a/\r\n\r\n",
        b"M-SEARCH * HTTP/1.1\r\nMAN: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLOCATION: http://a/" + b"x" * 9000 + b"\r\n\r\n",
    ],
    ids=range(8),
)
async def test_anything_else_is_ignored(address: str, sender: Sender, junk: bytes) -> None:
    async with searching(address) as (search, seen):
        sender.send(junk, search)
        sender.send(reply("http://good/"), search)
        await received()
        assert [reply.announcement.location for reply in seen] == ["http://good/"]


async def test_a_flood_does_not_make_it_deaf_and_is_not_remembered(address: str, sender: Sender) -> None:
    async with searching(address) as (search, seen):
        for number in range(3000):
            sender.send(b"junk %d" % number, search)
            if number % 50 == 0:
                await asyncio.sleep(0.001)
        await received()
        sender.send(reply("http://good/"), search)
        await received()
        assert [reply.announcement.location for reply in seen] == ["http://good/"]
        assert len(search._endpoints[0]._seen) <= 1024


async def test_a_search_goes_to_the_group_and_to_the_unicast_addresses(address: str, sender: Sender) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind((sender.address, 1900))
        ear.setblocking(False)
        async with searching(address) as (search, _):
            search.send([TARGET, "ssdp:all"], [sender.address])
            await received()
            expected = [
                f"M-SEARCH * HTTP/1.1\r\nHOST: {sender.address}:1900\r\n"
                f'MAN: "ssdp:discover"\r\nMX: 1\r\nST: {target}\r\n\r\n'.encode()
                for target in (TARGET, "ssdp:all")
            ]
            assert [ear.recv(4096) for _ in expected] == expected


@pytest.mark.parametrize("ttl", [0, 1, 255])
async def test_the_ttl_and_the_interface_are_those_that_were_asked_for(address: str, ttl: int) -> None:
    async with searching(address, ttl=ttl) as (search, _):
        transport = search._endpoints[0]._transport
        assert transport is not None
        opened = transport.get_extra_info("socket")
        assert opened.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == ttl
        assert opened.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4) == socket.inet_aton(address)
        assert local_address(search)[0] == address


async def test_hops_and_interface_over_ipv6() -> None:
    async with SsdpSearch([Interface("::1", 1)], lambda _: None, ttl=7, local_port=0) as search:
        transport = search._endpoints[0]._transport
        assert transport is not None
        opened = transport.get_extra_info("socket")
        assert opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS) == 7
        assert opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF) == 1
        assert opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        search.send([TARGET])  # which goes nowhere on most machines, and is no error
        await received()


@pytest.mark.usefixtures("beyond_loopback")
async def test_one_interface_that_cannot_be_used_is_not_the_others_fault(address: str) -> None:
    places = [Interface("192.0.2.77", 1), Interface(address, 1)]
    async with SsdpSearch(places, lambda _: None, ttl=2, local_port=0) as search:
        assert local_address(search)[0] == address


@pytest.mark.usefixtures("beyond_loopback")
async def test_where_no_interface_can_be_used_it_is_an_error_with_a_reason() -> None:
    before = sockets()
    search = SsdpSearch([Interface("192.0.2.77", 1)], lambda _: None, ttl=2, local_port=0)
    with pytest.raises(TransportError, match=r"no search can be sent from here: .*assign"):
        await search.__aenter__()
    assert sockets() == before


async def test_a_closed_search_sends_and_hears_nothing(address: str, sender: Sender) -> None:
    async with searching(address) as (search, seen):
        endpoint = search._endpoints[0]
        where = local_address(search)
        search.close()
        search.close()
        endpoint.datagram_received(reply("http://late/"), (sender.address, 1900))
        endpoint.search((TARGET,), (), multicast=True)
        search.send([TARGET])
        await settled_loop()
        sender.socket.sendto(reply("http://a/"), where)
        assert seen == []


async def test_an_error_that_the_network_reports_is_no_end(address: str, sender: Sender) -> None:
    async with searching(address) as (search, seen):
        search._endpoints[0].error_received(OSError("unreachable"))
        sender.send(reply("http://a/"), search)
        await received()
        assert len(seen) == 1


async def test_a_link_local_sender_is_told_with_its_zone(address: str) -> None:
    async with searching(address) as (search, seen):
        search._endpoints[0].datagram_received(reply("http://[fe80::1]/"), ("fe80::1", 1900, 0, 3))
        assert seen[0].sender == "fe80::1%3"


async def test_an_opening_that_is_cancelled_leaves_no_socket(address: str) -> None:
    before = sockets()
    for rounds in range(5):
        search = SsdpSearch([Interface(address, 1)] * 3, lambda _: None, ttl=2, local_port=0)
        task = asyncio.ensure_future(search.__aenter__())
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        search.close()
        await settled_loop()
        assert sockets() == before


def test_a_socket_that_cannot_be_prepared_is_closed() -> None:
    before = sockets()
    with pytest.raises(OSError, match="assign"):
        ssdp_search._multicast_socket(Interface("192.0.2.77", 1), 2, 0)
    assert sockets() == before
