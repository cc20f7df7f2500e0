"""One public call: the time it has, the requests it made, and whether it may still be dropped without a trace."""

from __future__ import annotations

import asyncio

from ..errors import Attempt
from ..models import Pinhole, PortMapping

__all__ = ["Call"]


class Call:
    """What the layers below need to know of the call that they work for.

    ``timeout`` (seconds) bounds the call's own work. The clock starts with :meth:`start`, when its first
    request may be sent, and stands still while the call waits behind other requests of this program.
    """

    __slots__ = (
        "_deadline",
        "_idle_since",
        "_loop",
        "_out",
        "_timeout",
        "abandoned",
        "attempts",
        "closing",
        "committed",
        "lost",
        "made",
        "may_move",
        "opened",
    )

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadline: float | None = None
        self._loop = asyncio.get_running_loop()
        self._out = 0
        self._idle_since = self._loop.time()
        self.attempts: list[Attempt] = []
        self.committed = False
        """A request is out that may change the gateway, so the call must not end before that is settled."""
        self.abandoned = False
        """Nobody waits for the result any more."""
        self.lost = False
        """No answer came to a request that may have arrived: perhaps it was carried out."""
        self.closing = False
        """What was done is being undone: too late to join."""
        self.may_move = False
        """If the gateway is silent, it may be elsewhere by now: looking for it comes before asking again."""
        self.made: PortMapping | None = None
        """The mapping that this call has made and that was not there by this program before."""
        self.opened: Pinhole | None = None
        """The same for a pinhole."""

    def start(self) -> None:
        """Start the clock, unless it runs already."""
        if self._deadline is None:
            self._deadline = self._loop.time() + self._timeout

    @property
    def started(self) -> bool:
        """Whether the clock runs."""
        return self._deadline is not None

    def sending(self, waiting_since: float) -> None:
        """Note that a request may go now, for which the call has waited since then.

        The clock stood still for that time, as far as no other request of this call was out in it.
        """
        if self.started and not self._out:
            stood_still = self._loop.time() - max(waiting_since, self._idle_since)
            self._deadline = self.deadline + max(0.0, stood_still)
        self.start()
        self._out += 1

    def sent(self) -> None:
        """Note that a request is over, however it ended."""
        self._out -= 1
        self._idle_since = self._loop.time()

    @property
    def deadline(self) -> float:
        """When the call has to be over, on the loop's clock."""
        self.start()
        assert self._deadline is not None  # noqa: S101 - start() has just set it
        return self._deadline

    @property
    def attempt_deadline(self) -> float:
        """When a request that is sent now has to be answered: at most half the call, so that a second is possible."""
        return min(self.deadline, self._loop.time() + self._timeout / 2)

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self._deadline is not None and self._loop.time() >= self._deadline
