"""Which of several gateways leads to the internet, by what each says of itself."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import cast

import pytest

from aioigd import ConnectionStatus, DeadlineError, IGDError, RefusedError, TransportError, UPnPResult
from aioigd.core.backend import Backend
from aioigd.core.standing import CONNECTED, DISCONNECTED, REFUSES, SILENT, UNREACHABLE, most_connected, standing
from aioigd.errors import UnsupportedError

pytestmark = pytest.mark.virtual_time

PUBLIC, PRIVATE, CGNAT = IPv4Address("44.0.0.1"), IPv4Address("192.168.1.7"), IPv4Address("100.64.0.7")


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ((True, PUBLIC), (True, PRIVATE)),
        ((True, PUBLIC), (None, PUBLIC)),
        ((None, PUBLIC), (True, CGNAT)),
        ((True, PRIVATE), (True, None)),
        ((None, PRIVATE), (True, None)),
        ((None, CGNAT), (False, PUBLIC)),
        ((True, None), (False, PUBLIC)),
        ((None, None), (False, None)),
        ((False, PUBLIC), (False, None)),
    ],
)
def test_what_is_better(better: tuple[bool | None, IPv4Address], worse: tuple[bool | None, IPv4Address]) -> None:
    assert standing(*better) > standing(*worse)


def test_the_ends_of_the_scale() -> None:
    assert standing(True, PUBLIC) == CONNECTED
    assert standing(None, None) > SILENT > standing(False, None) == DISCONNECTED > REFUSES > UNREACHABLE


class Scripted:
    """A gateway that says this, after so many seconds."""

    def __init__(
        self, status: str | Exception | None, address: IPv4Address | Exception | None = None, delay: float = 0.0
    ) -> None:
        self._status = status
        self._address = address
        self._delay = delay

    async def connection_status(self, _: object) -> ConnectionStatus:
        await asyncio.sleep(self._delay)
        if isinstance(self._status, Exception):
            raise self._status
        return ConnectionStatus(self._status or "")

    async def external_address(self, _: object) -> IPv4Address:
        if isinstance(self._address, IPv4Address):
            return self._address
        raise self._address or IGDError("none")


async def chosen(*gateways: Scripted, seconds: float = 3.0) -> int:
    backends = [cast(Backend, each) for each in gateways]
    return backends.index((await most_connected(backends, seconds))[0])


DEAD = Scripted("Disconnected")
GOOD = Scripted("Connected", PUBLIC)


async def test_the_one_that_is_connected_is_taken() -> None:
    assert await chosen(DEAD, GOOD) == 1
    assert await chosen(GOOD, DEAD) == 0
    assert await chosen(GOOD, GOOD) == 0


async def test_a_private_address_is_better_than_none() -> None:
    assert await chosen(Scripted("Connected"), Scripted("Connected", CGNAT)) == 1


async def test_what_does_not_tell_its_state_may_be_connected() -> None:
    assert await chosen(DEAD, Scripted(UnsupportedError("no such action", 401), PRIVATE)) == 1


@pytest.mark.parametrize(
    "worst",
    [
        Scripted(TransportError("cut", may_have_arrived=True)),
        Scripted(RefusedError("no", UPnPResult.NOT_AUTHORIZED), RefusedError("no", UPnPResult.NOT_AUTHORIZED)),
    ],
)
async def test_what_does_not_talk_is_worst(worst: Scripted) -> None:
    assert await chosen(worst, DEAD) == 1


async def test_what_is_only_slow_is_better_than_what_leads_nowhere() -> None:
    assert await chosen(DEAD, Scripted(DeadlineError("silent"))) == 1


async def test_a_gateway_that_hangs_holds_up_nobody() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await chosen(Scripted("Connected", PUBLIC, delay=60), GOOD, seconds=30) == 1
    assert loop.time() - began < 1.5


async def test_where_all_hang_the_first_is_taken_in_time() -> None:
    hanging = Scripted("Connected", PUBLIC, delay=60)
    assert await chosen(hanging, hanging, seconds=0.1) == 0
