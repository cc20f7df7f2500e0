"""``aioigd add --keep``: ports that are open for as long as the command runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from async_timeout import timeout
from rich.console import RenderableType

from .. import Change, Lease, PortMapper
from ..errors import IGDError
from ..gateway import Gateway
from ..models import PortMapping, Proto
from .exits import ABSENT, Exit
from .facts import device_facts, mapping_facts
from .format import name_of
from .live import live
from .options import Settings
from .screens.kept import change_line, held_line, kept_screen, released_line
from .traffic import Traffic

__all__ = ["keep"]

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
    except IGDError as error:
        if error.result in ABSENT:
            return None
        raise
