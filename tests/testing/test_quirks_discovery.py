"""What the quirks of discovery do to the replies to a search."""

from __future__ import annotations

import asyncio

import pytest

from aioigd.testing import EmulatedGateway, quirks
from aioigd.upnp.wire.ssdp import build_search, parse_datagram

from .client import IGD_1, WAN_IP_1, call, get, post, search, send
from .proofs import Proofs

proof = Proofs()


@pytest.mark.parametrize("name", proof)
@pytest.mark.waits
async def test_quirk(name: str) -> None:
    await proof.check(name)


async def locations(gateway: EmulatedGateway) -> list[str]:
    return [reply.headers["LOCATION"] for reply in await search(gateway.address, IGD_1)]


def first_host(gateway_locations: list[str]) -> str:
    return gateway_locations[0].removeprefix("http://").rpartition(":")[0]


@proof()
async def answers_only(gateway: EmulatedGateway) -> None:
    assert await search(gateway.address, "ssdp:all") == []
    assert await search(gateway.address, IGD_1) == []
    assert len(await search(gateway.address, WAN_IP_1)) == 1


@proof(quirks.late_replies(0.1))
async def late_replies(gateway: EmulatedGateway) -> None:
    assert await search(gateway.address, IGD_1, patience=0.02) == []
    assert len(await search(gateway.address, IGD_1, patience=0.5)) == 1


@proof()
async def first_searches_lost(gateway: EmulatedGateway) -> None:
    assert [len(await search(gateway.address, IGD_1)) for _ in range(4)] == [0, 0, 1, 1]
    assert await search(gateway.address, WAN_IP_1) == []


@proof(quirks.lossy(0.5, seed=1))
async def lossy(gateway: EmulatedGateway) -> None:
    outcomes = [len(await search(gateway.address, IGD_1, patience=0.02)) for _ in range(20)]
    assert 0 < sum(outcomes) < 20


@proof()
async def replies_from_other_port(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1)
    assert reply.sender[0] == gateway.address
    assert reply.sender[1] != 1900


@proof()
async def bare_lf_replies(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1)
    assert b"\r" not in reply.payload
    assert reply.payload.endswith(b"\n\n")


@proof()
async def lower_case_headers(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1)
    assert b"\nlocation: " in reply.payload
    assert b"LOCATION" not in reply.payload


@proof()
async def duplicate_headers(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1)
    assert reply.payload.count(b"LOCATION: ") == 2


@proof()
async def padded_headers(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1)
    assert f"LOCATION:  \t{gateway.location} \t\r\n".encode() in reply.payload


@proof()
async def no_boot_id(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1)
    assert "BOOTID.UPNP.ORG" not in reply.headers


@proof()
async def junk_before_replies(gateway: EmulatedGateway) -> None:
    replies = await search(gateway.address, IGD_1)
    good = [parse_datagram(reply.payload) for reply in replies]
    assert len(replies) > 10
    assert replies[0].payload == b""
    assert good[-1] is not None
    assert good[-1].location == gateway.location


@proof()
async def repeated_replies(gateway: EmulatedGateway) -> None:
    replies = await search(gateway.address, IGD_1)
    assert len(replies) == 3
    assert len({reply.payload for reply in replies}) == 1


@proof()
async def location_on_localhost(gateway: EmulatedGateway) -> None:
    assert first_host(await locations(gateway)) == "localhost"


@proof()
async def location_on_ipv6_loopback(gateway: EmulatedGateway) -> None:
    assert first_host(await locations(gateway)) == "[::1]"


@proof()
async def location_on_link_local(gateway: EmulatedGateway) -> None:
    assert first_host(await locations(gateway)) == "169.254.1.1"


@proof()
async def location_without_host(gateway: EmulatedGateway) -> None:
    assert first_host(await locations(gateway)) == ""


@proof()
async def location_on_another_host(gateway: EmulatedGateway) -> None:
    assert first_host(await locations(gateway)) not in (gateway.address, "localhost")


@proof()
async def dead_devices_first(gateway: EmulatedGateway) -> None:
    *dead, own = await locations(gateway)
    assert len(set(dead)) == 3
    assert own == gateway.location


@proof()
async def hanging_device_first(gateway: EmulatedGateway) -> None:
    hanging, own = await locations(gateway)
    assert own == gateway.location
    assert hanging.endswith("/hanging.xml")
    assert (await send(gateway, get("/hanging.xml"), patience=0.05)).end == "open"


@proof()
async def media_server_first(gateway: EmulatedGateway) -> None:
    media, own = await locations(gateway)
    assert own == gateway.location
    body = (await send(gateway, get("/media.xml"))).body
    assert media.endswith("/media.xml")
    assert b"device:MediaServer:1" in body
    assert b"WANIPConnection" not in body


@proof()
async def access_point_first(gateway: EmulatedGateway) -> None:
    _access_point, own = await locations(gateway)
    assert own == gateway.location
    body = (await send(gateway, get("/ap.xml"))).body
    assert b"device:InternetGatewayDevice:1" in body
    assert b"WANIPConnection" not in body


@proof()
async def root_devices_first(gateway: EmulatedGateway) -> None:
    replies = await search(gateway.address, "upnp:rootdevice")
    *others, own = [reply.headers["LOCATION"] for reply in replies]
    assert len(set(others)) == 8
    assert own == gateway.location
    assert await locations(gateway) == [gateway.location]
    assert b"device:MediaServer:1" in (await send(gateway, get("/device7.xml"))).body


@proof()
async def tr064_twin_first(gateway: EmulatedGateway) -> None:
    twin, own = await locations(gateway)
    assert twin.endswith("/tr064.xml")
    assert own == gateway.location
    body = (await send(gateway, get("/tr064.xml"))).body
    assert b"urn:dslforum-org:service:WANIPConnection:1" in body
    assert b"schemas-upnp-org:service" not in body
    refused = await send(gateway, post("GetStatusInfo", path="/tr064/ctl/WANIPConn1"))
    assert refused.status == 401
    assert await call(gateway, "GetStatusInfo") is not None


@proof()
async def two_versions(gateway: EmulatedGateway) -> None:
    older, newer = [parse_datagram(reply.payload) for reply in await search(gateway.address, IGD_1)]
    assert older is not None
    assert newer is not None
    assert older.usn == newer.usn
    assert older.location.endswith("/v1.xml")
    for path, version in (("/v1.xml", 1), ("/rootDesc.xml", 2)):
        body = (await send(gateway, get(path))).body
        assert b"service:WANIPConnection:%d<" % version in body
        assert newer.usn.partition("::")[0].encode() in body


@proof()
async def dead_gateway_first(gateway: EmulatedGateway) -> None:
    dead, own = await locations(gateway)
    assert dead.endswith("/dead.xml")
    assert own == gateway.location
    answer = (await send(gateway, post("GetExternalIPAddress", path="/dead/ctl/WANIPConn1"))).body
    assert b"0.0.0.0" in answer
    assert b"Disconnected" in (await send(gateway, post("GetStatusInfo", path="/dead/ctl/WANIPConn1"))).body
    assert (await send(gateway, post("AddPortMapping", path="/dead/ctl/WANIPConn1"))).status == 500


@proof()
async def unicast_ignored(gateway: EmulatedGateway) -> None:
    assert await search(gateway.address, IGD_1, to=gateway.address) == []
    assert await locations(gateway) == [gateway.location]


@proof()
async def multicast_ignored(gateway: EmulatedGateway) -> None:
    assert await locations(gateway) == []
    assert len(await search(gateway.address, IGD_1, to=gateway.address)) == 1


@proof()
async def host_must_be_group(gateway: EmulatedGateway) -> None:
    own = build_search(IGD_1, gateway.address)
    group = build_search(IGD_1, "239.255.255.250")
    assert await search(gateway.address, to=gateway.address, raw=own) == []
    assert await search(gateway.address, to=gateway.address, raw=group.replace(b"MX: 1\r\n", b"")) == []
    assert len(await search(gateway.address, to=gateway.address, raw=group)) == 1
    assert await locations(gateway) == [gateway.location]


@proof(quirks.slow_searches(0.2, room=1))
async def slow_searches(gateway: EmulatedGateway) -> None:
    assert await search(gateway.address, IGD_1, patience=0.02) == []
    replies = await asyncio.gather(*(search(gateway.address, IGD_1, patience=0.5) for _ in range(8)))
    assert 0 < sum(len(heard) for heard in replies) < 8


@proof()
async def never_announces(gateway: EmulatedGateway) -> None:
    """Shown in test_ssdp, where somebody listens; here, that it answers all the same."""
    assert await locations(gateway) == [gateway.location]
