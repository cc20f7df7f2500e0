"""A search is written exactly as UDA 1.1 has it; a datagram is read however it is written, and never raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.upnp.wire.ssdp import (
    ALL_TARGET,
    LIKELY_TARGETS,
    MAX_DATAGRAM,
    RARE_TARGETS,
    Announcement,
    build_search,
    parse_datagram,
)

REPLY = (
    b"HTTP/1.1 200 OK\r\n"
    b"CACHE-CONTROL: max-age=120\r\n"
    b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    b"USN: uuid:1::urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    b"EXT:\r\n"
    b"SERVER: Linux UPnP/1.1 MiniUPnPd/2.3\r\n"
    b"LOCATION: http://192.0.2.1:5000/rootDesc.xml\r\n"
    b"BOOTID.UPNP.ORG: 1700000000\r\n"
    b"\r\n"
)
NOTIFY = (
    b"NOTIFY * HTTP/1.1\r\n"
    b"HOST: 239.255.255.250:1900\r\n"
    b"NT: upnp:rootdevice\r\n"
    b"NTS: ssdp:alive\r\n"
    b"USN: uuid:1::upnp:rootdevice\r\n"
    b"LOCATION: http://192.0.2.1:5000/rootDesc.xml\r\n"
    b"\r\n"
)
LOCATION = "http://192.0.2.1:5000/rootDesc.xml"


def location(datagram: bytes) -> str | None:
    announcement = parse_datagram(datagram)
    return None if announcement is None else announcement.location


class TestBuildSearch:
    def test_it_says_what_the_standard_wants_and_nothing_more(self) -> None:
        assert build_search("ssdp:all", "239.255.255.250", mx=2) == (
            b"M-SEARCH * HTTP/1.1\r\n"
            b"HOST: 239.255.255.250:1900\r\n"
            b'MAN: "ssdp:discover"\r\n'
            b"MX: 2\r\n"
            b"ST: ssdp:all\r\n"
            b"\r\n"
        )

    @pytest.mark.parametrize("host", ["ff02::c", "ff02::c%eth0", "ff02::c%3"])
    def test_an_ipv6_host_stands_in_brackets_and_without_its_zone(self, host: str) -> None:
        assert b"\r\nHOST: [ff02::c]:1900\r\n" in build_search("ssdp:all", host)

    def test_it_asks_for_an_answer_within_a_second(self) -> None:
        assert b"\r\nMX: 1\r\n" in build_search("ssdp:all", "239.255.255.250")

    @pytest.mark.parametrize("target", [*LIKELY_TARGETS, *RARE_TARGETS, ALL_TARGET])
    def test_every_target_that_some_router_answers_alone_can_be_asked_for(self, target: str) -> None:
        assert build_search(target, "239.255.255.250").endswith(b"\r\nST: " + target.encode() + b"\r\n\r\n")

    def test_no_search_is_read_as_an_announcement(self) -> None:
        assert parse_datagram(build_search("ssdp:all", "239.255.255.250")) is None


class TestGoodDatagrams:
    def test_a_reply_says_where_its_device_is_described(self) -> None:
        assert parse_datagram(REPLY) == Announcement(
            kind="reply",
            location=LOCATION,
            target="urn:schemas-upnp-org:device:InternetGatewayDevice:1",
            usn="uuid:1::urn:schemas-upnp-org:device:InternetGatewayDevice:1",
            server="Linux UPnP/1.1 MiniUPnPd/2.3",
            boot_id=1_700_000_000,
        )

    def test_a_notify_says_what_it_announces(self) -> None:
        assert parse_datagram(NOTIFY) == Announcement(
            kind="ssdp:alive",
            location=LOCATION,
            target="upnp:rootdevice",
            usn="uuid:1::upnp:rootdevice",
            server="",
            boot_id=None,
        )

    def test_a_byebye_needs_no_location(self) -> None:
        announcement = parse_datagram(b"NOTIFY * HTTP/1.1\r\nNT: x\r\nNTS: ssdp:byebye\r\nUSN: uuid:1\r\n\r\n")
        assert announcement is not None
        assert (announcement.kind, announcement.location, announcement.usn) == ("ssdp:byebye", "", "uuid:1")

    @pytest.mark.parametrize("kind", [b"ssdp:update", b"SSDP:Alive", b" ssdp:byebye "])
    def test_the_kind_of_a_notify_is_read_without_case_and_blanks(self, kind: bytes) -> None:
        announcement = parse_datagram(NOTIFY.replace(b"ssdp:alive", kind))
        assert announcement is not None
        assert announcement.kind == kind.decode().strip().lower()


class TestSloppyDatagrams:
    @pytest.mark.parametrize(
        "datagram",
        [
            REPLY.replace(b"\r\n", b"\n"),
            REPLY.replace(b"\r\n", b"\r"),
            REPLY.replace(b"\r\n", b"\n\r\n", 1),
            REPLY.removesuffix(b"\r\n\r\n"),
            REPLY.lower(),
            REPLY.replace(b"LOCATION: ", b"location:"),
            REPLY.replace(b"LOCATION: ", b"Location \t:\t  "),
            REPLY.replace(b"LOCATION", b"LOCATION: \r\nLocation"),
            REPLY + b"LOCATION: http://192.0.2.66/\r\n\r\n",
            REPLY.replace(b"\r\n\r\n", b"\r\nLOCATION: http://192.0.2.66/\r\n\r\n"),
            REPLY.replace(b"rootDesc.xml", b"rootDesc.xml\0"),
            REPLY + b"\0\xff\xfe" * 20,
            b"\r\n\r\n " + REPLY,
            REPLY.replace(b"HTTP/1.1 200 OK", b"HTTP/1.0 200"),
            REPLY.replace(b"HTTP/1.1 200 OK", b"HTTP/1 200 Okay, if you like"),
            REPLY.replace(b"HTTP/1.1 200 OK", b"http/1.1   200OK"),
            REPLY.replace(b"USN: ", b"\xff\xfe: \xff\r\nno colon\r\n: no name\r\nUSN: \xff"),
        ],
    )
    def test_a_reply_is_read_however_it_is_written(self, datagram: bytes) -> None:
        read = location(datagram)
        assert read is not None
        assert read.lower() == LOCATION.lower()

    @pytest.mark.parametrize(
        "datagram",
        [
            b"",
            b"\r\n\r\n",
            b"\0" * 100,
            b"HTTP/1.1",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nLOCATION:\r\n\r\n",
            b"HTTP/1.1 200 OK LOCATION: http://192.0.2.1/\r\n\r\n",
            REPLY.replace(b"200 OK", b"404 Not Found"),
            REPLY.replace(b"200 OK", b"2000 OK"),
            REPLY.replace(b"200 OK", b"20"),
            REPLY.replace(b"HTTP/1.1", b"HTTP/"),
            REPLY.replace(b"HTTP/1.1", b"RTSP/1.0"),
            b"x" + REPLY,
            NOTIFY.replace(b"ssdp:alive", b"ssdp:propchange"),
            NOTIFY.replace(b"NTS", b"NTX"),
            NOTIFY.replace(b"LOCATION", b"X-LOCATION"),
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100 + b"LOCATION: http://192.0.2.1/\r\n\r\n",
        ],
    )
    def test_what_announces_nothing_is_none(self, datagram: bytes) -> None:
        assert parse_datagram(datagram) is None

    def test_a_datagram_may_be_as_long_as_the_limit_and_not_a_byte_longer(self) -> None:
        padding = b"x" * (MAX_DATAGRAM - len(REPLY))
        assert location(REPLY + padding) == LOCATION
        assert location(REPLY + padding + b"x") is None
        assert location(b"\xff" * 65_507) is None

    @pytest.mark.parametrize("boot_id", [b"", b"-1", b"1.5", b"0x10", b"9" * 12, "٣".encode(), b"soon"])
    def test_a_boot_id_that_is_no_number_is_none(self, boot_id: bytes) -> None:
        announcement = parse_datagram(REPLY.replace(b"1700000000", boot_id))
        assert announcement is not None
        assert announcement.boot_id is None

    def test_no_control_character_gets_into_what_people_may_see(self) -> None:
        announcement = parse_datagram(REPLY.replace(b"Linux", b"\x1b]0;owned\x07\xc2\x9b31m"))
        assert announcement is not None
        assert announcement.server == "]0;owned31m UPnP/1.1 MiniUPnPd/2.3"


_LINES = st.sampled_from(
    [*REPLY.splitlines(), *NOTIFY.splitlines(), b"", b":", b"::", b"\0", b"\xff: \xff", b"BOOTID.UPNP.ORG: \xb2"]
)


class TestAnyBytes:
    @given(st.binary(max_size=500))
    def test_noise_raises_nothing(self, datagram: bytes) -> None:
        self.check(datagram)
        self.check(REPLY[:17] + datagram)
        self.check(NOTIFY[:19] + datagram)

    @given(st.lists(_LINES, max_size=20), st.sampled_from([b"\r\n", b"\n", b"\r", b"\x85", b"\x0b"]))
    def test_shuffled_headers_raise_nothing(self, lines: list[bytes], end: bytes) -> None:
        self.check(end.join(lines))

    @staticmethod
    def check(datagram: bytes) -> None:
        announcement = parse_datagram(datagram)
        if announcement is not None:
            assert announcement.location or announcement.kind == "ssdp:byebye"
            for text in (announcement.location, announcement.target, announcement.usn, announcement.server):
                assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in text)
