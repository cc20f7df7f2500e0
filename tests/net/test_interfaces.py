"""The addresses of this machine and its default routes, as the operating system tells of them."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import ifaddr
import pytest

from aioigd import TransportError, UPnPResult
from aioigd.errors import NoRouteError
from aioigd.net import interfaces as module
from aioigd.net.interfaces import (
    Interface,
    default_next_hops,
    interfaces,
    is_our_address,
    leading_to,
    source_address_for,
    with_default_route,
)
from aioigd.net.linux_addresses import AddressEntry, ipv4_addresses, ipv6_addresses


def have_adapters(monkeypatch: pytest.MonkeyPatch, adapters: list[SimpleNamespace]) -> None:
    """As on systems where only ifaddr tells."""
    monkeypatch.setattr(module, "_ask_ioctl", list)
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)


def adapter(index: int, name: str, *ips: str) -> SimpleNamespace:
    """``ips``: addresses with their prefix length."""
    entries = []
    for text in ips:
        address, _, length = text.partition("/")
        ip = (address, 0, 0) if ":" in address else address
        entries.append(SimpleNamespace(ip=ip, network_prefix=int(length)))
    return SimpleNamespace(index=index, name=name, ips=entries)


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have_adapters(
        monkeypatch,
        [
            adapter(1, "lo", "127.0.0.1/8", "::1/128"),
            adapter(2, "eth0", "192.168.1.5/24", "2001:db8::5/64", "fe80::5%eth0/64", "2001:db8::6/64"),
            adapter(3, "br0", "10.0.0.5/16"),
            adapter(4, "tun0", "2001:db8:1::7/128"),
        ],
    )
    have_routes(monkeypatch, tmp_path)


pytestmark = pytest.mark.one_loop


@pytest.mark.usefixtures("adapters")
def test_a_search_goes_out_on_every_network_but_loopback() -> None:
    assert interfaces() == [Interface("192.168.1.5", 2), Interface("10.0.0.5", 3)]


@pytest.mark.usefixtures("adapters")
def test_over_ipv6_each_interface_counts_once_with_its_link_local_address_if_it_has_one() -> None:
    found = interfaces(ipv6=True)
    assert {each.index: each.address for each in found} == {2: "fe80::5", 4: "2001:db8:1::7"}


@pytest.mark.usefixtures("adapters")
@pytest.mark.parametrize("address", ["10.0.0.5", "2001:db8::6", "2001:0db8:0::6", "fe80::5", "127.0.0.1", "::1"])
def test_an_address_chooses_its_interface(address: str) -> None:
    (found,) = interfaces(source_address=address)
    assert found.is_ipv6 == (":" in address)
    assert found.is_loopback == (address in ("127.0.0.1", "::1"))


@pytest.mark.usefixtures("adapters")
def test_every_loopback_address_can_be_used_without_being_listed() -> None:
    assert interfaces(source_address="127.1.2.3") == [Interface("127.1.2.3", 1)]


@pytest.mark.usefixtures("adapters")
def test_an_address_that_is_not_ours_is_a_socket_error() -> None:
    with pytest.raises(TransportError, match="no interface of this machine") as caught:
        interfaces(source_address="192.168.1.6")
    assert caught.value.result is UPnPResult.SOCKET_ERROR


@pytest.mark.parametrize("ipv6", [False, True])
def test_no_network_is_a_socket_error(monkeypatch: pytest.MonkeyPatch, ipv6: bool) -> None:
    monkeypatch.setattr(module, "all_addresses", lambda: [Interface("127.0.0.1", 1), Interface("::1", 1)])
    with pytest.raises(TransportError, match=f"no network with IPv{6 if ipv6 else 4}"):
        interfaces(ipv6=ipv6)


def test_this_machine_has_a_loopback_interface() -> None:
    assert interfaces(source_address="127.0.0.1")[0].is_loopback


@pytest.mark.usefixtures("adapters")
def test_the_network_of_an_ipv4_address_has_an_ipv6_address_of_ours_or_none() -> None:
    assert module.same_network_ipv6("192.168.1.5") == "fe80::5"
    assert module.same_network_ipv6("127.0.0.1") == "::1"
    with pytest.raises(TransportError, match=r"10\.0\.0\.5 has no IPv6"):
        module.same_network_ipv6("10.0.0.5")


def test_an_ipv6_address_is_ours_or_not() -> None:
    assert module.is_our_address("::1")
    assert not module.is_our_address("2001:db8::1")


@pytest.mark.parametrize("address", ["2001:db8::5", "fe80::5"])
def test_our_address_on_the_internet_is_no_link_local_one(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(module, "source_address_for", lambda _: address)
    if address.startswith("fe80"):
        with pytest.raises(TransportError):
            module.public_ipv6_address()
    else:
        assert module.public_ipv6_address() == address


ROUTES_V4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
wlan0\t00000000\tFE0AA8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000000\t0100000A\t0003\t0\t0\t0\t00000080\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ZERO = "0" * 32
ROUTES_V6 = f"""\
{ZERO} 00 {ZERO} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0
{ZERO} 00 {ZERO} 00 fe800000000000000000000000000002 00000800 00000001 00000000 00000003 wlan0
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200 lo
20010db8000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001 eth0
"""


def have_routes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, v4: str = "", v6: str = "") -> None:
    for name, text in (("_ROUTES_V4", v4), ("_ROUTES_V6", v6)):
        table = tmp_path / name
        table.write_text(text, "ascii")
        monkeypatch.setattr(module, name, table)


def test_the_next_hop_of_the_best_default_route_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have_routes(monkeypatch, tmp_path, ROUTES_V4, ROUTES_V6)
    assert default_next_hops() == {"192.168.1.1"}
    assert {hop.partition("%")[0] for hop in default_next_hops(ipv6=True)} == {"fe80::1"}


@pytest.mark.parametrize(
    ("first", "second", "best"),
    [
        (600, 100, {"192.168.10.254"}),
        (99, 100, {"192.168.1.1"}),
        (100, 100, {"192.168.1.1", "192.168.10.254"}),
        (0, 4294967295, {"192.168.1.1"}),
    ],
)
def test_the_lowest_metric_is_the_best_route_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: int, second: int, best: set[str]
) -> None:
    v4 = ROUTES_V4.replace("\t600\t", f"\t{second}\t")
    v4 = v4.replace("0003\t0\t0\t0\t00000000\t", f"0003\t0\t0\t{first}\t00000000\t", 1)
    have_routes(monkeypatch, tmp_path, v4)
    assert default_next_hops() == best


@pytest.mark.parametrize("text", [None, "", "garbage", "Iface\nonly two", "a\n" + "x\t" * 9])
def test_a_system_that_does_not_tell_has_no_next_hops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    table = tmp_path / "route"
    if text is not None:
        table.write_text(text, "ascii")
    monkeypatch.setattr(module, "_ROUTES_V4", table)
    monkeypatch.setattr(module, "_ROUTES_V6", table)
    assert default_next_hops() == default_next_hops(ipv6=True) == frozenset()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_our_address_towards_a_host_is_the_one_its_packets_would_have(host: str) -> None:
    assert source_address_for(host) == host


def test_a_host_to_which_there_is_no_route_is_a_socket_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unroutable(socket.socket):
        def connect(self, _: object) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "socket", Unroutable)
    with pytest.raises(TransportError, match=r"no route to 127\.0\.0\.9: Network is unreachable"):
        source_address_for("127.0.0.9")


# What Linux tells without netlink


def test_the_system_tells_the_same_as_the_c_library() -> None:
    told = {(entry.name, entry.address, entry.prefix_length) for entry in (*ipv4_addresses(), *ipv6_addresses())}
    assert told == {
        (adapter.name, (ip.ip if isinstance(ip.ip, str) else ip.ip[0]).partition("%")[0], ip.network_prefix)
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    }


def no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> list[object]:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(module, "_ask_ioctl", forbidden)
    monkeypatch.setattr(ifaddr, "get_adapters", forbidden)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_an_address_does_without_a_list(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    no_list(monkeypatch)
    (found,) = interfaces(source_address=address)
    assert (found.address, found.is_loopback) == (address, True)
    with pytest.raises(TransportError, match=r"no interface of this machine has the address 198\.51\.100\.7"):
        interfaces(source_address="198.51.100.7")


@pytest.mark.parametrize("ipv6", [False, True])
def test_without_a_list_the_network_is_that_of_the_default_route(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ipv6: bool
) -> None:
    no_list(monkeypatch)
    have_routes(monkeypatch, tmp_path)
    ours = "2001:db8:9::5" if ipv6 else "192.168.1.5"
    monkeypatch.setattr(module, "source_address_for", lambda _: ours)
    assert interfaces(ipv6=ipv6) == [Interface(ours, 0)]

    def nowhere(_: str) -> str:
        raise NoRouteError("there is no route")

    monkeypatch.setattr(module, "source_address_for", nowhere)
    with pytest.raises(TransportError, match="no network"):
        interfaces(ipv6=ipv6)


def test_a_prefix_of_no_bits_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        AddressEntry("ppp0", 2, "10.1.1.5", 0, "0.0.0.0"),
        AddressEntry("ppp1", 3, "10.2.2.5", None),
        AddressEntry("eth0", 4, "10.3.0.5", 16, "10.3.0.1"),
    ]
    monkeypatch.setattr(module, "_ask_ioctl", lambda: entries)
    for interface in interfaces():
        assert interface.is_on_link(interface.address.replace(".5", ".99"))
        assert not interface.is_on_link("10.9.9.9")
        assert not interface.is_on_link("8.8.8.8")
    assert [str(interface.network) for interface in interfaces()] == ["10.1.1.0/24", "10.2.2.0/24", "10.3.0.0/16"]


# One address for each network


def test_of_several_addresses_in_a_network_the_one_counts_from_which_the_router_is_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    have_routes(monkeypatch, tmp_path, ROUTES_V4)
    have_adapters(
        monkeypatch,
        [
            adapter(2, "eth0", "192.168.1.5/24", "192.168.1.6/24", "10.9.0.1/24", "192.168.1.7/24"),
            adapter(3, "wlan0", "192.168.1.9/24", "192.168.1.8/24"),
            adapter(4, "eth1", "192.168.1.99/16"),
        ],
    )
    sources = {"192.168.1.1": "192.168.1.6", "192.168.10.254": "192.168.1.9", "192.0.2.1": "192.168.1.7"}
    monkeypatch.setattr(module, "source_address_for", sources.__getitem__)
    assert [one.address for one in interfaces()] == ["192.168.1.6", "10.9.0.1", "192.168.1.9", "192.168.1.99"]


def test_networks_with_a_default_route_of_any_metric_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have_routes(monkeypatch, tmp_path, ROUTES_V4)
    have_adapters(
        monkeypatch,
        [
            adapter(2, "eth0", "192.168.1.5/24", "10.9.0.1/24"),
            adapter(3, "wlan0", "192.168.10.9/24"),
            adapter(4, "tun0", "10.8.0.2/32"),
            adapter(5, "br0", "172.17.0.1/16"),
        ],
    )
    monkeypatch.setattr(module, "source_address_for", lambda _: "192.168.1.5")
    found = with_default_route(interfaces())
    assert {one.address for one in found} == {"192.168.1.5", "192.168.10.9", "10.8.0.2"}
    have_routes(monkeypatch, tmp_path)
    monkeypatch.setattr(module, "source_address_for", lambda _: "172.17.0.1")
    assert {one.address for one in with_default_route(interfaces())} == {"172.17.0.1"}, "the system tells by its choice"
    assert with_default_route([]) == frozenset()


@pytest.mark.usefixtures("adapters")
def test_a_link_local_router_is_reached_by_the_interface_of_its_route(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = interfaces(ipv6=True)
    assert {one.index for one in leading_to("fe80::1", places)} == {2, 4}
    have_routes(monkeypatch, tmp_path, "", ROUTES_V6)
    assert [one.index for one in leading_to("fe80::1", places)] == [2]
    assert {one.index for one in with_default_route(places)} >= {2}


# Who is on the link


@pytest.mark.parametrize(
    ("interface", "host", "is_on_link"),
    [
        (Interface("127.0.0.1", 1), "127.200.1.1", True),
        (Interface("127.0.0.1", 1), "192.168.1.1", False),
        (Interface("::1", 1), "::1", True),
        (Interface("::1", 1), "fe80::1%1", True),
        (Interface("::1", 1), "fe80::1%2", False),
        (Interface("192.168.1.5", 2), "192.168.1.77", True),
        (Interface("192.168.1.5", 2), "192.168.2.77", False),
        (Interface("192.168.1.5", 2), "127.0.0.1", False),
        (Interface("192.168.1.5", 2), "fe80::1%2", False),
        (Interface("2001:db8::5", 2), "2001:db8::77", True),
        (Interface("2001:db8::5", 2), "2001:db8:0:1::77", False),
        (Interface("192.168.1.5", 2), "not an address", False),
        (Interface("10.8.0.2", 2, 32, (ip_network("10.8.0.2/32"), ip_network("10.8.0.1/32"))), "10.8.0.1", True),
        (Interface("10.8.0.2", 2, 32, (ip_network("10.8.0.2/32"), ip_network("10.8.0.1/32"))), "10.8.0.3", False),
        (Interface("fe80::5", 2, 64, (ip_network("2001:db8::/64"),), "eth0"), "fe80::1%eth0", True),
        (Interface("fe80::5", 2, 64, (ip_network("2001:db8::/64"),), "eth0"), "2001:db8::9", True),
        (Interface("fe80::5", 2, 64, (ip_network("2001:db8::/64"),), "eth0"), "2001:db9::9", False),
    ],
)
def test_a_host_is_on_the_link_or_not(interface: Interface, host: str, is_on_link: bool) -> None:
    assert interface.is_on_link(host) is is_on_link


# Huge tables


def test_a_routing_table_costs_little_however_long_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    header, *defaults = ROUTES_V4.splitlines(keepends=True)
    others = [f"eth0\t{number:08X}\t0101A8C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" for number in range(1, 200_001)]
    have_routes(monkeypatch, tmp_path, "".join([header, *defaults, *others]))
    read: list[int] = []
    really_read = os.read

    def counted(descriptor: int, size: int) -> bytes:
        read.append(size)
        return really_read(descriptor, size)

    monkeypatch.setattr(os, "read", counted)
    assert default_next_hops() == {"192.168.1.1"}, "the kernel lists default routes first"
    have_routes(monkeypatch, tmp_path, "".join([header, *others, *defaults]))
    assert default_next_hops() == frozenset(), "the system does not tell"
    assert sum(read) <= 2 * 128 * 1024


# Large machines


def test_of_hundreds_of_networks_those_with_a_default_route_are_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    have_routes(monkeypatch, tmp_path, ROUTES_V4)
    bridges = [adapter(100 + number, f"br{number}", f"10.{100 + number}.0.1/16") for number in range(100)]
    have_adapters(
        monkeypatch,
        [*bridges[:50], adapter(2, "eth0", "192.168.1.5/24"), *bridges[50:], adapter(3, "tun0", "10.8.0.2/32")],
    )
    monkeypatch.setattr(module, "source_address_for", lambda _: "192.168.1.5")
    found = [interface.address for interface in interfaces()]
    assert found[:2] == ["192.168.1.5", "10.8.0.2"]
    assert len(found) == 64
    assert interfaces(source_address="10.199.0.1")[0].name == "br99"


def test_a_list_that_has_no_room_for_the_address_towards_the_internet_does_not_hide_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    have_routes(monkeypatch, tmp_path, ROUTES_V4)
    entries = [
        AddressEntry(f"br{number}", 100 + number, f"10.{number // 250}.{number % 250}.1", 24) for number in range(1024)
    ]
    monkeypatch.setattr(module, "_ask_ioctl", lambda: entries)
    monkeypatch.setattr(module, "source_address_for", lambda _: "192.168.1.5")
    assert interfaces()[0] == Interface("192.168.1.5", 0)


def test_without_room_for_one_more_socket_no_foreign_error_comes_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    have_routes(monkeypatch, tmp_path)

    def no_room(*_: object, **__: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(ifaddr, "get_adapters", no_room)
    monkeypatch.setattr(socket, "socket", no_room)
    assert not is_our_address("127.0.0.1")
    with pytest.raises(TransportError):
        interfaces()
    with pytest.raises(TransportError):
        interfaces(source_address="127.0.0.1")


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError("odd"), UnicodeDecodeError("utf-8", b"x", 0, 1, "")])
def test_whatever_ifaddr_raises_is_no_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    have_routes(monkeypatch, tmp_path, ROUTES_V4)

    def raises() -> list[object]:
        raise error

    monkeypatch.setattr(module, "_ask_ioctl", list)
    monkeypatch.setattr(ifaddr, "get_adapters", raises)
    monkeypatch.setattr(module, "source_address_for", lambda _: "192.168.1.5")
    assert interfaces() == [Interface("192.168.1.5", 0)]


def test_without_proc_ipv6_does_without_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have_routes(monkeypatch, tmp_path)
    monkeypatch.setattr(module, "_ask_ioctl", lambda: [AddressEntry("eth0", 2, "192.168.1.5", 24)])
    monkeypatch.setattr(module, "source_address_for", lambda _: "2001:db8:9::5")
    assert interfaces(ipv6=True) == [Interface("2001:db8:9::5", 0)]
    monkeypatch.setattr(module, "is_our_address", lambda address: address == "2001:db8:9::5")
    assert interfaces(source_address="2001:db8:9::5") == [Interface("2001:db8:9::5", 0)]
    for foreign in ("2001:db8:9::6", "192.168.1.6"):
        with pytest.raises(TransportError, match="no interface of this machine has the address"):
            interfaces(source_address=foreign)
