"""Screens at 60, 80 and 120 columns: what matters is never cut, whatever names and addresses are like."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from aioigd import (
    ConnectionStatus,
    Device,
    IGDStatus,
    Lease,
    LeasedPort,
    LeaseState,
    LinkProperties,
    PortMapping,
    TrafficTotals,
    UPnPResult,
)
from aioigd.cli import add, app, discover, keep, status, watch
from aioigd.cli import list as list_command
from aioigd.cli.doctor.command import _report_view
from aioigd.cli.doctor.rules import Findings, Link, Trial, diagnose
from aioigd.cli.format import endpoint
from aioigd.cli.options import Settings
from aioigd.cli.output import Column, Listing
from aioigd.cli.traffic import Traffic, traffic_line
from aioigd.testing import EmulatedGateway

from .conftest import there

pytestmark = pytest.mark.waits

WIDTHS = (60, 80, 120)
LONG = "The Router of a Family that Gives Long Names to Everything"
NAMES = (
    "web",
    LONG,
    "家庭用ルーターの説明がとても長い" * 3,
    "🏠🔒" * 30,
    "x" * 300,
    "a\u0301" * 90,
    "\u202e\n\x1b[2J" * 40,
)
V6 = "2001:db8:1234:5678:9abc:def0:1234:5678"
CLIENTS = ("192.168.100.177", V6, "fritz.box", "家庭用" * 20, "a\nb\x1b[2J")
COMMANDS = ("list", "discover --all --timeout 0.3", "status")
ENDLESS = "watch --count 99 --interval 0.1 --json"
ADDRESSES = (IPv4Address("203.0.113.250"), IPv6Address(V6), None)


def lines(what: RenderableType, width: int, encoding: str = "utf-8") -> list[str]:
    """What a terminal of this width shows; its cells must not be more than there are."""

    class Stream(StringIO):
        @property
        def encoding(self) -> str:  # type: ignore[override]
            return encoding

    stream = Stream()
    Console(file=stream, width=width, force_terminal=True, color_system=None, highlight=False).print(what)
    shown = [line.rstrip() for line in stream.getvalue().split("\n")]
    assert all(cell_len(line) <= width for line in shown), shown
    return shown


def joined(shown: list[str]) -> str:
    """All of it without the breaks of lines, which may be anywhere in a long word."""
    return "".join("".join(shown).split())


def device(name: str = LONG, host: str = "192.168.100.1", model: str = "") -> Device:
    url = f"http://[{host}]:5000/x" if ":" in host else f"http://{host}:5000/x"
    return Device(
        url, "", url, "urn:schemas-upnp-org:service:WANIPConnection:1", "192.168.100.177", IGDStatus.OK, name, "", model
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("client", CLIENTS, ids=ascii)
@pytest.mark.parametrize("remote", ["", "203.0.113.250", V6])
def test_the_list_shows_every_port_protocol_and_address(width: int, client: str, remote: str) -> None:
    mappings = [
        PortMapping(port, 65535, client, "TCP" if port % 2 else "UDP", name, 604_799, remote)
        for port, name in zip((80, 32400, 65535, 51413, 1, 8080, 22), NAMES, strict=True)
    ]
    shown = lines(list_command._mapping_table(mappings, client), width)
    text = joined(shown)
    inside = joined([endpoint(client, 65535)])
    mark = "here" if mappings[0].leads_to(client, 0) else ""  # a name does not tell
    for each in mappings:
        assert f"{each.external_port}{each.proto}{inside}{mark}" in text
    assert text.count(remote) >= len(mappings)
    assert text.count("6d23h") == len(mappings)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_is_a_table_where_there_is_room_for_one(width: int) -> None:
    mappings = [PortMapping(32400, 32400, "192.168.1.77", "TCP", "media", 7200)]
    shown = lines(list_command._mapping_table(mappings, "192.168.1.2"), width)
    assert any("Leads to" in line for line in shown) == (width >= 80)
    if width == 60:
        assert shown[:2] == ["32400  TCP  192.168.1.77:32400", "    2 h · media"]


@pytest.mark.parametrize("width", [20, 30, 40, 50])
def test_it_is_readable_on_the_smallest_terminals(width: int) -> None:
    mappings = [PortMapping(65535, 65535, V6, "TCP", "x" * 60)]
    text = joined(lines(list_command._mapping_table(mappings, ""), width))
    assert f"65535TCP[{V6}]:65535" in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("host", ["192.168.100.1", V6, "router.with.a.long.name.example.org"])
def test_discovery_shows_every_address(width: int, name: str, host: str) -> None:
    found = [device(name, host, LONG), device("", "192.168.1.1")]
    found[1] = replace(found[1], igd_status=IGDStatus.HTTP_ERROR)
    output = Settings().output
    view = discover._search_view(output, found, {"192.168.100.177": "enp0s31f6"}, 3, 2.0)
    text = joined(lines(view, width))
    for words in (host, "192.168.1.1", "192.168.100.177(enp0s31f6)", "gateway", "descriptionoutofreach", "2sleft"):
        assert words in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("client", CLIENTS, ids=ascii)
def test_what_was_opened_is_shown_whole(width: int, address: IPv4Address | IPv6Address | None, client: str) -> None:
    granted = [PortMapping(port, port, client, "TCP", "", 0, "203.0.113.250") for port in range(50000, 50010)]
    text = joined(lines(add._granted_view(granted, LONG, address, 0), width))
    outside = endpoint(address, 50000)
    assert joined([f"TCP {outside}-50009 → {endpoint(client, 50000)}-50009"]) in text
    assert "onlyfor203.0.113.250" in text


class Shown:
    """A lease as the screen sees it."""

    def __init__(self, port: int, address: IPv4Address | IPv6Address | None, client: str, state: LeaseState) -> None:
        mapping = PortMapping(port, port, client, "TCP", duration=3600)
        self.mappings = (mapping,)
        self.ports = (LeasedPort(mapping, state),)
        self.state = state
        self.external_address = address
        self.last_confirmed = datetime.now(UTC)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("client", CLIENTS[:3])
def test_ports_that_are_kept_are_shown_whole(width: int, address: IPv4Address | None, client: str) -> None:
    leases: list[Lease] = [Shown(50000 + number, address, client, state) for number, state in enumerate(LeaseState)]  # type: ignore[misc]
    shown = lines(keep._lease_table(leases, 20, width), width)
    for number in range(3):
        assert endpoint(address, 50000 + number) in joined(shown)
        assert endpoint(client, 50000 + number) in joined(shown)
    many = [*leases, *leases, *leases, *leases]
    assert "and 8 more" in "\n".join(lines(keep._lease_table(many, 8, 60), 60))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("address", ADDRESSES)
def test_the_status_is_shown_whole(width: int, name: str, address: IPv4Address | IPv6Address | None) -> None:
    answers = status._Status(
        address,
        ConnectionStatus(name, name, 4_000_000_000),
        link=LinkProperties(name, 10**9, 10**9, name),
        traffic=TrafficTotals(2**32, 2**32),
    )
    text = joined(lines(status._status_view(device(name, V6), answers), width))
    for words in (str(address or "nottold"), V6, "192.168.100.177", "WANIPConnection:1", "4.29GB"):
        assert words in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_the_report_of_the_doctor_is_shown_whole(width: int, name: str) -> None:
    found = Findings(
        links=(Link("enp0s31f6", "192.168.100.177"), Link("eth1", V6)),
        default_address="192.168.100.177",
        next_hops=frozenset({"192.168.100.254"}),
        devices=(device(name), device(name, V6)),
        gateway=device(name),
        external_address=ip_address("100.64.0.7"),
        mappings=12,
        trial=Trial(50000, UPnPResult.NOT_AUTHORIZED, 606, name),
    )
    text = joined(lines(_report_view(found, diagnose(found)), width))
    for words in ("192.168.100.177", "192.168.100.254", "192.168.100.1", V6, "100.64.0.7", "50000", "606"):
        assert words in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("address", ADDRESSES)
def test_the_screen_of_watch_is_shown_whole(width: int, address: IPv4Address | IPv6Address | None) -> None:
    class Watched:
        device = device(LONG)

    watcher = watch._Watcher(Settings(), None, Watched)  # type: ignore[arg-type]
    watcher._is_first, watcher._address = False, address
    watcher._traffic.totals = TrafficTotals(2**32, 2**32)
    mapping = PortMapping(50000, 50000, V6, "TCP")
    watcher._add_event("mapping-added", f"{watch._mapping_text(mapping)} opened")
    text = joined(lines(watcher.screen(), width))
    assert str(address or "nottold") in text
    assert f"TCP50000→[{V6}]:50000opened" in text
    assert text.count("4.29GBinall") == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_the_line_of_traffic_is_shown_whole(width: int) -> None:
    traffic = Traffic()
    traffic.totals = TrafficTotals(2**32, 2**32)
    assert "0Bin,0Bout" in joined(lines(traffic_line(traffic), width))


def test_what_may_be_cut_shares_what_is_left() -> None:
    table = Listing(Column(), Column(least=4), Column(least=4), with_titles=False)
    table.add_row(Text("x" * 10), Text("y" * 10), Text("z" * 10))
    assert table.widths(60) == [10, 10, 10]
    assert table.widths(30) == [10, 10, 4]
    assert table.widths(24) == [10, 4, 4]
    assert table.widths(23) is None


_FEW = ("list", "add 8080")
_ALL = (*_FEW, "discover --all --timeout 0.3", "status", "doctor --timeout 2", "watch --count 1", "--help")


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        *((encoding, words) for encoding in ("ascii", "cp1252") for words in _ALL),
        *((encoding, words) for encoding in ("cp437", "shift_jis", "utf-8") for words in _FEW),
    ],
)
async def test_what_cannot_be_encoded_is_replaced(encoding: str, words: str) -> None:
    async with EmulatedGateway(address=None, friendly_name="家庭用 🏠 Zoë") as gateway:
        gateway.add_mapping(80, proto="TCP", desc="→ 家庭用 🏠")
        arguments = words.split() if words == "--help" else [*words.split(), *there(gateway)]
        runner = CliRunner(charset=encoding)
        result = await asyncio.to_thread(runner.invoke, app.command, arguments, prog_name="aioigd")
    assert result.exit_code == 0, result.exc_info
    result.stdout_bytes.decode(encoding)
    assert result.stdout_bytes


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are another thing there")
class TestPipes:
    async def piped(self, *arguments: object, reader: str = "head -1", **environment: str) -> tuple[int, str, str]:
        """Run the command in a pipe, and return its exit code, what the reader has read, and the errors."""
        words = " ".join(map(str, arguments))
        script = f"{sys.executable} -m aioigd {words} | {reader}; exit ${{PIPESTATUS[0]}}"
        done = await asyncio.to_thread(
            subprocess.run,
            ["/bin/bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **environment},
            cwd=Path(__file__).parents[2],
        )
        return done.returncode, done.stdout, done.stderr

    @pytest.mark.parametrize("words", [*COMMANDS, "list --json", "add 8000-8100", ENDLESS])
    async def test_a_reader_that_goes_away_ends_the_run(self, gateway: EmulatedGateway, words: str) -> None:
        for port in range(1000, 1300):
            gateway.add_mapping(port, desc="x" * 40)
        code, out, err = await self.piped(*words.split(), *there(gateway), reader="true")
        assert (code, out, err) == (141, "", "")

    async def test_the_first_lines_are_there(self, gateway: EmulatedGateway) -> None:
        gateway.add_mapping(80, desc="web")
        code, out, err = await self.piped("list", *there(gateway), reader="head -2")
        assert "Port" in out
        assert code in (0, 141)
        assert "Traceback" not in err

    async def test_ports_that_are_kept_are_closed(self, gateway: EmulatedGateway) -> None:
        code, _, err = await self.piped("add", 8080, "--keep", "--json", *there(gateway), reader="true")
        assert (code, err) == (141, "")
        assert gateway.mappings == []

    async def test_the_demo(self) -> None:
        code, _, err = await self.piped("demo", reader="true")
        assert (code, err) == (141, "")

    @pytest.mark.parametrize(
        "words", ["list", pytest.param("list --json", marks=pytest.mark.long), "watch --count 1 --json"]
    )
    async def test_a_disk_that_is_full_is_an_error(self, gateway: EmulatedGateway, words: str) -> None:
        if not os.path.exists("/dev/full"):  # noqa: ASYNC240
            pytest.skip("there is no such device")
        code, _, err = await self.piped(*words.split(), *there(gateway), ">/dev/full", reader="true")
        assert code == 1
        assert re.fullmatch(r"✗ .*No space left on device\n", err), err

    @pytest.mark.parametrize(
        "words", ["list --help", *(pytest.param(each, marks=pytest.mark.long) for each in ("--help", "--version"))]
    )
    async def test_a_help_page_does_not_fit_on_a_full_disk_either(self, words: str) -> None:
        if not os.path.exists("/dev/full"):  # noqa: ASYNC240
            pytest.skip("there is no such device")
        code, _, err = await self.piped(words, ">/dev/full", reader="true")
        assert (code, err) == (1, "Error: No space left on device\n")

    @pytest.mark.parametrize("words", ["list", pytest.param("list --json", marks=pytest.mark.long), "--version"])
    @pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
    async def test_a_closed_output_is_no_failure(self, gateway: EmulatedGateway, words: str, closed: str) -> None:
        place = there(gateway) if words != "--version" else ()
        assert await self.piped(*words.split(), *place, closed, reader="true") == (0, "", "")

    async def test_a_terminal_that_knows_only_ascii(self, gateway: EmulatedGateway) -> None:
        code, out, err = await self.piped("add", 8080, *there(gateway), reader="cat", PYTHONIOENCODING="ascii")
        assert (code, err) == (0, "")
        assert "? open on Emulated gateway" in out
        assert len(gateway.mappings) == 1
