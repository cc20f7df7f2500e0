"""What ``add --keep`` shows: each port with its state, the traffic of the router, and what happened lately."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ... import Change, ChangeKind, Lease, LeaseState
from ...models import MappingKey, PortMapping, Proto
from ..format import address_note, age, clock, endpoint, lease
from ..traffic import Traffic
from .traffic import traffic_line

__all__ = ["change_line", "held_line", "kept_screen", "released_line"]

_STATES: Final = {
    LeaseState.ACTIVE: ("● open", "green"),
    LeaseState.RENEWING: ("◌ renewing", "yellow"),
    LeaseState.LOST: ("✗ lost", "bold red"),
}
_STYLES: Final = {ChangeKind.LOST: "red", ChangeKind.BACK: "green"}
_FEWEST_ROWS: Final = 3
_OTHER_LINES: Final = 9


def kept_screen(
    gateway: str,
    leases: Sequence[Lease],
    missing: int,
    recent: Sequence[tuple[Change, Proto]],
    traffic: Traffic,
    height: int,
) -> RenderableType:
    """Return the whole screen, for a terminal with so many lines."""
    if missing:
        return Spinner("dots", Text(f" Opening {missing} on {gateway}", style="dim"), style="cyan")
    address = leases[0].external_address if leases else None
    parts: list[RenderableType] = [
        Text.assemble(
            "Keeping ",
            ("1 port" if len(leases) == 1 else f"{len(leases)} ports", "bold"),
            " open on ",
            (gateway, "bold"),
        ),
        _table(leases, max(_FEWEST_ROWS, height - len(recent) - _OTHER_LINES)),
    ]
    if note := address_note(address):
        parts.append(Text(f"The router's address is {note}.", style="yellow"))
    parts.append(traffic_line(traffic))
    parts += [change_line(change, proto) for change, proto in recent]
    parts.append(Text("Ctrl-C closes them.", style="dim"))
    return Group(*parts)


def _table(leases: Sequence[Lease], rows: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
    for title in ("State", "", "Open at", "Leads to", "Lease", "Confirmed"):
        table.add_column(title, no_wrap=True)
    # What is not as it should be comes first, where it cannot scroll away.
    ordered = sorted(leases, key=_order)
    for held in ordered[:rows]:
        for mapping in held.mappings:
            table.add_row(*_row(held, mapping))
    if len(ordered) > rows:
        table.add_row(Text(""), Text(""), Text(f"and {len(ordered) - rows} more", style="dim"))
    return table


def _order(held: Lease) -> tuple[bool, list[MappingKey]]:
    return held.state is LeaseState.ACTIVE, [mapping.key for mapping in held.mappings]


def _row(held: Lease, mapping: PortMapping) -> tuple[Text, ...]:
    return (
        Text(*_STATES[held.state]),
        Text(mapping.proto, style="bold"),
        Text(endpoint(held.external_address, mapping.external_port), style="cyan"),
        Text(endpoint(mapping.internal_client, mapping.internal_port)),
        Text(lease(mapping.duration), style="dim"),
        Text(age(held.last_confirmed, datetime.now(UTC)), style="dim"),
    )


def held_line(mapping: PortMapping, address: IPv4Address | IPv6Address | None) -> Text:
    """Return one port that is open now."""
    where = endpoint(address, mapping.external_port)
    inside = endpoint(mapping.internal_client, mapping.internal_port)
    return Text.assemble(("✓ ", "bold green"), f"{mapping.proto} ", (where, "cyan"), f" → {inside}, kept until Ctrl-C")


def change_line(change: Change, proto: Proto) -> Text:
    """Return one thing that happened, with its time."""
    what = {
        ChangeKind.NEW_ADDRESS: f"the external address is {change.external_address or 'unknown'} now",
        ChangeKind.NEW_PORT: f"the external port is {change.external_port} now",
        ChangeKind.LOST: "lost; it is opened again as soon as the router is there",
        ChangeKind.BACK: "open again",
        ChangeKind.GATEWAY_REPLACED: "the router restarted, or is another one",
    }[change.kind]
    return Text.assemble(
        (f"{clock(change.at)}  ", "dim"),
        (f"{proto} {change.external_port}: ", "bold"),
        (what, _STYLES.get(change.kind, "")),
    )


def released_line(count: int, left: Sequence[PortMapping] | None, gateway: str) -> Text:
    """Return how it ended; ``left`` is None where that could not be asked."""
    if left is None:
        return Text.assemble(("! ", "bold yellow"), f"{gateway} is out of reach: it forgets the ports within the hour.")
    if left:
        names = ", ".join(f"{each.proto} {each.external_port}" for each in left)
        return Text.assemble(("! ", "bold yellow"), f"{gateway} did not let go of {names}: it will within the hour.")
    closed = "The port is" if count == 1 else f"The {count} ports are"
    return Text.assemble(("✓ ", "bold green"), f"{closed} closed; nothing is left on {gateway}.")
