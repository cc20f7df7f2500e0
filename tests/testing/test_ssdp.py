"""Discovery as UDA 1.1 section 1 has it."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from aioigd.testing import EmulatedGateway, quirks
from aioigd.testing.network import search_socket

from .client import IGD_1, WAN_IP_1, WAN_IP_2, Heard, search

pytestmark = pytest.mark.waits


@contextmanager
def bystander(address: str) -> Iterator[asyncio.Queue[tuple[bytes, Any]]]:
    """Listen to what is multicast from an address."""
    heard: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    with search_socket(address) as listener:

        def read() -> None:
            payload, sender = listener.recvfrom(65536)
            if sender[0] == address and payload.startswith(b"NOTIFY"):
                heard.put_nowait((payload, sender))

        loop.add_reader(listener, read)
        try:
            yield heard
        finally:
            loop.remove_reader(listener)


def targets(heard: list[Heard]) -> list[str]:
    return [each.headers["ST"] for each in heard]


async def test_a_search_for_everything_gets_one_reply_per_thing(gateway: EmulatedGateway) -> None:
    heard = await search(gateway.address, "ssdp:all")
    kinds = [target for target in targets(heard) if not target.startswith("uuid:")]
    assert kinds == [
        "upnp:rootdevice",
        "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
        "urn:schemas-upnp-org:service:Layer3Forwarding:1",
        "urn:schemas-upnp-org:device:WANDevice:1",
        "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1",
        "urn:schemas-upnp-org:device:WANConnectionDevice:1",
        WAN_IP_1,
    ]
    assert len(heard) == len(kinds) + 3, "and one per device, for its UDN"


@pytest.mark.parametrize("target", ["upnp:rootdevice", IGD_1, WAN_IP_1])
async def test_a_search_for_one_thing_gets_one_reply(gateway: EmulatedGateway, target: str) -> None:
    (reply,) = await search(gateway.address, target)
    assert reply.payload.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.payload.endswith(b"\r\n\r\n")
    assert reply.sender == (gateway.address, 1900)
    assert reply.headers["LOCATION"] == gateway.location
    assert reply.headers["ST"] == target
    assert reply.headers["USN"].startswith("uuid:")
    assert reply.headers["USN"].endswith(f"::{target}")
    assert reply.headers["EXT"] == ""
    assert reply.headers["BOOTID.UPNP.ORG"].isdigit()


async def test_a_device_is_found_by_its_udn(gateway: EmulatedGateway) -> None:
    udn = (await search(gateway.address, IGD_1))[0].headers["USN"].partition("::")[0]
    (reply,) = await search(gateway.address, udn)
    assert reply.headers["ST"] == reply.headers["USN"] == udn


async def test_version_2_answers_for_version_1_as_version_1(gateway_v2: EmulatedGateway) -> None:
    (reply,) = await search(gateway_v2.address, WAN_IP_1)
    assert reply.headers["ST"] == WAN_IP_1
    assert reply.headers["USN"].endswith(WAN_IP_1)
    (reply,) = await search(gateway_v2.address, WAN_IP_2)
    assert reply.headers["ST"] == WAN_IP_2


async def test_version_1_does_not_answer_for_version_2(gateway: EmulatedGateway) -> None:
    assert await search(gateway.address, WAN_IP_2) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMAN: ssdp:discover\r\nMX: 1\r\nST: ssdp:all\r\n\r\n",
        b'M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMAN: "ssdp:discover"\r\nST: ssdp:all\r\n\r\n',
        b'M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMAN: "ssdp:discover"\r\nMX: 0\r\nST: ssdp:all\r\n\r\n',
        b'M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n\r\n',
        b'M-SEARCH * HTTP/1.1\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n',
        b'M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: ssdp:all\r\n\r\nbody',
        b'M-SEARCH * HTTP/1.1\r\nHOST: x\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: ssdp:all\r\n',
        b'M-SEARCH / HTTP/1.1\r\nHOST: x\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n',
    ],
)
async def test_a_search_that_is_wrong_gets_no_reply_and_is_recorded(gateway: EmulatedGateway, raw: bytes) -> None:
    assert await search(gateway.address, raw=raw) == []
    async with asyncio.timeout(30):
        while not gateway.requests:  # noqa: ASYNC110 - on a busy machine it comes late
            await asyncio.sleep(0.01)
    assert gateway.requests[0].raw == raw
    assert gateway.requests[0].problem


@pytest.mark.parametrize("raw", [b"\0", b"NOTIFY * HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256))])
async def test_what_is_no_search_is_ignored(gateway: EmulatedGateway, raw: bytes) -> None:
    assert await search(gateway.address, raw=raw) == []
    assert gateway.requests == []


async def test_a_search_may_be_sent_to_the_gateway_itself(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1, to=gateway.address)
    assert reply.headers["LOCATION"] == gateway.location


async def test_over_ipv6_it_answers_on_its_own_address() -> None:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with EmulatedGateway(address="::1") as gateway:
        assert gateway.location.startswith("http://[::1]:")
        found: set[str] = set()
        for _ in range(50):
            # Where several gateways live on ::1, those of other test processes, each search reaches one of them.
            found |= {reply.headers["LOCATION"] for reply in await search("::1", IGD_1, to="::1")}
            if gateway.location in found:
                break
    assert gateway.location in found


async def test_it_announces_itself_and_says_goodbye() -> None:
    async with EmulatedGateway(address=None) as gateway:
        with bystander(gateway.address) as heard:
            await gateway.restart()
            goodbyes = [await heard.get() for _ in range(10)]
            hellos = [await heard.get() for _ in range(10)]
        assert all(b"\r\nNTS: ssdp:byebye\r\n" in payload for payload, _ in goodbyes)
        assert all(b"\r\nNTS: ssdp:alive\r\n" in payload for payload, _ in hellos)
        assert all(gateway.location.encode() in payload for payload, _ in hellos)
        boots = [payload.partition(b"BOOTID.UPNP.ORG: ")[2].split()[0] for payload, _ in (goodbyes[0], hellos[0])]
        assert int(boots[1]) > int(boots[0])


async def test_a_power_cut_has_no_goodbye() -> None:
    async with EmulatedGateway(address=None) as gateway:
        with bystander(gateway.address) as heard:
            await gateway.restart(polite=False)
            assert b"\r\nNTS: ssdp:alive\r\n" in (await heard.get())[0]


async def test_one_that_never_announces_is_silent() -> None:
    async with EmulatedGateway(quirks.never_announces, address=None) as gateway:
        with bystander(gateway.address) as heard:
            await gateway.restart()
            assert heard.empty()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one loopback address")
async def test_gateways_on_different_addresses_do_not_hear_each_other(gateway: EmulatedGateway) -> None:
    async with EmulatedGateway(address=None) as other:
        locations = {reply.headers["LOCATION"] for reply in await search(gateway.address)}
        assert locations == {gateway.location}
        assert other.requests == []


async def test_gateways_on_one_address_are_two_gateways_in_one_network(gateway: EmulatedGateway) -> None:
    async with EmulatedGateway(address=gateway.address) as other:
        heard = await search(gateway.address, IGD_1)
        assert {reply.headers["LOCATION"] for reply in heard} == {gateway.location, other.location}
        assert len({reply.headers["USN"] for reply in heard}) == 2
