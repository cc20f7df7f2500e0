"""The lab itself does what its fixtures promise; no line of aioigd takes part."""

from __future__ import annotations

import contextlib
import os
import socket
import urllib.request
from pathlib import Path

import pytest

from .network import (
    EXTERNAL_ADDRESS,
    EXTERNAL_ADDRESS6,
    LAN_ADDRESS,
    LAN_ADDRESS6,
    NEIGHBOUR_ADDRESS,
    ROUTER_ADDRESS,
    WAN_ADDRESS,
    Lab,
    Protocol,
)
from .peers import upnpc
from .router import Mapping, Router

SEARCH = (
    b"M-SEARCH * HTTP/1.1\r\n"
    b"HOST: 239.255.255.250:1900\r\n"
    b'MAN: "ssdp:discover"\r\n'
    b"MX: 1\r\n"
    b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    b"\r\n"
)


def search(lab: Lab, timeout: float) -> bytes:
    with lab.inside("lan"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as searcher:
        searcher.settimeout(timeout)
        searcher.sendto(SEARCH, ("239.255.255.250", 1900))
        return searcher.recv(65536)


def get(lab: Lab, location: str, timeout: float = 2.0) -> int:
    with lab.inside("lan"), urllib.request.urlopen(location, timeout=timeout) as response:
        response.read()
        return int(response.status)


def test_a_search_on_the_lan_finds_the_router(lab: Lab, router: Router) -> None:
    assert f"LOCATION: {router.location}\r\n".encode() in search(lab, timeout=2.0)


def test_upnpc_lists_the_router(lab: Lab, router: Router) -> None:
    assert f"ExternalIPAddress = {EXTERNAL_ADDRESS}" in upnpc(lab, router, "-l")


@pytest.mark.parametrize("proto", ["TCP", "UDP"])
def test_a_mapping_lets_a_packet_in_until_it_is_deleted(lab: Lab, router: Router, proto: Protocol) -> None:
    send = lab.send_tcp if proto == "TCP" else lab.send_udp
    with lab.listen("lan", proto, 8080):
        upnpc(lab, router, "-a", LAN_ADDRESS, "8080", "8081", proto)
        assert router.mappings() == [Mapping(proto, 8081, LAN_ADDRESS, 8080)]
        assert send("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"

        upnpc(lab, router, "-d", "8081", proto)
        assert router.mappings() == []
        with pytest.raises(ConnectionRefusedError):
            send("wan", EXTERNAL_ADDRESS, 8081, b"hello")


def test_another_host_of_the_lan_can_be_mapped(lab: Lab) -> None:
    router = lab.start_router(secure=False)
    with lab.listen("neighbour", "TCP", 8080):
        upnpc(lab, router, "-a", NEIGHBOUR_ADDRESS, "8080", "8081", "TCP")
        assert lab.send_tcp("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"neighbour: hello"


def test_the_remote_host_of_a_mapping_is_read_back(lab: Lab, router: Router) -> None:
    upnpc(lab, router, "-a", LAN_ADDRESS, "8080", "8081", "UDP", "3600", WAN_ADDRESS)
    assert router.mappings() == [Mapping("UDP", 8081, LAN_ADDRESS, 8080, remote_host=WAN_ADDRESS)]


def test_a_restart_changes_the_port_and_may_lose_the_mappings(lab: Lab, router: Router) -> None:
    upnpc(lab, router, "-a", LAN_ADDRESS, "8080", "8081", "TCP")
    before = router.location
    router.restart()
    assert router.location != before
    assert get(lab, router.location) == 200
    assert len(router.mappings()) == 1

    router.restart(lose_leases=True)
    assert router.mappings() == []
    assert "8081" not in upnpc(lab, router, "-l")


def test_a_paused_router_hangs_and_a_killed_one_refuses(lab: Lab, router: Router) -> None:
    router.pause()
    with pytest.raises(TimeoutError):
        get(lab, router.location, timeout=0.1)
    router.resume()
    assert get(lab, router.location) == 200

    router.kill()
    with pytest.raises(OSError, match="refused"):
        get(lab, router.location)


def test_the_external_address_changes(lab: Lab, router: Router) -> None:
    upnpc(lab, router, "-a", LAN_ADDRESS, "8080", "8081", "TCP")
    lab.set_external_address("44.0.0.9")
    assert "ExternalIPAddress = 44.0.0.9" in upnpc(lab, router, "-l")
    with lab.listen("lan", "TCP", 8080):
        assert lab.send_tcp("wan", "44.0.0.9", 8081, b"hello") == b"lan: hello"

    lab.set_external_address(None)
    assert "44.0.0" not in upnpc(lab, router, "-l")


def test_searches_get_lost(lab: Lab, router: Router) -> None:
    lab.drop_ssdp(100)
    with pytest.raises(TimeoutError):
        search(lab, timeout=0.15)
    lab.clear_faults()
    assert search(lab, timeout=2.0)


def test_a_second_connection_is_reset(lab: Lab, router: Router) -> None:
    lab.one_connection_at_a_time()
    # One after another is no offence.
    assert [get(lab, router.location) for _ in range(5)] == [200] * 5
    address = (ROUTER_ADDRESS, router.port)
    with lab.inside("lan"), socket.create_connection(address, timeout=2.0), pytest.raises(ConnectionError):
        socket.create_connection(address, timeout=2.0).close()


def test_a_connection_ends_in_a_reset_after_the_whole_reply(lab: Lab, router: Router) -> None:
    lab.reset_after_reply()
    reply = b""
    address = (ROUTER_ADDRESS, router.port)
    with lab.inside("lan"), socket.create_connection(address, timeout=2.0) as connection:
        connection.sendall(f"GET /rootDesc.xml HTTP/1.1\r\nHost: {ROUTER_ADDRESS}\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - which of the reads fails is the kernel's matter
            while received := connection.recv(65536):
                reply += received
    assert reply.rstrip().endswith(b"</root>")


def test_the_lan_host_gets_another_address_and_route_until_the_reset(lab: Lab) -> None:
    lab.set_lan_address("192.168.77.20")
    lab.set_default_route(NEIGHBOUR_ADDRESS)
    assert f"default via {NEIGHBOUR_ADDRESS}" in lab.run("lan", ["ip", "route"]).stdout
    assert "src 192.168.77.20" in lab.run("lan", ["ip", "route", "get", ROUTER_ADDRESS]).stdout
    lab.reset()
    assert f"default via {ROUTER_ADDRESS}" in lab.run("lan", ["ip", "route"]).stdout
    assert f"src {LAN_ADDRESS}" in lab.run("lan", ["ip", "route", "get", ROUTER_ADDRESS]).stdout


def test_the_requests_to_the_router_are_counted(lab: Lab, router: Router) -> None:
    assert router.asked("/rootDesc.xml") == 0
    assert get(lab, router.location) == 200
    upnpc(lab, router, "-a", LAN_ADDRESS, "8080", "8081", "TCP")
    assert router.asked("/rootDesc.xml") == 2
    assert router.asked("AddPortMapping") == 1


def test_the_thread_sees_only_the_namespace_it_is_in(lab: Lab) -> None:
    outside = os.readlink("/proc/thread-self/ns/net")
    with lab.inside("lan"):
        assert "lan0" in Path("/proc/net/route").read_text()
        assert {name for _, name in socket.if_nameindex()} == {"lo", "lan0"}
        with lab.inside("wan"):
            assert "wan0" in Path("/proc/net/route").read_text()
        assert "lan0" in Path("/proc/net/route").read_text()
    assert os.readlink("/proc/thread-self/ns/net") == outside


async def test_a_coroutine_runs_on_the_lan_host(inside_lan: None) -> None:
    assert {name for _, name in socket.if_nameindex()} == {"lo", "lan0"}


def test_ipv6_is_routed_and_closed_to_the_outside(lab6: Lab) -> None:
    lab6.start_router(ipv6=True)
    with lab6.listen("lan", "TCP", 8080), lab6.listen("wan", "TCP", 8080):
        assert lab6.send_tcp("lan", EXTERNAL_ADDRESS6.replace("::1", "::2"), 8080, b"out") == b"wan: out"
        with pytest.raises(TimeoutError):
            lab6.send_tcp("wan", LAN_ADDRESS6, 8080, b"in", timeout=0.1)


def test_nothing_is_left_behind(lab_is_possible: None) -> None:
    with contextlib.suppress(KeyError), Lab() as lab:
        router = lab.start_router()
        pid, names, directory = router.pid, [lab.namespace(p).name for p in ("lan", "wan")], lab.directory
        router.pause()
        raise KeyError
    assert not Path(f"/proc/{pid}").exists()
    assert not any(Path("/run/netns", name).exists() for name in names)
    assert not directory.exists()
