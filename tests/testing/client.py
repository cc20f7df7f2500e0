"""A client that hides nothing: it sends exactly the bytes it is told, and shows exactly those that come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aioigd.testing import EmulatedGateway
from aioigd.testing.network import group_of
from aioigd.upnp.wire.soap import Answer, Fault, InvalidReply, build_request, parse_reply, soap_action
from aioigd.upnp.wire.ssdp import build_search

WAN_IP_1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
WAN_IP_2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
WAN_PPP_1 = "urn:schemas-upnp-org:service:WANPPPConnection:1"
IGD_1 = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"

ENOUGH = 1_000_000
"""Bytes after which nobody wants to read on."""
SETTLED = 0.02
"""Seconds without another datagram after which there will be none; loopback needs microseconds."""


@dataclass(frozen=True)
class Heard:
    """A datagram with the address from which it came."""

    payload: bytes
    sender: tuple[Any, ...]

    @property
    def headers(self) -> dict[str, str]:
        lines = self.payload.decode("latin-1").splitlines()[1:]
        return {name.strip().upper(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def search(
    address: str, target: str = "ssdp:all", *, to: str = "", raw: bytes = b"", patience: float = SETTLED
) -> list[Heard]:
    """Send an M-SEARCH from an address, and return all that comes back until it is quiet for so long."""
    destination: tuple[Any, ...] = (to, 1900) if to else group_of(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.bind((address, 0))
        if family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        client.sendto(raw or build_search(target, destination[0]), destination)
        return await heard_by(client, patience)


async def heard_by(client: socket.socket, patience: float) -> list[Heard]:
    """Return what comes in at a socket, until nothing does for ``patience`` seconds."""
    loop = asyncio.get_running_loop()
    heard: list[Heard] = []

    def receive() -> None:
        with suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                heard.append(Heard(*client.recvfrom(65536)))

    loop.add_reader(client, receive)
    try:
        before = -1
        while before < len(heard):
            before = len(heard)
            await asyncio.sleep(patience)
            receive()
    finally:
        loop.remove_reader(client)
    return heard


@dataclass(frozen=True)
class Reply:
    """What came back on a connection, and how it ended: "closed", "reset", "open" or "endless"."""

    received: bytes
    end: str

    @property
    def status(self) -> int:
        return int(self.received.split(None, 2)[1])

    @property
    def head(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.received.partition(b"\r\n\r\n")[2]


async def send(gateway: EmulatedGateway, *pieces: bytes, pause: float = 0.01, patience: float = 1.0) -> Reply:
    """Send pieces on one connection, and return all that comes back until it ends or nothing more comes."""
    reader, writer = await asyncio.open_connection(gateway.address, gateway.port, local_addr=(gateway.address, 0))
    received = bytearray()
    end = "closed"
    try:
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(pause)
            writer.write(piece)
            await writer.drain()
        while True:
            async with asyncio.timeout(patience):
                data = await reader.read(65536)
            if not data:
                break
            received += data
            if len(received) > ENOUGH:
                end = "endless"
                break
    except TimeoutError:
        end = "open"
    except ConnectionError:
        end = "reset"
    finally:
        writer.transport.abort()
    return Reply(bytes(received), end)


def get(path: str = "/rootDesc.xml", *headers: str) -> bytes:
    """Return a GET for a path."""
    lines = [f"GET {path} HTTP/1.1", "Host: gateway", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


def post(
    action: str,
    arguments: dict[str, str] | None = None,
    *,
    service_type: str = WAN_IP_1,
    path: str = "/ctl/WANIPConn1",
    body: bytes | None = None,
    headers: dict[str, str | None] | None = None,
) -> bytes:
    """Return a good request for an action; ``headers`` replaces some of its headers, or leaves them out."""
    content = build_request(service_type, action, arguments or {}) if body is None else body
    all_headers: dict[str, str | None] = {
        "Host": "gateway",
        "Content-Type": 'text/xml; charset="utf-8"',
        "SOAPAction": soap_action(service_type, action),
        "Content-Length": str(len(content)),
        "Connection": "close",
        **(headers or {}),
    }
    lines = [
        f"POST {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in all_headers.items() if value is not None),
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + content


async def call(
    gateway: EmulatedGateway,
    action: str,
    arguments: dict[str, str] | None = None,
    *,
    service_type: str = WAN_IP_1,
    path: str = "/ctl/WANIPConn1",
) -> Answer | Fault | InvalidReply:
    """Ask a gateway for an action, and return what its reply says."""
    reply = await send(gateway, post(action, arguments, service_type=service_type, path=path))
    return parse_reply(reply.body, action)


async def outcome(gateway: EmulatedGateway, action: str, arguments: dict[str, str] | None = None) -> int | None:
    """Ask for an action, and return the error code, 0 where it was done."""
    reply = await call(gateway, action, arguments)
    return reply.code if isinstance(reply, Fault) else 0 if isinstance(reply, Answer) else None


async def values(gateway: EmulatedGateway, action: str, arguments: dict[str, str] | None = None) -> dict[str, str]:
    """Ask for an action that is done, and return its output arguments, by their names in lower case."""
    reply = await call(gateway, action, arguments)
    assert isinstance(reply, Answer), reply
    return dict(reply.values)


def key(port: int = 8080, proto: str = "TCP", remote_host: str = "") -> dict[str, str]:
    """Return the arguments that identify a mapping."""
    return {"NewRemoteHost": remote_host, "NewExternalPort": str(port), "NewProtocol": proto}


def mapping(
    port: int = 8080,
    proto: str = "TCP",
    *,
    client: str = "127.0.0.1",
    internal_port: int = 0,
    desc: str = "my server",
    lease: int = 0,
    remote_host: str = "",
) -> dict[str, str]:
    """Return the arguments of AddPortMapping."""
    return {
        **key(port, proto, remote_host),
        "NewInternalPort": str(internal_port or port),
        "NewInternalClient": client,
        "NewEnabled": "1",
        "NewPortMappingDescription": desc,
        "NewLeaseDuration": str(lease),
    }


async def listing(gateway: EmulatedGateway, most: int = 10) -> Iterable[dict[str, str] | int | None]:
    """Return the list of mappings, with the error code that ended it at the end."""
    entries: list[dict[str, str] | int | None] = []
    for index in range(most):
        reply = await call(gateway, "GetGenericPortMappingEntry", {"NewPortMappingIndex": str(index)})
        if not isinstance(reply, Answer):
            entries.append(reply.code if isinstance(reply, Fault) else None)
            break
        entries.append(dict(reply.values))
    return entries
