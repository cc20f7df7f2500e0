"""Nobody makes us leave the host: of what a device says, only a port and a clean path are believed."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aioigd.upnp.wire.url import HttpUrl, candidates, parse_location, parse_url, same_address

DOCUMENT = HttpUrl("192.0.2.1", 5000, "/igd/rootDesc.xml")
CLEAN = re.compile(r"/[!-~]*")


def targets(reference: str, base: str = "", document: HttpUrl = DOCUMENT) -> list[str]:
    """Return port and path of each candidate, in their order."""
    return [f":{url.port}{url.target}" for url in candidates(reference, base, document)]


class TestParseUrl:
    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("http://192.0.2.1", HttpUrl("192.0.2.1", 80, "/")),
            ("http://192.0.2.1:", HttpUrl("192.0.2.1", 80, "/")),
            ("HTTP://Router.LAN:8080/a/b?c=d&e#f", HttpUrl("router.lan", 8080, "/a/b?c=d&e")),
            ("  http://192.0.2.1/x\r\n", HttpUrl("192.0.2.1", 80, "/x")),
            ("http://192.0.2.1?x", HttpUrl("192.0.2.1", 80, "/?x")),
            ("http://[2001:db8::1]:5000/x", HttpUrl("2001:db8::1", 5000, "/x")),
            ("http://[fe80::1%eth0]/x", HttpUrl("fe80::1%eth0", 80, "/x")),
            ("http://192.0.2.1:65535//x//y;z", HttpUrl("192.0.2.1", 65535, "//x//y;z")),
            ('http://192.0.2.1/a b<c>\\"é|^`{}', HttpUrl("192.0.2.1", 80, "/a%20b%3Cc%3E%5C%22%C3%A9%7C%5E%60%7B%7D")),
            ("http://192.0.2.1/a%20b%zz", HttpUrl("192.0.2.1", 80, "/a%20b%zz")),
            ("http://192.0.2.1/\ud800", HttpUrl("192.0.2.1", 80, "/%3F")),
            ("http://192.0.2.1/\x85\u2028x", HttpUrl("192.0.2.1", 80, "/%C2%85%E2%80%A8x")),
        ],
    )
    def test_a_url_is_taken_apart(self, text: str, url: HttpUrl) -> None:
        assert parse_url(text) == url

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "/x",
            "192.0.2.1/x",
            "https://192.0.2.1/",
            "file:///etc/passwd",
            "ftp://192.0.2.1/",
            "javascript:alert(1)",
            "http:",
            "http:/x",
            "http:///x",
            "http://?x",
            "http://user@192.0.2.1/",
            "http://user:secret@192.0.2.1/",
            "http://@192.0.2.1/",
            "http://192.0.2.1:0/",
            "http://192.0.2.1:65536/",
            "http://192.0.2.1:-1/",
            "http://192.0.2.1:+80/",
            "http://192.0.2.1:8 0/",
            "http://192.0.2.1:x/",
            "http://192.0.2.1:٨٠/",
            "http://[::1/",
            "http://::1]/",
            "http://[]/",
            "http://[x]/",
            "http://%/",
            "http://192.0.2.1%eth0/",
            "http://a b/",
            "http://a,b/",
            "http://a\\b/",
            "http://ä/",
            "http://\u2100/",
            "http://192.0.2.1/\r\nX: y",
            "http://192.0.2.1/\n/",
            "http://192.0.2.1\t/",
            "http://192.0.2.1/\x00",
            "http://192.0.2.1/\x7f",
            "http://192.0.2.1/" + "x" * 600,
            "http://192.0.2.1/" + "é" * 100,
        ],
    )
    def test_what_must_not_be_followed_is_a_value_error(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse_url(text)

    @given(st.text(max_size=80) | st.from_regex(r"http://[\[\]:@%/?#a0.\\ \n-]{0,20}", fullmatch=True))
    @example("http://[v1.x]/")
    @example("http://[::1%25eth0]:1/")
    def test_anything_else_is_a_clean_url_or_a_value_error(self, text: str) -> None:
        try:
            url = parse_url(text)
        except ValueError:
            return
        assert CLEAN.fullmatch(url.target)
        assert 0 < url.port < 65536
        assert parse_url(str(url)).target == url.target

    def test_a_url_can_be_written_without_its_zone(self) -> None:
        url = HttpUrl("fe80::1%eth0", 80, "/x")
        assert (str(url), url.netloc) == ("http://[fe80::1]:80/x", "[fe80::1]:80")
        assert parse_url(url.with_zone) == url
        assert str(url.with_host("192.0.2.7")) == "http://192.0.2.7:80/x"


@pytest.mark.parametrize("host", ["192.0.2.1", "router.lan", "2001:db8::1", "fe80::1%Eth-0.1"])
def test_a_url_comes_back_from_its_text(host: str) -> None:
    url = HttpUrl(host, 5000, "/x?y")
    assert parse_url(url.with_zone) == url


class TestLocation:
    @pytest.mark.parametrize(
        "host",
        [
            *("", "0.0.0.0", "router.lan", "%s", "<ip>", "(null)", "a b", "ä"),
            *("fe80::1", "[fe80::1%25Wi-Fi 2]", "[fe80::1%25eth0]", "[]"),
        ],
    )
    def test_port_and_path_count_whatever_the_host_is(self, host: str) -> None:
        url = parse_location(f"http://{host}:49152/rootDesc.xml?a=b")
        assert (url.port, url.target) == (49152, "/rootDesc.xml?a=b")
        assert parse_location(f"http://{host}:49152").target == "/"

    @pytest.mark.parametrize(
        "text",
        ["http://%s:%d/x", "http://u@:80/x", "https://:443/x", "http://[::1:80/x", "http://:0/x", "http://:x/y", ""],
    )
    def test_without_a_port_or_a_clean_host_there_is_nothing_to_follow(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse_location(text)

    @given(st.text(max_size=80) | st.from_regex(r"http://[\[\]:@%/?#a0.\\ \n-]{0,20}", fullmatch=True))
    def test_anything_is_a_clean_url_or_a_value_error(self, text: str) -> None:
        try:
            url = parse_location(text)
        except ValueError:
            return
        assert CLEAN.fullmatch(url.target)
        assert 0 < url.port < 65536


class TestCandidates:
    @pytest.mark.parametrize(
        ("reference", "base", "expected"),
        [
            ("/ctl", "", [":5000/ctl"]),
            ("  /ctl\n", "", [":5000/ctl"]),
            ("/ctl?WANIPConn1", "", [":5000/ctl?WANIPConn1"]),
            ("?ctl", "", [":5000/igd/rootDesc.xml?ctl", ":5000/?ctl"]),
            ("ctl", "", [":5000/igd/ctl", ":5000/ctl"]),
            ("../ctl", "", [":5000/ctl"]),
            ("../../../ctl", "", [":5000/ctl"]),
            ("ctl?next=http://x/y", "", [":5000/igd/ctl?next=http://x/y", ":5000/ctl?next=http://x/y"]),
            ("http://192.0.2.1:5000/ctl", "", [":5000/ctl"]),
            ("http://192.0.2.1/ctl", "", [":80/ctl", ":5000/ctl"]),
            ("http://198.51.100.1:80/ctl", "", [":80/ctl", ":5000/ctl"]),
            ("//198.51.100.1/ctl", "", [":80/ctl", ":5000/ctl"]),
            ("192.0.2.1:49152/ctl", "", [":49152/ctl", ":5000/ctl"]),
            ("192.0.2.1:49152", "", [":49152/", ":5000/"]),
            ("/ctl", "http://192.0.2.1:80", [":80/ctl", ":5000/ctl"]),
            ("/ctl", "http://192.0.2.1:5000/", [":5000/ctl"]),
            ("/ctl", "http://192.0.2.1", [":5000/ctl", ":80/ctl"]),
            ("/ctl", "192.0.2.1:80", [":80/ctl", ":5000/ctl"]),
            ("/ctl", " http://198.51.100.1:49152/ ", [":49152/ctl", ":5000/ctl"]),
            ("ctl", "http://192.0.2.1:80/a/b", [":80/a/ctl", ":5000/igd/ctl", ":80/ctl", ":5000/ctl"]),
            ("/ctl", "/", [":5000/ctl"]),
            ("/ctl", "http://[::1", [":5000/ctl"]),
            ("/ctl", "http://192.0.2.1:99999", [":5000/ctl"]),
            ("/ctl", "https://192.0.2.1:443", [":5000/ctl"]),
            ("/ctl", "file:///", [":5000/ctl"]),
            ("/c\r\nX: y", "", [":5000/cX:%20y"]),
            ("/a b", "", [":5000/a%20b"]),
        ],
    )
    def test_the_likeliest_comes_first(self, reference: str, base: str, expected: list[str]) -> None:
        assert targets(reference, base) == expected

    @pytest.mark.parametrize(
        ("reference", "expected"),
        [
            ("http://:49152/ctl", [":49152/ctl", ":5000/ctl"]),
            ("http:///ctl", [":80/ctl", ":5000/ctl"]),
            ("http://%s:49152/ctl", [":49152/ctl", ":5000/ctl"]),
            ("http://$(IP):49152/ctl", [":49152/ctl", ":5000/ctl"]),
            ("http://a b:49152/ctl", [":49152/ctl", ":5000/ctl"]),
            ("http://fe80::1:49152/ctl", [":49152/ctl", ":5000/ctl"]),
            ("http://[fe80::1%25Wi-Fi 2]:49152/ctl", [":49152/ctl", ":5000/ctl"]),
            ("http://0.0.0.0:49152/ctl", [":49152/ctl", ":5000/ctl"]),
            ("http://router.lan:49152/ctl", [":49152/ctl", ":5000/ctl"]),
            ("http://%s:%d/ctl", [":5000/ctl"]),
            ("http://192.0.2.1:0/ctl", [":5000/ctl"]),
            ("http://192.0.2.1:99999/ctl", [":5000/ctl"]),
        ],
    )
    def test_an_unusable_host_takes_neither_port_nor_path_along(self, reference: str, expected: list[str]) -> None:
        assert targets(reference) == expected
        port = expected[0].partition("/")[0]
        if port != ":5000":
            assert targets("/x", reference)[0] in (f"{port}/x", ":5000/x")

    @pytest.mark.parametrize(
        "reference",
        [
            "",
            "  ",
            "https://192.0.2.1/ctl",
            "file:///etc/passwd",
            "mailto:x",
            "http://[::1",
            "http://u@192.0.2.1/",
            "x" * 600,
        ],
    )
    def test_nothing_comes_of_what_cannot_be_used(self, reference: str) -> None:
        assert [url for url in targets(reference) if "etc" not in url and "mailto" not in url] == []

    def test_a_zone_stays_with_the_host(self) -> None:
        document = HttpUrl("fe80::1%eth0", 5000, "/")
        assert candidates("/ctl", "http://[fe80::2]:80/", document) == (
            HttpUrl("fe80::1%eth0", 80, "/ctl"),
            HttpUrl("fe80::1%eth0", 5000, "/ctl"),
        )

    _URLS = st.text(max_size=60) | st.from_regex(
        r"(http|https|file|HTTP|x)?:?/{0,3}([a-z0-9.@\[\]:%\\-]{0,12})(:[0-9]{0,6})?[/?#;a.% \r\n\\\u00e9]{0,12}",
        fullmatch=True,
    )

    @given(_URLS, _URLS, st.sampled_from(["192.0.2.1", "fe80::1%eth0", "2001:db8::1", "router.lan"]))
    @example("http://evil.example\\@192.0.2.1/", "//[::1", "192.0.2.1")
    @example("http://192.0.2.1:80@evil.example/", "http://a:b@c/", "192.0.2.1")
    def test_no_reference_leads_to_another_host(self, reference: str, base: str, host: str) -> None:
        found = candidates(reference, base, HttpUrl(host, 5000, "/igd/rootDesc.xml"))
        assert len(found) <= 4
        for url in found:
            assert url.host == host
            assert 0 < url.port < 65536
            assert CLEAN.fullmatch(url.target)


class TestSameAddress:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("::ffff:c000:201", "192.0.2.1"),
            ("2001:db8::1", "2001:0DB8:0:0::1"),
            ("fe80::1%eth0", "fe80::1"),
        ],
    )
    def test_one_address_has_many_spellings(self, one: str, other: str) -> None:
        assert same_address(one, other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("192.0.2.1", "192.0.2.2"),
            ("192.0.2.1", "::192.0.2.1"),
            ("010.0.0.1", "8.0.0.1"),
            ("0300.0.2.1", "192.0.2.1"),
            ("3221225985", "192.0.2.1"),
            ("router.lan", "router.lan"),
            ("", ""),
            ("localhost", "127.0.0.1"),
        ],
    )
    def test_what_is_not_surely_the_same_is_not(self, one: str, other: str) -> None:
        assert not same_address(one, other)
