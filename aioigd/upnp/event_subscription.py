"""How events are had (GENA, UDA 1.1 section 4): one subscription, kept at the gateway in use.

Many gateways have none, or refuse; then there are none, and polling has to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from async_timeout import timeout

from ..errors import IGDError, InvalidResponseError
from ..models import Device
from .net.event_server import CallbackServer
from .net.http import HttpClient
from .wire import gena
from .wire.url import HttpUrl, parse_url

__all__ = ["EventSubscription"]

log = logging.getLogger("aioigd.lease")

_SUBSCRIBE_TIMEOUT: Final = 5.0
"""Seconds."""
_UNSUBSCRIBE_TIMEOUT: Final = 1.0
"""Seconds; somebody may wait for the end."""
_RESUBSCRIBE_PAUSE: Final = 300.0
"""Seconds until a gateway that once had events is asked again for a subscription."""
_WATCHED: Final = ("externalipaddress", "connectionstatus")
"""The state variables that matter; others change with every mapping, our own among them."""


class EventSubscription:
    """Keeps one subscription, at the device that :meth:`follow` was last given.

    ``on_change`` is called where an event says that the external address or the state of the connection is not what the
    last one said. What it is now is for others to ask: anybody in the LAN could have sent the message.
    """

    def __init__(self, http: HttpClient, on_change: Callable[[], None]) -> None:
        self._http = http
        self._on_change = on_change
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
        server = CallbackServer(url.host, device.igd_our_addr, ChangeFilter(self._on_change))
        try:
            await server.open()
            await self._keep(url, device.igd_our_addr, server)
        except OSError as error:
            log.info("no events of the gateway can be received: %s", error)
        finally:
            try:
                if server.sid:
                    await self._unsubscribe(url, device.igd_our_addr, server.sid)
            finally:
                await server.close()

    async def _keep(self, url: HttpUrl, source: str, server: CallbackServer) -> None:
        """Subscribe and renew; returns where the gateway has no events."""
        had_one = False
        while True:
            try:
                headers = gena.renewal(server.sid) if server.sid else gena.subscription(server.url)
                server.sid, seconds = gena.read_grant(
                    await self._ask("SUBSCRIBE", url, source, headers, _SUBSCRIBE_TIMEOUT)
                )
            except IGDError as error:
                log.debug("no subscription at %s: %s", url, error)
                was_renewal, server.sid = bool(server.sid), ""
                if was_renewal:
                    continue  # it may have forgotten us
                if not had_one:
                    return
                await asyncio.sleep(_RESUBSCRIBE_PAUSE)
            else:
                had_one = True
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
            method, url, deadline=deadline, source=source, headers=headers, repeatable=False
        )
        if reply.status != 200:
            raise InvalidResponseError(f"{method} was answered with HTTP status {reply.status}", status=reply.status)
        return reply.headers


class ChangeFilter:
    """Passes on what is different from the event before; the first one only says how things are."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._known: dict[str, str] = {}

    def __call__(self, values: Mapping[str, str], is_first: bool) -> None:
        changed = {name: values[name] for name in _WATCHED if name in values}
        is_different = any(self._known.get(name) != value for name, value in changed.items())
        self._known.update(changed)
        if is_different and not is_first:
            self._on_change()
