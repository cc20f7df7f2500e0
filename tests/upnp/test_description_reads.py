"""Which descriptions are read for which replies, and which gateway a host then is, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import pytest

from aioigd import Device, IGDStatus, TransportError
from aioigd.core.backend import Candidate, Rank, SearchScope
from aioigd.net.interfaces import Interface
from aioigd.testing.device_tree import Device as Tree
from aioigd.testing.device_tree import Site, describe_device, gateway_device
from aioigd.testing.soap import parse_call
from aioigd.upnp import description_reads as module
from aioigd.upnp.description_reads import DescriptionReads
from aioigd.upnp.net.http import HttpClient
from aioigd.upnp.net.ssdp_search import SearchReply
from aioigd.upnp.reading_plan import MAX_DEVICES, KnownPaths
from aioigd.upnp.wire.http_reply import BodyRule, HttpReply
from aioigd.upnp.wire.ssdp import Announcement
from aioigd.upnp.wire.url import HttpUrl

from ..support import answer

pytestmark = pytest.mark.virtual_time

US, US_TOO, ELSEWHERE = "192.168.77.2", "192.168.77.3", "10.0.0.2"
ROUTER, OTHER = "192.168.77.1", "192.168.77.9"
ROOT = "upnp:rootdevice"
IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"

Page = HttpReply | tuple[HttpReply, float]
"""A reply, and after how many seconds it comes."""


def described(version: int = 1, udn: str = "uuid:igd", *, domain: str = "", services: int = 1) -> HttpReply:
    """The description of a gateway."""
    tree = replace(gateway_device(version, "x", "a router"), udn=udn)
    if domain:

        def renamed(device: Tree) -> Tree:
            changed = [
                replace(service, service_type=service.service_type.replace("schemas-upnp-org", domain))
                for service in device.services
            ]
            return replace(device, services=tuple(changed))

        tree = tree.with_each_device(renamed)
    return HttpReply(200, describe_device(tree, Site(ROUTER, 80), 1).encode())


def media_server(number: int = 0) -> HttpReply:
    tree = replace(gateway_device(1, f"{number}", "films"), devices=())
    tree = replace(tree, device_type="urn:schemas-upnp-org:device:MediaServer:1")
    return HttpReply(200, describe_device(tree, Site(ROUTER, 80), 1).encode())


NOT_FOUND = HttpReply(404, b"<html>no</html>")
TR_064 = described(udn="uuid:tr64", domain="dslforum-org")


class Web(HttpClient):
    """What each host serves by path. ``post`` says what becomes of an action at a path."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[tuple[str, str], Page] = {}
        self.gets: list[HttpUrl] = []
        self.sources: list[str] = []
        self.posts: list[str] = []
        self.open = self.most_open = 0
        self.post: Callable[[HttpUrl, str], HttpReply] = lambda _, action: answer(
            action, {"NewConnectionStatus": "Connected", "NewExternalIPAddress": "44.0.0.1"}
        )

    def serve(self, host: str, pages: Mapping[str, Page]) -> None:
        self.pages.update({(host, path): page for path, page in pages.items()})

    def paths(self, host: str) -> list[str]:
        return [url.target for url in self.gets if url.host == host]

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
        if method == "POST":
            assert body is not None
            action = parse_call(body)[1]
            self.posts.append(action)
            await asyncio.sleep(0)
            return self.post(url, action)
        self.gets.append(url)
        self.sources.append(source)
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            page = self.pages.get((url.host, url.target), NOT_FOUND)
            reply, seconds = (page, 0.0) if isinstance(page, HttpReply) else page
            await asyncio.sleep(seconds)
            return reply
        finally:
            self.open -= 1


def reply(
    path: str,
    host: str = ROUTER,
    *,
    st: str = ROOT,
    udn: str = "",
    ours: str = US,
    confirmed: bool = False,
    at: str = "",
) -> SearchReply:
    usn = f"{udn or 'uuid:of ' + path}::{st}"
    announcement = Announcement("reply", f"http://{at or host}:80{path}", st, usn, "server", None)
    return SearchReply(announcement, host, ours, confirmed)


class Reading:
    """One search from US, whose default route leads over ROUTER."""

    def __init__(
        self,
        http: Web,
        known: KnownPaths,
        scope: SearchScope,
        next_hops: Sequence[str],
        usual: Callable[[str], str],
    ) -> None:
        self.candidates: list[Candidate] = []
        self._loop = asyncio.get_running_loop()
        self.started = self._loop.time()
        self.reads = DescriptionReads(http, scope, self.started + 5, self._take, known, usual)
        self.reads.start([Interface(US, 2), Interface(ELSEWHERE, 3)], next_hops)

    def _take(self, candidate: Candidate | None) -> None:
        assert candidate is not None
        self.candidates.append(candidate)

    def hear(self, *replies: SearchReply) -> None:
        for each in replies:
            self.reads.on_reply(each)

    async def read(self, seconds: float = 0.05) -> list[Device]:
        """The devices that are known after a while, the best first."""
        await asyncio.sleep(seconds)
        latest = {candidate.key: candidate for candidate in self.candidates}
        return [candidate.device for candidate in sorted(latest.values(), key=lambda candidate: candidate.rank)]

    def ranks(self) -> dict[str, Rank]:
        """The rank of each path at the last report."""
        latest = {candidate.key: candidate for candidate in self.candidates}
        return {one.device.description_url.rpartition(":80")[2]: one.rank for one in latest.values()}

    @property
    def patience(self) -> float:
        """Seconds from the start in which one that is certain may still come."""
        return self.reads.may_report_until() - self.started


Start = Callable[..., Reading]


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
async def start(web: Web) -> AsyncIterator[Start]:
    known = KnownPaths()
    begun: list[Reading] = []

    def begin(
        next_hops: Sequence[str] = (ROUTER,),
        scope: SearchScope = SearchScope(),  # noqa: B008
        usual: Callable[[str], str] = lambda _: US,
    ) -> Reading:
        begun.append(Reading(web, known, scope, next_hops, usual))
        return begun[-1]

    yield begin
    for one in begun:
        await asyncio.gather(*one.reads.stop(), return_exceptions=True)


# Which descriptions are read


FRITZ_BOX = ["/media.xml", "/l2tp.xml", "/avmnexus.xml", "/wps1.xml", "/wps2.xml", "/wps3.xml", "/tr64.xml", "/tam.xml"]


def fritz_box(web: Web) -> None:
    web.serve(ROUTER, {path: media_server(number) for number, path in enumerate(FRITZ_BOX)})
    web.serve(ROUTER, {"/tr64.xml": TR_064, "/igd.xml": described()})


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize("place", range(9))
async def test_of_nine_root_devices_the_gateway_is_read_in_any_order(
    web: Web, start: Start, place: int, confirmed: bool
) -> None:
    fritz_box(web)
    search = start()
    replies = [reply(path, confirmed=confirmed) for path in FRITZ_BOX]
    gateway = [reply("/igd.xml", st=IGD, confirmed=confirmed), reply("/igd.xml", confirmed=confirmed)]
    search.hear(*replies[:place], *gateway, *replies[place:])
    (best, *_) = await search.read(0.4)
    assert best.description_url.endswith("/igd.xml")
    assert search.ranks()["/igd.xml"] is Rank.CERTAIN
    assert len(web.paths(ROUTER)) == (9 if confirmed else 2)
    assert web.most_open <= (5 if confirmed else 2)


@pytest.mark.parametrize("place", range(4))
async def test_the_same_where_the_next_hop_is_not_known(web: Web, start: Start, place: int) -> None:
    fritz_box(web)
    search = start(next_hops=())
    replies = [reply(path) for path in FRITZ_BOX]
    search.hear(*replies[: 2 * place], reply("/igd.xml", st=IGD), *replies[2 * place :])
    (best, *_) = await search.read()
    assert best.description_url.endswith("/igd.xml")


async def test_a_crowd_of_others_leaves_the_gateway_its_reading(web: Web, start: Start) -> None:
    for number in range(60):
        web.serve(f"192.168.78.{number}", {"/d.xml": media_server(number)})
    web.serve(OTHER, {"/igd.xml": described()})
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start()
    search.hear(*(reply("/d.xml", f"192.168.78.{number}") for number in range(60)))
    search.hear(reply("/igd.xml", OTHER, st=IGD), reply("/igd.xml"))
    await search.read()
    assert len(web.gets) == MAX_DEVICES + 2
    assert web.paths(OTHER) == web.paths(ROUTER) == ["/igd.xml"]


async def test_a_reply_leads_to_its_sender_whatever_it_names(web: Web, start: Start) -> None:
    search = start()
    search.hear(reply("/reboot.htm?now", OTHER, at=ROUTER), reply("/x.xml", OTHER, at="192.168.77.77"))
    await search.read()
    assert {url.host for url in web.gets} == {OTHER}


FORGED = [f"/cgi-bin/reboot{number}" for number in range(20)]
GLOBAL, LINK_LOCAL, OUR_LINK_LOCAL, OUR_GLOBAL = "2001:db8::1", "fe80::1%2", "fe80::2", "2001:db8::2"


async def test_over_ipv6_a_router_may_name_its_global_address(
    web: Web, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "default_next_hops", frozenset)  # it has no other address
    web.serve(GLOBAL, {"/igd.xml": described()})
    search = start(next_hops=[GLOBAL], usual=lambda host: OUR_GLOBAL if host == GLOBAL else OUR_LINK_LOCAL)
    search.hear(*(reply(path, LINK_LOCAL, ours=OUR_LINK_LOCAL, at=f"[{GLOBAL}]", st=IGD) for path in FORGED[:2]))
    search.hear(reply("/reboot?now", LINK_LOCAL, ours=OUR_LINK_LOCAL, at=f"[{GLOBAL}]", st=IGD, confirmed=True))
    search.hear(reply("/igd.xml", LINK_LOCAL, ours=OUR_LINK_LOCAL, at=f"[{GLOBAL}]", st=IGD))
    search.hear(*(reply(path, LINK_LOCAL, ours=OUR_LINK_LOCAL, at=f"[{GLOBAL}]", st=IGD) for path in FORGED))
    (best, *_) = await search.read()
    assert best.igd_our_addr == OUR_GLOBAL
    assert len(web.paths(GLOBAL)) == len(web.gets) == 4
    assert "/reboot?now" not in web.paths(GLOBAL)


async def test_over_ipv6_others_are_asked_where_they_answer_from(web: Web, start: Start) -> None:
    web.serve(LINK_LOCAL, {"/igd.xml": described()})
    search = start(next_hops=[LINK_LOCAL], usual=lambda _: OUR_LINK_LOCAL)
    search.hear(reply("/igd.xml", LINK_LOCAL, ours=OUR_LINK_LOCAL, at=f"[{GLOBAL}]"))
    (best, *_) = await search.read()
    assert best.igd_our_addr == OUR_LINK_LOCAL
    assert search.ranks()


async def test_the_first_reply_in_the_routers_name_is_read_at_once(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start()
    search.hear(reply("/igd.xml"))
    await search.read()
    assert search.ranks() == {"/igd.xml": Rank.CERTAIN}


@pytest.mark.parametrize("st", [ROOT, IGD])
async def test_forged_replies_in_the_routers_name_do_not_keep_the_confirmed_path_from_being_read(
    web: Web, start: Start, st: str
) -> None:
    web.serve(ROUTER, {"/igd.xml": described()})
    web.serve(OTHER, {"/igd.xml": described(udn="uuid:rogue")})
    search = start()
    search.hear(*(reply(path, st=st) for path in FORGED), reply("/igd.xml", OTHER, st=IGD))
    await search.read()
    assert search.patience > 0.7  # nothing is chosen meanwhile
    assert len(web.paths(ROUTER)) == (1 if st == ROOT else 4)
    search.hear(reply("/igd.xml", confirmed=True))
    await search.read()
    assert search.ranks()["/igd.xml"] is Rank.CERTAIN


async def test_a_device_causes_four_requests_at_the_router_and_none_with_a_query(web: Web, start: Start) -> None:
    search = start()
    search.hear(*(reply(f"/userRpm/SysRebootRpm.htm?Reboot={n}", st=IGD) for n in range(20)))
    search.hear(*(reply(path, st=IGD) for path in FORGED))
    search.hear(*(reply(path) for path in FORGED))
    await search.read(1.0)
    assert len(web.paths(ROUTER)) == 4
    assert not any("?" in path for path in web.paths(ROUTER))


async def test_a_path_that_has_led_to_a_gateway_is_confirmed(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/igd.xml?a=b": described()})
    first = start()
    first.hear(reply("/igd.xml?a=b", confirmed=True))
    await first.read()
    second = start()
    second.hear(*(reply(path, st=IGD) for path in FORGED), reply("/igd.xml?a=b"))
    await second.read()
    assert second.ranks()["/igd.xml?a=b"] is Rank.CERTAIN


async def test_a_router_whose_devices_name_nothing_is_read_when_no_others_have_to_be_expected(
    web: Web, start: Start
) -> None:
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start()
    search.hear(reply("/a.xml"), reply("/b.xml"), reply("/igd.xml"))
    await search.read()
    assert web.paths(ROUTER) == ["/a.xml"]
    await search.read(0.9)
    assert search.ranks()["/igd.xml"] is Rank.CERTAIN


async def test_a_host_that_the_user_has_named_counts_like_the_router(web: Web, start: Start) -> None:
    search = start(next_hops=(), scope=SearchScope(host=OTHER))
    search.hear(*(reply(path, OTHER, st=IGD) for path in FORGED))
    search.hear(*(reply(f"/d{number}.xml", OTHER, confirmed=True) for number in range(8)))
    await search.read()
    assert len(web.paths(OTHER)) == 4 + 8


async def test_what_is_not_there_makes_room_for_another_of_its_sender(web: Web, start: Start) -> None:
    web.serve(OTHER, {"/igd.xml": described()})
    search = start(next_hops=())
    search.hear(*(reply(f"/gone{number}.xml", OTHER) for number in range(4)))
    await search.read()
    search.hear(reply("/igd.xml", OTHER))
    (best, *_) = await search.read()
    assert best.igd_status is IGDStatus.OK


async def test_what_hangs_at_the_router_holds_up_no_confirmed_path(web: Web, start: Start) -> None:
    web.serve(ROUTER, dict.fromkeys(FORGED, (NOT_FOUND, 60.0)))
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start()
    search.hear(*(reply(path, st=IGD) for path in FORGED), reply("/igd.xml", confirmed=True))
    await search.read(0.5)  # one that is announced as another gateway of the same host is waited for a moment
    assert search.ranks()["/igd.xml"] is Rank.CERTAIN


# Several descriptions of one host


BOTH = {"/v1.xml": described(1), "/v2.xml": described(2)}


@pytest.mark.parametrize("order", list(permutations(BOTH)))
@pytest.mark.parametrize("slow", ["", "/v1.xml", "/v2.xml"])
@pytest.mark.parametrize("st", [ROOT, IGD])
async def test_of_two_descriptions_under_one_udn_the_newer_counts_in_any_order(
    web: Web, start: Start, order: Sequence[str], slow: str, st: str
) -> None:
    web.serve(ROUTER, {path: (page, 0.1 if path == slow else 0.0) for path, page in BOTH.items()})
    search = start()
    search.hear(*(reply(path, st=st, udn="uuid:igd", confirmed=True) for path in order))
    (device,) = await search.read(0.3)
    assert device.description_url.endswith("/v2.xml")
    assert device.igd_service_type.endswith(":2")
    assert [one.device.description_url[-7:] for one in search.candidates if one.rank is Rank.CERTAIN] == ["/v2.xml"]


@pytest.mark.parametrize("order", list(permutations(BOTH)))
async def test_the_same_where_nobody_is_certain(web: Web, start: Start, order: Sequence[str]) -> None:
    web.serve(OTHER, BOTH)
    search = start()
    search.hear(*(reply(path, OTHER, st=IGD, udn="uuid:igd") for path in order))
    (device,) = await search.read()
    assert device.description_url.endswith("/v2.xml")


async def test_the_older_counts_where_the_newer_cannot_be_had(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/v1.xml": described(1), "/v2.xml": (NOT_FOUND, 0.1)})
    search = start()
    search.hear(*(reply(path, st=IGD, udn="uuid:igd", confirmed=True) for path in BOTH))
    await search.read(0.02)
    assert search.ranks()["/v1.xml"] is Rank.LIKELY
    await search.read(0.2)
    assert search.ranks()["/v1.xml"] is Rank.CERTAIN


async def test_one_that_hangs_is_not_waited_for_for_long(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/v1.xml": described(1), "/v2.xml": (NOT_FOUND, 60.0)})
    search = start()
    search.hear(*(reply(path, st=IGD, udn="uuid:igd", confirmed=True) for path in BOTH))
    await search.read(0.6)
    assert search.ranks()["/v1.xml"] is Rank.CERTAIN


async def test_nothing_is_waited_for_that_was_not_announced(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/v1.xml": described(1)})
    search = start()
    search.hear(reply("/v1.xml", st=IGD), reply("/v1.xml"), reply("/media.xml", confirmed=True))
    await search.read(0.02)
    assert [one.rank for one in search.candidates if one.rank is not Rank.USELESS] == [Rank.CERTAIN]


async def test_one_udn_at_two_hosts_is_two_devices(web: Web, start: Start) -> None:
    """Some makers give all their devices the same one."""
    web.serve(OTHER, {"/v1.xml": described(1)})
    web.serve(ROUTER, {"/v1.xml": described(1)})
    search = start(next_hops=())
    search.hear(reply("/v1.xml", OTHER, st=IGD), reply("/v1.xml", st=IGD))
    assert len(await search.read()) == 2


# TR-064


def wants_password(url: HttpUrl, action: str) -> HttpReply:
    return HttpReply(401, b"<html>401 Unauthorized</html>", {"WWW-Authenticate": "Digest"})


@pytest.mark.parametrize("order", list(permutations(["/tr64.xml", "/igd.xml"])))
@pytest.mark.parametrize("delay", [0.0, 0.1])
@pytest.mark.parametrize("hop", [ROUTER, OTHER])
async def test_a_twin_that_wants_a_password_is_not_the_gateway_in_any_order(
    web: Web, start: Start, order: Sequence[str], delay: float, hop: str
) -> None:
    web.serve(ROUTER, {"/tr64.xml": TR_064, "/igd.xml": (described(), delay)})
    web.post = wants_password
    search = start(next_hops=[hop])
    for path in order:
        search.hear(reply(path, confirmed=hop == ROUTER, st=IGD if path == "/igd.xml" else ROOT))
        await asyncio.sleep(delay)
    (best, *_) = await search.read(0.3)
    assert best.description_url.endswith("/igd.xml")
    assert search.ranks()["/tr64.xml"] is Rank.LAST_RESORT
    assert search.ranks()["/igd.xml"] is (Rank.CERTAIN if hop == ROUTER else Rank.LIKELY)


async def test_while_only_the_twin_is_there_others_are_waited_for_but_not_for_ever(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/tr64.xml": TR_064})
    web.post = wants_password
    search = start()
    search.hear(reply("/tr64.xml", confirmed=True))
    (device,) = await search.read()
    assert device.igd_status is IGDStatus.INVALID_CONTROL
    assert web.posts == ["GetStatusInfo"]
    assert search.patience == pytest.approx(2.0)


async def test_a_gateway_with_types_like_those_that_talks_is_certain(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/tr64.xml": TR_064})
    search = start()
    search.hear(reply("/tr64.xml", confirmed=True))
    await search.read()
    assert search.ranks() == {"/tr64.xml": Rank.CERTAIN}


# The address to ask from


@pytest.mark.parametrize("first", [US, US_TOO])
async def test_the_address_is_the_systems_choice_whichever_reply_comes_first(
    web: Web, start: Start, first: str
) -> None:
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start()
    search.reads.start([Interface(US_TOO, 2), Interface(US, 2)], [ROUTER])
    search.hear(reply("/igd.xml", ours=first))
    (device,) = await search.read()
    assert (device.igd_our_addr, web.sources) == (US, [US])


async def test_two_interfaces_in_one_lan_make_no_difference(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start()
    search.reads.start([Interface(US_TOO, 7), Interface(US, 2)], [ROUTER])
    search.hear(reply("/igd.xml", ours=US_TOO))
    (device,) = await search.read()
    assert device.igd_our_addr == US


async def test_an_address_at_which_it_was_not_seen_is_not_used(web: Web, start: Start) -> None:
    """Policy routing: the main table leads over another network, from which the gateway cannot be reached."""
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start(usual=lambda _: ELSEWHERE)
    search.hear(reply("/igd.xml", ours=US))
    (device,) = await search.read()
    assert device.igd_our_addr == US
    web.serve(ROUTER, {"/other.xml": described()})
    search.hear(reply("/other.xml", ours=ELSEWHERE, confirmed=True))
    (device,) = await search.read()
    assert device.igd_our_addr == ELSEWHERE


async def test_an_address_that_was_asked_for_is_used(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start(scope=SearchScope(source_address=US_TOO))
    search.hear(reply("/igd.xml", ours=US_TOO))
    (device,) = await search.read()
    assert device.igd_our_addr == US_TOO


async def test_without_a_route_the_address_of_the_reply_is_used(web: Web, start: Start) -> None:
    def no_route(_: str) -> str:
        raise TransportError("no route", may_have_arrived=False)

    web.serve(ROUTER, {"/igd.xml": described()})
    search = start(usual=no_route)
    search.hear(reply("/igd.xml", ours=US_TOO))
    (device,) = await search.read()
    assert device.igd_our_addr == US_TOO


# The budget


async def test_documents_that_are_too_long_in_all_are_not_parsed(web: Web, start: Start) -> None:
    def long(number: int) -> HttpReply:
        return HttpReply(200, described(udn=f"uuid:{number}").body + b" " * 200_000)

    web.serve(ROUTER, {"/igd.xml": described()})
    for number in range(8):
        web.serve(f"192.168.78.{number}", {f"/{n}.xml": long(n) for n in range(4)})
    search = start()
    search.hear(*(reply(f"/{n}.xml", f"192.168.78.{number}") for number in range(8) for n in range(4)))
    search.hear(reply("/igd.xml"))
    devices = await search.read(0.5)
    assert sum(device.igd_status is IGDStatus.OK for device in devices) == 2 + 1
    assert search.ranks()["/igd.xml"] is Rank.CERTAIN


@pytest.mark.parametrize("st", [ROOT, IGD])
@pytest.mark.parametrize("is_seen_before", [True, False])
async def test_long_files_of_the_router_leave_room_for_its_confirmed_description(
    web: Web, start: Start, st: str, is_seen_before: bool
) -> None:
    """Whoever forges replies in the router's name leads to files that it has: scripts and pictures."""
    files = [f"/jquery{number}.js" for number in range(3)]
    web.serve(ROUTER, {path: HttpReply(200, b"/" * 262_000) for path in files})
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start()
    search.hear(*(reply(path, st=IGD) for path in files))
    await search.read()
    if is_seen_before:  # by multicast, when there is no room left
        search.hear(reply("/igd.xml", st=st))
        await search.read()
    search.hear(reply("/igd.xml", confirmed=True))
    await search.read()
    assert search.ranks()["/igd.xml"] is Rank.CERTAIN


@pytest.mark.parametrize("others", [["UUID:IGD", "igd"], ["uuid:igd", "uuid:{IGD}"]])
async def test_all_spellings_of_a_udn_are_one_device(web: Web, start: Start, others: Sequence[str]) -> None:
    web.serve(ROUTER, {f"/v{n}.xml": described(n, udn=udn) for n, udn in enumerate(others, 1)})
    search = start()
    search.hear(reply("/v1.xml", st=IGD), reply("/v2.xml", st=IGD))
    (device,) = await search.read()
    assert device.description_url.endswith("/v2.xml")


async def test_while_only_the_twin_is_there_a_slow_description_of_its_host_is_waited_for(
    web: Web, start: Start
) -> None:
    web.serve(ROUTER, {"/tr64.xml": TR_064, "/igd.xml": (described(), 2.5)})
    web.post = wants_password
    search = start()
    search.hear(reply("/tr64.xml", confirmed=True), reply("/igd.xml", confirmed=True))
    await search.read(2.4)
    assert search.patience > 2.5
    await search.read(0.2)
    assert search.ranks()["/igd.xml"] is Rank.CERTAIN


async def test_the_router_is_seen_at_our_usual_address_whoever_else_replies(web: Web, start: Start) -> None:
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start(usual=lambda _: ELSEWHERE)
    search.hear(*(reply("/x.xml", f"192.168.{77 + n // 200}.{20 + n % 200}") for n in range(300)))
    search.hear(reply("/igd.xml", ours=US), reply("/igd.xml", ours=ELSEWHERE, st=IGD))
    (best, *_) = await search.read()
    assert best.igd_our_addr == ELSEWHERE


async def test_long_documents_of_others_leave_room_for_a_router_that_is_not_known(web: Web, start: Start) -> None:
    for number in range(3):
        web.serve(f"192.168.77.{20 + number}", {"/d.xml": HttpReply(200, described().body + b" " * 250_000)})
    web.serve(ROUTER, {"/igd.xml": described()})
    search = start(next_hops=())
    search.hear(*(reply("/d.xml", f"192.168.77.{20 + number}", st=IGD) for number in range(3)))
    await search.read()
    search.hear(reply("/igd.xml", st=IGD))
    await search.read()
    assert search.ranks()["/igd.xml"] is Rank.LIKELY
