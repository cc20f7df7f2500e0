"""Quirks of the actions: what is refused, with which error, and what is done or not done all the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from ...models import MappingKey, Proto
from ..errors import BareError, UPnPError
from ..hooks import Exchange, Hooks, Proceed, quirk
from ..http import Response
from ..wan_connection import ActionCall, Outputs

__all__ = [
    "absent_delete_is",
    "absent_delete_succeeds",
    "addresses_spelt_oddly",
    "answers_without_namespaces",
    "any_remote_host_only",
    "bad_request_for_unknown",
    "bare_faults",
    "blank_entries",
    "clients_shown_by_name",
    "descriptions_are_unique",
    "descriptions_break_it",
    "empty_answers",
    "empty_answers_for_nothing",
    "entries_disabled",
    "external_address_empty",
    "external_address_ipv6",
    "external_address_private",
    "external_address_shared",
    "external_address_unspecified",
    "external_address_with_port",
    "external_address_with_zeros",
    "false_success",
    "faultcode_for_errorcode",
    "faults_in_words",
    "foreign_fault_namespace",
    "forgets_early",
    "internal_ports_shown_as_0",
    "late_table",
    "lease_always_a_day",
    "lease_cut_to_week",
    "lease_reported_as_0",
    "leases_are_invalid_args",
    "leases_break_it",
    "leases_fail",
    "list_ends_with",
    "list_repeats_last",
    "lower_case_answers",
    "map_e",
    "never_overwrites",
    "no_external_address",
    "no_generic_entry",
    "no_specific_entry",
    "one_entry_per_client",
    "own_address_only",
    "padded_answers",
    "padded_error_codes",
    "plain_descriptions_only",
    "ports_taken",
    "refuses_descriptions",
    "refuses_empty_descriptions",
    "refuses_everything",
    "refuses_leases",
    "refuses_leases_and_descriptions",
    "refuses_ranges",
    "refuses_renewals",
    "renewals_keep_end",
    "requires_lease",
    "same_ports_only",
    "short_descriptions_only",
    "signed_error_codes",
    "slow_actions",
    "slow_add",
    "slow_delete",
    "slow_rows",
    "table_full",
    "table_full_is_invalid_args",
    "table_full_says_nothing",
    "trailing_nul_in_answers",
]

_WEEK: Final = 604_800
"""Seconds."""
_DAY: Final = 86_400
"""Seconds."""


# Leases


@quirk(
    "soap",
    reason="The most frequent refusal: only mappings without a limit.",
    source="R7000P, VMG1312: nicotine-plus#2200",
)
def refuses_leases(code: int = 725) -> Hooks:
    """Refuses every mapping with a lease, with this error code."""
    return _refuses(lambda call: _lease(call) > 0, code)


@quirk("soap", reason="Refusals do not always have the right code.", source="ARRIS NVG578LX: tailscale#15223")
def leases_are_invalid_args() -> Hooks:
    """Refuses every mapping with a lease as 402, Invalid Args."""
    return _refuses(lambda call: _lease(call) > 0, 402)


@quirk("soap", reason="Refusals do not always have the right code.", source="unnamed")
def leases_fail() -> Hooks:
    """Refuses every mapping with a lease as 501, Action Failed."""
    return _refuses(lambda call: _lease(call) > 0, 501)


@quirk("soap", reason="A refusal may come without any UPnP error.", source="unnamed")
def leases_break_it() -> Hooks:
    """Answers every mapping with a lease with HTTP 500 and an empty body."""
    return _breaks(lambda call: _lease(call) > 0)


@quirk("soap", reason="Some accept finite leases only.", source="n0-computer/net-tools#52")
def requires_lease(longest: int = _WEEK) -> Hooks:
    """Refuses mappings without a lease, or with one over ``longest`` seconds, as 402."""
    return _refuses(lambda call: not 0 < _lease(call) <= longest, 402)


@quirk("soap", reason="What was granted is not what was asked for.", source="miniupnpd IGDv2: miniupnp#398")
def lease_cut_to_week() -> Hooks:
    """Makes a week of a lease of 0, and of everything longer."""
    return _rewrites_lease(lambda seconds: min(seconds or _WEEK, _WEEK))


@quirk("soap", reason="What was granted is not what was asked for.", source="Technicolor, XB3: miniupnp#466")
def lease_always_a_day() -> Hooks:
    """Makes a day of every lease."""
    return _rewrites_lease(lambda seconds: _DAY)


@quirk("soap", reason="What can be read back is not always what was granted.", source="Technicolor: miniupnp#466")
def lease_reported_as_0() -> Hooks:
    """Says of every mapping that it has no lease."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        outputs = proceed(call)
        return {**outputs, "NewLeaseDuration": "0"} if "NewLeaseDuration" in outputs else outputs

    return Hooks(action=action)


@quirk("soap", reason="Mappings go away before their time, after a day or a week.", source="qBittorrent#23489")
def forgets_early(seconds: int = 4) -> Hooks:
    """Drops every mapping after so many seconds, and says nothing of it."""
    promised: dict[MappingKey, str] = {}

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.adds_mapping:
            lease = _lease(call)
            outputs = proceed(_with(call, NewLeaseDuration=str(min(lease or seconds, seconds))))
            promised[call.key] = str(lease)
            return outputs
        outputs = proceed(call)
        if call.action == "GetSpecificPortMappingEntry" and call.key in promised:
            return {**outputs, "NewLeaseDuration": promised[call.key]}
        return outputs

    return Hooks(action=action)


@quirk("soap", reason="A renewal may say yes and prolong nothing.", source="several: miniupnp#131, #199")
def renewals_keep_end() -> Hooks:
    """Says yes to a mapping that is there already, and leaves the end of its lease as it is."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        held = _held(call, proceed) if call.action == "AddPortMapping" else None
        if held is not None and _lease(call) and held["NewInternalClient"] == call.arguments["NewInternalClient"]:
            return proceed(_with(call, NewLeaseDuration=held["NewLeaseDuration"]))
        return proceed(call)

    return Hooks(action=action)


@quirk("soap", reason="What cannot be renewed is added again when it is gone.", source="several: nicotine-plus#2088")
def refuses_renewals(code: int = 501) -> Hooks:
    """Refuses a mapping that is there already until its lease has expired, as 501."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "AddPortMapping" and _exists(call, proceed):
            raise UPnPError(code)
        return proceed(call)

    return Hooks(action=action)


# Descriptions


@quirk("soap", reason="It wants plain words.", source="FritzBox: fritzconnection#111")
def plain_descriptions_only() -> Hooks:
    """Refuses descriptions with anything but letters, digits and blanks, as 402."""
    return _refuses(lambda call: re.fullmatch(r"[A-Za-z0-9 ]*", _description(call)) is None, 402)


@quirk("soap", reason="There is little room in its table.", source="unnamed; 31 and 63 have been seen")
def short_descriptions_only(longest: int = 31) -> Hooks:
    """Refuses descriptions over so many characters, as 402."""
    return _refuses(lambda call: len(_description(call)) > longest, 402)


@quirk("soap", reason="The code is negative, and no standard has it.", source="TP-Link: qBittorrent#14957")
def refuses_empty_descriptions() -> Hooks:
    """Refuses mappings without a description, with the error code -911."""
    return _refuses(lambda call: not _description(call), -911)


@quirk("soap", reason="A description may be what it cannot stand.", source="unnamed")
def refuses_descriptions(code: int = 501) -> Hooks:
    """Refuses mappings with a description, as 501."""
    return _refuses(lambda call: bool(_description(call)), code)


@quirk("soap", reason="A description may be what it cannot stand.", source="unnamed")
def descriptions_break_it() -> Hooks:
    """Answers mappings with a description with HTTP 500 and an empty body."""
    return _breaks(lambda call: bool(_description(call)))


@quirk("soap", reason="Both have to go, and each alone does not help.", source="unnamed")
def refuses_leases_and_descriptions() -> Hooks:
    """Refuses mappings with a lease or with a description, as 501."""
    return _refuses(lambda call: _lease(call) > 0 or bool(_description(call)), 501)


@quirk("soap", reason="It takes the description for the name of the mapping.", source="BiglyBT")
def descriptions_are_unique() -> Hooks:
    """Refuses a description that another mapping has, as 718."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.adds_mapping and _description(call):
            for entry in _entries(call, proceed):
                same = entry["NewPortMappingDescription"] == _description(call)
                if same and (entry["NewExternalPort"], entry["NewProtocol"]) != (
                    str(call.key.external_port),
                    call.key.proto,
                ):
                    raise UPnPError(718)
        return proceed(call)

    return Hooks(action=action)


# Conflicts and limits


@quirk("soap", reason="Secure mode: a host may map ports to itself only.", source="miniupnpd, FritzBox: Open.NAT#80")
def own_address_only(code: int = 606) -> Hooks:
    """Refuses mappings to another host than the one that asks."""
    return _refuses(lambda call: call.arguments["NewInternalClient"] != call.sender, code)


@quirk("soap", reason="Our own mapping of last time is in the way.", source="FritzBox: miniupnp#165")
def never_overwrites() -> Hooks:
    """Refuses a mapping where there is one, be it the same, as 718; it has to be deleted first."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "AddPortMapping" and _exists(call, proceed):
            raise UPnPError(718)
        return proceed(call)

    return Hooks(action=action)


@quirk("soap", reason="The caller can mend it with another port, the library cannot.", source="Open.NAT#70")
def same_ports_only() -> Hooks:
    """Refuses mappings whose two ports differ, as 724."""
    return _refuses(lambda call: call.arguments["NewInternalPort"] != call.arguments["NewExternalPort"], 724)


@quirk("soap", reason="It serves everybody or nobody.", source="rare: Open.NAT#70")
def any_remote_host_only() -> Hooks:
    """Refuses mappings for one remote host, as 726."""
    return _refuses(lambda call: bool(call.arguments["NewRemoteHost"]), 726)


@quirk("soap", reason="The router itself uses the port, or PCP has given it away.", source="rare: Open.NAT#70")
def ports_taken(first: int = 1, last: int = 1023, code: int = 729) -> Hooks:
    """Refuses mappings of the external ports in a range, as 729."""
    return _refuses(lambda call: first <= call.key.external_port <= last, code)


@quirk("soap", reason="Any refusal may mean the port.", source="MAP-E lines: miniupnp#465, tailscale#7377")
def map_e(code: int = 718, customer: int = 201) -> Hooks:
    """Grants 240 ports only, 16 of each 4,096: those of one of 256 customers who share an address (RFC 7597)."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "AddAnyPortMapping" and not is_granted(call.key.external_port):
            held = {entry["NewExternalPort"] for entry in _entries(call, proceed)}
            port = next(port for port in range(4096, 65536) if is_granted(port) and str(port) not in held)
            return proceed(_with(call, NewExternalPort=str(port)))
        if call.action == "AddPortMapping" and not is_granted(call.key.external_port):
            raise UPnPError(code)
        return proceed(call)

    def is_granted(port: int) -> bool:
        return port >= 4096 and port // 16 % 256 == customer

    return Hooks(action=action)


@quirk("soap", reason="A table that is full says so, or not.", source="Zyxel: miniupnp#92")
def table_full(size: int = 32, code: int = 728) -> Hooks:
    """Has room for so many mappings, and refuses more with this code."""
    return _limited(size, code)


@quirk("soap", reason="402 means many things.", source="Zyxel: miniupnp#92")
def table_full_is_invalid_args(size: int = 32) -> Hooks:
    """Has room for so many mappings, and refuses more as 402, Invalid Args."""
    return _limited(size, 402)


@quirk("soap", reason="A success that is none is found out by reading back.", source="Broadcom: miniupnp#92")
def table_full_says_nothing(size: int = 32) -> Hooks:
    """Has room for so many mappings, says that it has made more, and has not."""
    return _limited(size, 0)


@quirk("soap", reason="A success that is none is found out by reading back.", source="common", hopeless=True)
def false_success() -> Hooks:
    """Says that every mapping was made, and makes none."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "AddPortMapping":
            return {}
        return proceed(call)

    return Hooks(action=action)


@quirk("soap", reason="A mapping that is switched off is none.", source="miniupnp#628, btcd#159", hopeless=True)
def entries_disabled() -> Hooks:
    """Holds every mapping switched off: NewEnabled is 0, whatever was asked for."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        return proceed(_with(call, NewEnabled="0") if call.adds_mapping else call)

    return Hooks(action=action)


@quirk("soap", reason="What is off cannot be switched on from here.", source="common", hopeless=True)
def refuses_everything(code: int = 501) -> Hooks:
    """Refuses every mapping, whatever is in it."""
    return _refuses(lambda call: True, code)


# Actions that are missing or slow


@quirk("soap", reason="Reading back has to do without it.", source="common")
def no_specific_entry(code: int = 401) -> Hooks:
    """Does not know GetSpecificPortMappingEntry."""
    return _unknown("GetSpecificPortMappingEntry", code)


@quirk("soap", reason="Reading back has to do without it.", source="common")
def no_generic_entry(code: int = 401) -> Hooks:
    """Does not know GetGenericPortMappingEntry."""
    return _unknown("GetGenericPortMappingEntry", code)


@quirk("soap", reason="A server may be at a loss for an action that it does not have.", source="a dummy router")
def bad_request_for_unknown(action: str = "GetSpecificPortMappingEntry") -> Hooks:
    """Answers an action that it does not have with HTTP 400, and no fault."""

    def unknown(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == action:
            raise BareError(400)
        return proceed(call)

    return Hooks(action=unknown)


@quirk("soap", reason="The address is not needed to map a port.", source="common")
def no_external_address(code: int = 501) -> Hooks:
    """Refuses GetExternalIPAddress."""
    return _unknown("GetExternalIPAddress", code)


@quirk("soap", reason="A deadline that fits most requests is too short here.", source="DD-WRT: Open.NAT#55")
def slow_delete(seconds: float = 4.0) -> Hooks:
    """Takes seconds to answer a deletion."""
    return _slow("DeletePortMapping", seconds)


@quirk("soap", reason="Some routers restart their firewall for each mapping.", source="common")
def slow_add(seconds: float = 1.0) -> Hooks:
    """Takes a while to answer AddPortMapping."""
    return _slow("AddPortMapping", seconds)


@quirk("soap", reason="A reply that takes longer than half a call is still a reply.", source="slow boxes: bisq#305")
def slow_actions(seconds: float = 6.0) -> Hooks:
    """Takes seconds to answer any action."""
    return Hooks(response=lambda exchange, response: response.delayed(seconds) if exchange.action else response)


@quirk("soap", reason="A table that is read row by row takes too long for one mapping.", source="RunOnFlux/flux#1538")
def slow_rows(seconds: float = 0.1) -> Hooks:
    """Takes a while for each row of its table, and cannot be asked for one mapping."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "GetSpecificPortMappingEntry":
            raise UPnPError(401)
        return proceed(call)

    slow = _slow("GetGenericPortMappingEntry", seconds)
    return Hooks(action=action, response=slow.response)


# What the table shows


@quirk("soap", reason="What cannot tell is no other host.", source="OpenWrt 22.03 with nftables: miniupnp#628")
def internal_ports_shown_as_0() -> Hooks:
    """Shows the internal port 0 for every mapping."""
    return _shows(lambda outputs: {"NewInternalPort": "0"})


@quirk("soap", reason="What cannot tell is no other host.", source="unnamed: btcd#159")
def clients_shown_by_name(name: str = "desktop.lan") -> Hooks:
    """Shows the name of a host instead of its address."""
    return _shows(lambda outputs: {"NewInternalClient": name})


@quirk("soap", reason="Another spelling is no other host.", source="various: portmapper#126")
def addresses_spelt_oddly() -> Hooks:
    """Writes addresses with zeros in front, and 0.0.0.0 for "no remote host", and wants that to be spelt so."""

    def padded(address: str) -> str:
        return ".".join(part.zfill(3) for part in address.split(".")) if "." in address else address

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "DeletePortMapping" and call.arguments["NewRemoteHost"] == "0.0.0.0":  # noqa: S104
            call = _with(call, NewRemoteHost="")
        return proceed(call)

    shows = _shows(
        lambda outputs: {
            "NewInternalClient": padded(outputs["NewInternalClient"]),
            **({"NewRemoteHost": padded(outputs["NewRemoteHost"]) or "0.0.0.0"} if "NewRemoteHost" in outputs else {}),  # noqa: S104
        }
    ).action
    assert shows is not None  # noqa: S101 - it is what this hook is made of
    return Hooks(action=lambda call, proceed: shows(call, lambda inner: action(inner, proceed)))


@quirk("soap", reason="A yes is a yes, though the table shows it later.", source="Open.NAT#22, portmapper#126")
def late_table(seconds: float = 1.5) -> Hooks:
    """Shows a new mapping only after a while."""
    made: dict[MappingKey, float] = {}

    def is_late(key: MappingKey) -> bool:
        return key in made and asyncio.get_running_loop().time() < made[key] + seconds

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "GetSpecificPortMappingEntry" and is_late(call.key):
            raise UPnPError(714)
        if call.action == "GetGenericPortMappingEntry":
            shown = [row for row in _entries(call, proceed) if not is_late(_key_of(row))]
            index = int(call.arguments["NewPortMappingIndex"])
            if index >= len(shown):
                raise UPnPError(713)
            return shown[index]
        is_new = call.action == "AddPortMapping" and not _exists(call, proceed)
        outputs = proceed(call)
        if is_new:
            made[call.key] = asyncio.get_running_loop().time()
        return outputs

    return Hooks(action=action)


@quirk("soap", reason="A yes does not mean that packets come here.", source="linux-igd 1")
def one_entry_per_client() -> Hooks:
    """Says yes to a mapping of a port that another host has, and goes on forwarding to that one."""
    hidden: dict[MappingKey, ActionCall] = {}

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "AddPortMapping":
            held = _held(call, proceed)
            if held is not None and held["NewInternalClient"] != call.arguments["NewInternalClient"]:
                hidden[call.key] = call
                return {}
        outputs = proceed(call)
        if call.action == "DeletePortMapping" and call.key in hidden:
            proceed(hidden.pop(call.key))
        return outputs

    return Hooks(action=action)


# Lists and deletion


@quirk("soap", reason="What is refused in one go is done one by one.", source="miniupnpd 1.7, 1.9")
def refuses_ranges(code: int = 402) -> Hooks:
    """Refuses to delete a range of ports, as 402."""
    return _unknown("DeletePortMappingRange", code)


@quirk("soap", reason="A list has ended whatever the error is.", source="DD-WRT: Open.NAT#28")
def list_ends_with(code: int = 402) -> Hooks:
    """Ends its list of mappings with another error than 713."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        try:
            return proceed(call)
        except UPnPError as error:
            if call.action == "GetGenericPortMappingEntry" and error.code == 713:
                raise UPnPError(code) from None
            raise

    return Hooks(action=action)


@quirk("soap", reason="A list without an end must be noticed.", source="Open.NAT#55")
def list_repeats_last() -> Hooks:
    """Gives the last mapping again for every index behind it."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        try:
            return proceed(call)
        except UPnPError as error:
            if call.action == "GetGenericPortMappingEntry" and error.code == 713:
                *_, last = ({}, *_entries(call, proceed))
                if last:
                    return last
            raise

    return Hooks(action=action)


@quirk("soap", reason="An entry with nothing in it is none, and need not be the last.", source="Open.NAT#22")
def blank_entries() -> Hooks:
    """Has blank entries in its list: one in front of each mapping, and one at the end."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action != "GetGenericPortMappingEntry":
            return proceed(call)
        index, odd = divmod(int(call.arguments["NewPortMappingIndex"]), 2)
        if odd:
            return proceed(_with(call, NewPortMappingIndex=str(index)))
        if index:
            proceed(_with(call, NewPortMappingIndex=str(index - 1)))
        return dict.fromkeys(_ENTRY, "")

    return Hooks(action=action)


@quirk("soap", reason="Not to be there is what was wanted.", source="DD-WRT, WRT1900AC: Open.NAT#55")
def absent_delete_is(code: int = 402) -> Hooks:
    """Refuses the deletion of what is not there with another error than 714."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        try:
            return proceed(call)
        except UPnPError as error:
            if call.action == "DeletePortMapping" and error.code == 714:
                raise UPnPError(code) from None
            raise

    return Hooks(action=action)


@quirk("soap", reason="Not to be there is what was wanted.", source="common")
def absent_delete_succeeds() -> Hooks:
    """Says that it has deleted what was not there."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        try:
            return proceed(call)
        except UPnPError as error:
            if call.action == "DeletePortMapping" and error.code == 714:
                return {}
            raise

    return Hooks(action=action)


# The external address


@quirk("soap", reason="There is no connection, or it is not known yet.", source="miniupnp#333")
def external_address_empty() -> Hooks:
    """Says that its external address is empty."""
    return _external("")


@quirk("soap", reason="There is no connection, or it is not known yet.", source="miniupnp#537")
def external_address_unspecified() -> Hooks:
    """Says that its external address is 0.0.0.0."""
    return _external("0.0.0.0")  # noqa: S104 (an address in a reply, not one to bind to)


@quirk("soap", reason="Double NAT: the mapping works, and nobody outside gets there.", source="miniupnp#732")
def external_address_private() -> Hooks:
    """Says that its external address is a private one."""
    return _external("192.168.100.2")


@quirk("soap", reason="Carrier-grade NAT (RFC 6598): as above.", source="miniupnp#732")
def external_address_shared() -> Hooks:
    """Says that its external address is one of 100.64.0.0/10."""
    return _external("100.64.7.8")


@quirk("soap", reason="What stands behind the address is no part of it.", source="miniupnp#537, #460")
def external_address_with_port(behind: str = ":0") -> Hooks:
    """Writes a port, or a prefix length, behind its external address."""
    return _writes_external(lambda address: f"{address}{behind}")


@quirk("soap", reason="Zeros in front change no number, and make none octal.", source="Mono.Nat#35")
def external_address_with_zeros() -> Hooks:
    """Writes its external address with three digits for each number."""
    return _writes_external(lambda address: ".".join(part.zfill(3) for part in address.split(".")))


@quirk("soap", reason="IPv4 is what is mapped, and this is none.", source="DS-Lite: syncthing#7406")
def external_address_ipv6(address: str = "2001:db8::1") -> Hooks:
    """Says that its external address is an IPv6 address."""
    return _external(address)


# How replies are written


@quirk("soap", reason="The number is where it does not belong.", source="MikroTik 6.34: erlang-nat#14")
def faultcode_for_errorcode() -> Hooks:
    """Writes the error code in ``<faultCode>`` instead of ``<errorCode>``."""
    return _faults(lambda text: text.replace("errorCode>", "faultCode>").replace("<faultcode>s:Client</faultcode>", ""))


@quirk("soap", reason="Strict readers of numbers stumble.", source="FritzBox 6660: goupnp#47")
def signed_error_codes() -> Hooks:
    """Writes error codes with a sign."""
    return _faults(lambda text: text.replace("<errorCode>", "<errorCode>+").replace("+-", "-"))


@quirk("soap", reason="Strict readers of numbers stumble.", source="INTELBRAS: aioupnp#11")
def padded_error_codes() -> Hooks:
    """Writes error codes with white space around them."""
    return _faults(lambda text: re.sub(r"<errorCode>(.*?)</errorCode>", "<errorCode>\r\n\t\\1 \n</errorCode>", text))


@quirk("soap", reason="Elements are to be told by their local names.", source="INTELBRAS: aioupnp#11")
def foreign_fault_namespace() -> Hooks:
    """Writes the details of a fault in no namespace."""
    return _faults(lambda text: text.replace(' xmlns="urn:schemas-upnp-org:control-1-0"', ""))


@quirk("soap", reason="Only the code is needed.", source="FritzBox 6660: goupnp#47")
def bare_faults() -> Hooks:
    """Leaves faultcode, faultstring and errorDescription out of faults."""
    return _faults(lambda text: re.sub(r"<(faultcode|faultstring|errorDescription)>.*?</\1>", "", text))


@quirk("soap", reason="The words tell it as well as the number.", source="rare")
def faults_in_words() -> Hooks:
    """Leaves the error code out of faults, and has the words of the standard only."""
    return _faults(lambda text: re.sub(r"<errorCode>.*?</errorCode>", "", text))


@quirk("soap", reason="A body without an answer may mean success; reading back tells.", source="common")
def empty_answers() -> Hooks:
    """Answers 200 with an empty body to what it has done."""

    def response(exchange: Exchange, response: Response) -> Response:
        done = exchange.call is not None and exchange.error is None
        return replace(response, body=b"") if done and _is_change(exchange) else response

    return Hooks(response=response)


@quirk("soap", reason="A body without an answer may mean failure; reading back tells.", source="common", hopeless=True)
def empty_answers_for_nothing() -> Hooks:
    """Answers 200 with an empty body to AddPortMapping, and makes no mapping."""

    def intercept(exchange: Exchange) -> Response | None:
        return Response() if exchange.action == "AddPortMapping" else None

    return Hooks(intercept=intercept)


@quirk("soap", reason="Names are to be compared without their case.", source="upnpclient#9")
def lower_case_answers() -> Hooks:
    """Writes all element names of its SOAP replies in lower case."""
    return Hooks(envelope=lambda exchange, text: re.sub(r"(</?)([A-Za-z][\w:]*)", lambda t: t[1] + t[2].lower(), text))


@quirk("soap", reason="Elements are to be told by their local names.", source="various")
def answers_without_namespaces() -> Hooks:
    """Writes its SOAP replies without prefixes and namespaces."""
    return Hooks(
        envelope=lambda exchange, text: re.sub(r' xmlns(:\w+)?="[^"]*"| s:\w+="[^"]*"|(?<=[</])[su]:', "", text)
    )


@quirk("soap", reason="Values are values, whatever stands around them.", source="various")
def padded_answers() -> Hooks:
    """Puts line breaks around every value of an answer."""
    return Hooks(envelope=lambda exchange, text: re.sub(r"(<New\w+>)([^<]+)(</)", "\\1\r\n  \\2\t\n\\3", text))


@quirk("soap", reason="Only what is between the tags counts.", source="async_upnp_client#63")
def trailing_nul_in_answers() -> Hooks:
    """Sends NUL bytes behind its SOAP replies, and blank lines before them."""
    return Hooks(envelope=lambda exchange, text: f"\r\n\n{text}\0\0")


_ENTRY: Final = (
    "NewRemoteHost",
    "NewExternalPort",
    "NewProtocol",
    "NewInternalPort",
    "NewInternalClient",
    "NewEnabled",
    "NewPortMappingDescription",
    "NewLeaseDuration",
)


def _lease(call: ActionCall) -> int:
    return int(call.arguments["NewLeaseDuration"])


def _description(call: ActionCall) -> str:
    return call.arguments["NewPortMappingDescription"]


def _with(call: ActionCall, **arguments: str) -> ActionCall:
    return replace(call, arguments={**call.arguments, **arguments})


def _is_change(exchange: Exchange) -> bool:
    return exchange.action in ("AddPortMapping", "DeletePortMapping")


def _refuses(when: Callable[[ActionCall], bool], code: int) -> Hooks:
    """Refuse some mappings with a UPnP error."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.adds_mapping and when(call):
            raise UPnPError(code)
        return proceed(call)

    return Hooks(action=action)


def _breaks(when: Callable[[ActionCall], bool]) -> Hooks:
    """Answer some mappings with HTTP 500 and nothing else."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.adds_mapping and when(call):
            raise BareError(500)
        return proceed(call)

    return Hooks(action=action)


def _rewrites_lease(change: Callable[[int], int]) -> Hooks:
    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.adds_mapping:
            call = _with(call, NewLeaseDuration=str(change(_lease(call))))
        return proceed(call)

    return Hooks(action=action)


def _limited(size: int, code: int) -> Hooks:
    """Have room for so many mappings; code 0 stands for a success that is none."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "AddPortMapping" and not _exists(call, proceed) and _index_exists(call, proceed, size - 1):
            if not code:
                return {}
            raise UPnPError(code)
        return proceed(call)

    return Hooks(action=action)


def _unknown(name: str, code: int) -> Hooks:
    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == name:
            raise UPnPError(code)
        return proceed(call)

    return Hooks(action=action)


def _slow(name: str, seconds: float) -> Hooks:
    def response(exchange: Exchange, response: Response) -> Response:
        return response.delayed(seconds) if exchange.action == name else response

    return Hooks(response=response)


def _shows(change: Callable[[Outputs], dict[str, str]]) -> Hooks:
    """Show a mapping otherwise than it is, wherever it is read."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        outputs = proceed(call)
        is_entry = call.action in ("GetSpecificPortMappingEntry", "GetGenericPortMappingEntry")
        return {**outputs, **change(outputs)} if is_entry else outputs

    return Hooks(action=action)


def _key_of(row: Outputs) -> MappingKey:
    proto: Proto = "TCP" if row["NewProtocol"] == "TCP" else "UDP"
    return MappingKey(int(row["NewExternalPort"]), proto, row["NewRemoteHost"])


def _external(address: str) -> Hooks:
    return _writes_external(lambda _: address)


def _writes_external(write: Callable[[str], str]) -> Hooks:
    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        outputs = proceed(call)
        if call.action != "GetExternalIPAddress":
            return outputs
        return {"NewExternalIPAddress": write(outputs["NewExternalIPAddress"])}

    return Hooks(action=action)


def _faults(change: Callable[[str], str]) -> Hooks:
    return Hooks(envelope=lambda exchange, text: change(text) if exchange.error else text)


def _ask(call: ActionCall, proceed: Proceed, name: str, **arguments: str) -> Outputs | None:
    """Perform another action through ``proceed``; None where it is refused, be it by another quirk."""
    try:
        return proceed(replace(call, action=name, arguments=arguments))
    except (UPnPError, BareError):
        return None


def _exists(call: ActionCall, proceed: Proceed) -> bool:
    return _held(call, proceed) is not None


def _held(call: ActionCall, proceed: Proceed) -> Outputs | None:
    key = {name: call.arguments[name] for name in ("NewRemoteHost", "NewExternalPort", "NewProtocol")}
    return _ask(call, proceed, "GetSpecificPortMappingEntry", **key)


def _index_exists(call: ActionCall, proceed: Proceed, index: int) -> bool:
    return _ask(call, proceed, "GetGenericPortMappingEntry", NewPortMappingIndex=str(index)) is not None


def _entries(call: ActionCall, proceed: Proceed) -> Iterator[Outputs]:
    index, last = 0, None
    while (entry := _ask(call, proceed, "GetGenericPortMappingEntry", NewPortMappingIndex=str(index))) is not None:
        if entry == last:
            return  # another quirk repeats it without an end
        yield entry
        index, last = index + 1, entry
