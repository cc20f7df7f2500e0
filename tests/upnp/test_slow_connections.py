"""A gateway with several WAN connections that is too slow to tell a search which of them is up.

On an emulated gateway with real sockets, in virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioigd import DeadlineError, PortMapper
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import Response

from ..leases.virtual import run
from ..support import odd

SEVERAL = [quirks.ip_and_ppp, quirks.several_connections]
STATUS = "GetStatusInfo"


def on(main: Coroutine[Any, Any, None]) -> None:
    run(main, debug=False)


@asynccontextmanager
async def slow(*quirks: Quirk[...], timeout: float = 20) -> AsyncIterator[tuple[EmulatedGateway, PortMapper]]:
    """Run such a gateway, and a mapper that finds it."""
    async with (
        EmulatedGateway(*quirks, address=None) as gateway,
        PortMapper(source_address=gateway.address, timeout=timeout) as mapper,
    ):
        yield gateway, mapper


@pytest.mark.parametrize("several", SEVERAL, ids=repr)
@pytest.mark.parametrize("seconds", [0.8, 1.5, 3.0, 6.0])
def test_the_mapping_is_made_on_the_connection_that_is_up(seconds: float, several: Quirk[...]) -> None:
    async def main() -> None:
        async with slow(quirks.slow_actions(seconds), several) as (gateway, mapper):
            await mapper.add_port_mapping(8080)
            assert [one.external_port for one in gateway.mappings] == [8080]
            assert str(await mapper.query_external_address()) == gateway.external_address
            asked = gateway.count(STATUS)
            await mapper.add_port_mapping(8081)
            await mapper.delete_port_mapping(8080)
            assert [one.external_port for one in gateway.mappings] == [8081]
            assert gateway.count(STATUS) == asked, "it is known from then on"

    on(main())


@pytest.mark.parametrize(
    "quirk",
    [quirks.one_connection_or_reset, quirks.one_connection_or_close, quirks.one_connection_others_wait],
    ids=repr,
)
def test_one_that_takes_one_connection_at_a_time_is_asked_for_one_after_the_other(quirk: Quirk[...]) -> None:
    async def main() -> None:
        async with slow(quirks.slow_actions(2.0), quirks.several_connections, quirk) as (gateway, mapper):
            await mapper.add_port_mapping(8080)
            assert [one.external_port for one in gateway.mappings] == [8080]

    on(main())


def test_of_several_calls_at_once_one_asks() -> None:
    async def main() -> None:
        async with slow(quirks.slow_actions, quirks.ip_and_ppp, timeout=30) as (gateway, mapper):
            await mapper.get_gateway()
            await asyncio.gather(*(mapper.add_port_mapping(port) for port in (8080, 8081, 8082)))
            assert len(gateway.mappings) == 3
            assert gateway.count("GET") == 2

    on(main())


def test_it_is_known_also_when_the_gateway_is_searched_for_again() -> None:
    async def main() -> None:
        async with slow(quirks.slow_actions, quirks.ip_and_ppp) as (gateway, mapper):
            await mapper.add_port_mapping(8080)
            gets = gateway.count("GET")
            mapper.devices.clear()
            await mapper.delete_port_mapping(8080)
            assert gateway.mappings == []
            assert gateway.count("GET") == gets + 1

    on(main())


def test_a_call_that_has_no_time_for_that_is_made_on_the_first() -> None:
    """In the usual ten seconds there is time for one request."""

    async def main() -> None:
        async with slow(quirks.slow_actions, quirks.ip_and_ppp, timeout=10) as (_, mapper):
            await mapper.get_gateway()
            for port in (8080, 8081):
                began = asyncio.get_running_loop().time()
                assert (await mapper.add_port_mapping(port)).external_port == port
                assert asyncio.get_running_loop().time() - began < 6.5

    on(main())


def test_one_that_does_not_say_it_then_either_is_not_asked_again() -> None:
    def response(exchange: Exchange, response: Response) -> Response:
        return response.delayed(99) if exchange.action == STATUS else response

    async def main() -> None:
        async with slow(odd(response=response), quirks.ip_and_ppp) as (gateway, mapper):
            await mapper.add_port_mapping(8080)
            asked, gets = gateway.count(STATUS), gateway.count("GET")
            await mapper.add_port_mapping(8081)
            assert (gateway.count(STATUS), gateway.count("GET")) == (asked, gets)

    on(main())


def test_a_gateway_that_has_one_connection_is_not_asked() -> None:
    async def main() -> None:
        async with slow(quirks.slow_actions) as (gateway, mapper):
            await mapper.add_port_mapping(8080)
            assert (gateway.count("GET"), gateway.count("POST")) == (1, 1)

    on(main())


def test_what_is_cancelled_while_it_is_asked_leaves_the_question_to_the_next() -> None:
    async def main() -> None:
        async with slow(quirks.slow_actions, quirks.ip_and_ppp) as (gateway, mapper):
            await mapper.get_gateway()
            call = asyncio.create_task(mapper.add_port_mapping(8080))
            await asyncio.sleep(3)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await mapper.add_port_mapping(8081)
            assert [one.external_port for one in gateway.mappings] == [8081]

    on(main())


def test_one_that_ends_while_it_is_asked_is_an_error_in_time() -> None:
    async def main() -> None:
        async with slow(quirks.slow_actions, quirks.ip_and_ppp) as (gateway, mapper):
            await mapper.get_gateway()
            gateway.hang()
            began = asyncio.get_running_loop().time()
            with pytest.raises(DeadlineError):
                await mapper.add_port_mapping(8080)
            assert asyncio.get_running_loop().time() - began <= 21

    on(main())
