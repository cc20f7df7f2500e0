"""``aioigd add``: opens ports. Options, requests, progress bar, result, JSON; keep.py has ``--keep``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import click
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import ConflictError, Gateway, IGDError, PortMapper, PortMapping, Proto, RefusedError
from ..text import printable
from .format import OK_MARK, address_note, device_name, endpoint, error_text, lease_time, port_ranges, protocol_names
from .keep import keep
from .options import (
    DURATION,
    PORTS,
    TARGET,
    Command,
    Ports,
    Settings,
    Target,
    common_options,
    protocol_options,
)
from .output import Column, Listing, device_json, error_json, live, mapping_json
from .runner import Exit, result_or_error, result_or_none, run

__all__ = ["add"]

_MOST_REFUSALS: Final = 256
"""Ports that a router may refuse in a row; what is left is not asked for then."""
_MOST_REQUESTS: Final = 512
"""Requests for them."""
_AT_ONCE: Final = 64
"""Ports that are asked for together; more than a router gets requests at once."""
_MOST_WARNINGS: Final = 10
"""Refused ports that are named one by one."""

_EPILOG = """\
\b
JSON, one document:
  {"gateway": {as in discover}, "external_address",
   "mappings": [{as in list}],
   "failures": [{"proto", "external_port",
                 "error": {"message", "result", "error_code", "protocol"}}]}

\b
JSON lines with --keep:
  {"event": "held", "gateway", "external_address", "mappings"}
      when all ports are open
  {"event": "change", "at", "kind", "external_address", "external_port",
   "proto"}
      kind: NEW_ADDRESS, NEW_PORT, LOST, BACK, GATEWAY_REPLACED
  {"event": "released", "mappings"}
      at the end: the mappings that are left, [] as a rule, null: not known

\b
Examples:
  aioigd add 8080 --internal 80 --desc "my site" --for 1d
  aioigd add 6881-6889 --both
  aioigd add 25565 --keep
"""


@dataclass(frozen=True)
class _Request:
    """The ports to open, and how."""

    ports: Ports
    protos: tuple[Proto, ...]
    target: Target
    desc: str
    duration: int
    replace: bool
    remote_host: str

    def __iter__(self) -> Iterator[tuple[int, int, Proto]]:
        """Yield external port, internal port and protocol of each mapping."""
        shift = self.target.port - self.ports.first if self.target.port else 0
        return ((port, port + shift, proto) for port in self.ports for proto in self.protos)

    def __len__(self) -> int:
        return len(self.ports) * len(self.protos)


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("ports", metavar="PORT[-PORT]", type=PORTS)
@protocol_options
@click.option(
    "--internal", "target", type=TARGET, default=Target(), help="Where to forward to: a port here, or another host's."
)
@click.option("--desc", default="aioigd", show_default=True, help="What the router's pages show for it.")
@click.option("--for", "duration", type=DURATION, help="How long: 30m, 2h, 1d; until the router restarts if not given.")
@click.option("--keep", "keeping", is_flag=True, help="Hold the ports until Ctrl-C, then close them.")
@click.option("--replace", is_flag=True, help="Take a port over that is forwarded elsewhere.")
@click.option("--remote", "remote_host", default="", metavar="ADDR", help="Let only this host on the internet in.")
@common_options
def add(
    settings: Settings,
    ports: Ports,
    protos: tuple[Proto, ...],
    target: Target,
    desc: str,
    duration: int | None,
    keeping: bool,
    replace: bool,
    remote_host: str,
) -> None:
    """Open a port, or a range of ports, to this machine.

    All ports of a range are asked for, until a router has refused 256 in a row. A port that is forwarded elsewhere is
    left alone without --replace. With --keep the ports are renewed in time, opened again when the router restarts, and
    closed in the end.
    """
    request = _Request(ports, protos, target, desc, duration or 0, replace, remote_host)
    if target.port and target.port + len(ports) - 1 > 65535:
        raise click.UsageError("The internal ports go beyond 65535.")
    if not keeping:
        run(lambda: _Run(settings, request).run(), settings.output)
    if duration is not None:
        raise click.UsageError("--for and --keep exclude each other: a port is kept until Ctrl-C.")
    if target.host or remote_host:
        raise click.UsageError("--keep holds ports of this machine, open to all: use --for with an address.")
    run(lambda: keep(settings, list(request), desc, replace=replace), settings.output, ends_by_signal=True)


@dataclass
class _Run:
    """One run of the command, and the ports that have been granted and refused so far."""

    settings: Settings
    request: _Request
    granted: list[PortMapping] = field(default_factory=list)
    refused: list[tuple[Proto, int, IGDError]] = field(default_factory=list)
    refused_in_a_row: int = 0
    requests_in_a_row: int = 0
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def run(self) -> Exit:
        limit = self.settings.limit
        address: IPv4Address | IPv6Address | None = None
        async with self.settings.mapper() as mapper:
            async with limit.whole_step():
                gateway = await mapper.get_gateway()
            async with limit.step(), live(self.settings.output, self._screen):
                await asyncio.gather(*(self._add(mapper, *each) for each in self.request))
            async with limit.step():
                address = await result_or_none(gateway.query_external_address())
        self.granted.sort(key=lambda each: each.key)
        self.refused.sort(key=lambda each: each[:2])
        unfinished = self._unfinished()
        self._show_result(gateway, address, unfinished)
        return Exit.TIME_IS_UP if unfinished else Exit.FAILED if self.refused else Exit.OK

    def _unfinished(self) -> list[tuple[Proto, int]]:
        """Return what there was no time for."""
        done = {(each.proto, each.external_port) for each in self.granted}
        done |= {(proto, port) for proto, port, _ in self.refused}
        return sorted((proto, port) for port, _, proto in self.request if (proto, port) not in done)

    async def _add(self, mapper: PortMapper, port: int, internal_port: int, proto: Proto) -> None:
        async with self.room:
            if self.refused_in_a_row < _MOST_REFUSALS and self.requests_in_a_row < _MOST_REQUESTS:
                await self._ask(mapper, port, internal_port, proto)
                return
        *_, last = self.refused
        message = f"not asked for, as {self.refused_in_a_row} ports in a row were refused"
        self.refused.append((proto, port, RefusedError(message, last[2].result, last[2].error_code)))

    async def _ask(self, mapper: PortMapper, port: int, internal_port: int, proto: Proto) -> None:
        request = self.request
        result = await result_or_error(
            # The mapper's, as a gateway's asks by one protocol only.
            mapper.add_port_mapping(
                port,
                internal_port,
                request.desc,
                proto,
                request.duration,
                internal_client=request.target.host or None,
                remote_host=request.remote_host,
                overwrite=request.replace,
            )
        )
        if isinstance(result, IGDError):
            self.refused.append((proto, port, result))
            self.refused_in_a_row += 1
            self.requests_in_a_row += len(result.attempts)
        else:
            self.granted.append(result)
            self.refused_in_a_row = self.requests_in_a_row = 0

    def _screen(self) -> RenderableType:
        return _progress_view(len(self.granted), len(self.refused), len(self.request))

    def _show_result(
        self, gateway: Gateway, address: IPv4Address | IPv6Address | None, unfinished: Sequence[tuple[Proto, int]]
    ) -> None:
        output, too_late = self.settings.output, self.settings.limit.error
        failures = [*self.refused, *((*each, too_late) for each in unfinished)]
        output.json_document(
            {
                "gateway": device_json(gateway.device),
                "external_address": address,
                "mappings": [mapping_json(each) for each in self.granted],
                "failures": [
                    {"proto": proto, "external_port": port, "error": error_json(error)}
                    for proto, port, error in failures
                ],
            }
        )
        if self.granted:
            output.show(_granted_view(self.granted, device_name(gateway.device), address, self.request.duration))
        for proto, port, error in self.refused[:_MOST_WARNINGS]:
            what, text = f"{proto} port {port}", error_text(error)
            output.warn(text if what in text else f"{what}: {text}")
        if len(self.refused) > _MOST_WARNINGS:
            output.warn(f"and {len(self.refused) - _MOST_WARNINGS} more ports that could not be opened")
        for proto in self.request.protos:
            if late := [port for each, port in unfinished if each == proto]:
                output.warn(f"{proto} {port_ranges(late)} not opened: {too_late.message}")
        if any(isinstance(error, ConflictError) for _, _, error in self.refused):
            output.warn("A port that is forwarded elsewhere is taken over with --replace. `aioigd list` shows them.")


def _progress_view(granted: int, refused: int, total: int) -> RenderableType:
    """Return a progress bar; a line without a bar for a single port."""
    done = granted + refused
    line = Table.grid(padding=(0, 1))
    line.add_row(
        Text("Opening" if total > 1 else "Opening the port"),
        ProgressBar(total=total, completed=done, width=40) if total > 1 else Text(""),
        Text(f"{done} of {total}" if total > 1 else ""),
        Text(f"{refused} refused", style="yellow") if refused else Text(""),
    )
    return line


def _granted_view(
    granted: Sequence[PortMapping], gateway: str, address: IPv4Address | IPv6Address | None, requested: int
) -> RenderableType:
    """Return the ports that are open now, a range in one line; ``requested`` is the duration in the request."""
    lines: list[RenderableType] = [
        Text.assemble(
            OK_MARK,
            (f"{len(granted)} " if len(granted) > 1 else ""),
            "open on ",
            (gateway, "bold"),
            f" by {protocol_names(each.protocol for each in granted)}",
        )
    ]
    table = Listing(*(Column(is_head=True) for _ in range(4)), Column(), Column(), with_titles=False)
    for group in _ranges(granted):
        first, last = group[0], group[-1]
        table.add_row(
            Text(f"  {first.proto}", style="bold"),
            Text(_range(endpoint(address, first.external_port), first.external_port, last.external_port), style="cyan"),
            Text("→"),
            Text(_range(endpoint(first.internal_client, first.internal_port), first.internal_port, last.internal_port)),
            Text(lease_time(first.duration), style="dim"),
            Text(f"only for {printable(first.remote_host, 45)}" if first.remote_host else "", style="dim"),
        )
    lines.append(table)
    if any(each.duration != requested for each in granted):
        if all(each.duration == 0 for each in granted):
            note = "This router grants no limit in time: delete what you do not need any more."
        elif not requested and any(each.protocol != "upnp" for each in granted):
            names = protocol_names(each.protocol for each in granted if each.protocol != "upnp")
            note = f"By {names} no port is open without a limit in time; --keep renews it."
        else:
            note = f"Asked for {lease_time(requested)}; this router grants something else."
        lines.append(Text(f"  {note}", style="yellow"))
    if note := address_note(address):
        lines.append(Text(f"  The router's address is {note}.", style="yellow"))
    return Group(*lines)


def _range(text: str, first: int, last: int) -> str:
    return text if first == last else f"{text}-{last}"


def _ranges(granted: Sequence[PortMapping]) -> Iterator[list[PortMapping]]:
    """Yield mappings in groups that are shown in one line: consecutive ports that are alike in everything else."""
    group: list[PortMapping] = []
    for mapping in sorted(granted, key=lambda each: (each.proto, each.external_port)):
        if group and not _continues(group[-1], mapping):
            yield group
            group = []
        group.append(mapping)
    if group:
        yield group


def _continues(before: PortMapping, after: PortMapping) -> bool:
    return (
        (before.proto, before.internal_client, before.duration, before.remote_host, before.protocol)
        == (after.proto, after.internal_client, after.duration, after.remote_host, after.protocol)
        and after.external_port == before.external_port + 1
        and after.internal_port == before.internal_port + 1
    )
