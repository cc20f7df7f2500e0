"""``aioigd add --keep``: ports that are open for as long as the command runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from async_timeout import timeout
from rich import box
from rich.console import Group, RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .. import Change, ChangeKind, Gateway, IGDError, Lease, LeaseState, NotFoundError, PortMapper, PortMapping, Proto
from .format import address_note, age, clock, endpoint, lease, name_of
from .options import Settings
from .output import device_facts, live, mapping_facts
from .runner import Exit
from .traffic import Traffic, traffic_line

__all__ = ["change_line", "held_line", "keep", "kept_screen", "released_line"]

_LEASE: Final = 3600
"""Seconds: a router that is not told of our end forgets the ports within the hour."""
_RECENT: Final = 8
_CHECK_TIME: Final = 5.0
_POLL: Final = 30.0


async def keep(settings: Settings, wanted: Sequence[tuple[int, int, Proto]], desc: str, *, replace: bool) -> Exit:
    """Hold ports (external, internal, protocol) until this is cancelled; then tell whether anything is left."""
    async with settings.mapper() as mapper:
        gateway = await mapper.get_gateway()
        keeping = _Keeping(settings, mapper, gateway, desc, replace)
        try:
            await keeping.run(wanted)
        finally:
            keeping.tell_released(await asyncio.shield(keeping.left()))
        return Exit.OK


class _Keeping:
    """The leases of one run."""

    def __init__(self, settings: Settings, mapper: PortMapper, gateway: Gateway, desc: str, replace: bool) -> None:
        self._output = settings.output
        self._mapper = mapper
        self._gateway = gateway
        self._desc = desc
        self._replace = replace
        self._leases: dict[tuple[int, Proto], Lease] = {}
        self._granted: set[PortMapping] = set()
        self._recent: deque[tuple[Change, Proto]] = deque(maxlen=_RECENT)
        self._traffic = Traffic()
        self._missing = 0
        self._all_held = asyncio.Event()

    async def run(self, wanted: Sequence[tuple[int, int, Proto]]) -> None:
        """Take all ports, or none of them; hold them until cancelled."""
        self._missing = len(wanted)
        async with live(self._output, self._screen), asyncio.TaskGroup() as group:
            for each in wanted:
                group.create_task(self._hold(*each))
            if self._output.is_live:
                group.create_task(self._traffic.watch(self._mapper.get_gateway))
            await self._all_held.wait()
            self._tell_held()

    async def _hold(self, port: int, internal_port: int, proto: Proto) -> None:
        lease = self._mapper.lease(
            port,
            internal_port,
            self._desc,
            proto,
            _LEASE,
            on_conflict="take_over" if self._replace else "fail",
            poll_interval=_POLL,
        )
        async with lease as held:
            self._leases[port, proto] = held
            self._granted.update(held.mappings)
            self._missing -= 1
            if not self._missing:
                self._all_held.set()
            async for change in held.changes():
                self._granted.update(held.mappings)
                self._tell_change(change, proto)

    async def left(self) -> list[PortMapping] | None:
        """Return what the gateway still holds of what was ours, None where it cannot be asked."""
        try:
            async with timeout(_CHECK_TIME):
                gateway = await self._mapper.get_gateway()  # another one, perhaps, than at the beginning
                held = await asyncio.gather(*(_held(gateway, each) for each in self._granted))
        except (IGDError, TimeoutError):
            return None
        ours = {(each.key, each.internal_client) for each in self._granted}
        return [each for each in held if each is not None and (each.key, each.internal_client) in ours]

    def tell_released(self, left: list[PortMapping] | None) -> None:
        """Say that it is over, and what is left."""
        if self._granted:
            facts = None if left is None else [mapping_facts(each) for each in left]
            self._output.line({"event": "released", "mappings": facts})
            self._output.show(released_line(len(self._granted), left, name_of(self._gateway.device)))

    def _tell_held(self) -> None:
        mappings = [each for lease in self._leases.values() for each in lease.mappings]
        address = next((lease.external_address for lease in self._leases.values()), None)
        self._output.line(
            {
                "event": "held",
                "gateway": device_facts(self._gateway.device),
                "external_address": address,
                "mappings": [mapping_facts(each) for each in mappings],
            }
        )
        if not self._output.is_live:
            for mapping in mappings:
                self._output.show(held_line(mapping, address))

    def _tell_change(self, change: Change, proto: Proto) -> None:
        self._recent.append((change, proto))
        self._output.line(
            {
                "event": "change",
                "at": change.at,
                "kind": change.kind.name,
                "external_address": change.external_address,
                "external_port": change.external_port,
                "proto": proto,
            }
        )
        if not self._output.is_live:
            self._output.show(change_line(change, proto))

    def _screen(self) -> RenderableType:
        return kept_screen(
            name_of(self._gateway.device),
            list(self._leases.values()),
            self._missing,
            list(self._recent),
            self._traffic,
            self._output.console.size.height,
        )


async def _held(gateway: Gateway, mapping: PortMapping) -> PortMapping | None:
    try:
        return await gateway.query_port_mapping(mapping.external_port, mapping.proto)
    except NotFoundError:
        return None


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


def _order(held: Lease) -> tuple[bool, list[tuple[int, Proto, str]]]:
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
