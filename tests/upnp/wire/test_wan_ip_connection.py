"""Actions carry the arguments of the standard in its order; what comes back is a value that can be, or an error."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.arguments import check_request
from aioigd.errors import InvalidResponseError
from aioigd.models import MAX_DURATION, MappingKey, PortMapping, Terms
from aioigd.upnp.wire import wan_ip_connection
from aioigd.upnp.wire.soap import Action, Answer, parse_reply

KEY = MappingKey(8080, "TCP")
ENTRY = {
    "newinternalport": "80",
    "newinternalclient": "192.0.2.5",
    "newenabled": "1",
    "newportmappingdescription": "my server",
    "newleaseduration": "3600",
}
NAMES = ("newprotocol", "newexternalport", "newexternalipaddress", "newconnectionstatus", *ENTRY)


class TestArguments:
    def test_an_added_mapping_has_all_eight_in_the_order_of_the_standard(self) -> None:
        request = check_request(8080, 80, "asked for", "UDP", 3600, None, "198.51.100.7")
        action = wan_ip_connection.add_port_mapping(request, "192.0.2.5", Terms("granted", 0))
        assert action.name == "AddPortMapping"
        assert list(action.arguments.items()) == [
            ("NewRemoteHost", "198.51.100.7"),
            ("NewExternalPort", "8080"),
            ("NewProtocol", "UDP"),
            ("NewInternalPort", "80"),
            ("NewInternalClient", "192.0.2.5"),
            ("NewEnabled", "1"),
            ("NewPortMappingDescription", "granted"),
            ("NewLeaseDuration", "0"),
        ]

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (wan_ip_connection.delete_port_mapping, "DeletePortMapping"),
            (wan_ip_connection.get_specific_entry, "GetSpecificPortMappingEntry"),
        ],
    )
    def test_a_mapping_is_named_by_its_key(self, make: type[Action], name: str) -> None:
        action = make(KEY)  # type: ignore[call-arg, arg-type]
        assert action.name == name
        assert list(action.arguments.items()) == [
            ("NewRemoteHost", ""),
            ("NewExternalPort", "8080"),
            ("NewProtocol", "TCP"),
        ]

    def test_an_entry_of_the_list_is_named_by_its_number(self) -> None:
        assert wan_ip_connection.get_generic_entry(32).arguments == {"NewPortMappingIndex": "32"}

    def test_an_action_is_hashable(self) -> None:
        assert (
            len(
                {
                    wan_ip_connection.GET_STATUS_INFO,
                    wan_ip_connection.GET_EXTERNAL_IP_ADDRESS,
                    wan_ip_connection.GET_STATUS_INFO,
                }
            )
            == 2
        )


class TestEntries:
    def test_an_entry_is_a_mapping(self) -> None:
        expected = PortMapping(8080, 80, "192.0.2.5", "TCP", "my server", 3600)
        assert wan_ip_connection.read_entry(KEY, ENTRY) == expected
        listed = {**ENTRY, "newexternalport": "8080", "newprotocol": "tcp", "newremotehost": ""}
        assert wan_ip_connection.read_generic_entry(listed) == expected

    @pytest.mark.parametrize("duration", ["", "-1", "forever", "4294967296", "1" * 30, "1.5"])
    def test_a_lease_that_is_no_number_is_none(self, duration: str) -> None:
        assert wan_ip_connection.read_entry(KEY, {**ENTRY, "newleaseduration": duration}).duration == 0

    def test_the_longest_lease_is_read(self) -> None:
        assert (
            wan_ip_connection.read_entry(KEY, {**ENTRY, "newleaseduration": str(MAX_DURATION)}).duration == MAX_DURATION
        )

    def test_an_entry_needs_neither_lease_nor_description(self) -> None:
        mapping = wan_ip_connection.read_entry(KEY, {"newinternalport": "80", "newinternalclient": "192.0.2.5"})
        assert (mapping.desc, mapping.duration) == ("", 0)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"newinternalclient": ""},
            {"newinternalport": ""},
            {"newinternalport": "65536"},
            {"newinternalport": "-1"},
            {"newinternalport": "+80"},
            {"newinternalport": "8e1"},
            {"newinternalport": "٨٠"},
        ],
    )
    def test_a_blank_or_impossible_entry_is_an_error(self, wrong: dict[str, str]) -> None:
        with pytest.raises(InvalidResponseError):
            wan_ip_connection.read_entry(KEY, {**ENTRY, **wrong})

    @pytest.mark.parametrize(
        "wrong", [{"newprotocol": "SCTP"}, {"newprotocol": ""}, {"newexternalport": ""}, {"newexternalport": "70000"}]
    )
    def test_a_listed_entry_without_a_key_is_an_error(self, wrong: dict[str, str]) -> None:
        with pytest.raises(InvalidResponseError):
            wan_ip_connection.read_generic_entry({**ENTRY, "newexternalport": "8080", "newprotocol": "TCP", **wrong})

    @given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=20) | st.sampled_from(["TCP", "80", "192.0.2.5"])))
    def test_any_values_are_read_or_an_error(self, values: dict[str, str]) -> None:
        for read in (
            wan_ip_connection.read_generic_entry,
            wan_ip_connection.read_external_address,
            wan_ip_connection.read_connection_status,
        ):
            try:
                read(values)
            except InvalidResponseError:
                continue


@pytest.mark.parametrize(
    ("spelt", "proto"),
    [*((each, "TCP") for each in ("tcp", "TCP ", "6", "IPPROTO_TCP")), *((each, "UDP") for each in ("Udp", "17"))],
)
def test_a_protocol_is_read_however_a_table_shows_it(spelt: str, proto: str) -> None:
    assert (
        wan_ip_connection.read_generic_entry({**ENTRY, "newexternalport": "8080", "newprotocol": spelt}).proto == proto
    )


class TestExternalAddress:
    @pytest.mark.parametrize(
        "text", ["198.51.100.7", "8.8.8.8", "192.168.1.2", "10.0.0.1", "100.64.0.1", "169.254.1.1", "240.0.0.1"]
    )
    def test_an_address_is_given_back_as_it_is_also_when_private(self, text: str) -> None:
        assert wan_ip_connection.read_external_address({"newexternalipaddress": text}) == ip_address(text)

    @pytest.mark.parametrize(
        "text",
        [
            *("44.0.0.1:0", "44.0.0.1:51413", "44.0.0.1/24", "44.0.0.1/255.255.255.0", "44.0.0.1 255.255.255.0"),
            *(
                "044.000.000.001",
                "44.0.0.1.",
                "44.0.0.1;",
                "44.0.0.1, 44.0.0.2",
                "44.0.0.1 44.0.0.2",
                "0.0.0.0, 44.0.0.1",
                "44.0.0.1/24;44.0.0.2/24",
                "\ufeff44.0.0.1",
                " 44.0.0.1\r\n",
                '"44.0.0.1"',
                "'44.0.0.1'",
                "[44.0.0.1]",
                "044.0.0.1:80",
                "44.0.0.1\0",
            ),
        ],
    )
    def test_it_is_read_as_routers_write_it(self, text: str) -> None:
        assert str(wan_ip_connection.read_external_address({"newexternalipaddress": text})) == "44.0.0.1"

    def test_a_mapped_address_is_the_one_inside(self) -> None:
        mapped = {"newexternalipaddress": "::ffff:198.51.100.7"}
        assert wan_ip_connection.read_external_address(mapped) == ip_address("198.51.100.7")

    @pytest.mark.parametrize(
        "text",
        [
            *("", "0.0.0.0", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.255.255.250", "::", "::1", "ff02::1"),
            *("::ffff:127.0.0.1", "::ffff:0.0.0.0", "2001:db8::1%evil", "router", "198.51.100", "198.51.100.256"),
            *("0xC6336407", "3325256711", "(null)", "x" * 10_000, "2001:db8::1", "255.255.255.255", "0.1.2.3"),
            *("0.0.0.0:80", "127.0.0.1/8", "255.255.255.255:0", "127.000.000.001", "198.51.100.7:x", "198.51.100.7 x"),
            *("198.51.100.7/", "198.51.100.0007", "٤٤.0.0.1", "[2001:db8::1]:80"),
            *("198.51.100.7,x", "0.0.0.0, 0.0.0.0", "198.51.100.7," * 10_000 + "x", "ppp0 198.51.100.7"),
        ],
    )
    def test_what_cannot_be_anybodys_address_is_an_error(self, text: str) -> None:
        with pytest.raises(InvalidResponseError) as caught:
            wan_ip_connection.read_external_address({"newexternalipaddress": text})
        assert len(str(caught.value)) < 200

    def test_no_address_at_all_is_an_error(self) -> None:
        with pytest.raises(InvalidResponseError):
            wan_ip_connection.read_external_address({})


@pytest.mark.parametrize(
    ("status", "connected"),
    [
        ("Connected", True),
        ("connected", True),
        ("Up", True),
        ("Disconnected", False),
        ("Connecting", False),
        ("", None),
    ],
)
def test_a_connection_is_up_down_or_silent(status: str, connected: bool | None) -> None:
    assert wan_ip_connection.read_connection_status({"newconnectionstatus": status}) is connected
    assert wan_ip_connection.read_connection_status({}) is None


ROW = (
    "<p:PortMappingEntry><p:NewRemoteHost></p:NewRemoteHost><p:NewExternalPort>8080</p:NewExternalPort>"
    "<p:NewProtocol>TCP</p:NewProtocol><p:NewInternalPort>80</p:NewInternalPort>"
    "<p:NewInternalClient>192.0.2.5</p:NewInternalClient><p:NewEnabled>1</p:NewEnabled>"
    "<p:NewDescription>a &amp; b</p:NewDescription><p:NewLeaseTime>600</p:NewLeaseTime></p:PortMappingEntry>"
)
LISTED = PortMapping(8080, 80, "192.0.2.5", "TCP", "a & b", 600)


def listing(rows: str) -> str:
    return f'<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection">{rows}</p:PortMappingList>'


def read_listing(text: str) -> tuple[PortMapping, ...]:
    return wan_ip_connection.read_port_listing({"newportlisting": text})


class TestPortListing:
    """It is read as forgivingly as every other document; half a list is no list."""

    def test_rows_are_mappings(self) -> None:
        assert read_listing(listing(ROW * 2)) == (LISTED, LISTED)
        assert read_listing(listing("")) == ()

    @pytest.mark.parametrize("escaped", [False, True], ids=["CDATA", "escaped"])
    def test_it_comes_in_the_reply_as_text(self, escaped: bool) -> None:
        inner = listing(ROW)
        text = inner.replace("&", "&amp;").replace("<", "&lt;") if escaped else f"<![CDATA[{inner}]]>"
        reply = parse_reply(
            f"<Envelope><Body><GetListOfPortMappingsResponse><NewPortListing>{text}</NewPortListing>"
            "</GetListOfPortMappingsResponse></Body></Envelope>".encode(),
            "GetListOfPortMappings",
        )
        assert isinstance(reply, Answer)
        assert wan_ip_connection.read_port_listing(reply.values) == (LISTED,)

    def test_a_row_may_use_the_names_of_the_arguments(self) -> None:
        row = ROW.replace("NewDescription", "NewPortMappingDescription").replace("NewLeaseTime", "NewLeaseDuration")
        assert read_listing(listing(row)) == (LISTED,)

    def test_a_mapping_may_be_switched_off(self) -> None:
        (mapping,) = read_listing(listing(ROW.replace("Enabled>1<", "Enabled>0<")))
        assert not mapping.enabled

    def test_rows_that_tell_of_no_mapping_are_passed_over(self) -> None:
        blank = "<p:PortMappingEntry></p:PortMappingEntry>"
        assert read_listing(listing(blank + ROW + ROW.replace("8080", "no port"))) == (LISTED,)

    @pytest.mark.parametrize(
        "text", ["", "none", "<html/>", listing(ROW)[:-20], '<!DOCTYPE x [<!ENTITY a "b">]>' + listing(ROW)]
    )
    def test_anything_else_is_an_error(self, text: str) -> None:
        with pytest.raises(InvalidResponseError):
            read_listing(text)

    @given(st.text(alphabet="<>/p:NewPortMappingListEntry&;[]!0123", max_size=300))
    def test_any_text_is_a_list_or_an_error(self, text: str) -> None:
        for attempt in (text, listing(text)):
            try:
                read_listing(attempt)
            except InvalidResponseError:
                continue
