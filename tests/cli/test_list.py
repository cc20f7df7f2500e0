"""The table of ``aioigd list``."""

from __future__ import annotations

from aioigd.testing import EmulatedGateway

from .conftest import MAPPING, Run, there


class TestList:
    async def test_it_shows_who_has_which_port(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.add_mapping(32400, proto="TCP", internal_client="192.168.1.77", desc="media")
        gateway.add_mapping(80, 8080, "TCP", internal_client=gateway.address, desc="web", duration=7200)
        outcome = await run("list", *there(gateway))
        rows = [" ".join(line.split()) for line in outcome.out.splitlines()]
        assert f"80 TCP {gateway.address}:8080 here 2 h web" in rows
        assert "32400 TCP 192.168.1.77:32400 no limit media" in rows
        assert "forwards 2 ports" in outcome.out

    async def test_it_has_a_documented_shape(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.add_mapping(80, desc="web")
        document = (await run("list", *there(gateway), "--json")).document
        assert document.keys() == {"gateway", "mappings", "error"}
        assert [each.keys() for each in document["mappings"]] == [MAPPING]
        assert document["error"] is None

    async def test_mine_leaves_out_the_others(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.add_mapping(80)
        gateway.add_mapping(81, internal_client=gateway.address)
        document = (await run("list", *there(gateway), "--mine", "--json")).document
        assert [each["external_port"] for each in document["mappings"]] == [81]

    async def test_nothing_is_nothing(self, run: Run, gateway: EmulatedGateway) -> None:
        outcome = await run("list", *there(gateway))
        assert (outcome.code, outcome.out.strip()) == (0, "Emulated gateway forwards no port.")

    async def test_foreign_text_cannot_reach_the_terminal(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.add_mapping(80, desc="evil \u202etext\u2066 [bold]no markup[/bold]")
        outcome = await run("list", *there(gateway))
        assert "\u202e" not in outcome.out
        assert "[bold]no markup[/bold]" in outcome.out
