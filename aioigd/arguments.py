"""Whether what a caller said is valid: each check returns the value that is meant, or raises UsageError.

A value that exists can be sent. Nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from math import isfinite
from operator import index
from typing import Any, Final

from .errors import UsageError
from .models import (
    MAX_DURATION,
    MAX_PINHOLE_DURATION,
    MappingKey,
    MappingRequest,
    Pinhole,
    PinholeRequest,
    Proto,
    Terms,
    read_host,
)
from .results import UPnPResult

__all__ = [
    "OneOf",
    "check_address",
    "check_address6",
    "check_desc",
    "check_device_filter",
    "check_duration",
    "check_host",
    "check_key",
    "check_pinhole",
    "check_pinhole_duration",
    "check_pinhole_request",
    "check_port",
    "check_port_range",
    "check_proto",
    "check_request",
    "check_seconds",
    "check_source_address",
    "check_ttl",
]

MAX_DESCRIPTION: Final = 1024
"""Characters."""
LONGEST_TIMEOUT: Final = 3600.0
"""Seconds."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z][A-Za-z0-9-]*")
"""A name that a gateway may show for a remote host: one that has a domain."""


def check_port(port: object, what: str = "port", *, lowest: int = 1) -> int:
    """Return a port number from ``lowest`` to 65535, or raise UsageError (INVALID_PORT)."""
    if type(port) is int and lowest <= port <= 65535:
        return port
    number = _whole_number(port)
    if number is None or not lowest <= number <= 65535:
        raise UsageError(
            f"{what} must be a whole number from {lowest} to 65535, not {_shown(port)}", UPnPResult.INVALID_PORT
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
        if isinstance(ports, (str, bytes)) or not isinstance(ports, Iterable):
            raise UsageError(
                f"OneOf takes several ports, as in OneOf([6881, 51413]), not {_shown(ports)}", UPnPResult.INVALID_PORT
            )
        checked = tuple(check_port(port, "each port of OneOf") for port in islice(ports, 65536))
        if not checked:
            raise UsageError("OneOf takes at least one port, and there is none", UPnPResult.INVALID_PORT)
        if len(set(checked)) < len(checked):
            twice = next(port for number, port in enumerate(checked) if port in checked[:number])
            raise UsageError(f"OneOf takes each port once, and {twice} is there twice", UPnPResult.INVALID_PORT)
        object.__setattr__(self, "ports", checked)


def check_proto(proto: object) -> Proto:
    """Return "TCP" or "UDP", or raise UsageError (INVALID_PROTOCOL)."""
    match proto.upper() if isinstance(proto, str) else None:
        case "TCP":
            return "TCP"
        case "UDP":
            return "UDP"
    raise UsageError(f'proto must be "TCP" or "UDP", not {_shown(proto)}', UPnPResult.INVALID_PROTOCOL)


def check_duration(duration: object) -> int:
    """Return a lease in seconds, or raise UsageError (INVALID_DURATION)."""
    if type(duration) is int and 0 <= duration <= MAX_DURATION:
        return duration
    number = _whole_number(duration)
    if number is None or not 0 <= number <= MAX_DURATION:
        raise UsageError(
            f"duration must be a whole number of seconds from 0 (no limit) to {MAX_DURATION}, not {_shown(duration)}",
            UPnPResult.INVALID_DURATION,
        )
    return number


def check_desc(desc: object) -> str:
    """Return a description, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(desc, str):
        raise UsageError(f"desc must be a str, not {_shown(desc)}")
    if len(desc) > MAX_DESCRIPTION:
        raise UsageError(f"desc must have at most {MAX_DESCRIPTION} characters, not {len(desc)}")
    bad = _CONTROL.search(desc)
    if bad is not None:
        raise UsageError(f"desc must not contain control characters; it has {bad.group()!r} at {bad.start()}")
    return desc


def check_address(address: object, what: str) -> str:
    """Return an IPv4 address in its usual form, or "" for "" and None; raises UsageError (INVALID_ARGS)."""
    if address is None or (isinstance(address, str) and not address):
        return ""
    # A number would be an address to the ipaddress module; to a caller it is a slip.
    parsed = _parse_address(address) if isinstance(address, (str, IPv4Address)) else None
    if parsed is None or parsed.is_unspecified or parsed.is_multicast:
        raise UsageError(f"{what} must be the IPv4 address of a host, not {_shown(address)}")
    return str(parsed)


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
    if _CONTROL.search(text):
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
    except TypeError:  # something that has no hash
        return _check_request(*said)


def _check_request(
    port: object,
    internal_port: object,
    desc: object,
    proto: object,
    duration: object,
    internal_client: object,
    remote_host: object,
) -> MappingRequest:
    external = check_port(port)
    protocol = check_proto(proto)
    # Almost everybody leaves the addresses out, and callers come by the ten thousand.
    host = "" if remote_host == "" else check_address(remote_host, "remote_host")
    inner = check_port(internal_port, "internal_port", lowest=0) or external
    client = "" if internal_client is None else check_address(internal_client, "internal_client")
    terms = Terms(check_desc(desc), check_duration(duration))
    return MappingRequest(MappingKey(external, protocol, host), inner, client, terms)


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
        raise UsageError(f"{what} must be the IPv6 address of a host on the internet, not {_shown(address)}")
    return str(parsed)


def check_pinhole_duration(duration: object) -> int:
    """Return the lease of a pinhole in seconds, or raise UsageError (INVALID_DURATION)."""
    number = _whole_number(duration)
    if number is None or not 1 <= number <= MAX_PINHOLE_DURATION:
        raise UsageError(
            f"a pinhole lasts a whole number of seconds from 1 to {MAX_PINHOLE_DURATION}, not {_shown(duration)}",
            UPnPResult.INVALID_DURATION,
        )
    return number


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


def check_pinhole(pinhole: object) -> Pinhole:
    """Return a pinhole that was granted, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(pinhole, Pinhole):
        raise UsageError(f"pinhole must be a Pinhole that a gateway has granted, not {_shown(pinhole)}")
    return pinhole


def check_port_range(start: object, end: object, proto: object) -> tuple[int, int, Proto]:
    """Return first and last external port and protocol from what a caller said, or raise UsageError."""
    first, last = check_port(start, "start"), check_port(end, "end")
    if first > last:
        raise UsageError(f"a range of ports from {first} to {last} has none in it")
    return first, last, check_proto(proto)


def check_seconds(value: object, what: str) -> float:
    """Return a time limit in seconds, or raise UsageError (INVALID_ARGS)."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not isfinite(value)
        or not 0 < value <= LONGEST_TIMEOUT
    ):
        raise UsageError(f"{what} must be a number of seconds above 0 and up to {LONGEST_TIMEOUT:.0f}, not {value!r}")
    return float(value)


def check_ttl(value: object) -> int:
    """Return a number of hops, or raise UsageError (INVALID_ARGS)."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise UsageError(f"ttl must be a whole number of hops from 0 to 255, not {value!r}")
    return value


def check_source_address(value: object) -> str | None:
    """Return a local IP address in its usual form, None for None, or raise UsageError (INVALID_ARGS)."""
    if value is None:
        return None
    address = _ip_address(value)
    if address is None or address.is_unspecified or address.is_multicast:
        raise UsageError(f"source_address must be an IP address of this machine, not {value!r}")
    return str(address)


def _ip_address(value: object) -> IPv4Address | IPv6Address | None:
    """Return the address that a str names, None where it names none, or is no str."""
    try:
        return ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def check_device_filter(value: object) -> str:
    """Return a part of a device or service type, or raise UsageError (INVALID_ARGS)."""
    if not isinstance(value, str):
        raise UsageError(f"device_filter must be a str, not {_shown(value)}")
    return value


def check_host(value: object) -> str | None:
    """Return an IP address in its usual form, None for None, or raise UsageError (INVALID_ARGS)."""
    if value is None:
        return None
    address = _ip_address(value)
    if address is None or address.is_unspecified:
        raise UsageError(f"host must be an IP address, not {_shown(value)}")
    return str(address)


# By the ten thousand, callers say the same thing; all of them share one request. Typed, as True equals 1.
_remembered_request = lru_cache(maxsize=64, typed=True)(_check_request)


def _whole_number(value: Any) -> int | None:
    # bool is an int to Python, but True is no port to anybody.
    if isinstance(value, bool):
        return None
    try:
        return index(value)
    except TypeError:
        return None


def _shown(value: object) -> str:
    # Some values cannot be shown (an int of over 4,300 digits), some not on one screen.
    try:
        return repr(value)[:80]
    except Exception:
        return f"this {type(value).__name__}"


def _parse_address(address: str | IPv4Address) -> IPv4Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return parsed if isinstance(parsed, IPv4Address) else None
