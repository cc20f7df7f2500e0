"""The actions of WANIPConnection 1 and 2, asked for over HTTP."""

from __future__ import annotations

import pytest

from aioigd.models import PortMapping
from aioigd.testing import EmulatedGateway
from aioigd.upnp.wire.soap import Answer, Fault

from .client import WAN_IP_2, call, key, listing, mapping, outcome, values


async def test_a_mapping_is_made_read_listed_and_deleted(gateway: EmulatedGateway) -> None:
    assert await outcome(gateway, "AddPortMapping", mapping(8080, client=gateway.address, lease=3600)) == 0
    assert gateway.mappings == [PortMapping(8080, 8080, gateway.address, "TCP", "my server", 3600)]
    entry = await values(gateway, "GetSpecificPortMappingEntry", key(8080))
    assert entry == {
        "newinternalport": "8080",
        "newinternalclient": gateway.address,
        "newenabled": "1",
        "newportmappingdescription": "my server",
        "newleaseduration": entry["newleaseduration"],
    }
    assert 3590 < int(entry["newleaseduration"]) <= 3600
    (first, end) = await listing(gateway)
    assert first == {"newremotehost": "", "newexternalport": "8080", "newprotocol": "TCP", **entry} | {
        "newleaseduration": first["newleaseduration"] if isinstance(first, dict) else ""
    }
    assert end == 713
    assert await outcome(gateway, "DeletePortMapping", key(8080)) == 0
    assert gateway.mappings == []
    assert gateway.problems == []


async def test_what_is_not_there_is_714(gateway: EmulatedGateway) -> None:
    assert await outcome(gateway, "GetSpecificPortMappingEntry", key()) == 714
    assert await outcome(gateway, "DeletePortMapping", key()) == 714


async def test_ones_own_mapping_is_overwritten_and_another_hosts_is_a_conflict(gateway: EmulatedGateway) -> None:
    await outcome(gateway, "AddPortMapping", mapping(8080, client="127.0.0.1", desc="old"))
    assert await outcome(gateway, "AddPortMapping", mapping(8080, client="127.0.0.1", desc="new")) == 0
    assert await outcome(gateway, "AddPortMapping", mapping(8080, client="127.0.0.2")) == 718
    assert [each.desc for each in gateway.mappings] == ["new"]


async def test_protocols_and_remote_hosts_are_apart(gateway: EmulatedGateway) -> None:
    for arguments in (mapping(), mapping(proto="UDP"), mapping(remote_host="198.51.100.7")):
        assert await outcome(gateway, "AddPortMapping", arguments) == 0
    assert len(gateway.mappings) == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (mapping() | {"NewExternalPort": "0"}, 716),
        (mapping() | {"NewInternalPort": "0"}, 402),
        (mapping(client=""), 402),
        (mapping(client="somewhere"), 402),
        (mapping(remote_host="0.0.0.0"), 402),
    ],
)
async def test_what_cannot_be_mapped_is_refused(gateway: EmulatedGateway, arguments: dict[str, str], code: int) -> None:
    assert await outcome(gateway, "AddPortMapping", arguments) == code
    assert gateway.mappings == []


async def test_a_full_table_is_728() -> None:
    async with EmulatedGateway(address=None, table_size=2) as gateway:
        codes = [await outcome(gateway, "AddPortMapping", mapping(port)) for port in (1, 2, 3, 2)]
    assert codes == [0, 0, 728, 0]


@pytest.mark.parametrize(("version", "code"), [(1, 718), (2, 606)])
async def test_in_secure_mode_a_host_maps_ports_to_itself_only(version: int, code: int) -> None:
    async with EmulatedGateway(address=None, version=2 if version == 2 else 1, secure_mode=True) as gateway:
        assert await outcome(gateway, "AddPortMapping", mapping(1, client="192.168.1.2")) == code
        assert await outcome(gateway, "AddPortMapping", mapping(1, client=gateway.address)) == 0
        gateway.add_mapping(2, proto="TCP")
        assert await outcome(gateway, "DeletePortMapping", key(2)) == 606
        assert await outcome(gateway, "DeletePortMapping", key(1)) == 0


@pytest.mark.parametrize(("asked", "granted"), [(0, 604_800), (100, 100), (999_999, 604_800)])
async def test_in_version_2_every_lease_ends_within_a_week(
    gateway_v2: EmulatedGateway, asked: int, granted: int
) -> None:
    await outcome(gateway_v2, "AddPortMapping", mapping(lease=asked))
    assert [each.duration for each in gateway_v2.mappings] == [granted]


async def test_any_port_is_another_one_where_the_port_is_taken(gateway_v2: EmulatedGateway) -> None:
    gateway_v2.add_mapping(8080, proto="TCP")
    ports = []
    for arguments in (mapping(8080), mapping(8080, client="127.0.0.9"), mapping(9090)):
        reply = await call(gateway_v2, "AddAnyPortMapping", arguments, service_type=WAN_IP_2)
        assert isinstance(reply, Answer)
        ports.append(reply.values["newreservedport"])
    assert ports == ["8081", "8082", "9090"]


async def test_version_2_lists_and_deletes_ranges(gateway_v2: EmulatedGateway) -> None:
    for port in (10, 20, 30):
        gateway_v2.add_mapping(port, proto="TCP", desc="a & b")
    span = {"NewStartPort": "10", "NewEndPort": "20", "NewProtocol": "TCP", "NewManage": "1"}
    reply = await call(gateway_v2, "GetListOfPortMappings", {**span, "NewNumberOfPorts": "0"}, service_type=WAN_IP_2)
    assert isinstance(reply, Answer)
    assert reply.values["newportlisting"].count("<p:PortMappingEntry>") == 2
    assert "<p:NewDescription>a &amp; b</p:NewDescription>" in reply.values["newportlisting"]
    assert isinstance(await call(gateway_v2, "DeletePortMappingRange", span, service_type=WAN_IP_2), Answer)
    assert [each.external_port for each in gateway_v2.mappings] == [30]
    reply = await call(gateway_v2, "DeletePortMappingRange", span, service_type=WAN_IP_2)
    assert reply == Fault(730, "PortMappingNotFound")
    backwards = {**span, "NewStartPort": "21"}
    reply = await call(gateway_v2, "DeletePortMappingRange", backwards, service_type=WAN_IP_2)
    assert reply == Fault(733, "InconsistentParameters")


async def test_it_tells_its_external_address_and_its_state(gateway: EmulatedGateway) -> None:
    assert await values(gateway, "GetExternalIPAddress") == {"newexternalipaddress": "11.22.33.44"}
    await gateway.set_external_address("44.33.22.11")
    assert await values(gateway, "GetExternalIPAddress") == {"newexternalipaddress": "44.33.22.11"}
    assert (await values(gateway, "GetStatusInfo"))["newconnectionstatus"] == "Connected"
    assert await values(gateway, "GetNATRSIPStatus") == {"newrsipavailable": "0", "newnatenabled": "1"}
    assert (await values(gateway, "GetConnectionTypeInfo"))["newconnectiontype"] == "IP_Routed"


async def test_a_connection_can_be_ended_and_begun(gateway: EmulatedGateway) -> None:
    assert await outcome(gateway, "ForceTermination") == 0
    assert not gateway.connected
    assert await values(gateway, "GetExternalIPAddress") == {"newexternalipaddress": ""}
    assert (await values(gateway, "GetStatusInfo"))["newconnectionstatus"] == "Disconnected"
    assert await outcome(gateway, "ForceTermination") == 711
    assert await outcome(gateway, "RequestConnection") == 0
    assert gateway.connected


async def test_the_link_tells_its_speed(gateway: EmulatedGateway) -> None:
    common = "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1"
    reply = await call(gateway, "GetCommonLinkProperties", service_type=common, path="/ctl/WANCommonIFC1")
    assert isinstance(reply, Answer)
    assert reply.values["newphysicallinkstatus"] == "Up"
