"""While AIOIGD_LOOPBACK_ONLY is set, nothing leaves loopback, and whoever tries is told what to do about it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from aioigd import PortMapper
from aioigd.cli.doctor import collect
from aioigd.errors import NoRouteError
from aioigd.net import guard
from aioigd.net.interfaces import Interface
from aioigd.testing import EmulatedGateway
from aioigd.upnp import search
from aioigd.upnp.net import lenient_http
from aioigd.upnp.net.event_server import CallbackServer
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.net.ssdp_listener import SsdpListener
from aioigd.upnp.net.ssdp_search import Ask, SsdpSearch
from aioigd.upnp.wire.url import HttpUrl

from ..support import sockets

LAN = "192.0.2.1"
"""An address that is not ours. What is sent to it is sent from loopback, and stays even where the guard fails."""
LAN6 = "2001:db8::1"
GROUP = "239.255.255.250"
TRAP = "AIOIGD_LOOPBACK_ONLY is set, and {} is not on loopback: .*source_address=.127.0.0.1"

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guard.VARIABLE, "1")


def escapes(host: str, source: str = "") -> bool:
    try:
        guard.check_destination(host, source)
    except NoRouteError:
        return False
    return True


def trapped(where: str) -> pytest.RaisesExc[NoRouteError]:
    return pytest.raises(NoRouteError, match=TRAP.format(where))


@pytest.mark.one_loop
@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.1.2", "::1", "::1%lo", "::ffff:127.0.0.1", "localhost"])
async def test_loopback_is_allowed_whatever_it_is_sent_from(host: str) -> None:
    assert escapes(host)
    assert escapes(host, LAN)


@pytest.mark.one_loop
@pytest.mark.parametrize("host", [LAN, LAN6, "::ffff:192.0.2.1", "fe80::1%eth0", "0.0.0.0", "::", "router.lan", ""])
async def test_everything_else_is_refused_also_from_a_loopback_address(host: str) -> None:
    assert not escapes(host)
    assert not escapes(host, "127.0.0.1")


@pytest.mark.one_loop
@pytest.mark.parametrize("group", [GROUP, "ff02::c", "ff05::c%2"])
async def test_a_group_is_where_it_is_sent_from(group: str) -> None:
    assert escapes(group, "127.0.0.1")
    assert escapes(group, "::1")
    assert not escapes(group, LAN)
    assert not escapes(group, "fe80::1%eth0")
    assert not escapes(group)


@pytest.mark.one_loop
@pytest.mark.parametrize("value", [None, "", "0"])
async def test_it_is_off_where_nobody_has_switched_it_on(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(guard.VARIABLE)
    if value is not None:
        monkeypatch.setenv(guard.VARIABLE, value)
    assert not guard.is_loopback_only()
    assert escapes(LAN)
    assert escapes(GROUP)


async def test_a_request_goes_nowhere() -> None:
    client = HttpClient()
    deadline = asyncio.get_running_loop().time() + 10
    before = sockets()
    try:
        with trapped(LAN):
            await client.request("GET", HttpUrl(LAN, 80, "/"), deadline=deadline, source="127.0.0.1")
        with trapped(LAN6):
            await client.request("GET", HttpUrl(LAN6, 80, "/"), deadline=deadline, source="::1")
        assert sockets() == before
    finally:
        await client.close()


async def test_the_tolerant_reader_sends_nothing_either() -> None:
    before = sockets()
    with trapped(LAN):
        await lenient_http.ask("GET", HttpUrl(LAN, 80, "/"), "127.0.0.1", {}, None)
    assert sockets() == before


async def test_a_search_is_refused_as_a_whole_if_any_of_its_interfaces_leads_out() -> None:
    before = sockets()
    with trapped(rf"{GROUP} \(from {LAN}\)"):
        async with SsdpSearch([Interface("127.0.0.1", 1), Interface(LAN, 2)], lambda _: None, ttl=2, local_port=0):
            raise AssertionError("it has been opened")
    assert sockets() == before


async def test_a_search_on_loopback_does_not_ask_a_host_elsewhere() -> None:
    here = Interface("127.0.0.1", 1)
    with trapped(rf"{LAN} \(from 127.0.0.1\)"):
        async with SsdpSearch([here], lambda _: None, ttl=2, local_port=0, asks=[Ask(LAN, here)]):
            raise AssertionError("it has been opened")


async def test_no_notices_are_heard_beyond_loopback() -> None:
    listener = SsdpListener(lambda _: True, lambda *_: None)
    before = sockets()
    with trapped(rf"{GROUP} \(from {LAN}\)"):
        listener.follow([Interface("127.0.0.1", 1), Interface(LAN, 2)])
    assert sockets() == before


async def test_no_events_are_received_beyond_loopback() -> None:
    """As where that is impossible: a lease is without events then, and says so in the log."""
    server = CallbackServer(LAN, LAN, lambda values, seq: None)
    with pytest.raises(OSError, match=TRAP.format(LAN)):
        await server.open()


async def test_a_forgotten_source_address_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "interfaces", lambda **_: [Interface(LAN, 2)])
    async with PortMapper() as mapper:
        for work in (mapper.add_port_mapping(8080), mapper.get_gateway(), mapper.discover(0.5)):
            with trapped(rf"{GROUP} \(from {LAN}\)"):
                await work


@pytest.mark.parametrize("host", [LAN, "no-such-name.invalid"])
async def test_a_location_elsewhere_is_refused_before_its_name_is_looked_up(host: str) -> None:
    async with PortMapper(source_address="127.0.0.1", location=f"http://{host}:5000/rootDesc.xml") as mapper:
        with trapped(host):
            await mapper.get_gateway()


async def test_a_search_at_one_host_elsewhere_is_refused() -> None:
    async with PortMapper(source_address="127.0.0.1") as mapper:
        with trapped(rf"{LAN} \(from 127.0.0.1\)"):
            async for _ in mapper.iter_devices(0.5, host=LAN):
                pass


async def test_a_lease_with_a_location_on_loopback_listens_to_no_real_network(
    gateway: EmulatedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a source address it would join the group on all interfaces; it goes on without notices."""
    caplog.set_level("INFO", "aioigd.lease")
    async with PortMapper(location=gateway.location) as mapper, mapper.lease(8080) as lease:
        assert lease.external_port == 8080
    said = [record.getMessage() for record in caplog.records if "no notices" in record.getMessage()]
    assert all("AIOIGD_LOOPBACK_ONLY" in text or "no network" in text for text in said)
    assert said


async def test_the_doctor_does_not_see_whether_a_router_elsewhere_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(*_: object) -> None:
        raise AssertionError("it has tried")

    monkeypatch.setattr(asyncio, "open_connection", connect)
    assert not await collect._is_host_up(LAN, 1.0)


@pytest.mark.one_loop
async def test_it_is_read_when_it_is_needed_and_inherited_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "from aioigd.net import guard; print(guard.is_loopback_only())"
    on = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: ASYNC221
    assert on.stdout.strip() == "True"
    monkeypatch.delenv(guard.VARIABLE)
    assert guard.VARIABLE not in os.environ
    assert not guard.is_loopback_only()


async def test_on_loopback_everything_works(gateway: EmulatedGateway) -> None:
    async with PortMapper(source_address=gateway.address) as mapper, mapper.lease(8080) as lease:
        assert lease.external_port == 8080
        assert [mapping.external_port for mapping in gateway.mappings] == [8080]
