"""What the quirks of PCP and NAT-PMP do to replies, mappings and announcements."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

import pytest

from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.pcp.wire.pcp import Filter, PreferFailure, ResultCode, ThirdParty
from aioigd.testing import EmulatedGateway, network, quirks
from aioigd.testing.quirks import CATALOGUE

from ..support import settled_loop
from .client import call, mapping
from .pcp_client import (
    OTHER_NONCE,
    address_of,
    announce,
    announcements_of,
    ask,
    external_address_of,
    map_by_nat_pmp,
    map_by_pcp,
    one_reply,
    pcp_request,
)
from .proofs import Proofs
from .test_gateway import on_linux
from .test_pcp_server import Clock

proof = Proofs()
BOTH: Final = ("pcp", "nat-pmp")
ADDRESS = nat_pmp.build_request(nat_pmp.AddressRequest())
EXTERNAL = IPv4Address("11.22.33.44")


@pytest.mark.parametrize("name", proof)
@pytest.mark.waits
async def test_quirk(name: str) -> None:
    await proof.check(name, protocols=BOTH)


@pytest.mark.parametrize("name", [name for name, each in CATALOGUE.items() if each.family == "pcp"])
async def test_a_gateway_that_speaks_upnp_only_is_not_changed(name: str) -> None:
    async with EmulatedGateway(name, address=None) as gateway:
        await call(gateway, "AddPortMapping", mapping(8080, lease=7))
        assert [(each.external_port, each.duration) for each in gateway.mappings] == [(8080, 7)]


def ports(*responses: pcp.Response | nat_pmp.Response) -> list[int]:
    """Return the external ports that were granted, 0 for a refusal."""
    found = []
    for response in responses:
        if isinstance(response, pcp.Response):
            found.append(response.mapping.external_port if response.mapping and not response.result else 0)
        else:
            found.append(response.external_port if isinstance(response, nat_pmp.MapResponse) else 0)
    return found


def held(gateway: EmulatedGateway) -> list[int]:
    return sorted(each.external_port for each in gateway.mappings)


# What is granted


@proof()
async def grants_lifetime(gateway: EmulatedGateway) -> None:
    for asked in (1, 3600, 0xFFFFFFFF):
        assert (await map_by_pcp(gateway, 80, 0, asked)).lifetime == 60
        granted = await map_by_nat_pmp(gateway, 81, 0, asked)
        assert isinstance(granted, nat_pmp.MapResponse)
        assert granted.lifetime == 60
    assert {each.duration for each in gateway.mappings} == {60}


@proof()
async def longest_lifetime_is_none(gateway: EmulatedGateway) -> None:
    granted = await map_by_nat_pmp(gateway, 80, 8080, 0xFFFFFFFF)
    assert isinstance(granted, nat_pmp.MapResponse)
    assert granted.lifetime == 0xFFFFFFFF
    assert held(gateway) == []
    assert ports(await map_by_nat_pmp(gateway, 80, 8080, 0xFFFFFFFE)) == [8080]
    assert held(gateway) == [8080]


@proof()
async def assigns_own_ports(gateway: EmulatedGateway) -> None:
    tcp, udp = [await map_by_nat_pmp(gateway, 80, 8080, proto=proto) for proto in ("TCP", "UDP")]
    (port,) = set(ports(tcp, udp))
    assert port not in (80, 8080)
    assert ports(await map_by_nat_pmp(gateway, 80, port)) == [port], "a renewal"
    assert ports(await map_by_pcp(gateway, 81, 8081)) != [8081]
    refused = await map_by_pcp(gateway, 82, 8082, options=[PreferFailure()])
    assert refused.result == ResultCode.CANNOT_PROVIDE_EXTERNAL


@proof()
async def internal_port_only(gateway: EmulatedGateway) -> None:
    assert ports(await map_by_nat_pmp(gateway, 80, 8080)) == [80]
    assert ports(await map_by_pcp(gateway, 81, 8080)) == [81]
    gateway.add_mapping(82, proto="TCP")
    assert ports(await map_by_nat_pmp(gateway, 82), await map_by_pcp(gateway, 82)) == [0, 0]


@proof()
async def adds_second_port(gateway: EmulatedGateway) -> None:
    first, second = [await map_by_nat_pmp(gateway, 80, port) for port in (8080, 9090)]
    assert ports(first, second) == [8080, 9090]
    assert held(gateway) == [8080, 9090]
    await map_by_nat_pmp(gateway, 80, 0, 0)
    assert held(gateway) == [], "one deletion takes both"
    for port in (8080, 9090):
        await map_by_pcp(gateway, 80, port)
    assert held(gateway) == [8080, 9090]
    await map_by_pcp(gateway, 80, 0, 0)
    assert len(held(gateway)) == 1, "each deletion takes one"


@proof()
async def moves_second_port(gateway: EmulatedGateway) -> None:
    for make in (map_by_nat_pmp, map_by_pcp):
        assert [*ports(await make(gateway, 80, 8080)), *ports(await make(gateway, 80, 9090))] == [8080, 9090]
        assert held(gateway) == [9090]
        await make(gateway, 80, 0, 0)


@proof()
async def keeps_first_port(gateway: EmulatedGateway) -> None:
    for make in (map_by_nat_pmp, map_by_pcp):
        assert [*ports(await make(gateway, 80, 8080)), *ports(await make(gateway, 80, 9090))] == [8080, 8080]
        assert held(gateway) == [8080]
        await make(gateway, 80, 0, 0)


@proof()
async def nonces_change_hands(gateway: EmulatedGateway) -> None:
    await map_by_pcp(gateway, 80, 8080)
    assert ports(await map_by_pcp(gateway, 80, 8080, nonce=OTHER_NONCE)) == [8080]
    assert held(gateway) == [8080]
    assert (await map_by_pcp(gateway, 80, 0, 0)).result == ResultCode.NOT_AUTHORIZED
    assert ports(await map_by_pcp(gateway, 80, 9090)) == [9090]
    assert held(gateway) == [8080, 9090]
    await map_by_pcp(gateway, 80, 0, 0, nonce=OTHER_NONCE)
    assert held(gateway) == [9090]


@proof()
async def filters_nothing(gateway: EmulatedGateway) -> None:
    host = Filter(128, 0, IPv4Address("198.51.100.1"))
    granted = await map_by_pcp(gateway, 80, 8080, options=[host])
    assert (granted.result, granted.options) == (0, (host,))
    entry = gateway.entry(8080, "TCP")
    assert entry is not None
    assert entry.lets_in("192.0.2.1", 1)


@proof()
async def refuses_third_party(gateway: EmulatedGateway) -> None:
    refused = await map_by_pcp(gateway, options=[ThirdParty(IPv4Address("192.168.1.9"))])
    assert refused.result == ResultCode.UNSUPP_OPTION


@proof()
async def strict_deletions(gateway: EmulatedGateway) -> None:
    await map_by_pcp(gateway, 80, 8080)
    assert (await map_by_pcp(gateway, 80, 8080, 0)).result == ResultCode.MALFORMED_REQUEST
    refused = await map_by_pcp(gateway, 80, 0, 0, external_address=EXTERNAL)
    assert refused.result == ResultCode.MALFORMED_REQUEST
    assert held(gateway) == [8080]
    assert (await map_by_pcp(gateway, 80, 0, 0)).result == ResultCode.SUCCESS
    assert held(gateway) == []


@proof()
async def deleting_nothing_is_refused(gateway: EmulatedGateway) -> None:
    assert (await map_by_pcp(gateway, 80, 0, 0)).result == ResultCode.NO_RESOURCES
    assert ports(await map_by_pcp(gateway, 80)) == [80]
    deletions = [await map_by_pcp(gateway, 80, 0, 0) for _ in range(2)]
    assert [each.result for each in deletions] == [ResultCode.SUCCESS, ResultCode.NO_RESOURCES]
    assert held(gateway) == []


@proof()
async def errors_without_lifetime(gateway: EmulatedGateway) -> None:
    assert (await map_by_pcp(gateway, 80, 0, 3600, 132)).lifetime == 0
    gateway.add_mapping(8080, proto="TCP")
    refused = await map_by_pcp(gateway, 80, 8080, options=[PreferFailure()])
    assert (refused.result, refused.lifetime) == (ResultCode.CANNOT_PROVIDE_EXTERNAL, 0)
    gateway.connected = False
    assert (await map_by_pcp(gateway)).lifetime == 30


@proof()
async def pcp_refuses_mappings(gateway: EmulatedGateway) -> None:
    refused = await map_by_pcp(gateway)
    assert (refused.result, refused.lifetime) == (ResultCode.NOT_AUTHORIZED, 1800)
    assert (await announce(gateway)).result == ResultCode.SUCCESS
    assert ports(await map_by_nat_pmp(gateway)) == [80]


@proof()
async def pcp_refuses_everything(gateway: EmulatedGateway) -> None:
    assert (await map_by_pcp(gateway)).result == ResultCode.NOT_AUTHORIZED
    assert (await announce(gateway)).result == ResultCode.NOT_AUTHORIZED
    assert ports(await map_by_nat_pmp(gateway)) == [80]


@proof()
async def another_nat_between(gateway: EmulatedGateway) -> None:
    assert (await map_by_pcp(gateway)).result == ResultCode.ADDRESS_MISMATCH
    assert held(gateway) == []


@proof()
async def nat_pmp_maps_nothing(gateway: EmulatedGateway) -> None:
    assert await map_by_nat_pmp(gateway) == nat_pmp.Refusal(2, nat_pmp.ResultCode.NETWORK_FAILURE, 0)
    assert held(gateway) == []
    assert external_address_of(await address_of(gateway)) == EXTERNAL
    assert ports(await map_by_pcp(gateway)) == [80]


@proof()
async def private_address_is_none(gateway: EmulatedGateway) -> None:
    gateway.external_address = "10.1.2.3"
    assert isinstance(await address_of(gateway), nat_pmp.Refusal)
    assert external_address_of(await map_by_pcp(gateway)) == IPv4Address("10.1.2.3")


@proof(quirks.unspecified_address_at_first(2))
async def unspecified_address_at_first(gateway: EmulatedGateway) -> None:
    replies = [await address_of(gateway), await map_by_pcp(gateway), await address_of(gateway)]
    assert list(map(external_address_of, replies)) == [IPv4Address(0), IPv4Address(0), EXTERNAL]


@proof()
async def no_address_at_first(gateway: EmulatedGateway) -> None:
    assert isinstance(await address_of(gateway), nat_pmp.Refusal)
    assert isinstance(await map_by_nat_pmp(gateway), nat_pmp.Refusal)
    assert (await announce(gateway)).result == ResultCode.SUCCESS
    refused = await map_by_pcp(gateway)
    assert (refused.result, refused.lifetime) == (ResultCode.NETWORK_FAILURE, 30)
    assert ports(await map_by_pcp(gateway)) == [80]


# Datagrams


@proof()
async def pcp_ignored(gateway: EmulatedGateway) -> None:
    assert await ask(gateway, pcp_request(gateway.address)) == []
    assert ports(await map_by_nat_pmp(gateway)) == [80]


@proof()
async def silent_port(gateway: EmulatedGateway) -> None:
    assert await ask(gateway, pcp_request(gateway.address)) == []
    assert await ask(gateway, ADDRESS) == []
    assert len(gateway.requests) == 2


@proof()
async def pcp_from_other_address(gateway: EmulatedGateway) -> None:
    for asked in (ADDRESS, pcp_request(gateway.address)):
        (reply,) = await ask(gateway, asked)
        assert reply.sender == (network.neighbour_of(gateway.address), gateway.pcp_port)


@proof()
async def pcp_from_other_port(gateway: EmulatedGateway) -> None:
    for asked in (ADDRESS, pcp_request(gateway.address)):
        (reply,) = await ask(gateway, asked)
        assert reply.sender[0] == gateway.address
        assert reply.sender[1] != gateway.pcp_port


@proof(quirks.slow_pcp(0.3))
async def slow_pcp(gateway: EmulatedGateway) -> None:
    assert await ask(gateway, ADDRESS, patience=0.01) == []
    assert len(await ask(gateway, ADDRESS, patience=0.6)) == 1


@proof()
async def repeats_replies(gateway: EmulatedGateway) -> None:
    replies = await ask(gateway, pcp_request(gateway.address))
    assert len(replies) == 3
    assert len({reply.payload for reply in replies}) == 1


@proof()
async def loses_first_datagrams(gateway: EmulatedGateway) -> None:
    assert [len(await ask(gateway, ADDRESS)) for _ in range(3)] == [0, 0, 1]
    assert await ask(gateway, pcp_request(gateway.address)) == []
    assert held(gateway) == []


@proof(quirks.loses_datagrams(0.5, seed=1))
async def loses_datagrams(gateway: EmulatedGateway) -> None:
    answered = [len(await ask(gateway, pcp_request(gateway.address, port), patience=0.01)) for port in range(1, 41)]
    assert 0 < sum(answered) < len(held(gateway)) < 40, "some requests are lost, and some replies"


@proof()
async def nat_pmp_errors_echo_request(gateway: EmulatedGateway) -> None:
    gateway.connected = False
    asked = nat_pmp.build_request(nat_pmp.MapRequest("TCP", 80, 8080, 3600))
    assert await one_reply(gateway, asked) == bytes((0, 0x82, 0, 3, 0, 0, 0, 0)) + asked[4:]
    gateway.connected = True
    assert ports(await map_by_nat_pmp(gateway)) == [80]


@proof()
async def odd_lengths_are_nat_pmp(gateway: EmulatedGateway) -> None:
    for odd in (b"\2\1" + bytes(21), b"\2\1" + bytes(59)):
        assert await one_reply(gateway, odd) == bytes((0, 0x80, 0, 3, 0, 0, 0, 0))
    assert ports(await map_by_pcp(gateway)) == [80]


@proof()
async def forged_replies_first(gateway: EmulatedGateway) -> None:
    for asked, count in ((ADDRESS, 4), (pcp_request(gateway.address), 7)):
        *forged, true = [reply.payload for reply in await ask(gateway, asked)]
        assert len(forged) == count
        assert true not in forged
    response = pcp.parse_response(true)
    assert response is not None
    assert ports(response) == [80]


# Epochs and announcements


@on_linux
async def test_epochs() -> None:
    """How the quirks that change epochs count, on a clock that is known."""
    expected = {"epoch_counts_twice": [0, 20, 40], "epoch_jumps": [1_000_000, 10, 1_000_020]}
    for name, epochs in expected.items():
        clock = Clock()
        async with EmulatedGateway(name, address=None, protocols=BOTH, clock=clock) as gateway:
            seen = []
            for _ in epochs:
                seen.append((await announce(gateway)).epoch)
                clock.now += 10
            assert seen == epochs, name


@proof()
async def epoch_counts_twice(gateway: EmulatedGateway) -> None:
    """Shown in test_epochs, where the clock is known; here, that it maps all the same."""
    assert ports(await map_by_pcp(gateway)) == [80]


@proof()
async def epoch_jumps(gateway: EmulatedGateway) -> None:
    epochs = [(await announce(gateway)).epoch, (await address_of(gateway)).epoch]
    assert epochs[0] - epochs[1] >= 999_990


@on_linux
async def test_an_epoch_that_stays_at_an_address_change() -> None:
    clock = Clock()
    async with EmulatedGateway(
        quirks.epoch_stays_at_address_change, address=None, protocols=BOTH, clock=clock
    ) as gateway:
        clock.now += 100
        await gateway.set_external_address("11.22.33.55")
        assert (await address_of(gateway)).epoch == 100


@proof()
async def epoch_stays_at_address_change(gateway: EmulatedGateway) -> None:
    """Shown above, where the clock is known; here, that the address is the new one."""
    await gateway.set_external_address("11.22.33.55")
    assert external_address_of(await address_of(gateway)) == IPv4Address("11.22.33.55")


@proof()
async def announces_changes_only(gateway: EmulatedGateway) -> None:
    async with announcements_of(gateway.address) as heard:
        await gateway.restart()
        await settled_loop()
        assert heard == []
        await gateway.set_external_address("11.22.33.55")
        await settled_loop()
        assert len(heard) == len(BOTH)
        await gateway.set_external_address("11.22.33.44")
        await settled_loop()
        assert len(heard) == 2 * len(BOTH)


@proof()
async def announces_nothing(gateway: EmulatedGateway) -> None:
    async with announcements_of(gateway.address) as heard:
        await gateway.restart()
        await settled_loop()
        assert heard == []


@proof(quirks.double_announcements(5))
async def double_announcements(gateway: EmulatedGateway) -> None:
    async with announcements_of(gateway.address) as heard:
        await gateway.restart()
        await settled_loop()
        assert len(heard) == 10
