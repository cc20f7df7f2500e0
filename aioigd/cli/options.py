"""Options that commands share, the types of their arguments, and the layout of help pages."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, wraps
from ipaddress import IPv4Address, ip_address
from typing import Any, Final, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from .. import PortMapper, Proto, ProtocolName, TransportError, UsageError, source_address_for
from ..net.interfaces import all_addresses
from .output import Output
from .runner import Exit, Limit, show_logs
from .streams import flush, replace_unencodable

__all__ = [
    "DURATION",
    "PORTS",
    "PROTOCOLS",
    "TARGET",
    "Command",
    "Group",
    "Ports",
    "Settings",
    "Target",
    "all_interfaces",
    "common_options",
    "protocol_options",
]

F = TypeVar("F", bound=Callable[..., Any])

PROTOCOLS: Final[tuple[ProtocolName, ...]] = ("upnp", "pcp", "nat-pmp")
"""What the router is looked for by, without --via."""
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_DURATION: Final = 4_294_967_295
"""Seconds: the standard has durations as ui4."""
_DEFAULT_TIMEOUT: Final = 10.0
_DISCOVERY_TIMEOUT: Final = 5.0
_OF_THE_LIMIT: Final = 0.9
"""How much of --timeout one call may take: so it ends with an error that says who was silent."""


@dataclass(frozen=True)
class Settings:
    """The values of the common options of a run, and its output."""

    source_address: str | None = None
    location: str | None = None
    ipv6: bool = False
    timeout: float | None = None
    protocols: tuple[ProtocolName, ...] = PROTOCOLS
    gateway: str | None = None
    output: Output = field(default_factory=lambda: Output(as_json=False))

    @cached_property
    def limit(self) -> Limit:
        """How long the run may take: ``timeout``."""
        return Limit(self.timeout)

    def mapper(self) -> PortMapper:
        """Return a mapper that searches as the options say."""
        timeout = self.timeout * _OF_THE_LIMIT if self.timeout is not None else _DEFAULT_TIMEOUT
        return PortMapper(
            source_address=self.source_address,
            location=self.location,
            timeout=timeout,
            discovery_timeout=min(_DISCOVERY_TIMEOUT, timeout),
            ipv6=self.ipv6,
            protocols=self.protocols,
            gateway=self.gateway,
        )


class Interface(NamedTuple):
    """A network interface of this machine with one of its addresses; ``prefix`` is the length of its network's."""

    name: str
    address: str
    prefix: int = 0


def all_interfaces(*, ipv6: bool = False) -> list[Interface]:
    """Return the interfaces with their IPv4 addresses, loopback last; with ``ipv6``, with one IPv6 address each.

    That is the link-local one where there is one, as searches over IPv6 are sent from there.
    """
    addresses = all_addresses()
    if not addresses:  # the system does not tell, as in a sandbox
        return _towards_internet(ipv6=ipv6)
    found: dict[str, list[Interface]] = {}
    for each in addresses:
        if each.is_ipv6 == ipv6:
            name = _name_of(each.index, each.address)
            found.setdefault(name, []).append(Interface(name, each.address, each.prefix_length or 0))
    if ipv6:
        found = {name: sorted(here, key=lambda one: not _is_link_local(one))[:1] for name, here in found.items()}
    listed = [one for here in found.values() for one in here]
    return [one for one in listed if not _is_loopback(one)] + [one for one in listed if _is_loopback(one)][:1]


def _is_link_local(interface: Interface) -> bool:
    return ip_address(interface.address).is_link_local


def _is_loopback(interface: Interface) -> bool:
    return ip_address(interface.address).is_loopback


def _towards_internet(*, ipv6: bool) -> list[Interface]:
    """Return the interface by which hosts on the internet are reached, named by its address."""
    try:
        address = source_address_for("2001:db8::1" if ipv6 else "192.0.2.1")
    except TransportError:
        return []
    return [Interface(address, address)]


def _name_of(index: int, address: str) -> str:
    """Return the name that the system has for an interface, its address where there is none."""
    try:
        return socket.if_indextoname(index)
    except (OSError, AttributeError):
        return address


class InterfaceType(click.ParamType):  # type: ignore[type-arg] # generic in some versions of click only
    """The name of a network interface of this machine."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names of interfaces that begin with what was typed, with their addresses."""
        return [
            CompletionItem(each.name, help=each.address)
            for each in all_interfaces()
            if each.name.startswith(incomplete)
        ]


@dataclass(frozen=True)
class Ports:
    """A port, or a range of ports."""

    first: int
    last: int

    def __iter__(self) -> Any:
        return iter(range(self.first, self.last + 1))

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class PortsType(click.ParamType):  # type: ignore[type-arg] # generic in some versions of click only
    """A port or a range of them: 8080, 8000-8010."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Ports:
        """Return the ports that a text names."""
        if isinstance(value, Ports):
            return value
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", value.strip(), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is no port and no range of ports (8080, 8000-8010)", param, ctx)
        first = int(found[1])
        last = int(found[2] or first)
        if not 1 <= first <= last <= 65535:
            self.fail(f"{value}: ports go from 1 to 65535, the smaller one first", param, ctx)
        return Ports(first, last)


@dataclass(frozen=True)
class Target:
    """Where to forward to: ``host`` "" is this machine, ``port`` 0 the same number as outside."""

    host: str = ""
    port: int = 0


class TargetType(click.ParamType):  # type: ignore[type-arg] # generic in some versions of click only
    """A port, an IPv4 address, or both: 80, 192.168.1.7, 192.168.1.7:80."""

    name = "[addr:]port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        """Return the target that a text names."""
        if isinstance(value, Target):
            return value
        host, colon, port = value.strip().rpartition(":")
        if not colon and "." in port:
            host, port = port, "0"
        if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65535 or (colon and not host):
            self.fail(f"{value!r} is no port, and no address with a port (80, 192.168.1.7:80)", param, ctx)
        if host:
            try:
                IPv4Address(host)
            except ValueError:
                self.fail(f"{host!r} is not an IPv4 address", param, ctx)
        return Target(host, int(port))


class ViaType(click.ParamType):  # type: ignore[type-arg] # generic in some versions of click only
    """Protocols in the order of preference: upnp,pcp,nat-pmp."""

    name = "protocols"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[ProtocolName, ...]:
        """Return the protocols that a text names."""
        if isinstance(value, tuple):
            return value
        words = [word.strip().lower() for word in value.split(",")]
        found = [each for word in words for each in PROTOCOLS if each == word]
        if len(found) < len(words) or len(set(found)) < len(found):
            self.fail(
                f"{value!r} is no list of protocols: name one or more of {', '.join(PROTOCOLS)}, each once, the "
                "preferred one first (pcp,nat-pmp,upnp)",
                param,
                ctx,
            )
        return tuple(found)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return what was typed with each protocol behind it that is not there yet."""
        before, comma, word = incomplete.rpartition(",")
        named = before.split(",")
        left = (each for each in PROTOCOLS if each.startswith(word) and each not in named)
        return [CompletionItem(f"{before}{comma}{each}") for each in left]


class DurationType(click.ParamType):  # type: ignore[type-arg] # generic in some versions of click only
    """A time span: 90s, 30m, 2h, 1d, 1h30m; a bare number is seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds that a text names."""
        if isinstance(value, int):
            return value
        text = value.strip().lower()
        if not re.fullmatch(r"\d{1,10}|(\d{1,10}[smhdw])+", text, re.ASCII):
            self.fail(f"{value!r} is no time span (90s, 30m, 2h, 1d, 1h30m)", param, ctx)
        seconds = sum(int(count) * _SECONDS[unit] for count, unit in re.findall(r"(\d+)([smhdw]?)", text))
        if not 1 <= seconds <= _MAX_DURATION:
            self.fail(f"{value}: a mapping lasts at least a second", param, ctx)
        return seconds


PORTS = PortsType()
TARGET = TargetType()
DURATION = DurationType()
VIA = ViaType()


def protocol_options(function: F) -> F:
    """Give a command the options --tcp, --udp and --both; it gets their value as ``protos``."""

    @click.option("--tcp", "choice", flag_value="tcp", help="TCP, which is the default.")
    @click.option("--udp", "choice", flag_value="udp", help="UDP.")
    @click.option("--both", "choice", flag_value="both", help="TCP and UDP.")
    @wraps(function)
    def with_protos(*args: Any, choice: str | None, **kwargs: Any) -> Any:
        protos: tuple[Proto, ...] = {"udp": ("UDP",), "both": ("TCP", "UDP")}.get(choice or "", ("TCP",))  # type: ignore[assignment]
        return function(*args, protos=protos, **kwargs)

    return with_protos  # type: ignore[return-value]


def common_options(function: F) -> F:
    """Give a command the options that all have; it gets their values as ``settings``."""

    @click.option("-i", "--interface", metavar="NAME", type=InterfaceType(), help="Search on this interface only.")
    @click.option("--source-address", metavar="ADDR", help="Search from this address of this machine only.")
    @click.option("--location", metavar="URL", help="Read this device description instead of searching.")
    @click.option(
        "--gateway", metavar="ADDR[:PORT]", help="Use this router only, as behind a VPN; PORT is that of PCP."
    )
    @click.option(
        "--via", "protocols", metavar="LIST", type=VIA, help="Protocols, the preferred first: upnp,pcp,nat-pmp."
    )
    @click.option("--ipv6", is_flag=True, help="Search over IPv6.")
    @click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(0, 3600, min_open=True),
        help="How long it may take in all.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Write JSON for programs (see the end of this page).")
    @click.option("-v", "--verbose", count=True, help="Log what is done; -vv all that is sent and received.")
    @wraps(function)
    def with_settings(
        *args: Any,
        interface: str | None,
        source_address: str | None,
        location: str | None,
        gateway: str | None,
        protocols: tuple[ProtocolName, ...] | None,
        ipv6: bool,
        timeout: float | None,
        as_json: bool,
        verbose: int,
        **kwargs: Any,
    ) -> Any:
        show_logs(verbose)
        if interface is not None and source_address is not None:
            raise click.UsageError("--interface and --source-address exclude each other.")
        if interface is not None:
            source_address = _address_of(interface, ipv6=ipv6)
        settings = Settings(
            source_address, location, ipv6, timeout, protocols or PROTOCOLS, gateway, Output(as_json=as_json)
        )
        try:
            settings.mapper()  # so that a wrong option ends the run before anything happens
        except UsageError as error:
            raise click.UsageError(f"{error.message}.") from error
        return function(*args, settings=settings, **kwargs)

    return with_settings  # type: ignore[return-value]


def _address_of(name: str, *, ipv6: bool) -> str:
    """Return an address of the interface with this name."""
    known = all_interfaces(ipv6=ipv6)
    for interface in known:
        if interface.name == name:
            return interface.address
    names = ", ".join(dict.fromkeys(each.name for each in known)) or "none"
    raise click.BadParameter(
        f"no interface {name!r} with an IPv{6 if ipv6 else 4} address; there is: {names}", param_hint="--interface"
    )


class Command(click.Command):
    """A command whose epilog is written without an indentation."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write_text(self.epilog)


class Group(Command, click.Group):
    """A command with subcommands, which its help page lists in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands."""
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command, on streams that take any text. A help page that cannot be written is no defect."""
        replace_unencodable()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            with suppress(OSError):
                click.echo(f"Error: {error.strerror or error}", err=True)
            flush()
            sys.exit(Exit.FAILED)
