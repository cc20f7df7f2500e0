"""A session with a router can be recorded, shown to others, and played again with the same outcome."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from aioigd import DeadlineError, IGDError, PortMapper, PortMapping, UsageError
from aioigd.net.trace import HttpExchange, tracer
from aioigd.testing import EmulatedGateway, Quirk, RecordingError, ReplayedGateway, Search, quirks, record
from aioigd.testing.conversation import Conversation, DatagramEvent, HttpEvent, read, written
from aioigd.testing.quirks import CATALOGUE
from aioigd.testing.replay import MAX_REPLIES
from aioigd.testing.scrubbing import Scrubber

pytestmark = pytest.mark.waits

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
    path: Path, *names: str | Quirk[...], external_address: str = "11.22.33.44", timeout: float = 10
) -> tuple[list[object], EmulatedGateway]:
    async with (
        EmulatedGateway(*names, address=None, external_address=external_address) as gateway,
        record(path),
        PortMapper(source_address=gateway.address, timeout=timeout) as mapper,
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


@pytest.mark.waits
async def test_what_ends_in_an_error_is_recorded_too(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    async with EmulatedGateway(quirks.silent("control"), address=None) as gateway:
        with pytest.raises(DeadlineError):
            async with record(path), PortMapper(source_address=gateway.address, timeout=0.5) as mapper:
                await mapper.query_external_address()
    failures = [event.failure for event in Conversation.load(path).exchanges if event.method == "POST"]
    assert failures
    # Cancelled is a request that was given up for a second one of the same call.
    assert "DeadlineError" in failures
    assert set(failures) <= {"DeadlineError", "CancelledError"}
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


@pytest.mark.long
@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.virtual_time
async def test_every_quirk_is_played_again_with_the_same_outcome(name: str, tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    outcome, _ = await recorded(path, name, timeout=2)
    async with ReplayedGateway(path) as replayed, PortMapper(source_address=replayed.address, timeout=2) as mapper:
        assert await use(mapper) == outcome
    if name not in ("flood", "long_descriptions"):  # which of many descriptions are read is a matter of chance
        assert replayed.unexpected == []


async def test_a_mapping_is_ours_in_the_replay_though_it_is_another_machine_s_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    async with (
        EmulatedGateway(address=None) as gateway,
        record(path),
        PortMapper(source_address=gateway.address) as mapper,
    ):
        made = await mapper.add_port_mapping(8080, proto="TCP", desc="Anneliese", verify=True)
    text = path.read_text("utf-8")
    assert "Anneliese" not in text
    # As on a real network, where the router's address is not that of the program.
    client = "<NewInternalClient>192.0.2.1</NewInternalClient>"
    assert text.count(client) >= 2
    path.write_text(text.replace(client, client.replace("2.1<", "2.77<")), "utf-8")
    async with ReplayedGateway(path) as replayed, PortMapper(source_address=replayed.address) as mapper:
        again = await mapper.add_port_mapping(8080, proto="TCP", desc="Anneliese", verify=True)
        assert (again.desc, again.internal_client) == (made.desc, replayed.address)


@pytest.mark.parametrize("address", ["11.22.33.44", "10.1.2.3", "192.168.8.2", "100.64.3.2"])
async def test_a_public_address_is_public_in_the_replay_and_a_private_one_is_not(address: str, tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    await recorded(path, external_address=address)
    async with ReplayedGateway(path) as replayed, PortMapper(source_address=replayed.address) as mapper:
        found = await mapper.query_external_address()
    assert str(found) != address
    assert (found.is_global, found.is_private) == (ip_address(address).is_global, ip_address(address).is_private)


async def test_a_file_of_a_relative_path_is_where_the_recording_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    async with record("router.json"):
        monkeypatch.chdir(tmp_path / "other")
    assert Conversation.load(tmp_path / "router.json").events == ()


async def test_what_strangers_send_takes_no_work_and_little_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    scrub = Scrubber.datagram

    def noted(self: Scrubber, payload: bytes) -> bytes:
        threads.add(threading.get_ident())
        return scrub(self, payload)

    monkeypatch.setattr(Scrubber, "datagram", noted)
    path = tmp_path / "flood.json"
    payload = b"HTTP/1.1 200 OK\r\n" + b"10.0.0.1 " * 6000
    async with record(path):
        listening = tracer.get()
        assert listening is not None
        for number in range(5000):
            listening.datagram("in", payload + b"%d" % number, f"10.0.{number % 7}.1")
        for _ in range(700):
            listening.datagram("in", b"NOTIFY * HTTP/1.1\r\n\r\n", "10.0.9.1")
        assert threads == set()
        async with EmulatedGateway(address=None) as gateway, PortMapper(source_address=gateway.address) as mapper:
            await mapper.query_external_address()
    assert threading.get_ident() not in threads
    assert path.stat().st_size < 4 * 1024 * 1024
    conversation = Conversation.load(path)
    heard = [event.payload for event in conversation.datagrams if event.direction == "in"]
    assert sum(payload.startswith("NOTIFY *") for payload in heard) == 500
    assert any("InternetGatewayDevice" in payload for payload in heard)
    assert "GetExternalIPAddress" in conversation.exchanges[-1].body
    assert int(conversation.about["left out"].split()[0]) > 4900


async def test_a_recording_of_the_most_there_may_be_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    async with record(path):
        listening = tracer.get()
        assert listening is not None
        for number in range(11_000):
            headers = {f"X{each}-\x01": "\x01\udcff" for each in range(80)}
            listening.exchange(
                HttpExchange("GET", "http://10.0.0.1:80/ä", headers, b"\x01", 0, 0, 200, headers, b"\xff\x02//a@::9")
            )
            listening.datagram("out", b"M-SEARCH * HTTP/1.1\r\n\x02", f"fe80::{number:x}%eth0")
    assert len(Conversation.load(path).events) > 1000


async def test_the_file_is_written_whoever_is_cancelled_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "router.json"

    async def work() -> None:
        async with record(path):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert Conversation.load(path).events == ()
    assert os.listdir(tmp_path) == ["router.json"]


async def test_what_is_there_already_is_an_error_before_anything_is_done(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"router\.json"):
        async with record(path):
            pytest.fail("the block has begun")
    assert path.read_text() == "mine"
    async with record(path, overwrite=True):
        assert path.read_text() == "mine"
    assert Conversation.load(path).events == ()
    assert tracer.get() is None


@pytest.mark.parametrize("path", ["", "a\0b", None, 3])
async def test_a_path_that_is_none_is_usage(path: Any) -> None:
    with pytest.raises(UsageError, match="names a file"):
        async with record(path):
            pytest.fail("the block has begun")


def conversation_of(*events: DatagramEvent | HttpEvent, path: Path) -> Path:
    Conversation(events).save(path)
    return path


def search_event(target: str = "ssdp:all") -> DatagramEvent:
    return DatagramEvent(1.0, "out", "239.255.255.250", f"M-SEARCH * HTTP/1.1\r\nST: {target}\r\n\r\n")


def request_event(**changes: Any) -> HttpEvent:
    fields: dict[str, Any] = {
        "headers": {},
        "body": "",
        "status": 200,
        "reply_headers": {},
        "reply": "<root/>",
        "failure": "",
    }
    fields |= {"time": 1.0, "seconds": 0.1, "method": "GET", "url": "http://192.0.2.1:5000/x"}
    return HttpEvent(**(fields | changes))


async def test_one_search_is_answered_with_a_few_datagrams(tmp_path: Path) -> None:
    replies = [
        DatagramEvent(1.1, "in", "192.0.2.1", f"HTTP/1.1 200 OK\r\nST: ssdp:all\r\nUSN: {number}\r\n\r\n")
        for number in range(9000)
    ]
    path = conversation_of(search_event(), *replies, path=tmp_path / "x.json")
    async with ReplayedGateway(path) as replayed:
        assert len(await answers(replayed.address, "ssdp:all")) == MAX_REPLIES
        assert await answers(replayed.address, "upnp:rootdevice") == []


@pytest.mark.waits
async def test_equal_and_late_replies_are_not_sent(tmp_path: Path) -> None:
    reply = "HTTP/1.1 200 OK\r\nST: ssdp:all\r\n"
    replies = [DatagramEvent(1.1 + number / 100, "in", "192.0.2.1", f"{reply}\r\n") for number in range(5)]
    late = DatagramEvent(1000.0, "in", "192.0.2.1", f"{reply}USN: late\r\n\r\n")
    path = conversation_of(search_event(), *replies, late, path=tmp_path / "x.json")
    async with ReplayedGateway(path) as replayed:
        assert len(await answers(replayed.address, "ssdp:all")) == 1


@pytest.mark.parametrize("host", ["a", "e", "1.1.1.1", "http", "root", "[2001:db8::1]"])
async def test_a_host_is_replaced_where_it_is_one(host: str, tmp_path: Path) -> None:
    """A name may be any word: a reply must not grow because of it."""
    reply = "<root>" + "e a http://a:5000/ " * 1000 + "</root>"
    path = conversation_of(request_event(url=f"http://{host}:5000/x", reply=reply), path=tmp_path / "x.json")
    async with ReplayedGateway(path) as replayed:
        read_back = await body_of(replayed)
        assert len(read_back) < 3 * len(reply)
        assert read_back.count(b"e a ") == 1000
        assert (f"http://{replayed.address}:".encode() in read_back) == (host == "a")


async def test_many_equal_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    events = [request_event(time=float(number), reply=f"<root>{number}</root>") for number in range(3)]
    async with ReplayedGateway(conversation_of(*events, path=tmp_path / "x.json")) as replayed:
        replies = [await body_of(replayed) for _ in range(4)]
    assert replies == [b"<root>0</root>", b"<root>1</root>", b"<root>2</root>", b"<root>2</root>"]


async def test_nobody_but_who_asked_on_loopback_gets_a_reply(tmp_path: Path) -> None:
    reply = DatagramEvent(1.0, "in", "192.0.2.1", "HTTP/1.1 200 OK\r\nST: ssdp:all\r\n\r\n")
    async with ReplayedGateway(conversation_of(search_event(), reply, path=tmp_path / "x.json")) as replayed:
        for sender, count in (("127.0.0.1", 1), ("192.0.2.9", 0), ("255.255.255.255", 0), ("239.255.255.250", 0)):
            search = Search("ssdp:all", 1, (sender, 1900), unicast=True, raw=b"")
            assert len(list(replayed._hear(search)())) == count


async def test_a_recording_without_a_description_has_no_location(tmp_path: Path) -> None:
    async with ReplayedGateway(conversation_of(search_event(), path=tmp_path / "x.json")) as replayed:
        with pytest.raises(RecordingError, match="no description"):
            assert replayed.location


async def test_a_length_is_corrected_by_what_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    body = b"<a>10.0.0.1</a>"
    headers = {"Content-Length": str(len(body) + 7), "Server": "Wunderwerk/1.0 anna-pc"}
    async with record(path):
        listening = tracer.get()
        assert listening is not None
        listening.exchange(HttpExchange("GET", "http://10.0.0.1:80/", {}, b"", 0, 0, 200, headers, body))
    event = Conversation.load(path).exchanges[0]
    assert event.reply == "<a>192.0.2.1</a>"
    assert event.reply_headers == {"Content-Length": str(len(event.reply) + 7), "Server": "Wunderwerk/1.0 gggg-gg"}


async def answers(address: str, target: str) -> list[bytes]:
    """Send one search, and return what comes within a moment after the first reply."""
    received: list[bytes] = []

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            received.append(data)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Client, local_addr=(address, 0))
    search = f'M-SEARCH * HTTP/1.1\r\nHOST: {address}:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: {target}\r\n\r\n'
    transport.sendto(search.encode(), (address, 1900))
    before = -1
    while before != len(received):
        before = len(received)
        await asyncio.sleep(0.3)
    transport.close()
    return received


async def body_of(replayed: ReplayedGateway) -> bytes:
    host, port = replayed.location.removeprefix("http://").split("/")[0].rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received.partition(b"\r\n\r\n")[2]


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
