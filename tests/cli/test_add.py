"""The ports that ``aioigd add`` opens."""

from __future__ import annotations

import pytest

from aioigd import PortMapping
from aioigd.testing import EmulatedGateway, quirks

from .conftest import ERROR, MAPPING, Run, there


class TestAdd:
    async def test_a_port_is_opened(self, run: Run, gateway: EmulatedGateway) -> None:
        outcome = await run("add", 8080, *there(gateway), "--for", "2h", "--desc", "web")
        assert outcome.code == 0
        assert gateway.mappings == [PortMapping(8080, 8080, gateway.address, "TCP", "web", 7200)]
        assert f"11.22.33.44:8080 → {gateway.address}:8080 2 h" in " ".join(outcome.out.split())

    @pytest.mark.parametrize(("option", "protos"), [("--udp", {"UDP"}), ("--both", {"TCP", "UDP"}), ("--tcp", {"TCP"})])
    async def test_the_protocol_is_chosen(
        self, run: Run, gateway: EmulatedGateway, option: str, protos: set[str]
    ) -> None:
        assert (await run("add", 8080, *there(gateway), option)).code == 0
        assert {each.proto for each in gateway.mappings} == protos

    async def test_a_range_is_opened_to_another_one(self, run: Run, gateway: EmulatedGateway) -> None:
        outcome = await run("add", "8000-8049", *there(gateway), "--internal", 9000)
        assert {(each.external_port, each.internal_port) for each in gateway.mappings} == {
            (8000 + number, 9000 + number) for number in range(50)
        }
        assert "50 open on" in outcome.out
        assert f"11.22.33.44:8000-8049 → {gateway.address}:9000-9049" in " ".join(outcome.out.split())

    async def test_another_host_can_be_named(self, run: Run, gateway: EmulatedGateway) -> None:
        await run("add", 8080, *there(gateway), "--internal", "192.168.1.7:80", "--remote", "9.9.9.9")
        mapping = gateway.mappings[0]
        assert (mapping.internal_client, mapping.internal_port, mapping.remote_host) == ("192.168.1.7", 80, "9.9.9.9")

    async def test_a_port_that_is_forwarded_elsewhere_is_left_alone(self, run: Run, gateway: EmulatedGateway) -> None:
        theirs = gateway.add_mapping(8080, proto="TCP")
        outcome = await run("add", 8080, *there(gateway))
        assert outcome.code == 1
        assert "--replace" in outcome.err
        assert gateway.mappings == [theirs]

    async def test_it_is_taken_over_where_that_was_asked_for(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.add_mapping(8080, proto="TCP")
        assert (await run("add", 8080, *there(gateway), "--replace")).code == 0
        assert gateway.mappings[0].internal_client == gateway.address

    async def test_it_has_a_documented_shape(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.add_mapping(8081, proto="TCP")
        outcome = await run("add", "8080-8081", *there(gateway), "--json")
        document = outcome.document
        assert outcome.code == 1
        assert document.keys() == {"gateway", "external_address", "mappings", "failures"}
        assert [each.keys() for each in document["mappings"]] == [MAPPING]
        assert document["failures"][0]["external_port"] == 8081
        assert document["failures"][0]["error"].keys() == ERROR
        assert document["failures"][0]["error"]["result"] == "CONFLICT_WITH_OTHER_MAPPING"

    async def test_it_says_what_was_granted_otherwise(self, run: Run) -> None:
        async with EmulatedGateway(quirks.refuses_leases, address=None) as gateway:
            outcome = await run("add", 8080, *there(gateway), "--for", "1h")
        assert outcome.code == 0
        assert "no limit in time" in outcome.out

    async def test_a_refusal_is_exit_1_without_a_traceback(self, run: Run) -> None:
        async with EmulatedGateway(quirks.refuses_everything(606), address=None) as gateway:
            outcome = await run("add", 8080, *there(gateway))
        assert outcome.code == 1
        assert "UPnP error 606, NOT_AUTHORIZED" in outcome.err

    async def test_a_router_that_refuses_everything_is_not_asked_for_ever(self, run: Run) -> None:
        async with EmulatedGateway(quirks.refuses_everything, address=None) as gateway:
            outcome = await run("add", "8000-9999", *there(gateway), "--desc", "a game", "--for", "1h", "--json")
            assert gateway.count("POST") < 800
        assert outcome.code == 1
        failures = outcome.document["failures"]
        assert len(failures) == 2000
        assert "not asked for" in failures[-1]["error"]["message"]
        assert {each["error"]["result"] for each in failures} == {"ACTION_FAILED"}

    async def test_what_is_taken_does_not_keep_the_rest_from_being_opened(self, run: Run) -> None:
        async with EmulatedGateway(address=None) as gateway:
            for port in range(8000, 8600, 2):
                gateway.add_mapping(port, proto="TCP")
            assert (await run("add", "8000-8599", *there(gateway))).code == 1
            assert len(gateway.mappings) == 600

    async def test_many_refusals_are_summed_up(self, run: Run) -> None:
        async with EmulatedGateway(quirks.table_full(5), address=None) as gateway:
            outcome = await run("add", "8000-8029", *there(gateway))
        assert outcome.code == 1
        assert "and 15 more ports that could not be opened" in outcome.err
