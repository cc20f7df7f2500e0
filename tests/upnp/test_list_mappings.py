"""All mappings are listed, whatever the gateway's way to do it, and a list that has no end has one."""

from __future__ import annotations

import pytest

from aioigd import DeadlineError, Gateway, IGDError, PortMapper, PortMapping, RefusedError, UPnPResult
from aioigd.core.calls import Operation
from aioigd.errors import InvalidResponseError, TransportError
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.wan_connection import ActionCall
from aioigd.upnp import list_mappings
from aioigd.upnp.wire.http_reply import HttpReply

from ..support import CUT, OURS, THEIRS, PaperGateway, Reaction, answer, fault, refuses

pytestmark = pytest.mark.usefixtures("nothing_is_left")

LIST, ROW = "GetListOfPortMappings", "GetGenericPortMappingEntry"


async def listed(gateway: Gateway) -> list[PortMapping]:
    return [mapping async for mapping in gateway.query_port_mappings()]


async def on_paper(gateway: PaperGateway) -> list[PortMapping]:
    return [mapping async for mapping in list_mappings.iter_mappings(gateway.client(), Operation(10))]


def fill(gateway: EmulatedGateway, number: int) -> set[PortMapping]:
    return {
        gateway.add_mapping(5000 + each, 80, "TCP" if each % 2 else "UDP", desc=f"<{each}> & more")
        for each in range(number)
    }


class TestEmulated:
    @pytest.mark.parametrize("number", [0, 1, 2, 5, 60])
    @pytest.mark.parametrize("version", [1, 2])
    async def test_every_mapping_is_listed_once(self, version: int, number: int) -> None:
        async with EmulatedGateway(address=None, version=2 if version == 2 else 1) as router:
            expected = fill(router, number)
            async with PortMapper(source_address=router.address) as mapper:
                found = await listed(await mapper.get_gateway())
            assert set(found) == expected
            assert len(found) == number
            assert router.problems == []

    @pytest.mark.parametrize(
        "quirk",
        [
            *(quirks.list_ends_with(code) for code in (713, 714, 402, 501, 606)),
            *(quirks.list_repeats_last, quirks.blank_entries, quirks.bare_faults, quirks.faults_in_words),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("version", [1, 2])
    async def test_every_kind_of_end_is_an_end(self, quirk: Quirk[...], version: int) -> None:
        no_list = refuses(LIST, 401)
        async with EmulatedGateway(quirk, no_list, address=None, version=2 if version == 2 else 1) as router:
            expected = fill(router, 9)
            async with PortMapper(source_address=router.address) as mapper:
                found = await listed(await mapper.get_gateway())
            assert set(found) == expected
            assert len(found) == 9

    @pytest.mark.parametrize("code", [401, 402, 501, 602, 606])
    async def test_a_gateway_that_refuses_the_list_is_asked_for_its_rows(self, code: int) -> None:
        async with EmulatedGateway(refuses(LIST, code), address=None, version=2) as router:
            expected = fill(router, 3)
            async with PortMapper(source_address=router.address) as mapper:
                assert set(await listed(await mapper.get_gateway())) == expected
            assert router.count(LIST) == 1

    async def test_rows_follow_where_one_protocol_is_refused(self) -> None:
        udp = refuses(LIST, 501, lambda call: call.arguments["NewProtocol"] == "UDP")
        async with EmulatedGateway(udp, address=None, version=2) as router:
            expected = fill(router, 4)
            async with PortMapper(source_address=router.address) as mapper:
                found = await listed(await mapper.get_gateway())
            assert (set(found), len(found)) == (expected, 4)

    async def test_a_list_of_nothing_is_not_believed_at_once(self) -> None:
        async with EmulatedGateway(refuses(LIST, 730), address=None, version=2) as router:
            expected = fill(router, 3)
            async with PortMapper(source_address=router.address) as mapper:
                assert set(await listed(await mapper.get_gateway())) == expected

    async def test_a_gateway_that_can_list_nothing_says_so(self) -> None:
        async with EmulatedGateway(quirks.no_generic_entry, address=None) as router:
            async with PortMapper(source_address=router.address) as mapper:
                gateway = await mapper.get_gateway()
                with pytest.raises(RefusedError) as caught:
                    await listed(gateway)
            assert caught.value.error_code == 401
            assert [attempt.action for attempt in caught.value.attempts] == [ROW]

    async def test_who_stops_reading_stops_asking(self, gateway: EmulatedGateway, mapper: PortMapper) -> None:
        fill(gateway, 50)
        async for _ in (await mapper.get_gateway()).query_port_mappings():
            break
        assert gateway.count(ROW) == 1

    async def test_a_closed_mapper_lists_nothing(self, gateway: EmulatedGateway) -> None:
        async with PortMapper(source_address=gateway.address) as mapper:
            router = await mapper.get_gateway()
        with pytest.raises(IGDError) as caught:
            await listed(router)
        assert caught.value.result is UPnPResult.INVALID_ARGS


@pytest.mark.one_loop
class TestOnPaper:
    async def test_a_list_has_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(list_mappings, "MAX_LISTED", 20)
        gateway = PaperGateway()

        def endless(call: ActionCall) -> Reaction:
            gateway.table.put(PortMapping(int(call.arguments["NewPortMappingIndex"]) + 1, 1, OURS, "TCP"))
            return gateway.carry_out(call)

        gateway.respond = endless
        rows = list_mappings.iter_mappings(gateway.client(), Operation(10))
        assert [(await anext(rows)).external_port for _ in range(20)] == list(range(1, 21))
        with pytest.raises(InvalidResponseError, match="more than 20"):
            await anext(rows)

    async def test_a_table_of_gaps_has_an_end(self) -> None:
        gateway = PaperGateway(lambda call: answer(call.action, {}))
        assert await on_paper(gateway) == []
        assert len(gateway.calls) < 50

    @pytest.mark.waits
    async def test_a_lost_row_is_asked_for_again(self) -> None:
        gateway, left = PaperGateway(), [CUT, CUT]
        for port in range(1, 8):
            gateway.table.put(PortMapping(port, port, THEIRS, "UDP"))
        gateway.respond = lambda _: left.pop() if left else None
        assert len(await on_paper(gateway)) == 7

    @pytest.mark.waits
    async def test_a_gateway_that_has_gone_is_an_error(self) -> None:
        gateway = PaperGateway()
        for port in range(1, 8):
            gateway.table.put(PortMapping(port, port, THEIRS, "UDP"))
        gateway.respond = lambda call: CUT if call.arguments["NewPortMappingIndex"] == "3" else None
        with pytest.raises(TransportError):
            await on_paper(gateway)

    async def test_a_list_that_is_no_list_is_done_without(self) -> None:
        gateway = PaperGateway(version=2)
        gateway.table.put(PortMapping(1, 1, THEIRS, "UDP"))
        gateway.respond = lambda call: HttpReply(200, b"<html/>") if call.action == LIST else None
        assert len(await on_paper(gateway)) == 1

    async def test_no_more_than_four_rows_are_asked_for_at_once(self) -> None:
        gateway = PaperGateway(lambda call: fault(713))
        assert await on_paper(gateway) == []
        assert gateway.actions == [ROW]


async def test_a_gateway_that_hangs_is_a_deadline() -> None:
    async with (
        EmulatedGateway(address=None) as router,
        PortMapper(source_address=router.address, timeout=0.3) as mapper,
    ):
        gateway = await mapper.get_gateway()
        router.hang()
        with pytest.raises(DeadlineError):
            await listed(gateway)
        router.resume()


@pytest.fixture
async def shown(gateway: EmulatedGateway, mapper: PortMapper) -> Gateway:
    gateway.add_mapping(8080, 80, "TCP", desc="theirs")
    return await mapper.get_gateway()


async def test_one_mapping_is_shown(shown: Gateway) -> None:
    held = await shown.query_port_mapping(8080, "tcp")  # type: ignore[arg-type]
    assert (held.internal_port, held.desc, held.enabled) == (80, "theirs", True)


async def test_one_that_is_not_there_is_an_error(shown: Gateway) -> None:
    with pytest.raises(IGDError) as caught:
        await shown.query_port_mapping(8081, "TCP")
    assert caught.value.result is UPnPResult.NO_SUCH_ENTRY_IN_ARRAY
