"""What the command shows and does with a router's PCP and NAT-PMP: --via, --gateway, and each command."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from aioigd import ConflictError, Device, IGDStatus, PortMapping, ProtocolName, RefusedError, UPnPResult
from aioigd.cli import add, discover, status
from aioigd.cli.doctor.command import _report_view
from aioigd.cli.doctor.rules import Findings, Link, Reply, Severity, Trial, diagnose
from aioigd.cli.format import error_text, host_in, host_of, place_of, protocol_names, routers_of
from aioigd.cli.options import PROTOCOLS, VIA
from aioigd.pcp.wire import pcp
from aioigd.testing import EmulatedGateway, PcpQuery, quirks
from aioigd.testing.hooks import PcpProceed
from aioigd.testing.pcp_messages import PcpReply

from ..support import odd
from .conftest import DEVICE, ERROR, MAPPING, Outcome, Run, Start, there
from .test_screens import WIDTHS, joined, lines

pytestmark = pytest.mark.waits

ALL: tuple[ProtocolName, ...] = ("upnp", "pcp", "nat-pmp")
DATAGRAMS: tuple[ProtocolName, ...] = ("pcp", "nat-pmp")


def speaking(*quirks: object, protocols: tuple[ProtocolName, ...] = DATAGRAMS) -> EmulatedGateway:
    return EmulatedGateway(*quirks, address=None, protocols=protocols, external_address="93.184.216.34")  # type: ignore[arg-type]


class TestVia:
    @pytest.mark.parametrize(
        ("text", "protocols"),
        [
            ("upnp,pcp,nat-pmp", ("upnp", "pcp", "nat-pmp")),
            ("nat-pmp", ("nat-pmp",)),
            (" PCP , Nat-Pmp ", ("pcp", "nat-pmp")),
        ],
    )
    def test_names_and_their_order_are_read(self, text: str, protocols: tuple[str, ...]) -> None:
        assert VIA.convert(text, None, None) == protocols

    @pytest.mark.parametrize("text", ["", ",", "pcp,", "pcp,pcp", "igd", "pcp nat-pmp", "natpmp", "upnp,x"])
    async def test_other_words_are_an_error_that_says_what_would_be_right(self, run: Run, text: str) -> None:
        outcome = await run("status", "--via", text)
        assert outcome.code == 2
        assert "upnp, pcp, nat-pmp, each once, the preferred one first" in " ".join(outcome.err.split())

    def test_the_shell_completes_what_is_not_there_yet(self) -> None:
        found = [each.value for each in VIA.shell_complete(None, None, "pcp,")]  # type: ignore[arg-type]
        assert found == ["pcp,upnp", "pcp,nat-pmp"]

    @pytest.mark.parametrize("protocol", ALL)
    async def test_only_what_is_named_is_spoken(self, run: Run, protocol: ProtocolName) -> None:
        async with speaking(protocols=ALL) as gateway:
            outcome = await run("status", "--via", protocol, "--json", *there(gateway))
            assert outcome.document["protocols"] == [protocol]
            kinds = {request.kind for request in gateway.requests}
        assert kinds & {"PCP", "NAT-PMP", "M-SEARCH"} == {{"upnp": "M-SEARCH"}.get(protocol, protocol.upper())}

    async def test_the_first_one_is_used(self, run: Run) -> None:
        async with speaking(protocols=ALL) as gateway:
            outcome = await run("add", 8080, "--via", "nat-pmp,upnp", "--json", *there(gateway))
        assert [each["protocol"] for each in outcome.document["mappings"]] == ["nat-pmp"]


class TestGateway:
    @pytest.mark.parametrize(
        "words",
        ["discover --timeout 0.5", "status", "add 8080", "delete 8080", "watch --count 1", "doctor --timeout 1"],
    )
    async def test_each_command_uses_the_router_that_is_named(self, run: Run, words: str) -> None:
        async with EmulatedGateway(protocols=DATAGRAMS, external_address="93.184.216.34") as gateway:
            place = f"{gateway.address}:{gateway.pcp_port}"
            outcome = await run(*words.split(), "--gateway", place)
            assert outcome.code == (1 if words.startswith("delete") else 0), outcome  # there is nothing to delete
            assert gateway.requests
            assert gateway.problems == []

    @pytest.mark.parametrize("words", ["list", "status", "record FILE", "pinhole list 1"])
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--gateway 10.2.0.1 --location http://10.2.0.1:5000/x", "give one of them"),
            ("--gateway router", "gateway must be the IP address of a router"),
            ("--gateway 10.2.0.1:0", "the port of the gateway"),
            ("--gateway 10.2.0.1:65536", "the port of the gateway"),
            ("--gateway fe80::1", "is named with its interface"),
            ("--gateway 10.2.0.1 --ipv6", "not at 10.2.0.1"),
            ("--location http://10.2.0.1:5000/x --via pcp", "which is not in protocols"),
        ],
    )
    async def test_what_cannot_be_meant_is_wrong_usage(self, run: Run, words: str, options: str, message: str) -> None:
        outcome = await run(*words.split(), *options.split())
        assert outcome.code == 2
        assert message in " ".join(outcome.err.split())


class TestDiscover:
    async def test_a_router_has_a_row_for_each_protocol_and_is_one_gateway(self, run: Run) -> None:
        async with speaking(protocols=ALL) as gateway:
            outcome = await run("discover", "--timeout", 1, *there(gateway))
        text = " ".join(outcome.out.split())
        assert f"● NAT-PMP router at {gateway.address} {gateway.address} gateway" in text
        assert "UPnP WANIPConnection:1" in text
        assert "It speaks UPnP, PCP and NAT-PMP; UPnP is used" in text
        assert "2 gateways" not in text

    async def test_programs_get_a_line_for_each(self, run: Run) -> None:
        async with speaking(protocols=ALL) as gateway:
            outcome = await run("discover", "--timeout", 1, "--json", "--via", "pcp,upnp", *there(gateway))
        assert all(line.keys() == DEVICE for line in outcome.lines)
        assert {(line["protocol"], line["address"]) for line in outcome.lines} == {
            ("upnp", gateway.address),
            ("pcp", gateway.address),
        }

    async def test_a_router_without_upnp_is_a_gateway(self, run: Run) -> None:
        async with speaking() as gateway:
            outcome = await run("discover", "--timeout", 0.5, *there(gateway))
        assert outcome.code == 0
        assert "It speaks PCP and NAT-PMP; PCP is used" in outcome.out

    @pytest.mark.parametrize("width", WIDTHS)
    def test_the_rows_are_whole_at_any_width(self, width: int) -> None:
        found = [device("upnp"), device("pcp", "192.168.100.1:15351"), device("nat-pmp", "[fe80::1%eth0]:5351")]
        text = joined(lines(discover._device_table(found, {}), width))
        for words in ("192.168.100.1:15351", "NAT-PMP", "[fe80::1%eth0]:5351", "192.168.100.177"):
            assert words in text


def device(protocol: ProtocolName, address: str = "192.168.100.1") -> Device:
    if protocol == "upnp":
        return Device(
            f"http://{address}:5000/x",
            igd_service_type="urn:schemas-upnp-org:service:WANIPConnection:1",
            igd_control_url=f"http://{address}:5000/c",
            igd_our_addr="192.168.100.177",
            igd_status=IGDStatus.OK,
            friendly_name="Box",
        )
    name = f"{protocol.upper()} router at {address}"
    return Device(
        igd_our_addr="192.168.100.177",
        igd_status=IGDStatus.OK,
        friendly_name=name,
        protocol=protocol,
        address=address,
    )


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("10.2.0.1", "10.2.0.1"),
        ("10.2.0.1:5351", "10.2.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[fe80::1%eth0]:5351", "fe80::1%eth0"),
        ("", ""),
    ],
)
def test_hosts_are_read_from_addresses(address: str, host: str) -> None:
    assert host_in(address) == host


def test_one_router_is_one_whatever_it_speaks() -> None:
    found = [device("pcp"), device("nat-pmp", "192.168.100.1:99"), device("upnp"), device("pcp", "192.168.100.2")]
    assert [host_of(each) for each in routers_of(found)] == ["192.168.100.1", "192.168.100.2"]
    assert len({place_of(each) for each in found}) == 4


@pytest.mark.parametrize(
    ("protocols", "names"),
    [({"nat-pmp", "upnp"}, "UPnP and NAT-PMP"), (PROTOCOLS, "UPnP, PCP and NAT-PMP"), ((), "")],
)
def test_protocols_are_named_in_one_order(protocols: tuple[str, ...], names: str) -> None:
    assert protocol_names(protocols) == names


def test_an_error_names_the_protocol_whose_code_it_has() -> None:
    error = RefusedError("MAP was refused", UPnPResult.NOT_AUTHORIZED, 2)
    error.protocol = "pcp"
    assert error_text(error) == "MAP was refused (PCP error 2, NOT_AUTHORIZED)"


class TestStatus:
    async def test_it_says_what_the_router_speaks_and_what_is_used(self, run: Run) -> None:
        async with speaking(protocols=ALL) as gateway:
            outcome = await run("status", *there(gateway))
            document = (await run("status", "--json", *there(gateway))).document
        assert "UPnP is used, PCP and NAT-PMP would do, too" in outcome.out
        assert document["protocols"] == ["upnp", "pcp", "nat-pmp"]

    async def test_without_upnp_there_is_the_address(self, run: Run) -> None:
        async with speaking() as gateway:
            outcome = await run("status", "--json", *there(gateway))
            assert gateway.mappings == []
        assert outcome.document["external_address"] == "93.184.216.34"
        assert outcome.document["gateway"]["protocol"] == "pcp"
        assert outcome.document["connection"] is None

    @pytest.mark.parametrize("width", WIDTHS)
    def test_it_is_whole_at_any_width(self, width: int) -> None:
        answers = status._Status(others=["pcp", "nat-pmp"])
        assert "UPnPisused,PCPandNAT-PMPwoulddo,too" in joined(
            lines(status._status_view(device("upnp"), answers), width)
        )


class TestList:
    @pytest.mark.parametrize(
        ("protocols", "options", "message"),
        [
            (DATAGRAMS, (), "speaks PCP and no UPnP: nobody can list its mappings"),
            (("nat-pmp",), (), "speaks NAT-PMP and no UPnP"),
            (ALL, ("--via", "pcp"), "PCP has no table of mappings; by UPnP the router may: `aioigd list --via upnp`"),
        ],
    )
    async def test_without_a_table_it_says_so(
        self, run: Run, protocols: tuple[ProtocolName, ...], options: tuple[str, ...], message: str
    ) -> None:
        async with speaking(protocols=protocols) as gateway:
            outcome = await run("list", *options, "--json", *there(gateway))
        error = outcome.document["error"]
        assert outcome.code == 1
        assert message in error["message"]
        assert error.keys() == ERROR
        assert error["result"] == "INVALID_GATEWAY"

    async def test_people_are_told_so_in_words(self, run: Run) -> None:
        async with speaking() as gateway:
            outcome = await run("list", "--via", "pcp,nat-pmp", *there(gateway))
        assert (outcome.code, outcome.out.strip()) == (1, "")
        assert "PCP has no table of mappings" in outcome.err

    async def test_it_goes_by_upnp_whatever_is_preferred(self, run: Run) -> None:
        async with speaking(protocols=ALL) as gateway:
            gateway.add_mapping(80, proto="TCP")
            document = (await run("list", "--via", "pcp,nat-pmp,upnp", "--json", *there(gateway))).document
        assert document["gateway"]["protocol"] == "upnp"
        assert [each["external_port"] for each in document["mappings"]] == [80]


class TestAdd:
    @pytest.mark.parametrize("protocol", DATAGRAMS)
    async def test_protocol_and_granted_time_are_shown(self, run: Run, protocol: ProtocolName) -> None:
        async with speaking(quirks.grants_lifetime(7200), protocols=(protocol,)) as gateway:
            outcome = await run("add", 8080, *there(gateway))
            assert len(gateway.mappings) == 1
        name = {"pcp": "PCP", "nat-pmp": "NAT-PMP"}[protocol]
        text = " ".join(outcome.out.split())
        assert outcome.code == 0
        assert f"by {name} TCP 93.184.216.34:8080 → {gateway.address}:8080 2 h" in text
        assert f"By {name} no port is open without a limit in time; --keep renews it." in text

    async def test_programs_are_told_both(self, run: Run) -> None:
        async with speaking(quirks.grants_lifetime(60)) as gateway:
            (mapping,) = (await run("add", 8080, "--for", "1h", "--json", *there(gateway))).document["mappings"]
        assert mapping.keys() == MAPPING
        assert (mapping["protocol"], mapping["duration"]) == ("pcp", 60)

    async def test_where_upnp_refuses_the_next_protocol_serves(self, run: Run) -> None:
        async with speaking(quirks.refuses_everything(606), protocols=ALL) as gateway:
            outcome = await run("add", 8080, *there(gateway))
            assert len(gateway.mappings) == 1
        assert outcome.code == 0
        assert "by PCP" in outcome.out

    async def test_a_port_of_another_host_is_left_to_it(self, run: Run) -> None:
        async with speaking() as gateway:
            theirs = gateway.add_mapping(8080, proto="TCP")
            outcome = await run("add", 8080, "--json", *there(gateway))
            assert gateway.mappings == [theirs]
        (failure,) = outcome.document["failures"]
        assert outcome.code == 1
        assert (failure["error"]["result"], failure["error"]["protocol"]) == (
            ConflictError("").result.name,
            "pcp",
        )

    @pytest.mark.parametrize("width", WIDTHS)
    def test_what_was_opened_is_shown_whole(self, width: int) -> None:
        granted = [
            PortMapping(80 + number, 80, "192.168.100.177", "TCP", "", 86_400, protocol=protocol)
            for number, protocol in enumerate(ALL)
        ]
        text = joined(lines(add._granted_view(granted, "Box", None, 0), width))
        assert "openonBoxbyUPnP,PCPandNAT-PMP" in text
        assert "ByPCPandNAT-PMPnoportisopenwithoutalimitintime" in text


@pytest.mark.parametrize("protocol", DATAGRAMS)
async def test_ports_are_kept_and_closed(start: Start, protocol: ProtocolName) -> None:
    async with speaking(quirks.grants_lifetime(60), protocols=(protocol,)) as gateway:
        async with start("add", "8080", "--both", "--keep", *there(gateway)) as process:
            name = {"pcp": "PCP", "nat-pmp": "NAT-PMP"}[protocol]
            for _ in range(2):
                await process.until(f"by {name}, lease 1 min, kept until Ctrl-C")
            assert len(gateway.mappings) == 2
            outcome = await process.end()
        assert gateway.mappings == []
    assert (outcome.code, outcome.err) == (0, "")
    assert "The 2 ports are closed; nothing is left" in outcome.out


async def test_a_router_that_is_silent_in_the_end_is_told_of(start: Start) -> None:
    async with speaking(protocols=("nat-pmp",)) as gateway:
        async with start("add", 8080, "--keep", "--via", "nat-pmp", "--timeout", 1, *there(gateway)) as process:
            await process.until("kept until")
            gateway.hang()
            outcome = await process.end()
        gateway.resume()
    assert outcome.code == 1
    assert "is out of reach" in outcome.out


def refuse(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
    return proceed(replace(query, request=pcp.ResultCode.ADDRESS_MISMATCH))


class TestPinhole:
    async def test_by_pcp_it_is_named_by_its_port(self, run: Run) -> None:
        async with EmulatedGateway(address="::1", protocols=("pcp",)) as gateway:
            place = ("--gateway", f"[::1]:{gateway.pcp_port}")
            added = await run("pinhole", "add", 8080, "--both", *place)
            assert "pinhole 8080/tcp" in added.out
            assert len(gateway.firewall.pinholes) == 2
            by_number = await run("pinhole", "delete", 0, *place)
            assert by_number.code == 1
            assert "PCP has no numbers for pinholes" in by_number.err
            assert len(gateway.firewall.pinholes) == 2
            deleted = await run("pinhole", "delete", "8080/tcp", "8080/UDP", "--json", *place)
            assert deleted.document["deleted"] == ["8080/tcp", "8080/udp"]
            assert gateway.firewall.pinholes == []

    @pytest.mark.parametrize("name", ["x", "8080/icmp", "0/tcp", "65536/udp", "8080/", "-1", "\u0661"])
    async def test_other_names_are_wrong_usage(self, run: Run, name: str) -> None:
        outcome = await run("pinhole", "delete", "--", name)
        assert outcome.code == 2
        assert "8080/tcp" in outcome.err


class TestDoctor:
    async def ask(self, run: Run, gateway: EmulatedGateway, *options: object) -> Outcome:
        return await run("doctor", "--timeout", 1, "--json", *there(gateway), *options)

    @pytest.mark.parametrize(
        ("quirk", "protocols", "expected"),
        [
            (None, ("pcp",), []),
            (None, ("nat-pmp",), []),
            (None, ALL, []),
            ("pcp_refuses_mappings", ("pcp",), ["pcp-not-allowed"]),
            ("pcp_refuses_mappings", ("upnp", "pcp"), ["pcp-not-allowed"]),
            ("another_nat_between", ("pcp",), ["another-nat"]),
            ("another_nat_between", ("upnp", "pcp"), ["another-nat"]),
            ("nat_pmp_maps_nothing", ("nat-pmp",), ["nat-pmp-no-address"]),
            ("assigns_own_ports", ("nat-pmp",), ["other-port"]),
            ("refuses_everything", ("upnp", "pcp"), ["served-by-another"]),
            ("refuses_everything", ("upnp", "nat-pmp"), ["served-by-another"]),
            ("silent_port", ("pcp",), ["upnp-off"]),
        ],
    )
    async def test_a_router_that_is_like_that(
        self, run: Run, quirk: str | None, protocols: tuple[ProtocolName, ...], expected: list[str]
    ) -> None:
        async with speaking(*([quirk] if quirk else []), protocols=protocols) as gateway:
            outcome = await self.ask(run, gateway)
            assert [each["code"] for each in outcome.document["advice"]] == expected
            assert gateway.mappings == []
        assert outcome.code == (4 if any(each["severity"] != "NOTE" for each in outcome.document["advice"]) else 0)

    async def test_where_another_nat_refuses_to_talk_at_all(self, run: Run) -> None:
        async with speaking(odd(pcp_action=refuse), protocols=("pcp",)) as gateway:
            outcome = await self.ask(run, gateway)
        assert [each["code"] for each in outcome.document["advice"]] == ["another-nat"]

    async def test_without_a_trial_no_port_is_opened(self, run: Run) -> None:
        async with speaking() as gateway:
            outcome = await self.ask(run, gateway, "--no-trial")
            assert not any(request.kind == "PCP" and request.action == "MAP" for request in gateway.requests)
        assert (outcome.code, outcome.document["findings"]["replies"]) == (0, [])

    async def test_a_port_that_is_closed_at_the_router_that_was_named(self, run: Run, address: str) -> None:
        outcome = await run("doctor", "--timeout", 1, "--json", "--gateway", address)
        assert [each["code"] for each in outcome.document["advice"]] == ["port-closed"]
        assert {each["said"] for each in outcome.document["findings"]["replies"]} == {"closed"}

    async def test_a_router_that_is_reached_over_ipv6_is_asked_for_no_port(self, run: Run) -> None:
        async with EmulatedGateway(address="::1", protocols=("pcp",)) as gateway:
            place = f"[::1]:{gateway.pcp_port}"
            outcome = await run("doctor", "--timeout", 1, "--json", "--gateway", place)
            assert {each.action for each in gateway.requests} == {"ANNOUNCE"}
            assert gateway.problems == []
        assert outcome.document["advice"] == []
        assert outcome.document["findings"]["gateway"]["address"] == "::1"

    async def test_people_are_told_what_is_spoken_and_used(self, run: Run) -> None:
        async with speaking(protocols=ALL) as gateway:
            outcome = await run("doctor", "--timeout", 1, *there(gateway))
        assert "UPnP, PCP and NAT-PMP; UPnP is used" in outcome.out


TUNNEL = Findings(links=(Link("wg0", "10.2.0.2", "vpn", 32),), default_address="10.2.0.2")


def test_a_vpn_without_a_next_hop_is_to_be_named() -> None:
    (advice,) = diagnose(TUNNEL)
    assert (advice.code, advice.severity) == ("vpn-gateway", Severity.PROBLEM)
    assert "--gateway 10.2.0.1" in advice.to_do[0]
    named = replace(TUNNEL, named="10.2.0.1", next_hops=frozenset({"10.2.0.1"}), devices=(device("pcp", "10.2.0.1"),))
    assert "vpn-gateway" not in [each.code for each in diagnose(named)]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_is_whole_at_any_width(width: int) -> None:
    box = device("pcp")
    found = Findings(
        links=(Link("eth0", "192.168.100.177"),),
        default_address="192.168.100.177",
        next_hops=frozenset({"192.168.100.1"}),
        devices=(device("upnp"), box),
        gateway=device("upnp"),
        external_address=ip_address("93.184.216.34"),
        trial=Trial(50000, UPnPResult.ACTION_FAILED, 501, "it refuses"),
        replies=(
            Reply("pcp", "served"),
            Reply("nat-pmp", "refused", UPnPResult.ACTION_FAILED, 3, "MAP was refused by NAT-PMP: NETWORK_FAILURE (3)"),
        ),
    )
    text = joined(lines(_report_view(found, diagnose(found)), width))
    for words in ("UPnPandPCP;UPnPisused", "openedandclosedagainbyPCP", "--viapcp"):
        assert words in text
