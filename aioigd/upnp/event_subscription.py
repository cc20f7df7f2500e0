"""How events are had (GENA, UDA 1.1 section 4): one subscription, kept at the gateway in use.

Many gateways have none, or refuse; then there are none, and polling has to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from async_timeout import timeout

from ..errors import IGDError, InvalidResponseError
from ..models import Device
from ..text import get_logger
from .net.event_server import CallbackServer
from .net.http import HttpClient
from .wire import gena
from .wire.http_reply import BodyRule
from .wire.url import HttpUrl, parse_url
from .wire.wan_ip_connection import parse_external_address

__all__ = ["EventSubscription"]

log = get_logger("aioigd.lease")

_SUBSCRIBE_TIMEOUT: Final = 5.0
"""Seconds."""
_UNSUBSCRIBE_TIMEOUT: Final = 1.0
"""Seconds; somebody may wait for the end."""
_RESUBSCRIBE_PAUSE: Final = 300.0
"""Seconds until a gateway that once had events is asked again for a subscription."""
_ADDRESS: Final = "externalipaddress"
"""The state variable with the external address."""
_STATUS: Final = "connectionstatus"
"""The state variable with the state of the connection. Others change with every mapping, our own among them."""


class EventSubscription:
    """Keeps one subscription, at the device that :meth:`follow` was last given.

    ``on_change`` is called where an event says that the external address is neither the one that is known nor what the
    last event said, that the connection is in another state, or that events were missed. How things are is for others
    to ask: the message is a hint.
    """

    def __init__(self, http: HttpClient, on_change: Callable[[], None]) -> None:
        self._http = http
        self._on_change = on_change
        self._address = ""
        self._filter: ChangeFilter | None = None
        self._followed: tuple[tuple[str, ...], str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def follow(self, device: Device | None, *, resubscribe: bool) -> None:
        """Subscribe at this device, unless that is done already; ``resubscribe``: it may have lost the subscription."""
        followed = None if device is None else (device.event_urls, device.igd_our_addr)
        if followed == self._followed and not resubscribe:
            return
        self._followed = followed
        self._stop()
        if device is not None and device.event_urls and device.igd_our_addr:
            self._task = asyncio.get_running_loop().create_task(self._run(device))
            self._ending.add(self._task)
            self._task.add_done_callback(self._ending.discard)

    def note_address(self, address: IPv4Address | IPv6Address | None) -> None:
        """Note the external address, None where there is none: an event that says otherwise is a hint."""
        self._address = _usual(str(address or ""))
        if self._filter is not None:
            self._filter.note_address(self._address)

    async def close(self) -> None:
        """End the subscription."""
        self._stop()
        if self._ending:
            await asyncio.wait(tuple(self._ending))

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _run(self, device: Device) -> None:
        url = parse_url(device.event_urls[0])
        events = self._filter = ChangeFilter(self._on_change, self._address)
        server = CallbackServer(url.host, device.igd_our_addr, events)
        try:
            await server.open()
            await self._keep(url, device.igd_our_addr, server, events)
        except OSError as error:
            log.info("no events of the gateway can be received: %s", error)
        except GeneratorExit:
            raise  # its event loop is closed, and nothing can be awaited any more
        except BaseException:
            await self._end(url, device.igd_our_addr, server)
            raise
        await self._end(url, device.igd_our_addr, server)

    async def _end(self, url: HttpUrl, source: str, server: CallbackServer) -> None:
        try:
            if server.sid:
                await self._unsubscribe(url, source, server.sid)
        finally:
            await server.close()

    async def _keep(self, url: HttpUrl, source: str, server: CallbackServer, events: ChangeFilter) -> None:
        """Subscribe and renew; returns where the gateway has no events."""
        had_one = False
        while True:
            try:
                headers = gena.renewal(server.sid) if server.sid else gena.subscription(server.url)
                reply = await self._ask("SUBSCRIBE", url, source, headers, _SUBSCRIBE_TIMEOUT)
                sid, seconds = gena.read_grant(reply)
            except IGDError as error:
                log.debug("no subscription at %s: %s", url, error)
                was_renewal = bool(server.sid)
                server.subscribed("")
                if was_renewal:
                    continue  # it may have forgotten us
                if not had_one:
                    return
                await asyncio.sleep(_RESUBSCRIBE_PAUSE)
            else:
                had_one = True
                if sid != server.sid:
                    events.subscribed()
                    server.subscribed(sid)
                await asyncio.sleep(seconds / 2)

    async def _unsubscribe(self, url: HttpUrl, source: str, sid: str) -> None:
        with suppress(IGDError, TimeoutError):
            async with timeout(_UNSUBSCRIBE_TIMEOUT):
                await self._ask("UNSUBSCRIBE", url, source, {"SID": sid}, _UNSUBSCRIBE_TIMEOUT)

    async def _ask(
        self, method: str, url: HttpUrl, source: str, headers: Mapping[str, str], seconds: float
    ) -> Mapping[str, str]:
        deadline = asyncio.get_running_loop().time() + seconds
        reply = await self._http.request(
            method,
            url,
            deadline=deadline,
            source=source,
            headers=headers,
            repeatable=False,
            body_rule=BodyRule.NONE,
        )
        if reply.status != 200:
            raise InvalidResponseError(f"{method} was answered with HTTP status {reply.status}", status=reply.status)
        return reply.headers


class ChangeFilter:
    """Passes on what is news in the events of a subscription, and of those that replace it. Pure: no I/O, no clock.

    ==================================================================  ==========
    an event says                                                       news
    ==================================================================  ==========
    another external address than is known: the first event, too        yes
    the same again, and no other has become known meanwhile             no
    another state of the connection than the event before               yes
    a state of the connection, and is the first to say one              with a SEQ over 0
    a SEQ that is not the next one (UDA 1.1 section 4.3.2)              yes: events were missed
    SEQ 0, or none, or one that is no number                            for what it says only
    ==================================================================  ==========
    """

    def __init__(self, on_change: Callable[[], None], known_address: str) -> None:
        self._on_change = on_change
        self._known_address = known_address
        self._last: dict[str, str] = {}
        self._next_seq = 0

    def subscribed(self) -> None:
        """A new subscription begins: its first event has SEQ 0."""
        self._next_seq = 0

    def note_address(self, address: str) -> None:
        """Note the external address that the gateway tells when it is asked, "" where it has none."""
        if address != self._known_address:
            self._known_address = address
            self._last.pop(_ADDRESS, None)

    def __call__(self, values: Mapping[str, str], seq: int | None) -> None:
        is_news = False
        if seq is not None:
            is_news = seq not in (0, self._next_seq)
            self._next_seq = gena.next_seq(seq)
        if _ADDRESS in values:
            address = _usual(values[_ADDRESS])
            is_news |= address not in (self._last.get(_ADDRESS), self._known_address)
            self._last[_ADDRESS] = address
        if _STATUS in values:
            before = self._last.get(_STATUS)
            is_news |= values[_STATUS] != before and (before is not None or bool(seq))
            self._last[_STATUS] = values[_STATUS]
        if is_news:
            self._on_change()


def _usual(address: str) -> str:
    """Return an address in its usual form, "" for what is none."""
    parsed = parse_external_address(address)
    return "" if parsed is None else str(parsed)
