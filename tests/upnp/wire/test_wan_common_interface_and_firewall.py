"""What gateways tell of their line and their firewall is a value that can be, or an error."""

from __future__ import annotations

import pytest

from aioigd.arguments import check_pinhole_request
from aioigd.errors import InvalidResponseError
from aioigd.models import FirewallStatus, LinkProperties
from aioigd.upnp.wire import wan_common_interface, wan_ipv6_firewall


class TestLine:
    def test_a_line_without_rates_is_a_line(self) -> None:
        values = {"newphysicallinkstatus": "Up", "newwanaccesstype": "DSL", "newlayer1upstreammaxbitrate": "-1"}
        assert wan_common_interface.read_link_properties(values) == LinkProperties("DSL", 0, 0, "Up")

    def test_a_line_that_says_nothing_is_an_error(self) -> None:
        with pytest.raises(InvalidResponseError):
            wan_common_interface.read_link_properties({"newwanaccesstype": "DSL"})

    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("0", 0),
            ("4294967295", 4294967295),
            ("-1", 4294967295),
            ("-2147483648", 2147483648),
            ("5000000000", 5000000000),
        ],
    )
    def test_a_counter_is_a_number_also_where_it_is_signed_or_has_more_bits(self, text: str, count: int) -> None:
        assert (
            wan_common_interface.read_total(wan_common_interface.GET_TOTAL_BYTES_SENT, {"newtotalbytessent": text})
            == count
        )

    @pytest.mark.parametrize("text", ["", "many", "1.5", "٣", "1" * 30])
    def test_anything_else_is_an_error(self, text: str) -> None:
        with pytest.raises(InvalidResponseError):
            wan_common_interface.read_total(wan_common_interface.GET_TOTAL_BYTES_SENT, {"newtotalbytessent": text})


class TestFirewall:
    def test_a_pinhole_has_the_arguments_of_the_standard_in_their_order(self) -> None:
        request = check_pinhole_request("2001:db8::5", 8080, "udp", "2001:DB8::9", 53, 600)
        assert list(wan_ipv6_firewall.add_pinhole(request, "2001:db8::5").arguments.items()) == [
            ("RemoteHost", "2001:db8::9"),
            ("RemotePort", "53"),
            ("InternalClient", "2001:db8::5"),
            ("InternalPort", "8080"),
            ("Protocol", "17"),
            ("LeaseTime", "600"),
        ]

    def test_the_lease_has_another_name_where_it_is_changed(self) -> None:
        assert wan_ipv6_firewall.update_pinhole(7, 60).arguments == {"UniqueID": "7", "NewLeaseTime": "60"}

    @pytest.mark.parametrize(
        ("text", "value"), [("1", True), ("true", True), ("Yes", True), ("0", False), ("no", False)]
    )
    def test_a_boolean_has_many_spellings(self, text: str, value: bool) -> None:
        status = wan_ipv6_firewall.read_firewall_status({"firewallenabled": text, "inboundpinholeallowed": "1"})
        assert status == FirewallStatus(value, True)

    @pytest.mark.parametrize("text", ["", "2", "maybe"])
    def test_what_is_neither_is_an_error(self, text: str) -> None:
        with pytest.raises(InvalidResponseError):
            wan_ipv6_firewall.read_is_working({"isworking": text})
