"""Where a search goes, how much of it, and who is heard: several addresses, interfaces and routes, tunnels, liars."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Self

import pytest

from aioigd import IGDError, UPnPResult
from aioigd.upnp import search as search_module
from aioigd.upnp.net.ssdp_search import SearchReply

from .decoy import GROUP, Decoy
from .network import (
    LAN_ADDRESS,
    NEIGHBOUR_ADDRESS,
    ROUTER_ADDRESS,
    ROUTER_ADDRESS6,
    WAN_ADDRESS,
    Lab,
    Place,
    UpnpMapper,
)
from .router import Router

SPAN = 5.0
"""Seconds of the searches that are counted."""


class Ear:
    """Hears what is sent to port 1900 at an address, or to the group on the interface of an address."""

    def __init__(self, lab: Lab, place: Place, address: str, *, group: bool) -> None:
        with lab.inside(place):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._sock.setsockopt(socket.IPPROTO_IP, 49, 0)  # IP_MULTICAST_ALL: this interface only
            self._sock.bind((GROUP if group else address, 1900))
            if group:
                membership = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(address))
                self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._sock.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def senders(self) -> Counter[str]:
        """How many searches came from which address."""
        heard: Counter[str] = Counter()
        with contextlib.suppress(BlockingIOError):
            while True:
                datagram, sender = self._sock.recvfrom(4096)
                assert datagram.startswith(b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n")
                heard[sender[0]] += 1
        return heard


@contextlib.contextmanager
def changed(lab: Lab, place: Place, *lines: str, undo: Sequence[str]) -> Iterator[None]:
    """Change a host by commands of ip(8), and undo it."""
    try:
        for line in lines:
            lab.run(place, ["ip", *line.split()])
        yield
    finally:
        for line in undo:
            lab.run(place, ["ip", *line.split()], check=False)


async def search(source_address: str | None = None) -> None:
    async with UpnpMapper(source_address=source_address, timeout=SPAN, discovery_timeout=SPAN) as mapper:
        with pytest.raises(IGDError) as caught:
            await mapper.get_gateway()
        assert caught.value.result is UPnPResult.NO_DEVICES


@pytest.fixture
def confirmed(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, bool]]:
    """Who has replied, and whether that is confirmed."""
    seen: set[tuple[str, bool]] = set()
    on_reply = search_module.DeviceSearch._on_reply

    def noted(search: search_module.DeviceSearch, reply: SearchReply) -> None:
        seen.add((reply.sender, reply.is_confirmed))
        on_reply(search, reply)

    monkeypatch.setattr(search_module.DeviceSearch, "_on_reply", noted)
    return seen


def drop_multicast(lab: Lab) -> None:
    """The router hears no multicast any more."""
    drops = f"ip daddr {GROUP} drop\nip6 daddr ff00::/8 udp dport 1900 drop\n"
    lab._nft("router", "multicast", f"chain hears {{\ntype filter hook input priority 0\n{drops}}}\n")


class TestBudget:
    @pytest.mark.long
    async def test_of_two_addresses_in_a_network_the_one_towards_the_router_is_used(
        self, lab: Lab, inside_lan: None
    ) -> None:
        with (
            changed(
                lab,
                "lan",
                "address add 192.168.77.22/24 dev lan0",
                "address add 10.50.0.2/24 dev lan0",
                "route replace default via 192.168.77.1 dev lan0 src 192.168.77.22",
                undo=[
                    "route replace default via 192.168.77.1 dev lan0",
                    "address delete 192.168.77.22/24 dev lan0",
                    "address delete 10.50.0.2/24 dev lan0",
                ],
            ),
            Ear(lab, "neighbour", NEIGHBOUR_ADDRESS, group=True) as group,
            Ear(lab, "router", ROUTER_ADDRESS, group=False) as router,
        ):
            await search()
            by_group, by_unicast = group.senders(), router.senders()
            # The route says which address is used for the internet; the router itself is on the link.
            (ours,) = by_unicast
            assert by_unicast == {ours: 7}
            assert by_group == {ours: 33, "10.50.0.2": 9}

    @pytest.mark.long
    async def test_a_bridge_without_a_default_route_gets_nine(self, lab: Lab, inside_lan: None) -> None:
        with (
            changed(
                lab,
                "lan",
                "link add docker0 type bridge",
                "address add 172.17.0.1/16 dev docker0",
                "link set docker0 up",
                undo=["link delete docker0"],
            ),
            Ear(lab, "lan", "172.17.0.1", group=True) as bridge,
            Ear(lab, "neighbour", NEIGHBOUR_ADDRESS, group=True) as group,
            Ear(lab, "router", ROUTER_ADDRESS, group=False) as router,
        ):
            await search()
            assert bridge.senders() == {"172.17.0.1": 9}
            assert group.senders() == {LAN_ADDRESS: 33}
            assert router.senders() == {LAN_ADDRESS: 7}
            await search(source_address="172.17.0.1")
            assert bridge.senders() == {"172.17.0.1": 40}
            assert group.senders() == router.senders() == {}

    @pytest.mark.long
    async def test_without_any_default_route_nine_go_out(self, lab: Lab, inside_lan: None) -> None:
        lab.set_default_route(None)
        with Ear(lab, "neighbour", NEIGHBOUR_ADDRESS, group=True) as group:
            await search()
            assert group.senders() == {LAN_ADDRESS: 9}


class TestUnicast:
    async def test_a_router_that_gets_no_multicast_is_found_and_confirmed(
        self, lab: Lab, router: Router, inside_lan: None, confirmed: set[tuple[str, bool]]
    ) -> None:
        drop_multicast(lab)
        async with UpnpMapper() as mapper:
            assert (await mapper.get_gateway()).device.description_url == router.location
        assert confirmed == {(ROUTER_ADDRESS, True)}

    async def test_where_the_port_is_chosen_nothing_is_confirmed(
        self, lab: Lab, router: Router, inside_lan: None, confirmed: set[tuple[str, bool]]
    ) -> None:
        drop_multicast(lab)
        async with UpnpMapper(local_port=19_001) as mapper:
            assert (await mapper.get_gateway()).device.description_url == router.location
        assert confirmed == {(ROUTER_ADDRESS, False)}

    async def test_a_router_with_a_link_local_address_is_asked_in_its_zone(
        self, lab6: Lab, inside_lan6: None, confirmed: set[tuple[str, bool]]
    ) -> None:
        lab6.start_router(ipv6=True)
        drop_multicast(lab6)
        hop = lab6.link_local_address("router")
        lab6.set_default_route(hop, ipv6=True)
        async with UpnpMapper(ipv6=True) as mapper:
            await mapper.get_gateway()
        assert confirmed == {(f"{hop}%{socket.if_nametoindex('lan0')}", True)}

    @pytest.mark.parametrize("address", ["10.8.0.2/32", "10.8.0.2 peer 10.8.0.1/32"])
    async def test_a_gateway_at_the_other_end_of_a_tunnel_is_found(
        self, lab: Lab, inside_lan: None, confirmed: set[tuple[str, bool]], address: str
    ) -> None:
        with (
            changed(
                lab,
                "router",
                "address add 10.8.0.1/32 dev br-lan",
                "route add 10.8.0.2/32 dev br-lan",
                undo=["route delete 10.8.0.2/32 dev br-lan", "address delete 10.8.0.1/32 dev br-lan"],
            ),
            changed(
                lab,
                "lan",
                "address flush dev lan0 scope global",
                f"address add {address} dev lan0",
                "route replace default via 10.8.0.1 dev lan0 onlink",
                undo=[],
            ),
        ):
            try:
                with Decoy(lab, "router", "10.8.0.1", by_unicast=True) as gateway:
                    async with UpnpMapper() as mapper:
                        device = (await mapper.get_gateway()).device
                assert device.description_url == gateway.location
                assert device.igd_our_addr == "10.8.0.2"
                assert confirmed == {("10.8.0.1", True)}
            finally:
                lab.set_lan_address(LAN_ADDRESS)


class TestOffLink:
    async def test_a_reply_from_beyond_the_link_leads_nowhere(
        self, lab: Lab, inside_lan: None, confirmed: set[tuple[str, bool]]
    ) -> None:
        """The neighbour sends it in the name of a host on the internet."""
        with changed(
            lab, "neighbour", f"address add {WAN_ADDRESS}/32 dev lo", undo=[f"address delete {WAN_ADDRESS}/32 dev lo"]
        ):
            decoy = Decoy(lab, "neighbour", NEIGHBOUR_ADDRESS, reply_from=WAN_ADDRESS)
            with decoy, lab.watch_tcp("wan", decoy.port) as callers:
                async with UpnpMapper(discovery_timeout=1.0) as mapper:
                    with pytest.raises(IGDError) as caught:
                        await mapper.get_gateway()
                    assert await mapper.discover(1.0) == []
        assert caught.value.result is UPnPResult.NO_DEVICES
        assert (callers, decoy.requests, confirmed) == ([], [], set())

    async def test_a_reply_in_the_name_of_the_router_is_not_confirmed(
        self, lab: Lab, inside_lan: None, confirmed: set[tuple[str, bool]]
    ) -> None:
        with (
            changed(
                lab,
                "neighbour",
                f"address add {ROUTER_ADDRESS}/32 dev lo",
                undo=[f"address delete {ROUTER_ADDRESS}/32 dev lo"],
            ),
            Decoy(lab, "neighbour", NEIGHBOUR_ADDRESS, reply_from=ROUTER_ADDRESS),
        ):
            async with UpnpMapper(discovery_timeout=1.0) as mapper:
                await mapper.discover(1.0)
        assert confirmed == {(ROUTER_ADDRESS, False)}

    async def test_a_router_at_a_global_address_is_heard(self, lab6: Lab, inside_lan6: None) -> None:
        lab6.start_router(ipv6=True)
        drop_multicast(lab6)
        async with UpnpMapper(ipv6=True) as mapper:
            device = (await mapper.get_gateway()).device
        assert ROUTER_ADDRESS6 in device.description_url or ROUTER_ADDRESS in device.igd_control_url
