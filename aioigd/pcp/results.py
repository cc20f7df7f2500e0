"""Which error stands for which result code of PCP and NAT-PMP? The table of the documentation says the same."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ..errors import ConflictError, RefusedError, UnsupportedError
from ..results import UPnPResult
from .wire import nat_pmp, pcp

__all__ = ["RESULT_OF_NAT_PMP", "RESULT_OF_PCP", "refused_by_nat_pmp", "refused_by_pcp"]

RESULT_OF_PCP: Final[Mapping[int, UPnPResult]] = MappingProxyType(
    {
        pcp.ResultCode.UNSUPP_VERSION: UPnPResult.INVALID_GATEWAY,
        pcp.ResultCode.NOT_AUTHORIZED: UPnPResult.NOT_AUTHORIZED,
        pcp.ResultCode.MALFORMED_REQUEST: UPnPResult.INVALID_ARGS,
        pcp.ResultCode.UNSUPP_OPCODE: UPnPResult.INVALID_GATEWAY,
        pcp.ResultCode.UNSUPP_OPTION: UPnPResult.INVALID_ARGS,
        pcp.ResultCode.MALFORMED_OPTION: UPnPResult.INVALID_ARGS,
        pcp.ResultCode.NETWORK_FAILURE: UPnPResult.ACTION_FAILED,
        pcp.ResultCode.NO_RESOURCES: UPnPResult.NO_PORT_MAPS_AVAILABLE,
        pcp.ResultCode.UNSUPP_PROTOCOL: UPnPResult.INVALID_PROTOCOL,
        pcp.ResultCode.USER_EX_QUOTA: UPnPResult.NO_PORT_MAPS_AVAILABLE,
        pcp.ResultCode.CANNOT_PROVIDE_EXTERNAL: UPnPResult.CONFLICT_WITH_OTHER_MAPPING,
        # Another NAT stands between this machine and the server.
        pcp.ResultCode.ADDRESS_MISMATCH: UPnPResult.CONFLICT_WITH_OTHER_MECHANISM,
        pcp.ResultCode.EXCESSIVE_REMOTE_PEERS: UPnPResult.NO_PORT_MAPS_AVAILABLE,
    }
)
"""Results by the codes of PCP (RFC 6887 section 7.4); any other code is ACTION_FAILED."""

RESULT_OF_NAT_PMP: Final[Mapping[int, UPnPResult]] = MappingProxyType(
    {
        nat_pmp.ResultCode.UNSUPPORTED_VERSION: UPnPResult.INVALID_GATEWAY,
        nat_pmp.ResultCode.NOT_AUTHORIZED: UPnPResult.NOT_AUTHORIZED,
        nat_pmp.ResultCode.NETWORK_FAILURE: UPnPResult.ACTION_FAILED,
        nat_pmp.ResultCode.OUT_OF_RESOURCES: UPnPResult.NO_PORT_MAPS_AVAILABLE,
        nat_pmp.ResultCode.UNSUPPORTED_OPCODE: UPnPResult.INVALID_GATEWAY,
    }
)
"""Results by the codes of NAT-PMP (RFC 6886 section 3.5); any other code is ACTION_FAILED."""


def refused_by_pcp(code: int, what: str, options: tuple[pcp.Option, ...] = ()) -> RefusedError:
    """Return the error for a result code of PCP; ``what`` was refused, and ``options`` were asked for."""
    result = RESULT_OF_PCP.get(code, UPnPResult.ACTION_FAILED)
    if code == pcp.ResultCode.UNSUPP_OPTION:
        # It does not say which; what lets in more than was asked for is never tried instead.
        if any(isinstance(option, pcp.Filter) for option in options):
            result = UPnPResult.REMOTE_HOST_MUST_BE_WILDCARD
        elif any(isinstance(option, pcp.ThirdParty) for option in options):
            result = UPnPResult.NOT_AUTHORIZED
    return _refused(what, "PCP", _name(pcp.ResultCode, code), code, result)


def refused_by_nat_pmp(code: int, what: str) -> RefusedError:
    """Return the error for a result code of NAT-PMP; ``what`` was refused."""
    result = RESULT_OF_NAT_PMP.get(code, UPnPResult.ACTION_FAILED)
    return _refused(what, "NAT-PMP", _name(nat_pmp.ResultCode, code), code, result)


def _refused(what: str, protocol: str, name: str, code: int, result: UPnPResult) -> RefusedError:
    message = f"{what} was refused by {protocol}: {name}"
    if result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING:
        return ConflictError(message, code)
    if result is UPnPResult.INVALID_GATEWAY:
        return UnsupportedError(message, code)
    return RefusedError(message, result, code)


def _name(codes: type[pcp.ResultCode] | type[nat_pmp.ResultCode], code: int) -> str:
    try:
        return f"{codes(code).name} ({code})"
    except ValueError:
        return f"result {code}"
