"""The gateways that are measured against, each in a process of its own.

:func:`gateway_process` runs one that costs next to nothing: one SSDP reply for each search for a gateway, one
description, and actions that always succeed; nothing is checked and nothing is stored. It can take its time, keep
connections open, listen on any address (the peers of the lab search from the LAN), play other devices, and speak
PCP and NAT-PMP.

:func:`emulated_process` runs an EmulatedGateway of aioigd.testing, for what needs its quirks more than its speed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, cast

from aioigd.pcp.wire import nat_pmp
from aioigd.pcp.wire.common import SERVER_PORT, pack_address

from .process import Process, answer, run_process

GROUP: Final = "239.255.255.250"
PORT: Final = 1900
SERVICE: Final = "urn:schemas-upnp-org:service:WANIPConnection:1"
DEVICE: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"

EXTERNAL: Final = IPv4Address("11.22.33.44")
_OUTPUTS: Final[dict[str, dict[str, object]]] = {
    "GetExternalIPAddress": {"ExternalIPAddress": EXTERNAL},
    "GetStatusInfo": {"ConnectionStatus": "Connected", "LastConnectionError": "ERROR_NONE", "Uptime": 1},
    "GetSpecificPortMappingEntry": {"InternalPort": 1, "InternalClient": "192.0.2.1", "LeaseDuration": 0, "Enabled": 1},
}
_DOCUMENTS: Final = {
    f"GET /{path.name}": re.sub(rb">\s+<", b"><", path.read_bytes().strip())  # without the blanks between its tags
    for path in Path(__file__).with_name("documents").iterdir()
}
DESCRIPTION: Final = _DOCUMENTS["GET /rootDesc.xml"]


def gateway_process(**settings: object) -> AbstractContextManager[Process]:
    """Run a gateway; asked, it changes settings (``delay``, ``keep_alive``) and returns what it counted since."""
    return run_process(__name__, json.dumps(settings))


def emulated_process(*quirks: object) -> AbstractContextManager[Process]:
    """Run an emulated gateway on loopback with quirks of aioigd.testing."""
    return gateway_process(emulated=f"[{', '.join(map(repr, quirks))}]")


class Gateway:
    """Settings and counts, which the connections share. ``delay``: seconds that it takes for each action."""

    def __init__(self, delay: float = 0.0, keep_alive: bool = False) -> None:
        self.delay, self.keep_alive = delay, keep_alive
        self.counted: Counter[str] = Counter()
        self._replies: dict[tuple[str, bool], bytes] = {}

    def counts(self, **changes: Any) -> Counter[str]:
        """Change settings, and return what was counted since the last time."""
        vars(self).update(changes)
        counted, self.counted = self.counted, Counter()
        return counted

    def reply(self, action: str) -> bytes:
        """Return head and body of the reply to an action; the names of documents begin with ``GET``."""
        key = (action, self.keep_alive)
        if key not in self._replies:
            outputs = "".join(f"<New{name}>{value}</New{name}>" for name, value in _OUTPUTS.get(action, {}).items())
            envelope = (
                '<?xml version="1.0"?>\r\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
                's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
                f'<u:{action}Response xmlns:u="{SERVICE}">{outputs}</u:{action}Response></s:Body></s:Envelope>\r\n'
            )
            body = _DOCUMENTS.get(action) or envelope.encode()
            head = (
                'HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset="utf-8"\r\n'
                f"Connection: {'keep-alive' if self.keep_alive else 'close'}\r\n"
                f"Content-Length: {len(body)}\r\nServer: benchmark/1 UPnP/1.1 benchmark/1\r\nExt:\r\n\r\n"
            )
            self._replies[key] = head.encode() + body
        return self._replies[key]


class Connection(asyncio.Protocol):
    """One TCP connection; requests on it are answered one after another."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the connection."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer a request once it has come whole."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\ncontent-length:[ \t]*(\d+)", head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        action = re.search(rb'(?i)\nsoapaction:[ \t]*"[^"#]*#(\w+)"', head)
        name = action[1].decode() if action else head.partition(b" HTTP/")[0].decode()
        self._gateway.counted[name] += 1
        if self._gateway.delay and action:
            asyncio.get_running_loop().call_later(self._gateway.delay, self._answer, name)
        else:
            self._answer(name)

    def _answer(self, name: str) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._gateway.reply(name))
            if not self._gateway.keep_alive:
                self._transport.close()


class Datagrams(asyncio.DatagramProtocol):
    """Grants what is asked for by PCP and NAT-PMP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        """Reply at once."""
        version, opcode = datagram[:2]
        head, epoch = bytes((version, opcode | 0x80, 0, 0)), int(time.monotonic()).to_bytes(4, "big")
        if version == nat_pmp.VERSION:
            reply = head + epoch + (datagram[4:] or EXTERNAL.packed)
        else:
            granted = datagram[24:44] + pack_address(EXTERNAL) + datagram[60:] if opcode else b""
            reply = head + datagram[4:8] + epoch + bytes(12) + granted
        self._transport.sendto(reply, address)


class Searches(asyncio.DatagramProtocol):
    """Answers searches from the gateway's own address, or (outside of loopback) from any; other devices do so first."""

    def __init__(self, address: str, port: int, lamps: int) -> None:
        self._address, self._port = address, port
        self._socket = _bound(address)
        self._lamps = [_bound(f"127.78.{number // 250}.{number % 250 + 1}") for number in range(lamps)]

    def datagram_received(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        """Reply at once, without the delay that MX asks for."""
        searched = re.search(rb"(?is)^M-SEARCH.*\nST:[ \t]*([^\r\n]*)", datagram)
        if searched is None or (self._address.startswith("127.") and address[0] != self._address):
            return
        target = searched[1].decode("latin-1")
        if target in ("ssdp:all", "upnp:rootdevice"):
            for lamp in self._lamps:
                self._reply(lamp, "upnp:rootdevice", "lamp.xml", address)
        if target in (DEVICE, SERVICE, "upnp:rootdevice", "ssdp:all"):
            self._reply(self._socket, DEVICE, "rootDesc.xml", address)

    def _reply(self, device: socket.socket, kind: str, path: str, address: tuple[Any, ...]) -> None:
        host = device.getsockname()[0]
        reply = (
            f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {kind}\r\nUSN: uuid:{host}::{kind}\r\nEXT:\r\n"
            f"SERVER: benchmark/1 UPnP/1.1 benchmark/1\r\nLOCATION: http://{host}:{self._port}/{path}\r\n\r\n"
        )
        device.sendto(reply.encode(), address)


def _bound(address: str, port: int = 0) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    return opened


async def serve(address: str = "", devices: int = 1, pcp: bool = False, upnp: bool = True, **settings: Any) -> None:
    """Be a gateway at an address of this host, and so many devices in all, until standard input ends.

    ``pcp``: it speaks PCP and NAT-PMP. Without ``upnp`` it hears no search.
    """
    loop, gateway, process = asyncio.get_running_loop(), Gateway(**settings), os.getpid()
    address = address or f"127.77.{process // 250 % 250 + 1}.{process % 250 + 1}"
    listening = address if devices == 1 else "0.0.0.0"
    server = await loop.create_server(partial(Connection, gateway), listening, 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    if pcp:
        await loop.create_datagram_endpoint(Datagrams, sock=_bound(address, SERVER_PORT))
    ear = _bound(GROUP, PORT if upnp else 0)
    ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(address))
    await loop.create_datagram_endpoint(lambda: Searches(address, port, devices - 1), sock=ear)
    ready = {"address": address, "location": f"http://{address}:{port}/rootDesc.xml"}
    await asyncio.to_thread(answer, ready, gateway.counts)


async def emulate(emulated: str) -> None:
    """Be an emulated gateway; ``emulated``: its quirks, as Python."""
    from aioigd.testing import EmulatedGateway, quirks

    async with EmulatedGateway(*eval(emulated, vars(quirks)), address=None) as gateway:
        ready = {"address": gateway.address, "location": gateway.location}
        await asyncio.to_thread(answer, ready, lambda: {"resets": gateway.tally.reset})


if __name__ == "__main__":
    chosen = json.loads(sys.argv[1])
    asyncio.run((emulate if "emulated" in chosen else serve)(**chosen))
