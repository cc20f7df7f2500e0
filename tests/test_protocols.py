"""Three protocols behind one façade: which is used, in what order, with how many requests, and what if it refuses."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import aiohttp
import pytest

import aioigd
from aioigd import (
    ConflictError,
    DiscoveryError,
    Gateway,
    IGDError,
    PortMapper,
    ProtocolName,
    RefusedError,
    UnsupportedError,
    UPnPResult,
    UsageError,
    functions,
)
from aioigd.net.trace import HttpExchange, tracer
from aioigd.pcp.wire import pcp
from aioigd.testing import EmulatedGateway, PcpQuery, Quirk, quirks
from aioigd.testing.hooks import Exchange, PcpProceed
from aioigd.testing.http import Response
from aioigd.testing.pcp_messages import PcpReply
from aioigd.upnp.wire import xml

from .support import odd, page, refuses

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ALL: tuple[ProtocolName, ...] = ("upnp", "pcp", "nat-pmp")
FAST: tuple[ProtocolName, ...] = ("pcp", "nat-pmp", "upnp")
DATAGRAMS: tuple[ProtocolName, ...] = ("pcp", "nat-pmp")
ADD = "AddPortMapping"


def speaking(*quirks: Quirk[...], protocols: Sequence[ProtocolName] = ALL) -> EmulatedGateway:
    return EmulatedGateway(*quirks, address=None, protocols=protocols)


def mapper_of(gateway: EmulatedGateway, protocols: Sequence[ProtocolName] = ALL, **options: Any) -> PortMapper:
    """A mapper that finds a gateway and nothing else; slow machines get time before anything is sent twice."""
    seconds = {"timeout": 30, "discovery_timeout": 30} | options
    return PortMapper(source_address=gateway.address, protocols=protocols, **seconds)


def requests(gateway: EmulatedGateway) -> list[str]:
    """What a gateway was asked for by PCP and NAT-PMP, and by SOAP, in order."""
    names = {"PCP": "pcp", "NAT-PMP": "nat-pmp", "POST": "upnp"}
    return [f"{names[each.kind]} {each.action}" for each in gateway.requests if each.kind in names]


# Which one is used


async def test_by_default_it_is_upnp_with_two_datagrams_beside_it_and_no_map() -> None:
    async with speaking() as gateway, mapper_of(gateway) as mapper:
        made = await mapper.add_port_mapping(8080)
        assert (made.protocol, (await mapper.get_gateway()).protocol) == ("upnp", "upnp")
        assert (gateway.search_rounds, gateway.count("GET"), gateway.count("POST")) == (1, 1, 1)
        datagrams = Counter(each for each in requests(gateway) if not each.startswith("upnp"))
        assert datagrams <= Counter(["pcp ANNOUNCE", "nat-pmp ADDRESS"])
        await mapper.add_port_mapping(8081)
        assert requests(gateway)[-1] == f"upnp {ADD}"
        assert gateway.problems == []


@pytest.mark.parametrize(("protocols", "used"), [(FAST, "pcp"), (("nat-pmp", "upnp", "pcp"), "nat-pmp")])
@pytest.mark.waits
async def test_in_the_fast_order_the_first_mapping_takes_one_round_trip(
    protocols: tuple[ProtocolName, ...], used: ProtocolName
) -> None:
    delay = 0.2
    late = odd(pcp_datagrams=lambda _, replies: [replace(each, delay=delay) for each in replies])
    async with speaking(late) as gateway, mapper_of(gateway, protocols) as mapper:
        made = await mapper.add_port_mapping(8080)
        assert made.protocol == used
        asked = [each for each in gateway.requests if each.kind == used.upper()]
        first_map = next(each for each in asked if each.action == "MAP")
        # Before the answer to any question could have arrived.
        assert first_map.time < min(each.time for each in gateway.requests) + delay
        assert gateway.count("POST") == 0
        assert [each.external_port for each in gateway.mappings] == [8080]


@pytest.mark.parametrize("protocol", ALL)
async def test_a_single_name_switches_the_others_off(protocol: ProtocolName) -> None:
    async with speaking() as gateway, mapper_of(gateway, (protocol,)) as mapper:
        made = await mapper.add_port_mapping(8080, proto="TCP", duration=600)
        assert made == replace(gateway.mappings[0], desc=made.desc)
        assert made.protocol == (await mapper.get_gateway()).protocol == protocol
        assert await mapper.query_external_address() == IPv4Address("11.22.33.44")
        await mapper.delete_port_mapping(8080, "TCP")
        assert gateway.mappings == []
        others = {"upnp": {"M-SEARCH", "GET", "POST"}, "pcp": {"PCP"}, "nat-pmp": {"NAT-PMP"}}
        spoken = {each.kind for each in gateway.requests}
        assert spoken <= others[protocol]


@contextmanager
def neither_http_nor_xml() -> Iterator[None]:
    """Fail where an HTTP session or a TCP socket is made, or XML is read."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("HTTP is spoken, or XML read")

    class NoTcp(socket.socket):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM == self.type:
                refuse()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiohttp, "ClientSession", refuse)
        patch.setattr(socket, "socket", NoTcp)
        for name in xml.__all__:
            if callable(getattr(xml, name)):
                patch.setattr(xml, name, refuse)
        yield


async def test_pcp_and_nat_pmp_alone_speak_no_http_and_read_no_xml() -> None:
    async with speaking() as gateway, mapper_of(gateway, DATAGRAMS) as mapper:
        with neither_http_nor_xml():
            assert (await mapper.add_port_mapping(8080)).protocol == "pcp"
            async with mapper.lease(8081, proto=["TCP", "UDP"]) as lease:
                assert len(lease.mappings) == 2
            await mapper.query_external_address()
            await mapper.delete_port_mapping(8080)
        assert gateway.mappings == []
        assert {each.kind for each in gateway.requests} <= {"PCP", "NAT-PMP"}
        assert gateway.tally.accepted == 0


@pytest.mark.waits
async def test_where_upnp_is_silent_the_router_is_served_all_the_same() -> None:
    async with speaking(protocols=("nat-pmp",)) as gateway, mapper_of(gateway) as mapper:
        assert (await mapper.add_port_mapping(8080)).protocol == "nat-pmp"
        assert [each.external_port for each in gateway.mappings] == [8080]


@pytest.mark.waits
async def test_where_the_preferred_ones_are_silent_upnp_serves() -> None:
    async with speaking(quirks.silent_port) as gateway, mapper_of(gateway, FAST) as mapper:
        assert (await mapper.add_port_mapping(8080)).protocol == "upnp"
        assert [each.external_port for each in gateway.mappings] == [8080]


# What is refused


def answers(status: int) -> Callable[[Exchange], Response | None]:
    """Answer what is to add a mapping with a page of HTML."""
    return lambda exchange: page("<html>no</html>", status) if exchange.action == ADD else None


@pytest.mark.parametrize("protocol", DATAGRAMS)
@pytest.mark.parametrize(
    "quirk",
    [
        *(refuses(ADD, code) for code in (501, 606, 402)),
        *(odd(intercept=answers(status)) for status in (200, 401, 403, 500)),
    ],
    ids=["501", "606", "402", *(f"HTTP {status}" for status in (200, 401, 403, 500))],
)
@pytest.mark.waits
async def test_what_upnp_refuses_the_next_protocol_is_asked_for(quirk: Quirk[...], protocol: ProtocolName) -> None:
    async with speaking(quirk, protocols=("upnp", protocol)) as gateway, mapper_of(gateway) as mapper:
        made = await mapper.add_port_mapping(8080, proto="TCP")
        assert made.protocol == protocol
        assert [each.external_port for each in gateway.mappings] == [8080]
        await mapper.delete_port_mapping(8080, "TCP")
        assert gateway.mappings == []
        before = gateway.count("POST")
        await mapper.add_port_mapping(8081)
        assert gateway.count("POST") >= before
        async with mapper.lease(8090) as lease:
            assert lease.mappings[0].protocol == protocol
        assert [each.external_port for each in gateway.mappings] == [8081]


async def test_if_all_refuse_the_error_has_the_attempts_of_all() -> None:
    refusing = (refuses(ADD, 501), quirks.pcp_refuses_mappings, quirks.nat_pmp_maps_nothing)
    async with speaking(*refusing) as gateway, mapper_of(gateway) as mapper:
        with pytest.raises(RefusedError) as caught:
            await mapper.add_port_mapping(8080)
        error = caught.value
        assert (error.protocol, error.error_code, error.result) == ("upnp", 501, UPnPResult.ACTION_FAILED)
        assert list(dict.fromkeys(each.protocol for each in error.attempts)) == list(ALL)
        assert {(each.protocol, each.error_code) for each in error.attempts} >= {
            ("upnp", 501),
            ("pcp", 2),
            ("nat-pmp", 3),
        }
        assert "UPnP error 501" in str(error)
        assert gateway.mappings == []


@pytest.mark.parametrize(
    ("quirk", "protocol", "code", "words"),
    [
        (quirks.pcp_refuses_mappings, "pcp", 2, "PCP error 2"),
        (quirks.another_nat_between, "pcp", 12, "PCP error 12"),
        (quirks.nat_pmp_maps_nothing, "nat-pmp", 3, "NAT-PMP error 3"),
    ],
    ids=str,
)
async def test_an_error_says_whose_code_it_has(
    quirk: Quirk[...], protocol: ProtocolName, code: int, words: str
) -> None:
    async with speaking(quirk, protocols=(protocol,)) as gateway, mapper_of(gateway, (protocol,)) as mapper:
        for _ in range(2):  # on a gateway that is presumed, and on one that is known
            with pytest.raises(RefusedError) as caught:
                await mapper.add_port_mapping(8080)
            assert (caught.value.protocol, caught.value.error_code) == (protocol, code)
            assert words in str(caught.value)


def refuses_to_talk(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
    return proceed(replace(query, request=pcp.ResultCode.ADDRESS_MISMATCH))


async def test_a_server_that_refuses_to_talk_at_all_says_why() -> None:
    quirk = odd(pcp_action=refuses_to_talk)
    async with speaking(quirk, protocols=("pcp",)) as gateway, mapper_of(gateway, ("pcp",)) as mapper:
        with pytest.raises(RefusedError) as refused:
            await mapper.add_port_mapping(8080)
        assert (refused.value.protocol, refused.value.error_code) == ("pcp", 12)
        with pytest.raises(DiscoveryError) as caught:
            await mapper.get_gateway()
        error = caught.value
        assert (error.result, error.protocol, error.error_code) == (UPnPResult.NO_GATEWAY, "pcp", 12)
        assert "ADDRESS_MISMATCH (12)" in error.message


async def test_a_router_that_speaks_another_version_is_none() -> None:
    async with speaking(protocols=("nat-pmp",)) as gateway, mapper_of(gateway, ("pcp",), timeout=1) as mapper:
        for call in (mapper.add_port_mapping(8080), mapper.get_gateway()):
            with pytest.raises(DiscoveryError) as caught:
                await call
            assert caught.value.result is UPnPResult.NO_DEVICES


@pytest.mark.parametrize("protocols", [ALL, FAST, DATAGRAMS])
async def test_a_callers_mistake_is_final(protocols: tuple[ProtocolName, ...]) -> None:
    async with speaking() as gateway, mapper_of(gateway, protocols) as mapper:
        for wrong in ({"port": 0}, {"port": 80, "proto": "ICMP"}, {"port": 80, "internal_client": "router"}):
            with pytest.raises(UsageError):
                await mapper.add_port_mapping(**wrong)
        assert gateway.requests == []


@pytest.mark.parametrize("protocols", [ALL, FAST, DATAGRAMS])
async def test_where_an_operator_forbids_it_nothing_is_sent(
    protocols: tuple[ProtocolName, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOIGD_DISABLE", "1")
    async with speaking() as gateway, mapper_of(gateway, protocols) as mapper:
        with pytest.raises(DiscoveryError, match="switched off"):
            await mapper.add_port_mapping(8080)
        assert (gateway.requests, gateway.mappings) == ([], [])


# Conflicts


async def test_a_conflict_by_upnp_is_final_where_nothing_is_to_be_replaced() -> None:
    async with speaking() as gateway, mapper_of(gateway) as mapper:
        theirs = gateway.add_mapping(8080)
        with pytest.raises(ConflictError) as caught:
            await mapper.add_port_mapping(8080, overwrite=False)
        assert caught.value.protocol == "upnp"
        assert not any(each.endswith("MAP") for each in requests(gateway))
        assert gateway.mappings == [theirs]


@pytest.mark.parametrize("first", DATAGRAMS)
async def test_a_conflict_by_datagrams_is_final_where_nothing_is_to_be_replaced(first: ProtocolName) -> None:
    async with speaking() as gateway, mapper_of(gateway, (first, "upnp")) as mapper:
        theirs = gateway.add_mapping(8080)
        with pytest.raises(ConflictError) as caught:
            await mapper.add_port_mapping(8080, overwrite=False)
        assert caught.value.protocol == first
        assert gateway.count("POST") == 0
        assert gateway.mappings == [theirs]


@pytest.mark.parametrize("first", DATAGRAMS)
async def test_with_overwrite_it_goes_on_to_upnp_which_can_replace(first: ProtocolName) -> None:
    async with speaking() as gateway, mapper_of(gateway, (first, "upnp")) as mapper:
        gateway.add_mapping(8080)
        made = await mapper.add_port_mapping(8080)
        assert made.protocol == "upnp"
        assert [(each.external_port, each.internal_client) for each in gateway.mappings] == [(8080, gateway.address)]


async def test_without_upnp_nobody_can_take_what_is_another_hosts() -> None:
    async with speaking() as gateway, mapper_of(gateway, DATAGRAMS) as mapper:
        theirs = gateway.add_mapping(8080)
        with pytest.raises(ConflictError) as caught:
            await mapper.add_port_mapping(8080)
        assert {each.protocol for each in caught.value.attempts} == set(DATAGRAMS)
        assert gateway.mappings == [theirs]


# Devices and gateways


@pytest.mark.waits
async def test_a_router_is_a_device_for_each_protocol() -> None:
    async with speaking() as gateway, mapper_of(gateway) as mapper:
        found = await mapper.discover(0.5)
        assert {each.protocol for each in found} == set(ALL)
        assert found[0].protocol == "upnp"
        for each in found[1:]:
            assert (each.address, each.igd_our_addr) == (gateway.address, gateway.address)
            assert (each.description_url, each.igd_control_url) == ("", "")
            assert each.is_valid_gateway()
        assert await mapper.discover(0.5, device_filter="MediaServer") == []
        every = [each.protocol async for each in mapper.iter_devices(0.5, device_filter="")]
        assert set(every) == set(ALL)


@pytest.mark.parametrize("protocol", DATAGRAMS)
@pytest.mark.waits
async def test_a_device_of_a_protocol_may_be_chosen(protocol: ProtocolName) -> None:
    async with speaking() as gateway, mapper_of(gateway) as mapper:
        found = await mapper.discover(0.5)
        mapper.devices = [each for each in found if each.protocol == protocol]
        assert (await mapper.add_port_mapping(8080)).protocol == protocol
        assert f"<Gateway '{protocol.upper()} router at {gateway.address}' at {gateway.address}>" == repr(
            await mapper.get_gateway()
        )


QUESTIONS: dict[str, Callable[[Gateway], Awaitable[object]]] = {
    "mapping": lambda gateway: gateway.query_port_mapping(80),
    "list": lambda gateway: anext(gateway.query_port_mappings()),
    "status": lambda gateway: gateway.query_status(),
    "type": lambda gateway: gateway.query_connection_type(),
    "nat": lambda gateway: gateway.query_nat_status(),
    "link": lambda gateway: gateway.query_link_properties(),
    "traffic": lambda gateway: gateway.query_traffic(),
    "firewall": lambda gateway: gateway.query_firewall_status(),
    "range": lambda gateway: gateway.delete_port_mapping_range(80, 81),
}


@pytest.mark.parametrize("protocol", DATAGRAMS)
@pytest.mark.parametrize("question", QUESTIONS)
async def test_what_a_protocol_cannot_do_is_unsupported(protocol: ProtocolName, question: str) -> None:
    async with speaking(protocols=(protocol,)) as gateway, mapper_of(gateway, (protocol,)) as mapper:
        found = await mapper.get_gateway()
        with pytest.raises(UnsupportedError) as caught:
            await QUESTIONS[question](found)
        assert caught.value.result is UPnPResult.INVALID_GATEWAY
        assert not any(each.endswith("MAP") for each in requests(gateway))


# The only router to use


class Peers:
    """To whom datagrams are sent."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def datagram(self, direction: str, payload: bytes, peer: str) -> None:
        if direction == "out":
            self.seen.add(peer)

    def pcp_datagram(self, direction: str, payload: bytes, peer: str, failure: str = "") -> None:
        self.datagram(direction, payload, peer)

    def exchange(self, exchange: HttpExchange) -> None:
        """Requests by HTTP are none of its matter."""


@contextmanager
def traced() -> Iterator[Peers]:
    peers = Peers()
    token = tracer.set(peers)
    try:
        yield peers
    finally:
        tracer.reset(token)


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.waits
async def test_a_named_router_is_asked_by_unicast_and_nobody_else(protocol: ProtocolName) -> None:
    async with (
        speaking() as gateway,
        speaking(),
        PortMapper(gateway=gateway.address, protocols=(protocol,), timeout=30, discovery_timeout=30) as mapper,
    ):
        with traced() as peers:
            made = await mapper.add_port_mapping(8080)
            await mapper.discover(0.3)
        assert made.protocol == protocol
        assert peers.seen == {gateway.address}
        assert {each.address or gateway.address for each in mapper.devices} == {gateway.address}


async def test_the_port_is_that_of_pcp_and_nat_pmp() -> None:
    async with EmulatedGateway(protocols=DATAGRAMS) as gateway:
        place = f"127.0.0.1:{gateway.pcp_port}"
        async with PortMapper(gateway=place, protocols=DATAGRAMS) as mapper:
            made = await mapper.add_port_mapping(8080)
            assert made.protocol == "pcp"
            assert (await mapper.get_gateway()).device.address == place
        assert gateway.problems == []


async def test_an_ipv6_router_is_named_with_brackets_and_opens_pinholes_only() -> None:
    async with (
        EmulatedGateway(address="::1", protocols=("pcp",)) as gateway,
        PortMapper(gateway=f"[::1]:{gateway.pcp_port}", protocols=("pcp",), timeout=2) as mapper,
    ):
        found = await mapper.get_gateway()
        hole = await found.add_pinhole(None, 8080, "TCP", duration=600)
        assert (hole.protocol, hole.internal_client) == ("pcp", "::1")
        await found.delete_pinhole(hole)
        assert gateway.firewall.pinholes == []
        with pytest.raises(IGDError, match="IPv4"):
            await mapper.add_port_mapping(8080)


async def test_nat_pmp_is_not_spoken_over_ipv6() -> None:
    async with EmulatedGateway(address="::1", protocols=("pcp",)) as gateway:
        place = f"[::1]:{gateway.pcp_port}"
        async with PortMapper(gateway=place, protocols=("nat-pmp",), timeout=1) as mapper:
            for call in (mapper.get_gateway(), mapper.add_port_mapping(8080)):
                with pytest.raises(DiscoveryError):
                    await call
        assert gateway.requests == []


# What a caller may say


@pytest.mark.one_loop
@pytest.mark.parametrize(
    "gateway",
    [
        *("10.2.0.1", "10.2.0.1:1", "10.2.0.1:65535", "::1", "[::1]", "[::1]:5351", "fe80::1%lo", "[fe80::1%lo]:5351"),
        *(IPv4Address("10.2.0.1"), IPv6Address("2001:db8::1"), IPv6Address("fe80::1%lo"), None),
    ],
    ids=str,
)
def test_a_gateway_is_an_address_with_or_without_a_port(gateway: str | IPv4Address | IPv6Address | None) -> None:
    assert repr(PortMapper(gateway=gateway))


def test_an_ipv4_address_in_the_form_of_ipv6_is_one() -> None:
    mapper = PortMapper(gateway="[::ffff:10.2.0.1]:5351")
    assert (mapper._finder._scope.host, mapper._finder._scope.ipv6) == ("10.2.0.1", False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gateway": "10.2.0.1", "location": "http://10.2.0.1/x"}, "give one of them"),
        ({"gateway": "10.2.0.1", "ipv6": True}, "not at 10.2.0.1"),
        ({"gateway": "10.2.0.1", "source_address": "::1"}, "of the family of the gateway 10.2.0.1, not ::1"),
        ({"gateway": "::1", "source_address": "127.0.0.1"}, "of the family of the gateway ::1, not 127.0.0.1"),
        ({"location": "http://10.2.0.1/x", "protocols": DATAGRAMS}, "which is not in protocols: ('pcp', 'nat-pmp')"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        PortMapper(**options)
    assert message in caught.value.message


async def test_bound_to_loopback_that_address_is_asked_and_no_other() -> None:
    async with speaking(protocols=DATAGRAMS) as gateway, mapper_of(gateway, DATAGRAMS) as mapper:
        with traced() as peers:
            await mapper.add_port_mapping(8080)
        assert peers.seen == {gateway.address}


async def test_with_a_location_only_upnp_is_spoken() -> None:
    async with speaking() as gateway, mapper_of(gateway, FAST, location=gateway.location) as mapper:
        assert (await mapper.add_port_mapping(8080)).protocol == "upnp"
        assert {each.kind for each in gateway.requests} == {"GET", "POST"}


@pytest.mark.waits
async def test_the_plain_functions_share_a_mapper_for_equal_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    class Noted(PortMapper):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(options)

    monkeypatch.setattr(functions, "PortMapper", Noted)
    async with speaking() as gateway:
        address = gateway.address
        same: list[dict[str, Any]] = [
            {"protocols": ("pcp", "nat-pmp"), "gateway": address, "pcp_secret": b"s"},
            {"protocols": ["pcp", "nat-pmp"], "gateway": IPv4Address(address), "pcp_secret": b"s"},
        ]
        for number, options in enumerate(same):
            assert (await aioigd.add_port_mapping(8080 + number, **options)).protocol == "pcp"
        assert await aioigd.query_external_address(**same[0]) == IPv4Address("11.22.33.44")
        await aioigd.delete_port_mapping(8080, **same[1])
        assert len(made) == 1
        for other in ({"protocols": ("nat-pmp", "pcp")}, {"gateway": f"{address}:5351"}, {"pcp_secret": b"t"}):
            await aioigd.add_port_mapping(9000 + len(made), **(same[0] | other))
        assert len(made) == 4
        assert {each.protocol for each in await aioigd.discover(0.3, gateway=address)} == set(ALL)


async def test_another_secret_is_another_nonce_and_the_same_one_the_same() -> None:
    nonces: list[str] = []
    async with speaking(protocols=("pcp",)) as gateway:
        for secret in (b"one", b"one", b"two", None, None):
            async with mapper_of(gateway, ("pcp",), pcp_secret=secret) as mapper:
                await mapper.add_port_mapping(8080)
                nonces.append(next(each.arguments["nonce"] for each in gateway.requests if each.action == "MAP"))
                gateway.requests.clear()
                await mapper.delete_port_mapping(8080)
                gateway.requests.clear()
    one, again, two, default, same = nonces
    assert one == again
    assert default == same
    assert len({one, two, default}) == 3


@pytest.mark.waits
async def test_a_choice_of_ports_hardly_waits_for_a_silent_port() -> None:
    """A router of UPnP alone is asked once more by the others, with one datagram each, and then ports are tried."""
    async with speaking(quirks.silent_port) as gateway, mapper_of(gateway) as mapper:
        gateway.add_mapping(8080, proto="TCP")
        await mapper.get_gateway()
        before = gateway.count("PCP") + gateway.count("NAT-PMP")
        for _ in range(2):
            async with mapper.lease(8080, proto="TCP", on_conflict="other_port") as lease:
                assert lease.external_port != 8080
        assert gateway.count("PCP") + gateway.count("NAT-PMP") - before == 2
