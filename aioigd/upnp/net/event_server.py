"""A tiny HTTP server for the event messages of one gateway (UDA 1.1 section 4.2), and for nothing else.

It listens at the local address from which the gateway is reached, on a free port. A peer other than the gateway is cut
off when it is accepted, and takes no slot; so is a wrong path (it is random), and a message that is too long or too
slow. Where all slots are taken the connection gives way from which nothing has come for the longest time.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from async_timeout import timeout

from ...errors import InvalidResponseError, NoRouteError
from ...net.guard import check_destination
from ...text import get_logger
from ..wire import gena
from ..wire.url import HttpUrl, same_address

__all__ = ["CallbackServer"]

wire_log = get_logger("aioigd.traffic.event")

_MAX_CONNECTIONS: Final = 8
"""Connections of the gateway at the same time."""
_BACKLOG: Final = 128
"""Connections that wait to be accepted; in a flood of strangers' the gateway's is among them."""
_MAX_BATCH: Final = 32
"""Connections accepted before other tasks of the loop run."""
_ACCEPT_PAUSE: Final = 1.0
"""Seconds until the next try where no connection can be accepted, as with no descriptors left."""
_MESSAGE_TIMEOUT: Final = 3.0
"""Seconds for one message, head and body."""
_MAX_EARLY: Final = 4
"""Messages kept that have overtaken the reply to the SUBSCRIBE, the latest."""
_RESET: Final = struct.pack("@ii", 1, 0)
"""SO_LINGER: closing sends a reset, and leaves nothing in TIME_WAIT."""


class CallbackServer:
    """Listens for the events of the host ``gateway`` at ``our_address``, until it is closed.

    ``on_event`` is called with the state variables of each message that belongs to the subscription, and with its SEQ.
    """

    def __init__(
        self, gateway: str, our_address: str, on_event: Callable[[Mapping[str, str], int | None], None]
    ) -> None:
        self._sid = ""
        self._gateway = gateway
        self._our_address = our_address
        self._on_event = on_event
        self._target = f"/{secrets.token_urlsafe(16)}"
        self._listener: socket.socket | None = None
        self._acceptor: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connections: dict[asyncio.Task[None], None] = {}
        """Those that have a slot, in the order in which something has come from them last."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._early: deque[tuple[str, int | None, Mapping[str, str]]] = deque(maxlen=_MAX_EARLY)

    @property
    def sid(self) -> str:
        """The SID of the subscription, "" while there is none."""
        return self._sid

    @property
    def url(self) -> str:
        """The URL to which event messages are to be sent."""
        assert self._listener is not None  # noqa: S101 - only asked after open()
        return str(HttpUrl(self._our_address, self._listener.getsockname()[1], self._target))

    def subscribed(self, sid: str) -> None:
        """Let messages with this SID count from now on, and those that have come already; "" for none."""
        self._sid = sid
        if sid:
            early = tuple(self._early)
            self._early.clear()
            for said, seq, values in early:
                if said == sid:
                    self._on_event(values, seq)

    async def open(self) -> None:
        """Start listening. Raises OSError where that is not possible."""
        try:
            check_destination(self._our_address)
        except NoRouteError as error:
            raise OSError(error.message) from error
        family, *_, address = socket.getaddrinfo(
            self._our_address, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )[0]
        listener = socket.socket(family)
        try:
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(_BACKLOG)
            self._listener = listener
            self._start_accepting()
        except BaseException:
            self._listener = None
            listener.close()
            raise

    async def close(self) -> None:
        """Stop listening, and cut off open connections."""
        listener, self._listener = self._listener, None
        if self._timer is not None:
            self._timer.cancel()
        if listener is not None and self._acceptor is None:
            asyncio.get_running_loop().remove_reader(listener)
        tasks = {*self._tasks, *filter(None, [self._acceptor])}
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            if listener is not None:
                listener.close()

    # Not with a server of asyncio, which makes a transport and a task for every stranger before anybody is asked.

    def _start_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        if self._listener is None:
            return
        try:
            loop.add_reader(self._listener, self._accept_waiting, self._listener)
        except NotImplementedError:  # the usual event loop of Windows
            self._acceptor = loop.create_task(self._accept_each(self._listener))

    def _accept_waiting(self, listener: socket.socket) -> None:
        for _ in range(_MAX_BATCH):
            try:
                opened, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                wire_log.debug("no connection can be accepted: %r", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                self._timer = loop.call_later(_ACCEPT_PAUSE, self._start_accepting)
                return
            opened.setblocking(False)
            self._accept(opened, str(peer[0]))

    async def _accept_each(self, listener: socket.socket) -> None:
        while True:
            try:
                opened, peer = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                wire_log.debug("no connection can be accepted: %r", error)
                await asyncio.sleep(_ACCEPT_PAUSE)
            else:
                self._accept(opened, str(peer[0]))

    def _accept(self, opened: socket.socket, peer: str) -> None:
        if not same_address(peer, self._gateway):
            with suppress(OSError):
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            opened.close()
            return
        if len(self._connections) >= _MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._serve(opened))
        self._connections[task] = None
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(task, opened))

    def _ended(self, task: asyncio.Task[None], opened: socket.socket) -> None:
        opened.close()  # here, as a task that is cancelled before it has begun closes nothing
        self._tasks.discard(task)
        self._connections.pop(task, None)

    async def _serve(self, opened: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError, EOFError, TimeoutError):
            async with timeout(_MESSAGE_TIMEOUT):
                status = await self._receive(opened)
                reply = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                await loop.sock_sendall(opened, reply.encode())

    async def _receive(self, opened: socket.socket) -> str:
        """Read one message, and return the status of the answer (section 4.3.2)."""
        try:
            data, end = b"", -1
            while end < 0:
                if len(data) > gena.MAX_HEAD:
                    raise InvalidResponseError("a head that does not end")
                data += await self._read(opened)
                end = data.find(b"\r\n\r\n")
            head = gena.parse_head(data[: end + 4])
            if head.target != self._target:
                return "404 Not Found"
            body = data[end + 4 :]
            while len(body) < head.length:
                body += await self._read(opened)
            if self._sid and head.sid != self._sid:
                return "412 Precondition Failed"
            values = gena.parse_event(body[: head.length])
        except InvalidResponseError as error:
            wire_log.debug("from %s: %s", self._gateway, error)
            return "400 Bad Request"
        wire_log.debug("from %s: %s", self._gateway, values)
        if self._sid:
            self._on_event(values, head.seq)
        else:
            self._early.append((head.sid, head.seq, values))  # it may have overtaken the reply to the SUBSCRIBE
        return "200 OK"

    async def _read(self, opened: socket.socket) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(opened, gena.MAX_HEAD)
        if not data:
            raise EOFError
        task = asyncio.current_task()
        if task in self._connections:
            self._connections[task] = self._connections.pop(task)  # to the end
        return data
