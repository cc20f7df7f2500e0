"""A lease gets one of the ports that a real router grants, as where many customers share an address (MAP-E)."""

from __future__ import annotations

import pytest

from aioigd import IGDError, OneOf
from aioigd.leases.request import check_lease_request

from .network import Lab, UpnpMapper

CUSTOMER = 201


def rules(customer: int) -> list[str]:
    """Allow the 240 ports of one customer: 16 of each 4,096, but for the first."""
    firsts = [block * 4096 + customer * 16 for block in range(1, 16)]
    allowed = [f"allow {first}-{first + 15} 0.0.0.0/0 1-65535" for first in firsts]
    return [*allowed, "deny 0-65535 0.0.0.0/0 0-65535"]


@pytest.mark.parametrize("igd_v1", [True, False])
@pytest.mark.parametrize("proto", ["TCP", ["TCP", "UDP"]])
async def test_a_customer_with_few_ports_gets_one_of_them(
    lab: Lab, inside_lan: None, igd_v1: bool, proto: list[str]
) -> None:
    router = lab.start_router(igd_v1=igd_v1, options=rules(CUSTOMER))
    async with UpnpMapper() as mapper:
        async with mapper.lease(0, 9000, "a game", proto) as lease:  # type: ignore[arg-type]
            assert lease.external_port // 16 % 256 == CUSTOMER
            assert {one.external_port for one in router.mappings()} == {lease.external_port}
            assert {one.internal_port for one in router.mappings()} == {9000}
        assert router.mappings() == []
        async with mapper.lease(8080, desc="a game", proto=proto, on_conflict="other_port") as lease:  # type: ignore[arg-type]
            assert lease.external_port // 16 % 256 == CUSTOMER
            assert {one.internal_port for one in router.mappings()} == {8080}
    assert router.asked("AddPortMapping") <= 512


async def test_the_last_of_all_customers_gets_one_with_at_most_512_requests(lab: Lab, inside_lan: None) -> None:
    choices = check_lease_request(0, 9000, "a game", "TCP", 3600, "fail").choices
    router = lab.start_router(igd_v1=True, options=rules(choices[-1] // 16 % 256))
    async with UpnpMapper() as mapper, mapper.lease(0, 9000, "a game", "TCP") as lease:
        assert lease.external_port == choices[-1]
    actions = ("AddPortMapping", "DeletePortMapping", "GetSpecificPortMappingEntry", "GetGenericPortMappingEntry")
    assert sum(map(router.asked, actions)) <= 512


async def test_one_of_some_ports_is_had_in_their_order(lab: Lab, inside_lan: None) -> None:
    router = lab.start_router(options=["deny 6881 0.0.0.0/0 0-65535"])
    async with UpnpMapper() as mapper:
        async with mapper.lease(OneOf([6881, 51413, 6889]), 9000, proto="TCP") as lease:
            assert lease.external_port == 51413
        with pytest.raises(IGDError):
            await mapper.lease(OneOf([6881]), 9000, proto="TCP")
    assert router.mappings() == []
