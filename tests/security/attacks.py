"""The attacks on somebody who asks for a mapping or for the external address, as quirks of an emulated gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from aioigd import IGDError, PortMapper
from aioigd.testing import EmulatedGateway, Quirk, quirks

__all__ = ["ATTACKS", "DISCOVERY_TIMEOUT", "PATIENCE", "TIMEOUT", "Attack", "victim"]

TIMEOUT: Final = 0.7
DISCOVERY_TIMEOUT: Final = 0.4
"""Seconds. Short ones, as most attacks last as long as they are let."""
PATIENCE: Final = 30.0
"""Seconds for a search that ends as soon as a gateway is found, whose description is harmless."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A gateway that means harm, and whether it does so with its description or with the replies to actions."""

    quirk: Quirk[...]
    in_replies: bool = False

    @property
    def deadline(self) -> float:
        """The seconds in which a victim must have got away."""
        return TIMEOUT if self.in_replies else DISCOVERY_TIMEOUT

    async def suffer(self, mapper: PortMapper) -> IGDError | None:
        """Do what the attack aims at, and return how it failed."""
        try:
            if self.in_replies:
                await mapper.query_external_address()
            else:
                await mapper.add_port_mapping(8080)
        except IGDError as error:
            return error
        return None

    def victim(self, gateway: EmulatedGateway) -> PortMapper:
        """Return the mapper that it is made on."""
        return victim(gateway, PATIENCE if self.in_replies else DISCOVERY_TIMEOUT)

    async def prepare(self, mapper: PortMapper) -> None:
        """Find the gateway before the measurement, where it is not the description that hurts."""
        if self.in_replies:
            await mapper.get_gateway()


def victim(gateway: EmulatedGateway, discovery_timeout: float = DISCOVERY_TIMEOUT) -> PortMapper:
    """Return the mapper that an attack is made on."""
    return PortMapper(source_address=gateway.address, timeout=TIMEOUT, discovery_timeout=discovery_timeout)


_IN_DOCUMENTS: Final = (
    quirks.endless_body,
    quirks.endless_head,
    quirks.drips,
    quirks.silent,
    quirks.gzip_bomb,
    quirks.entity_bomb,
    quirks.external_entity,
    quirks.doctype,
    quirks.utf_7,
    quirks.million_elements,
    quirks.deep_tree,
    quirks.many_attributes,
    quirks.redirects,
)

ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        **{f"{each.name} in the description": Attack(each("description")) for each in _IN_DOCUMENTS},
        **{f"{each.name} in a reply": Attack(each("control"), in_replies=True) for each in _IN_DOCUMENTS},
        "5,000 services": Attack(quirks.thousands_of_services),
        "control URL in a file": Attack(quirks.file_control_url),
        "description in a file": Attack(quirks.file_location),
        "description elsewhere": Attack(quirks.foreign_location("http://127.66.66.66:9/rootDesc.xml")),
        "header in a service type": Attack(quirks.header_injection),
        "impossible external address": Attack(quirks.impossible_external_address, in_replies=True),
    }
)
