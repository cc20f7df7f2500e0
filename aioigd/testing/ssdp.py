"""SSDP on the side of a device (UDA 1.1 section 1): searches are parsed, replies and notifications sent.

Messages are values without I/O; :class:`SsdpServer` at the end owns the sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import partial
from typing import Any, Final, Self, cast

from . import network
from .device_tree import Device, Site

__all__ = ["SERVER", "Datagram", "Identity", "Message", "Search", "SsdpServer", "announcements", "search_replies"]

_MAX_AGE: Final = 1800
"""Seconds for which an announcement is valid, the minimum that the standard recommends (section 1.2.2)."""
SERVER: Final = "Linux/6.1 UPnP/1.1 aioigd-testing/1"
"""Operating system, UPnP version and product, as the SERVER header has them."""
_MULTICAST_HOSTS: Final = {False: "239.255.255.250:1900", True: "[FF02::C]:1900"}


@dataclass(frozen=True, slots=True)
class Search:
    """An M-SEARCH as it was received.

    ``mx`` is in seconds, None where there is none; ``problem`` is how it violates the standard, and such a search gets
    no reply (section 1.3.2).
    """

    target: str
    mx: int | None
    sender: tuple[str, int]
    unicast: bool
    raw: bytes = field(repr=False)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram to be sent: after ``delay`` seconds, from port 1900 or from another one."""

    payload: bytes
    delay: float = 0.0
    other_port: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """An SSDP message before it is serialized."""

    start: str
    headers: tuple[tuple[str, str], ...]

    def value(self, name: str) -> str:
        """Return the value of a header by its name in any case, empty where there is none."""
        return next((value.strip() for key, value in self.headers if key.upper() == name.upper()), "")

    def having(self, name: str, value: str) -> Self:
        """Return the message with another value for one of its headers."""
        pairs = ((key, value if key.upper() == name.upper() else old) for key, old in self.headers)
        return replace(self, headers=tuple(pairs))

    def datagram(self) -> Datagram:
        """Return the message as a datagram."""
        lines = [self.start, *(f"{name}: {value}" if value else f"{name}:" for name, value in self.headers)]
        return Datagram("\r\n".join([*lines, "", ""]).encode())


@dataclass(frozen=True, slots=True)
class Identity:
    """BOOTID and CONFIGID of the device (section 1.2.2)."""

    boot_id: int
    config_id: int


def parse_search(datagram: bytes, sender: tuple[str, int], *, unicast: bool) -> Search | None:
    """Return the search in a datagram, None where it is not one."""
    text = datagram.decode("latin-1")
    start, _, rest = text.partition("\r\n")
    if not start.upper().startswith("M-SEARCH"):
        return None
    headers: dict[str, str] = {}
    head, blank, behind = rest.partition("\r\n\r\n")
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().upper(), value.strip())
    wait = headers.get("MX", "")
    mx = int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else None
    problem = ""
    if start != "M-SEARCH * HTTP/1.1":
        problem = f"the request line is {start[:60]!r}"
    elif not blank or behind:
        problem = "it does not end with a blank line"
    elif "HOST" not in headers:
        problem = "there is no HOST"
    elif headers.get("MAN") != '"ssdp:discover"':
        problem = 'MAN is not "ssdp:discover" in quotes'
    elif not headers.get("ST"):
        problem = "there is no ST"
    elif not unicast and not mx:
        problem = "MX is not a number of seconds from 1"
    return Search(headers.get("ST", ""), mx, sender, unicast, datagram, problem)


def search_replies(search: Search, root: Device, site: Site, identity: Identity) -> Iterator[Message]:
    """Yield one reply for each device or service that matches a search (section 1.3.3)."""
    for target, usn in _matches(search.target, root):
        yield Message(
            "HTTP/1.1 200 OK",
            (
                ("CACHE-CONTROL", f"max-age={_MAX_AGE}"),
                ("DATE", formatdate(usegmt=True)),
                ("EXT", ""),
                ("LOCATION", site.location),
                ("SERVER", SERVER),
                ("ST", target),
                ("USN", usn),
                ("BOOTID.UPNP.ORG", str(identity.boot_id)),
                ("CONFIGID.UPNP.ORG", str(identity.config_id)),
            ),
        )


def announcements(kind: str, root: Device, site: Site, identity: Identity) -> Iterator[Message]:
    """Return the NOTIFY messages of a device; ``kind`` is ``ssdp:alive`` or ``ssdp:byebye`` (section 1.2)."""
    alive = kind == "ssdp:alive"
    for target, usn in _targets(root):
        headers = {
            "HOST": _MULTICAST_HOSTS[":" in site.address],
            **({"CACHE-CONTROL": f"max-age={_MAX_AGE}", "LOCATION": site.location} if alive else {}),
            "NT": target,
            "NTS": kind,
            **({"SERVER": SERVER} if alive else {}),
            "USN": usn,
            "BOOTID.UPNP.ORG": str(identity.boot_id),
            "CONFIGID.UPNP.ORG": str(identity.config_id),
        }
        yield Message("NOTIFY * HTTP/1.1", tuple(headers.items()))


def _targets(root: Device) -> Iterator[tuple[str, str]]:
    """Yield target and USN of each announcement of a device: 3 + 2d + k of them (section 1.2.2)."""
    yield "upnp:rootdevice", f"{root.udn}::upnp:rootdevice"
    for device in root:
        yield device.udn, device.udn
        yield device.device_type, f"{device.udn}::{device.device_type}"
        for service_type in dict.fromkeys(service.service_type for service in device.services):
            yield service_type, f"{device.udn}::{service_type}"


def _matches(wanted: str, root: Device) -> Iterator[tuple[str, str]]:
    for target, usn in _targets(root):
        if wanted in ("ssdp:all", target):
            yield target, usn
        elif _is_lower_version(wanted, target):
            # The reply has the version that was searched for, also for a device of a later version (section 1.3.3).
            yield wanted, usn.removesuffix(target) + wanted


def _is_lower_version(wanted: str, target: str) -> bool:
    stem, _, version = target.rpartition(":")
    other, _, number = wanted.rpartition(":")
    if not target.startswith("urn:") or stem != other or not (number.isascii() and number.isdigit()):
        return False
    return version.isdigit() and 1 <= int(number) < int(version)


class SsdpServer:
    """The SSDP sockets of one gateway.

    ``hear`` is called with each multicast search of its network (every loopback address is a separate network: the
    sender must have the same address) and each unicast search, and returns a function that returns the replies.
    """

    def __init__(self, address: str, hear: Callable[[Search], Callable[[], Iterable[Datagram]]]) -> None:
        self._address = address
        self._hear = hear
        self._endpoints: list[_Endpoint] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._held: list[tuple[Callable[[], Iterable[Datagram]], tuple[Any, ...]]] | None = None

    async def start(self) -> None:
        """Listen. If that fails, :meth:`close` closes what was opened."""
        loop = asyncio.get_running_loop()
        for unicast, make in ((True, network.server_socket), (False, network.search_socket)):
            opened = make(self._address)
            try:
                _, endpoint = await loop.create_datagram_endpoint(partial(_Endpoint, self, unicast), sock=opened)
            except BaseException:
                opened.close()
                raise
            self._endpoints.append(endpoint)

    def close(self) -> None:
        """Cancel pending datagrams, and close the sockets."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._held = None
        for endpoint in self._endpoints:
            endpoint.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the sockets are closed after :meth:`close`."""
        for endpoint in self._endpoints:
            await endpoint.closed

    def pause(self) -> None:
        """Queue searches instead of replying, like a stopped process."""
        self._held = []

    def resume(self) -> None:
        """Reply to the queued searches, and continue."""
        held, self._held = self._held or [], None
        for reply, sender in held:
            self._answer(reply, sender)

    def receive(self, search: Search) -> None:
        """Reply to a search, or queue it."""
        reply = self._hear(search)
        if self._held is not None:
            self._held.append((reply, search.sender))
        else:
            self._answer(reply, search.sender)

    def belongs_here(self, sender: tuple[Any, ...]) -> bool:
        """Return whether a multicast datagram was sent on the network of this gateway."""
        # On ::1 the loopback interface is the network, and the sender may be its link-local address.
        return ":" in self._address or sender[0] == self._address

    def multicast(self, messages: Iterable[Message]) -> None:
        """Send notifications to the multicast group on this machine.

        On ``::1`` they are lost on most Linux machines, which have no multicast route for IPv6 on loopback.
        """
        for message in messages:
            self._send(message.datagram(), network.group_of(self._address))

    def _answer(self, reply: Callable[[], Iterable[Datagram]], sender: tuple[Any, ...]) -> None:
        for datagram in reply():
            self._send_later(datagram, sender)

    def _send_later(self, datagram: Datagram, destination: tuple[Any, ...]) -> None:
        if not datagram.delay:
            self._send(datagram, destination)
            return

        def send() -> None:
            self._timers.discard(timer)
            self._send(datagram, destination)

        timer = asyncio.get_running_loop().call_later(datagram.delay, send)
        self._timers.add(timer)

    def _send(self, datagram: Datagram, destination: tuple[Any, ...]) -> None:
        with suppress(OSError):  # the client may have closed its socket
            # asyncio's transports do not send empty datagrams.
            if datagram.other_port or not datagram.payload:
                with network.spare_socket(self._address) as sender:
                    sender.sendto(datagram.payload, destination)
            else:
                self._endpoints[0].transport.sendto(datagram.payload, destination)


class _Endpoint(asyncio.DatagramProtocol):
    """One of the two sockets: for the multicast group, or for unicast."""

    def __init__(self, server: SsdpServer, unicast: bool) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server = server
        self._unicast = unicast

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: asyncio's datagram transport does not derive from DatagramTransport.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...] | None) -> None:
        if addr is None:  # by the proactor loop from Python 3.12 on: an ICMP error, of a client that is gone
            return
        if not self._unicast and not self._server.belongs_here(addr):
            return
        search = parse_search(data, addr, unicast=self._unicast)
        if search is not None:
            self._server.receive(search)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)
