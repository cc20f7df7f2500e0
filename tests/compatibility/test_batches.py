"""Batches on routers that keep connections, say that they do, or do worse: all is done, and nothing untrue is told."""

from __future__ import annotations

import asyncio

import pytest

from aioigd import IGDError, PortMapper
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.errors import UPnPError
from aioigd.testing.hooks import Hooks, Proceed, quirk
from aioigd.testing.wan_connection import ActionCall, Outputs

from .served import USABLE

PORTS = range(20_000, 20_120)
TAKEN = 729
"""ConflictWithOtherMechanisms: no other terms help."""
WAITING = {"hangs_at_first", "head_alone", "refuses_by_silence", "refuses_by_reset", "half_close_aborts"}
"""Those that make everybody wait, for other reasons than connections."""


@quirk("soap", reason="A reply that is taken for another's is told from it.", source="for tests")
def refuses_every_third() -> Hooks:
    """Refuses every third port."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "AddPortMapping" and int(call.arguments["NewExternalPort"]) % 3 == 0:
            raise UPnPError(TAKEN)
        return proceed(call)

    return Hooks(action=action)


async def batch(mapper: PortMapper, gateway: EmulatedGateway, *, overwrite: bool = True, ports: range = PORTS) -> None:
    """Map many ports at once, and check each outcome against what the gateway holds."""
    calls = [mapper.add_port_mapping(port, proto="TCP", overwrite=overwrite) for port in ports]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for port, outcome in zip(ports, outcomes, strict=True):
        if port % 3 == 0:
            assert isinstance(outcome, IGDError), (port, outcome)
            assert outcome.error_code == TAKEN, (port, outcome)
        else:
            assert not isinstance(outcome, BaseException), (port, outcome)
    assert sorted(mapping.external_port for mapping in gateway.mappings) == [port for port in ports if port % 3]


async def batches(*names: str | Quirk[...], overwrite: bool = True, ports: range = PORTS) -> tuple[int, int]:
    """Map in two batches on a router with these quirks; returns how many requests and connections it took."""
    async with (
        EmulatedGateway(refuses_every_third, *names, address=None) as gateway,
        PortMapper(source_address=gateway.address) as mapper,
    ):
        await mapper.get_gateway()
        before = gateway.count("POST"), gateway.tally.accepted
        for _ in range(2):
            await batch(mapper, gateway, overwrite=overwrite, ports=ports)
        return gateway.count("POST") - before[0], gateway.tally.accepted - before[1]


@pytest.mark.parametrize(
    "name", [name for name, each in USABLE.items() if each.family == "http" and name not in WAITING]
)
@pytest.mark.parametrize("ports", [PORTS[:40], pytest.param(PORTS, marks=pytest.mark.long)], ids=len)
async def test_a_batch_is_served_and_nothing_untrue_is_told(name: str, ports: range) -> None:
    await batches(name, ports=ports)


@pytest.mark.parametrize("pause", [0.001, 0.02, 0.1])
async def test_a_reply_that_comes_twice_is_never_that_to_the_next_request(pause: float) -> None:
    await batches(quirks.replies_twice(pause))


KEEPERS = [None, "keep_alive_http_1_0", "keep_alive_announced", "chunked", "small_pieces", "slow", "wrong_content_type"]


@pytest.mark.parametrize("name", KEEPERS)
async def test_connections_are_kept_where_the_router_keeps_them(name: str | None) -> None:
    requests, connections = await batches(*filter(None, [name]))
    assert requests == 2 * len(PORTS)
    assert connections < 0.7 * requests


NEVER = ["http_1_0", "no_content_length", "length_too_long_no_close", "length_too_short", "bytes_behind_replies",
         "replies_twice", "bare_lf_head", "keep_alive_only_promised", "continue_first",
         "duplicate_content_length"]  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
async def test_a_router_that_does_not_keep_connections_is_tried_once(name: str) -> None:
    async with EmulatedGateway(name, address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        await mapper.get_gateway()
        for _ in range(2):
            await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in PORTS))
        kept = [one for one in gateway.requests if one.kind == "POST" and b"Connection: close" not in one.raw]
        assert 1 <= len(kept) <= 2


async def test_adds_that_must_not_replace_are_never_sent_over_a_used_connection() -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        calls = [mapper.add_port_mapping(port, proto="TCP", overwrite=False) for port in PORTS]
        await asyncio.gather(*calls)
        seen: set[int] = set()
        again = 0
        for request in gateway.requests:
            if request.kind == "POST":
                if request.action == "AddPortMapping":
                    assert request.connection not in seen
                again += request.connection in seen
                seen.add(request.connection)
        assert again > 0
        assert len([one for one in gateway.requests if one.action == "AddPortMapping"]) == len(PORTS)


@pytest.mark.parametrize("name", ["keep_alive_only_promised", "keep_alive_broken", "keep_alive_ends_at_random"])
async def test_nothing_is_replaced_where_kept_connections_are_cut(name: str) -> None:
    await batches(name, overwrite=False)


async def test_the_first_requests_of_a_program_close_their_connections() -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        await mapper.add_port_mapping(8080, proto="TCP")
        await asyncio.gather(mapper.add_port_mapping(8081), mapper.add_port_mapping(8081, proto="TCP"))
        requests = [one for one in gateway.requests if one.kind in ("GET", "POST")]
        assert len(requests) == 4
        assert all(b"Connection: close" in one.raw for one in requests)


async def test_no_connection_is_left_half_a_second_after_a_batch() -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in PORTS))
        async with asyncio.timeout(10):
            while gateway.open_connections:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
