"""Nothing that tells who or where somebody is stays in a recording; what is odd about the router does."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from aioigd.testing.known_words import is_known
from aioigd.testing.scrubbing import Scrubber

from .secrets_in_messages import ENDLESS, PLACES, SECRETS, WRITINGS, leaks_of, scrub

OFTEN = ("friendlyName", "an attribute", "UTF-16", "Set-Cookie", "LOCATION")


def scrubbed(message: tuple[str, str, bytes]) -> bytes:
    scrubber = Scrubber()
    kind, name, content = message
    scrubber.learn(content if kind != "header" else f"{name}: {content.decode('latin-1')}")
    return scrub(scrubber, message)


def check(secret: str, writing: str, place: str) -> None:
    message = PLACES[place](WRITINGS[writing](SECRETS[secret]))
    once = scrubbed(message)
    assert leaks_of(SECRETS[secret], once) == [], (writing, place, once)
    kind, name, _ = message
    again = scrubbed((kind, name, once.removeprefix(name.encode())))
    assert again == once, (writing, place)


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_stays_wherever_it_stands(secret: str) -> None:
    for place in PLACES:
        check(secret, "as it is", place)


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_stays_however_it_is_written(secret: str) -> None:
    for writing in WRITINGS:
        for place in OFTEN:
            check(secret, writing, place)


@pytest.mark.long
@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_stays_however_it_is_written_wherever_it_stands(secret: str) -> None:
    for writing in WRITINGS:
        for place in PLACES:
            check(secret, writing, place)


def test_no_word_of_a_secret_is_one_that_is_kept() -> None:
    for word in ("Anneliese", "Meierhofer", "annas", "laptop", "Kastanienallee", "hunter2", "WAP4G7X81K2", "dyn"):
        assert not is_known(word)
    for word in ("WANIPConn1", "rootDesc", "InternetGatewayDevice", "MiniUPnPd", "ConflictInMappingEntry", "ui4"):
        assert is_known(word)


@pytest.mark.parametrize(
    "text",
    [
        "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=1800\r\nEXT:\r\n",
        "SERVER: Linux/3.10.104 UPnP/1.0 MiniUPnPd/2.1.20190210",
        "DATE: Mon, 23 Nov 2026 07:35:01 GMT",
        "ST: urn:schemas-upnp-org:service:WANPPPConnection:1",
        '<?xml version="1.0" encoding="iso-8859-1"?>\r\n<root xmlns="urn:schemas-upnp-org:device-1-0">',
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"\t><s:Body >',
        "<NewExternalPort>8080</NewExternalPort><NewLeaseDuration>4294967295</NewLeaseDuration>",
        "<NewTotalBytesReceived>123456789012</NewTotalBytesReceived><NewUptime>1234567</NewUptime>",
        "<errorCode>718</errorCode><errorDescription>ConflictInMappingEntry</errorDescription>",
        "<controlURL>/ctl/IPConn</controlURL><SCPDURL>WANIPCn.xml</SCPDURL>",
        "<manufacturer>Wunderwerk</manufacturer><modelName>Blitz!Kasten 7490 v2b</modelName>",
        "<modelName>Blitz!Kasten 7490</modelName><friendlyName>Blitz!Kasten 7490</friendlyName>",
        "<NewExternalIPAdress>0.0.0.0</NewExternalIPAdress><NewSubnetMask>255.255.255.0</NewSubnetMask>",
        "<deviceList><device <device><service</device>&amp;&lt;&#0;&#x1F; %20 \r\n\r\n\t</root",
        "<X_AVM-DE_GetFoo/>",
        "<u:addportmappingresponse/><newleaseduration>3600</newleaseduration>",
    ],
)
def test_what_the_router_is_like_stays(text: str) -> None:
    assert Scrubber().text(text) == text


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Set-Cookie: session=12345; Path=/", "Set-Cookie: ggggggg=00000; Gggg=/"),
        ("COOKIE:session=12345", "COOKIE:ggggggg=00000"),
        ("Anneliese: 12345", "Ggggggggg: 00000"),
        ("x ::%anneliese --%anneliese", "x :: --%ggggggggg"),
        ("a8:bb:cc:dd:17:ee\nfe80::1", "00:00:5e:00:53:01\nfe80::1"),
        ("AL: http://bob:12@10.0.0.1:5000/x/1234/12?id=123", "AL: http://xxx:xx@192.0.2.1:5000/x/0000/12?id=000"),
        ("<pin>1234</pin><NewUptime>1234</NewUptime>", "<pin>0000</pin><NewUptime>1234</NewUptime>"),
        ("<friendlyName><Anneliese></friendlyName>", "<friendlyName><Ggggggggg></friendlyName>"),
        (
            "<friendlyName>&lt;Anneliese x='1'&gt;</friendlyName>",
            "<friendlyName>&lt;Ggggggggg x='1'&gt;</friendlyName>",
        ),
        ("<qq:Foo xmlns:qq='urn:qqq'/>", "<qq:Ggg xmlns:qq='urn:ggh'/>"),
        ("<NewUserName>router</NewUserName><b>router</b>", "<NewUserName>gggggg</NewUserName><b>router</b>"),
    ],
)
def test_the_place_decides(text: str, scrubbed: str) -> None:
    assert Scrubber().text(text) == scrubbed


@pytest.mark.parametrize(
    "writings",
    [
        ("a8:bb:cc:dd:17:ee", "A8-BB-CC-DD-17-EE", "a8bbccdd17ee", "a8bb.ccdd.17ee", "A8:BB:CC:DD:17:EE"),
        ("5a34308c-1a2c-4546-ac5d-7663dd01dca1", "5A34308C1A2C4546AC5D7663DD01DCA1"),
        ("44.17.83.201", "44-17-83-201", "0054.0021.0123.0311", "44_17_83_201", "&#52;4.17.83.201", "%344.17.83.201"),
        ("2a02:8071:83c1::5d1e", "2A02:8071:83C1:0:0::5D1E", "2a02-8071-83c1--5d1e", "2a02:8071:83c1::5d1e%25eth0"),
        ("Sörensen", "SÖRENSEN", "S%C3%B6rensen", "S&#246;rensen", "S&ouml;rensen", "&#x53;&#xF6;rensen"),
        ("<serialNumber>WAP4G7X81K2</serialNumber>", "WAP4G7X81K2", "<X_SerialNo id='x'>WAP4G7X81K2</X_SerialNo>"),
    ],
)
def test_equal_data_have_one_stand_in_however_they_are_written(writings: tuple[str, ...]) -> None:
    scrubber = Scrubber()

    def bare(text: str) -> str:
        text = text.partition("</")[0].rpartition(">")[2].lower()
        return text if "serial" in text else "".join(each for each in text.replace("%c3%a4", "ä") if each.isalnum())

    assert len({bare(scrubber.text(writing)) for writing in writings}) == 1


def test_the_encoding_makes_no_difference() -> None:
    scrubber = Scrubber()
    document = "<friendlyName>Sörensens Büro</friendlyName>"
    texts = {
        encoding: scrubber.content(document.encode(encoding)).decode(encoding)
        for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32-be", "latin-1")
    }
    assert len(set(texts.values())) == 1
    assert len(texts["utf-8"]) == len(document)


def test_what_a_serial_number_is_may_be_told_later() -> None:
    scrubber = Scrubber()
    for message in (b"HTTP/1.1 200 OK\r\nUSN: WAP4G7X81K2\r\n\r\n", b"<serialNumber>WAP4G7X81K2</serialNumber>"):
        scrubber.learn(message)
    assert scrubber.datagram(b"HTTP/1.1 200 OK\r\nUSN: WAP4G7X81K2\r\n\r\n").count(b"serial-1") == 1


@pytest.mark.parametrize(
    "messages",
    [
        (b"<serialNumber>&<", b"<serialNumber>000000<"),
        (b"<serialNumber>\x1b<",),
        (b"<serialNumber>0\r\n\0<",),
        (b"<serialNumber>&\0<", b"<serialNumber>\0<"),
        (b"<serialNumber>0<", b"<a>A7X81K2</a><serialNumber>A7X81K2<"),
    ],
)
def test_serial_numbers_are_numbered_in_their_order(messages: tuple[bytes, ...]) -> None:
    scrubber = Scrubber()
    for each in messages:
        scrubber.learn(each)
    scrubbed = b"".join(map(scrubber.content, messages))
    assert re.findall(rb"<serialNumber>serial-(\d)<", scrubbed) in ([b"1"], [b"1", b"2"])


def test_nothing_is_learnt_from_a_datagram_that_is_something_else() -> None:
    scrubber = Scrubber()
    scrubber.learn_datagram(b"<serialNumber>A7X81K2</serialNumber><modelName>Anneliese</modelName>")
    assert scrubber.content(b"<a>Anneliese</a><serialNumber>1</serialNumber>").endswith(b">serial-1</serialNumber>")
    assert b"Anneliese" not in scrubber.content(b"<a>Anneliese</a>")


def test_lengths_and_capitals_and_what_is_not_ascii_stay() -> None:
    before = "<friendlyName>Anneliese's WLAN-Kästchen, 3. OG</friendlyName>"
    after = Scrubber().text(before)
    assert len(after) == len(before)
    assert [each.isupper() for each in after] == [each.isupper() for each in before]
    assert after.isascii() == before.isascii()


@pytest.mark.parametrize(
    ("make", "is_such"),
    [
        (lambda number: f"44.{number // 250}.9.{number % 250 + 1}", lambda address: not address.is_loopback),
        (lambda number: f"10.{number // 250}.9.{number % 250 + 1}", lambda address: address.is_private),
        (lambda number: f"100.99.{number // 250}.{number % 250 + 1}", lambda address: str(address).startswith("100.")),
        (lambda number: f"169.254.{number // 250 + 1}.{number % 250 + 1}", lambda address: address.is_link_local),
        (lambda number: f"2a02::{number + 1:x}", lambda address: str(address).startswith("2001:db8:")),
        (lambda number: f"fe80::1:{number + 1:x}", lambda address: address.is_link_local),
    ],
    ids=["public", "private", "shared", "link-local", "IPv6", "IPv6 link-local"],
)
def test_there_are_addresses_enough(make: Callable[[int], str], is_such: Callable[[object], bool]) -> None:
    scrubber = Scrubber()
    found = [ip_address(scrubber.address(make(number))) for number in range(2000)]
    assert len(set(found)) == 2000
    assert all(map(is_such, found))


@pytest.mark.parametrize("payload", [b"\x01\x02Anneliese", b"", b"\xff" * 9000, b"{}", "安娜".encode()])
def test_a_datagram_that_is_something_else_keeps_nothing_but_its_length(payload: bytes) -> None:
    assert Scrubber().datagram(payload) == b"?" * len(payload)


def test_chunks_stay_chunks() -> None:
    document = b"<root><friendlyName>Anneliese at 192.168.1.1</friendlyName></root>"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (document[:25], document[25:40], document[40:]))
    after = Scrubber().content(chunks + b"0\r\n\r\n")
    assert after.startswith(b"19\r\n<root><friendlyName>Ggggg\r\nf\r\n")
    assert after.endswith(b"\r\n0\r\n\r\n")
    assert b"192.0.2.1" in after.replace(b"\r\n", b"") or b"Anneliese" not in after


@pytest.mark.parametrize("name", ENDLESS)
def test_the_work_is_linear(name: str) -> None:
    def seconds(size: int) -> float:
        text = ENDLESS[name](size)
        began = time.process_time()
        Scrubber().text(text)
        return time.process_time() - began

    # Eight times as long: eight times the work, or 64 times where it is quadratic.
    most = 24 * max(min(seconds(4 * 1024) for _ in range(3)), 0.0005)
    assert any(seconds(32 * 1024) < most for _ in range(3))
