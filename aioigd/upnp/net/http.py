"""HTTP to one device at a time: connections and the session, one request, one reply or one of three errors.

What aiohttp must not do is configured here (redirects, proxies, cookies, decompression), as are the caps on what a
device may send. Its exceptions are translated here: the outcome is an HttpReply, TransportError, InvalidResponseError
or DeadlineError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from functools import lru_cache, partial
from math import inf
from typing import Any, Final

import aiohttp
from aiohttp import http_exceptions
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from async_timeout import timeout, timeout_at
from yarl import URL

from ...errors import DeadlineError, InvalidResponseError, TransportError
from ...net.trace import HttpExchange, Tracer, tracer
from ...text import get_logger, system_message
from ..wire.http_reply import MAX_HEAD, MAX_REPLY, BodyRule, HttpReply, dechunked
from ..wire.url import HttpUrl
from ..wire.xml import MAX_DOCUMENT, has_root_end_tag
from . import lenient_http
from .connection import connect
from .kept_connections import Keep, KeptConnections, Sent
from .lenient_http import MAX_LOOKS, patience_after

__all__ = ["HttpClient"]

_UNLIMITED: Final = nullcontext()
_NO_TIMERS: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_SKIPPED_HEADERS: Final = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
"""Headers that aiohttp would add by itself."""
_MAX_CACHED: Final = 64
"""Entries of each cache: origins whose replies aiohttp cannot read, and parsed URLs."""
_TRANSPORTS: Final = "asyncio.selector_events"
"""Where the transports are made that hold a method of their own."""

_ends: ContextVar[tuple[HttpUrl, str]] = ContextVar("ends")
"""Where the request that is being sent goes to, and the local address that it is sent from ("" for any)."""

wire_log = get_logger("aioigd.traffic.http")


class HttpClient:
    """Sends requests, each over a new connection, through one aiohttp session.

    The session is opened by the first request and lasts until :meth:`close`; a later request opens a new one.
    Keep-alive is broken on many routers, so connections are kept only as :mod:`.kept_connections` has it.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._lenient: dict[tuple[str, int], None] = {}
        self._kept: dict[KeptConnections, None] = {}
        """Those of all gateways of which a connection may be open."""

    async def request(
        self,
        method: str,
        url: HttpUrl,
        *,
        deadline: float,
        source: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        repeatable: bool = True,
        body_rule: BodyRule = BodyRule.EXPECTED,
        keep: Keep | None = None,
    ) -> HttpReply:
        """Send one request and return the reply, whatever its status.

        ``deadline`` is a time of the loop's clock, infinite for none, ``source`` the local address to send from ("" for
        any). If aiohttp cannot read the reply, the request is sent once more with :mod:`.lenient_http`, if it is
        ``repeatable``. ``body_rule`` says what may come behind the head of the reply; where nothing of it counts, the
        request is sent with :mod:`.lenient_http` alone, as aiohttp drops a whole head for one line of it. ``keep``: the
        connections to the gateway that are kept, and how the request may use them; None for one of its own.

        Raises TransportError where there is no reply, InvalidResponseError for one that breaks a cap, and
        DeadlineError.
        """
        complete = headers or {}
        if "Accept-Encoding" not in complete or "Host" not in complete:
            complete = {"Accept-Encoding": "identity", **complete}
            complete.setdefault("Host", url.netloc)
        receiver = tracer.get()
        began = asyncio.get_running_loop().time()
        origin = (url.host, url.port)
        reply = None
        try:
            try:
                async with timeout_at(deadline) if deadline < inf else _UNLIMITED:
                    if keep is not None:
                        sent = Sent(method, url, source, complete, body, body_rule, repeatable)
                        reply = await self._ask_kept(sent, keep)
                    if reply is None and origin not in self._lenient and body_rule is not BodyRule.NONE:
                        reply = await self._send(method, url, source, complete, body, body_rule)
                        if reply is None and not repeatable:
                            reply = HttpReply(0, b"")
                    if reply is None:
                        if body_rule is not BodyRule.NONE:
                            self._remember_lenient(origin)
                        reply = await lenient_http.ask(method, url, source, complete, body, body_rule)
            except TimeoutError as error:
                raise DeadlineError(f"no answer from {url} in time") from error
            except (aiohttp.ClientError, OSError) as error:
                raise _translated(error, url) from error
        except BaseException as error:
            if receiver is not None:
                _trace(receiver, method, url, complete, body, began, error)
            raise
        wire_log.debug("%s %s: %d, %r", method, url, reply.status, reply.body)
        if receiver is not None:
            _trace(receiver, method, url, complete, body, began, reply)
        return reply

    async def close(self) -> None:
        """Close the session and every connection."""
        self._close_kept()
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            # Transports close in the next iteration of the loop.
            await asyncio.sleep(0)

    def abandon(self) -> None:
        """Forget the session, once its event loop is closed."""
        self._close_kept()
        session, self._session = self._session, None
        if session is not None:
            session.detach()

    def _close_kept(self) -> None:
        for kept in self._kept:
            kept.close()
        self._kept.clear()

    async def _ask_kept(self, sent: Sent, keep: Keep) -> HttpReply | None:
        """Send a request over a connection that is kept; None where it is to have one of its own."""
        if keep.connections not in self._kept:
            self._kept = {each: None for each in self._kept if len(each)}
            self._kept[keep.connections] = None
        return await keep.connections.ask(sent, keep)

    def _open_session(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=_Connector(force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=_NO_TIMERS,
            skip_auto_headers=_SKIPPED_HEADERS,
            request_class=_Request,
        )
        return self._session

    async def _send(
        self,
        method: str,
        url: HttpUrl,
        source: str,
        headers: Mapping[str, str],
        body: bytes | None,
        body_rule: BodyRule,
    ) -> HttpReply | None:
        """Send one request through aiohttp; None where aiohttp cannot read the reply."""
        session = self._session or self._open_session()
        _ends.set((url, source))  # each request says it anew, so nothing has to be put back
        try:
            response = await session.request(method, _yarl(url), data=body, headers=headers, allow_redirects=False)
            try:
                encoding = response.headers.get("Content-Encoding", "identity")
                if encoding.lower() not in ("identity", ""):
                    raise InvalidResponseError(f"a reply in the encoding {encoding[:40]!r} is refused")
                patience = None
                if "Content-Length" not in response.headers and body_rule.lets_head_suffice(response.headers):
                    patience = patience_after(response.status)
                document, whole, ended_well = await _read(response, patience)
                if not whole and (not ended_well or document.lstrip().startswith(b"<")):
                    return None
                # No document begins with a chunk size, whatever the head says.
                body = document if document[:1] == b"<" else dechunked(document)
                return HttpReply(response.status, body, response.headers)
            finally:
                response.close()  # the end of the document counts, not that of the connection
        except (aiohttp.ClientResponseError, http_exceptions.HttpProcessingError):
            return None

    def _remember_lenient(self, origin: tuple[str, int]) -> None:
        self._lenient[origin] = None
        if len(self._lenient) > _MAX_CACHED:
            del self._lenient[next(iter(self._lenient))]


def _add_headers(request: aiohttp.ClientRequest, skip_auto_headers: Iterable[str] | None) -> None:
    """Add the headers that aiohttp has by itself: where there is a Content-Type, no other one is left to be added."""
    if "Content-Type" not in request.headers:
        aiohttp.ClientRequest.update_auto_headers(request, skip_auto_headers)


class _Request(aiohttp.ClientRequest):
    """The request of aiohttp, which makes a list of what is to be skipped each time, although it is always the same."""

    update_auto_headers = _add_headers


class _Connector(aiohttp.BaseConnector):
    """Connects to the number that a host is, from the address that a request is to be sent from.

    The connector of aiohttp would look it up, and try all that it finds, by turns.
    """

    async def connect(self, req: aiohttp.ClientRequest, traces: object, timeout: object) -> Connection:
        """Return a new connection."""
        url, source = _ends.get()
        _, protocol = await connect(url, source, partial(_CountingHandler, self._loop))
        if self.closed:
            protocol.close()
            raise TransportError(f"{url}: the session was closed meanwhile", may_have_arrived=False)
        self._acquired.add(protocol)
        return Connection(self, req.connection_key, protocol, self._loop)


class _CountingHandler(ResponseHandler):
    """The protocol of aiohttp's client, which counts what it receives.

    aiohttp itself caps neither interim replies (1xx) nor what frames chunks, and shows none of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._room = MAX_HEAD
        """Bytes that may still come: of heads at first, then of the whole reply."""
        self._is_in_body = False
        self._made: Any = None
        """The transport; aiohttp forgets it when it closes it."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of the transport.

        That of asyncio holds a method of its own, so each connection would be left to the garbage collector; now that
        it is closed it reads no more.
        """
        super().connection_lost(exc)
        transport, self._made = self._made, None
        if type(transport).__module__ == _TRANSPORTS:
            transport._read_ready_cb = None

    def data_received(self, data: bytes) -> None:
        """Pass on what was received, up to the caps."""
        room = self._room
        self._room = max(0, room - len(data))
        super().data_received(data if len(data) <= room else data[:room])
        if len(data) > room:
            self._receive_more(data[room:])

    def feed_data(self, data: tuple[aiohttp.http.RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        """Take a head from the parser, and the reader of its body."""
        if not self._is_in_body and not 100 <= data[0].code < 200:
            self._is_in_body = True
            self._made = self.transport
            self._room += MAX_REPLY - MAX_HEAD
        super().feed_data(data, size)

    def _receive_more(self, data: bytes) -> None:
        if self._room:  # the head has ended meanwhile
            self.data_received(data)
            return
        what = f"of over {MAX_DOCUMENT} bytes" if self._is_in_body else f"with a head of over {MAX_HEAD} bytes"
        error = InvalidResponseError(f"a reply {what}")
        payload, self._payload = self._payload, None  # so that its end does not replace the error
        if payload is not None:
            payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


def _trace(
    receiver: Tracer,
    method: str,
    url: HttpUrl,
    headers: Mapping[str, str],
    body: bytes | None,
    began: float,
    outcome: HttpReply | BaseException,
) -> None:
    """Pass a request and what became of it to the tracer."""
    seconds = asyncio.get_running_loop().time() - began
    exchange = HttpExchange(method, str(url), headers, body or b"", began=began, seconds=seconds)
    if isinstance(outcome, HttpReply):
        reply_headers = dict(outcome.headers)
        exchange = exchange._replace(status=outcome.status, reply_headers=reply_headers, reply=outcome.body)
    else:
        exchange = exchange._replace(failure=type(outcome).__name__)
    receiver.exchange(exchange)


async def _read(response: aiohttp.ClientResponse, patience: float | None) -> tuple[bytes, bool, bool]:
    """Return the body as far as it was received, whether it is complete, and whether its HTTP framing was right.

    Where nothing comes for ``patience`` seconds there is no body.
    """
    document = bytearray()
    looks = MAX_LOOKS
    chunk = b""
    try:
        if patience is not None:
            async with timeout(patience):
                chunk = await response.content.readany()
        while chunk or (chunk := await response.content.readany()):
            document += chunk
            if len(document) > MAX_DOCUMENT:
                response.close()
                raise InvalidResponseError(f"a reply of over {MAX_DOCUMENT} bytes", status=response.status)
            if looks and b">" in chunk:
                looks -= 1
                if has_root_end_tag(document):
                    return bytes(document), True, True
            chunk = b""
    except TimeoutError:
        return b"", True, True
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError):
        return bytes(document), has_root_end_tag(document), False
    return bytes(document), has_root_end_tag(document), True


@lru_cache(maxsize=_MAX_CACHED)
def _yarl(url: HttpUrl) -> URL:
    # In parts, because a path may begin with two slashes, which would be parsed as a host.
    path, _, query = url.target.partition("?")
    host = url.host.partition("%")[0]  # it is seen in the request
    authority = f"[{host}]:{url.port}" if ":" in host else f"{host}:{url.port}"
    return URL.build(scheme="http", authority=authority, path=path, query_string=query, encoded=True)


def _translated(error: Exception, url: HttpUrl) -> TransportError:
    return TransportError(f"{url}: {system_message(error)}", may_have_arrived=True)
