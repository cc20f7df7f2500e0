"""Is the gateway there, the same one, and unchanged? Polls it, and turns hints of a restart into facts.

It knows no leases: what it finds out it returns as a :class:`Finding`. The manager applies it, checks a sample of the
mappings where nothing else tells whether they are still there, and says with :meth:`GatewayMonitor.concluded` what the
conclusion was.

=========================  ==========================================  =========================================
event                      REACHABLE                                   AWAY(n)
=========================  ==========================================  =========================================
poll is answered           moved, or lost all: may be empty; else      REACHABLE; may be empty
                           needs a sample; look for home
poll is not answered       AWAY(1), in doubt                           AWAY(n + 1), in doubt; next poll with
                                                                       backoff, at most the interval
hint CHANGED               poll, throttled                             same
hint HOME, throttled       look for home; not there: again with        same
                           backoff, 6 times in all
hint RESTARTED, throttled  rediscover, unless it has told so in a      same
                           reply; then as a poll; not found:
                           again with backoff, 6 times in all; counts
                           as wrong
a lease's request met      AWAY(1), poll in 0.5 s                      -
nobody
concluded: a hint was      throttle off, or the next one waits 1 s,    same
proved, or was not         doubled up to 60 s
=========================  ==========================================  =========================================

Why so:

- A gateway that was away may have restarted, and so may one that is at another address, or has lost the mapping that is
  checked as a sample: then all mappings are suspected at once, instead of each being found missing at half its time.
- While it is away no mapping is asked for: a thousand of them would each wait for a timeout. The poll looks for it.
- A hint can be a lie, as anybody in the LAN can send one. So a hint only makes the poll, or a search, come sooner; the
  answer decides. It costs one search, one poll and one sample, whatever it says and however often.
- A hint is proved by what nobody but the gateway can bring about: a mapping that was held is missing, another gateway
  (UDN) has taken its place, or, for CHANGED, its external address is another one. A move proves nothing, nor does what
  a gateway says of its epoch (:attr:`Backend.holds_since`), as that may jump with each reply. One that was not proved
  makes the next one wait longer (:class:`~aioigd.leases.schedule.HintThrottle`).
- A gateway that is spoken to by another protocol at the same address is the same one.
- One that leads to nobody is followed by 6 searches; from then on it is for the poll to find the gateway. Those that
  come meanwhile wait for their turn by the throttle before the 6 begin anew.
- A gateway that restarts announces it several times. What comes during the search that then finds it at another address
  has announced just that, and is dropped.
- An answer without an address is an answer: the line is down, the gateway is there.
- A gateway that may be empty may have forgotten our subscription, too: the listener subscribes again.
- Interfaces come and go: the listener looks at them with each poll and search.
- The address may have changed between the first poll and the subscription. So the listener knows the address, and what
  contradicts it is a hint, from the first event on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from ..core.backend import Backend, Hint, Listener
from ..core.dispatcher import Dispatcher
from ..core.gateway_cache import GatewayCache
from ..errors import DeadlineError, DiscoveryError, IGDError, TransportError, UnsupportedError, is_unreachable
from ..text import get_logger
from . import schedule
from .homecoming import HomeSearch
from .schedule import NEVER

__all__ = ["REACHABLE", "Contents", "Finding", "GatewayMonitor", "Reachability"]

log = get_logger("aioigd.lease")

_MAX_SEARCHES: Final = 6
"""Searches after a hint; from then on the poll finds the gateway, as a hint can be a lie."""
_NO_HINT: Final = -1
"""Looks for home after a hint, where there was none."""
_DEFAULT_INTERVAL: Final = 60.0
"""Seconds between two polls, until a lease says otherwise."""


class Reachability(NamedTuple):
    """Whether the gateway answers: REACHABLE, or AWAY(n) after ``failures`` polls or requests that nobody answered."""

    failures: int = 0

    @property
    def is_away(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return self.failures > 0

    def next_failure(self) -> Reachability:
        """Return what follows when it does not answer once more."""
        return Reachability(self.failures + 1)


REACHABLE: Final = Reachability()


class Contents(Enum):
    """What follows from a poll for the mappings that the gateway held."""

    UNCHANGED = auto()  #: nothing: it was not polled
    IN_DOUBT = auto()  #: it did not answer
    NEEDS_SAMPLE = auto()  #: it is where it was all the time: a sample will show
    MAY_BE_GONE = auto()  #: it was away, or is elsewhere, and may have restarted


class Finding(NamedTuple):
    """What was found out about the gateway.

    ``has_new_address``: its external address is another one. ``is_replaced``: another gateway has taken its place.
    ``hint_followed_at``: when it was rediscovered because of a hint that it has restarted, None if that is not why.
    ``home``: the router of the best default route, None where it is not there. It may be in use already. ``left``: the
    stopgap that was replaced by that router.
    """

    contents: Contents = Contents.UNCHANGED
    has_new_address: bool = False
    is_replaced: bool = False
    hint_followed_at: float | None = None
    home: Backend | None = None
    left: Backend | None = None


class GatewayMonitor:
    """Polls the gateway every ``interval`` seconds while it is started, and follows hints.

    ``wake`` is called when something is due sooner than before, and not by a call of the manager.
    """

    def __init__(self, dispatcher: Dispatcher, cache: GatewayCache, wake: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._cache = cache
        self._wake = wake
        self._searches = 0
        self._restart_hint_due = NEVER
        self._change_hint_due = NEVER
        self._is_change_hinted = False
        self._restart_hints = schedule.HintThrottle()
        self._change_hints = schedule.HintThrottle()
        self._home_hints = schedule.HintThrottle()
        self._home_search = HomeSearch(cache)
        self._home_looks = _NO_HINT
        self._gateway_id: Hashable = None
        self._location: Hashable = None
        self._known: Backend | None = None
        self._holds_since = float("-inf")
        self._knows_address = False
        self._listener: Listener | None = None
        self.reachability = REACHABLE
        self.external_address: IPv4Address | IPv6Address | None = None
        self.error: IGDError | None = None
        """Why the gateway is away."""
        self.interval = _DEFAULT_INTERVAL
        self._next_poll = NEVER
        self._next_search = NEVER
        self.home_due = NEVER

    @property
    def is_away(self) -> bool:
        """Whether the gateway did not answer when it was last asked."""
        return self.reachability.is_away

    @property
    def poll_due(self) -> float:
        """When the next poll is due, also because of a hint."""
        return min(self._next_poll, self._change_hint_due)

    @property
    def rediscovery_due(self) -> float:
        """When the gateway is to be looked for because of a hint, or once more."""
        return min(self._next_search, self._restart_hint_due)

    @property
    def next_due(self) -> float:
        """When a poll, a rediscovery or a look for home is due; NEVER while it is stopped."""
        return min(self.poll_due, self.rediscovery_due, self.home_due)

    def start(self, interval: float) -> None:
        """Poll at this interval from now on."""
        self.interval = interval
        self._next_poll = min(self._next_poll, _now() + interval)
        self._cache.keep_stopgap(True)

    def stop(self) -> None:
        """Do nothing any more, and forget what will not be true for long."""
        self._next_poll = self._next_search = self._restart_hint_due = self._change_hint_due = NEVER
        self.home_due = NEVER
        self._home_looks = _NO_HINT
        self._cache.keep_stopgap(False)
        self.reachability = REACHABLE
        self._searches = 0
        self._knows_address = False
        self._listener = None

    def poll_now(self) -> None:
        """Make the poll due."""
        self._next_poll = _now()

    def look_for_home(self) -> None:
        """Make the look for the router of the best default route due."""
        self.home_due = min(self.home_due, _now())

    async def listen(self) -> Listener:
        """Begin to listen to what the gateway announces; the caller closes what this returns."""
        self._note_identity()
        self._holds_since = self._dispatcher.holds_since
        listener = await self._cache.listen(self.on_hint)
        listener.note_address(self.external_address)
        listener.follow(self._backend(), resubscribe=False)
        self._listener = listener
        return listener

    def on_hint(self, hint: Hint) -> None:
        """Follow what the gateway, or somebody in its name, announces."""
        if hint is Hint.RESTARTED:
            self._restart_hint_due = min(self._restart_hint_due, self._restart_hints.due(_now()))
        elif hint is Hint.HOME:
            if self._home_looks == _NO_HINT:
                self._home_looks = 0
                self.home_due = min(self.home_due, self._home_hints.due(_now()))
        else:
            self._change_hint_due = min(self._change_hint_due, self._change_hints.due(_now()))
        self._wake()

    def request_failed(self, error: IGDError) -> None:
        """Note that a request of a lease has failed; if that is because there is no gateway, poll soon."""
        if is_unreachable(error) and not self.is_away:
            self.reachability = self.reachability.next_failure()
            self.error = error
            self._next_poll = min(self._next_poll, _now() + schedule.backoff(1))
            self._wake()

    async def learn_address(self) -> bool:
        """Ask for the external address, unless it is known, and return whether it is another one than before.

        Raises IGDError where nobody answers.
        """
        return False if self._knows_address else await self._query_address(self._dispatcher.external_address)

    async def poll(self) -> Finding:
        """Ask the gateway for its external address."""
        self._refresh_listener()
        self._is_change_hinted, self._change_hint_due = self._change_hint_due != NEVER, NEVER
        try:
            backend = self._backend()
            if backend is not None and backend.local_address_changed():
                log.info("this machine has another address now")
                await self._rediscover()
            has_new_address = await self._query_address(self._dispatcher.poll)
        except IGDError as error:
            self.reachability = self.reachability.next_failure()
            self.error = error
            pause = min(self.interval, schedule.backoff(self.reachability.failures))
            log.info("the gateway does not answer, asking again in %.1f s: %s", pause, error)
            self._next_poll = _now() + pause
            return Finding(Contents.IN_DOUBT)
        has_lost_all = self._note_loss()
        was_away, self.reachability = self.is_away, REACHABLE
        self._next_poll = _now() + self.interval
        if self._cache.home_hosts():
            self.look_for_home()
        known = self._known
        is_replaced, has_moved = self._compare_identity()
        left = None
        if is_replaced and known is not None and not self._cache.home_hosts() and known.home_hosts():
            left = known
            self.look_for_home()
        may_be_empty = was_away or has_moved or has_lost_all
        contents = Contents.MAY_BE_GONE if may_be_empty else Contents.NEEDS_SAMPLE
        return Finding(contents, has_new_address, is_replaced, left=left)

    async def rediscover(self) -> Finding:
        """Find the gateway anew after a hint that it has restarted, and poll it."""
        self._refresh_listener()
        self._next_search = NEVER
        hint_due, self._restart_hint_due = self._restart_hint_due, NEVER
        is_hinted = hint_due <= _now()
        if is_hinted:
            self._searches = 0
        if self._cache.home_hosts() and (home := await self._home_search.look(because_of_hint=True)):
            return Finding(home=home)
        try:
            if not self._has_lost_all():  # otherwise it has said so in a reply: it is there
                await self._rediscover()
        except IGDError as error:
            if is_hinted:
                self._restart_hints.followed(_now(), right=False)
                self._restart_hint_due = _throttled(self._restart_hint_due, self._restart_hints)
            else:
                self._restart_hint_due = min(self._restart_hint_due, hint_due)
            self._searches += 1
            pause = schedule.backoff(self._searches)
            log.info("the gateway is not back yet, looking again in %.1f s: %s", pause, error)
            if self._searches < _MAX_SEARCHES:
                self._next_search = _now() + pause
            return Finding()
        self._searches = 0
        if self._identity()[1] != self._location:
            self._restart_hint_due = NEVER  # what was heard meanwhile announced this very move
        found_at = _now()
        return (await self.poll())._replace(hint_followed_at=found_at)

    async def find_home(self) -> Finding:
        """Look whether the router of the best default route is there, if the gateway in use is another one."""
        self.home_due = NEVER
        because_of_hint = self._home_looks != _NO_HINT
        followed_at = _now()
        home = await self._home_search.look(because_of_hint=because_of_hint)
        if because_of_hint:
            self._home_looks += 1
            if home is not None or self._home_looks >= _MAX_SEARCHES:
                self._home_hints.followed(followed_at, right=home is not None)
                self._home_looks = _NO_HINT
            else:
                self.home_due = min(self.home_due, _now() + schedule.backoff(self._home_looks))
        return Finding(home=home)

    def went_home(self) -> None:
        """Note that the leases have gone home: another gateway is in use, and that is known to them. Poll it."""
        self._note_identity()
        self.reachability = REACHABLE
        self.poll_now()

    def concluded(self, finding: Finding, *, may_be_empty: bool, is_missing: bool) -> None:
        """Note what came of a finding.

        ``may_be_empty``: the gateway may have lost all mappings. ``is_missing``: one that it held was asked for, and is
        not there.
        """
        is_proved = is_missing or finding.is_replaced
        if finding.contents in (Contents.NEEDS_SAMPLE, Contents.MAY_BE_GONE) and self._listener is not None:
            self._listener.follow(self._backend(), resubscribe=may_be_empty)
        if self._is_change_hinted:
            self._is_change_hinted = False
            self._change_hints.followed(_now(), right=is_proved or finding.has_new_address)
            self._change_hint_due = _throttled(self._change_hint_due, self._change_hints)
        if finding.hint_followed_at is not None:
            self._restart_hints.followed(finding.hint_followed_at, right=is_proved)
            self._restart_hint_due = _throttled(self._restart_hint_due, self._restart_hints)

    def _has_lost_all(self) -> bool:
        """Return whether the gateway has told since the last time that it has lost its mappings."""
        before = self._holds_since
        return before > float("-inf") and self._dispatcher.holds_since > before + schedule.EPOCH_ROUNDING

    def _note_loss(self) -> bool:
        """Return the same, and note it."""
        has_lost_all = self._has_lost_all()
        if has_lost_all:
            log.info("the gateway has lost its mappings: %s", self._backend())
            self._restart_hint_due = NEVER  # what was heard of it meanwhile is known by now
        self._holds_since = self._dispatcher.holds_since
        return has_lost_all

    def _refresh_listener(self) -> None:
        if self._listener is not None:
            self._listener.refresh()

    async def _rediscover(self) -> None:
        await self._cache.find(instead_of=self._backend())

    async def _query_address(self, question: Callable[[], Awaitable[IPv4Address | IPv6Address]]) -> bool:
        """Ask for the external address, and return whether it is another one. Raises IGDError where nobody answers."""
        address: IPv4Address | IPv6Address | None
        try:
            address = await question()
        except (TransportError, DeadlineError, DiscoveryError):
            raise
        except IGDError:
            address = None  # an answer, but no address: some have none while the line is down
        self._knows_address = True
        is_another = address != self.external_address
        self.external_address = address
        if self._listener is not None:
            self._listener.note_address(address)
        return is_another

    def _compare_identity(self) -> tuple[bool, bool]:
        """Return whether the gateway is another one than before, and whether it is elsewhere."""
        known, before, location = self._known, self._gateway_id, self._location
        self._note_identity()
        is_replaced = before is not None and self._gateway_id != before and not _is_same_router(known, self._known)
        if is_replaced:
            log.warning("the gateway is another one now: %s", self._backend())
        return is_replaced, self._location != location

    def _note_identity(self) -> None:
        self._known = self._backend()
        self._gateway_id, self._location = self._identity()

    def _identity(self) -> tuple[Hashable, Hashable]:
        """Return what the gateway in use is known by, and where it is."""
        backend = self._backend()
        return (None, None) if backend is None else (backend.gateway_id, backend.location)

    def _backend(self) -> Backend | None:
        with suppress(UnsupportedError):  # the program has put a device into the list that cannot be asked
            return self._cache.cached()
        return None


def _is_same_router(one: Backend | None, other: Backend | None) -> bool:
    """Return whether a router that is spoken to by another protocol is at the address at which it was before."""
    if one is None or other is None or one.protocol == other.protocol:
        return False
    return one.address == other.address != ""


def _throttled(hint_due: float, throttle: schedule.HintThrottle) -> float:
    """Return when a hint that came while another was followed is due, by what is known of the throttle now."""
    return hint_due if hint_due == NEVER else max(hint_due, throttle.due(_now()))


def _now() -> float:
    return asyncio.get_running_loop().time()
