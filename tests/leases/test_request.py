from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest

from aioigd import OneOf, UPnPResult, UsageError
from aioigd.models import PinholeRequest

from .model import lease_request


@pytest.mark.parametrize(
    ("port", "ports"),
    [(8080, (8080,)), ([8080, 8081, 8080], (8080, 8081)), ((65535,), (65535,)), ({1}, (1,))],
)
def test_ports_that_are_all_wanted(port: object, ports: tuple[int, ...]) -> None:
    made = lease_request(port)
    assert (made.ports, made.choices) == (ports, ())


@pytest.mark.parametrize(("port", "number"), [(range(1, 11), 10), (range(1, 65536), 256), (0, 256)])
def test_ports_of_which_one_is_wanted(port: object, number: int) -> None:
    made = lease_request(port)
    assert made.ports == ()
    assert len(set(made.choices)) == len(made.choices) == number
    assert made.choices == lease_request(port).choices
    if port == 0:
        assert min(made.choices) >= 49152
        assert made.choices != lease_request(port, desc="another").choices


def customers(ports: Iterable[int]) -> set[int]:
    """Those of a MAP-E line to whom some ports belong."""
    return {port // 16 % 256 for port in ports}


@pytest.mark.parametrize("desc", ["", "a game", "another"])
@pytest.mark.parametrize("port", [0, range(1, 65536), range(65535, 1024, -1), range(1024, 65536, 2), range(5000, 9200)])
def test_one_walk_meets_the_ports_of_every_customer_of_a_map_e_line(port: object, desc: str) -> None:
    made = lease_request(port, desc=desc)
    assert len(made.choices) == 256
    assert len(customers(made.choices)) == 256
    assert min(made.choices) >= 4096
    assert not isinstance(port, range) or set(made.choices) <= set(port)


def test_another_port_is_looked_for_in_the_same_way() -> None:
    others = lease_request(8080, on_conflict="other_port").other_ports(8080)
    assert len(others) == 255
    assert customers([8080, *others]) == set(range(256))


@pytest.mark.parametrize("port", [range(50_000, 51_000), range(1, 65_536, 100), range(7000, 7257)])
def test_a_range_that_is_too_long_for_all_is_tried_all_over(port: range) -> None:
    choices = lease_request(port).choices
    assert len(set(choices)) == len(choices) == 256
    assert set(choices) <= set(port)
    assert max(choices) - min(choices) > 0.9 * (max(port) - min(port))


def test_one_of_some_ports_is_wanted_in_their_order() -> None:
    made = lease_request(OneOf([6881, 51413, 6889]))
    assert (made.ports, tuple(made.choices)) == ((), (6881, 51413, 6889))
    assert made.other_ports(6881) == [51413, 6889]
    assert made.may_move
    assert not made.any_port
    assert len(lease_request(OneOf(range(1, 1000))).choices) == 256


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ([], "at least one"),
        ([0], "from 1 to 65535, not 0"),
        ([80, 65536], "not 65536"),
        ([-1], "not -1"),
        ([80, 81, 80], "80 is there twice"),
        ([True], "not True"),
        (["80"], "not '80'"),
        ([80.0], "not 80.0"),
        ([None], "not None"),
        (8080, "several ports"),
        ("8080", "several ports"),
        (None, "several ports"),
        (range(0), "at least one"),
    ],
)
def test_one_of_what_are_no_ports_is_refused_at_once(ports: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        OneOf(ports)
    assert caught.value.result is UPnPResult.INVALID_PORT


def test_one_of_is_a_value() -> None:
    assert OneOf([1, 2]) == OneOf((1, 2)) != OneOf([2, 1])
    assert hash(OneOf(range(1, 3))) == hash(OneOf([1, 2]))
    assert repr(OneOf([1, 2])) == "OneOf(ports=(1, 2))"


@pytest.mark.parametrize(
    ("proto", "protos"), [("tcp", ("TCP",)), (["udp", "TCP"], ("UDP", "TCP")), (("tcp", "TCP"), ("TCP",))]
)
def test_protocols(proto: object, protos: tuple[str, ...]) -> None:
    assert lease_request(8080, proto=proto).protos == protos


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ({"port": -1}, UPnPResult.INVALID_PORT),
        ({"port": 65536}, UPnPResult.INVALID_PORT),
        ({"port": "8080"}, UPnPResult.INVALID_PORT),
        ({"port": True}, UPnPResult.INVALID_PORT),
        ({"port": None}, UPnPResult.INVALID_PORT),
        ({"port": []}, UPnPResult.INVALID_PORT),
        ({"port": [0]}, UPnPResult.INVALID_PORT),
        ({"port": range(0)}, UPnPResult.INVALID_PORT),
        ({"port": range(10)}, UPnPResult.INVALID_PORT),
        ({"port": range(65530, 65540)}, UPnPResult.INVALID_PORT),
        ({"port": list(range(1, 2000))}, UPnPResult.INVALID_PORT),
        ({"port": [80, 81], "internal_port": 80}, UPnPResult.INVALID_ARGS),
        ({"internal_port": -1}, UPnPResult.INVALID_PORT),
        ({"proto": "ICMP"}, UPnPResult.INVALID_PROTOCOL),
        ({"proto": []}, UPnPResult.INVALID_PROTOCOL),
        ({"duration": -1}, UPnPResult.INVALID_DURATION),
        ({"desc": "a\nb"}, UPnPResult.INVALID_ARGS),
        ({"on_conflict": "ask"}, UPnPResult.INVALID_ARGS),
        ({"internal_client": "192.168.1"}, UPnPResult.INVALID_ARGS),
        ({"internal_client": "0.0.0.0"}, UPnPResult.INVALID_ARGS),
        ({"internal_client": "192.168.1.9", "ipv6": True}, UPnPResult.INVALID_ARGS),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(said: dict[str, object], result: UPnPResult) -> None:
    with pytest.raises(UsageError) as caught:
        lease_request(**said)
    assert caught.value.result is result


@pytest.mark.parametrize(
    ("on_conflict", "port", "others"), [("fail", 8080, 0), ("take_over", 8080, 0), ("other_port", 8080, 255)]
)
def test_what_may_be_had_instead(on_conflict: str, port: int, others: int) -> None:
    made = lease_request(port, on_conflict=on_conflict)
    (taken,) = made.mapping_requests(port)
    found = made.other_ports(port)
    assert len(set(found)) == len(found) == others
    assert port not in found
    assert all(made.moved(taken, one).internal_port == port for one in found)


def test_of_a_range_the_rest_may_be_had_instead() -> None:
    made = lease_request(range(7000, 7004), internal_port=80)
    assert set(made.other_ports(7001)) == {7000, 7002, 7003}


def test_the_internal_port_follows_as_long_as_nobody_was_told_it() -> None:
    made = lease_request(range(7000, 7004))
    (taken,) = made.mapping_requests(7001)
    assert made.moved(taken, 7002).internal_port == 7002
    assert made.moved(taken, 7002, was_had=True).internal_port == 7001


@pytest.mark.parametrize(("duration", "seconds"), [(0, 86_400), (60, 60), (604_800, 86_400)])
def test_pinholes_lead_to_the_internal_port_for_a_day_at_most(duration: int, seconds: int) -> None:
    made = lease_request(8081, internal_port=8080, duration=duration, proto=["TCP", "UDP"], ipv6=True)
    assert made.pinhole_requests(made.mapping_requests(8081) * 2) == (
        PinholeRequest("", 8080, "TCP", "", 0, seconds),
        PinholeRequest("", 8080, "UDP", "", 0, seconds),
    )
    assert lease_request(8081).pinhole_requests(made.mapping_requests(8081)) == ()


class TestListening:
    @pytest.fixture(
        params=[
            (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", "127.0.0.1", "TCP"),
            (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0", "", "UDP"),
            (socket.AF_INET6, socket.SOCK_STREAM, "::", "", "TCP"),
            (socket.AF_INET6, socket.SOCK_STREAM, "::ffff:127.0.0.1", "127.0.0.1", "TCP"),
        ],
        ids=lambda param: f"{param[2]} {param[4]}",
    )
    def bound(self, request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str, str]]:
        family, kind, address, client, proto = request.param
        with socket.socket(family, kind) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((address, 0))
            yield sock, client, proto

    def test_a_socket_says_port_protocol_and_address(self, bound: tuple[socket.socket, str, str]) -> None:
        sock, client, proto = bound
        port = sock.getsockname()[1]
        made = lease_request(sock, proto="TCP")
        assert (made.ports, made.internal_port, made.internal_client, made.protos) == ((port,), port, client, (proto,))
        assert lease_request(sock, internal_port=port) == lease_request(sock)
        with pytest.raises(UsageError, match="listens on"):
            lease_request(sock, internal_port=port - 1)

    @pytest.mark.parametrize("only", [0, 1])
    def test_one_that_is_not_reached_over_ipv4_is_refused(self, only: int) -> None:
        with closing(socket.socket(socket.AF_INET6)) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            sock.bind(("::1", 0))
            with pytest.raises(UsageError, match="IPv4"):
                lease_request(sock)

    def test_one_that_does_not_listen_is_refused(self) -> None:
        with closing(socket.socket()) as sock, pytest.raises(UsageError, match="IPv4"):
            lease_request(sock)

    def test_a_transport_and_what_has_its_socket_say_it_too(self, bound: tuple[socket.socket, str, str]) -> None:
        class Wrapped:
            def get_extra_info(self, name: str) -> object:
                return {"socket": bound[0]}.get(name)

        assert lease_request(Wrapped()) == lease_request(bound[0])

    def test_one_without_a_socket_is_refused(self) -> None:
        class Pipe:
            def get_extra_info(self, name: str) -> None:
                return None

        with pytest.raises(UsageError, match="no socket"):
            lease_request(Pipe())

    def test_where_it_is_forwarded_to_can_be_said(self, bound: tuple[socket.socket, str, str]) -> None:
        for given in (bound[0], 8080, 0, range(8080, 8090)):
            assert lease_request(given, internal_client="192.168.1.9").internal_client == "192.168.1.9"

    @pytest.mark.parametrize("address_v6", ["::", "::1"])
    def test_a_pinhole_goes_to_the_port_that_listens_over_ipv6(self, address_v6: str) -> None:
        class Server:
            sockets = (socket.socket(socket.AF_INET6), socket.socket(socket.AF_INET))

        with closing(Server.sockets[0]) as v6, closing(Server.sockets[1]) as v4:
            v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            v6.bind((address_v6, 0))
            v4.bind(("0.0.0.0", 0))
            made = lease_request(Server(), ipv6=True)
            port_v4, port_v6 = v4.getsockname()[1], v6.getsockname()[1]
        assert made.ports == (port_v4,)
        (pinhole,) = made.pinhole_requests(made.mapping_requests(port_v4))
        assert pinhole.internal_port == (port_v6 if address_v6 == "::" else port_v4)
