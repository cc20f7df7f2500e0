"""``aioigd add``: open ports, for a while or for as long as the command runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import Gateway, IGDError, PortMapper, PortMapping, Proto, UPnPResult, UsageError
from .format import address_note, endpoint, lease, name_of, plain_error
from .keep import keep
from .options import DURATION, PORTS, TARGET, Command, Ports, Settings, Target, protocols, shared
from .output import device_facts, error_facts, live, mapping_facts
from .runner import Exit, run

__all__ = ["add", "added", "progress"]

_EPILOG = """\
\b
JSON, one document:
  {"gateway": {as in discover}, "external_address",
   "mappings": [{as in list}],
   "failures": [{"proto", "external_port",
                 "error": {"message", "result", "error_code"}}]}

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
class Order:
    """What is to be opened."""

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
@protocols
@click.option(
    "--internal", "target", type=TARGET, default=Target(), help="Where to forward to: a port here, or another host's."
)
@click.option("--desc", default="aioigd", show_default=True, help="What the router's pages show for it.")
@click.option("--for", "duration", type=DURATION, help="How long: 30m, 2h, 1d; until the router restarts if not given.")
@click.option("--keep", "keeping", is_flag=True, help="Hold the ports until Ctrl-C, then close them.")
@click.option("--replace", is_flag=True, help="Take a port over that is forwarded elsewhere.")
@click.option("--remote", "remote_host", default="", metavar="ADDR", help="Let only this host on the internet in.")
@shared
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

    All ports of a range are asked for at once. A port that is forwarded elsewhere is left alone without --replace.
    With --keep the ports are renewed in time, opened again when the router restarts, and closed in the end.
    """
    order = Order(ports, protos, target, desc, duration or 0, replace, remote_host)
    if target.port and target.port + len(ports) - 1 > 65535:
        raise click.UsageError("The internal ports go beyond 65535.")
    if not keeping:
        run(lambda: _Adding(settings, order).run(), settings.output)
    if duration is not None:
        raise click.UsageError("--for and --keep exclude each other: a port is kept until Ctrl-C.")
    if target.host or remote_host:
        raise click.UsageError("--keep holds ports of this machine, open to all: use --for with an address.")
    run(lambda: keep(settings, list(order), desc, replace=replace), settings.output, ends_by_signal=True)


@dataclass
class _Adding:
    """One run: what has been granted and refused so far."""

    settings: Settings
    order: Order
    granted: list[PortMapping] = field(default_factory=list)
    refused: list[tuple[Proto, int, IGDError]] = field(default_factory=list)

    async def run(self) -> Exit:
        async with self.settings.mapper() as mapper:
            gateway = await mapper.get_gateway()
            async with live(self.settings.output, self._screen):
                await asyncio.gather(*(self._add(mapper, gateway, *each) for each in self.order))
            address = await _address(gateway)
        self.granted.sort(key=lambda each: each.key)
        self.refused.sort(key=lambda each: each[:2])
        self._tell(gateway, address)
        return Exit.FAILED if self.refused else Exit.OK

    async def _add(self, mapper: PortMapper, gateway: Gateway, port: int, internal_port: int, proto: Proto) -> None:
        order = self.order
        verb = mapper.add_port_mapping if order.replace else gateway.add_port_mapping
        try:
            mapping = await verb(
                port,
                internal_port,
                order.desc,
                proto,
                order.duration,
                internal_client=order.target.host or None,
                remote_host=order.remote_host,
            )
        except UsageError:
            raise
        except IGDError as error:
            self.refused.append((proto, port, error))
        else:
            self.granted.append(mapping)

    def _screen(self) -> RenderableType:
        return progress(len(self.granted), len(self.refused), len(self.order))

    def _tell(self, gateway: Gateway, address: IPv4Address | IPv6Address | None) -> None:
        output = self.settings.output
        output.document(
            {
                "gateway": device_facts(gateway.device),
                "external_address": address,
                "mappings": [mapping_facts(each) for each in self.granted],
                "failures": [_failure(*each) for each in self.refused],
            }
        )
        if self.granted:
            output.show(added(self.granted, name_of(gateway.device), address, self.order.duration))
        for proto, port, error in self.refused[:10]:
            output.warn(_said_of(f"{proto} port {port}", error))
        if len(self.refused) > 10:
            output.warn(f"and {len(self.refused) - 10} more ports that could not be opened")
        if any(error.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING for _, _, error in self.refused):
            output.warn("A port that is forwarded elsewhere is taken over with --replace. `aioigd list` shows them.")


def _said_of(what: str, error: IGDError) -> str:
    text = plain_error(error)
    return text if what in text else f"{what}: {text}"


async def _address(gateway: Gateway) -> IPv4Address | IPv6Address | None:
    try:
        return await gateway.query_external_address()
    except IGDError:
        return None


def _failure(proto: Proto, port: int, error: IGDError) -> dict[str, Any]:
    return {"proto": proto, "external_port": port, "error": error_facts(error)}


def progress(granted: int, refused: int, total: int) -> RenderableType:
    """Return a bar that shows how much of a range has been settled; nothing for the first moments of one port."""
    done = granted + refused
    line = Table.grid(padding=(0, 1))
    line.add_row(
        Text("Opening" if total > 1 else "Opening the port"),
        ProgressBar(total=total, completed=done, width=40) if total > 1 else Text(""),
        Text(f"{done} of {total}" if total > 1 else ""),
        Text(f"{refused} refused", style="yellow") if refused else Text(""),
    )
    return line


def added(
    granted: Sequence[PortMapping], gateway: str, address: IPv4Address | IPv6Address | None, asked: int
) -> RenderableType:
    """Return what is open now, ports in a row in one line; ``asked`` is the lease that was asked for."""
    lines: list[RenderableType] = [
        Text.assemble(
            ("✓ ", "bold green"), (f"{len(granted)} " if len(granted) > 1 else ""), "open on ", (gateway, "bold")
        )
    ]
    table = Table.grid(padding=(0, 2, 0, 0))
    for ports in _runs(granted):
        first, last = ports[0], ports[-1]
        table.add_row(
            Text(f"  {first.proto}", style="bold"),
            Text(_span(endpoint(address, first.external_port), first.external_port, last.external_port), style="cyan"),
            Text("→"),
            Text(_span(endpoint(first.internal_client, first.internal_port), first.internal_port, last.internal_port)),
            Text(lease(first.duration), style="dim"),
            Text(f"only for {first.remote_host}" if first.remote_host else "", style="dim"),
        )
    lines.append(table)
    if any(each.duration != asked for each in granted):
        lines.append(Text(_granted_otherwise(granted, asked), style="yellow"))
    if note := address_note(address):
        lines.append(Text(f"  The router's address is {note}.", style="yellow"))
    return Group(*lines)


def _granted_otherwise(granted: Iterable[PortMapping], asked: int) -> str:
    if all(each.duration == 0 for each in granted):
        return "  This router grants no limit in time: delete what you do not need any more."
    return f"  Asked for {lease(asked)}; this router grants something else."


def _span(text: str, first: int, last: int) -> str:
    return text if first == last else f"{text}-{last}"


def _runs(granted: Sequence[PortMapping]) -> Iterator[list[PortMapping]]:
    """Yield mappings that can be told in one line: consecutive ports that are alike in everything else."""
    run: list[PortMapping] = []
    for mapping in sorted(granted, key=lambda each: (each.proto, each.external_port)):
        if run and not _continues(run[-1], mapping):
            yield run
            run = []
        run.append(mapping)
    if run:
        yield run


def _continues(before: PortMapping, after: PortMapping) -> bool:
    return (
        (before.proto, before.internal_client, before.duration, before.remote_host)
        == (after.proto, after.internal_client, after.duration, after.remote_host)
        and after.external_port == before.external_port + 1
        and after.internal_port == before.internal_port + 1
    )
