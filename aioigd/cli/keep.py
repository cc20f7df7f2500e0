"""``aioigd add --keep``: ports that stay open until Ctrl-C. Leases, live screen, lines, JSON events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from async_timeout import timeout
from rich.console import Group, RenderableType
from rich.text import Text

from .. import Change, ChangeKind, Gateway, IGDError, Lease, LeaseState, NotFoundError, PortMapper, PortMapping, Proto
from .format import (
    OK_MARK,
    PROTOCOL_NAMES,
    WARNING_MARK,
    address_note,
    age,
    device_name,
    endpoint,
    lease_time,
    time_of_day,
)
from .options import Settings
from .output import Column, Listing, device_json, live, mapping_json
from .runner import Exit
from .traffic import Traffic, traffic_line

__all__ = ["keep"]

_DURATION: Final = 3600
"""Seconds: a router that is out of reach in the end closes the ports within the hour."""
_POLL_INTERVAL: Final = 30.0
"""Seconds between two looks at the gateway."""
_CHECK_TIME: Final = 5.0
"""Seconds that the check in the end may take."""
_MOST_EVENTS: Final = 8
"""Changes that the screen shows, the latest ones."""
_FEWEST_ROWS: Final = 3
_OTHER_LINES: Final = 9
"""Lines of the screen beside rows and changes."""

_STATE_TEXTS: Final = {
    LeaseState.ACTIVE: ("● open", "green"),
    LeaseState.RENEWING: ("◌ renewing", "yellow"),
    LeaseState.LOST: ("✗ lost", "bold red"),
}
_CHANGE_STYLES: Final = {ChangeKind.LOST: "red", ChangeKind.BACK: "green"}


async def keep(settings: Settings, wanted: Sequence[tuple[int, int, Proto]], desc: str, *, replace: bool) -> Exit:
    """Keep ports (external, internal, protocol) open until this is cancelled, then check that they are closed.

    Either all of them are opened or none.
    """
    async with settings.mapper() as mapper:
        async with settings.limit.whole_step():
            gateway = await mapper.get_gateway()
        ports = _KeptPorts(settings, mapper, gateway, desc, replace)
        try:
            await ports.run(wanted)
        except asyncio.CancelledError:
            return await ports.finish()  # a signal: the usual end
        except BaseException:
            await ports.finish()
            raise
        return await ports.finish()


class _KeptPorts:
    """The leases of one run."""

    def __init__(self, settings: Settings, mapper: PortMapper, gateway: Gateway, desc: str, replace: bool) -> None:
        self._settings = settings
        self._output = settings.output
        self._limit = settings.limit
        self._mapper = mapper
        self._gateway = gateway
        self._desc = desc
        self._replace = replace
        self._leases: list[Lease] = []
        self._granted: set[PortMapping] = set()
        self._recent: deque[tuple[Change, Proto]] = deque(maxlen=_MOST_EVENTS)
        self._traffic = Traffic()
        self._pending = 0
        self._all_open = asyncio.Event()

    async def run(self, wanted: Sequence[tuple[int, int, Proto]]) -> None:
        """Open all ports, or none of them, and keep them until this is cancelled."""
        self._pending = len(wanted)
        async with live(self._output, self._screen), asyncio.TaskGroup() as group:
            for each in wanted:
                group.create_task(self._keep(*each))
            if self._output.is_live:
                group.create_task(self._traffic.poll(self._mapper.get_gateway))
            async with self._limit.whole_step():
                await self._all_open.wait()
            self._show_open()

    async def _keep(self, port: int, internal_port: int, proto: Proto) -> None:
        async with self._mapper.lease(
            port,
            internal_port,
            self._desc,
            proto,
            _DURATION,
            on_conflict="take_over" if self._replace else "fail",
            poll_interval=_POLL_INTERVAL,
        ) as lease:
            self._leases.append(lease)
            self._granted.update(lease.mappings)
            self._pending -= 1
            if not self._pending:
                self._all_open.set()
            async for change in lease.changes():
                self._granted.update(lease.mappings)
                self._show_change(change, proto)

    async def finish(self) -> Exit:
        """Write what is left open; the exit code is that of success only if nothing is."""
        remaining = await self.remaining()
        self.show_released(remaining)
        return Exit.OK if not self._granted or remaining == [] else Exit.FAILED

    async def remaining(self) -> list[PortMapping] | None:
        """Return the mappings of this run that the gateway still has, None where it cannot be asked.

        PCP and NAT-PMP have no table to look into: there the deletion was carried out if the router still answers.
        """
        listed = [each for each in self._granted if each.protocol == "upnp"]
        found: list[PortMapping | None] = []
        try:
            async with timeout(_CHECK_TIME):
                for protocol in {each.protocol for each in self._granted} - {"upnp"}:
                    async with replace(self._settings, protocols=(protocol,)).mapper() as mapper:
                        await mapper.get_gateway()
                if listed:
                    gateway = await self._mapper.get_gateway()  # which may be another one than at the beginning
                    found = await asyncio.gather(*(_find(gateway, each) for each in listed))
        except (IGDError, TimeoutError):
            return None
        ours = {(each.key, each.internal_client) for each in self._granted}
        return [each for each in found if each is not None and (each.key, each.internal_client) in ours]

    def show_released(self, remaining: list[PortMapping] | None) -> None:
        """Write that the ports are closed, or which of them remain."""
        if self._granted:
            mappings = None if remaining is None else [mapping_json(each) for each in remaining]
            self._output.json_line({"event": "released", "mappings": mappings})
            self._output.show(_released_line(len(self._granted), remaining, device_name(self._gateway.device)))

    def _show_open(self) -> None:
        mappings = [mapping for lease in self._leases for mapping in lease.mappings]
        address = next((lease.external_address for lease in self._leases), None)
        self._output.json_line(
            {
                "event": "held",
                "gateway": device_json(self._gateway.device),
                "external_address": address,
                "mappings": [mapping_json(each) for each in mappings],
            }
        )
        if not self._output.is_live:
            for mapping in mappings:
                self._output.show(_open_line(mapping, address))

    def _show_change(self, change: Change, proto: Proto) -> None:
        self._recent.append((change, proto))
        self._output.json_line(
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
            self._output.show(_change_line(change, proto))

    def _screen(self) -> RenderableType:
        gateway = device_name(self._gateway.device)
        if self._pending:
            return self._output.spinner(f" Opening {self._pending} on {gateway}")
        count = "1 port" if len(self._leases) == 1 else f"{len(self._leases)} ports"
        lines = self._output.console.size.height - len(self._recent) - _OTHER_LINES
        parts: list[RenderableType] = [
            Text.assemble("Keeping ", (count, "bold"), " open on ", (gateway, "bold")),
            _lease_table(self._leases, lines, self._output.console.width),
        ]
        if note := address_note(self._leases[0].external_address):
            parts.append(Text(f"The router's address is {note}.", style="yellow"))
        parts.append(traffic_line(self._traffic))
        parts += [_change_line(change, proto) for change, proto in self._recent]
        parts.append(Text("Ctrl-C closes them.", style="dim"))
        return Group(*parts)


async def _find(gateway: Gateway, mapping: PortMapping) -> PortMapping | None:
    try:
        return await gateway.query_port_mapping(mapping.external_port, mapping.proto)
    except NotFoundError:
        return None


def _lease_table(leases: Sequence[Lease], lines: int, width: int) -> RenderableType:
    """Return as many leases as these lines have room for, those that are not open before the others."""
    table = Listing(
        Column("State", is_head=True),
        Column(is_head=True),
        Column("Open at", is_head=True),
        Column("Leads to", is_head=True, label="→ "),
        Column("By", label="by "),
        Column("Lease", label="lease "),
        Column("Confirmed", label="confirmed "),
    )
    ordered = sorted(leases, key=_order)
    rows = [_row(lease, mapping) for lease in ordered for mapping in lease.mappings]
    for row in rows:
        table.add_row(*row)
    shown = max(_FEWEST_ROWS, lines if table.widths(width) else lines // 2)
    if len(rows) <= shown:
        return table
    return Group(table.first(shown), Text(f" and {len(rows) - shown} more", style="dim"))


def _order(lease: Lease) -> tuple[bool, list[tuple[int, Proto, str]]]:
    return lease.state is LeaseState.ACTIVE, [mapping.key for mapping in lease.mappings]


def _row(lease: Lease, mapping: PortMapping) -> tuple[Text, ...]:
    return (
        Text(*_STATE_TEXTS[lease.state]),
        Text(mapping.proto, style="bold"),
        Text(endpoint(lease.external_address, mapping.external_port), style="cyan"),
        Text(endpoint(mapping.internal_client, mapping.internal_port)),
        Text(PROTOCOL_NAMES[mapping.protocol], style="dim"),
        Text(lease_time(mapping.duration), style="dim"),
        Text(age(lease.last_confirmed, datetime.now(UTC)), style="dim"),
    )


def _open_line(mapping: PortMapping, address: IPv4Address | IPv6Address | None) -> Text:
    where = endpoint(address, mapping.external_port)
    inside = endpoint(mapping.internal_client, mapping.internal_port)
    terms = f"by {PROTOCOL_NAMES[mapping.protocol]}, lease {lease_time(mapping.duration)}"
    return Text.assemble(OK_MARK, f"{mapping.proto} ", (where, "cyan"), f" → {inside}, {terms}, kept until Ctrl-C")


def _change_line(change: Change, proto: Proto) -> Text:
    what = {
        ChangeKind.NEW_ADDRESS: f"the external address is {change.external_address or 'unknown'} now",
        ChangeKind.NEW_PORT: f"the external port is {change.external_port} now",
        ChangeKind.LOST: "lost; it is opened again as soon as the router is there",
        ChangeKind.BACK: "open again",
        ChangeKind.GATEWAY_REPLACED: "the router restarted, or is another one",
    }[change.kind]
    return Text.assemble(
        (f"{time_of_day(change.at)}  ", "dim"),
        (f"{proto} {change.external_port}: ", "bold"),
        (what, _CHANGE_STYLES.get(change.kind, "")),
    )


def _released_line(count: int, remaining: Sequence[PortMapping] | None, gateway: str) -> Text:
    """Return the last line of a run; ``remaining`` is None where the gateway could not be asked."""
    if remaining is None:
        return Text.assemble(WARNING_MARK, f"{gateway} is out of reach: it forgets the ports within the hour.")
    if remaining:
        names = ", ".join(f"{each.proto} {each.external_port}" for each in remaining)
        return Text.assemble(WARNING_MARK, f"{gateway} did not let go of {names}: it will within the hour.")
    closed = "The port is" if count == 1 else f"The {count} ports are"
    return Text.assemble(OK_MARK, f"{closed} closed; nothing is left on {gateway}.")
