"""Whatever a hostile device says, everything that is shown of it is a visible line of bounded length.

Shown are the text and repr of errors, of the mapper and of the gateway, each record of a log, and the screens of the
command.
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from click.testing import CliRunner

from aioigd import Gateway, IGDError, Pinhole, PortMapper
from aioigd.cli import app
from aioigd.testing import EmulatedGateway, Quirk, UPnPError
from aioigd.testing.hooks import Exchange, Proceed
from aioigd.testing.http import Response
from aioigd.testing.ssdp import Datagram, Search
from aioigd.testing.wan_connection import ActionCall, Outputs
from aioigd.text import MESSAGE_LIMIT, get_logger
from aioigd.upnp.wire.xml import escape

from ..support import is_visible_line, odd

pytestmark = pytest.mark.waits

MARKS = "\u0300\u0489" * 40
HIDDEN = "\x85\x9b2J\u2028\u2029\u202e\u2066\u200b\u200d\ufeff\u00ad\u3164\U000e0041\ue000"
HOSTILE = f"x\nCRITICAL root: forged\r\x1b[2J\x1b]0;title\x07{HIDDEN}a{MARKS}" + "y" * 3000
ONE_LINE = HOSTILE.replace("\r", "").replace("\n", "")
BYTES = ONE_LINE.encode().decode("latin-1")
"""For the head of a reply."""
COMMANDS = ("discover --all", "status", "list", "add 8080", "delete 80", "watch --count 1", "doctor", "pinhole list 1")
NAMES = r"friendlyName|manufacturer|modelName|modelNumber|modelDescription|serialNumber|UDN|presentationURL|deviceType"
URLS = r"controlURL|eventSubURL|SCPDURL"
FREE = {"NewConnectionStatus", "NewLastConnectionError", "NewConnectionType", "NewPortMappingDescription"}
FREE |= {"NewWANAccessType", "NewPhysicalLinkStatus", "NewPossibleConnectionTypes"}


def says(names: str) -> Callable[[str, object], str]:
    def change(text: str, _: object) -> str:
        return re.sub(rf"(<({names})>[^<]*)(</)", lambda found: found[1] + escape(HOSTILE) + found[3], text)

    return change


def datagrams(names: str) -> Quirk[[]]:
    def change(_: Search, sent: Sequence[Datagram], __: object) -> Iterator[Datagram]:
        for each in sent:
            for value in (ONE_LINE[:200], ONE_LINE):
                pattern = rf"(?m)^({names}): ([^\r]*)\r$"
                changed = re.sub(pattern, "\\1: \\2" + value.replace("\\", "") + "\r", each.payload.decode())
                yield replace(each, payload=changed.encode())

    return odd(datagrams=change)


def outputs(is_hostile: Callable[[str], bool]) -> Quirk[[]]:
    def change(call: ActionCall, proceed: Proceed) -> Outputs:
        return {name: value + HOSTILE if is_hostile(name) else value for name, value in proceed(call).items()}

    return odd(action=change)


def refuse(call: ActionCall, proceed: Proceed) -> Outputs:
    raise UPnPError(501, HOSTILE)


def control_replies(change: Callable[[Response], Response]) -> Quirk[[]]:
    def respond(exchange: Exchange, response: Response) -> Response:
        return change(response) if exchange.purpose == "control" else response

    return odd(response=respond)


DEVICES = {
    "names": odd(description=says(NAMES)),
    "URLs": odd(description=says(URLS)),
    "search replies": datagrams("SERVER|ST|USN|BOOTID.UPNP.ORG"),
    "location": datagrams("LOCATION"),
    "words": outputs(FREE.__contains__),
    "all values": outputs(lambda name: True),
    "faults": odd(action=refuse),
    "encoding": control_replies(lambda sent: sent.having("Content-Encoding", BYTES)),
    "server": control_replies(lambda sent: sent.having("Server", BYTES)),
    "no document": control_replies(lambda sent: replace(sent, status=404, body=HOSTILE.encode("utf-8", "replace"))),
    "another document": control_replies(lambda sent: replace(sent, body=f"<a>{escape(HOSTILE)}</a>".encode())),
    "envelope": odd(envelope=lambda _, text: re.sub(">([^<]+)<", lambda found: f">{escape(HOSTILE)}<", text)),
}


@asynccontextmanager
async def device(name: str) -> Any:
    async with EmulatedGateway(DEVICES[name], address=None, version=2) as gateway:
        gateway.add_mapping(80, desc=HOSTILE)
        gateway.add_mapping(81, desc="\u202e" + HOSTILE, remote_host="192.0.2.1")
        yield gateway


async def listed(gateway: Gateway) -> list[object]:
    return [each async for each in gateway.query_port_mappings()]


def calls(gateway: Gateway) -> list[Awaitable[object]]:
    hole = Pinhole(1, "::1", 80, "TCP")
    return [
        gateway.add_port_mapping(8080),
        gateway.add_any_port_mapping(8081),
        gateway.delete_port_mapping(8082),
        gateway.delete_port_mapping_range(8090, 8099),
        gateway.query_external_address(),
        gateway.query_port_mapping(80),
        gateway.query_status(),
        gateway.query_connection_type(),
        gateway.query_nat_status(),
        gateway.query_link_properties(),
        gateway.query_traffic(),
        gateway.query_firewall_status(),
        gateway.query_pinhole_packets(hole),
        listed(gateway),
    ]


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.waits
async def test_errors_and_logs_are_lines(name: str, caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []
    errors: list[IGDError] = []

    async def attempt(call: Awaitable[object]) -> None:
        try:
            await call
        except IGDError as error:
            errors.append(error)

    with caplog.at_level(logging.DEBUG):
        async with (
            device(name) as emulated,
            PortMapper(source_address=emulated.address, timeout=1, discovery_timeout=1) as mapper,
        ):
            async with aclosing(mapper.iter_devices(0.3, device_filter="")) as devices:
                async for _ in devices:
                    pass
            try:
                gateway = await mapper.get_gateway()
            except IGDError as error:
                errors.append(error)
            else:
                shown.append(repr(gateway))
                await asyncio.gather(*map(attempt, calls(gateway)))
            await attempt(mapper.add_port_mapping(8083))
            shown.append(repr(mapper))
    for each in errors:
        shown += [str(each), repr(each), each.message]
        for line in "".join(traceback.format_exception(each)).splitlines():
            assert is_visible_line(line), name
    assert [each for each in caplog.records if each.name.startswith("aioigd.traffic")]
    shown += [record.getMessage() for record in caplog.records]
    for text in shown:
        assert is_visible_line(text), ascii(text)
        assert len(text) <= MESSAGE_LIMIT


def test_the_traceback_of_a_defect_has_no_forged_line(caplog: pytest.LogCaptureFixture) -> None:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    log = get_logger("aioigd.tests.shown")
    log.addHandler(handler)
    try:
        try:
            raise ExceptionGroup(HOSTILE, [KeyError(HOSTILE), OSError(5, HOSTILE)]) from ValueError(HOSTILE)
        except ExceptionGroup:
            log.warning("a defect", exc_info=True)
    finally:
        log.removeHandler(handler)
    lines = stream.getvalue().splitlines()
    assert "  + Exception Group Traceback (most recent call last):" in lines
    for line in lines:
        assert is_visible_line(line), ascii(line)
        assert len(line) <= MESSAGE_LIMIT
        assert not line.startswith("CRITICAL")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("names", "words") else pytest.mark.long) for name in DEVICES]
)
async def test_the_screens_of_the_command_are_lines(name: str) -> None:
    async with device(name) as emulated:
        for words in COMMANDS:
            arguments = [*words.split(), "--source-address", emulated.address, "--timeout", "0.5", "-vv"]
            result = await asyncio.to_thread(CliRunner().invoke, app.command, arguments, prog_name="aioigd")
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
            lines = result.output.split("\n")
            assert len(lines) > 1
            for line in lines:
                assert is_visible_line(line), ascii(line)
                assert len(line) <= MESSAGE_LIMIT + 100  # the log puts time and name before each message
