"""Whether a router is served, and with how many requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from aioigd import IGDError, PortMapper
from aioigd.results import ProtocolName
from aioigd.testing import EmulatedGateway, Quirk, quirks

__all__ = ["NO_ADDRESS", "USABLE", "Served", "outcome_by", "pairs", "serve", "serve_all"]

USABLE: Final = {name: each for name, each in quirks.CATALOGUE.items() if not each.hopeless and each.family != "pcp"}
"""The quirks with which ports can be mapped by UPnP."""
NO_ADDRESS: Final = frozenset(
    {
        "no_external_address",
        "external_address_empty",
        "external_address_ipv6",
        "external_address_unspecified",
        "impossible_external_address",
    }
)
"""Those that have no external address to tell."""
_ANSWERS: Final = [name for name in USABLE if name.startswith("answers_only")]
_NO_END: Final = ["cut_off", "empty_answers", "leases_break_it", "descriptions_break_it"]
_SENSELESS: Final = tuple(
    {one, other}
    for ones, others in (
        # The one document that hangs would be all that such a server ever serves.
        (
            ["hanging_device_first"],
            ["one_connection_or_close", "one_connection_or_reset", "one_connection_others_wait"],
        ),
        # A connection of another type cannot be searched for by this one.
        (_ANSWERS, ["vendor_urns", "ppp_instead_of_ip"]),
        # The older description names a service that is not there.
        (["two_versions"], ["vendor_urns", "ppp_instead_of_ip"]),
        # What is announced as a root device only is not expected to be a gateway, too.
        (["dead_gateway_first"], ["vendor_urns"]),
        # One host in front of the other is no URL.
        (["foreign_control_url"], ["absolute_urls", "absolute_urls_elsewhere", "urls_without_slash"]),
        # Neither the document nor the connection ends, and nobody says how long it is.
        (["no_length_no_close", "length_too_long_no_close"], _NO_END),
        # Nothing comes although something was promised: the same as a connection that was cut.
        (["length_too_long", "duplicate_content_length"], _NO_END),
        # On loopback the flood comes from the gateway's own address, before its own reply, and takes its connection.
        (["flood"], ["late_replies", "slow_searches", "vendor_urns", "one_connection_or_reset"]),
        # What it leaves without words is all that it takes.
        (["refuses_by_reset", "refuses_by_silence"], ["requires_lease"]),
        # That silence is a refusal takes half of a call to find out, and the first mapping is forgotten by then.
        (["refuses_by_silence"], ["forgets_early"]),
        # Half of the call has gone by in silence, and the rest is too short for answers of 6 s.
        (["slow_actions"], ["hangs_at_first", "refuses_by_silence"]),
    )
    for one in ones
    for other in others
)
_AT_ONCE: Final = 24
_DESC: Final = "my server"
_TCP_PORT: Final = 40_080
_UDP_PORT: Final = 40_081


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a router: ``problem`` is empty where all that was asked of it was done.

    ``searches`` (rounds), ``gets`` and ``posts`` are the requests until the first mapping was made.
    """

    names: tuple[str, ...]
    problem: str
    searches: int = 0
    gets: int = 0
    posts: int = 0

    @property
    def requests(self) -> tuple[int, int, int]:
        """Rounds of M-SEARCH, GET and POST until the first mapping was made; 1, 1, 1 with a router of good manners."""
        return self.searches, self.gets, self.posts


async def serve(*names: str | Quirk[...], timeout: float = 20.0) -> Served:
    """Map ports on a router with these quirks, ask it for its address, delete a mapping; tell how it went.

    ``timeout`` is that of the mapper, in seconds; of a request that hangs it is half.
    """
    told = tuple(map(str, names))
    async with (
        EmulatedGateway(*names, address=None) as gateway,
        PortMapper(source_address=gateway.address, timeout=timeout) as mapper,
    ):
        try:
            await mapper.add_port_mapping(_TCP_PORT, proto="TCP")
            requests = (gateway.search_rounds, gateway.count("GET"), gateway.count("POST"))
            _check(_TCP_PORT in _ports(gateway), "the first mapping is not there")
            await mapper.add_port_mapping(_UDP_PORT, desc=_DESC, duration=3600)
            _check(_UDP_PORT in _ports(gateway), "the mapping with description and lease is not there")
            if not NO_ADDRESS & set(told):
                await mapper.query_external_address()
            await mapper.delete_port_mapping(_TCP_PORT, "TCP")
            _check(_TCP_PORT not in _ports(gateway), "the deleted mapping is still there")
        except (IGDError, _NotServedError) as error:
            return Served(told, f"{error}")
    return Served(told, "", *requests)


async def outcome_by(protocol: ProtocolName, *names: str | Quirk[...]) -> str:
    """Return what becomes of a mapping by this protocol alone on a router that has PCP and NAT-PMP."""
    async with (
        EmulatedGateway(*names, address=None, protocols=("pcp", "nat-pmp")) as gateway,
        PortMapper(source_address=gateway.address, discovery_timeout=1.9, protocols=(protocol,)) as mapper,
    ):
        try:
            await mapper.add_port_mapping(_TCP_PORT, proto="TCP")
        except IGDError as error:
            return error.result.name
    return "mapped"


async def serve_all(combined: Iterable[Sequence[str]]) -> list[Served]:
    """Serve many routers, some at a time, each on a loopback address of its own."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(names: Sequence[str]) -> Served:
        async with room:
            return await serve(*names)

    return await asyncio.gather(*map(one, combined))


def pairs() -> list[tuple[str, str]]:
    """Return the combinations of two quirks that make sense: of different families, and neither undoes the other."""
    return [
        (one, other)
        for one, other in combinations(USABLE, 2)
        if USABLE[one].family != USABLE[other].family and {one, other} not in _SENSELESS
    ]


class _NotServedError(Exception):
    pass


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise _NotServedError(problem)


def _ports(gateway: EmulatedGateway) -> set[int]:
    return {mapping.external_port for mapping in gateway.mappings}
