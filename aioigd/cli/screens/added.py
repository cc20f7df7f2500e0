"""What ``add`` shows: how far it is, and what was granted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...models import PortMapping
from ..format import address_note, endpoint, lease

__all__ = ["added", "progress"]


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
    for run in _runs(granted):
        first, last = run[0], run[-1]
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
