"""What the examination of a device says of it: the ten statuses, and which of several connections is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from aioigd import DeadlineError, Device, IGDStatus, InvalidResponseError, TransportError
from aioigd.testing import EmulatedGateway, Quirk, UPnPError, quirks
from aioigd.testing.device_tree import Device as Tree
from aioigd.testing.device_tree import Service, Site
from aioigd.testing.hooks import Exchange, Proceed
from aioigd.testing.http import End, Response
from aioigd.testing.wan_connection import ActionCall, Outputs
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.probe import ProbeResult, probe
from aioigd.upnp.wire.url import parse_url

from ..support import NOTHING, Canary, odd, page

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


async def look_at(http: HttpClient, gateway: EmulatedGateway, location: str = "", *, seconds: float = 5) -> ProbeResult:
    deadline = asyncio.get_running_loop().time() + seconds
    url = parse_url(location or gateway.location)
    return await probe(http, url, our_address=gateway.address, deadline=deadline, search_target="st", server="srv")


def described_by(response: Response) -> Quirk[[]]:
    """A device that serves this for its description."""

    def intercept(exchange: Exchange) -> Response | None:
        return response if exchange.purpose == "description" else None

    return odd(intercept=intercept)


def with_services(change: Callable[[Service], Service | None]) -> Quirk[[]]:
    """A device whose WAN connection services are other than usual."""
    return odd(device=lambda tree, _: tree.with_each_service(lambda s: change(s) if s.is_wan_connection else s))


def with_connections(*names: str) -> Quirk[[]]:
    """A gateway with several WAN connections; only the one called "main" works."""

    def change(tree: Tree, _: Site) -> Tree:
        def replaced(device: Tree) -> Tree:
            if not any(service.is_wan_connection for service in device.services):
                return device
            services = tuple(
                Service.standard("WANIPConnection" if number % 2 else "WANPPPConnection", 1, f"Conn{number}", name)
                for number, name in enumerate(names)
            )
            return replace(device, services=services)

        return tree.with_each_device(replaced)

    return odd(device=change)


def saying(action: str, what: Callable[[ActionCall], Outputs]) -> Quirk[[]]:
    def answer(call: ActionCall, proceed: Proceed) -> Outputs:
        return what(call) if call.action == action else proceed(call)

    return odd(action=answer)


# The ten statuses


async def test_a_gateway_is_ok_after_one_request(http: HttpClient) -> None:
    async with EmulatedGateway(address=None, friendly_name="A & B") as gateway:
        examined = await look_at(http, gateway)
        device = examined.device
        assert device == Device(
            description_url=gateway.location,
            service_type="st",
            igd_control_url=device.igd_control_url,
            igd_service_type="urn:schemas-upnp-org:service:WANIPConnection:1",
            igd_our_addr=gateway.address,
            igd_status=IGDStatus.OK,
            device_type="urn:schemas-upnp-org:device:InternetGatewayDevice:1",
            serial_number=device.serial_number,
            model_number=device.model_number,
            presentation_url=device.presentation_url,
            friendly_name="A & B",
            manufacturer="aioigd",
            model_name="Emulated Internet Gateway Device",
            udn=device.udn,
            server="srv",
            event_urls=device.event_urls,
        )
        assert device.is_valid_gateway()
        assert examined.is_usable
        assert examined.failure is None
        assert [request.kind for request in gateway.requests] == ["GET"]


@pytest.mark.parametrize(
    ("status", "quirk"),
    [
        pytest.param(IGDStatus.HTTP_ERROR, described_by(page("<html>no</html>", 404)), id="not found"),
        pytest.param(IGDStatus.HTTP_ERROR, described_by(page("oops", 500)), id="server error"),
        pytest.param(IGDStatus.HTTP_ERROR, described_by(page("", end=End.RESET, length=lambda _: 9)), id="cut off"),
        pytest.param(IGDStatus.HTTP_ERROR, odd(transmission=lambda _, __: NOTHING), id="cut at once"),
        pytest.param(IGDStatus.HTTP_EMPTY, described_by(page("")), id="empty"),
        pytest.param(IGDStatus.HTTP_EMPTY, described_by(page(" \r\n\0")), id="blank"),
        pytest.param(IGDStatus.NO_URLS, with_services(lambda s: replace(s, control_url="")), id="no URL"),
        pytest.param(IGDStatus.NO_IGD, with_services(lambda _: None), id="no service"),
        pytest.param(IGDStatus.UNKNOWN_DEVICE, described_by(page("<html>Welcome</html>")), id="page"),
        pytest.param(IGDStatus.UNKNOWN_DEVICE, described_by(page("Welcome")), id="text"),
        pytest.param(IGDStatus.UNKNOWN_DEVICE, described_by(page("<!DOCTYPE x><root/>")), id="DTD"),
        pytest.param(IGDStatus.UNKNOWN_DEVICE, described_by(page("<a>" + "x" * 300_000)), id="too long"),
        pytest.param(
            IGDStatus.INVALID_CONTROL,
            with_services(lambda s: replace(s, control_url="https://192.168.1.1/ctl")),
            id="not http",
        ),
    ],
)
async def test_what_is_no_gateway_has_a_status_that_says_why(
    http: HttpClient, status: IGDStatus, quirk: Quirk[...]
) -> None:
    async with EmulatedGateway(quirk, address=None) as gateway:
        examined = await look_at(http, gateway)
        assert examined.device.igd_status is status
        assert examined.device.description_url == gateway.location
        assert not examined.device.is_valid_gateway()
        assert not examined.is_usable


async def test_where_nobody_listens_the_status_is_http_error(http: HttpClient, gateway: EmulatedGateway) -> None:
    location = gateway.location
    await gateway.stop()
    examined = await look_at(http, gateway, location)
    assert examined.device.igd_status is IGDStatus.HTTP_ERROR
    assert isinstance(examined.failure, TransportError)


async def test_what_hangs_is_given_up_at_the_deadline(http: HttpClient, gateway: EmulatedGateway) -> None:
    gateway.hang()
    examined = await asyncio.wait_for(look_at(http, gateway, seconds=0.1), 5)
    assert examined.device.igd_status is IGDStatus.HTTP_ERROR
    assert isinstance(examined.failure, DeadlineError)


async def test_a_redirect_is_not_followed(http: HttpClient, canary: Canary) -> None:
    redirect = Response(302, (("Location", canary.location),), b"<html>elsewhere</html>")
    async with EmulatedGateway(described_by(redirect), address=None) as gateway:
        examined = await look_at(http, gateway)
        assert examined.device.igd_status is IGDStatus.HTTP_ERROR
        assert len(gateway.requests) == 1


async def test_a_device_that_has_not_been_examined_has_an_unknown_status() -> None:
    assert Device().igd_status is IGDStatus.UNKNOWN_ERROR


async def test_failures_tell_their_reason(http: HttpClient) -> None:
    async with EmulatedGateway(described_by(page("oops", 503)), address=None) as gateway:
        examined = await look_at(http, gateway)
        assert isinstance(examined.failure, InvalidResponseError)
        assert examined.failure.status == 503
        assert "HTTP status 503" in str(examined.failure)


async def test_a_control_url_on_another_host_is_taken_at_the_device(http: HttpClient, canary: Canary) -> None:
    foreign = with_services(lambda s: replace(s, control_url=f"http://{canary.address}:{canary.port}/ctl"))
    async with EmulatedGateway(foreign, address=None) as gateway:
        device = (await look_at(http, gateway)).device
        places = (device.igd_control_url, *device.alternative_control_urls)
        assert {parse_url(url).host for url in places} == {gateway.address}


# Several connections


async def chosen(http: HttpClient, *quirks: Quirk[...], connected: bool = True) -> tuple[str, IGDStatus, int]:
    """Return the control path that is chosen, the status, and how many requests that took."""
    async with EmulatedGateway(*quirks, address=None) as gateway:
        gateway.connected = connected
        device = (await look_at(http, gateway)).device
        return parse_url(device.igd_control_url).target, device.igd_status, len(gateway.requests)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
async def test_of_several_connections_the_one_that_is_connected_is_taken(http: HttpClient, place: int) -> None:
    names = [f"down {number}" for number in range(4)]
    names[place] = "main"
    path, status, requests = await chosen(http, with_connections(*names))
    assert (path, status) == (f"/ctl/Conn{place}", IGDStatus.OK)
    assert requests == 1 + place + 2  # those before it are down, and it is asked for its address as well


async def test_where_none_of_several_is_connected_the_first_is_a_last_resort(http: HttpClient) -> None:
    async with EmulatedGateway(with_connections("a", "b"), address=None) as gateway:
        examined = await look_at(http, gateway)
        assert examined.device.igd_status is IGDStatus.DISCONNECTED
        assert not examined.device.is_valid_gateway()
        assert examined.is_usable


async def test_a_single_connection_is_not_asked_for_its_status(http: HttpClient) -> None:
    assert await chosen(http, connected=False) == ("/ctl/WANIPConn1", IGDStatus.OK, 1)


async def test_a_gateway_without_the_status_action_may_be_connected(http: HttpClient) -> None:
    def refuse(_: ActionCall) -> Outputs:
        raise UPnPError(401)

    both = [with_connections("down", "main"), saying("GetStatusInfo", refuse)]
    path, status, _ = await chosen(http, *both)
    assert (path, status) == ("/ctl/Conn1", IGDStatus.OK)  # it has an address


async def test_a_public_address_is_better_than_a_private_one(http: HttpClient) -> None:
    def address(call: ActionCall) -> Outputs:
        return {"NewExternalIPAddress": next(addresses)}

    addresses = iter(["192.168.7.7", "11.22.33.44"])
    up = saying("GetStatusInfo", lambda _: {"NewConnectionStatus": "Connected"})
    path, status, _ = await chosen(http, with_connections("a", "b"), up, saying("GetExternalIPAddress", address))
    assert (path, status) == ("/ctl/Conn1", IGDStatus.OK)


async def test_among_equals_the_first_is_taken(http: HttpClient) -> None:
    up = saying("GetStatusInfo", lambda _: {"NewConnectionStatus": "Up"})
    private = saying("GetExternalIPAddress", lambda _: {"NewExternalIPAddress": "192.168.7.7"})
    path, status, _ = await chosen(http, with_connections("a", "b", "c"), up, private)
    assert (path, status) == ("/ctl/Conn0", IGDStatus.OK)


@pytest.mark.waits
async def test_a_connection_that_hangs_is_passed_over(http: HttpClient) -> None:
    def intercept(exchange: Exchange) -> Any:
        return Response(end=End.HANG, delay=60) if exchange.request.target == "/ctl/Conn0" else None

    async with EmulatedGateway(with_connections("main", "main"), odd(intercept=intercept), address=None) as gateway:
        device = (await asyncio.wait_for(look_at(http, gateway, seconds=6), 10)).device
        assert parse_url(device.igd_control_url).target == "/ctl/Conn1"


def answering_after(**seconds: float) -> Quirk[[]]:
    """A gateway each of whose connections takes so many seconds for an answer."""
    return odd(
        response=lambda exchange, response: response.delayed(seconds.get(exchange.request.target.rpartition("/")[2], 0))
    )


@pytest.mark.waits
@pytest.mark.parametrize(
    ("names", "seconds", "path", "is_guess"),
    [
        pytest.param(("down", "main"), {"Conn0": 2.5, "Conn1": 2.5}, "/ctl/Conn1", False, id="slow"),
        pytest.param(("main", "down"), {"Conn0": 1.5, "Conn1": 1.5}, "/ctl/Conn0", False, id="slow, the first is up"),
        pytest.param(("down", "main"), {"Conn0": 60, "Conn1": 60}, "/ctl/Conn0", True, id="silent"),
        pytest.param(("down", "main"), {"Conn0": 2.5, "Conn1": 60}, "/ctl/Conn1", True, id="slow, one is silent"),
        pytest.param(("down", "main"), {"Conn1": 60}, "/ctl/Conn0", False, id="one is down, the other hangs"),
    ],
)
async def test_a_slow_gateway_has_the_time_of_the_description(
    http: HttpClient, names: tuple[str, ...], seconds: dict[str, float], path: str, is_guess: bool
) -> None:
    async with EmulatedGateway(with_connections(*names), answering_after(**seconds), address=None) as gateway:
        probed = await look_at(http, gateway, seconds=3.5)
        assert (parse_url(probed.device.igd_control_url).target, probed.is_guess) == (path, is_guess)
        assert probed.device.is_valid_gateway() is (max(seconds.values()) < 60)


@pytest.mark.waits
async def test_a_question_that_hung_once_is_asked_again(http: HttpClient) -> None:
    both = with_connections("main", "down"), quirks.hangs_at_first("GetStatusInfo")
    assert (await chosen(http, *both))[:2] == ("/ctl/Conn0", IGDStatus.OK)


@pytest.mark.waits
@pytest.mark.parametrize("quirk", [quirks.one_connection_or_reset, quirks.one_connection_or_close], ids=repr)
async def test_what_was_cut_beside_another_question_is_asked_again(http: HttpClient, quirk: Quirk[...]) -> None:
    slow = answering_after(Conn0=1.2, Conn1=0.8)
    assert (await chosen(http, with_connections("down", "main"), slow, quirk))[:2] == ("/ctl/Conn1", IGDStatus.OK)


@pytest.mark.waits
async def test_one_that_hangs_delays_one_that_seems_to_be_connected_no_longer_than_before(http: HttpClient) -> None:
    private = saying("GetExternalIPAddress", lambda _: {"NewExternalIPAddress": "192.168.7.7"})
    both = with_connections("main", "main"), answering_after(Conn0=60)
    async with EmulatedGateway(private, *both, address=None) as gateway:
        began = asyncio.get_running_loop().time()
        assert parse_url((await look_at(http, gateway)).device.igd_control_url).target == "/ctl/Conn1"
        assert asyncio.get_running_loop().time() - began < 2.5


async def test_however_many_connections_there_are_only_a_handful_is_asked(http: HttpClient) -> None:
    _, status, requests = await chosen(http, with_connections(*(f"down {number}" for number in range(60))))
    assert status is IGDStatus.DISCONNECTED
    assert requests == 5
