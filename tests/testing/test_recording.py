"""A session with a router can be recorded, shown to others, and played again with the same outcome."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aioigd import DeadlineError, IGDError, PortMapper, PortMapping
from aioigd.net.trace import tracer
from aioigd.testing import EmulatedGateway, Quirk, ReplayedGateway, quirks, record
from aioigd.testing.conversation import Conversation, read, written
from aioigd.testing.scrubbing import Scrubber

Session = Callable[[PortMapper], Awaitable[list[object]]]


async def use(mapper: PortMapper) -> list[object]:
    """Do what programs do, and return how it went, addresses aside."""
    outcomes: list[object] = []
    for work in (
        lambda: mapper.add_port_mapping(8080, proto="TCP", desc="my server", duration=3600),
        lambda: mapper.add_port_mapping(8081),
        lambda: mapper.query_external_address(),
        lambda: mapper.delete_port_mapping(8080, "TCP"),
        lambda: mapper.delete_port_mapping(9999),
    ):
        try:
            result = await work()
        except IGDError as error:
            outcomes.append((error.result, error.error_code, [each.action for each in error.attempts]))
        else:
            if isinstance(result, PortMapping):
                outcomes.append((result.external_port, result.proto, result.desc, result.duration))
            else:
                outcomes.append(type(result))
    return outcomes


async def recorded(
    path: Path, *names: str | Quirk[...], external_address: str = "11.22.33.44"
) -> tuple[list[object], EmulatedGateway]:
    async with (
        EmulatedGateway(*names, address=None, external_address=external_address) as gateway,
        record(path),
        PortMapper(source_address=gateway.address) as mapper,
    ):
        return await use(mapper), gateway


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("refuses_leases",),
        ("services_on_root", "absolute_urls"),
        (quirks.late_replies(0.4),),
        ("faults_in_words",),
        ("ip_and_ppp",),
        ("chunked", "table_full"),
        ("latin_1",),
        ("resets_before_doing",),
    ],
)
async def test_what_was_recorded_is_played_again_with_the_same_outcome(
    names: tuple[str | Quirk[...], ...], tmp_path: Path
) -> None:
    path = tmp_path / "router.json"
    outcome, _ = await recorded(path, *names)
    async with ReplayedGateway(path) as replayed, PortMapper(source_address=replayed.address) as mapper:
        assert await use(mapper) == outcome
    assert replayed.unexpected == []


async def test_it_may_be_played_without_a_search(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    await recorded(path)
    async with (
        ReplayedGateway(path) as replayed,
        PortMapper(source_address=replayed.address, location=replayed.location) as mapper,
    ):
        assert (await mapper.add_port_mapping(8081)).external_port == 8081


async def test_all_that_was_said_is_in_the_file_with_its_time(tmp_path: Path) -> None:
    _, gateway = await recorded(tmp_path / "router.json")
    conversation = Conversation.load(tmp_path / "router.json")
    heard = [request for request in gateway.requests if request.connection]
    assert [event.method for event in conversation.exchanges] == [request.kind for request in heard]
    assert len([event for event in conversation.datagrams if event.direction == "out"]) >= 3
    assert [event for event in conversation.datagrams if event.direction == "in"]
    times = [event.time for event in conversation.events]
    assert times == sorted(times)
    assert all(event.seconds < 5 for event in conversation.exchanges)


async def test_nothing_private_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    _, gateway = await recorded(path, external_address="11.22.33.44")
    text = path.read_text()
    assert gateway.address not in text
    assert "11.22.33.44" not in text
    for part in gateway.location.split("/")[2].split(":")[:1]:
        assert part not in text
    described = Conversation.load(path)
    assert all("uuid:" not in event.payload or "00000000-0000" in event.payload for event in described.datagrams)


async def test_what_ends_in_an_error_is_recorded_too(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    async with EmulatedGateway(quirks.silent("control"), address=None) as gateway:
        with pytest.raises(DeadlineError):
            async with record(path), PortMapper(source_address=gateway.address, timeout=0.5) as mapper:
                await mapper.query_external_address()
    failures = [event.failure for event in Conversation.load(path).exchanges if event.method == "POST"]
    assert failures
    assert set(failures) == {"DeadlineError"}
    async with ReplayedGateway(path) as replayed, PortMapper(source_address=replayed.address, timeout=0.5) as mapper:
        with pytest.raises(DeadlineError):
            await mapper.query_external_address()


async def test_what_others_do_meanwhile_is_not_recorded(tmp_path: Path) -> None:
    async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
        async with record(tmp_path / "nothing.json"):
            pass
        await mapper.add_port_mapping(8080)
    assert Conversation.load(tmp_path / "nothing.json").events == ()
    assert tracer.get() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2, "events": [], "about": {}}', '{"format": 1}', "\0"])
def test_a_file_that_is_no_recording_is_a_value_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="no recorded conversation"):
        ReplayedGateway(path)


@pytest.mark.parametrize("content", [b"", b"text", "caf\u00e9".encode(), b"\xff\x00", b"base64:", bytes(range(256))])
def test_any_bytes_can_be_written_and_read(content: bytes) -> None:
    assert read(json.loads(json.dumps(written(content)))) == content


class TestScrubbing:
    @pytest.mark.parametrize(
        ("text", "scrubbed"),
        [
            ("http://192.168.1.1:5000/x", "http://192.0.2.1:5000/x"),
            ("10.0.0.1 10.0.0.2 10.0.0.1", "192.0.2.1 192.0.2.2 192.0.2.1"),
            ("<NewExternalIPAddress>81.2.69.142</New", "<NewExternalIPAddress>198.51.100.1</New"),
            ("100.70.1.1", "100.64.0.1"),
            ("HOST: 239.255.255.250:1900", "HOST: 239.255.255.250:1900"),
            ("uuid:5A34308C-1A2C-4546-AC5D-7663DD01DCA1", "uuid:00000000-0000-0000-0000-000000000001"),
            ("AA:BB:CC:00:11:22 aa:bb:cc:00:11:22", "00:00:5e:00:53:01 00:00:5e:00:53:01"),
            ("<serialNumber>S123 4</serialNumber>", "<serialNumber>serial-1</serialNumber>"),
            ("[fe80::1%25eth0] [2a02:8071::5]", "[fe80::1] [2001:db8::2]"),
            ("Router-a1b2c3d4e5f6", "Router-00005e005301"),
            ("DATE: Mon, 23 Nov 2026 07:35:01 GMT", "DATE: Mon, 23 Nov 2026 07:35:01 GMT"),
            ("urn:schemas-upnp-org:service:WANIPConnection:1", "urn:schemas-upnp-org:service:WANIPConnection:1"),
            ("999.1.1.1 1.2.3", "999.1.1.1 1.2.3"),
        ],
    )
    def test_what_is_private_is_replaced_and_what_is_not_stays(self, text: str, scrubbed: str) -> None:
        assert Scrubber().text(text) == scrubbed

    def test_the_same_is_replaced_by_the_same_wherever_it_occurs(self) -> None:
        scrubber = Scrubber()
        assert scrubber.text("192.168.1.1") == scrubber.text("at 192.168.1.1!")[3:-1]
