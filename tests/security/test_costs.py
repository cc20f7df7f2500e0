"""Whatever a device serves, it costs little, it ends in time, and nothing but an IGDError comes of it.

The bounds are far above what is measured (``python -m benchmarks.attacks`` prints that beside the goals), and
far below what the attacks cost those who fall for them.
"""

from __future__ import annotations

import asyncio

import pytest

from aioigd import DeadlineError, IGDError, UPnPResult
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import Response
from aioigd.testing.quirks.hostile import Where

from ..support import odd
from .attacks import ATTACKS, PATIENCE, Attack, victim
from .cost import MEBIBYTE, Cost

MOST_MEMORY = 24 * MEBIBYTE
LONGEST_STALL = 0.35
OVERTIME = 0.5
"""Seconds after its deadline at which every call has ended."""


async def cost_of(attack: Attack, *, memory: bool = False) -> tuple[IGDError | None, Cost, EmulatedGateway]:
    async with EmulatedGateway(attack.quirk, address=None) as gateway, attack.victim(gateway) as mapper:
        await attack.prepare(mapper)
        async with Cost(memory=memory) as cost:
            error = await attack.suffer(mapper)
        return error, cost, gateway


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.waits
async def test_an_attack_ends_in_time_and_in_an_error_of_ours(name: str) -> None:
    attack = ATTACKS[name]
    error, cost, gateway = await cost_of(attack)
    assert isinstance(error, IGDError)
    assert cost.seconds < attack.deadline + OVERTIME
    assert cost.stall < LONGEST_STALL
    assert gateway.count("GET") <= 4
    assert gateway.count("POST") <= 4


SMALL = (
    *(
        "external_entity",
        "doctype",
        "utf_7",
        "redirects",
        "control URL in",
        "description in a file",
        "description elsewhere",
    ),
    *("header in", "impossible"),
)


@pytest.mark.parametrize(
    "name",
    [
        # What is small by itself is refused for what it is, as other tests show, and measured in the long run only.
        pytest.param(name, marks=pytest.mark.long if name.startswith(SMALL) else ())
        for name in ATTACKS
        if "drips" not in name and "silent" not in name
    ],
)
@pytest.mark.waits
async def test_an_attack_takes_no_more_memory_than_a_document_may(name: str) -> None:
    _, cost, _ = await cost_of(ATTACKS[name], memory=True)
    assert cost.memory < MOST_MEMORY


@pytest.mark.waits
async def test_the_memory_that_attacks_took_comes_back() -> None:
    async with (
        EmulatedGateway(quirks.endless_body("control"), address=None) as gateway,
        victim(gateway, PATIENCE) as mapper,
    ):
        await mapper.get_gateway()
        peaks = []
        for _ in range(5):
            async with Cost(memory=True) as cost:
                with pytest.raises(IGDError):
                    await mapper.query_external_address()
            peaks.append(cost.memory)
    assert peaks[-1] < 2 * peaks[0] + MEBIBYTE


@pytest.mark.parametrize("quirk", [quirks.drips("control"), quirks.silent("control")], ids=repr)
@pytest.mark.waits
async def test_who_dribbles_or_says_nothing_is_a_deadline(quirk: Quirk[...]) -> None:
    async with EmulatedGateway(quirk, address=None) as gateway, victim(gateway, PATIENCE) as mapper:
        with pytest.raises(DeadlineError) as caught:
            await mapper.query_external_address()
    assert caught.value.result is UPnPResult.HTTP_ERROR


@pytest.mark.parametrize("where", ["description", "control"])
@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.45])
async def test_no_pace_of_dribbling_moves_the_deadline(where: Where, seconds: float) -> None:
    """A byte now and then keeps every timeout alive that counts from the last byte.

    In real time: without a pause there is always something to do, and virtual time would stand still.
    """
    attack = Attack(quirks.drips(where, seconds), in_replies=where == "control")
    error, cost, _ = await cost_of(attack)
    assert cost.seconds < attack.deadline + OVERTIME
    assert error is None or isinstance(error, IGDError)


@pytest.mark.waits
async def test_many_victims_of_one_attack_all_get_away() -> None:
    async with (
        EmulatedGateway(quirks.endless_body("control"), address=None) as gateway,
        victim(gateway, PATIENCE) as mapper,
    ):
        await mapper.get_gateway()
        async with Cost() as cost:
            results = await asyncio.gather(
                *(mapper.delete_port_mapping(port) for port in range(1000, 1050)), return_exceptions=True
            )
    assert all(isinstance(result, IGDError) for result in results)
    assert cost.stall < LONGEST_STALL


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "compress", "x-gzip", "GZIP", "gzip, identity"])
@pytest.mark.waits
async def test_no_encoding_is_undone(encoding: str) -> None:
    async with (
        EmulatedGateway(quirks.gzip_bomb("control"), _labelled(encoding), address=None) as gateway,
        victim(gateway, PATIENCE) as mapper,
    ):
        await mapper.get_gateway()
        with pytest.raises(IGDError, match="refused"):
            await mapper.query_external_address()
    assert all(b"\r\nAccept-Encoding: identity\r\n" in each.raw for each in gateway.requests if each.connection)


@pytest.mark.waits
async def test_five_thousand_services_cost_one_request() -> None:
    _, _, gateway = await cost_of(ATTACKS["5,000 services"])
    assert gateway.count("GET") == 1
    assert gateway.count("POST") == 0


@pytest.mark.waits
async def test_sixty_services_that_may_map_ports_cost_a_handful_of_questions() -> None:
    """Within the cap on documents; each of them could be asked whether it is connected."""
    async with (
        EmulatedGateway(quirks.thousands_of_services(60), address=None) as gateway,
        victim(gateway, PATIENCE) as mapper,
    ):
        await mapper.add_port_mapping(8080)
    assert gateway.count("GET") == 1
    assert gateway.count("GetStatusInfo") <= 4
    assert gateway.count("POST") <= 9


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.1.2.3",
            "224.0.0.1",
            "239.255.255.250",
            "0.0.0.0",
            "::",
            "::1",
            "ff02::1",
            "::ffff:127.0.0.1",
        ),
        *(
            "localhost",
            "router.lan",
            "1",
            "0x7f000001",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "8.8.8.8 or 9.9.9.9",
            "&amp;",
        ),
        *("fe80::1%eth0", "\u0661.1.1.1", " ", "-1", "a" * 5000),
    ],
)
@pytest.mark.waits
async def test_an_external_address_that_is_none_is_an_error_with_a_name(address: str) -> None:
    async with (
        EmulatedGateway(quirks.impossible_external_address(address), address=None) as gateway,
        victim(gateway, PATIENCE) as mapper,
    ):
        with pytest.raises(IGDError) as caught:
            await mapper.query_external_address()
    assert caught.value.result is UPnPResult.INVALID_RESPONSE
    assert len(str(caught.value)) < 300


def _labelled(encoding: str) -> Quirk[[]]:
    def response(exchange: Exchange, response: Response) -> Response:
        return response.having("Content-Encoding", encoding) if exchange.purpose == "control" else response

    return odd(response=response)
