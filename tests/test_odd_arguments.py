"""Whatever a caller passes to whatever is public, nothing comes out but an IGDError, in one line that names the value.

The table is made from the signatures: each argument of each callable gets each of the odd values, the others are as
they should be.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest

import aioigd
from aioigd import (
    Device,
    IGDError,
    IGDStatus,
    NoRouteError,
    Pinhole,
    PortMapper,
    TrafficMeter,
    TrafficTotals,
    TransportError,
    UsageError,
    functions,
)
from aioigd.testing import EmulatedGateway
from aioigd.text import MESSAGE_LIMIT

from .support import is_visible_line

pytestmark = pytest.mark.one_loop


class Raises:
    """Every question to it is an error, and none that anybody expects."""

    def _refuse(self, *_: object) -> Any:
        raise ZeroDivisionError("odd\nCRITICAL root: forged")

    __repr__ = __str__ = __int__ = __index__ = __float__ = __bool__ = __len__ = __iter__ = __eq__ = __hash__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __fspath__ = _refuse


class Asks(Raises):
    """One that has what a server has."""

    @property
    def sockets(self) -> Any:
        raise ZeroDivisionError


class Word(str):
    __repr__ = __str__ = __eq__ = __hash__ = upper = __len__ = Raises._refuse


class Number(int):
    __repr__ = __str__ = __int__ = __index__ = __eq__ = __hash__ = __le__ = __lt__ = __ge__ = Raises._refuse


class Seconds(float):
    __repr__ = __str__ = __float__ = __eq__ = __hash__ = __le__ = __lt__ = __gt__ = Raises._refuse


class Whole:
    """An integer as those of numpy."""

    def __index__(self) -> int:
        return 1


class NoClass:
    """Python asks it for its class where it is of another one than is looked for."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise ZeroDivisionError


class SaysStr:
    """One that says to be a str, as mocks do."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return str


def closed_socket() -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: float("-inf"),
    "-1": lambda: -1,
    "huge": lambda: 10**400,
    "more than Python writes": lambda: 10**5000,
    "-more than Python writes": lambda: -(10**5000),
    "Decimal": lambda: Decimal("1e999999"),
    "complex": lambda: 1j,
    "empty": lambda: "",
    "surrogate": lambda: "\ud800",
    "controls": lambda: "a\n\x1b[2J\u202e\x00",
    "long": lambda: "9" * 100_000,
    "bytes": lambda: b"\xff" * 1000,
    "list": list,
    "nested": lambda: [[10**5000]],
    "dict": dict,
    "endless": lambda: itertools.repeat("TCP"),
    "range": lambda: range(10**5000, 10**5000 + 3),
    "empty range": lambda: range(10**5000, 0),
    "object": object,
    "class": lambda: Raises,
    "raises": Raises,
    "raises on its way": Asks,
    "word": lambda: Word("TCP"),
    "number": lambda: Number(1),
    "seconds": lambda: Seconds(0.01),
    "whole": Whole,
    "closed socket": closed_socket,
    "no class": NoClass,
    "says str": SaysStr,
    "long zone": lambda: "fe80::1%" + "x" * 5000,
    "IPv6 address": lambda: "::1",
    "bad device": lambda: Device(igd_status=IGDStatus.OK, igd_control_url=5),  # type: ignore[arg-type]
    "bad pinhole": lambda: Pinhole(10**5000, Raises(), [], "x"),  # type: ignore[arg-type]
    "bad totals": lambda: TrafficTotals(Raises(), 10**5000, at="x"),  # type: ignore[arg-type]
}

HOLE = Pinhole(1, "2001:db8::1", 80, "TCP")
FITTING: dict[str, Any] = {
    "port": 8080,
    "start": 80,
    "end": 81,
    "pinhole": HOLE,
    "internal_client": None,
    "internal_port": 80,
    "host": "127.0.0.1",
    "totals": TrafficTotals(1, 2, at=1.0),
    "timeout": 0.01,
    "message": "it failed",
    "result": aioigd.UPnPResult.UNKNOWN_ERROR,
    "location": "http://127.0.0.1:9/x",
    "source_address": "127.0.0.1",
}


async def used(result: object) -> None:
    """Do with what was returned what a program does with it."""
    if isinstance(result, aioigd.PendingLease):
        async with result:
            pass
    elif inspect.isawaitable(result):
        await result
    elif inspect.isasyncgen(result):
        async with aclosing(result) as items:
            async for _ in items:
                pass


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [each for each in inspect.signature(function).parameters.values() if each.name != "self"]


def callables(mapper: PortMapper, gateway: aioigd.Gateway, lease: aioigd.Lease) -> Iterator[tuple[str, Any]]:
    """Everything that is public and takes arguments."""
    functions = [getattr(aioigd, name) for name in aioigd.__all__ if name[0].islower()]
    yield from ((each.__name__, each) for each in functions)
    yield "PortMapper", PortMapper
    for thing in (mapper, gateway, lease, TrafficMeter()):
        for name, method in inspect.getmembers(thing, inspect.isroutine):
            if not name.startswith("_") and parameters(method):
                yield f"{type(thing).__name__}.{name}", method
    for kind in (getattr(aioigd, name) for name in aioigd.__all__):
        if isinstance(kind, type) and issubclass(kind, IGDError):
            yield kind.__name__, kind


@pytest.fixture
async def public(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Any]]:
    monkeypatch.setattr(functions, "PortMapper", partial(PortMapper, timeout=0.02, discovery_timeout=0.02))
    async with (
        EmulatedGateway(address=None, version=2) as emulated,
        PortMapper(source_address=emulated.address, location=emulated.location, timeout=0.3) as finder,
        finder.lease(7000) as lease,
        PortMapper(location="http://127.0.0.1:9/x", source_address="127.0.0.1", timeout=0.02) as mapper,
    ):
        yield dict(callables(mapper, await finder.get_gateway(), lease))


def arguments_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Arguments with which a call is as it should be."""
    found = {each.name: FITTING[each.name] for each in parameters(function) if each.name in FITTING}
    missing = [each for each in parameters(function) if each.default is each.empty and each.name not in found]
    return {each.name: FITTING.get(each.name, "text") for each in missing} | found


def test_the_table_has_what_there_is() -> None:
    assert len(ODD) >= 30


async def attempt(name: str, function: Any, arguments: dict[str, Any]) -> IGDError | None:
    try:
        async with asyncio.timeout(10):
            await used(function(**arguments))
    except IGDError as error:
        for text in (str(error), repr(error)):
            assert is_visible_line(text), name
            assert len(text) <= MESSAGE_LIMIT + 40, name
        return error
    return None


@pytest.mark.waits
async def test_nothing_foreign_comes_out(public: dict[str, Any]) -> None:
    assert len(public) > 35
    count = 0
    for name, function in public.items():
        for parameter in parameters(function):
            for what, make in ODD.items():
                value = make()
                try:
                    await attempt(name, function, {**arguments_of(function), parameter.name: value})
                except Exception as error:
                    raise AssertionError(f"{name}({parameter.name}={what}) let out {type(error).__name__}") from error
                finally:
                    if type(value) is socket.socket:
                        value.close()
                count += 1
    assert count > 2000


@pytest.mark.parametrize("what", ODD)
@pytest.mark.waits
async def test_devices_may_hold_anything(what: str) -> None:
    async with PortMapper(source_address="127.0.0.1", timeout=0.2, discovery_timeout=0.2) as mapper:
        for chosen in (ODD[what](), [ODD[what]()]):
            mapper.devices = chosen
            is_empty = type(chosen) is list and not chosen  # then everybody is looked for
            for call in (mapper.get_gateway, mapper.query_external_address):
                with pytest.raises(IGDError if is_empty else UsageError) as caught:
                    await call()
                assert is_visible_line(str(caught.value))


async def test_devices_may_become_anything_after_a_call(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    await mapper.query_external_address()
    good = mapper.devices[0]
    mapper.devices = [Raises()]  # type: ignore[list-item]
    with pytest.raises(UsageError, match="devices must hold what a search has found"):
        await mapper.query_external_address()
    mapper.devices = [replace(good, friendly_name="chosen")]
    assert await mapper.query_external_address()


async def test_a_chosen_device_leads_to_no_look_up_of_a_name(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    await mapper.query_external_address()
    mapper.devices = [replace(mapper.devices[0], igd_our_addr="a-name")]
    with pytest.raises(UsageError, match="devices must hold what a search has found"):
        await mapper.query_external_address()


@pytest.mark.parametrize(("source", "location"), [("::1", "127.0.0.1:9"), ("127.0.0.1", "[::1]:9")])
async def test_addresses_of_two_kinds_do_not_reach_each_other(source: str, location: str) -> None:
    async with PortMapper(source_address=source, location=f"http://{location}/x", timeout=1) as mapper:
        with pytest.raises(NoRouteError, match=r"cannot be reached from .*: one is IPv4, the other is IPv6"):
            await mapper.query_external_address()


async def test_a_device_of_the_other_kind_is_not_reached(mapper: PortMapper) -> None:
    await mapper.query_external_address()
    async with PortMapper(timeout=1) as other:
        other.devices = [replace(mapper.devices[0], igd_our_addr="::1")]
        with pytest.raises(TransportError, match="Address family not supported"):
            await other.query_external_address()


PROTOCOLS: dict[str, Callable[[], Any]] = {
    "a word": lambda: "upnp",
    "nothing": tuple,
    "twice": lambda: ("upnp", "pcp", "upnp"),
    "capitals": lambda: ("UPnP",),
    "another one": lambda: ("upnp", "igd"),
    "a set": lambda: {"upnp"},
    "hostile words": lambda: [Word("upnp")],
    "what raises": lambda: ("upnp", Raises()),
    "a number": lambda: (1,),
    "many": lambda: ("upnp",) * 100_000,
    "endless": lambda: itertools.repeat("upnp"),
}
GATEWAYS: dict[str, Callable[[], Any]] = {
    **{
        text: partial(str, text)
        for text in (
            *("", " ", "router", "router:5351", "10.2.0", "10.2.0.1/24", " 10.2.0.1", "10.2.0.1\n", "\u0663.2.0.1"),
            *("10.2.0.1:", "10.2.0.1:x", "10.2.0.1:-1", "10.2.0.1:0", "10.2.0.1:65536", "10.2.0.1:5351:1", ":5351"),
            *("[::1", "::1]", "[]", "[::1]:", "[::1]:0", "[::1]:65536", "[::1]5351", "[[::1]]:1", "::1%"),
            *("fe80::1", "[fe80::1]:5351", "fe80::1%", "http://10.2.0.1", "user@10.2.0.1"),
            *("0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.250:1900", "::", "ff02::1%lo", "::ffff:0.0.0.0"),
        )
    },
    "no text": lambda: 10,
    "bytes": lambda: b"10.2.0.1",
    "a network": lambda: ip_network("10.2.0.0/24"),
    "an address that is none": lambda: IPv4Address("0.0.0.0"),
    "a link-local one": lambda: IPv6Address("fe80::1"),
    "a group": lambda: IPv6Address("ff02::1"),
    "a pair": lambda: ("10.2.0.1", 5351),
    "hostile text": lambda: Word("nobody"),
}
SECRETS: dict[str, Callable[[], Any]] = {
    "text": lambda: "secret",
    "nothing": bytes,
    "a bytearray": lambda: bytearray(b"secret"),
    "a number": lambda: 1,
    "True": lambda: True,
}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *(("protocols", make) for make in PROTOCOLS.values()),
        *(("gateway", make) for make in GATEWAYS.values()),
        *(("pcp_secret", make) for make in SECRETS.values()),
    ],
    ids=[*PROTOCOLS, *(f"gateway {each!a}" for each in GATEWAYS), *(f"secret {each}" for each in SECRETS)],
)
async def test_a_way_to_the_router_that_cannot_be_meant_is_named(name: str, make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        PortMapper(**{name: make()})
    assert is_visible_line(str(caught.value))
    assert name in caught.value.message or "gateway" in caught.value.message
    assert "secret'" not in caught.value.message
    with pytest.raises(UsageError):
        await aioigd.query_external_address(**{name: make()})
    with pytest.raises(UsageError):
        await aioigd.add_port_mapping(80, **{name: make()})


class Plain(str):
    """A str that says to be another one whoever asks."""

    __slots__ = ()

    def __eq__(self, _: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return "10.9.9.9"


def test_a_subclass_of_str_is_what_it_holds() -> None:
    mapper = PortMapper(gateway=Plain("10.2.0.1:99"), protocols=("pcp",))
    assert (mapper._finder._scope.host, mapper._finder._scope.port) == ("10.2.0.1", 99)


MESSAGES: dict[str, dict[str, Any]] = {
    "protocols must be a tuple of one or more of 'upnp', 'pcp', 'nat-pmp', each once": {"protocols": ("igd",)},
    "such as '10.2.0.1', '10.2.0.1:5351' or '[fe80::1%eth0]:5351', not 'router'": {"gateway": "router"},
    "the port of the gateway must be": {"gateway": "10.2.0.1:0"},
    "as in 'fe80::1%eth0', not '[fe80::1]:5351'": {"gateway": "[fe80::1]:5351"},
    "pcp_secret must be bytes, not a value of type str": {"pcp_secret": "secret"},
    "pcp_secret must not be empty": {"pcp_secret": b""},
    "timeout must be a number of seconds above 0 and up to 3600, not an int of": {"timeout": 10**400},
    "ttl must be a whole number of hops from 0 to 255, not an int of 16610 bits": {"ttl": 10**5000},
    r"source_address must be an IP address of this machine, not '\ud800'": {"source_address": "\ud800"},
    "location must be the http URL of a device description, not 'ftp://x/'": {"location": "ftp://x/"},
    "ipv6 must be True or False, not <tests": {"ipv6": Raises()},
}


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_names_the_value_and_what_would_be_right(message: str) -> None:
    with pytest.raises(UsageError) as caught:
        PortMapper(**MESSAGES[message])
    assert message in caught.value.message


def test_whole_numbers_of_other_libraries_are_numbers() -> None:
    assert repr(PortMapper(ttl=Whole(), timeout=Whole(), local_port=Whole()))  # type: ignore[arg-type]


async def test_a_closed_socket_is_named(mapper: PortMapper) -> None:
    with pytest.raises(UsageError, match=r"<socket\.socket \[closed\].*Bad file descriptor"):
        mapper.lease(closed_socket())


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_passes(error: type[BaseException]) -> None:
    class Ends:
        def __index__(self) -> int:
            raise error

    with pytest.raises(error):
        PortMapper(ttl=Ends())  # type: ignore[arg-type]
