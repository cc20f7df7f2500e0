"""Leases against the emulated gateway: the real mapper, real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from aioigd import Change, ChangeKind, DiscoveryError, IGDError, Lease, LeaseState, PortMapper, UPnPResult
from aioigd.leases.request import OnConflict
from aioigd.results import ProtocolName
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing import network as emulated_network
from aioigd.testing.hooks import Exchange, Proceed
from aioigd.testing.http import Response
from aioigd.testing.ssdp import Message
from aioigd.testing.wan_connection import ActionCall, Outputs
from aioigd.upnp.list_mappings import MAX_ROWS
from aioigd.upnp.wire import gena

from ..support import odd, once, refuses
from .model import state_of

pytestmark = pytest.mark.usefixtures("nothing_is_left")

by_each_protocol = pytest.mark.parametrize(
    "protocol", ["upnp", pytest.param("pcp", marks=pytest.mark.long), pytest.param("nat-pmp", marks=pytest.mark.long)]
)
"""For what is the same whatever the router speaks. Those of the default run are in test_by_pcp, on a virtual clock."""
PATIENCE = 8.0
"""Seconds: what must happen happens sooner, unless the machine is very busy."""


@pytest.fixture
def protocol() -> ProtocolName:
    """What the gateway speaks, and the mapper is to use."""
    return "upnp"


@pytest.fixture
async def gateway(protocol: ProtocolName) -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(address=None, protocols=[protocol]) as gateway:
        yield gateway
        assert gateway.problems == []


@pytest.fixture
async def mapper(gateway: EmulatedGateway, protocol: ProtocolName) -> AsyncIterator[PortMapper]:
    async with PortMapper(
        source_address=gateway.address, timeout=30, discovery_timeout=30, protocols=[protocol]
    ) as mapper:
        yield mapper


@pytest.fixture
async def patient(gateway: EmulatedGateway) -> AsyncIterator[PortMapper]:
    """A mapper that finds the gateway, and gives up soon where there is none."""
    async with PortMapper(source_address=gateway.address, timeout=4.0, discovery_timeout=1.0) as mapper:
        yield mapper


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)


async def next_change(lease: Lease, *wanted: ChangeKind) -> list[Change]:
    """Wait until the last one of these kinds has come."""
    seen: list[Change] = []
    async with asyncio.timeout(PATIENCE):
        async for change in lease.changes():
            seen.append(change)
            if [one.kind for one in seen][-len(wanted) :] == list(wanted):
                break
    return seen


@by_each_protocol
async def test_a_lease_maps_the_port_and_ends_with_its_block(
    mapper: PortMapper, gateway: EmulatedGateway, protocol: ProtocolName
) -> None:
    async with mapper.lease(8080, 80, "my server", "TCP", 1200) as lease:
        (held,) = gateway.mappings
        assert (held.external_port, held.internal_port, held.proto) == (8080, 80, "TCP")
        assert (held.desc == "my server") is (protocol == "upnp"), "the others have no descriptions"
        assert (lease.external_port, str(lease.external_address)) == (8080, "11.22.33.44")
        assert "TCP 8080, active" in repr(lease)
    assert gateway.mappings == []
    assert "ended" in repr(lease)


@by_each_protocol
async def test_it_ends_with_an_error_too(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    with pytest.raises(ZeroDivisionError):
        async with mapper.lease(8080):
            raise ZeroDivisionError
    assert gateway.mappings == []


@by_each_protocol
async def test_it_ends_when_its_task_is_cancelled(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    held = asyncio.Event()

    async def serve() -> None:
        async with mapper.lease([8080, 8081], proto=["TCP", "UDP"]):
            held.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(serve())
    await held.wait()
    assert len(gateway.mappings) == 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gateway.mappings == []


async def test_it_ends_when_the_mapper_is_closed_first(gateway: EmulatedGateway) -> None:
    mapper = PortMapper(source_address=gateway.address)
    async with mapper.lease(8080) as lease:
        await mapper.close()
        assert gateway.mappings == []
        assert [change async for change in lease.changes()] == []


@by_each_protocol
@pytest.mark.parametrize("pause", [0.0, 0.002, 0.005, 0.01, 0.02, 0.05])
async def test_cancelled_while_it_begins_it_leaves_nothing(
    mapper: PortMapper, gateway: EmulatedGateway, pause: float
) -> None:
    async def serve() -> None:
        async with mapper.lease(list(range(8080, 8090)), proto=["TCP", "UDP"]):
            pass

    await mapper.get_gateway()
    task = asyncio.ensure_future(serve())
    await asyncio.sleep(pause)
    task.cancel()
    await asyncio.wait([task])
    await mapper.close()
    assert gateway.mappings == []


@by_each_protocol
async def test_fifty_leases_at_once_come_and_go(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    async with AsyncExitStack() as stack:
        ports = range(20000, 20050)
        await asyncio.gather(*(stack.enter_async_context(mapper.lease(port, proto="TCP")) for port in ports))
        assert {one.external_port for one in gateway.mappings} == set(ports)
    assert gateway.mappings == []


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.waits
async def test_after_a_restart_the_mapping_is_back_at_once(
    patient: PortMapper, gateway: EmulatedGateway, polite: bool
) -> None:
    async with patient.lease(8080, proto=["TCP", "UDP"]) as lease:
        for _ in range(3):
            changes = asyncio.ensure_future(next_change(lease, ChangeKind.LOST, ChangeKind.BACK))
            await asyncio.sleep(0.05)
            await gateway.restart(polite=polite)
            async with asyncio.timeout(5.0):  # so soon after its NOTIFY
                await changes
            assert [one.external_port for one in gateway.mappings] == [8080, 8080]
        assert state_of(lease) is LeaseState.ACTIVE
    assert gateway.mappings == []


@pytest.mark.waits
async def test_after_a_restart_that_nobody_heard_it_is_back_with_the_next_poll() -> None:
    mute = odd(notices=lambda _: [])
    async with (
        EmulatedGateway(mute, address=None) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.0) as mapper,
        mapper.lease(8080, poll_interval=0.3) as lease,
    ):
        await gateway.restart(polite=False)
        await until(lambda: len(gateway.mappings) == 1)
        await until(lambda: state_of(lease) is LeaseState.ACTIVE)


@pytest.mark.long
async def test_a_gateway_that_hangs_for_a_while_is_waited_for(gateway: EmulatedGateway) -> None:
    async with (
        PortMapper(source_address=gateway.address, timeout=0.6, discovery_timeout=0.3) as mapper,
        mapper.lease(8080, duration=3, poll_interval=0.2) as lease,
    ):
        gateway.hang()
        await until(lambda: state_of(lease) is LeaseState.LOST)
        gateway.resume()
        await until(lambda: state_of(lease) is LeaseState.ACTIVE and len(gateway.mappings) == 1)


@pytest.mark.long
async def test_a_short_lease_is_renewed_and_never_missing(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    async with mapper.lease(8080, duration=2):
        for _ in range(25):
            await asyncio.sleep(0.1)
            assert len(gateway.mappings) == 1


@pytest.mark.parametrize(
    "quirk",
    [
        quirks.refuses_leases,
        quirks.requires_lease,
        quirks.lease_reported_as_0,
        quirks.lease_always_a_day,
        quirks.no_specific_entry,
        quirks.external_address_empty,
        quirks.own_address_only,
        quirks.refuses_descriptions,
        quirks.internal_ports_shown_as_0,
        quirks.clients_shown_by_name,
        quirks.addresses_spelt_oddly,
        quirks.late_table(0.5),
        odd(intercept=lambda exchange: Response(501) if exchange.request.method == "SUBSCRIBE" else None),
        odd(intercept=lambda exchange: Response(200) if exchange.request.method == "SUBSCRIBE" else None),
    ],
    ids=repr,
)
@pytest.mark.waits
async def test_whatever_the_router_is_like_a_lease_can_be_had_and_is_found_again(quirk: Quirk[...]) -> None:
    async with (
        EmulatedGateway(quirk, address=None) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.0) as mapper,
    ):
        async with mapper.lease(8080, desc="a server", proto="TCP", poll_interval=0.5):
            assert len(gateway.mappings) == 1
            await gateway.restart()
            await until(lambda: len(gateway.mappings) == 1)
        assert gateway.mappings == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("quirk", "at_first"),
    [
        ([quirks.renewals_keep_end], 0.0),
        ([quirks.renewals_keep_end, quirks.lease_reported_as_0], 2.0),
        ([quirks.refuses_renewals], 0.0),
    ],
    ids=repr,
)
@pytest.mark.virtual_time
async def test_a_short_lease_that_cannot_be_renewed_is_hardly_missing(quirk: list[Quirk[...]], at_first: float) -> None:
    dark: list[tuple[float, LeaseState]] = []
    async with (
        EmulatedGateway(*quirk, address=None) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.0) as mapper,
        mapper.lease(8080, duration=10) as lease,
    ):
        started = asyncio.get_running_loop().time()
        while (now := asyncio.get_running_loop().time() - started) < 34.0:
            if not gateway.mappings:
                dark.append((now, state_of(lease)))
            await asyncio.sleep(0.02)
    assert gateway.mappings == []
    later = [state for at, state in dark if at > 14.0]
    assert len(dark) - len(later) <= at_first / 0.02 + 15
    assert len(later) <= 2 * 15, "one round trip, or the margin behind the end"
    if quirks.refuses_renewals not in quirk:
        assert len(later) <= 5
    assert set(later) <= {LeaseState.RENEWING}


async def test_a_mapping_that_is_held_switched_off_is_no_lease() -> None:
    async with (
        EmulatedGateway(quirks.entries_disabled, address=None) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.0) as mapper,
    ):
        with pytest.raises(IGDError) as caught:
            async with mapper.lease(8080):
                pass
        assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND
        with pytest.raises(IGDError) as caught:
            await mapper.add_port_mapping(8080, verify=True)
        assert caught.value.result is UPnPResult.PORT_MAPPING_NOT_FOUND
        assert gateway.mappings == []


@pytest.mark.waits
async def test_one_that_was_switched_off_is_switched_on_again(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    async with mapper.lease(8080, poll_interval=0.2):
        gateway.add_mapping(8080, internal_client=gateway.address, enabled=False)
        await until(lambda: [one.enabled for one in gateway.mappings] == [True])


# What the table shows


@pytest.mark.long
@pytest.mark.one_loop
@pytest.mark.parametrize(
    "quirk", [quirks.internal_ports_shown_as_0, quirks.clients_shown_by_name, quirks.late_table(0.5)], ids=repr
)
async def test_a_lease_on_a_table_that_cannot_tell_is_renewed_and_gone_in_the_end(quirk: Quirk[...]) -> None:
    async with (
        EmulatedGateway(quirk, address=None) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.0) as mapper,
    ):
        async with mapper.lease(8080, duration=4) as lease:
            await until(lambda: gateway.count("AddPortMapping") >= 2 and lease.state is LeaseState.ACTIVE)
        assert gateway.mappings == []


@pytest.mark.long
@pytest.mark.one_loop
@pytest.mark.parametrize("on_conflict", ["fail", "take_over"])
async def test_another_clients_entry_is_no_success(on_conflict: OnConflict) -> None:
    async with (
        EmulatedGateway(quirks.one_entry_per_client, address=None) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.0) as mapper,
    ):
        gateway.add_mapping(8080, internal_client="192.168.1.77")
        if on_conflict == "take_over":
            async with mapper.lease(8080, on_conflict=on_conflict):
                assert [one.internal_client for one in gateway.mappings] == [gateway.address]
            assert gateway.mappings == []
        else:
            with pytest.raises(IGDError) as caught:
                async with mapper.lease(8080):
                    pass
            assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
            assert [one.internal_client for one in gateway.mappings] == ["192.168.1.77"]


def rows(gateway: EmulatedGateway, number: int) -> None:
    for port in range(20_000, 20_000 + number):
        gateway.add_mapping(port, internal_client="192.168.1.77")


@pytest.mark.one_loop
@pytest.mark.parametrize("number", [60, 120, 400])
@pytest.mark.waits
async def test_a_long_table_that_is_read_row_by_row_delays_nothing_for_long(number: int) -> None:
    async with (
        EmulatedGateway(quirks.slow_rows(0.1), address=None) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.0) as mapper,
    ):
        rows(gateway, number)
        async with mapper.lease(8080, proto="TCP", poll_interval=0.3) as lease:
            read = gateway.count("GetGenericPortMappingEntry")
            assert read <= 2 * MAX_ROWS
            await asyncio.sleep(1.0)  # some polls, each with a sample
            assert gateway.count("GetExternalIPAddress") >= 2
            assert gateway.count("GetGenericPortMappingEntry") == read
            assert state_of(lease) is LeaseState.ACTIVE
        assert gateway.count("AddPortMapping") == 1
        assert len(gateway.mappings) == number


@pytest.mark.long
@pytest.mark.one_loop
async def test_a_deletion_that_is_answered_yes_and_not_done_is_done_again() -> None:
    first = once()

    def lazy(call: ActionCall, proceed: Proceed) -> Outputs:
        return {} if call.action == "DeletePortMapping" and first(call) else proceed(call)

    async with (
        EmulatedGateway(odd(action=lazy), address=None) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.0) as mapper,
    ):
        async with mapper.lease(8080):
            pass
        assert gateway.mappings == []
        assert gateway.count("DeletePortMapping") == 2


@pytest.mark.long
@pytest.mark.one_loop
@pytest.mark.virtual_time
async def test_a_gateway_that_needs_long_for_each_action_has_a_lease_and_lets_go_of_it() -> None:
    async with (
        EmulatedGateway(quirks.slow_actions(2.4), address=None) as gateway,
        PortMapper(location=gateway.location, timeout=4.0) as mapper,
    ):
        async with mapper.lease(8080):
            assert gateway.count("AddPortMapping") == 1
            assert len(gateway.mappings) == 1
        assert gateway.mappings == []


# What the network says


async def test_a_new_external_address_is_known_at_once_by_an_event(
    mapper: PortMapper, gateway: EmulatedGateway
) -> None:
    async with mapper.lease(8080) as lease:
        await until(lambda: len(gateway.subscriptions) == 1 and gateway.subscriptions[0].sent == 1)
        await asyncio.sleep(0.05)
        change = asyncio.ensure_future(next_change(lease, ChangeKind.NEW_ADDRESS))
        await asyncio.sleep(0)
        await gateway.set_external_address("5.6.7.8")
        assert str((await change)[0].external_address) == "5.6.7.8"
    assert gateway.subscriptions == []


@pytest.mark.parametrize("quirk", [quirks.head_alone, quirks.broken_header_line, quirks.broken_header_line(" SID")])
@pytest.mark.waits
async def test_a_subscription_needs_no_more_than_a_head_with_a_sid(quirk: Quirk[...]) -> None:
    """Neither a body, nor a length, nor the end of the connection, nor that each line of the head is a header."""
    gateway = EmulatedGateway(quirk, address=None)
    async with gateway, PortMapper(source_address=gateway.address) as mapper:
        async with mapper.lease(8080) as lease:
            await until(lambda: len(gateway.subscriptions) == 1 and gateway.subscriptions[0].sent == 1)
            await asyncio.sleep(0.05)
            change = asyncio.ensure_future(next_change(lease, ChangeKind.NEW_ADDRESS))
            await asyncio.sleep(0)
            await gateway.set_external_address("5.6.7.8")
            assert str((await change)[0].external_address) == "5.6.7.8"
        assert gateway.subscriptions == []
        assert gateway.count("SUBSCRIBE") == gateway.count("UNSUBSCRIBE") == 1


@pytest.mark.waits
async def test_and_one_from_before_the_subscription_by_the_first_event() -> None:
    def change_first(exchange: Exchange) -> None:
        if exchange.request.method == "SUBSCRIBE":
            router.external_address = "5.6.7.8"

    router = EmulatedGateway(odd(intercept=change_first), address=None)
    async with router as gateway, PortMapper(source_address=gateway.address) as mapper, mapper.lease(8080) as lease:
        assert str(lease.external_address) == "11.22.33.44"
        await until(lambda: str(lease.external_address) == "5.6.7.8")
        asked = gateway.count("GetExternalIPAddress")
        assert asked == 2
        await asyncio.sleep(0.5)
        assert gateway.count("GetExternalIPAddress") == asked


async def test_an_address_that_changed_while_the_subscription_was_lost_is_known_with_the_new_one(
    mapper: PortMapper, gateway: EmulatedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gena, "_MIN_DURATION", 0.2)
    monkeypatch.setattr(gena, "_MAX_DURATION", 0.2)
    async with mapper.lease(8080) as lease:
        await until(lambda: len(gateway.subscriptions) == 1)
        gateway.external_address = "5.6.7.8"
        gateway.subscriptions[0].expires = 0.0
        await until(lambda: str(lease.external_address) == "5.6.7.8")


@pytest.mark.waits
async def test_and_without_events_with_the_next_poll(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    async with mapper.lease(8080, poll_interval=0.2) as lease:
        gateway.external_address = "5.6.7.8"
        await until(lambda: str(lease.external_address) == "5.6.7.8")
        gateway.connected = False
        await until(lambda: lease.external_address is None)
        gateway.connected = True
        await until(lambda: str(lease.external_address) == "5.6.7.8")


def notify(gateway: EmulatedGateway, sender: str, **headers: str) -> None:
    """Multicast a NOTIFY on loopback from an address."""
    said = {
        "NT": "upnp:rootdevice",
        "NTS": "ssdp:alive",
        "LOCATION": gateway.location,
        "USN": "uuid:another::upnp:rootdevice",
        **{name.replace("_", "."): value for name, value in headers.items()},
    }
    datagram = Message("NOTIFY * HTTP/1.1", tuple(said.items())).datagram().payload
    with emulated_network.spare_socket(sender) as mouth:
        mouth.sendto(datagram, emulated_network.group_of(sender))


@pytest.mark.waits
async def test_announcements_of_others_are_ignored(mapper: PortMapper, gateway: EmulatedGateway, address: str) -> None:
    async with mapper.lease(8080):
        udn = (await mapper.get_gateway()).device.udn
        await asyncio.sleep(0.3)
        before = len(gateway.requests)
        for number in range(50):
            # Another host in the gateway's name, another device on the gateway's host, and no datagrams at all.
            notify(gateway, address, USN=f"{udn}::upnp:rootdevice", BOOTID_UPNP_ORG=str(number))
            notify(gateway, gateway.address, LOCATION="http://127.0.0.1:8200/rootDesc.xml", BOOTID_UPNP_ORG=str(number))
            notify(gateway, gateway.address, NTS="ssdp:nonsense", USN=f"{udn}::upnp:rootdevice")
        await asyncio.sleep(0.5)
        assert gateway.requests[before:] == []


@pytest.mark.waits
async def test_a_flood_in_the_gateways_name_costs_little(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    async with mapper.lease(8080) as lease:
        udn = (await mapper.get_gateway()).device.udn
        await asyncio.sleep(0.3)
        before = gateway.count("POST")
        for number in range(200):
            kind = ("ssdp:alive", "ssdp:byebye")[number % 2]
            notify(gateway, gateway.address, NTS=kind, USN=f"{udn}::upnp:rootdevice", BOOTID_UPNP_ORG=str(number))
            await asyncio.sleep(0.01)
        assert gateway.count("POST") - before < 15
        assert state_of(lease) is LeaseState.ACTIVE


# Ports


@by_each_protocol
async def test_a_port_of_another_host_is_left_alone(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    theirs = gateway.add_mapping(8080)
    with pytest.raises(IGDError) as caught:
        async with mapper.lease(8080):
            pass
    assert caught.value.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING
    assert gateway.mappings == [theirs]


async def test_or_taken_over_or_avoided(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    gateway.add_mapping(8080)
    async with mapper.lease(8080, on_conflict="other_port") as lease:
        assert lease.external_port != 8080
        assert lease.mappings[0].internal_port == 8080
    async with mapper.lease(8080, on_conflict="take_over"):
        assert [one.internal_client for one in gateway.mappings] == [gateway.address]
    assert gateway.mappings == []


@by_each_protocol
async def test_what_somebody_has_taken_is_not_deleted(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    async with mapper.lease(8080):
        theirs = gateway.add_mapping(8080)
    assert gateway.mappings == [theirs]


@pytest.mark.parametrize("version", [1, 2])
async def test_any_port_is_the_same_one_each_time(version: int) -> None:
    async with EmulatedGateway(address=None, version=version) as gateway:  # type: ignore[arg-type]
        ports = []
        for _ in range(2):
            async with (
                PortMapper(source_address=gateway.address) as mapper,
                mapper.lease(0, 9000, "a game", ["UDP", "TCP"][: 3 - version]) as lease,  # type: ignore[arg-type]
            ):
                ports.append(lease.external_port)
                assert {one.internal_port for one in gateway.mappings} == {9000}
        assert ports[0] == ports[1] >= 49152
        assert gateway.count("AddAnyPortMapping") == 2 * (version - 1)


@by_each_protocol
async def test_what_listens_says_what_to_map(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    server = await asyncio.start_server(lambda *_: None, gateway.address, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((gateway.address, 0))
        async with server, mapper.lease(server) as tcp, mapper.lease(bound) as udp:
            assert (tcp.external_port, tcp.mappings[0].proto) == (server.sockets[0].getsockname()[1], "TCP")
            assert (udp.external_port, udp.mappings[0].proto) == (bound.getsockname()[1], "UDP")
            assert tcp.mappings[0].internal_client == gateway.address
    await server.wait_closed()


@by_each_protocol
async def test_a_transport_says_what_to_map(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=(gateway.address, 0)
    )
    try:
        async with mapper.lease(transport) as lease:
            port = transport.get_extra_info("sockname")[1]
            assert (lease.external_port, lease.mappings[0].proto) == (port, "UDP")
            assert lease.mappings[0].internal_client == gateway.address
    finally:
        transport.close()


@pytest.mark.waits
async def test_one_that_is_not_required_begins_without_a_router(address: str) -> None:
    gateway = EmulatedGateway(address=address)
    async with PortMapper(source_address=address, discovery_timeout=0.2) as mapper:
        with pytest.raises(IGDError):
            async with mapper.lease(8080):
                pass
        started = asyncio.get_running_loop().time()
        async with mapper.lease(8080, required=False, poll_interval=0.2) as lease:
            assert asyncio.get_running_loop().time() - started < 0.1
            assert state_of(lease) is LeaseState.LOST
            assert lease.error is None, "nothing is known yet"
            with pytest.raises(DiscoveryError):
                await lease.wait_active(1.0)
            back = asyncio.ensure_future(next_change(lease, ChangeKind.NEW_ADDRESS, ChangeKind.BACK))
            async with gateway:
                await lease.wait_active(PATIENCE)
                assert all(change.external_port == 8080 for change in await back)
                assert len(gateway.mappings) == 1
                assert state_of(lease) is LeaseState.ACTIVE


@pytest.mark.waits
async def test_nothing_above_info_is_logged_but_a_loss(
    patient: PortMapper, gateway: EmulatedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aioigd")
    async with patient.lease([8080, 8081], poll_interval=0.3) as lease:
        changes = asyncio.ensure_future(next_change(lease, ChangeKind.LOST, ChangeKind.BACK))
        await asyncio.sleep(0)
        await gateway.restart()
        await changes
    ours = [record for record in caplog.records if record.name.startswith("aioigd")]
    assert "aioigd.lease" in {record.name for record in ours}
    (loss,) = [record for record in ours if record.levelno > logging.INFO]
    assert (loss.levelno, loss.name) == (logging.WARNING, "aioigd.lease")
    assert "port 808" in loss.getMessage()


async def test_a_refusal_at_the_beginning_is_the_callers_error() -> None:
    async with (
        EmulatedGateway(refuses("AddPortMapping", 606), address=None) as gateway,
        PortMapper(source_address=gateway.address) as mapper,
    ):
        with pytest.raises(IGDError) as caught:
            async with mapper.lease(8080):
                pass
    assert caught.value.result is UPnPResult.NOT_AUTHORIZED
