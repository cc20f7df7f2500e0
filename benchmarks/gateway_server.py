"""A gateway that costs next to nothing: a process of its own on loopback, for measuring what talks to it.

It speaks just enough: one SSDP reply for each search for a gateway, one description, AddPortMapping and
DeletePortMapping that always succeed, GetExternalIPAddress. Nothing is checked and nothing kept; for a gateway that
behaves like one there is ``aioigd.testing``.

The first line it prints is a JSON object that says where it is. After that each line on its standard input is a JSON
object of settings to change (``{}`` for none), answered by a line with what was counted since the last. It ends
with its standard input.
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
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, cast

GROUP: Final = "239.255.255.250"
PORT: Final = 1900
SERVICE: Final = "urn:schemas-upnp-org:service:WANIPConnection:1"
DEVICE: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
CONTROL: Final = "/ctl/IPConn"

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_TARGET = re.compile(rb"^ST:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
_ACTION = re.compile(rb'^SOAPAction:[ \t]*"[^"#]*#(\w+)"', re.IGNORECASE | re.MULTILINE)
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

DESCRIPTION: Final = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion><device>\
<deviceType>{DEVICE}</deviceType><friendlyName>benchmark</friendlyName><UDN>uuid:benchmark</UDN>\
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><UDN>uuid:benchmark-1</UDN>\
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1</serviceType>\
<serviceId>urn:upnp-org:serviceId:WANCommonIFC1</serviceId><SCPDURL>/scpd.xml</SCPDURL>\
<controlURL>/ctl/CmnIfCfg</controlURL><eventSubURL>/evt</eventSubURL></service></serviceList>\
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>\
<UDN>uuid:benchmark-2</UDN><serviceList><service>\
<serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>\
<SCPDURL>/scpd.xml</SCPDURL><controlURL>{CONTROL}</controlURL><eventSubURL>/evt</eventSubURL>\
</service></serviceList></device></deviceList></device></deviceList></device></root>""".encode()

_INPUTS: Final = {
    "NewRemoteHost": "string",
    "NewExternalPort": "ui2",
    "NewProtocol": "string",
    "NewInternalPort": "ui2",
    "NewInternalClient": "string",
    "NewEnabled": "boolean",
    "NewPortMappingDescription": "string",
    "NewLeaseDuration": "ui4",
}
_ARGUMENTS: Final = "".join(
    f"<argument><name>{name}</name><direction>in</direction>"
    f"<relatedStateVariable>A_{name}</relatedStateVariable></argument>"
    for name in _INPUTS
)
_VARIABLES: Final = "".join(
    f'<stateVariable sendEvents="no"><name>A_{name}</name><dataType>{kind}</dataType></stateVariable>'
    for name, kind in _INPUTS.items()
)
SCPD: Final = f"""<?xml version="1.0"?>
<scpd xmlns="urn:schemas-upnp-org:service-1-0"><specVersion><major>1</major><minor>0</minor></specVersion><actionList>\
<action><name>AddPortMapping</name><argumentList>{_ARGUMENTS}</argumentList></action></actionList>\
<serviceStateTable>{_VARIABLES}</serviceStateTable></scpd>""".encode()
"""What the service can do; some peers read it before they use a service, and send nothing that is not in it."""
_DOCUMENTS: Final = {"GET": DESCRIPTION, "GET SCPD": SCPD}


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
        """Return head and body of the reply to an action; ``GET`` and ``GET SCPD`` are for the documents."""
        key = (action, self.settings.keep_alive)
        if key not in self._replies:
            self._replies[key] = self._make_reply(action)
        return self._replies[key]

    def _make_reply(self, action: str) -> bytes:
        body = _DOCUMENTS.get(action, b"")
        if not body:
            body = (
                '<?xml version="1.0"?>\r\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
                's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
                f'<u:{action}Response xmlns:u="{SERVICE}">{_OUTPUTS.get(action, "")}</u:{action}Response>'
                "</s:Body></s:Envelope>\r\n"
            ).encode()
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
        name = action[1].decode() if action else "GET SCPD" if request.startswith(b"GET /scpd.xml") else "GET"
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
    """Answers searches for a gateway that come from its own address, or (outside of loopback) from any."""

    def __init__(self, gateway: Gateway, address: str, location: str) -> None:
        self._gateway = gateway
        self._address = address
        self._open = not address.startswith("127.")
        self._location = location
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))

    def datagram_received(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        """Reply at once, without the delay that MX asks for."""
        target = _TARGET.search(datagram)
        if not (self._open or address[0] == self._address) or not datagram.startswith(b"M-SEARCH") or target is None:
            return
        if target[1].decode("latin-1") not in (DEVICE, SERVICE, "upnp:rootdevice", "ssdp:all"):
            return
        self._gateway.counts["searches"] += 1
        reply = (
            f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: {DEVICE}\r\nUSN: uuid:benchmark::{DEVICE}\r\n"
            f"EXT:\r\nSERVER: benchmark/1 UPnP/1.1 benchmark/1\r\nLOCATION: {self._location}\r\n\r\n"
        )
        self._socket.sendto(reply.encode(), address)


class Commands(asyncio.Protocol):
    """The lines on standard input."""

    def __init__(self, gateway: Gateway, ended: asyncio.Event) -> None:
        self._gateway = gateway
        self._ended = ended
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Carry out whole lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            os.write(sys.stdout.fileno(), self._gateway.command(line))

    def connection_lost(self, exc: Exception | None) -> None:
        """End with the input."""
        self._ended.set()


def search_socket(address: str) -> socket.socket:
    """Return a socket that hears what is multicast to the SSDP group on the network of an address of this host."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((GROUP, PORT))
    listener.setsockopt(
        socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(address)
    )
    return listener


async def serve(address: str, settings: Settings) -> None:
    """Be a gateway at an address of this host until standard input ends."""
    loop = asyncio.get_running_loop()
    gateway = Gateway(settings)
    server = await loop.create_server(partial(Connection, gateway), address, 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    location = f"http://{address}:{port}/rootDesc.xml"
    await loop.create_datagram_endpoint(lambda: Searches(gateway, address, location), sock=search_socket(address))
    ended = asyncio.Event()
    await loop.connect_read_pipe(lambda: Commands(gateway, ended), sys.stdin)
    where = {"address": address, "location": location, "control_url": f"http://{address}:{port}{CONTROL}"}
    print(json.dumps(where), flush=True)
    await ended.wait()


def main() -> None:
    """Take the settings from the command line, and serve."""
    process = os.getpid()
    parser = argparse.ArgumentParser(description="A gateway on loopback that always says yes.")
    parser.add_argument("--address", default=f"127.77.{process // 250 % 250 + 1}.{process % 250 + 1}")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds for each action")
    parser.add_argument("--one-at-a-time", action="store_true", help="one connection; others are reset")
    parser.add_argument("--keep-alive", action="store_true", help="keep connections open")
    options = parser.parse_args()
    asyncio.run(serve(options.address, Settings(options.delay, options.one_at_a_time, options.keep_alive)))


if __name__ == "__main__":
    main()
