"""The errors of an emulated gateway: UPnP error codes with their descriptions in the standard."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

__all__ = ["ERROR_DESCRIPTIONS", "BareError", "UPnPError"]

ERROR_DESCRIPTIONS: Final = MappingProxyType(
    {
        401: "Invalid Action",
        402: "Invalid Args",
        501: "Action Failed",
        600: "Argument Value Invalid",
        601: "Argument Value Out of Range",
        602: "Optional Action Not Implemented",
        605: "String Argument Too Long",
        606: "Action not authorized",
        701: "PinholeSpaceExhausted",
        702: "FirewallDisabled",
        703: "InboundPinholeNotAllowed",
        704: "NoSuchEntry",
        705: "ProtocolNotSupported",
        706: "InternalPortWildcardingNotAllowed",
        707: "ProtocolWildcardingNotAllowed",
        708: "WildCardNotPermittedInSrcIP",
        709: "NoPacketSent",
        710: "InvalidConnectionType",
        711: "ConnectionAlreadyTerminated",
        713: "SpecifiedArrayIndexInvalid",
        714: "NoSuchEntryInArray",
        715: "WildCardNotPermittedInSrcIP",
        716: "WildCardNotPermittedInExtPort",
        718: "ConflictInMappingEntry",
        724: "SamePortValuesRequired",
        725: "OnlyPermanentLeasesSupported",
        726: "RemoteHostOnlySupportsWildcard",
        727: "ExternalPortOnlySupportsWildcard",
        728: "NoPortMapsAvailable",
        729: "ConflictWithOtherMechanisms",
        730: "PortMappingNotFound",
        732: "WildCardNotPermittedInIntPort",
        733: "InconsistentParameters",
    }
)
"""UDA 1.1 section 3.2, WANIPConnection:1 section 2.4, WANIPConnection:2 section 2.5."""


class UPnPError(Exception):
    """An action is refused with a UPnP error code, and a description that defaults to the standard's."""

    def __init__(self, code: int, description: str | None = None) -> None:
        self.code = code
        self.description = ERROR_DESCRIPTIONS.get(code, "") if description is None else description
        super().__init__(f"{code} {self.description}".rstrip())


class BareError(Exception):
    """An action is refused with an HTTP status and nothing else, as some firmware does."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"HTTP {status}")
