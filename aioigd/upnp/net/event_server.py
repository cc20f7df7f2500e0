"""A tiny HTTP server for the event messages of one gateway (UDA 1.1 section 4.2), and for nothing else.

It listens at the local address from which the gateway is reached, on a free port. A peer other than the gateway, a
wrong path (it is random), a message that is too long or too slow: the connection is cut off.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from async_timeout import timeout

from ...errors import InvalidResponseError, NoRouteError
from ...net.guard import check_destination
from ..wire import gena
from ..wire.url import HttpUrl, same_address

__all__ = ["CallbackServer"]

wire_log = logging.getLogger("aioigd.traffic.event")

_MAX_CONNECTIONS: Final = 4
"""Connections at the same time."""
_MESSAGE_TIMEOUT: Final = 3.0
"""Seconds for one message, head and body."""


class CallbackServer:
    """Listens for the events of the host ``gateway`` at ``our_address``, until it is closed.

    ``on_event`` is called with the state variables of each message whose SID is :attr:`sid`, and with whether it is
    the first of its subscription.
    """

    def __init__(self, gateway: str, our_address: str, on_event: Callable[[Mapping[str, str], bool], None]) -> None:
        self.sid = ""
        self._gateway = gateway
        self._our_address = our_address
        self._on_event = on_event
        self._target = f"/{secrets.token_urlsafe(16)}"
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL to which event messages are to be sent."""
        assert self._server is not None  # noqa: S101 - only asked after open()
        return str(HttpUrl(self._our_address, self._server.sockets[0].getsockname()[1], self._target))

    async def open(self) -> None:
        """Start listening. Raises OSError where that is not possible."""
        try:
            check_destination(self._our_address)
        except NoRouteError as error:
            raise OSError(error.message) from error
        # In two steps: cancelled between listening and returning, start_server() would leave its socket behind.
        self._server = await asyncio.start_server(
            self._accept, self._our_address, 0, limit=gena.MAX_HEAD, backlog=_MAX_CONNECTIONS, start_serving=False
        )
        try:
            await self._server.start_serving()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening, and cut off open connections."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        connections = tuple(self._connections)
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        known = peer is not None and same_address(str(peer[0]), self._gateway)
        if not known or self._server is None or len(self._connections) >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with timeout(_MESSAGE_TIMEOUT):
                status = await self._receive(reader)
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            wire_log.debug("no event message from %s: %r", self._gateway, error)
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _receive(self, reader: asyncio.StreamReader) -> str:
        """Read one message, and return the status of the answer (section 4.3.2)."""
        try:
            head = gena.parse_head(await reader.readuntil(b"\r\n\r\n"))
            if head.target != self._target:
                return "404 Not Found"
            body = await reader.readexactly(head.length)
            if not self.sid:
                return "200 OK"  # the first message may overtake the reply to the SUBSCRIBE
            if head.sid != self.sid:
                return "412 Precondition Failed"
            values = gena.parse_event(body)
        except InvalidResponseError as error:
            wire_log.debug("from %s: %s", self._gateway, error)
            return "400 Bad Request"
        wire_log.debug("from %s: %s", self._gateway, values)
        self._on_event(values, head.is_first)
        return "200 OK"
