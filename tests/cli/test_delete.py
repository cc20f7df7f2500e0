"""The ports that ``aioigd delete`` closes."""

from __future__ import annotations

from aioigd.testing import EmulatedGateway

from .conftest import ERROR, Run, there


class TestDelete:
    async def test_a_range_is_closed(self, run: Run, gateway: EmulatedGateway) -> None:
        for port in (8000, 8001, 8002, 8005):
            gateway.add_mapping(port, proto="TCP", internal_client=gateway.address)
        outcome = await run("delete", "8000-8003", *there(gateway))
        assert outcome.code == 0
        assert "TCP 8000-8002 closed" in outcome.out
        assert [each.external_port for each in gateway.mappings] == [8005]

    async def test_what_is_not_there_is_exit_1(self, run: Run, gateway: EmulatedGateway) -> None:
        outcome = await run("delete", 8000, *there(gateway))
        assert outcome.code == 1
        assert "TCP 8000 is not open" in outcome.err

    async def test_it_has_a_documented_shape(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.add_mapping(8000, internal_client=gateway.address)
        document = (await run("delete", 8000, "--both", *there(gateway), "--json")).document
        assert document.keys() == {"gateway", "deleted", "failures"}
        assert document["deleted"] == [{"external_port": 8000, "proto": "UDP", "remote_host": ""}]
        assert document["failures"] == []

    async def test_a_refusal_is_told(self, run: Run, gateway: EmulatedGateway) -> None:
        document = (await run("delete", 8000, *there(gateway), "--json")).document
        assert document["failures"][0]["error"].keys() == ERROR
