"""A router without a network that says anything to anything, and a clock that nobody has to wait for."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, cast

from aioigd.errors import DeadlineError, InvalidResponseError, TransportError
from aioigd.net.interfaces import Interface
from aioigd.testing.device_tree import Site, describe_device, gateway_device
from aioigd.testing.errors import UPnPError
from aioigd.testing.soap import build_answer, build_fault, parse_call
from aioigd.testing.wan_connection import ActionCall, WanConnection
from aioigd.upnp.net.ssdp_search import Ask, SearchReply
from aioigd.upnp.wire.http_reply import HttpReply
from aioigd.upnp.wire.ssdp import Announcement
from aioigd.upnp.wire.url import HttpUrl

__all__ = ["ADDRESS", "HONEST", "HastyLoop", "Liar", "Lie", "Reaction"]

ADDRESS: Final = "127.0.0.1"
_SITE: Final = Site(ADDRESS, 5000)


class HastyLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        self._ahead = 0.0
        super().__init__(_HastySelector(self))

    def time(self) -> float:
        """Return the time of the clock, in seconds."""
        return self._ahead

    def skip(self, seconds: float) -> None:
        """Let some time pass at once."""
        self._ahead += seconds


class _HastySelector(selectors.DefaultSelector):
    def __init__(self, loop: HastyLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout:
            self._loop.skip(timeout)
        return super().select(0 if timeout is not None else None)


class Lie(Enum):
    """What may become of a request, besides an honest answer."""

    REFUSES = "a fault with some code, and nothing done"
    REFUSES_DONE = "a fault with some code, although it was done"
    SAYS_OTHER = "success, and nothing done"
    GIBBERISH = "something that is no answer, and nothing done"
    GIBBERISH_DONE = "something that is no answer, although it was done"
    WRONG_STATUS = "the honest answer with some other HTTP status"
    UNREACHED = "no connection"
    CUT = "a connection that is cut, and nothing done"
    CUT_DONE = "a connection that is cut when it was done"
    HANGS = "no answer, and nothing done"
    HANGS_DONE = "no answer, although it was done"
    TOO_MUCH = "more than is read"


@dataclass(frozen=True, slots=True)
class Reaction:
    """What becomes of one request; None is honest. ``number`` is a code or status, ``body`` the gibberish."""

    lie: Lie | None = None
    number: int = 0
    body: bytes = b""


HONEST: Final = Reaction()
_DONE_ALL_THE_SAME: Final = frozenset({Lie.REFUSES_DONE, Lie.GIBBERISH_DONE, Lie.CUT_DONE, Lie.HANGS_DONE})


class Liar:
    """Takes the places of HttpClient and SsdpSearch.

    The next requests get the ``reactions`` in their order, and when these are used up ``afterwards``. ``said`` are the
    actions of the present call, each with the outcome that was told: True for success, and what entry was told.
    """

    def __init__(self, loop: HastyLoop) -> None:
        self.connection = WanConnection(loop.time, external_address="11.22.33.44")
        self.reactions: list[Reaction] = []
        self.afterwards = HONEST
        self.requests = 0
        self.said: list[tuple[str, bool, Mapping[str, str]]] = []
        self.is_on = True
        self._loop = loop

    def begin(self, reactions: Iterable[Reaction], afterwards: Reaction = HONEST) -> None:
        """Forget what was said, and decide how to go on."""
        self.reactions = list(reactions)
        self.afterwards = afterwards
        self.requests = 0
        self.said = []

    # The place of HttpClient

    async def request(
        self,
        method: str,
        url: HttpUrl,
        *,
        deadline: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        **_: Any,
    ) -> HttpReply:
        self.requests += 1
        await asyncio.sleep(0.001)
        reaction = self.reactions.pop(0) if self.reactions else self.afterwards
        if reaction.lie is Lie.UNREACHED:
            raise TransportError("refused", may_have_arrived=False)
        reply = self._describe() if method == "GET" else self._act(reaction, body or b"")
        match reaction.lie:
            case Lie.CUT | Lie.CUT_DONE:
                raise TransportError("reset", may_have_arrived=True)
            case Lie.HANGS | Lie.HANGS_DONE:
                await asyncio.sleep(max(0.0, deadline - self._loop.time()))
                raise DeadlineError("too late")
            case Lie.TOO_MUCH:
                raise InvalidResponseError("over a cap", status=200)
            case Lie.GIBBERISH | Lie.GIBBERISH_DONE:
                return HttpReply(reaction.number, reaction.body)
            case Lie.WRONG_STATUS:
                return reply._replace(status=reaction.number)
        return reply

    async def close(self) -> None:
        await asyncio.sleep(0)

    def _describe(self) -> HttpReply:
        return HttpReply(200, describe_device(gateway_device(1, "liar", "Liar"), _SITE, 1).encode())

    def _act(self, reaction: Reaction, body: bytes) -> HttpReply:
        service_type, action, arguments = parse_call(body)
        call = ActionCall(service_type, action, dict(arguments), ADDRESS)
        outputs: Mapping[str, str] = {}
        error: UPnPError | None = None
        if reaction.lie in (None, Lie.WRONG_STATUS) or reaction.lie in _DONE_ALL_THE_SAME:
            try:
                outputs = self.connection.invoke(call)
            except UPnPError as refusal:
                error = refusal
        if reaction.lie in (Lie.REFUSES, Lie.REFUSES_DONE):
            error = UPnPError(reaction.number)
        told = reaction.lie in (None, Lie.SAYS_OTHER, Lie.WRONG_STATUS) and error is None
        self.said.append((action, told, outputs))
        if error is not None:
            return HttpReply(500, build_fault(error).encode())
        return HttpReply(200, build_answer(service_type, action, outputs).encode())

    # The place of SsdpSearch

    def search(self, interfaces: Sequence[Interface], on_reply: Callable[[SearchReply], None], **_: Any) -> _Search:
        """Return a search that is answered."""
        return _Search(self, interfaces, on_reply)


class _Search:
    def __init__(self, liar: Liar, interfaces: Sequence[Interface], on_reply: Callable[[SearchReply], None]) -> None:
        self.interfaces = interfaces
        self._liar = liar
        self._on_reply: Callable[[SearchReply], None] | None = on_reply

    async def __aenter__(self) -> _Search:
        return self

    def ask(self, targets: Iterable[str], ask: Ask) -> None:
        self.send(targets, ask.interface)

    def send(self, targets: Iterable[str], interface: Interface, **_: Any) -> None:
        announcement = Announcement("reply", _SITE.location, "upnp:rootdevice", "uuid:liar", "liar", 1)
        reply = SearchReply(announcement, ADDRESS, ADDRESS)
        asyncio.get_running_loop().call_soon(self._answer, reply)

    def close(self) -> None:
        self._on_reply = None

    def _answer(self, reply: SearchReply) -> None:
        if self._on_reply is not None and self._liar.is_on:
            self._on_reply(cast(Any, reply))
