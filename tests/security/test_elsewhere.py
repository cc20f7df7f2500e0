"""No request ever reaches another host than the one that answered, however its address is written.

Each test has canaries on two other loopback addresses, on TCP and UDP, and fails in the end if they heard anything.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Address

import pytest

from aioigd import IGDError, IGDStatus, PortMapper
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.device_tree import Site
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import Response
from aioigd.testing.quirks.hostile import Where

from ..support import odd
from .attacks import victim
from .canaries import Canaries

pytestmark = pytest.mark.waits

SPELLINGS: dict[str, Callable[[str, int], str]] = {
    "plain": lambda address, port: f"{address}:{port}",
    "IPv4-mapped": lambda address, port: f"[::ffff:{address}]:{port}",
    "IPv4-mapped in hexadecimal": lambda address, port: (
        f"[::ffff:{int(IPv4Address(address)) >> 16:x}:{int(IPv4Address(address)) & 0xFFFF:x}]:{port}"
    ),
    "octal": lambda address, port: ".".join(f"0{int(part):o}" for part in address.split(".")) + f":{port}",
    "hexadecimal": lambda address, port: f"{int(IPv4Address(address)):#x}:{port}",
    "decimal": lambda address, port: f"{int(IPv4Address(address))}:{port}",
    "short": lambda address, port: f"127.{int(IPv4Address(address)) & 0xFFFFFF}:{port}",
    "user name": lambda address, port: f"127.0.0.1:80@{address}:{port}",
    "user name and backslash": lambda address, port: f"{address}:{port}\\@127.0.0.1",
    "dot at the end": lambda address, port: f"{address}.:{port}",
    "blank before": lambda address, port: f" {address}:{port}",
    "tab inside": lambda address, port: f"{address}\t:{port}",
    "percent-encoded": lambda address, port: f"{address.replace('.', '%2e')}:{port}",
    "full-width digits": lambda address, port: address.translate({ord("1"): "\uff11", ord("2"): "\uff12"}) + f":{port}",
    "nothing but a host name": lambda address, port: f"localhost:{port}",
}


BRIEF, PATIENT = 0.3, 30.0

MARKUP = (
    '<!DOCTYPE root SYSTEM "{}">',
    '<!DOCTYPE root [<!ENTITY % p SYSTEM "{}"> %p;]>',
    '<?xml-stylesheet type="text/xsl" href="{}"?>',
    '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{}"/>',
)


def spelled(name: str, canaries: Canaries) -> str:
    return SPELLINGS[name](canaries.address, canaries.port)


async def try_everything(gateway: EmulatedGateway, patience: float = PATIENT) -> list[IGDError]:
    """Do everything that there is to do, and return what went wrong.

    ``patience`` is the time for a search, in seconds: much where there is something to be found, which ends it at once
    on a fast machine, and on a slow one when it can; little where the time is always used up.
    """
    errors = []
    timeout = max(patience, 1.0)
    async with PortMapper(source_address=gateway.address, timeout=timeout, discovery_timeout=patience) as mapper:
        for work in (
            mapper.add_port_mapping(8080),
            mapper.query_external_address(),
            mapper.delete_port_mapping(8080),
            mapper.discover(0.2),
        ):
            try:
                await work
            except IGDError as error:
                errors.append(error)
    return errors


async def try_each(quirks: Iterable[Quirk[...]], patience: float) -> list[list[IGDError]]:
    """Do everything that there is to do with each of some gateways, at the same time."""

    async def try_one(quirk: Quirk[...]) -> list[IGDError]:
        async with EmulatedGateway(quirk, address=None) as gateway:
            return await try_everything(gateway, patience)

    return await asyncio.gather(*map(try_one, quirks))


@pytest.mark.waits
async def test_a_location_leads_to_its_sender_only(canaries: Canaries) -> None:
    await try_each((quirks.foreign_location(f"http://{spelled(name, canaries)}/x.xml") for name in SPELLINGS), BRIEF)


@pytest.mark.parametrize(
    "scheme",
    [
        "http://",
        "//",
        "https://",
        *(pytest.param(scheme, marks=pytest.mark.long) for scheme in ("HTTP://", "ftp://", "http:\\\\")),
    ],
)
@pytest.mark.waits
async def test_a_control_url_leads_to_its_sender_only(scheme: str, canaries: Canaries) -> None:
    await try_each((_with_urls_at(f"{scheme}{spelled(name, canaries)}") for name in SPELLINGS), BRIEF)


async def test_a_url_base_leads_to_its_sender_only(canaries: Canaries) -> None:
    """A wrong base is common, and no obstacle."""
    bases = [f"http://{spelled(name, canaries)}/" for name in SPELLINGS]
    errors = await try_each(map(quirks.wrong_url_base, bases), PATIENT)
    assert errors == [[]] * len(SPELLINGS)


async def test_a_wrong_host_in_a_control_url_is_replaced_and_the_mapping_made(canaries: Canaries) -> None:
    async with EmulatedGateway(quirks.foreign_control_url(canaries.url.removesuffix("/canary")), address=None) as it:
        assert await try_everything(it) == []
        assert it.count("AddPortMapping") == 1


@pytest.mark.parametrize("where", ["description", "control"])
@pytest.mark.waits
async def test_a_redirect_is_not_followed(where: Where, canaries: Canaries) -> None:
    statuses = (300, 301, 302, 303, 307, 308)
    for errors in await try_each((quirks.redirects(where, canaries.url, status) for status in statuses), BRIEF):
        assert len(errors) >= 3


@pytest.mark.waits
async def test_a_redirect_is_not_followed_on_the_same_host_either(canaries: Canaries) -> None:
    """A description that has moved is announced at its new place; one rule without exceptions is worth more."""

    def intercept(exchange: Exchange) -> Response | None:
        if exchange.purpose != "description":
            return None
        return Response(301, headers=(("Location", "/scpd/WANIPConn1.xml"),))

    async with EmulatedGateway(odd(intercept=intercept), address=None) as gateway, victim(gateway) as mapper:
        with pytest.raises(IGDError):
            await mapper.get_gateway()
        assert all(device.igd_status is not IGDStatus.OK for device in mapper.devices)
        assert {each.target for each in gateway.requests if each.kind == "GET"} == {"/rootDesc.xml"}


@pytest.mark.parametrize(
    "header", ["Refresh: 0; url={}", "Link: <{}>; rel=next", "Content-Location: {}", "Alt-Svc: {}"]
)
@pytest.mark.waits
async def test_no_header_of_a_reply_leads_anywhere(header: str, canaries: Canaries) -> None:
    name, value = header.format(canaries.url).split(": ", 1)
    quirk = odd(response=lambda exchange, response: response.having(name, value))
    async with EmulatedGateway(quirk, address=None) as gateway:
        assert await try_everything(gateway) == []


@pytest.mark.waits
async def test_no_markup_of_a_document_leads_anywhere(canaries: Canaries) -> None:
    await try_each((_with_markup(each.format(canaries.url)) for each in MARKUP), BRIEF)


async def test_the_documents_that_are_not_needed_are_not_read(canaries: Canaries) -> None:
    async with EmulatedGateway(quirks.foreign_control_url(f"http://{canaries.address}"), address=None) as gateway:
        await try_everything(gateway)
        assert not [each for each in gateway.requests if "scpd" in each.target or "evt" in each.target]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.waits
async def test_proxies_of_the_environment_are_not_used(
    name: str, canaries: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"http://{canaries.address}:{canaries.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with EmulatedGateway(address=None) as gateway:
        assert await try_everything(gateway) == []


async def test_passwords_of_the_netrc_file_are_not_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, canaries: Canaries
) -> None:
    async with EmulatedGateway(address=None) as gateway:
        netrc = f"{tmp_path}/netrc"
        with open(netrc, "w") as file:  # noqa: ASYNC230 - four lines, before anything runs
            file.write(f"machine {gateway.address} login me password secret\n")
        monkeypatch.setenv("NETRC", netrc)
        assert await try_everything(gateway) == []
        assert not any(b"uthorization" in each.raw for each in gateway.requests)


async def test_cookies_are_not_kept() -> None:
    quirk = odd(response=lambda exchange, response: response.having("Set-Cookie", "session=1; Path=/"))
    async with EmulatedGateway(quirk, address=None) as gateway:
        assert await try_everything(gateway) == []
        assert not any(b"ookie" in each.raw for each in gateway.requests)


async def test_a_notice_of_somebody_else_leads_a_lease_nowhere(canaries: Canaries) -> None:
    async with (
        EmulatedGateway(address=None) as gateway,
        PortMapper(source_address=gateway.address) as mapper,
        mapper.lease(8080) as lease,
    ):
        notice = (
            f"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\n"
            f"LOCATION: {canaries.url}\r\nUSN: uuid:x::upnp:rootdevice\r\nBOOTID.UPNP.ORG: 99\r\n\r\n"
        )
        for sender in (gateway.address, *canaries.addresses):
            _multicast_from(sender, notice.encode())
        await asyncio.sleep(0.3)
        assert lease.external_port == 8080


def _multicast_from(address: str, datagram: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.bind((address, 0))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        sender.sendto(datagram, ("239.255.255.250", 1900))


def _with_markup(markup: str) -> Quirk[[]]:
    return odd(description=lambda text, site: text.replace("<root", f"{markup}<root", 1))


def _with_urls_at(base: str) -> Quirk[[]]:
    def description(text: str, site: Site) -> str:
        for path in ("/ctl/", "/evt/", "/scpd/"):
            text = text.replace(f">{path}", f">{base}{path}")
        return text

    return odd(description=description)
