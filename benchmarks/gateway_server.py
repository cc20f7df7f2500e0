"""A gateway that costs next to nothing, in a process of its own, for measuring what talks to it.

It speaks just enough: one SSDP reply for each search for a gateway, one description, AddPortMapping and
DeletePortMapping that always succeed, and a few queries. Nothing is checked and nothing is stored; a gateway that
behaves like a real one is in ``aioigd.testing``. With ``--devices`` it also plays other devices of the network.

The first line it prints is a JSON object that says where it is. After that each line on its standard input is a JSON
object of settings to change (``{}`` for none), answered by a line with what was counted since the last one. It ends
with its standard input. :func:`gateway_process` starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from .process import Process, run_process

GROUP: Final = "239.255.255.250"
PORT: Final = 1900
SERVICE: Final = "urn:schemas-upnp-org:service:WANIPConnection:1"
DEVICE: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
CONTROL: Final = "/ctl/IPConn"

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_TARGET = re.compile(rb"^ST:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
_ACTION = re.compile(rb'^SOAPAction:[ \t]*"[^"#]*#(\w+)"', re.IGNORECASE | re.MULTILINE)
_REPLY: Final = (
    '<?xml version="1.0"?>\r\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
    's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
    f'<u:{{0}}Response xmlns:u="{SERVICE}">{{1}}</u:{{0}}Response></s:Body></s:Envelope>\r\n'
)
_OUTPUTS: Final = {
    "GetExternalIPAddress": "<NewExternalIPAddress>11.22.33.44</NewExternalIPAddress>",
    "GetStatusInfo": (
        "<NewConnectionStatus>Connected</NewConnectionStatus>"
        "<NewLastConnectionError>ERROR_NONE</NewLastConnectionError><NewUptime>1</NewUptime>"
    ),
    "GetSpecificPortMappingEntry": (
        "<NewInternalPort>1</NewInternalPort><NewInternalClient>192.0.2.1</NewInternalClient><NewEnabled>1</NewEnabled>"
        "<NewPortMappingDescription>benchmark</NewPortMappingDescription><NewLeaseDuration>0</NewLeaseDuration>"
    ),
}


def _document(name: str) -> bytes:
    """Return a document without the blanks between its tags."""
    return re.sub(rb">\s+<", b"><", (Path(__file__).with_name("documents") / name).read_bytes().strip())


DESCRIPTION: Final = _document("rootDesc.xml")
_PATHS: Final = {b"/scpd.xml": "GET SCPD", b"/lamp.xml": "GET lamp"}
_DOCUMENTS: Final = {"GET": DESCRIPTION, "GET SCPD": _document("scpd.xml"), "GET lamp": _document("lamp.xml")}


class GatewayProcess:
    """A running gateway: where it is, and what it counted."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.address: str = process.ready["address"]
        self.location: str = process.ready["location"]

    def counts(self, **changes: Any) -> dict[str, int]:
        """Return what was counted since the last time: requests by action, connections, resets, searches.

        ``changes`` are settings that hold from now on (see :class:`Settings`).
        """
        return self._process.ask(**changes)


@contextmanager
def gateway_process(*arguments: str, module: str = "benchmarks.gateway_server") -> Iterator[GatewayProcess]:
    """Run a gateway with these arguments; ``module``: another one that prints where it is in the same way."""
    with run_process(module, *arguments) as process:
        yield GatewayProcess(process)


@dataclass
class Settings:
    """How the gateway behaves from now on. ``delay``: seconds that it takes for each action."""

    delay: float = 0.0
    one_at_a_time: bool = False
    """Serve one connection, and reset (RST) those that come meanwhile."""
    keep_alive: bool = False


class Gateway:
    """What the connections share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.serving: Connection | None = None
        self._replies: dict[tuple[str, bool], bytes] = {}

    def command(self, line: bytes) -> bytes:
        """Change settings, and return what was counted since the last time."""
        self.settings = Settings(**{**asdict(self.settings), **json.loads(line)})
        counts, self.counts = self.counts, Counter()
        return json.dumps(counts).encode() + b"\n"

    def reply(self, action: str) -> bytes:
        """Return head and body of the reply to an action; the names of documents begin with ``GET``."""
        key = (action, self.settings.keep_alive)
        if key not in self._replies:
            self._replies[key] = self._make_reply(action)
        return self._replies[key]

    def _make_reply(self, action: str) -> bytes:
        body = _DOCUMENTS.get(action) or _REPLY.format(action, _OUTPUTS.get(action, "")).encode()
        connection = "keep-alive" if self.settings.keep_alive else "close"
        head = (
            f'HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset="utf-8"\r\nConnection: {connection}\r\n'
            f"Content-Length: {len(body)}\r\nServer: benchmark/1 UPnP/1.1 benchmark/1\r\nExt:\r\n\r\n"
        )
        return head.encode() + body


class Connection(asyncio.Protocol):
    """One TCP connection; requests on it are answered one after another."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve, or reset where another one is being served."""
        self._transport = cast(asyncio.Transport, transport)
        self._gateway.counts["connections"] += 1
        if self._gateway.settings.one_at_a_time and self._gateway.serving is not None:
            self._gateway.counts["resets"] += 1
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
            return
        self._gateway.serving = self

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for the next."""
        self._transport = None
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Answer a request once it has come whole."""
        self._received += data
        head_end = self._received.find(b"\r\n\r\n") + 4
        if head_end < 4:
            return
        length = _LENGTH.search(self._received, 0, head_end)
        end = head_end + (int(length[1]) if length else 0)
        if len(self._received) < end:
            return
        request, self._received = self._received[:head_end], self._received[end:]
        action = _ACTION.search(request)
        name = action[1].decode() if action else _PATHS.get(request.split(b" ", 2)[1], "GET")
        self._gateway.counts[name] += 1
        if self._gateway.settings.delay and action:
            asyncio.get_running_loop().call_later(self._gateway.settings.delay, self._answer, name)
        else:
            self._answer(name)

    def _answer(self, name: str) -> None:
        if self._transport is None:
            return
        self._transport.write(self._gateway.reply(name))
        if not self._gateway.settings.keep_alive:
            self._transport.close()
            self._leave()

    def _leave(self) -> None:
        if self._gateway.serving is self:
            self._gateway.serving = None


class Searches(asyncio.DatagramProtocol):
    """Answers searches that come from the gateway's own address, or (outside of loopback) from any.

    The other devices answer before the gateway, each from an address of its own.
    """

    def __init__(self, gateway: Gateway, address: str, port: int, lamps: int) -> None:
        self._gateway = gateway
        self._address = address
        self._port = port
        self._socket = _bound(address)
        self._lamps = [_bound(f"127.78.{number // 250}.{number % 250 + 1}") for number in range(lamps)]

    def datagram_received(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        """Reply at once, without the delay that MX asks for."""
        target = _TARGET.search(datagram)
        from_outside = self._address.startswith("127.") and address[0] != self._address
        if from_outside or not datagram.startswith(b"M-SEARCH") or target is None:
            return
        if target[1] in (b"ssdp:all", b"upnp:rootdevice"):
            for lamp in self._lamps:
                self._reply(lamp, "upnp:rootdevice", "lamp.xml", address)
        if target[1].decode("latin-1") in (DEVICE, SERVICE, "upnp:rootdevice", "ssdp:all"):
            self._gateway.counts["searches"] += 1
            self._reply(self._socket, DEVICE, "rootDesc.xml", address)

    def _reply(self, device: socket.socket, kind: str, path: str, address: tuple[Any, ...]) -> None:
        host = device.getsockname()[0]
        reply = (
            f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {kind}\r\nUSN: uuid:{host}::{kind}\r\nEXT:\r\n"
            f"SERVER: benchmark/1 UPnP/1.1 benchmark/1\r\nLOCATION: http://{host}:{self._port}/{path}\r\n\r\n"
        )
        device.sendto(reply.encode(), address)


def _bound(address: str) -> socket.socket:
    device = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    device.bind((address, 0))
    return device


def _search_socket(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((GROUP, PORT))
    listener.setsockopt(
        socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(address)
    )
    return listener


async def serve(address: str, settings: Settings, devices: int = 1) -> None:
    """Be a gateway at an address of this host, and so many devices in all, until standard input ends."""
    loop = asyncio.get_running_loop()
    gateway = Gateway(settings)
    listening = address if devices == 1 else "0.0.0.0"
    server = await loop.create_server(partial(Connection, gateway), listening, 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    await loop.create_datagram_endpoint(
        lambda: Searches(gateway, address, port, devices - 1), sock=_search_socket(address)
    )
    print(json.dumps({"address": address, "location": f"http://{address}:{port}/rootDesc.xml"}), flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        os.write(sys.stdout.fileno(), gateway.command(line))


def main() -> None:
    """Take the settings from the command line, and serve."""
    process = os.getpid()
    parser = argparse.ArgumentParser(description="A gateway on loopback that always says yes.")
    parser.add_argument("--address", default=f"127.77.{process // 250 % 250 + 1}.{process % 250 + 1}")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds for each action")
    parser.add_argument("--one-at-a-time", action="store_true", help="one connection; others are reset")
    parser.add_argument("--keep-alive", action="store_true", help="keep connections open")
    parser.add_argument("--devices", type=int, default=1, help="how many devices there are, the gateway included")
    options = parser.parse_args()
    settings = Settings(options.delay, options.one_at_a_time, options.keep_alive)
    asyncio.run(serve(options.address, settings, options.devices))


if __name__ == "__main__":
    main()
