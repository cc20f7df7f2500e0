"""What NOTIFYs mean, and where they can be heard: in virtual time, with real sockets on loopback."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from aioigd import Device, NoRouteError
from aioigd.core.backend import Hint, SearchScope
from aioigd.net.interfaces import Interface
from aioigd.upnp import reboot
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.reboot import RebootDetector, UpnpListener
from aioigd.upnp.wire.ssdp import Announcement

from ..leases.virtual import run

LOOPBACK = Interface("127.0.0.1", socket.if_nametoindex("lo"))
CANNOT = Interface("::1", 9999)
GATEWAY = Device(udn="uuid:1", description_url="http://192.168.1.1:5000/desc.xml")


class Machine:
    """A machine whose interfaces come and go, and what a listener there has said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *interfaces: Interface) -> None:
        self.present = [*interfaces]
        self.looks = 0
        self.hints: list[Hint] = []
        self.listener = UpnpListener(HttpClient(), self.hints.append)
        monkeypatch.setattr(reboot, "interfaces", self._interfaces)

    @property
    def joined(self) -> frozenset[Interface]:
        return self.listener._notifies.interfaces

    def _interfaces(self, **_: object) -> list[Interface]:
        self.looks += 1
        if not self.present:
            raise NoRouteError("this machine has no network with IPv4")
        return self.present


def test_a_network_that_comes_later_is_joined_within_5_s(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioigd.lease")

    async def main() -> None:
        machine = Machine(monkeypatch)
        await machine.listener.open(SearchScope())
        await asyncio.sleep(62.0)
        assert machine.looks == 13, "at once, and then every 5 s"
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.INFO] == [
            "no notices of the gateway can be heard: this machine has no network with IPv4 [SOCKET_ERROR]"
        ]
        machine.present = [LOOPBACK]
        await asyncio.sleep(5.0)
        assert machine.joined == {LOOPBACK}
        assert machine.hints == [Hint.CHANGED], "it is time to look at the gateway"
        looks = machine.looks
        await asyncio.sleep(600.0)
        assert machine.looks == looks, "where all is joined only polls and searches look"
        await machine.listener.close()

    run(main())


def test_with_each_refresh_membership_follows_the_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        machine = Machine(monkeypatch, LOOPBACK)
        await machine.listener.open(SearchScope())
        assert machine.joined == {LOOPBACK}
        machine.listener.refresh()
        assert machine.hints == []
        machine.present = []
        machine.listener.refresh()
        assert machine.joined == frozenset()
        machine.present = [LOOPBACK]
        machine.listener.refresh()
        assert machine.joined == {LOOPBACK}
        assert machine.hints == [Hint.CHANGED]
        await machine.listener.close()
        assert machine.joined == frozenset()
        machine.listener.refresh()
        assert machine.joined == frozenset(), "it is closed"

    run(main())


def test_one_that_cannot_be_joined_is_said_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioigd.lease")
    # The guard of tests looks at the address, and the system at the interface, which does not exist.

    async def main() -> None:
        machine = Machine(monkeypatch, LOOPBACK, CANNOT)
        await machine.listener.open(SearchScope())
        await asyncio.sleep(30.0)
        assert machine.looks == 6 + 1
        assert machine.joined == {LOOPBACK}
        assert machine.hints == []
        await machine.listener.close()
        await asyncio.sleep(30.0)
        assert machine.looks == 6 + 1

    run(main())
    assert [record.getMessage()[:48] for record in caplog.records] == [
        "no notices of the gateway can be heard on ::1: ["
    ]


def test_a_loop_without_readers_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioigd.lease")

    async def main() -> None:
        def add_reader(*_: object) -> None:
            raise NotImplementedError

        machine = Machine(monkeypatch, LOOPBACK)
        monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
        await machine.listener.open(SearchScope())
        machine.listener.refresh()
        await asyncio.sleep(30.0)
        assert (machine.looks, machine.joined) == (1, frozenset())
        await machine.listener.close()

    run(main())
    assert len(caplog.records) == 1


def said(kind: str = "ssdp:alive", boot_id: int | None = None, **changes: str) -> Announcement:
    return Announcement(
        kind, changes.get("location", GATEWAY.description_url), "upnp:rootdevice", "uuid:1::x", "", boot_id
    )


@pytest.mark.parametrize(
    ("notifies", "hints"),
    [
        ([said()], [None]),
        ([said("ssdp:byebye")] * 2, [Hint.RESTARTED, None]),
        ([said("ssdp:byebye"), said(), said()], [Hint.RESTARTED, Hint.RESTARTED, None]),
        ([said(location="http://192.168.1.1:5001/desc.xml")], [Hint.RESTARTED]),
        ([said(location="http://10.0.0.1:5000/desc.xml")], [None]),
        ([said(boot_id=7)] * 2, [Hint.CHANGED, None]),
        ([said(boot_id=7), said(boot_id=8)], [Hint.CHANGED, Hint.RESTARTED]),
    ],
)
def test_what_a_notify_means(notifies: list[Announcement], hints: list[Hint | None]) -> None:
    detector = RebootDetector()
    assert [detector.on_notify(notify, GATEWAY) for notify in notifies] == hints
