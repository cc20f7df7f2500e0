"""What ``aioigd status`` shows of the router and its connection."""

from __future__ import annotations

import pytest

from aioigd.testing import EmulatedGateway, quirks

from .conftest import DEVICE, Run, there


class TestStatus:
    async def test_it_shows_address_connection_line_and_traffic(self, run: Run, gateway: EmulatedGateway) -> None:
        outcome = await run("status", *there(gateway))
        assert outcome.code == 0
        assert "11.22.33.44" in outcome.out
        assert "connected" in outcome.out
        assert "↓ 100 Mbit/s ↑ 40 Mbit/s" in outcome.out

    async def test_it_has_a_documented_shape(self, run: Run, gateway: EmulatedGateway) -> None:
        document = (await run("status", *there(gateway), "--json")).document
        assert document.keys() == {
            "gateway",
            "external_address",
            "protocols",
            "connection",
            "connection_type",
            "nat",
            "link",
            "traffic",
            "firewall",
        }
        assert document["gateway"].keys() == DEVICE
        assert document["external_address"] == "11.22.33.44"
        assert document["connection"].keys() == {"status", "last_error", "uptime"}
        assert document["traffic"].keys() == {"bytes_sent", "bytes_received", "packets_sent", "packets_received"}
        assert document["link"].keys() == {
            "access_type",
            "upstream_max_bit_rate",
            "downstream_max_bit_rate",
            "link_status",
        }

    async def test_what_is_not_told_is_null(self, run: Run) -> None:
        async with EmulatedGateway(quirks.no_common_config, quirks.no_external_address, address=None) as gateway:
            document = (await run("status", *there(gateway), "--json")).document
        assert (document["external_address"], document["link"], document["traffic"]) == (None, None, None)

    @pytest.mark.parametrize(("address", "word"), [("192.168.1.2", "double NAT"), ("100.64.1.2", "CGNAT")])
    async def test_an_address_that_is_none_of_the_internet_is_told_of(
        self, run: Run, gateway: EmulatedGateway, address: str, word: str
    ) -> None:
        gateway.external_address = address
        assert word in (await run("status", *there(gateway))).out
