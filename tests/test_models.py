"""What a caller says is checked before anything is sent: a value that exists can be sent, anything else is refused."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import FrozenInstanceError
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.arguments import (
    MAX_DESCRIPTION,
    check_address,
    check_desc,
    check_duration,
    check_key,
    check_port,
    check_proto,
    check_request,
)
from aioigd.errors import IGDError, UsageError
from aioigd.models import MAX_DURATION, Device, MappingKey, MappingRequest, PortMapping, Terms
from aioigd.results import IGDStatus, UPnPResult


class Number:
    """A whole number of another library, as numpy has them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Nasty:
    """An object that gives no sensible answer to anything."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("the truth value of an array is ambiguous")

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        raise RuntimeError("no")


NO_NUMBERS = [True, False, "80", b"80", 80.0, 1.5, None, [], Nasty(), complex(80), float("nan")]


class TestPorts:
    @pytest.mark.parametrize("port", [1, 80, 65535, Number(80)])
    def test_a_port_is_a_whole_number_of_any_kind(self, port: object) -> None:
        number = check_port(port)
        assert type(number) is int
        assert 1 <= number <= 65535

    @pytest.mark.parametrize("port", [0, -1, 65536, Number(0), *NO_NUMBERS])
    def test_anything_else_is_none(self, port: object) -> None:
        with pytest.raises(UsageError, match="port must be") as caught:
            check_port(port)
        assert caught.value.result is UPnPResult.INVALID_PORT

    def test_an_internal_port_may_be_zero_for_the_same_as_outside(self) -> None:
        assert check_port(0, "internal_port", lowest=0) == 0
        assert check_request(8080, 0, "", "UDP", 0, None, None).internal_port == 8080
        assert check_request(8080, 80, "", "UDP", 0, None, None).internal_port == 80
        with pytest.raises(UsageError, match="internal_port"):
            check_request(8080, -1, "", "UDP", 0, None, None)


class TestProtocols:
    @pytest.mark.parametrize("proto", ["TCP", "tcp", "Tcp", "UDP", "udp", "uDP"])
    def test_a_protocol_may_be_in_any_case(self, proto: str) -> None:
        assert check_proto(proto) == proto.upper()

    @pytest.mark.parametrize("proto", ["", "SCTP", "TCP ", "TCPUDP", "6", 6, None, True, b"TCP", ["TCP"], Nasty()])
    def test_there_are_only_two(self, proto: object) -> None:
        with pytest.raises(UsageError, match='proto must be "TCP" or "UDP"') as caught:
            check_proto(proto)
        assert caught.value.result is UPnPResult.INVALID_PROTOCOL


class TestDurations:
    @pytest.mark.parametrize("duration", [0, 1, 604_800, MAX_DURATION, Number(60)])
    def test_a_duration_is_a_whole_number_of_seconds(self, duration: object) -> None:
        assert type(check_duration(duration)) is int

    @pytest.mark.parametrize("duration", [-1, 2**32, *NO_NUMBERS])
    def test_anything_else_is_none(self, duration: object) -> None:
        with pytest.raises(UsageError, match="duration must be") as caught:
            check_duration(duration)
        assert caught.value.result is UPnPResult.INVALID_DURATION


class TestDescriptions:
    @pytest.mark.parametrize(
        "desc", ["", "my server", "a <b> & 'c'", "Gerät", "路由器", "\U0001f600", "x" * MAX_DESCRIPTION]
    )
    def test_a_description_is_any_text_of_one_line(self, desc: str) -> None:
        assert check_desc(desc) == desc

    @pytest.mark.parametrize(
        "character",
        [
            "\0",
            "\t",
            "\n",
            "\r",
            "\x1b",
            "\x1f",
            "\x7f",
            "\x85",
            "\x9b",
            "\u2028",
            "\u2029",
            "\ud800",
            chr(0xDFFF),
            "\ufffe",
            "\uffff",
        ],
    )
    def test_it_has_no_control_characters_and_no_halves_of_characters(self, character: str) -> None:
        with pytest.raises(UsageError, match="control characters") as caught:
            check_desc(f"a{character}b")
        assert caught.value.result is UPnPResult.INVALID_ARGS
        str(caught.value).encode()  # it can be printed

    @pytest.mark.parametrize("desc", [None, 1, b"x", ["x"], Nasty(), "x" * (MAX_DESCRIPTION + 1)])
    def test_anything_else_is_none(self, desc: object) -> None:
        with pytest.raises(UsageError, match="desc must"):
            check_desc(desc)

    @given(st.text(max_size=40))
    def test_what_it_admits_can_be_encoded(self, desc: str) -> None:
        try:
            check_desc(desc).encode()
        except UsageError:
            return


class TestAddresses:
    @pytest.mark.parametrize("address", ["192.168.1.5", "198.51.100.7", IPv4Address("10.0.0.1"), "127.0.0.1"])
    def test_an_address_is_written_in_its_usual_form(self, address: object) -> None:
        assert check_address(address, "internal_client") == str(address)

    @pytest.mark.parametrize("address", ["", None])
    def test_none_is_an_empty_text(self, address: object) -> None:
        assert check_address(address, "internal_client") == ""

    @pytest.mark.parametrize(
        "address",
        [
            *("0.0.0.0", "224.0.0.1", "192.168.1.256", "192.168.1", "192.168.1.5 ", "192.168.01.5", "router.lan", " "),
            *("::1", "2001:db8::1", "192.168.1.5/24", "<b>", IPv6Address("::1"), IPv4Address(0)),
            *(3232235781, True, False, 0, b"\xc0\xa8\x01\x05", [], Nasty()),
        ],
    )
    def test_anything_else_is_no_address_of_a_host(self, address: object) -> None:
        with pytest.raises(UsageError, match="internal_client must be") as caught:
            check_address(address, "internal_client")
        assert caught.value.result is UPnPResult.INVALID_ARGS


class TestRequests:
    def test_a_request_is_what_was_said_checked(self) -> None:
        request = check_request(8080, 80, "x", "tcp", 60, "192.168.1.5", "198.51.100.7")
        assert request == MappingRequest(MappingKey(8080, "TCP", "198.51.100.7"), 80, "192.168.1.5", Terms("x", 60))
        assert hash(request) == hash(
            check_request(Number(8080), 80, "x", "TCP", 60, IPv4Address("192.168.1.5"), "198.51.100.7")
        )

    def test_a_key_names_itself(self) -> None:
        assert str(check_key(53, "udp")) == "UDP port 53"
        assert str(check_key(53, "udp", "198.51.100.7")) == "UDP port 53 for 198.51.100.7"

    @given(st.tuples(*[st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)] * 7))
    def test_no_other_exception_comes_of_anything(self, said: tuple[object, ...]) -> None:
        port, internal_port, desc, proto, duration, client, remote_host = said
        with suppress(UsageError):
            check_request(port, internal_port, desc, proto, duration, client, remote_host)

    def test_a_mistake_is_a_value_error_without_any_attempt(self) -> None:
        with pytest.raises(ValueError, match="port") as caught:
            check_request(0, 0, "", "UDP", 0, None, None)
        assert isinstance(caught.value, IGDError)
        assert (caught.value.error_code, caught.value.attempts) == (None, ())

    def test_a_number_that_cannot_even_be_shown_is_refused(self) -> None:
        for check in (check_port, check_duration):
            with pytest.raises(UsageError, match="not an int of"):
                check(10**5000)

    @pytest.mark.parametrize("value", ["x" * 10**6, b"x" * 10**6, [0] * 10**6])
    def test_a_message_shows_only_the_beginning_of_a_long_value(self, value: object) -> None:
        with pytest.raises(UsageError) as caught:
            check_port(value)
        assert len(str(caught.value)) < 200


def test_mappings_and_devices_are_frozen_and_comparable() -> None:
    mapping = PortMapping(8080, 80, "192.168.1.5", "TCP", remote_host="198.51.100.7")
    assert mapping == PortMapping(8080, 80, "192.168.1.5", "TCP", "", 0, "198.51.100.7")
    assert mapping.key == MappingKey(8080, "TCP", "198.51.100.7")
    with pytest.raises(FrozenInstanceError):
        mapping.desc = "x"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Device().udn = "x"  # type: ignore[misc]
    assert len({mapping, PortMapping(8080, 80, "192.168.1.5", "TCP", remote_host="198.51.100.7")}) == 1


@pytest.mark.parametrize("status", IGDStatus)
def test_a_device_is_a_valid_gateway_only_when_its_status_is_ok(status: IGDStatus) -> None:
    assert Device(igd_status=status).is_valid_gateway() is (status == 0)


def test_a_device_that_nobody_examined_is_no_gateway() -> None:
    assert Device().igd_status is IGDStatus.UNKNOWN_ERROR
    assert not Device().is_valid_gateway()


@pytest.mark.parametrize(
    ("client", "port", "leads_to_us"),
    [
        ("192.168.1.5", 80, True),
        ("192.168.001.005", 80, True),
        (" 192.168.1.5 ", 80, True),
        ("::ffff:192.168.1.5", 80, True),
        ("192.168.1.5/32", 80, True),
        ("192.168.1.5:80", 80, True),
        ("192.168.1.5:80/tcp", 80, True),
        ("192.168.1.5.", 80, True),
        ("192.168.1.5/24", 80, True),
        ("192.168.1.5/255.255.255.0", 80, True),
        ("desktop (192.168.1.5)", 80, True),
        ("desktop/192.168.1.5", 80, True),
        ("0xC0.0xa8.0x1.0x5", 80, True),
        ("0300.0250.01.05", 80, True),
        ("0300.0250.01.06", 80, False),
        ("desktop (192.168.1.6)", 80, False),
        ("192.168.1.6/24", 80, False),
        ("0300.0250.01.09", 80, None),
        ("0xC0A80105", 80, None),
        ("192.168.1.6.lan", 80, None),
        ("ip-192.168.1.6", 80, None),
        ("192.168.1.6 192.168.1.5", 80, None),
        ("192.168.1.6.7", 80, None),
        ("255.255.255.255", 80, None),
        ("127.0.0.1", 80, None),
        ("192.168.1.6 " * 1000, 80, None),
        ("192.168.1.5", 0, None),
        ("desktop.lan", 80, None),
        ("desktop", 0, None),
        ("", 80, None),
        ("0.0.0.0", 80, None),
        ("192.168.1.300", 80, None),
        ("192.168.1.6", 80, False),
        ("192.168.1.6", 0, False),
        ("192.168.1.5", 81, False),
        ("desktop.lan", 81, None),
    ],
)
def test_only_another_address_or_port_is_somebody_elses(client: str, port: int, leads_to_us: bool | None) -> None:
    assert PortMapping(8080, port, client, "TCP").leads_to("192.168.1.5", 80) is leads_to_us


def test_a_mapping_leads_to_a_host_whatever_its_port() -> None:
    assert PortMapping(8080, 0, "192.168.1.5", "TCP").leads_to("192.168.1.5", 0) is True
    assert PortMapping(8080, 81, "192.168.1.5", "TCP").leads_to("192.168.1.5", 0) is True
    assert PortMapping(8080, 81, "192.168.1.6", "TCP").leads_to("192.168.1.5", 0) is False
    assert PortMapping(8080, 81, "desktop", "TCP").leads_to("192.168.1.5", 0) is None


EVERYBODY = [
    "",
    " ",
    "*",
    "any",
    "(null)",
    "None",
    "Anywhere",
    "-",
    "N/A",
    "255.255.255.255",
    "::ffff:0.0.0.0",
    "0.0.0.0",
    "000.000.000.000",
    "0.0.0.0/0",
    "::",
    "::/0",
]
ONE_HOST = ["44.0.0.1", "44.0.0.1.", "044.000.000.001", "44.0.0.1/32", "44.0.0.1:0", "::ffff:44.0.0.1", " 44.0.0.1"]


@pytest.mark.parametrize(
    ("spelt", "normal"), [*((each, "") for each in EVERYBODY), *((each, "44.0.0.1") for each in ONE_HOST)]
)
def test_spellings_of_a_remote_host_are_one_key_and_can_be_handed_back(spelt: str, normal: str) -> None:
    key = PortMapping(8080, 80, "192.168.1.5", "TCP", remote_host=spelt).key
    assert key.normalised() == MappingKey(8080, "TCP", normal)
    assert check_key(8080, "TCP", spelt) == key  # as the gateway spells it


def test_a_name_that_a_gateway_shows_for_a_remote_host_can_be_handed_back() -> None:
    assert check_key(8080, "TCP", "host.example.org").remote_host == "host.example.org"


@pytest.mark.parametrize("wrong", ["x", "44.0.0.300", "44.0.0", "::1", "a b.example", "*\n", "host..org", "224.0.0.1"])
def test_what_nobody_shows_for_a_remote_host_is_a_mistake(wrong: str) -> None:
    with pytest.raises(UsageError):
        check_key(8080, "TCP", wrong)
