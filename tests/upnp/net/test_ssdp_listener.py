"""The listener for NOTIFYs: groups are joined and left as interfaces come and go, and floods cost little."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from aioigd.net.interfaces import Interface
from aioigd.testing import loopback_address, network
from aioigd.upnp.net import ssdp_listener
from aioigd.upnp.net.ssdp_listener import SsdpListener, TokenBucket
from aioigd.upnp.wire.ssdp import Announcement

pytestmark = pytest.mark.usefixtures("nothing_is_left")

LOOPBACK = socket.if_nametoindex("lo")
NOWHERE = Interface("::1", 9999)


def notify(sender: str, number: int = 0) -> None:
    with network.spare_socket(sender) as mouth:
        mouth.sendto(
            b"NOTIFY * HTTP/1.1\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\nUSN: uuid:1\r\n"
            b"LOCATION: http://%s/%d\r\n\r\n" % (sender.encode(), number),
            network.group_of(sender),
        )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)


@pytest.fixture
def address() -> Iterator[str]:
    with loopback_address() as address:
        yield address


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10.0, burst=5.0)
    assert [bucket.take(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not bucket.take(100.05)
    assert bucket.take(100.11)
    assert sum(bucket.take(100.11 + number / 1000) for number in range(10_000)) == pytest.approx(100, abs=1)
    assert [bucket.take(1000.0) for _ in range(6)] == [True] * 5 + [False]


async def test_the_group_is_joined_and_left_as_interfaces_come_and_go(address: str) -> None:
    heard: list[Announcement] = []
    listener = SsdpListener(lambda sender: sender == address, lambda notice, _: heard.append(notice))
    here, other = Interface(address, LOOPBACK), Interface("127.0.0.1", LOOPBACK)
    assert listener.follow([]) == {}
    notify(address)
    await asyncio.sleep(0.05)
    assert heard == []
    assert listener.follow([here, other]) == {}
    assert listener.interfaces == {here}, "one membership for each interface"
    notify(address)
    await until(lambda: len(heard) == 1)
    assert listener.follow([other]) == {}
    assert listener.interfaces == {other}, "an interface with another address is joined anew"
    notify(address)
    await until(lambda: len(heard) == 2)
    assert listener.follow([]) == {}
    notify(address)
    await asyncio.sleep(0.05)
    assert len(heard) == 2
    listener.close()


async def test_one_that_cannot_be_joined_keeps_no_other_away(address: str) -> None:
    heard: list[Announcement] = []
    listener = SsdpListener(lambda sender: sender == address, lambda notice, _: heard.append(notice))
    failures = listener.follow([NOWHERE, Interface(address, LOOPBACK)])
    assert [*failures] == [NOWHERE]
    notify(address)
    await until(lambda: len(heard) == 1)
    listener.close()


async def test_it_can_be_closed_while_it_pauses(address: str) -> None:
    listener = SsdpListener(lambda _: True, lambda *_: None)
    listener.follow([Interface(address, LOOPBACK)])
    for _ in range(2):
        notify(address)
        await asyncio.sleep(0.005)
    listener.close()
    await asyncio.sleep(2 * ssdp_listener._READ_PAUSE)


@pytest.mark.waits
async def test_of_a_flood_a_burst_is_heard_and_then_a_few_a_second(address: str) -> None:
    heard: list[Announcement] = []
    listener = SsdpListener(lambda sender: sender == address, lambda notice, _: heard.append(notice))
    listener.follow([Interface(address, LOOPBACK)])
    loop = asyncio.get_running_loop()
    began = loop.time()
    with network.spare_socket(address) as mouth:
        datagram = b"NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\nLOCATION: http://127.0.0.1/\r\n\r\n"
        for _ in range(100):
            for _ in range(20):
                mouth.sendto(datagram, network.group_of(address))
            await asyncio.sleep(0.005)
    seconds = loop.time() - began
    await asyncio.sleep(0.05)
    listener.close()
    assert ssdp_listener._BURST <= len(heard) <= ssdp_listener._BURST + (seconds + 0.1) * ssdp_listener._RATE
