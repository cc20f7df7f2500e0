"""The sockets of a search: what they send, what they make of what comes in, and that they close."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from aioigd import TransportError
from aioigd.net.interfaces import Interface
from aioigd.net.trace import tracer
from aioigd.testing import loopback_address, network
from aioigd.upnp.net import ssdp_search
from aioigd.upnp.net.ssdp_search import Ask, SearchReply, SearchSockets, SsdpSearch

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


def opened_socket(search: SsdpSearch, number: int = 0) -> socket.socket:
    return [*search._seen][number]._sock


def local_address(search: SsdpSearch, number: int = 0) -> tuple[str, int]:
    name = opened_socket(search, number).getsockname()
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
@pytest.mark.waits
async def test_anything_else_is_ignored(address: str, sender: Sender, junk: bytes) -> None:
    async with searching(address) as (search, seen):
        sender.send(junk, search)
        sender.send(reply("http://good/"), search)
        await received()
        assert [reply.announcement.location for reply in seen] == ["http://good/"]


@pytest.mark.waits
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
        assert [len(seen) <= 1024 for seen in search._seen.values()] == [True]


async def test_a_search_goes_to_the_group_and_to_the_unicast_addresses(address: str, sender: Sender) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind((sender.address, 1900))
        ear.setblocking(False)
        here = Interface(address, 1)
        with network.search_socket(address) as group:
            ask = Ask(sender.address, here)
            async with SsdpSearch([here], lambda _: None, ttl=2, local_port=0, asks=[ask]) as search:
                search.ask([TARGET, "ssdp:all"], ask)
                search.send([TARGET], here)
                await received()
                (_, by_unicast), (_, by_multicast) = ear.recvfrom(4096, socket.MSG_PEEK), group.recvfrom(4096)
                while by_multicast[0] != address:  # the group hears what other programs search, too
                    _, by_multicast = group.recvfrom(4096)
                assert by_unicast[0] == by_multicast[0] == address
                assert by_unicast[1] != by_multicast[1], "nobody else learns the port from which one host is asked"
            expected = [
                f"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"
                f'MAN: "ssdp:discover"\r\nMX: 1\r\nST: {target}\r\n\r\n'.encode()
                for target in (TARGET, "ssdp:all")
            ]
            assert [ear.recv(4096) for _ in expected] == expected


@pytest.mark.parametrize("ttl", [0, 1, 255])
async def test_the_ttl_and_the_interface_are_those_that_were_asked_for(address: str, ttl: int) -> None:
    async with searching(address, ttl=ttl) as (search, _):
        search.send([TARGET], Interface(address, 1))
        opened = opened_socket(search)
        assert opened.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == ttl
        assert opened.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4) == socket.inet_aton(address)
        assert local_address(search)[0] == address


async def test_hops_and_interface_over_ipv6() -> None:
    here = Interface("::1", 1)
    async with SsdpSearch([here], lambda _: None, ttl=7, local_port=0) as search:
        search.send([TARGET], here)  # which goes nowhere on most machines, and is no error
        search.send([TARGET], here, site_scope=True)
        opened = opened_socket(search)
        assert opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS) == 7
        assert opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF) == 1
        assert opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
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
        (endpoint,) = search._seen
        where = local_address(search)
        search.close()
        search.close()
        endpoint.datagram_received(reply("http://late/"), (sender.address, 1900))
        search.receive(endpoint, reply("http://late/"), sender.address)
        endpoint.send(b"late", sender.address, 2)
        search.send([TARGET], Interface(address, 1))
        search.ask([TARGET], Ask(sender.address, Interface(address, 1)))
        await settled_loop()
        sender.socket.sendto(reply("http://a/"), where)
        assert seen == []


async def test_an_error_that_the_network_reports_is_no_end(address: str, sender: Sender) -> None:
    async with searching(address) as (search, seen):
        for endpoint in search._seen:
            endpoint.error_received(OSError("unreachable"))
        sender.send(reply("http://a/"), search)
        await received()
        assert len(seen) == 1


async def test_a_link_local_sender_is_told_with_its_zone_and_heard_in_it_only() -> None:
    seen: list[SearchReply] = []
    async with SsdpSearch([Interface("::1", 3)], seen.append, ttl=2, local_port=0) as search:
        (endpoint,) = search._seen
        endpoint.datagram_received(reply("http://[fe80::1]/"), ("fe80::1", 1900, 0, 4))
        endpoint.datagram_received(reply("http://[fe80::1]/"), ("fe80::1", 1900, 0, 3))
        assert [one.sender for one in seen] == ["fe80::1%3"]


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
        ssdp_search._search_socket(Interface("192.0.2.77", 1), 0)
    assert sockets() == before


# Who is heard


def a_lan(address: str, **options: Any) -> Interface:
    """An interface that has an address on loopback, and all of 10.1.0.0/16 on its link."""
    return Interface(address, 2, 16, (ip_network("10.1.0.0/16"),), **options)


@pytest.mark.usefixtures("beyond_loopback")
@pytest.mark.parametrize(
    ("sender", "is_heard"),
    [
        ("10.1.2.3", True),
        ("10.1.255.255", True),
        ("10.2.0.1", False),
        ("192.168.9.9", True),  # the router of the default route, which is in no network of this interface
        ("192.168.7.7", True),  # the one that is asked
        ("192.168.7.8", False),
        ("8.8.8.8", False),
    ],
)
async def test_only_hosts_on_the_link_and_routers_are_heard(address: str, sender: str, is_heard: bool) -> None:
    seen: list[SearchReply] = []
    traced: list[str] = []

    class Traced:
        def datagram(self, _: str, __: bytes, peer: str) -> None:
            traced.append(peer)

        def pcp_datagram(self, *_: object) -> None:
            raise AssertionError("nobody is asked by PCP")

        def exchange(self, _: object) -> None:
            raise AssertionError("nothing is requested")

    here = a_lan(address)
    token = tracer.set(Traced())
    async with SsdpSearch(
        [here], seen.append, ttl=2, local_port=0, asks=[Ask("192.168.7.7", here)], trusted=["192.168.9.9"]
    ) as search:
        for endpoint in tuple(search._seen):
            endpoint.datagram_received(reply("http://a/"), (sender, 1900))
        assert [one.sender for one in seen] == [sender] * 2 * is_heard
        assert traced == [sender] * 2, "a recorder has them all"
        assert [one.is_confirmed for one in seen] == [False] * 2 * is_heard, "nobody was asked yet"
    tracer.reset(token)


# Which replies are confirmed


async def test_a_reply_of_the_host_that_was_asked_to_the_port_that_only_it_knows_is_confirmed(address: str) -> None:
    with loopback_address() as router, loopback_address() as liar:
        here = Interface(address, 1)
        ask = Ask(router, here)
        seen: list[SearchReply] = []
        with network.server_socket(router) as ear, network.spare_socket(router) as other_port:
            async with SsdpSearch([here], seen.append, ttl=2, local_port=0, asks=[ask]) as search:
                search.ask([TARGET], ask)
                await received()
                private = ear.recvfrom(4096)[1]
                ear.sendto(reply("http://asked/"), private)
                other_port.sendto(reply("http://asked/from-another-port"), private)
                ear.sendto(reply("http://group/"), local_address(search, 0))
                with network.spare_socket(liar) as mouth:
                    mouth.sendto(reply("http://liar/"), private)
                await received()
        assert {one.announcement.location: one.is_confirmed for one in seen} == {
            "http://asked/": True,
            "http://asked/from-another-port": True,
            "http://group/": False,
            "http://liar/": False,
        }
        assert {one.our_address for one in seen} == {address}


async def test_each_of_several_routers_has_a_port_of_its_own(address: str) -> None:
    with loopback_address() as one, loopback_address() as other:
        here = Interface(address, 1)
        asks = [Ask(one, here), Ask(other, here)]
        seen: list[SearchReply] = []
        with network.server_socket(one) as ear, network.server_socket(other) as another:
            async with SsdpSearch([here], seen.append, ttl=2, local_port=0, asks=asks) as search:
                for ask in asks:
                    search.ask([TARGET], ask)
                await received()
                to_one, to_other = ear.recvfrom(4096)[1], another.recvfrom(4096)[1]
                assert to_one != to_other
                another.sendto(reply("http://a/"), to_one)
                await received()
        assert [reply.is_confirmed for reply in seen] == [False]


async def test_nothing_is_confirmed_where_the_port_is_chosen_by_the_program(address: str) -> None:
    port = free_port(address)
    with loopback_address() as router:
        here = Interface(address, 1)
        ask = Ask(router, here)
        seen: list[SearchReply] = []
        with network.server_socket(router) as ear:
            async with SsdpSearch([here], seen.append, ttl=2, local_port=port, asks=[ask]) as search:
                search.ask([TARGET], ask)
                await received()
                assert ear.recvfrom(4096)[1] == (address, port)
                ear.sendto(reply("http://asked/"), (address, port))
                await received()
        assert [one.is_confirmed for one in seen] == [False]


@pytest.mark.waits
async def test_a_host_without_an_ear_does_no_harm(address: str, sender: Sender) -> None:
    """Its ICMP message, port unreachable, is no end of the search."""
    here = Interface(address, 1)
    seen: list[SearchReply] = []
    with loopback_address() as deaf:  # at 127.0.0.1 another test may have a gateway
        ask = Ask(deaf, here)
        async with SsdpSearch([here], seen.append, ttl=2, local_port=0, asks=[ask]) as search:
            for _ in range(3):
                search.ask([TARGET], ask)
                await received()
            sender.socket.sendto(reply("http://a/"), local_address(search, 1))
            await received()
            assert len(seen) == 1


# A port that the program has chosen


def free_port(address: str) -> int:
    with network.spare_socket(address) as free:
        return int(free.getsockname()[1])


async def test_searches_that_run_at_once_share_the_port_and_each_hears_every_reply(
    address: str, sender: Sender
) -> None:
    sockets_of_driver = SearchSockets()
    port, here = free_port(address), Interface(address, 1)
    heard: tuple[list[SearchReply], list[SearchReply]] = ([], [])

    def search(number: int, ttl: int) -> SsdpSearch:
        return SsdpSearch([here], heard[number].append, ttl=ttl, local_port=port, sockets=sockets_of_driver)

    one, other = search(0, 2), search(1, 7)
    await asyncio.gather(one.__aenter__(), other.__aenter__())
    assert local_address(one) == local_address(other) == (address, port)
    for each, ttl in ((one, 2), (other, 7), (one, 2)):
        each.send([TARGET], here)
        assert opened_socket(one).getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == ttl
    sender.socket.sendto(reply("http://both/"), (address, port))
    await received()
    one.close()
    sender.socket.sendto(reply("http://the-other/"), (address, port))
    await received()
    third = search(0, 2)
    async with third:
        for _ in range(2):
            sender.socket.sendto(reply("http://both/"), (address, port))
        await received()
        other.close()
    assert [each.announcement.location for each in heard[0]] == ["http://both/", "http://both/"]
    assert [each.announcement.location for each in heard[1]] == ["http://both/", "http://the-other/"]


async def test_a_search_at_one_host_hears_no_answers_to_another_search(address: str, sender: Sender) -> None:
    sockets_of_driver = SearchSockets()
    port, here = free_port(address), Interface(address, 1)
    heard: list[SearchReply] = []
    ask = Ask("127.77.77.77", here)
    with network.spare_socket(ask.host) as asked:
        async with (
            SsdpSearch([here], lambda _: None, ttl=2, local_port=port, sockets=sockets_of_driver),
            SsdpSearch([], heard.append, ttl=2, local_port=port, asks=[ask], sockets=sockets_of_driver),
        ):
            sender.socket.sendto(reply("http://another/"), (address, port))
            asked.sendto(reply("http://asked/"), (address, port))
            await received()
    assert [one.announcement.location for one in heard] == ["http://asked/"]


async def test_one_search_after_another_can_have_the_port(address: str) -> None:
    sockets_of_driver = SearchSockets()
    port = free_port(address)
    for _ in range(5):
        async with SsdpSearch(
            [Interface(address, 1)], lambda _: None, ttl=2, local_port=port, sockets=sockets_of_driver
        ):
            pass
    assert len(sockets_of_driver._shared) <= 1
    await settled_loop()
    assert sockets_of_driver._shared == {}


@pytest.mark.parametrize("option", [None, socket.SO_REUSEADDR, socket.SO_REUSEPORT])
async def test_no_other_program_can_have_it_as_well(address: str, option: int | None) -> None:
    port = free_port(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        if option is not None:
            thief.setsockopt(socket.SOL_SOCKET, option, 1)
        async with SsdpSearch([Interface(address, 1)], lambda _: None, ttl=2, local_port=port):
            with pytest.raises(OSError, match="in use"):
                thief.bind((address, port))
        await settled_loop()
        thief.bind((address, port))
        before = sockets()
        with pytest.raises(TransportError, match=rf"port {port} is in use by another program.*local_port=0 means any"):
            await SsdpSearch([Interface(address, 1)], lambda _: None, ttl=2, local_port=port).__aenter__()
        assert sockets() == before


async def test_an_opening_that_is_cancelled_is_not_another_searchs_fault(address: str) -> None:
    before = sockets()
    here = Interface(address, 1)
    for rounds in range(6):
        sockets_of_driver, port = SearchSockets(), free_port(address)
        one, other = (
            SsdpSearch([here], lambda _: None, ttl=2, local_port=port, sockets=sockets_of_driver) for _ in range(2)
        )
        opening = asyncio.ensure_future(one.__aenter__())
        waiting = asyncio.ensure_future(other.__aenter__())
        for _ in range(rounds):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening, waiting})
        assert await waiting is other
        assert local_address(other) == (address, port)
        one.close()
        other.close()
        await settled_loop()
        assert sockets() == before


async def test_a_kernel_that_does_not_know_an_option_is_no_obstacle(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setsockopt = socket.socket.setsockopt

    def refused(sock: socket.socket, level: int, option: int, *value: Any) -> None:
        if (level, option) in ((socket.SOL_SOCKET, socket.SO_REUSEPORT), (socket.SOL_SOCKET, socket.SO_REUSEADDR)):
            raise OSError(92, "Protocol not available")
        setsockopt(sock, level, option, *value)

    monkeypatch.setattr(socket.socket, "setsockopt", refused)
    sockets_of_driver, port = SearchSockets(), free_port(address)
    searches = [
        SsdpSearch([Interface(address, 1)], lambda _: None, ttl=2, local_port=port, sockets=sockets_of_driver)
        for _ in range(2)
    ]
    async with asyncio.timeout(5), searches[0], searches[1]:
        assert local_address(searches[0]) == local_address(searches[1])
