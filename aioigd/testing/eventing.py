"""The events of a gateway (UDA 1.1 section 4): its subscriptions, and the messages to the subscribers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from ..upnp.wire.xml import escape
from . import network
from .device_tree import Service
from .http import HttpRequest, Response

__all__ = ["Eventing", "Subscription"]

_MAX_DURATION: Final = 1800
"""Seconds that a subscription lasts at most, and if the request has no duration."""
_DELIVERY_TIMEOUT: Final = 2.0
"""Seconds to deliver a message to a subscriber."""
_CALLBACK: Final = re.compile(r"<(http://[^<>\s]+)>", re.IGNORECASE)
_TIMEOUT: Final = re.compile(r"Second-(\d{1,9})", re.IGNORECASE)


@dataclass(slots=True)
class Subscription:
    """A subscription to a service: ``callback`` is the URL of the subscriber, ``expires`` in seconds of the clock."""

    sid: str
    service: Service
    callback: str
    expires: float
    sent: int = 0


class Eventing:
    """The subscriptions of one gateway, from one start to the next.

    ``values`` returns the evented state variables of a service, ``now`` the time in seconds. Messages are sent from
    ``address``, and to loopback addresses only.
    """

    def __init__(self, address: str, values: Callable[[Service], Mapping[str, str]], now: Callable[[], float]) -> None:
        self._address = address
        self._values = values
        self._now = now
        self._subscriptions: dict[str, Subscription] = {}
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def subscriptions(self) -> list[Subscription]:
        """The subscriptions that have not expired."""
        return [each for each in self._subscriptions.values() if each.expires > self._now()]

    @staticmethod
    def problem(request: HttpRequest) -> str:
        """Return how a request violates the standard (section 4.1), empty where it does not."""
        sid, callback, kind = (request.header(name) for name in ("SID", "CALLBACK", "NT"))
        if sid:
            return "there is a SID, and CALLBACK or NT" if callback or kind else ""
        if request.method == "UNSUBSCRIBE":
            return "there is no SID"
        if kind != "upnp:event":
            return "NT is not upnp:event"
        return "" if _CALLBACK.match(callback or "") else "CALLBACK is no URL in angle brackets"

    def respond(self, request: HttpRequest, service: Service) -> Response:
        """Subscribe, renew or cancel, and return the response."""
        if self.problem(request):
            return Response(400 if request.header("SID") else 412)
        sid = request.header("SID")
        if sid is not None and sid not in {each.sid for each in self.subscriptions}:
            return Response(412)
        if request.method == "UNSUBSCRIBE":
            del self._subscriptions[sid or ""]
            return Response(200)
        wanted = _TIMEOUT.fullmatch(request.header("TIMEOUT") or "")
        seconds = min(int(wanted[1]), _MAX_DURATION) if wanted else _MAX_DURATION
        if sid is None:
            callback = _CALLBACK.match(request.header("CALLBACK") or "")
            new = Subscription(f"uuid:{uuid4()}", service, callback[1] if callback else "", 0.0)
            self._subscriptions[new.sid] = new
            sid = new.sid
            self._send(new)
        self._subscriptions[sid].expires = self._now() + seconds
        return Response(200, (("SID", sid), ("TIMEOUT", f"Second-{seconds}")))

    def publish(self) -> None:
        """Send the current values to all subscribers."""
        for subscription in self.subscriptions:
            self._send(subscription)

    def close(self) -> None:
        """Drop all subscriptions, and cancel deliveries."""
        self._subscriptions.clear()
        for task in self._sending:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the tasks have ended after :meth:`close`."""
        if self._sending:
            await asyncio.wait(self._sending)

    def _send(self, subscription: Subscription) -> None:
        values = "".join(
            f"<e:property><{name}>{escape(value)}</{name}></e:property>"
            for name, value in self._values(subscription.service).items()
        )
        body = (
            '<?xml version="1.0"?>\r\n'
            f'<e:propertyset xmlns:e="urn:schemas-upnp-org:event-1-0">{values}</e:propertyset>\r\n'
        ).encode()
        parts = urlsplit(subscription.callback)
        head = (
            f"NOTIFY {parts.path or '/'} HTTP/1.1\r\nHOST: {parts.netloc}\r\n"
            f'CONTENT-TYPE: text/xml; charset="utf-8"\r\nCONTENT-LENGTH: {len(body)}\r\n'
            f"NT: upnp:event\r\nNTS: upnp:propchange\r\nSID: {subscription.sid}\r\nSEQ: {subscription.sent}\r\n\r\n"
        ).encode()
        subscription.sent += 1
        task = asyncio.get_running_loop().create_task(
            self._deliver(parts.hostname or "", parts.port or 80, head + body)
        )
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, host: str, port: int, message: bytes) -> None:
        with suppress(OSError, ValueError, TimeoutError):
            address = network.check_loopback(host)
            loop = asyncio.get_running_loop()
            with network.http_socket(self._address) as opened:
                async with asyncio.timeout(_DELIVERY_TIMEOUT):
                    await loop.sock_connect(opened, (address, port))
                    await loop.sock_sendall(opened, message)
                    await loop.sock_recv(opened, 1024)
