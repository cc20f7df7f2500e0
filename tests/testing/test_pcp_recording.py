"""PCP and NAT-PMP can be recorded, shown to others, and played again with the same outcome."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd import IGDError, PortMapper, PortMapping
from aioigd.models import Proto
from aioigd.net.trace import tracer
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.common import Address
from aioigd.results import ProtocolName
from aioigd.testing import EmulatedGateway, Quirk, ReplayedGateway, record
from aioigd.testing.conversation import Conversation, PcpEvent
from aioigd.testing.pcp_replay import MAX_REPLIES, RecordedPcp
from aioigd.testing.pcp_scrubbing import described, scrubbed
from aioigd.testing.quirks import CATALOGUE
from aioigd.testing.stand_ins import StandIns

from ..pcp.test_backend import BOTH, Core, Name, by_both
from .pcp_client import NONCE, OTHER_NONCE
from .test_recording import use as use_mapper

pytestmark = pytest.mark.waits

SECRET = "44.17.83.9"
OURS, THEIRS = ip_address("10.20.30.40"), ip_address("10.20.30.41")
V6 = ip_address("2a02:8071:1234::5")

# Which of two requests that are out together has no address yet, is a matter of chance.
OF_PCP = [name for name, each in CATALOGUE.items() if each.family == "pcp" and name != "no_address_at_first"]


async def use(gateway: EmulatedGateway | ReplayedGateway, protocol: Name, timeout: float = 10.0) -> list[object]:
    """Do what programs do, and return how it went, addresses aside."""
    core = Core(gateway, protocol, timeout=timeout)
    outcomes: list[object] = []
    for work in (
        lambda: core.add(8080, 80),
        lambda: core.add(8081, proto="UDP"),
        lambda: core.add(8080, 80),
        lambda: core.dispatcher.external_address(),
        lambda: core.delete(8080),
        lambda: core.add(8082, duration=60, overwrite=False),
    ):
        try:
            result = await work()
        except IGDError as error:
            outcomes.append((type(error), error.result, error.error_code))
        else:
            if isinstance(result, PortMapping):
                outcomes.append((result.external_port, result.internal_port, result.proto, result.duration))
            else:
                outcomes.append(type(result))
    await core.queue.drain()
    await core.driver.close()
    return outcomes


async def recorded(path: Path, protocol: Name, *names: str | Quirk[...], timeout: float = 10.0) -> list[object]:
    async with (
        EmulatedGateway(*names, address=None, protocols=BOTH, external_address=SECRET) as gateway,
        record(path),
    ):
        return await use(gateway, protocol, timeout)


@by_both
@pytest.mark.parametrize(
    "names",
    [
        (),
        ("grants_lifetime",),
        ("assigns_own_ports",),
        ("internal_port_only",),
        ("pcp_refuses_mappings",),
        ("another_nat_between",),
        ("nat_pmp_maps_nothing", "nat_pmp_errors_echo_request"),
        ("repeats_replies",),
        ("loses_first_datagrams",),
        ("private_address_is_none",),
        ("forged_replies_first",),
    ],
)
async def test_what_was_recorded_is_played_again_with_the_same_outcome(
    protocol: Name, names: tuple[str | Quirk[...], ...], tmp_path: Path
) -> None:
    outcome = await recorded(tmp_path / "router.json", protocol, *names)
    async with ReplayedGateway(tmp_path / "router.json") as replayed:
        assert replayed.pcp_port
        assert await use(replayed, protocol) == outcome
    assert replayed.unexpected == []


@pytest.mark.long
@by_both
@pytest.mark.parametrize("name", OF_PCP)
async def test_every_quirk_is_played_again_with_the_same_outcome(protocol: Name, name: str, tmp_path: Path) -> None:
    outcome = await recorded(tmp_path / "router.json", protocol, name, timeout=2)
    async with ReplayedGateway(tmp_path / "router.json") as replayed:
        assert await use(replayed, protocol, timeout=2) == outcome


async def test_all_three_protocols_of_one_router_are_in_one_recording(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    async with (
        EmulatedGateway(address=None, protocols=("upnp", *BOTH), external_address=SECRET) as gateway,
        record(path),
        PortMapper(source_address=gateway.address) as mapper,
    ):
        made = await mapper.add_port_mapping(9000, proto="TCP")
        outcomes = [await use(gateway, protocol) for protocol in BOTH]
    text = path.read_text("utf-8")
    assert SECRET not in text
    assert gateway.address not in text
    conversation = Conversation.load(path)
    times = [event.time for event in conversation.events]
    assert times == sorted(times)
    assert conversation.datagrams
    assert conversation.exchanges
    async with (
        ReplayedGateway(path) as replayed,
        PortMapper(source_address=replayed.address) as mapper,
    ):
        assert (await mapper.add_port_mapping(9000, proto="TCP")).external_port == made.external_port
        assert [await use(replayed, protocol) for protocol in BOTH] == outcomes


@pytest.mark.parametrize(
    ("spoken", "names"),
    [
        (("upnp", *BOTH), ()),
        (BOTH, ()),
        (("upnp", "pcp"), ("pcp_refuses_mappings",)),
        (("upnp", "nat-pmp"), ("refuses_leases",)),
        (("nat-pmp",), ("grants_lifetime",)),
    ],
)
@pytest.mark.parametrize("order", [("upnp", *BOTH), (*BOTH, "upnp"), BOTH])
async def test_a_mapper_of_any_order_does_the_same_with_the_recording(
    order: Sequence[ProtocolName], spoken: Sequence[ProtocolName], names: Sequence[str], tmp_path: Path
) -> None:
    path = tmp_path / "router.json"
    async with (
        EmulatedGateway(*names, address=None, protocols=spoken) as gateway,
        record(path),
        PortMapper(source_address=gateway.address, protocols=order) as mapper,
    ):
        outcome = await use_mapper(mapper)
    async with (
        ReplayedGateway(path) as replayed,
        PortMapper(source_address=replayed.address, protocols=order) as mapper,
    ):
        assert await use_mapper(mapper) == outcome


async def test_a_shared_address_is_reached_by_its_port(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    for protocols in (("pcp",), ("nat-pmp",)):
        async with EmulatedGateway(protocols=protocols) as gateway, record(path, overwrite=True):
            router = f"{gateway.address}:{gateway.pcp_port}"
            async with PortMapper(gateway=router, protocols=protocols) as mapper:
                made = await mapper.add_port_mapping(8080, 80, proto="TCP", duration=60)
        async with ReplayedGateway(path, address="127.0.0.1") as replayed:
            router = f"{replayed.address}:{replayed.pcp_port}"
            async with PortMapper(gateway=router, protocols=protocols) as mapper:
                assert await mapper.add_port_mapping(8080, 80, proto="TCP", duration=60) == made


async def test_a_lease_is_kept_on_a_recording(tmp_path: Path) -> None:
    async def keep(router: EmulatedGateway | ReplayedGateway) -> None:
        async with (
            PortMapper(source_address=router.address, protocols=BOTH) as mapper,
            mapper.lease(8080, proto="TCP", duration=600) as lease,
        ):
            assert (lease.external_port, lease.state.name) == (8080, "ACTIVE")

    async with EmulatedGateway(address=None, protocols=BOTH) as gateway, record(tmp_path / "router.json"):
        await keep(gateway)
    async with ReplayedGateway(tmp_path / "router.json") as replayed:
        await keep(replayed)
    assert replayed.unexpected == []


def test_another_version_is_an_answer_to_the_other_protocol() -> None:
    """Both were asked at the same time, and both replies are by NAT-PMP and with its opcode 0."""
    looks = [bytes(2), pcp.build_request(pcp.Request(pcp.Opcode.ANNOUNCE, OURS))]
    unsupported = bytes((0, 0x80, 0, 1)) + bytes(4)
    told = nat_pmp.build_response(nat_pmp.AddressResponse(0, IPv4Address("198.51.100.1")))
    for replies in ([unsupported, told], [told, unsupported]):
        events = [*(event(1.0, "out", each) for each in looks), *(event(1.1, "in", each) for each in replies)]
        recording = RecordedPcp(events, [])
        assert [recording.answer(each, "127.0.0.1", 0.0)[0].payload[3] for each in looks] == [0, 1]


async def test_a_shared_address_has_another_port(tmp_path: Path) -> None:
    outcome = await recorded(tmp_path / "router.json", "pcp")
    async with ReplayedGateway(tmp_path / "router.json", address="127.0.0.1") as replayed:
        assert replayed.pcp_port not in (0, 5351)
        assert await use(replayed, "pcp") == outcome


async def test_what_is_asked_for_now_is_what_is_granted(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    for protocol in BOTH:
        await recorded(path, protocol)
        async with ReplayedGateway(path) as replayed:
            core = Core(replayed, protocol, secret=b"another")
            mapping = await core.add(4000, 4001, "UDP", 777)
            assert mapping == PortMapping(4000, 4001, replayed.address, "UDP", "", 777)
            address = await core.dispatcher.external_address()
            assert address.is_global
            assert str(address) != SECRET
            await core.queue.drain()
        path.unlink()


@by_both
async def test_a_closed_port_is_closed_again(protocol: Name, tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    async with EmulatedGateway(address=None) as gateway, record(path):
        outcome = await use(gateway, protocol, timeout=1)
    assert {event.failure for event in Conversation.load(path).pcp_datagrams} == {"", "ConnectionRefusedError"}
    async with ReplayedGateway(path) as replayed:
        assert replayed.pcp_port == 0
        assert await use(replayed, protocol, timeout=1) == outcome


async def test_a_protocol_that_the_router_does_not_have_is_another_version(tmp_path: Path) -> None:
    """Who has spoken by one of them is asked by the other: an answer of the standard, and at once."""
    for protocol, other in (BOTH, BOTH[::-1]):
        path = tmp_path / f"{protocol}.json"
        await recorded(path, protocol)
        async with ReplayedGateway(path) as replayed:
            core = Core(replayed, other)
            with pytest.raises(IGDError, match=f"no router answers by {other.upper()}"):
                await core.backend()
        assert replayed.unexpected == [f"{'PCP' if other == 'pcp' else 'NAT-PMP'} look"]


async def test_what_was_never_asked_is_refused_and_noted(tmp_path: Path) -> None:
    for protocol in BOTH:
        path = tmp_path / f"{protocol}.json"
        async with EmulatedGateway(address=None, protocols=BOTH) as gateway, record(path):
            await Core(gateway, protocol).backend()
        async with ReplayedGateway(path) as replayed:
            core = Core(replayed, protocol)
            with pytest.raises(IGDError, match="UNSUPP"):
                await core.add(8080)
            await core.queue.drain()
        assert replayed.unexpected
        assert {each.partition(" ")[2] for each in replayed.unexpected} <= {"map", "delete"}


# Time


def event(time: float, direction: Any, payload: bytes) -> PcpEvent:
    return PcpEvent(time, direction, "192.0.2.1", payload.hex(" ", -4), described(payload), "")


def nat_pmp_map(port: int, lifetime: int = 60) -> bytes:
    return nat_pmp.build_request(nat_pmp.MapRequest("TCP", port, port, lifetime))


def nat_pmp_granted(port: int, epoch: int = 0, lifetime: int = 60) -> bytes:
    return nat_pmp.build_response(nat_pmp.MapResponse(epoch, "TCP", port, port, lifetime))


def epochs(recording: RecordedPcp, port: int, times: Sequence[float]) -> list[int]:
    found = []
    for time in times:
        (sent,) = recording.answer(nat_pmp_map(port), "127.0.0.1", time)
        reply = nat_pmp.parse_response(sent.payload)
        assert reply is not None
        found.append(reply.epoch)
    return found


def test_the_epoch_goes_on_with_the_time_of_now() -> None:
    events = [event(10.0, "out", nat_pmp_map(80)), event(10.0, "in", nat_pmp_granted(80, 5000))]
    events += [event(610.0, "out", nat_pmp_map(80)), event(610.0, "in", nat_pmp_granted(80, 5600))]
    assert epochs(RecordedPcp(events, []), 80, (77.0, 78.0, 79.0, 99.0)) == [5000, 5001, 5002, 5022]


def test_a_restart_stays_one() -> None:
    events = [event(10.0, "out", nat_pmp_map(80)), event(10.0, "in", nat_pmp_granted(80, 5000))]
    events += [event(610.0, "out", nat_pmp_map(80)), event(610.0, "in", nat_pmp_granted(80, 3))]
    assert epochs(RecordedPcp(events, []), 80, (77.0, 78.0, 1000.0)) == [5000, 0, 326]


def test_replies_take_the_time_that_they_took_and_lost_datagrams_are_lost_again() -> None:
    asked = nat_pmp_map(80)
    events = [event(1.0, "out", asked), event(1.25, "out", asked), event(1.75, "out", asked)]
    events.append(event(1.8, "in", nat_pmp_granted(80)))
    recording = RecordedPcp(events, [])
    delays = [[sent.delay for sent in recording.answer(asked, "127.0.0.1", 0.0)] for _ in range(4)]
    assert delays == [[], [], [pytest.approx(0.05)], [pytest.approx(0.05)]]


def test_replies_to_many_at_once_are_told_apart() -> None:
    asked = [nat_pmp_map(port) for port in range(1, 51)]
    events = [event(1.0, "out", each) for each in asked]
    events += [event(1.1, "in", nat_pmp_granted(port, lifetime=1000 + port)) for port in range(50, 0, -1)]
    recording = RecordedPcp(events, [])
    for port, each in enumerate(asked, 1):
        (sent,) = recording.answer(each, "127.0.0.1", 0.0)
        assert nat_pmp.parse_response(sent.payload) == nat_pmp.MapResponse(0, "TCP", port, port, 1000 + port)


def test_refusals_that_do_not_say_of_what_belong_to_the_oldest_request() -> None:
    asked = [nat_pmp_map(port) for port in (80, 81, 82)]
    refusals = [nat_pmp.build_response(nat_pmp.Refusal(nat_pmp.Opcode.MAP_TCP, result, 0)) for result in (2, 4)]
    events = [*(event(1.0, "out", each) for each in asked), event(1.1, "in", nat_pmp_granted(80))]
    events += [event(1.2, "in", each) for each in refusals]
    recording = RecordedPcp(events, [])
    replies = [recording.answer(each, "127.0.0.1", 0.0)[0].payload for each in asked]
    assert [reply[3] for reply in replies] == [0, 2, 4]


def test_one_datagram_is_answered_by_a_few() -> None:
    asked = nat_pmp_map(80)
    events = [event(1.0, "out", asked), *(event(1.1, "in", nat_pmp_granted(80)) for _ in range(5000))]
    events.append(event(100.0, "in", nat_pmp_granted(80)))
    assert len(RecordedPcp(events, []).answer(asked, "127.0.0.1", 0.0)) == MAX_REPLIES


def test_a_recording_of_the_most_there_may_be_is_sorted_out_soon() -> None:
    """What belongs to what is looked up, not sought: the work grows with the number of messages."""
    outs = [event(1.0, "out", nat_pmp_map(80)) for _ in range(5000)]
    strays = [nat_pmp.build_response(nat_pmp.Refusal(opcode % 128, 1, 0)) for opcode in range(5000)]
    lookups = 0

    class Counted(PcpEvent):
        @property
        def datagram(self) -> bytes:
            nonlocal lookups
            lookups += 1
            return bytes.fromhex(self.payload)

    counted = [Counted(each.time, each.direction, each.peer, each.payload, "", "") for each in outs]
    counted += [Counted(2.0, "in", "192.0.2.1", each.hex(), "", "") for each in strays]
    RecordedPcp(counted, [])
    assert lookups == len(counted)


# What is replaced


def map_of(
    nonce: bytes, external: Address, *options: pcp.Option, client: Address = OURS, opcode: int = pcp.Opcode.MAP
) -> bytes:
    peer = pcp.RemotePeer(443, THEIRS) if opcode == pcp.Opcode.PEER else None
    data = pcp.MapData(nonce, 6, 80, 8080, external, peer)
    return pcp.build_request(pcp.Request(opcode, client, 3600, data, options))


def test_addresses_and_nonces_are_replaced_and_the_rest_stays() -> None:
    options = (pcp.ThirdParty(THEIRS), pcp.Filter(128, 5000, ip_address(SECRET)), pcp.OtherOption(200, b"Anna"))
    known = StandIns(lambda word: False)
    asked = pcp.parse_request(scrubbed(map_of(NONCE, ip_address(SECRET), pcp.PreferFailure(), *options), known))
    assert asked == pcp.Request(
        pcp.Opcode.MAP,
        ip_address("192.0.2.1"),
        3600,
        pcp.MapData(bytes(11) + b"\x01", 6, 80, 8080, ip_address("198.51.100.1")),
        (
            pcp.PreferFailure(),
            pcp.ThirdParty(ip_address("192.0.2.2")),
            pcp.Filter(128, 5000, ip_address("198.51.100.1")),
            pcp.OtherOption(200, bytes(4)),
        ),
    )
    response = nat_pmp.AddressResponse(99, IPv4Address(SECRET))
    assert scrubbed(nat_pmp.build_response(response), known) == nat_pmp.build_response(
        nat_pmp.AddressResponse(99, IPv4Address("198.51.100.1"))
    )
    for whole in (nat_pmp_map(80), nat_pmp_granted(80, 12), bytes(2), nat_pmp_granted(80)[:8]):
        assert scrubbed(whole, known) == whole


def test_addresses_that_are_nobody_s_stay() -> None:
    for nobody in ("0.0.0.0", "::"):
        request = pcp.parse_request(scrubbed(map_of(NONCE, ip_address(nobody)), StandIns(lambda word: False)))
        assert isinstance(request, pcp.Request)
        assert request.mapping is not None
        assert str(request.mapping.external_address) == nobody


SECRETS = (
    IPv4Address(SECRET).packed,
    OURS.packed,
    THEIRS.packed,
    V6.packed[:8],
    NONCE,
    OTHER_NONCE,
    b"Anna",
    b"Annaliese",
)
planted = st.one_of(
    st.sampled_from(
        [
            map_of(NONCE, ip_address(SECRET)),
            map_of(OTHER_NONCE, V6, client=V6),
            map_of(NONCE, ip_address(SECRET), pcp.ThirdParty(THEIRS), pcp.OtherOption(7, b"Annaliese")),
            map_of(NONCE, ip_address(SECRET), opcode=pcp.Opcode.PEER),
            pcp.build_request(pcp.Request(pcp.Opcode.ANNOUNCE, V6)),
            pcp.build_refusal(map_of(NONCE, V6, client=V6), 12, lifetime=1, epoch=2),
            bytes((0, 0x81, 0, 1)) + bytes(4) + map_of(NONCE, V6, client=V6)[8:],
            nat_pmp.build_response(nat_pmp.AddressResponse(1, IPv4Address(SECRET))),
            bytes((0, 0x80, 0, 3)) + bytes(4) + IPv4Address(SECRET).packed,
            b"\x01\x81\x00\x01" + OURS.packed * 10,
        ]
    ),
)


@given(planted, st.integers(0, 120), st.binary(max_size=6), st.integers(0, 1))
def test_whatever_the_message_nothing_private_is_left(message: bytes, cut: int, tail: bytes, bit: int) -> None:
    """Also of messages that are cut off, of another version, and replies of requests."""
    message = bytes((message[0], message[1] ^ bit << 7)) + message[2:]
    message = message[:cut] + tail if cut < len(message) else message + tail
    known = StandIns(lambda word: False)
    copy = scrubbed(message, known)
    assert len(copy) == len(message)
    for secret in SECRETS:
        if secret not in tail:
            assert secret not in copy
    assert scrubbed(copy, StandIns(lambda word: False)) == copy
    assert described(copy).isprintable()
    assert len(described(copy)) <= 300


@given(st.binary(max_size=1101))
def test_any_bytes_can_be_shown_and_read_back(payload: bytes) -> None:
    copy = scrubbed(payload, StandIns(lambda word: False))
    assert len(copy) == len(payload)
    assert described(copy).isprintable()
    assert event(0, "in", copy).datagram == copy


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (bytes(2), "NAT-PMP request: external address"),
        (nat_pmp_map(80), "NAT-PMP request: TCP port 80, external port 80, 60 s"),
        (nat_pmp_granted(80, 7), "NAT-PMP reply: TCP port 80, external port 80, 60 s; epoch 7"),
        (bytes((0, 129, 0, 2, 0, 0, 0, 1)), "NAT-PMP reply: NOT_AUTHORIZED to MAP_UDP; epoch 1"),
        (bytes((0, 200, 1, 2, 0, 0, 0, 1)), "NAT-PMP reply: code 258 to code 72; epoch 1"),
        (
            map_of(bytes(12), ip_address("192.0.2.9"), pcp.PreferFailure(), pcp.OtherOption(200, b"")),
            "PCP request: MAP from 10.20.30.40, TCP port 80, external port 8080 of 192.0.2.9, "
            "nonce 000000000000000000000000, 3600 s, this port or none, option 200",
        ),
        (
            pcp.build_response(pcp.Response(pcp.Opcode.ANNOUNCE, 2, 30, 7)),
            "PCP reply: NOT_AUTHORIZED to ANNOUNCE, 30 s; epoch 7",
        ),
        (b"\x02\x01", "no message of PCP or NAT-PMP"),
        (b"", "no message of PCP or NAT-PMP"),
    ],
)
def test_a_message_is_told_in_words(message: bytes, words: str) -> None:
    assert described(message) == words


async def test_the_file_has_no_room_for_a_flood_and_all_for_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    async with record(path):
        recorder = tracer.get()
        assert recorder is not None
        recorder.pcp_datagram("in", b"\x02\x80unasked", "10.0.0.1")
        for number in range(700):
            recorder.pcp_datagram("out", nat_pmp_map(number), "10.0.0.1")
            recorder.pcp_datagram("in", nat_pmp_granted(number), "10.0.0.1")
        for _ in range(20_000):
            recorder.pcp_datagram("in", bytes(10), "10.0.0.1")
    conversation = Conversation.load(path)
    assert len(conversation.pcp_datagrams) == 700 * (1 + MAX_REPLIES)
    assert int(conversation.about["left out"].split()[0]) == 1 + 20_000 - 700 * (MAX_REPLIES - 1)


async def test_of_what_is_too_long_the_beginning_is_kept_and_of_all_that_comes_a_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    async with record(path):
        recorder = tracer.get()
        assert recorder is not None
        for _ in range(1000):
            recorder.pcp_datagram("out", bytes(2), "10.0.0.1")
            recorder.pcp_datagram("in", bytes(60_000), "10.0.0.1")
    heard = [len(each.datagram) for each in Conversation.load(path).pcp_datagrams if each.direction == "in"]
    assert set(heard) == {1101}
    assert len(heard) == 1024 * 1024 // 1101


def test_an_old_recording_is_read(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    old = {"kind": "datagram", "time": 0.1, "direction": "out", "peer": "239.255.255.250", "payload": "M-SEARCH"}
    path.write_text(json.dumps({"format": 1, "about": {"aioigd": "1.0"}, "events": [old]}))
    assert Conversation.load(path).pcp_datagrams == []
    assert not ReplayedGateway(path)._recorded_pcp.is_open


def test_a_mapping_over_ipv6_has_the_address_of_its_host() -> None:
    request = pcp.Request(pcp.Opcode.MAP, V6, 3600, pcp.MapData(NONCE, 6, 80, 80, ip_address("::")))
    granted = pcp.Response(pcp.Opcode.MAP, 0, 3600, 5, pcp.MapData(NONCE, 6, 80, 80, V6))
    events = [event(1.0, "out", pcp.build_request(request)), event(1.0, "in", pcp.build_response(granted))]
    now = pcp.Request(pcp.Opcode.MAP, ip_address("::1"), 60, pcp.MapData(OTHER_NONCE, 17, 81, 81, ip_address("::")))
    (sent,) = RecordedPcp(events, []).answer(pcp.build_request(now), "::1", 0.0)
    assert pcp.parse_response(sent.payload) == pcp.Response(
        pcp.Opcode.MAP, 0, 60, 5, pcp.MapData(OTHER_NONCE, 17, 81, 81, ip_address("::1"))
    )
    # The router was never asked over IPv4.
    other = pcp.Request(pcp.Opcode.MAP, OURS, 60, pcp.MapData(OTHER_NONCE, 17, 81, 81, ip_address("0.0.0.0")))
    unexpected: list[str] = []
    (refused,) = RecordedPcp(events, unexpected).answer(pcp.build_request(other), "127.0.0.1", 0.0)
    assert refused.payload[3] == pcp.ResultCode.UNSUPP_OPCODE
    assert unexpected == ["PCP map"]


PROTOS: tuple[Proto, ...] = ("TCP", "UDP")


@pytest.mark.parametrize("proto", PROTOS)
def test_options_are_those_of_now_where_they_were_those_of_then(proto: Proto) -> None:
    def request(nonce: bytes, client: Address, remote: str) -> pcp.Request:
        data = pcp.MapData(nonce, 6 if proto == "TCP" else 17, 80, 80, ip_address("0.0.0.0"))
        return pcp.Request(pcp.Opcode.MAP, client, 60, data, (pcp.Filter(128, 0, ip_address(remote)),))

    then, now = request(NONCE, OURS, "198.51.100.7"), request(OTHER_NONCE, ip_address("127.0.0.1"), "203.0.113.1")
    assert then.mapping is not None
    granted = pcp.build_response(pcp.Response(pcp.Opcode.MAP, 0, 60, 1, then.mapping, then.options))
    events = [event(1.0, "out", pcp.build_request(then)), event(1.0, "in", granted)]
    (sent,) = RecordedPcp(events, []).answer(pcp.build_request(now), "127.0.0.1", 0.0)
    response = pcp.parse_response(sent.payload)
    assert response is not None
    assert response.options == now.options
