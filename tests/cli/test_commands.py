"""Each command against an emulated gateway: what it does, says to people and programs, and exits with."""

from __future__ import annotations

import pytest

from aioigd import PortMapping
from aioigd.cli.app import command
from aioigd.testing import EmulatedGateway, quirks

from .conftest import Run

DEVICE = {
    "friendly_name",
    "manufacturer",
    "model_name",
    "description_url",
    "service_type",
    "igd_service_type",
    "igd_control_url",
    "igd_our_addr",
    "igd_status",
    "is_valid_gateway",
    "udn",
    "server",
}
MAPPING = {
    "proto",
    "external_port",
    "internal_client",
    "internal_port",
    "remote_host",
    "desc",
    "duration",
    "enabled",
}
ERROR = {"message", "result", "error_code"}
NO_JSON = {("demo",), ("pinhole",)}


def all_commands() -> list[tuple[str, ...]]:
    """The words of every command and subcommand."""
    found: list[tuple[str, ...]] = [()]
    for name, each in command.commands.items():
        found.append((name,))
        found += [(name, below) for below in getattr(each, "commands", ())]
    return found


def there(gateway: EmulatedGateway) -> tuple[str, str]:
    return "--source-address", gateway.address


class TestDiscover:
    async def test_it_lists_gateways_and_those_who_only_say_that_they_are(self, run: Run) -> None:
        async with EmulatedGateway(quirks.media_server_first, address=None, friendly_name="My box") as gateway:
            outcome = await run("discover", *there(gateway), "--timeout", 1)
        assert outcome.code == 0
        assert "● My box" in " ".join(outcome.out.split())
        assert "no gateway" in outcome.out
        assert "\x1b" not in outcome.out

    async def test_programs_get_a_line_for_each_device(self, run: Run) -> None:
        async with EmulatedGateway(quirks.media_server_first, address=None) as gateway:
            outcome = await run("discover", *there(gateway), "--timeout", 1, "--all", "--json")
            assert {line["is_valid_gateway"] for line in outcome.lines} == {True, False}
            assert all(line.keys() == DEVICE for line in outcome.lines)
            assert gateway.location in {line["description_url"] for line in outcome.lines}

    async def test_nobody_there_is_exit_3(self, run: Run, address: str) -> None:
        outcome = await run("discover", "--source-address", address, "--timeout", 0.3)
        assert outcome.code == 3
        assert "aioigd doctor" in outcome.err

    async def test_a_location_is_read_instead_of_searching(self, run: Run, gateway: EmulatedGateway) -> None:
        outcome = await run("discover", "--location", gateway.location, "--json")
        assert outcome.code == 0
        assert gateway.count("M-SEARCH") == 0

    async def test_two_gateways_are_told_of(self, run: Run, gateway: EmulatedGateway) -> None:
        async with EmulatedGateway(address=gateway.address):
            outcome = await run("discover", *there(gateway), "--timeout", 1)
        assert "2 gateways" in outcome.out


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

    async def test_many_refusals_are_summed_up(self, run: Run) -> None:
        async with EmulatedGateway(quirks.table_full(5), address=None) as gateway:
            outcome = await run("add", "8000-8029", *there(gateway))
        assert outcome.code == 1
        assert "and 15 more ports that could not be opened" in outcome.err


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


class TestFailures:
    async def test_no_gateway_is_exit_3_with_a_hint(self, run: Run, address: str) -> None:
        outcome = await run("list", "--source-address", address, "--timeout", 0.3)
        assert outcome.code == 3
        assert "doctor" in outcome.err

    async def test_programs_get_the_error_as_a_document(self, run: Run, address: str) -> None:
        outcome = await run("status", "--source-address", address, "--timeout", 0.3, "--json")
        assert outcome.code == 3
        assert outcome.document["error"].keys() == ERROR
        assert outcome.document["error"]["result"] == "NO_DEVICES"

    async def test_a_location_where_nobody_listens_is_exit_1(self, run: Run, address: str) -> None:
        outcome = await run("list", "--location", f"http://{address}:9/rootDesc.xml", "--timeout", 1)
        assert outcome.code == 1
        assert "Traceback" not in outcome.err

    @pytest.mark.parametrize(
        "arguments",
        [
            ("add",),
            ("add", "http"),
            ("add", "0"),
            ("add", "65536"),
            ("add", "9-3"),
            ("add", "80", "--for", "soon"),
            ("add", "80", "--for", "0s"),
            ("add", "80", "--internal", "here"),
            ("add", "80", "--internal", ":80"),
            ("add", "80", "--internal", "1.2.3:80"),
            ("add", "65000-65010", "--internal", "65530"),
            ("add", "80", "--keep", "--for", "2h"),
            ("add", "80", "--keep", "--internal", "192.168.1.7:80"),
            ("list", "--interface", "nosuch0"),
            ("list", "--interface", "lo", "--source-address", "127.0.0.1"),
            ("list", "--source-address", "router"),
            ("list", "--location", "ftp://x/"),
            ("list", "--timeout", "0"),
            ("pinhole", "add", "80", "--for", "2d"),
            ("pinhole", "check"),
            ("nonsense",),
        ],
        ids=" ".join,
    )
    async def test_wrong_usage_is_exit_2(self, run: Run, arguments: tuple[str, ...]) -> None:
        outcome = await run(*arguments)
        assert outcome.code == 2
        assert "Usage: aioigd" in outcome.err


class TestHelp:
    @pytest.mark.parametrize("words", all_commands(), ids=" ".join)
    async def test_every_command_explains_itself_within_80_columns(self, run: Run, words: tuple[str, ...]) -> None:
        outcome = await run(*words, "--help")
        assert outcome.code == 0
        assert "Usage: aioigd" in outcome.out
        assert max(map(len, outcome.out.splitlines())) <= 80

    @pytest.mark.parametrize("words", [words for words in all_commands() if words and words not in NO_JSON])
    async def test_every_command_documents_its_json(self, run: Run, words: tuple[str, ...]) -> None:
        out = (await run(*words, "--help")).out
        assert "--json" in out
        assert "\nJSON" in out

    async def test_the_exit_codes_are_in_the_help(self, run: Run) -> None:
        out = (await run("--help")).out
        assert all(f"  {code}  " in out for code in (0, 1, 2, 3, 4, 130, 143))

    async def test_the_version_is_that_of_the_package(self, run: Run) -> None:
        import aioigd

        assert (await run("--version")).out == f"aioigd {aioigd.__version__}\n"

    async def test_an_interface_can_be_named(self, run: Run) -> None:
        from aioigd.cli.options import all_interfaces

        name = all_interfaces()[-1].name
        assert (await run("discover", "--interface", name, "--timeout", 0.1)).code == 3
