"""Several addresses in one LAN: every run uses the same one, in whose name the router in secure mode maps ports.

In secure mode a mapping can be changed only from the address that it leads to, so a run from another one is refused its
own mapping (718).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aioigd import LeaseState

from .network import LAN_ADDRESS, ROUTER_ADDRESS, Lab, UpnpMapper
from .router import Router

SECOND = "192.168.77.4"
RESTARTS = 12


@pytest.fixture(params=["one interface", "two interfaces", "two interfaces, the second one better"])
def two_addresses(request: pytest.FixtureRequest, lab: Lab) -> Iterator[str]:
    """A second address of the LAN host in its network; gives the one from which its system reaches the router."""
    host = lab.namespace("lan")
    if request.param == "one interface":
        host.run(["ip", "address", "add", f"{SECOND}/24", "dev", "lan0"])
        yield LAN_ADDRESS
        host.run(["ip", "address", "delete", f"{SECOND}/24", "dev", "lan0"])
        return
    host.sysctl("net.ipv4.conf.all.arp_ignore", 1)  # each interface answers for its own address only
    is_better = request.param.endswith("better")
    lab.namespace("router").run(
        ["ip", "link", "add", "lan-2", "type", "veth", "peer", "name", "lan1", "netns", host.name]
    )
    lab.namespace("router").run(["ip", "link", "set", "lan-2", "master", "br-lan", "up"])
    host.run(["ip", "link", "set", "lan1", "up"])
    host.run(["ip", "address", "add", f"{SECOND}/24", "dev", "lan1", "noprefixroute"])
    metric = ["metric", "50"] if is_better else ["metric", "500"]
    host.run(["ip", "route", "add", "192.168.77.0/24", "dev", "lan1", "src", SECOND, *metric])
    if is_better:
        host.run(["ip", "route", "delete", "192.168.77.0/24", "dev", "lan0", "metric", "0"])
        host.run(["ip", "route", "add", "192.168.77.0/24", "dev", "lan0", "src", LAN_ADDRESS, "metric", "100"])
        host.run(["ip", "route", "replace", "default", "via", ROUTER_ADDRESS, "dev", "lan1"])
    yield SECOND if is_better else LAN_ADDRESS
    host.run(["ip", "link", "delete", "lan1"])
    host.sysctl("net.ipv4.conf.all.arp_ignore", 0)
    lab.set_lan_address(LAN_ADDRESS)


async def test_every_run_maps_for_the_same_address(two_addresses: str, router: Router, inside_lan: None) -> None:
    for _ in range(RESTARTS):
        async with UpnpMapper() as mapper:
            await mapper.add_port_mapping(8080, proto="TCP", overwrite=True)
            assert (await mapper.get_gateway()).device.igd_our_addr == two_addresses
        assert [mapping.internal_client for mapping in router.mappings()] == [two_addresses]
    assert router.asked("/rootDesc.xml") == RESTARTS
    assert router.asked("AddPortMapping") == RESTARTS


async def test_a_lease_stays_where_it_is_when_another_address_would_be_first(
    lab: Lab, router: Router, inside_lan: None
) -> None:
    host = lab.namespace("lan")
    async with UpnpMapper() as mapper, mapper.lease(8080, proto="TCP", poll_interval=0.1) as lease:
        assert [mapping.internal_client for mapping in router.mappings()] == [LAN_ADDRESS]
        host.run(["ip", "address", "add", f"{SECOND}/24", "dev", "lan0"])
        preferred = ["ip", "route", "replace", "192.168.77.0/24", "dev", "lan0", "src"]
        try:
            host.run([*preferred, SECOND])
            await router.until_asked("GetExternalIPAddress", router.asked("GetExternalIPAddress") + 4)
            assert lease.state is LeaseState.ACTIVE
            assert [mapping.internal_client for mapping in router.mappings()] == [LAN_ADDRESS]
            assert router.asked("/rootDesc.xml") == 1
        finally:
            host.run([*preferred, LAN_ADDRESS])
            host.run(["ip", "address", "delete", f"{SECOND}/24", "dev", "lan0"])
