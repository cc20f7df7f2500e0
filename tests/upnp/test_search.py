"""The search for a gateway: whom it finds, when it is over, and what it may cost on a network full of liars."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from aioigd import DeadlineError, Device, DiscoveryError, IGDError, IGDStatus, TransportError, UPnPResult
from aioigd.core.backend import SearchScope
from aioigd.core.finder import Finder
from aioigd.net import names
from aioigd.net.interfaces import Interface
from aioigd.testing import EmulatedGateway, Quirk, loopback_address, network, quirks
from aioigd.testing.device_tree import Device as Tree
from aioigd.testing.device_tree import Site
from aioigd.testing.http import HttpRequest, Response
from aioigd.testing.ssdp import Datagram, Message, Search
from aioigd.upnp import search as search_module
from aioigd.upnp.driver import UpnpDriver
from aioigd.upnp.net import ssdp_search
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.net.ssdp_search import SearchReply
from aioigd.upnp.search import MAX_DEVICES, DeviceSearch
from aioigd.upnp.sibling_services import search_by_udn
from aioigd.upnp.wire import ssdp
from aioigd.upnp.wire.ssdp import Announcement, parse_datagram

from ..leases.virtual import run
from ..support import NOTHING, Canary, Neighbour, answer, description, odd, page

IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"

pytestmark = [pytest.mark.usefixtures("nothing_is_left"), pytest.mark.one_loop]


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def finder(http: HttpClient, source: str | None, **options: Any) -> Finder:
    scope = SearchScope(source_address=source, **options)
    return Finder([UpnpDriver(scope, http)], scope)


async def find(http: HttpClient, source: str | None, timeout: float = 5, **options: Any) -> Device:
    return (await finder(http, source, **options).find_gateway(timeout))[0]


def now() -> float:
    return asyncio.get_running_loop().time()


def elapsed() -> Any:
    loop = asyncio.get_running_loop()
    began = loop.time()
    return lambda: loop.time() - began


def announcing(*locations: str) -> Quirk[[]]:
    """A gateway that says it is elsewhere; ``{port}`` stands for its real port."""

    def replies(_: Search, messages: list[Message], site: Site) -> Iterator[Message]:
        for message in messages:
            for location in locations:
                yield message.having("LOCATION", location.format(port=site.port))

    return odd(replies=replies)


def media_server() -> Quirk[[]]:
    def change(tree: Tree, _: Site) -> Tree:
        return replace(tree, device_type="urn:schemas-upnp-org:device:MediaServer:1", devices=())

    return odd(device=change)


# On a quiet network


async def test_a_gateway_is_found_with_one_round_of_searches_and_one_request(
    http: HttpClient, gateway: EmulatedGateway
) -> None:
    device, devices = await finder(http, gateway.address).find_gateway(5)
    assert devices == [device]
    assert device.description_url == gateway.location
    assert device.igd_our_addr == gateway.address
    assert device.service_type == "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
    assert device.server
    assert gateway.search_rounds == 1
    assert gateway.count("GET") == 1
    assert gateway.count("POST") == 0


async def test_the_search_is_over_as_soon_as_a_gateway_is_certain(http: HttpClient, gateway: EmulatedGateway) -> None:
    took = elapsed()
    await find(http, gateway.address, 60)
    assert took() < 2


@pytest.mark.waits
async def test_a_gateway_that_misses_the_first_searches_is_found_by_a_later_one(http: HttpClient) -> None:
    heard: list[str] = []

    def hears(search: Search) -> bool:
        heard.append(search.target)
        return heard.count("upnp:rootdevice") > 2

    async with EmulatedGateway(odd(hears=hears), address=None) as gateway:
        assert (await find(http, gateway.address, 5)).is_valid_gateway()
        assert gateway.search_rounds >= 2


@pytest.mark.parametrize(
    "target",
    [
        "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
        "upnp:rootdevice",
        "urn:schemas-upnp-org:service:WANIPConnection:1",
        "ssdp:all",
    ],
)
@pytest.mark.waits
async def test_a_gateway_that_answers_to_one_target_only_is_found(http: HttpClient, target: str) -> None:
    async with EmulatedGateway(odd(hears=lambda search: search.target == target), address=None) as gateway:
        assert (await find(http, gateway.address, 3)).is_valid_gateway()


async def test_a_gateway_that_answers_from_another_port_and_late_is_found(http: HttpClient) -> None:
    def datagrams(_: Search, given: list[Datagram], __: Site) -> list[Datagram]:
        return [replace(datagram, delay=0.3, other_port=True) for datagram in given]

    async with EmulatedGateway(odd(datagrams=datagrams), address=None) as gateway:
        assert (await find(http, gateway.address)).is_valid_gateway()


async def test_nobody_at_all_is_no_devices(http: HttpClient, address: str) -> None:
    took = elapsed()
    with pytest.raises(DiscoveryError) as caught:
        await find(http, address, 0.3)
    assert caught.value.result is UPnPResult.NO_DEVICES
    assert 0.25 < took() < 2


@pytest.mark.waits
async def test_others_but_no_gateway_is_no_gateway_and_says_who_they_were(http: HttpClient) -> None:
    async with EmulatedGateway(media_server(), address=None, friendly_name="The telly") as telly:
        with pytest.raises(DiscoveryError, match="The telly: NO_IGD") as caught:
            await find(http, telly.address, 0.5)
        assert caught.value.result is UPnPResult.NO_GATEWAY


async def test_a_location_that_cannot_be_followed_is_no_gateway(http: HttpClient) -> None:
    async with EmulatedGateway(announcing("https://192.168.1.1/", "file:///etc/passwd"), address=None) as liar:
        with pytest.raises(DiscoveryError) as caught:
            await find(http, liar.address, 0.3)
        assert caught.value.result is UPnPResult.NO_GATEWAY
        assert liar.count("GET") == 0


async def test_where_nothing_can_be_sent_it_is_a_socket_error(http: HttpClient) -> None:
    with pytest.raises(TransportError, match=r"no interface of this machine has the address 192\.0\.2\.77") as caught:
        await find(http, "192.0.2.77")
    assert caught.value.result is UPnPResult.SOCKET_ERROR


async def test_the_search_can_be_sent_from_a_port_of_ones_choice(http: HttpClient, gateway: EmulatedGateway) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((gateway.address, 0))
        port = free.getsockname()[1]
    await find(http, gateway.address, local_port=port)
    assert {request.sender for request in gateway.requests if request.kind == "M-SEARCH"} == {(gateway.address, port)}


async def test_a_port_that_is_taken_is_a_socket_error(http: HttpClient, gateway: EmulatedGateway) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((gateway.address, 0))
        with pytest.raises(TransportError, match="no search can be sent from here"):
            await find(http, gateway.address, local_port=taken.getsockname()[1])


# Among others


@pytest.mark.waits
async def test_other_devices_that_answer_first_do_not_matter(http: HttpClient) -> None:
    with loopback_address() as here:
        async with AsyncExitStack() as network:
            for number in range(3):
                await network.enter_async_context(
                    EmulatedGateway(media_server(), address=here, friendly_name=f"telly {number}")
                )
            dead = await network.enter_async_context(EmulatedGateway(announcing(f"http://{here}:1/"), address=here))
            late = odd(datagrams=lambda _, given, __: [replace(datagram, delay=0.2) for datagram in given])
            gateway = await network.enter_async_context(EmulatedGateway(late, address=here))
            device, devices = await finder(http, here).find_gateway(5)
            assert device.description_url == gateway.location
            assert devices[0] == device
            assert sorted(other.igd_status for other in devices[1:]) == [
                IGDStatus.HTTP_ERROR,
                *[IGDStatus.NO_IGD] * 3,
            ]
            assert dead.count("GET") == 0


@pytest.mark.waits
async def test_a_device_that_hangs_does_not_hold_up_the_others(http: HttpClient) -> None:
    with loopback_address() as here:
        hanging = odd(intercept=lambda _: Response(delay=60))
        late = odd(datagrams=lambda _, given, __: [replace(datagram, delay=0.2) for datagram in given])
        async with EmulatedGateway(hanging, address=here), EmulatedGateway(late, address=here) as gateway:
            took = elapsed()
            assert (await find(http, here, 20)).description_url == gateway.location
            assert took() < 5


async def test_a_device_whose_description_could_not_be_read_is_read_again_when_it_answers_again(
    http: HttpClient,
) -> None:
    left = [NOTHING] * 2
    quirk = odd(transmission=lambda _, given: left.pop() if left else given)
    async with EmulatedGateway(quirk, address=None) as gateway:
        assert (await find(http, gateway.address)).is_valid_gateway()
        assert gateway.count("GET") > 2


@pytest.mark.waits
async def test_a_description_that_is_never_served_is_asked_for_three_times(http: HttpClient) -> None:
    async with EmulatedGateway(odd(transmission=lambda _, __: NOTHING), address=None) as gateway:
        with pytest.raises(DiscoveryError) as caught:
            await find(http, gateway.address, 1.2)
        assert caught.value.result is UPnPResult.NO_GATEWAY
        assert gateway.count("GET") == 2 * 3  # aiohttp asks once more by itself where a connection just ends


# Where a LOCATION leads


@pytest.mark.parametrize("host", ["localhost", "[::1]", "169.254.1.1", "gateway.example", "{canary}", "0177.0.0.1"])
async def test_only_the_host_that_answered_is_asked_whatever_it_says(
    http: HttpClient, canary: Canary, host: str
) -> None:
    named = host.format(canary=canary.address)
    async with EmulatedGateway(announcing(f"http://{named}:{{port}}/rootDesc.xml"), address=None) as gateway:
        assert (await find(http, gateway.address)).description_url == gateway.location


async def test_a_location_at_a_foreign_port_is_looked_for_at_the_sender(http: HttpClient, canary: Canary) -> None:
    async with EmulatedGateway(announcing(canary.location), address=None) as liar:
        with pytest.raises(DiscoveryError):
            await find(http, liar.address, 0.3)
        assert not canary.is_touched


# A given location


async def test_a_given_location_is_read_without_a_search(http: HttpClient, gateway: EmulatedGateway) -> None:
    device = await find(http, gateway.address, location=gateway.location)
    assert device.is_valid_gateway()
    assert [request.kind for request in gateway.requests] == ["GET"]


async def test_our_address_towards_a_given_location_is_found_out(http: HttpClient) -> None:
    async with EmulatedGateway() as gateway:
        device = await find(http, None, location=gateway.location.replace("127.0.0.1", "localhost"))
        assert device.igd_our_addr == "127.0.0.1"
        assert device.description_url == gateway.location


async def test_a_survey_of_a_given_location_is_over_when_it_has_been_read(
    http: HttpClient, gateway: EmulatedGateway
) -> None:
    took = elapsed()
    (device,) = await finder(http, gateway.address, location=gateway.location).discover(30, 2, "")
    assert device.service_type == "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
    assert took() < 5


@pytest.mark.waits
async def test_a_given_location_where_nobody_listens_is_a_socket_error(http: HttpClient, address: str) -> None:
    with pytest.raises(TransportError) as caught:
        await find(http, address, location=f"http://{address}:9/")
    assert caught.value.result is UPnPResult.SOCKET_ERROR


@pytest.mark.parametrize("timeout", [0.2, 0.5])
@pytest.mark.waits
async def test_a_given_location_that_hangs_is_a_deadline(
    http: HttpClient, gateway: EmulatedGateway, timeout: float
) -> None:
    gateway.hang()
    took = elapsed()
    with pytest.raises(DeadlineError):
        await find(http, gateway.address, timeout, location=gateway.location)
    assert took() < timeout + 1


async def test_a_given_location_with_something_else_is_an_invalid_response(http: HttpClient) -> None:
    async with EmulatedGateway(odd(intercept=lambda _: page("<html/>")), address=None) as gateway:
        with pytest.raises(IGDError) as caught:
            await find(http, gateway.address, location=gateway.location)
        assert caught.value.result is UPnPResult.INVALID_RESPONSE


async def test_a_given_location_of_another_device_is_no_gateway(http: HttpClient) -> None:
    async with EmulatedGateway(media_server(), address=None) as telly:
        with pytest.raises(DiscoveryError) as caught:
            await find(http, telly.address, location=telly.location)
        assert caught.value.result is UPnPResult.NO_GATEWAY


@pytest.mark.usefixtures("beyond_loopback")
async def test_a_name_that_is_not_known_is_a_socket_error(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_look_up", lambda _: socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    with pytest.raises(TransportError, match="Name or service not known"):
        await find(http, None, location="http://router.example/desc.xml")


@pytest.mark.usefixtures("beyond_loopback")
async def test_a_name_that_cannot_be_one_is_a_socket_error(http: HttpClient) -> None:
    with pytest.raises(TransportError, match="cannot be resolved"):
        await find(http, None, location=f"http://{'a' * 100}/desc.xml")


@pytest.mark.usefixtures("beyond_loopback")
async def test_a_name_that_takes_too_long_is_a_deadline(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def slow(_: str) -> list[str]:
        answered.wait(60)
        return []

    monkeypatch.setattr(names, "_look_up", slow)
    try:
        with pytest.raises(DeadlineError):
            await asyncio.wait_for(find(http, None, 0.1, location="http://router.example/desc.xml"), 5)
    finally:
        answered.set()


@pytest.mark.usefixtures("beyond_loopback")
@pytest.mark.parametrize("ipv6", [False, True])
async def test_all_addresses_of_a_name_are_tried(http: HttpClient, monkeypatch: pytest.MonkeyPatch, ipv6: bool) -> None:
    """``localhost`` is ::1 first on some machines, where the gateway may not listen."""
    async with EmulatedGateway() as gateway:
        monkeypatch.setattr(names, "_look_up", lambda _: ["::1", "127.0.0.77", "127.0.0.1"])
        location = gateway.location.replace("127.0.0.1", "router.example")
        device = await find(http, None, location=location, ipv6=ipv6)
        assert device.description_url == gateway.location
        assert device.igd_our_addr == "127.0.0.1"


@pytest.mark.usefixtures("beyond_loopback")
async def test_a_name_none_of_whose_addresses_answers_is_a_socket_error(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_look_up", lambda _: ["::1", "127.0.0.77"])
    with pytest.raises(TransportError):
        await find(http, None, 0.5, location="http://router.example:9/desc.xml")


# Everybody


@pytest.mark.waits
async def test_a_survey_takes_its_whole_time_and_returns_everybody(http: HttpClient) -> None:
    with loopback_address() as here:
        hanging = odd(intercept=lambda _: Response(delay=60))
        async with (
            EmulatedGateway(media_server(), address=here, friendly_name="telly"),
            EmulatedGateway(hanging, address=here, friendly_name="hanging") as stuck,
            EmulatedGateway(address=here, friendly_name="gateway"),
        ):
            took = elapsed()
            devices = await finder(http, here).discover(0.6, 2, "")
            assert 0.5 < took() < 2.5
            assert devices[0].friendly_name == "gateway"
            found = {device.friendly_name or device.description_url: device.igd_status for device in devices}
            assert found == {
                "gateway": IGDStatus.OK,
                "telly": IGDStatus.NO_IGD,
                stuck.location: IGDStatus.HTTP_ERROR,
            }


@pytest.mark.parametrize(
    ("device_filter", "names"),
    [
        ("InternetGatewayDevice", {"gateway"}),
        ("MediaServer", {"telly"}),
        ("WANIPConnection", {"gateway"}),
        ("Layer3Forwarding", {"gateway", "telly"}),
        ("Toaster", set()),
    ],
)
@pytest.mark.waits
async def test_a_survey_returns_those_that_pass_the_filter(
    http: HttpClient, device_filter: str, names: set[str]
) -> None:
    with loopback_address() as here:
        root_only = odd(hears=lambda search: search.target == "upnp:rootdevice")
        async with (
            EmulatedGateway(media_server(), root_only, address=here, friendly_name="telly"),
            EmulatedGateway(root_only, address=here, friendly_name="gateway"),
        ):
            devices = await finder(http, here).discover(0.3, 2, device_filter)
            assert {device.friendly_name for device in devices} == names


async def test_a_survey_of_nobody_is_empty(http: HttpClient, address: str) -> None:
    assert await finder(http, address).discover(0.1, 2, "") == []


async def test_a_survey_tells_of_each_device_once_it_is_known(http: HttpClient, gateway: EmulatedGateway) -> None:
    watching = finder(http, gateway.address).iter_devices(0.3, 2, "", None)
    assert [one.description_url async for one in watching] == [gateway.location]


async def test_a_search_by_udn_passes_over_other_gateways(http: HttpClient) -> None:
    with loopback_address() as here:
        async with EmulatedGateway(address=here), EmulatedGateway(address=here) as wanted:
            known, _ = await finder(http, here, location=wanted.location).find_gateway(3)
            scope = SearchScope(source_address=here)
            device = await search_by_udn(http, scope, known.udn, now() + 3)
            assert device.description_url == wanted.location
            with pytest.raises(DiscoveryError):
                await search_by_udn(http, scope, "uuid:of nobody", now() + 0.3)


@pytest.mark.waits
async def test_a_search_by_udn_prefers_the_description_that_has_a_service(http: HttpClient) -> None:
    async with EmulatedGateway(quirks.two_versions, address=None, version=2) as gateway:
        known, _ = await finder(http, None, location=gateway.location).find_gateway(3)
        scope = SearchScope(source_address=gateway.address)
        for service, path in (("wanipv6firewallcontrol", "/rootDesc.xml"), ("", "xml"), ("toaster", "xml")):
            device = await search_by_udn(http, scope, known.udn, now() + 0.7, service)
            assert device.description_url.endswith(path)


# Over IPv6


def multicast_reaches_loopback() -> bool:
    """Most Linux machines have no multicast route for IPv6 on the loopback interface."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        try:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("lo"))
            probe.sendto(b"", ("ff02::c", 1900, 0, socket.if_nametoindex("lo")))
        except OSError:
            return False
    return True


@pytest.mark.skipif(not multicast_reaches_loopback(), reason="IPv6 multicast does not work on loopback here")
async def test_a_gateway_is_found_over_ipv6(http: HttpClient) -> None:
    async with EmulatedGateway(address="::1") as gateway:
        device = await find(http, "::1", 3, ipv6=True)
        assert device.description_url == gateway.location
        assert device.igd_our_addr == "::1"


async def test_a_gateway_at_an_ipv6_address_is_read(http: HttpClient) -> None:
    async with EmulatedGateway(address="::1") as gateway:
        device = await find(http, None, ipv6=True, location=gateway.location)
        assert device.description_url == gateway.location
        assert device.igd_control_url.startswith("http://[::1]:")
        assert device.igd_our_addr == "::1"


async def test_a_search_over_ipv6_that_nobody_hears_is_no_devices(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssdp, "PORT", 9)  # other tests that run meanwhile may have a gateway at this address
    with pytest.raises(DiscoveryError) as caught:
        await find(http, "::1", 0.2, ipv6=True)
    assert caught.value.result is UPnPResult.NO_DEVICES


# On a network with more than one router: which is certain, and how long to look on


class Lan:
    """A client at an address of its own, with a default route to another one."""

    def __init__(self, client: str, router: str) -> None:
        self.client = client
        self.router = router


@pytest.fixture
def lan(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lan]:
    with loopback_address() as client, loopback_address() as router:
        monkeypatch.setattr(search_module, "interfaces", lambda **_: [Interface(client, 1)])
        monkeypatch.setattr(search_module, "default_next_hops", lambda ipv6=False: frozenset({router}))
        yield Lan(client, router)


@contextmanager
def addresses(number: int) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(loopback_address()) for _ in range(number)]


async def test_the_router_of_the_default_route_is_certain(http: HttpClient, lan: Lan) -> None:
    with loopback_address() as elsewhere:
        async with Neighbour(lan.client, elsewhere), Neighbour(lan.client, lan.router, delay=0.15) as router:
            took = elapsed()
            assert (await find(http, None, 20)).description_url == router.location
            assert took() < 2


@pytest.mark.waits
async def test_another_gateway_is_taken_after_looking_on_for_a_moment(http: HttpClient, lan: Lan) -> None:
    with loopback_address() as elsewhere:
        async with Neighbour(lan.client, elsewhere) as other:
            took = elapsed()
            assert (await find(http, None, 20)).description_url == other.location
            assert 0.3 < took() < 2


@pytest.mark.waits
async def test_it_looks_on_longer_while_the_router_is_being_read(http: HttpClient, lan: Lan) -> None:
    def slowly(_: HttpRequest) -> Response:
        return page(description(lan.router, router.port), delay=0.8)

    with loopback_address() as elsewhere:
        async with Neighbour(lan.client, elsewhere), Neighbour(lan.client, lan.router, serve=slowly) as router:
            assert (await find(http, None, 20)).description_url == router.location


@pytest.mark.waits
async def test_it_does_not_look_on_for_ever_for_a_router_that_hangs(http: HttpClient, lan: Lan) -> None:
    with loopback_address() as elsewhere:
        async with (
            Neighbour(lan.client, elsewhere) as other,
            Neighbour(lan.client, lan.router, serve=lambda _: Response(delay=60)),
        ):
            took = elapsed()
            assert (await find(http, None, 20)).description_url == other.location
            assert 1.2 < took() < 3


@pytest.mark.waits
async def test_nobody_else_leads_to_the_router(http: HttpClient, lan: Lan) -> None:
    """``/userRpm/SysRebootRpm.htm?Reboot=Reboot`` is a GET, too."""
    with loopback_address() as elsewhere:
        async with (
            Neighbour(lan.client, lan.router, targets=()) as router,
            Neighbour(lan.client, elsewhere, locations=[router.location]) as other,
        ):
            with pytest.raises(DiscoveryError):
                await find(http, None, 0.5)
            assert router.requests == []
            assert other.requests == []  # nothing listens at that port there


@pytest.mark.waits
async def test_the_router_is_also_asked_by_unicast(http: HttpClient, lan: Lan) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.setblocking(False)
        ear.bind((lan.router, 1900))
        with pytest.raises(DiscoveryError):
            await find(http, None, 0.6)
        assert ear.recv(4096).startswith(b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n")


async def test_a_router_that_hears_the_group_only_in_host_and_no_multicast_is_found(http: HttpClient) -> None:
    async with EmulatedGateway(quirks.multicast_ignored, quirks.host_must_be_group, address=None) as gateway:
        assert (await find(http, gateway.address)).is_valid_gateway()


@pytest.mark.waits
async def test_replies_of_the_router_to_a_question_of_its_own_are_confirmed(
    http: HttpClient, lan: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: list[tuple[str, bool]] = []
    on_reply = search_module.DeviceSearch._on_reply

    def noted(search: search_module.DeviceSearch, reply: SearchReply) -> None:
        replies.append((reply.sender, reply.is_confirmed))
        on_reply(search, reply)

    monkeypatch.setattr(search_module.DeviceSearch, "_on_reply", noted)
    with loopback_address() as elsewhere, network.server_socket(lan.router) as ear:

        def answer_unicast() -> None:
            _, searcher = ear.recvfrom(4096)
            ear.sendto(
                b"HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://%d/\r\n\r\n" % len(replies), searcher
            )

        loop = asyncio.get_running_loop()
        loop.add_reader(ear, answer_unicast)
        async with Neighbour(lan.client, elsewhere), Neighbour(lan.client, lan.router, wan=False):
            await finder(http, None).discover(0.8, 2, "")
        loop.remove_reader(ear)
    assert {*replies} == {(elsewhere, False), (lan.router, False), (lan.router, True)}


def count_searches(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Count datagrams by the address that they are sent from, and the one that they are sent to."""
    sent: Counter[tuple[str, str]] = Counter()
    send = ssdp_search._Endpoint.send

    def counted(endpoint: ssdp_search._Endpoint, datagram: bytes, host: str, ttl: int) -> None:
        sent[endpoint.interface.address, host] += 1
        send(endpoint, datagram, host, ttl)

    monkeypatch.setattr(ssdp_search._Endpoint, "send", counted)
    return sent


GROUP = "239.255.255.250"


@pytest.mark.parametrize("routers", [0, 1, 2])
def test_an_unanswered_search_keeps_to_its_budget_in_each_network(
    monkeypatch: pytest.MonkeyPatch, routers: int
) -> None:
    sent = count_searches(monkeypatch)
    with addresses(3 + routers) as found:
        (best, other, bridge), hops = found[:3], found[3:]
        places = [Interface(address, 1) for address in (best, other, bridge)]
        monkeypatch.setattr(search_module, "interfaces", lambda **_: places)
        monkeypatch.setattr(search_module, "default_next_hops", lambda ipv6=False: frozenset(hops))
        monkeypatch.setattr(search_module, "with_default_route", lambda _: frozenset(places[:2]))
        monkeypatch.setattr(search_module, "leading_to", lambda _, places: [places[0]])

        async def search() -> None:
            http = HttpClient()
            with pytest.raises(DiscoveryError):
                await find(http, None)
            await http.close()

        run(search())
    by_source = Counter[str]()
    for (source, _), number in sent.items():
        by_source[source] += number
    assert by_source == {best: 40, other: 40, bridge: 9}
    assert [sent[best, hop] for hop in sorted(hops)] == [[], [7], [4, 3]][routers]
    assert {host for source, host in sent if source != best} == {GROUP}


def test_one_host_is_asked_no_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = count_searches(monkeypatch)
    with addresses(3) as (one, other, host):
        monkeypatch.setattr(search_module, "interfaces", lambda **_: [Interface(one, 1), Interface(other, 1)])

        async def search() -> None:
            http = HttpClient()
            async for _ in finder(http, None).iter_devices(5.0, 2, "", host):
                raise AssertionError("nobody is there")
            await http.close()

        run(search())
        assert list(sent.items()) == [((one, host), 40)]


@pytest.mark.waits
async def test_searches_at_once_share_a_port_of_ones_choice(http: HttpClient, gateway: EmulatedGateway) -> None:
    with network.spare_socket(gateway.address) as free:
        port = free.getsockname()[1]
    searcher = finder(http, gateway.address, local_port=port)
    devices, more, (device, _) = await asyncio.gather(
        searcher.discover(0.5, 2, ""), searcher.discover(0.3, 1, ""), searcher.find_gateway(3)
    )
    assert devices == more == [device]
    assert {request.sender for request in gateway.requests if request.kind == "M-SEARCH"} == {(gateway.address, port)}
    other = finder(http, gateway.address, local_port=port)
    async with asyncio.TaskGroup() as both:
        both.create_task(searcher.discover(0.3, 2, ""))
        await asyncio.sleep(0.05)
        with pytest.raises(TransportError, match=rf"port {port} is in use.*another PortMapper; local_port=0 means any"):
            await other.find_gateway(1)


@pytest.mark.waits
async def test_a_gateway_that_denies_being_connected_is_the_last_resort(http: HttpClient, lan: Lan) -> None:
    another = "<service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>"
    another += "<controlURL>/ppp</controlURL></service>"
    two_connections = description(lan.router, 1).decode().replace("<service>", another + "<service>", 1)

    def serve(request: HttpRequest) -> Response:
        if request.method == "GET":
            return page(two_connections)
        return page(answer("GetStatusInfo", {"NewConnectionStatus": "Disconnected"}).body)

    with loopback_address() as elsewhere:
        async with (
            Neighbour(lan.client, lan.router, serve=serve) as silent,
            Neighbour(lan.client, elsewhere, delay=0.2) as other,
        ):
            assert (await find(http, None)).description_url == other.location
        async with Neighbour(lan.client, lan.router, serve=serve) as silent:
            device = await find(http, None)
            assert (device.description_url, device.igd_status) == (silent.location, IGDStatus.DISCONNECTED)


# Several likely gateways, where the router is not known


def saying(status: str, external_address: str) -> Callable[[HttpRequest], Response | None]:
    """What a gateway answers to questions about its connection; None for anything else."""

    def serve(request: HttpRequest) -> Response | None:
        if b"#GetStatusInfo" in request.raw:
            return page(answer("GetStatusInfo", {"NewConnectionStatus": status}).body)
        if b"#GetExternalIPAddress" in request.raw:
            return page(answer("GetExternalIPAddress", {"NewExternalIPAddress": external_address}).body)
        return None

    return serve


class Connection(Neighbour):
    """A gateway that says this of its connection."""

    def __init__(self, client: str, address: str, status: str, external_address: str, delay: float = 0.0) -> None:
        says = saying(status, external_address)
        super().__init__(
            client, address, delay=delay, serve=lambda request: says(request) or page(description(address, self.port))
        )


@pytest.fixture
def nowhere(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> Lan:
    """The same on a system that does not tell its routes, or has no default route."""
    monkeypatch.setattr(search_module, "default_next_hops", lambda ipv6=False: frozenset())
    return lan


@pytest.mark.parametrize("dead", [("Disconnected", "0.0.0.0"), ("Connected", "0.0.0.0"), ("Connected", "")])
@pytest.mark.parametrize("alive", [("Connected", "44.0.0.1"), ("Connected", "100.64.0.7"), ("Up", "192.168.5.5")])
@pytest.mark.waits
async def test_a_dead_gateway_that_answers_first_is_not_the_choice(
    http: HttpClient, nowhere: Lan, dead: tuple[str, str], alive: tuple[str, str]
) -> None:
    with loopback_address() as elsewhere:
        async with (
            Connection(nowhere.client, elsewhere, *dead),
            Connection(nowhere.client, nowhere.router, *alive, delay=0.05) as router,
        ):
            device, devices = await finder(http, None).find_gateway(20)
            assert device.description_url == router.location
            assert [other.igd_status for other in devices] == [IGDStatus.OK] * 2


@pytest.mark.parametrize("delay", [0.1, 0.8])
@pytest.mark.waits
async def test_of_three_the_one_that_is_alive_is_the_choice_also_if_it_is_slow(
    http: HttpClient, nowhere: Lan, delay: float
) -> None:
    """A device may think for a second about a search (MX)."""
    with loopback_address() as elsewhere, loopback_address() as third:
        async with (
            Connection(nowhere.client, elsewhere, "Disconnected", "0.0.0.0"),
            Connection(nowhere.client, third, "Connected", "", delay=0.05),
            Connection(nowhere.client, nowhere.router, "Connected", "44.0.0.1", delay=delay) as router,
        ):
            assert (await find(http, None, 20)).description_url == router.location


@pytest.mark.waits
async def test_where_all_are_dead_the_search_ends_all_the_same(http: HttpClient, nowhere: Lan) -> None:
    with loopback_address() as elsewhere:
        async with (
            Connection(nowhere.client, elsewhere, "Disconnected", "0.0.0.0"),
            Connection(nowhere.client, nowhere.router, "Disconnected", "0.0.0.0", delay=0.05),
        ):
            seconds = elapsed()
            assert (await find(http, None, 20)).igd_status is IGDStatus.OK
            assert seconds() < 10


@pytest.mark.waits
async def test_where_there_is_one_only_it_is_not_asked(http: HttpClient, nowhere: Lan) -> None:
    async with Connection(nowhere.client, nowhere.router, "Connected", "44.0.0.1") as router:
        await find(http, None)
        assert [request.method for request in router.requests] == ["GET"]


async def test_where_the_router_is_known_nobody_is_asked(http: HttpClient, lan: Lan) -> None:
    with loopback_address() as elsewhere:
        async with (
            Connection(lan.client, elsewhere, "Connected", "44.0.0.1") as other,
            Connection(lan.client, lan.router, "Connected", "44.0.0.1", delay=0.1) as router,
        ):
            assert (await find(http, None)).description_url == router.location
            assert [request.method for request in (*router.requests, *other.requests)] == ["GET", "GET"]


@pytest.mark.parametrize("run", range(6))
@pytest.mark.waits
async def test_a_rogue_is_not_chosen_though_replies_in_the_routers_name_are_forged(
    http: HttpClient, lan: Lan, monkeypatch: pytest.MonkeyPatch, run: int
) -> None:
    """The router answers the search sent to it alone, and later than the rogue and four paths that it does not have."""
    with loopback_address() as elsewhere:
        async with (
            Neighbour(lan.client, elsewhere) as rogue,
            Neighbour(lan.client, lan.router, targets=()) as router,
        ):
            serve = router._serve
            router._serve = lambda request: serve(request) if "root" in request.target else Response(404)
            begin = DeviceSearch.__aenter__

            async def begin_and_forge(search: DeviceSearch) -> DeviceSearch:
                await begin(search)
                for number in range(4):
                    forged = router.reply(f"http://{lan.router}:{router.port}/gone{number}", IGD)
                    search._on_reply(SearchReply(_parsed(forged), lan.router, lan.client))
                true = SearchReply(_parsed(router.reply(router.location)), lan.router, lan.client, is_confirmed=True)
                asyncio.get_running_loop().call_later(0.5, search._on_reply, true)
                return search

            monkeypatch.setattr(DeviceSearch, "__aenter__", begin_and_forge)
            assert (await find(http, None, 5)).description_url == router.location
            assert len(router.requests) == 5
            assert len(rogue.requests) == 1


def _parsed(datagram: bytes) -> Announcement:
    announcement = parse_datagram(datagram)
    assert announcement is not None
    return announcement


# Floods


async def test_a_hundred_devices_cost_no_more_than_the_cap_and_the_router_is_read_all_the_same(
    http: HttpClient, lan: Lan
) -> None:
    with addresses(25) as liars:
        async with AsyncExitStack() as network:
            crowd = [
                await network.enter_async_context(
                    Neighbour(lan.client, liar, locations=[f"http://{liar}:{{port}}/{n}" for n in range(4)], wan=False)
                )
                for liar in liars
            ]
            for liar in crowd:
                liar._locations = [f"http://{liar.address}:{liar.port}/{number}" for number in range(4)]
            router = await network.enter_async_context(Neighbour(lan.client, lan.router, delay=0.3))
            assert (await find(http, None)).description_url == router.location
            assert sum(len(liar.requests) for liar in crowd) == MAX_DEVICES


@pytest.mark.waits
async def test_one_device_with_a_thousand_locations_is_read_four_times(http: HttpClient, lan: Lan) -> None:
    with loopback_address() as elsewhere:
        async with Neighbour(lan.client, elsewhere, wan=False) as liar:
            liar._locations = [f"http://{elsewhere}:{liar.port}/{number}" for number in range(200)]
            with pytest.raises(DiscoveryError):
                await find(http, None, 0.5)
            assert len(liar.requests) == 4


async def test_thousands_of_datagrams_do_not_drown_the_gateway(http: HttpClient, lan: Lan) -> None:
    class Flood(Neighbour):
        sent = 0

        def answer(self, target: str, sender: tuple[str, int]) -> None:
            for number in range(100):
                self.sent += 1
                self.say(b"\x00\xff" * 100 + str((self.sent, number)).encode(), sender)
                self.say(self.reply(f"http://{self.address}:9/{self.sent}"), sender)
            if self.sent < 5000:
                self._timers.append(self._loop.call_later(0.002, self.answer, target, sender))

    with loopback_address() as elsewhere:
        async with Flood(lan.client, elsewhere) as flood, Neighbour(lan.client, lan.router, delay=0.3) as router:
            assert (await find(http, None, 5)).description_url == router.location
            assert flood.sent > 2000


async def test_a_cancelled_search_leaves_nothing(http: HttpClient, gateway: EmulatedGateway) -> None:
    gateway.hang()
    task = asyncio.create_task(find(http, gateway.address))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.waits
async def test_a_port_that_is_taken_on_one_interface_is_told_where_nothing_is_found(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(loopback_address()) for _ in range(2))
        monkeypatch.setattr(search_module, "interfaces", lambda **_: [Interface(one, 1), Interface(other, 1)])
        monkeypatch.setattr(search_module, "default_next_hops", lambda ipv6=False: frozenset())
        taken = stack.enter_context(network.spare_socket(one))
        port = taken.getsockname()[1]
        with pytest.raises(TransportError, match=rf"port {port} is in use by another program.*local_port=0"):
            await find(http, None, 0.3, local_port=port)
        async with EmulatedGateway(address=other) as gateway:
            assert (await find(http, None, local_port=port)).description_url == gateway.location
