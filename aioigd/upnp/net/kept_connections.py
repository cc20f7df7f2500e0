"""When connections to a gateway are kept, for how long, and what is believed that comes over them.

Many routers cannot do it, or say that they can and cannot. So nothing is taken on trust: one connection is tried, while
others wait for the gateway anyway, and the gateway keeps connections once a second request on it was answered. Where
anything looks wrong, it never does again, and is asked as if there were no such thing.

=========  ============================================================================  ===========================
verdict    what happens                                                                  becomes
=========  ============================================================================  ===========================
UNTRIED    somebody waits: one request goes without ``Connection: close``                TRYING
TRYING     the reply says no, or its end is not certain                                  REFUSED; after the status of
                                                                                         an error UNTRIED
           no reply comes, or its place is needed before a second request can go         UNTRIED, thrice REFUSED
           after a rest behind the reply, and once those are answered that were out
           beside it, a second request is answered; and after another rest nothing more
           has come                                                                      PROVEN
           those beside it are not answered as long as it stays open                     REFUSED
           nobody asks any more: it is closed after IDLE                                 UNTRIED
PROVEN     a request on a kept connection is cut, or silent for too long; or something
           comes that was not asked for                                                  REFUSED
REFUSED    every request has a connection of its own                                     (for ever)
=========  ============================================================================  ===========================

On a kept connection, a reply that is not meant for the request could be taken for it: one that was sent twice, or what
is left of the one before. So a connection is kept only behind a reply that ended exactly where its framing says; before
it is used, it must be silent and open; and a reply on it that is not exactly framed, that is for another action, or
behind which there is more, is not believed. The request is then sent again, at once, on a connection of its own. So
only requests go over used connections that do no harm if they are carried out twice.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum, auto
from typing import Final, NamedTuple

from ...errors import TransportError
from ...text import system_message
from ..wire.http_reply import BodyRule, FramedReply, HttpReply
from ..wire.url import HttpUrl
from ..wire.xml import has_root_end_tag
from . import lenient_http
from .connection import open_socket

__all__ = ["IDLE", "LONGEST_REST", "REST", "Keep", "KeptConnections", "Sent", "Verdict"]

IDLE: Final = 0.5
"""Seconds for which a connection stays open that nobody uses.

A batch comes back within milliseconds. Routers have few connections, and close idle ones after a second at the
earliest (``Keep-Alive: timeout`` has whole seconds): so it is not they who close, perhaps under a request.
"""
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
"""Linux: acknowledge at once. A router that sends a reply in two pieces waits with the second until the first is
acknowledged (Nagle), and on a connection that goes to and fro, systems take 40 ms and more for that."""
REST: Final = 0.01 if _QUICKACK is not None else 0.1
"""Seconds for which the connection that is tried has to be silent behind each reply: some send replies twice."""
LONGEST_REST: Final = 0.1
"""The same at most; in between it is twice as long as the reply took."""
LEAST_PATIENCE: Final = 0.5
"""Seconds of silence after which a request on a kept connection is sent again, at least."""
_PATIENCE: Final = 4
"""The same in terms of the longest time that the gateway was seen to need."""
_MOST_TRIALS: Final = 3
_DELAY: Final = 0.03
"""Seconds by which a reply on a kept connection is not later than on a new one, or keeping it is no gain: that is where
nothing can be done about acknowledgements that are late."""
_WATCH: Final = 0.1
"""Seconds between looks at the connections."""
_READ_SIZE: Final = 16 * 1024
"""Bytes read at once."""


class Verdict(Enum):
    """Whether a gateway keeps connections."""

    UNTRIED = auto()
    TRYING = auto()
    PROVEN = auto()
    REFUSED = auto()


class Sent(NamedTuple):
    """A request; see :meth:`.HttpClient.request`."""

    method: str
    url: HttpUrl
    source: str
    headers: Mapping[str, str]
    body: bytes | None
    body_rule: BodyRule
    repeatable: bool


class Keep(NamedTuple):
    """How a request may use kept connections."""

    connections: KeptConnections
    most: int
    """How many may be open at the gateway, because others wait for it; 0: nobody waits."""
    may_reuse: bool = True
    """Whether it may go over a connection that was used before, where it may be repeated."""
    expected: bytes = b""
    """What every answer to it has in its body."""
    number: object = None
    """What stands for it in :attr:`KeptConnections.others_out`."""


class _Connection:
    """One connection. It belongs to no event loop: between requests nothing waits for it."""

    __slots__ = ("began", "frame", "idle_since", "is_closed", "is_given_up", "is_repeatable", "is_slower", "more",
                 "place", "sock", "took", "uses", "witnesses")  # fmt: skip

    def __init__(self, sock: socket.socket, place: tuple[str, int, str]) -> None:
        self.sock = sock
        self.place = place
        self.frame = FramedReply()
        self.uses = 0
        self.more = self.frame.more
        """How many requests it is good for, as far as the gateway has said."""
        self.began: float | None = None
        """When the request was sent that is out, on the loop's clock."""
        self.is_repeatable = True
        self.idle_since = 0.0
        self.took = 0.0
        """Seconds that the latest reply took while it is tried."""
        self.is_slower = False
        self.witnesses: frozenset[object] = frozenset()
        """The requests on other connections that were out when its first reply came."""
        self.is_given_up = False
        self.is_closed = False

    @property
    def rest(self) -> float:
        """Seconds for which it has to be silent while it is tried."""
        return min(max(REST, 2 * self.took), LONGEST_REST)

    def give_up(self) -> None:
        """End the request that is out: nothing comes any more."""
        self.is_given_up = True
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def is_ready(self) -> bool | None:
        """Return whether another request may go: the reply has ended, nothing came behind it, and it is still open.

        None where the rest of the reply has yet to come.
        """
        try:
            while data := self.sock.recv(_READ_SIZE):
                self.frame.feed(data)
                if self.frame.has_surplus or not self.frame.is_strict:
                    return False
        except (BlockingIOError, InterruptedError):
            return self.frame.has_end or None
        except OSError:
            pass
        return False


class KeptConnections:
    """The connections to one gateway that are kept, and what is known of whether it keeps them."""

    def __init__(self) -> None:
        self.verdict = Verdict.UNTRIED
        self.others_out: set[object] = set()
        """Requests that are out on connections of their own."""
        self.seconds_needed = 0.0
        """The longest that the gateway was seen to need for a request."""
        self.idle: list[_Connection] = []
        """Connections that wait for a request."""
        self._busy: set[_Connection] = set()
        self._trial: _Connection | None = None
        self._failed_trials = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.idle) + len(self._busy)

    async def ask(self, sent: Sent, keep: Keep) -> HttpReply | None:
        """Send a request over a connection that was or is to be kept; None where it is to have one of its own.

        Raises what :func:`.lenient_http.ask` raises.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.close()
            self._loop = loop
        self.others_out.discard(keep.number)
        connection = await self._take(sent, keep.most) if sent.repeatable and keep.may_reuse else None
        if connection is None:
            connection = await self._open(sent, keep)
        reply = None if connection is None else await self._exchange(connection, sent, keep)
        if reply is None:
            self.others_out.add(keep.number)
        return reply

    def close(self) -> None:
        """Close every connection, in whatever event loop. A request that is out fails."""
        for connection in (*self.idle, *self._busy):
            connection.is_closed = True
            connection.give_up()
            if connection in self.idle or self._loop is None or self._loop.is_closed():
                connection.sock.close()
        self.idle.clear()
        self._busy.clear()
        self._end_trial(Verdict.UNTRIED)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Where a request goes

    async def _take(self, sent: Sent, most: int) -> _Connection | None:
        """Return a kept connection that may be used, None where there is none."""
        trial = self._trial
        if trial is not None and len(self) + len(self.others_out) >= most > 0:
            # One more beside it would be one too many.
            loop = asyncio.get_running_loop()
            until = trial.idle_since + 2 * trial.rest
            while trial in self.idle and not self._has_rested(trial) and loop.time() < until:  # noqa: ASYNC110
                await asyncio.sleep(REST)
        place = (sent.url.host, sent.url.port, sent.source)
        for position in range(len(self.idle) - 1, -1, -1):
            if position >= len(self.idle):
                continue
            connection = self.idle[position]
            is_trial = connection is self._trial
            if connection.place != place or (is_trial and not self._has_rested(connection)):
                continue
            is_ready = connection.is_ready()
            if is_ready is None and not is_trial:
                continue
            del self.idle[position]
            self._busy.add(connection)
            if is_ready:
                return connection
            self._close(connection)
            if is_trial or connection.frame.has_surplus:
                self._refuse()
        return None

    def _has_rested(self, connection: _Connection) -> bool:
        rests_until = connection.idle_since + connection.rest
        return asyncio.get_running_loop().time() >= rests_until and not connection.witnesses & self.others_out

    async def _open(self, sent: Sent, keep: Keep) -> _Connection | None:
        """Return a new connection that is to be kept, None where none is."""
        while self.idle and len(self) + len(self.others_out) >= max(keep.most, 1):
            if self.idle[0] is self._trial and keep.most:
                self._fail_trial()
            self._close_idle(self.idle[0])
        is_trial = self.verdict is Verdict.UNTRIED and sent.repeatable and keep.may_reuse
        if len(self) >= keep.most or not (is_trial or self.verdict is Verdict.PROVEN):
            return None
        host, port, source = place = sent.url.host, sent.url.port, sent.source
        loop = asyncio.get_running_loop()
        connection: _Connection | None = None
        try:
            sock, address = open_socket(host, port, source)
            connection = _Connection(sock, place)
            self._busy.add(connection)
            if is_trial:
                self._trial, self.verdict = connection, Verdict.TRYING
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except BaseException as error:
            if connection is not None:
                self._close(connection)
                self._end_trial(Verdict.UNTRIED, of=connection)
            if isinstance(error, OSError):
                raise TransportError(f"{sent.url}: {system_message(error)}", may_have_arrived=False) from error
            raise
        if self._timer is None:
            self._timer = loop.call_later(_WATCH, self._watch)
        return connection

    # What comes back

    async def _exchange(self, connection: _Connection, sent: Sent, keep: Keep) -> HttpReply | None:
        loop = asyncio.get_running_loop()
        request = lenient_http.build_request(sent.method, sent.url, sent.headers, sent.body, closes=not keep.most)
        connection.is_repeatable = sent.repeatable
        connection.began = began = loop.time()
        reply: HttpReply | None = None
        try:
            await loop.sock_sendall(connection.sock, request)
            if _QUICKACK is not None:
                connection.sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            reply = await _receive(loop, connection, sent.body_rule)
            if connection is self._trial:
                took = loop.time() - began
                connection.is_slower = _QUICKACK is None and connection.uses > 0 and took > 2 * connection.took + _DELAY
                connection.took = took
                if reply is not None and connection.uses:
                    await asyncio.sleep(connection.rest)
                    connection.is_ready()  # notices what has come behind it
        except OSError:
            pass  # it was cut before the request was sent
        except BaseException:
            is_late = loop.time() - began >= self._patience
            self._end_trial(Verdict.REFUSED if is_late else Verdict.UNTRIED, of=connection)
            self._close(connection)
            raise
        finally:
            connection.began = None
            if reply is None:
                self._close(connection)
        if connection.is_closed and reply is None:
            raise TransportError(f"{sent.url}: the connection was closed", may_have_arrived=True)
        if connection.uses:
            return self._judge_again(connection, reply, keep)
        return self._judge_first(connection, sent, reply, keep.most)

    def _judge_first(self, connection: _Connection, sent: Sent, reply: HttpReply | None, most: int) -> HttpReply | None:
        """Return the reply to the first request on a connection, which is always believed."""
        is_trial = connection is self._trial
        if reply is None:
            if connection.is_given_up:
                self._refuse()
                return None
            if is_trial:
                self._fail_trial()
            raise TransportError(f"{sent.url}: the connection was closed without an answer", may_have_arrived=True)
        stays = self._release(connection, most)
        if is_trial:
            if stays:
                connection.witnesses = frozenset(self.others_out)
            else:
                self._end_trial(Verdict.UNTRIED if reply.status >= 400 and most else Verdict.REFUSED)
        return reply

    def _judge_again(self, connection: _Connection, reply: HttpReply | None, keep: Keep) -> HttpReply | None:
        """Return a reply on a connection that was used before, None where it is not to be believed."""
        frame = connection.frame
        is_believed = (
            reply is not None
            and frame.is_strict
            and frame.has_head
            and not frame.has_surplus
            and (frame.has_end or has_root_end_tag(reply.body))
            and (keep.expected in reply.body or b"Fault" in reply.body)
        )
        if not is_believed:
            self._close(connection)
            self._refuse()
            return None
        if connection is self._trial:
            self._end_trial(Verdict.REFUSED if connection.is_slower else Verdict.PROVEN)
        self._release(connection, keep.most)
        return reply

    def _release(self, connection: _Connection, most: int) -> bool:
        """Keep a connection behind a reply, or close it; returns whether it is kept."""
        frame = connection.frame
        connection.uses += 1
        connection.more = min(connection.more, frame.more) - 1
        stays = (
            frame.is_strict
            and frame.stays_open
            and not frame.has_surplus
            and connection.more > 0
            and len(self) <= most
            and self.verdict is not Verdict.REFUSED
        )
        if stays:
            self._busy.discard(connection)
            connection.idle_since = asyncio.get_running_loop().time()
            self.idle.append(connection)
        else:
            self._close(connection)
        if frame.has_surplus:
            self._refuse()
        return stays

    # What becomes of connections

    def _watch(self) -> None:
        """Close what nobody uses, and give up what is silent for too long."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [each for each in self.idle if now - each.idle_since >= IDLE]:
            is_wrong = not connection.frame.has_end or bool(connection.witnesses & self.others_out)
            self._close_idle(connection, Verdict.REFUSED if is_wrong else Verdict.UNTRIED)
        for connection in self._busy:
            if connection.began is not None and now - connection.began >= self._patience:
                if connection.is_repeatable:
                    connection.give_up()
                self._refuse()
        self._timer = loop.call_later(_WATCH, self._watch) if len(self) else None

    @property
    def _patience(self) -> float:
        return max(LEAST_PATIENCE, _PATIENCE * self.seconds_needed)

    def _close_idle(self, connection: _Connection, verdict: Verdict = Verdict.UNTRIED) -> None:
        self.idle.remove(connection)
        self._close(connection)
        self._end_trial(verdict, of=connection)

    def _close(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        connection.sock.close()

    def _refuse(self) -> None:
        """Keep no connection any more."""
        self._trial, self.verdict = None, Verdict.REFUSED
        for connection in self.idle:
            connection.sock.close()
        self.idle.clear()

    def _fail_trial(self) -> None:
        """Count a trial that came to nothing."""
        self._failed_trials += 1
        self._end_trial(Verdict.UNTRIED if self._failed_trials < _MOST_TRIALS else Verdict.REFUSED)

    def _end_trial(self, verdict: Verdict, *, of: _Connection | None = None) -> None:
        if self._trial is None or (of is not None and of is not self._trial):
            return
        self._trial, self.verdict = None, verdict


async def _receive(loop: asyncio.AbstractEventLoop, connection: _Connection, body_rule: BodyRule) -> HttpReply | None:
    """Return what comes, None where nothing does."""
    sock = connection.sock
    frame = connection.frame = FramedReply()
    try:
        data = await loop.sock_recv(sock, _READ_SIZE)
    except OSError:
        return None
    if not data:
        return None
    frame.feed(data)
    if frame.has_end and _is_whole(frame):
        return frame.reply()
    received = [data]
    is_over = False

    async def read() -> bytes:
        nonlocal is_over
        if received:
            return received.pop()
        if is_over:
            return b""
        data = await loop.sock_recv(sock, _READ_SIZE)
        had_end = frame.has_end
        frame.feed(data)
        is_over = frame.has_end and not had_end and _is_whole(frame)
        return data

    return await lenient_http.receive(read, body_rule)


def _is_whole(frame: FramedReply) -> bool:
    """Return whether nothing is missing at the end of a framed reply: some count characters instead of bytes."""
    body = frame.body.rstrip()
    return body.endswith(b"Envelope>") or has_root_end_tag(body) or not body.lstrip().startswith(b"<")
