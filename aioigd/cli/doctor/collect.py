"""Collects the findings of ``aioigd doctor``: inspects this machine, searches, queries the gateway, opens a port.

What fails is a finding, too. Conclusions are drawn in rules.py.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network, ip_address
from itertools import chain
from pathlib import Path
from typing import Final, Literal

from ... import (
    Device,
    Gateway,
    IGDError,
    NotFoundError,
    PortMapper,
    ProtocolName,
    TransportError,
    UPnPResult,
    default_next_hops,
    source_address_for,
)
from ...net.guard import check_destination
from ..format import host_in, host_of, place_of, same_address
from ..options import Settings, all_interfaces
from ..runner import Limit, result_or_none
from .rules import Findings, Link, LinkKind, Reply, Trial

__all__ = ["collect_findings"]

_Step = Callable[[str], None]
"""Shows what is done next; called before each step."""

_VPN: Final = re.compile(r"(tun|tap|wg|utun|ppp|ipsec|tailscale|zt|nordlynx|proton|mullvad|vpn|gpd|cscotun)", re.I)
_VIRTUAL: Final = re.compile(
    r"(docker|br-[0-9a-f]{6,}|veth|virbr|vmnet|vboxnet|cni|podman|lxc|lxd|vethernet|flannel)", re.I
)
_CONTAINER_SIGNS: Final = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_NETWORKS: Final = (IPv4Network("172.16.0.0/12"), IPv4Network("10.88.0.0/16"))
_INTERNET_HOST: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849): the route to them is the default route. Nothing is sent."""
_SEARCH_TIME: Final = 3.0
_NO_LIMIT: Final = Limit(None)
_GROUP: Final = "239.255.255.250"
"""The SSDP multicast group (UDA 1.1 section 1.3.2); over IPv6 it stands for the groups there."""
_LOOPBACK_ONLY: Final = "AIOIGD_LOOPBACK_ONLY"
"""The environment variable of the guard for tests, which holds for what the library sends by itself."""
_CONNECT_TIME: Final = 1.0
_CONNECT_PORTS: Final = (80, 443, 53)
_MAX_MAPPINGS: Final = 512
_TRIAL_LEASE: Final = 120
_TRIAL_DESC: Final = "aioigd doctor"
_TRIALS: Final = 3
_REPLY_TIME: Final = 1.0
"""Seconds for a second look whether a router speaks PCP or NAT-PMP."""
_TRIAL_PORTS: Final = range(49152, 65536)


async def collect_findings(settings: Settings, *, trial: bool, step: _Step, limit: Limit = _NO_LIMIT) -> Findings:
    """Return all findings; with ``trial``, a port is opened for a moment.

    The search takes the --timeout of the settings. With a ``limit`` it takes half of that, and of the gateway is asked
    what there is time for; raises DeadlineError where there was none for the search.
    """
    step("Looking at this machine")
    found = _inspect_machine(settings)
    if not found.links:
        return found
    step("Searching for gateways")
    seconds = settings.timeout or _SEARCH_TIME
    async with limit.whole_step():
        seconds = seconds if limit is _NO_LIMIT else min(_SEARCH_TIME, seconds / 2)
        found = await _search_devices(found, settings, seconds)
    if not found.valid_gateways and found.next_hops:
        step("Seeing whether the router is there")
        async with limit.step():
            are_up = await asyncio.gather(
                *(_is_host_up(hop, min(_CONNECT_TIME, seconds / 2)) for hop in found.next_hops)
            )
            found = replace(found, router_is_there=any(are_up))
    usable = [each for each in found.devices if each.is_valid_gateway()]
    usable.sort(key=lambda each: (not _is_at(each, found.next_hops), settings.protocols.index(each.protocol)))
    if found.asked_for:
        usable = [each for each in usable if each.igd_our_addr == found.asked_for]
    hosts = [host_of(usable[0])] if usable else sorted(found.next_hops)[:1]
    if not trial or settings.location is not None or any(":" in host for host in hosts):
        hosts = []  # over IPv6 there are no ports to be mapped
    replies = partial(_ask_by_datagrams, settings, hosts, {each.protocol for each in usable}, min(seconds, _REPLY_TIME))
    if not usable:
        step("Asking the router by PCP and NAT-PMP")
        async with limit.step():
            found = replace(found, replies=await replies())
        return found
    async with settings.mapper() as mapper:
        mapper.devices = usable
        async with limit.step(), aclosing(_query_gateway(found, mapper, replies, trial=trial, step=step)) as stages:
            async for stage in stages:
                found = stage
    return found


# This machine


def _inspect_machine(settings: Settings) -> Findings:
    source = settings.source_address or ""
    named = host_in(settings.gateway or "")
    if named and not source and ip_address(named).is_loopback:
        with suppress(TransportError):
            source = source_address_for(named)
    version = 6 if settings.ipv6 or ":" in source or ":" in named else 4
    if source and ip_address(source).is_loopback:
        # Loopback has no default route: a gateway there is at the same address.
        link = Link("loopback", source, "loopback")
        hops = frozenset({named or source})
        return Findings((link,), asked_for=source, default_address=source, next_hops=hops, named=named)
    links = tuple(
        Link(each.name, each.address, kind, each.prefix)
        for each in all_interfaces(ipv6=version == 6)
        if (kind := kind_of(each.name, each.address)) != "loopback"
    )
    try:
        default = source_address_for(named or _INTERNET_HOST[version])
    except TransportError:
        default = ""
    return Findings(
        links=links,
        asked_for=source,
        default_address=default,
        next_hops=frozenset({named}) if named else default_next_hops(ipv6=version == 6),
        named=named,
        in_container=not source and _in_container(links),
    )


def kind_of(name: str, address: str) -> LinkKind:
    """Return the kind of an interface, by its name and address."""
    if ip_address(address).is_loopback:
        return "loopback"
    if _VPN.match(name):
        return "vpn"
    return "virtual" if _VIRTUAL.match(name) else "lan"


def _in_container(links: tuple[Link, ...]) -> bool:
    return any(Path(sign).exists() for sign in _CONTAINER_SIGNS) and all(
        any(ip_address(link.address) in network for network in _CONTAINER_NETWORKS) for link in links
    )


# Search


async def _search_devices(found: Findings, settings: Settings, seconds: float) -> Findings:
    if settings.location is not None:
        return replace(found, devices=tuple(await _devices(settings, seconds)))
    # The two parts of a usual search, apart, to see which of them the router of the default route answers; a router
    # that is named is asked alone.
    groups = [] if found.named else [_GROUP]
    by_upnp = replace(settings, protocols=("upnp",)) if "upnp" in settings.protocols else None
    by_datagrams = [each for each in settings.protocols if each != "upnp"]
    hops = sorted(found.next_hops)
    answers = await asyncio.gather(
        *(_devices(by_upnp, seconds, host) for host in [*groups, *hops] if by_upnp is not None),
        *(
            _devices(replace(settings, protocols=(each,)), seconds, host, is_one=True)
            for host in hops
            for each in by_datagrams
        ),
    )
    by_multicast = answers[0] if by_upnp is not None and groups else []
    by_unicast = list(chain.from_iterable(answers[len(groups) if by_upnp is not None else 0 :]))
    by_ssdp = [each for each in by_unicast if each.protocol == "upnp"]
    unicast_only = (
        bool(groups) and _any_is_at(found.next_hops, by_ssdp) and not _any_is_at(found.next_hops, by_multicast)
    )
    devices = {place_of(each): each for each in by_multicast}
    for each in by_unicast:
        if place_of(each) not in devices or each.is_valid_gateway():
            devices[place_of(each)] = each
    found = replace(found, devices=tuple(devices.values()), unicast_only=unicast_only)
    source = found.asked_for
    if source and not found.valid_gateways and not ip_address(source).is_loopback:
        elsewhere = await _devices(replace(settings, source_address=None), seconds / 2)
        found = replace(found, devices=(*found.devices, *elsewhere))
    return found


async def _devices(
    settings: Settings, seconds: float, host: str | None = None, *, is_one: bool = False
) -> list[Device]:
    """Return all devices that answer a search (at ``host`` only, if it is given); none where nothing can be sent.

    ``is_one``: there is one to be found at most, so the first ends it.
    """
    devices: dict[str, Device] = {}
    with suppress(IGDError):
        async with (
            settings.mapper() as mapper,
            aclosing(mapper.iter_devices(seconds, device_filter="", host=host)) as answers,
        ):
            async for device in answers:
                devices[place_of(device)] = device
                if is_one:
                    break
    return list(devices.values())


def _any_is_at(hosts: Iterable[str], devices: Iterable[Device]) -> bool:
    return any(_is_at(each, hosts) for each in devices)


def _is_at(device: Device, hosts: Iterable[str]) -> bool:
    return any(same_address(host_of(device), host) for host in hosts)


async def _is_host_up(host: str, seconds: float) -> bool:
    """Return whether a host accepts or refuses a TCP connection: it is up in both cases."""
    return any(await asyncio.gather(*(_is_port_up(host, port, seconds) for port in _CONNECT_PORTS)))


async def _is_port_up(host: str, port: int, seconds: float) -> bool:
    if os.environ.get(_LOOPBACK_ONLY, "") not in ("", "0") and not ip_address(host.partition("%")[0]).is_loopback:
        return False
    try:
        check_destination(host)
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError, TransportError):
        return False
    writer.transport.abort()
    return True


# The gateway


async def _query_gateway(
    found: Findings,
    mapper: PortMapper,
    replies: Callable[[], Awaitable[tuple[Reply, ...]]],
    *,
    trial: bool,
    step: _Step,
) -> AsyncGenerator[Findings, None]:
    """Yield the findings again whenever there is more to them. What was not asked is not found missing.

    ``replies`` asks by PCP and NAT-PMP; last, so that it slows nothing down.
    """
    try:
        gateway = await mapper.get_gateway()
    except IGDError:
        return
    step("Asking the gateway for its address and state")
    # By PCP it is told with a mapping only (RFC 6887 section 11.6).
    may_ask = trial or gateway.protocol != "pcp"
    address = await result_or_none(gateway.query_external_address()) if may_ask else None
    status = await result_or_none(gateway.query_status())
    is_connected = None if status is None else status.is_connected
    found = replace(found, gateway=gateway.device, external_address=address, is_connected=is_connected)
    yield found
    step("Counting its mappings")
    found = replace(found, mappings=await _count_mappings(gateway))
    yield found
    if trial and (gateway.protocol == "upnp" or ":" not in host_of(gateway.device)):
        step("Opening a port, and closing it again")
        found = replace(found, trial=await _try_to_open(gateway))
        yield found
        yield replace(found, replies=await replies())


async def _count_mappings(gateway: Gateway) -> int | None:
    count = 0
    try:
        async for _ in gateway.query_port_mappings():
            count += 1
            if count >= _MAX_MAPPINGS:
                break
    except IGDError:
        return count or None
    return count


async def _ask_by_datagrams(
    settings: Settings, hosts: Sequence[str], spoken: Collection[ProtocolName], seconds: float
) -> tuple[Reply, ...]:
    """Ask for a port by PCP and by NAT-PMP: refusals say more than silence.

    ``spoken``: what has answered before; the others have some ``seconds`` for it.
    """
    protocols = [each for each in settings.protocols if each != "upnp"]
    alone = [replace(settings, protocols=(each,), timeout=None if each in spoken else seconds) for each in protocols]
    return tuple(await asyncio.gather(*(_reply_by(each, host) for host in hosts for each in alone)))


async def _reply_by(settings: Settings, host: str) -> Reply:
    """Ask by the one protocol of the settings."""
    (protocol,) = settings.protocols
    alone = replace(settings, gateway=settings.gateway or host)
    async with alone.mapper() as mapper:
        try:
            gateway = await mapper.get_gateway()
        except IGDError as error:
            if error.error_code is not None:
                return Reply(protocol, "refused", error.result, error.error_code, error.message)
            is_closed = isinstance(error.__cause__ or error, TransportError)
            return Reply(protocol, "closed" if is_closed else "silent", error.result, None, error.message)
        trial = await _try_to_open(gateway)
    said: Literal["served", "refused"] = "served" if trial.result is UPnPResult.SUCCESS else "refused"
    return Reply(protocol, said, trial.result, trial.error_code, trial.reason)


async def _try_to_open(gateway: Gateway) -> Trial:
    """Open a port that nobody uses, read it back, and close it."""
    trial = Trial(0)
    for port in random.sample(_TRIAL_PORTS, _TRIALS):
        trial = await _try_port(gateway, port)
        if trial.result is not UPnPResult.CONFLICT_WITH_OTHER_MAPPING:
            break
    return trial


async def _try_port(gateway: Gateway, port: int) -> Trial:
    try:
        mapping = await gateway.add_port_mapping(port, desc=_TRIAL_DESC, proto="TCP", duration=_TRIAL_LEASE)
    except IGDError as error:
        return Trial(port, error.result, error.error_code, error.message, protocol=gateway.protocol)
    try:
        await gateway.query_port_mapping(port, "TCP")
        was_there = True
    except IGDError as error:
        was_there = not isinstance(error, NotFoundError)  # other errors do not say that it has none
    finally:
        with suppress(IGDError):  # its lease ends soon, or it was never there
            await gateway.delete_port_mapping(port, "TCP")
    return Trial(
        port,
        asked_duration=_TRIAL_LEASE,
        duration=mapping.duration,
        asked_desc=_TRIAL_DESC,
        desc=mapping.desc,
        was_there=was_there,
        protocol=gateway.protocol,
    )
