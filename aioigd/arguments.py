"""Whether what a caller said is valid: each check returns the value that is meant, or raises UsageError.

A value that exists can be sent. Nothing here does I/O. Whatever a value does when it is looked at, nothing but
UsageError comes out: see :func:`usage_errors_only`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, wraps
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from operator import index
from typing import Any, Final, ParamSpec, TypeVar, get_args
from unicodedata import category

from .errors import UsageError
from .models import (
    MAX_DURATION,
    MAX_PINHOLE_DURATION,
    Device,
    MappingKey,
    MappingRequest,
    Pinhole,
    PinholeRequest,
    Proto,
    Terms,
    TrafficTotals,
    read_host,
)
from .results import IGDStatus, ProtocolName, UPnPResult
from .text import shown

__all__ = [
    "OneOf",
    "check_address",
    "check_address6",
    "check_desc",
    "check_device_filter",
    "check_devices",
    "check_duration",
    "check_flag",
    "check_gateway",
    "check_host",
    "check_key",
    "check_pinhole",
    "check_pinhole_duration",
    "check_pinhole_request",
    "check_port",
    "check_port_range",
    "check_proto",
    "check_protocols",
    "check_request",
    "check_seconds",
    "check_secret",
    "check_source_address",
    "check_totals",
    "check_ttl",
    "join_gateway",
    "usage_errors_only",
]

MAX_DESCRIPTION: Final = 1024
"""Characters."""
LONGEST_TIMEOUT: Final = 3600.0
"""Seconds."""
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z][A-Za-z0-9-]*")
"""A name that a gateway may show for a remote host: one that has a domain."""
_GATEWAY: Final = re.compile(r"\[([^\]]+)\](?::(\d{1,6}))?|([^:\[\]]+)(?::(\d{1,6}))?|([^\[\]]+)", re.ASCII)
"""An IPv6 address in brackets, an IPv4 address, each with a port or without; or an IPv6 address."""
_BROADCAST: Final = IPv4Address("255.255.255.255")
_MAX_UI4: Final = 4_294_967_295
_CONTROLS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of characters that no description has in it."""


P = ParamSpec("P")
R = TypeVar("R")


def usage_errors_only(check: Callable[P, R]) -> Callable[P, R]:
    """Let nothing but UsageError out of a check, whatever the value does: its methods are the caller's code.

    That of a socket that is closed raises OSError, that of an array ValueError, that of a mock anything.
    """

    @wraps(check)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return check(*args, **kwargs)
        except UsageError:
            raise
        except Exception as error:
            given = ", ".join(shown(each) for each in (*args, *kwargs.values()))
            raise UsageError(f"no use can be made of {given}: {shown(error)}") from error

    return guarded


@usage_errors_only
def check_port(port: object, what: str = "port", *, lowest: int = 1) -> int:
    """Return a port number from ``lowest`` to 65535, or raise UsageError (INVALID_PORT)."""
    if type(port) is int and lowest <= port <= 65535:
        return port
    number = _whole_number(port)
    if number is None or not lowest <= number <= 65535:
        raise UsageError(
            f"{what} must be a whole number from {lowest} to 65535, not {shown(port)}", UPnPResult.INVALID_PORT
        )
    return number


@dataclass(frozen=True, slots=True, init=False)
class OneOf:
    """One of some ports, in this order: ``mapper.lease(aioigd.OneOf([6881, 51413]))``.

    ``ports``: external ports, each 1 to 65535 and not twice; the first that the gateway grants is had, and of more than
    256 only the first 256 are tried. Raises UsageError for anything else (INVALID_PORT), before anything is sent.
    """

    ports: tuple[int, ...]

    def __init__(self, ports: Iterable[int]) -> None:
        object.__setattr__(self, "ports", _checked_choice(ports))


@usage_errors_only
def _checked_choice(ports: object) -> tuple[int, ...]:
    """Return the ports of a OneOf, or raise UsageError (INVALID_PORT)."""
    if isinstance(ports, (str, bytes)) or not isinstance(ports, Iterable):
        raise UsageError(
            f"OneOf takes several ports, as in OneOf([6881, 51413]), not {shown(ports)}", UPnPResult.INVALID_PORT
        )
    checked = tuple(check_port(port, "each port of OneOf") for port in islice(ports, 65536))
    if not checked:
        raise UsageError("OneOf takes at least one port, and there is none", UPnPResult.INVALID_PORT)
    if len(set(checked)) < len(checked):
        twice = next(port for number, port in enumerate(checked) if port in checked[:number])
        raise UsageError(f"OneOf takes each port once, and {twice} is there twice", UPnPResult.INVALID_PORT)
    return checked


@usage_errors_only
def check_proto(proto: object) -> Proto:
    """Return "TCP" or "UDP", or raise UsageError (INVALID_PROTOCOL)."""
    match str.upper(proto) if isinstance(proto, str) else None:
        case "TCP":
            return "TCP"
        case "UDP":
            return "UDP"
    raise UsageError(f'proto must be "TCP" or "UDP", not {shown(proto)}', UPnPResult.INVALID_PROTOCOL)


@usage_errors_only
def check_duration(duration: object) -> int:
    """Return a lease in seconds, or raise UsageError (INVALID_DURATION)."""
    if type(duration) is int and 0 <= duration <= MAX_DURATION:
        return duration
    number = _whole_number(duration)
    if number is None or not 0 <= number <= MAX_DURATION:
        raise UsageError(
            f"duration must be a whole number of seconds from 0 (no limit) to {MAX_DURATION}, not {shown(duration)}",
            UPnPResult.INVALID_DURATION,
        )
    return number


@usage_errors_only
def check_desc(desc: object) -> str:
    """Return a description, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(desc, str):
        raise UsageError(f"desc must be a str, not {shown(desc)}")
    desc = str.__str__(desc)  # a plain str, whatever a subclass makes of its methods
    if len(desc) > MAX_DESCRIPTION:
        raise UsageError(f"desc must have at most {MAX_DESCRIPTION} characters, not {len(desc)}")
    if not desc.isprintable():
        for position, character in enumerate(desc):
            if category(character) in _CONTROLS or character in "\ufffe\uffff":
                raise UsageError(f"desc must not contain control characters; it has {character!r} at {position}")
    return desc


@usage_errors_only
def check_address(address: object, what: str) -> str:
    """Return an IPv4 address in its usual form, or "" for "" and None; raises UsageError (INVALID_ARGS)."""
    if address is None or (isinstance(address, str) and not address):
        return ""
    # A number would be an address to the ipaddress module; to a caller it is a slip.
    parsed = _parse_address(address) if isinstance(address, (str, IPv4Address)) else None
    if parsed is None or parsed.is_unspecified or parsed.is_multicast:
        raise UsageError(f"{what} must be the IPv4 address of a host, not {shown(address)}")
    return str(parsed)


@usage_errors_only
def check_key(port: object, proto: object, remote_host: object = "") -> MappingKey:
    """Return the key of a mapping from what a caller said, or raise UsageError.

    The remote host may be spelt as gateways spell one in their tables, and then stays as it is.
    """
    host = remote_host if isinstance(remote_host, str) and _is_spelt_host(remote_host) else None
    if host is None:
        host = check_address(remote_host, "remote_host")
    return MappingKey(check_port(port), check_proto(proto), host)


def _is_spelt_host(text: str) -> bool:
    """Return whether a gateway may mean an IPv4 address, a name, or everybody by this."""
    if any(category(each) in _CONTROLS for each in text):
        return False
    spelt = MappingKey(0, "UDP", text).normalised().remote_host
    return not spelt or isinstance(read_host(spelt), IPv4Address) or _HOST_NAME.fullmatch(spelt) is not None


def check_request(
    port: object,
    internal_port: object,
    desc: object,
    proto: object,
    duration: object,
    internal_client: object,
    remote_host: object,
) -> MappingRequest:
    """Return a mapping request from what a caller said, or raise UsageError."""
    said = (port, internal_port, desc, proto, duration, internal_client, remote_host)
    try:
        return _remembered_request(*said)
    except UsageError:
        raise
    except Exception:  # something that has no hash, or cannot be compared
        return _request(check_port(port), *_check_all_but_port(*said[1:]))


def _check_request(port: object, *others: object) -> MappingRequest:
    number = port if type(port) is int and 1 <= port <= 65535 else check_port(port)
    return _request(number, *_remembered_others(*others))


def _request(port: int, proto: Proto, internal_port: int, client: str, host: str, terms: Terms) -> MappingRequest:
    return MappingRequest(MappingKey(port, proto, host), internal_port or port, client, terms)


@usage_errors_only
def _check_all_but_port(
    internal_port: object,
    desc: object,
    proto: object,
    duration: object,
    internal_client: object,
    remote_host: object,
) -> tuple[Proto, int, str, str, Terms]:
    protocol = check_proto(proto)
    host = check_address(remote_host, "remote_host")
    inner = check_port(internal_port, "internal_port", lowest=0)
    client = check_address(internal_client, "internal_client")
    return protocol, inner, client, host, Terms(check_desc(desc), check_duration(duration))


@usage_errors_only
def check_address6(address: object, what: str) -> str:
    """Return an IPv6 address in its usual form, or "" for "" and None; raises UsageError (INVALID_ARGS)."""
    if address is None or (isinstance(address, str) and not address):
        return ""
    parsed = None
    if isinstance(address, (str, IPv6Address)):
        try:
            parsed = ip_address(address)
        except ValueError:
            parsed = None
    if (
        not isinstance(parsed, IPv6Address)
        or parsed.ipv4_mapped is not None
        or parsed.is_unspecified
        or parsed.is_multicast
        or parsed.is_link_local
    ):
        raise UsageError(f"{what} must be the IPv6 address of a host on the internet, not {shown(address)}")
    return str(parsed)


@usage_errors_only
def check_pinhole_duration(duration: object) -> int:
    """Return the lease of a pinhole in seconds, or raise UsageError (INVALID_DURATION)."""
    number = _whole_number(duration)
    if number is None or not 1 <= number <= MAX_PINHOLE_DURATION:
        raise UsageError(
            f"a pinhole lasts a whole number of seconds from 1 to {MAX_PINHOLE_DURATION}, not {shown(duration)}",
            UPnPResult.INVALID_DURATION,
        )
    return number


@usage_errors_only
def check_pinhole_request(
    internal_client: object,
    internal_port: object,
    proto: object,
    remote_host: object,
    remote_port: object,
    duration: object,
) -> PinholeRequest:
    """Return a request for a pinhole from what a caller said, or raise UsageError."""
    return PinholeRequest(
        check_address6(internal_client, "internal_client"),
        check_port(internal_port, "internal_port"),
        check_proto(proto),
        check_address6(remote_host, "remote_host"),
        check_port(remote_port, "remote_port", lowest=0),
        check_pinhole_duration(duration),
    )


@usage_errors_only
def check_pinhole(pinhole: object) -> Pinhole:
    """Return a pinhole that was granted, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(pinhole, Pinhole):
        raise UsageError(f"pinhole must be a Pinhole that a gateway has granted, not {shown(pinhole)}")
    number = _whole_number(pinhole.unique_id)
    if number is None or not 0 <= number <= _MAX_UI4:
        raise UsageError(f"the unique_id of a pinhole is a whole number from 0 to {_MAX_UI4}, not {shown(pinhole)}")
    return Pinhole(
        number,
        check_address6(pinhole.internal_client, "internal_client"),
        check_port(pinhole.internal_port, "internal_port", lowest=0),
        check_proto(pinhole.proto),
        check_address6(pinhole.remote_host, "remote_host"),
        check_port(pinhole.remote_port, "remote_port", lowest=0),
        check_duration(pinhole.duration),
    )


@usage_errors_only
def check_devices(devices: object) -> list[Device]:
    """Return the devices that a program has chosen, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(devices, list):
        raise UsageError(f"devices must be a list, not {shown(devices)}")
    for each in devices:
        if not isinstance(each, Device) or not _is_whole(each):
            raise UsageError(f"devices must hold what a search has found, not {shown(each)}")
    return devices


@usage_errors_only
def check_totals(totals: object) -> TrafficTotals:
    """Return counters of a gateway, or raise UsageError (INVALID_ARGS)."""
    if isinstance(totals, TrafficTotals):
        counts = (totals.bytes_sent, totals.bytes_received, totals.packets_sent or 0, totals.packets_received or 0)
        at = totals.at
        if all(type(each) is int and 0 <= each < 1 << 64 for each in counts) and type(at) in (int, float):
            return totals
    raise UsageError(f"totals must be those of a gateway, not {shown(totals)}")


@usage_errors_only
def check_port_range(start: object, end: object, proto: object) -> tuple[int, int, Proto]:
    """Return first and last external port and protocol from what a caller said, or raise UsageError."""
    first, last = check_port(start, "start"), check_port(end, "end")
    if first > last:
        raise UsageError(f"a range of ports from {first} to {last} has none in it")
    return first, last, check_proto(proto)


@usage_errors_only
def check_seconds(value: object, what: str) -> float:
    """Return a time limit in seconds, or raise UsageError (INVALID_ARGS)."""
    number = _whole_number(value)
    if isinstance(value, float):
        seconds = float.__float__(value)
    else:
        seconds = 0.0 if number is None or not 0 < number <= LONGEST_TIMEOUT else float(number)
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise UsageError(
            f"{what} must be a number of seconds above 0 and up to {LONGEST_TIMEOUT:.0f}, not {shown(value)}"
        )
    return seconds


@usage_errors_only
def check_ttl(value: object) -> int:
    """Return a number of hops, or raise UsageError (INVALID_ARGS)."""
    number = _whole_number(value)
    if number is None or not 0 <= number <= 255:
        raise UsageError(f"ttl must be a whole number of hops from 0 to 255, not {shown(value)}")
    return number


def check_flag(value: object, what: str) -> bool:
    """Return whether something is meant to be so: whatever Python takes for true, or raise UsageError."""
    if value is True or value is False:  # said by the ten thousand
        return value
    try:
        return bool(value)
    except Exception as error:  # as an array of numbers does
        raise UsageError(f"{what} must be True or False, not {shown(value)}") from error


@usage_errors_only
def check_source_address(value: object) -> str | None:
    """Return a local IP address in its usual form, None for None, or raise UsageError (INVALID_ARGS)."""
    if value is None:
        return None
    address = _ip_address(value)
    if address is None or address.is_unspecified or address.is_multicast:
        raise UsageError(f"source_address must be an IP address of this machine, not {shown(value)}")
    return str(address)


def _ip_address(value: object) -> IPv4Address | IPv6Address | None:
    """Return the address that a str names, None where it names none, or is no str."""
    try:
        return ip_address(str.__str__(value)) if isinstance(value, str) else None
    except ValueError:
        return None


@usage_errors_only
def check_protocols(value: object) -> tuple[ProtocolName, ...]:
    """Return protocols in the order of preference, or raise UsageError (INVALID_ARGS)."""
    known: tuple[ProtocolName, ...] = get_args(ProtocolName)
    names = list(islice(value, len(known) + 1)) if isinstance(value, (list, tuple)) else []
    found = [next((one for one in known if type(name) is str and one == name), None) for name in names]
    checked = tuple(name for name in found if name is not None)
    if not names or len(checked) < len(names) or len(set(checked)) < len(checked):
        raise UsageError(
            f"protocols must be a tuple of one or more of {', '.join(map(repr, known))}, each once, in the order of "
            f"preference, not {shown(value)}"
        )
    return checked


@usage_errors_only
def check_gateway(value: object) -> tuple[str | None, int]:
    """Return the IP address of a router and a port, 0 for none; (None, 0) for None; or raise UsageError (INVALID_ARGS).

    Spelt as "10.2.0.1", "10.2.0.1:5351", "fe80::1%eth0" or "[fe80::1%eth0]:5351".
    """
    if value is None:
        return None, 0
    match = _GATEWAY.fullmatch(str.__str__(value) if isinstance(value, str) else str(_only_address(value)))
    host, digits = (match[1] or match[3] or match[5], match[2] or match[4]) if match else (None, None)
    address = _ip_address(host)
    address = getattr(address, "ipv4_mapped", None) or address
    if address is None or address.is_unspecified or address.is_multicast or address == _BROADCAST:
        raise UsageError(
            "gateway must be the IP address of a router, such as '10.2.0.1', '10.2.0.1:5351' or "
            f"'[fe80::1%eth0]:5351', not {shown(value)}"
        )
    if isinstance(address, IPv6Address) and address.is_link_local and address.scope_id is None:
        raise UsageError(f"a link-local gateway is named with its interface, as in '{host}%eth0', not {shown(value)}")
    return str(address), 0 if digits is None else check_port(int(digits), "the port of the gateway")


def join_gateway(host: str | None, port: int) -> str | None:
    """Return a gateway as it is spelt, None for none; the other way round than :func:`check_gateway`."""
    if host is None or not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _only_address(value: object) -> IPv4Address | IPv6Address | None:
    return value if isinstance(value, (IPv4Address, IPv6Address)) else None


@usage_errors_only
def check_secret(value: object) -> bytes | None:
    """Return a secret, None for None, or raise UsageError (INVALID_ARGS), which does not show it."""
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise UsageError(f"pcp_secret must be bytes, not a value of type {type(value).__name__}")
    if not value:
        raise UsageError("pcp_secret must not be empty; None is for the default")
    return bytes(value)


@usage_errors_only
def check_device_filter(value: object) -> str:
    """Return a part of a device or service type, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(value, str):
        raise UsageError(f"device_filter must be a str, not {shown(value)}")
    return str.__str__(value)


@usage_errors_only
def check_host(value: object) -> str | None:
    """Return an IP address in its usual form, None for None, or raise UsageError (INVALID_ARGS)."""
    if value is None:
        return None
    address = _ip_address(value)
    if address is None or address.is_unspecified:
        raise UsageError(f"host must be an IP address, not {shown(value)}")
    return str(address)


# By the ten thousand, callers say the same thing; all of them share one request. In a batch only the port is another.
# Typed, as True equals 1.
_remembered_request = lru_cache(maxsize=64, typed=True)(_check_request)
_remembered_others = lru_cache(maxsize=64, typed=True)(_check_all_but_port)


def _whole_number(value: Any) -> int | None:
    # bool is an int to Python, but True is no port to anybody.
    if isinstance(value, bool):
        return None
    try:
        return int.__index__(index(value))  # a plain int
    except Exception:
        return None


def _is_whole(device: Any) -> bool:
    """Return whether each field of a device has the type that it should have, and its address of ours is one."""
    if not isinstance(device.igd_status, IGDStatus):
        return False
    for name in Device.__match_args__:
        value = getattr(device, name)
        texts = value if isinstance(value, tuple) else () if isinstance(value, IGDStatus) else (value,)
        if not all(isinstance(text, str) for text in texts):
            return False
    # A name would be looked up when a socket is bound to it.
    return not device.igd_our_addr or _ip_address(device.igd_our_addr) is not None


def _parse_address(address: str | IPv4Address) -> IPv4Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return parsed if isinstance(parsed, IPv4Address) else None
