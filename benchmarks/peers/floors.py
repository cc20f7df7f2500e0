"""The floors: what a mapping costs with nothing but blocking sockets, and with nothing but aiohttp.

One attempt each, nothing checked. What a library adds to their time is its own.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from ..gateway_server import CONTROL, DEVICE, SERVICE
from .base import PORTS, Add, BlockingPeer, Peer

MULTICAST: Final = ("239.255.255.250", 1900)
TIMEOUT: Final = 5.0
CONCURRENCY: Final = 8
"""The largest window of aioigd's limiter."""

SEARCH: Final = (
    f'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: {DEVICE}\r\n\r\n'
).encode()
_LOCATION: Final = re.compile(rb"^location:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_CONNECTION: Final = re.compile(
    rb"<serviceType>\s*(\S*:WAN(?:IP|PPP)Connection:\d)\s*</serviceType>"
    rb"(?:(?!</service>).)*<controlURL>\s*([^<\s]+)\s*</controlURL>",
    re.DOTALL,
)
_ADD: Final = """\
<?xml version="1.0"?>\r
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" \
s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>\
<u:AddPortMapping xmlns:u="{service}">\
<NewRemoteHost></NewRemoteHost>\
<NewExternalPort>{port}</NewExternalPort>\
<NewProtocol>TCP</NewProtocol>\
<NewInternalPort>{port}</NewInternalPort>\
<NewInternalClient>{client}</NewInternalClient>\
<NewEnabled>1</NewEnabled>\
<NewPortMappingDescription>benchmark</NewPortMappingDescription>\
<NewLeaseDuration>0</NewLeaseDuration>\
</u:AddPortMapping></s:Body></s:Envelope>\r
"""
"""The bytes that aioigd sends."""


class Floor(BlockingPeer):
    """Blocking sockets: M-SEARCH, the first reply, the description, AddPortMapping."""

    def cold_start(self, port: int) -> None:
        """Search, read, map."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as searcher:
            searcher.settimeout(TIMEOUT)
            searcher.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self.source))
            searcher.bind((self.source, 0))
            searcher.sendto(SEARCH, MULTICAST)
            location = _LOCATION.search(searcher.recv(65535))
        assert location, "a reply without LOCATION"
        self.open(location[1].decode())(port)

    def open(self, location: str) -> Add:
        """Read the description."""
        connection = _CONNECTION.search(self._exchange(location, "GET"))
        assert connection, "a description without a WAN connection service"
        service, control_url = connection[1].decode(), urljoin(location, connection[2].decode())
        return lambda port: self._add(control_url, service, port)

    def _add(self, control_url: str, service: str, port: int) -> None:
        body = _ADD.format(service=service, port=port, client=self.source).encode()
        headers = f'SOAPAction: "{service}#AddPortMapping"\r\nContent-Type: text/xml; charset="utf-8"\r\n'
        reply = self._exchange(control_url, "POST", headers, body)
        assert b"AddPortMappingResponse" in reply, reply.decode(errors="replace")

    def _exchange(self, url: str, method: str, headers: str = "", body: bytes = b"") -> bytes:
        parts = urlsplit(url)
        request = (
            f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        with socket.create_connection(
            (parts.hostname or "", parts.port or 80), TIMEOUT, (self.source, 0)
        ) as connection:
            connection.sendall(request.encode() + body)
            return b"".join(iter(lambda: connection.recv(65536), b""))


class Bare(Peer):
    """aiohttp alone, posting bytes made before over a connection for each request; eight at once.

    It knows where the benchmark's gateway is controlled. The replies are read, and not looked at.
    """

    keep_alive = False

    @asynccontextmanager
    async def opened(self, location: str) -> AsyncIterator[Add]:
        """Make the requests before they are asked for, once for all batches."""
        control_url = urljoin(location, CONTROL)
        bodies = _bodies(self.source)
        headers = {
            "Accept-Encoding": "identity",
            "Content-Type": 'text/xml; charset="utf-8"',
            "SOAPAction": f'"{SERVICE}#AddPortMapping"',
        }
        connector = aiohttp.TCPConnector(force_close=not self.keep_alive, limit=0)
        skipped = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
        async with aiohttp.ClientSession(connector=connector, skip_auto_headers=skipped) as session:

            async def post(port: int) -> None:
                async with session.post(control_url, data=bodies[port], headers=headers) as response:
                    await response.read()

            yield post

    async def at_once(self, add: Add, ports: Sequence[int]) -> int:
        """Send with eight tasks."""
        waiting: Iterator[int] = iter(ports)

        async def work() -> int:
            made = 0
            for port in waiting:
                try:
                    await add(port)
                    made += 1
                except aiohttp.ClientError:
                    continue
            return made

        return sum(await asyncio.gather(*(work() for _ in range(CONCURRENCY))))


class BareKeepAlive(Bare):
    """The same over connections that stay open, where the gateway lets them."""

    keep_alive = True


@lru_cache
def _bodies(client: str) -> dict[int, bytes]:
    return {port: _ADD.format(service=SERVICE, port=port, client=client).encode() for port in PORTS}
