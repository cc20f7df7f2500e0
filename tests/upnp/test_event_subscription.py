"""A subscription is renewed at half its time, made again where it was forgotten, and cancelled in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from aioigd import Device, TransportError
from aioigd.upnp import event_subscription
from aioigd.upnp.event_subscription import EventSubscription
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.wire.http_reply import BodyRule, HttpReply
from aioigd.upnp.wire.url import HttpUrl

from ..leases.virtual import run

DEVICE = Device(event_urls=("http://127.0.0.1:9/evt",), igd_our_addr="127.0.0.1")
ELSEWHERE = Device(event_urls=("http://127.0.0.1:10/evt",), igd_our_addr="127.0.0.1")


class Publisher(HttpClient):
    """A gateway that grants subscriptions, in the place of the HTTP client; ``said`` is what it was asked."""

    def __init__(self, *statuses: int, seconds: int = 100) -> None:
        super().__init__()
        self.statuses = list(statuses)
        self.seconds = seconds
        self.said: list[str] = []
        self.times: list[float] = []
        self.serial = 0

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
        keep: object = None,
    ) -> HttpReply:
        sid = (headers or {}).get("SID", "")
        kind = "new" if method == "SUBSCRIBE" and not sid else method
        self.said.append(" ".join(filter(None, [kind, sid, str(url.port) if url.port != 9 else ""])))
        self.times.append(asyncio.get_running_loop().time())
        status = self.statuses.pop(0) if self.statuses else 200
        if not status:
            raise TransportError("nobody there", may_have_arrived=False)
        self.serial += not sid
        return HttpReply(
            status, b"", headers={"SID": sid or f"uuid:{self.serial}", "TIMEOUT": f"Second-{self.seconds}"}
        )


def heard(publisher: Publisher, seconds: float, *then: tuple[Device | None, bool]) -> list[str]:
    """Follow the device for some seconds, then others, each for a moment; return what the publisher was asked."""

    async def main() -> None:
        events = EventSubscription(publisher, lambda: None)
        events.follow(DEVICE, resubscribe=False)
        await asyncio.sleep(seconds)
        for device, anew in then:
            events.follow(device, resubscribe=anew)
            await asyncio.sleep(1.0)
        await events.close()

    run(main())
    return publisher.said


BYE = "UNSUBSCRIBE uuid:1"
RENEWAL = "SUBSCRIBE uuid:1"


@pytest.mark.parametrize("seconds", [100, 1800, 86_400])
def test_it_is_renewed_at_half_its_time(seconds: int) -> None:
    publisher = Publisher(seconds=seconds)
    assert heard(publisher, 2.1 * seconds) == ["new", *[RENEWAL] * 4, BYE]
    assert publisher.times[:5] == pytest.approx([number * seconds / 2 for number in range(5)], abs=0.1)


@pytest.mark.parametrize("status", [412, 500, 0])
def test_a_renewal_that_fails_is_a_new_subscription_at_once(status: int) -> None:
    publisher = Publisher(200, status)
    heard(publisher, 51.0)
    assert publisher.said[:3] == ["new", RENEWAL, "new"]
    assert publisher.said[-1].startswith("UNSUBSCRIBE uuid:")


def test_a_gateway_that_once_had_events_is_asked_again_later() -> None:
    publisher = Publisher(200, 412, 503, 0)
    heard(publisher, 51.0 + 2 * event_subscription._RESUBSCRIBE_PAUSE)
    assert publisher.said[:5] == ["new", RENEWAL, "new", "new", "new"]
    assert publisher.times[3] - publisher.times[2] == pytest.approx(event_subscription._RESUBSCRIBE_PAUSE, abs=0.1)


@pytest.mark.parametrize("status", [404, 501, 0])
def test_one_that_never_had_any_is_asked_once(status: int) -> None:
    assert heard(Publisher(status), 100_000.0) == ["new"]


@pytest.mark.parametrize(
    ("device", "anew", "said"),
    [
        (DEVICE, False, ["new", BYE]),
        (DEVICE, True, ["new", "new", BYE, "UNSUBSCRIBE uuid:2"]),
        (ELSEWHERE, False, ["new", "new 10", BYE, "UNSUBSCRIBE uuid:2 10"]),
        (None, False, ["new", BYE]),
        (Device(), False, ["new", BYE]),
    ],
)
def test_it_follows_the_gateway(device: Device | None, anew: bool, said: list[str]) -> None:
    assert sorted(heard(Publisher(), 1.0, (device, anew))) == sorted(said)


def test_where_it_cannot_listen_it_asks_for_nothing() -> None:
    async def main() -> None:
        publisher = Publisher()
        events = EventSubscription(publisher, lambda: None)
        events.follow(Device(event_urls=DEVICE.event_urls, igd_our_addr="192.0.2.1"), resubscribe=False)
        await asyncio.sleep(1.0)
        await events.close()
        assert publisher.said == []

    run(main())


HOME = {"externalipaddress": "1.2.3.4", "connectionstatus": "Connected"}


def test_only_what_differs_and_is_of_interest_is_told() -> None:
    told: list[int] = []
    hear = event_subscription.ChangeFilter(lambda: told.append(1), "1.2.3.4")
    for values, seq, number in (
        (HOME, 0, 0),
        ({"externalipaddress": "1.2.3.4"}, 1, 0),
        ({"portmappingnumberofentries": "3"}, 2, 0),
        ({"externalipaddress": "5.6.7.8"}, 3, 1),
        ({"connectionstatus": "Disconnected"}, 4, 2),
        ({"externalipaddress": "5.6.7.8"}, 5, 2),
        ({"externalipaddress": "9.9.9.9"}, 0, 3),
    ):
        hear(values, seq)
        assert len(told) == number


@pytest.mark.parametrize(
    ("known", "said", "is_told"),
    [
        ("1.2.3.4", "1.2.3.4", False),
        ("1.2.3.4", "5.6.7.8", True),
        ("1.2.3.4", "", True),
        ("", "1.2.3.4", True),
        ("", "", False),
        ("", "0.0.0.0", False),
        ("", "none", False),
    ],
)
def test_the_first_event_is_told_where_it_contradicts_what_is_known(known: str, said: str, is_told: bool) -> None:
    told: list[int] = []
    hear = event_subscription.ChangeFilter(lambda: told.append(1), known)
    hear({"externalipaddress": said, "connectionstatus": "Connected"}, 0)
    hear({"externalipaddress": said}, 1)
    assert len(told) == is_told
    hear.subscribed()
    hear({"externalipaddress": said}, 0)
    assert len(told) == is_told, "who contradicts itself all the time is asked once"


def test_what_has_become_known_meanwhile_counts_and_not_the_event_before() -> None:
    told: list[int] = []
    hear = event_subscription.ChangeFilter(lambda: told.append(1), "1.2.3.4")
    hear({"externalipaddress": "5.6.7.8"}, 0)
    hear.note_address("5.6.7.8")
    hear.note_address("1.2.3.4")
    hear({"externalipaddress": "1.2.3.4"}, 1)
    assert len(told) == 1
    hear({"externalipaddress": "5.6.7.8"}, 2)
    assert len(told) == 2


@pytest.mark.parametrize(
    ("seqs", "missed"),
    [
        ([0, 1, 2, 3], 0),
        ([1], 1),
        ([0, 2, 3], 1),
        ([0, 1, 1], 1),
        ([0, 2**32 - 1, 1, 2], 1),
        ([0, 2**32 - 1, 0, 1], 1),
        ([None, None, 0, 1], 0),
        ([0, 1, None, 2], 0),
    ],
)
def test_events_that_were_missed_are_a_hint(seqs: list[int | None], missed: int) -> None:
    told: list[int] = []
    hear = event_subscription.ChangeFilter(lambda: told.append(1), "1.2.3.4")
    for seq in seqs:
        hear(HOME, seq)
    assert len(told) == missed
