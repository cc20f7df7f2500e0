"""Rules of ``aioigd doctor``: from findings to advice, one pure function for each thing that can be wrong.

The rules are applied in the order in which a person would look: this machine, the search, the router, its connection
to the internet. Findings are collected in collect.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import Final, Literal

from ... import Device, IGDStatus, ProtocolName, UPnPResult
from ...text import printable
from ..format import (
    CARRIER_NAT,
    PROTOCOL_NAMES,
    device_name,
    host_of,
    joined,
    lease_time,
    name_and_host,
    protocol_names,
    routers_of,
)

__all__ = ["Advice", "Findings", "Link", "LinkKind", "Severity", "Trial", "diagnose"]

LinkKind = Literal["lan", "vpn", "virtual", "loopback"]

_NOT_AUTHORIZED: Final = 2
_ADDRESS_MISMATCH: Final = 12
"""Result codes of PCP (RFC 6887 section 7.4)."""
_NETWORK_FAILURE: Final = 3
"""Result code of NAT-PMP (RFC 6886 section 3.5)."""
_LIKELY_FULL: Final = 16
"""Mappings from which on a refusal without a reason may mean a full table: the smallest ones known hold 16."""


class Severity(Enum):
    """How bad it is."""

    PROBLEM = "problem"  #: ports cannot be opened, or are open without effect
    WARNING = "warning"  #: it works, but perhaps not as it is meant
    NOTE = "note"  #: good to know


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface of this machine with one of its addresses.

    ``prefix``: how many bits of the address are those of its network, 0 where that is not known.
    """

    name: str
    address: str
    kind: LinkKind = "lan"
    prefix: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of opening a port on trial.

    With ``result`` SUCCESS, ``duration`` and ``desc`` are what was granted, ``asked_duration`` and ``asked_desc`` what
    was asked for, and ``was_there`` whether the router had the mapping when it was read back. Any other result has the
    router's ``error_code``, and its message as ``reason``.
    """

    port: int
    result: UPnPResult = UPnPResult.SUCCESS
    error_code: int | None = None
    reason: str = ""
    asked_duration: int = 0
    duration: int = 0
    asked_desc: str = ""
    desc: str = ""
    was_there: bool = True
    protocol: ProtocolName = "upnp"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the router said to a request for a port by PCP or NAT-PMP.

    ``said``: "served", "refused", "closed" (its port is, or nothing can be sent there), or "silent". A refusal has its
    ``error_code`` in that protocol, None where another port was granted than was asked for.
    """

    protocol: ProtocolName
    said: Literal["served", "refused", "closed", "silent"]
    result: UPnPResult = UPnPResult.SUCCESS
    error_code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found out.

    ``links`` are this machine's interfaces, ``asked_for`` the address that the user chose to search from, or "";
    ``default_address`` is our address on the default route, ``next_hops`` are the routers of the default routes;
    ``router_is_there`` is whether one of these can be reached at all, None where that was not tried.
    ``devices`` are all that answered, ``gateway`` is the one that calls use. ``unicast_only``: the router answers
    searches by unicast, and none by multicast. ``external_address`` is None where the router gives none.
    ``mappings`` is their number, None where the router does not list them. ``trial`` is None where none was made.
    ``named`` is the address of the router that the user has named, or "". ``replies`` are those by PCP and NAT-PMP,
    of the gateway or else of the router of the default route; none where no port was to be opened.
    """

    links: tuple[Link, ...] = ()
    asked_for: str = ""
    default_address: str = ""
    next_hops: frozenset[str] = frozenset()
    router_is_there: bool | None = None
    in_container: bool = False
    devices: tuple[Device, ...] = ()
    gateway: Device | None = None
    unicast_only: bool = False
    external_address: IPv4Address | IPv6Address | None = None
    is_connected: bool | None = None
    mappings: int | None = None
    trial: Trial | None = None
    named: str = ""
    replies: tuple[Reply, ...] = ()

    @property
    def valid_gateways(self) -> tuple[Device, ...]:
        """The gateways among the devices, each once, also where it has several descriptions or protocols."""
        return tuple(routers_of(self.devices))

    @property
    def protocols(self) -> tuple[ProtocolName, ...]:
        """What the gateway in use speaks, as far as it was asked."""
        if self.gateway is None:
            return ()
        there = [each for each in self.devices if each.is_valid_gateway() and host_of(each) == host_of(self.gateway)]
        return tuple(dict.fromkeys(each.protocol for each in there))

    def reply_by(self, protocol: ProtocolName) -> Reply | None:
        """Return the reply by a protocol."""
        return next((each for each in self.replies if each.protocol == protocol), None)

    @property
    def default_link(self) -> Link | None:
        """The interface of the default route."""
        return self.link_of(self.default_address)

    def link_of(self, address: str) -> Link | None:
        """Return the interface with an address of ours."""
        return next((link for link in self.links if link.address == address), None)


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that is wrong: ``code`` for programs, ``title``, ``why`` (evidence), and ``to_do`` (remedies)."""

    code: str
    severity: Severity
    title: str
    why: str
    to_do: tuple[str, ...] = ()


def diagnose(findings: Findings) -> list[Advice]:
    """Return the advice of all rules, the worst first; none where all is well."""
    advice = [each for rule in _RULES for each in rule(findings)]
    order = list(Severity)
    return sorted(advice, key=lambda each: order.index(each.severity))


# This machine


def _no_network(found: Findings) -> Iterator[Advice]:
    if not found.links:
        yield Advice(
            "no-network",
            Severity.PROBLEM,
            "This machine is not connected to any network",
            "No network interface has an address, but for the loopback one.",
            ("Connect it by cable or Wi-Fi, and see that it gets an address.",),
        )


def _container(found: Findings) -> Iterator[Advice]:
    if found.in_container and found.links and not found.valid_gateways:
        names = joined([str(link) for link in found.links])
        yield Advice(
            "container",
            Severity.PROBLEM,
            "This is a container, in a network of its own",
            f"Searches for a router do not leave the container's network; it has {names}.",
            (
                "Run the container in the host's network: docker run --network host, or network_mode: host.",
                "Or open the port from the host, to the port that the container publishes there.",
            ),
        )


def _wrong_interface(found: Findings) -> Iterator[Advice]:
    """No gateway on the interface that was chosen, and one on another interface."""
    others = [each for each in found.valid_gateways if each.igd_our_addr != found.asked_for]
    if not found.asked_for or not others or any(each.igd_our_addr == found.asked_for for each in found.valid_gateways):
        return
    chosen = found.link_of(found.asked_for)
    there = found.link_of(others[0].igd_our_addr)
    kind = {"vpn": "a VPN", "virtual": "a virtual network, as Docker and virtual machines have them"}
    is_a = f", which is {kind[chosen.kind]}" if chosen and chosen.kind in kind else ""
    where = there.name if there else others[0].igd_our_addr
    yield Advice(
        "wrong-interface",
        Severity.PROBLEM,
        "The router is on another interface than the one you chose",
        f"Nobody answers on {chosen or found.asked_for}{is_a}. {device_name(others[0])} answers on {there or where}.",
        (f"Choose that one: --interface {where}. Or none at all: then every interface is searched.",),
    )


def _vpn(found: Findings) -> Iterator[Advice]:
    default = found.default_link
    if default is None or default.kind != "vpn" or found.asked_for or found.named:
        return
    lan = [link for link in found.links if link.kind == "lan"]
    where = found.link_of(found.gateway.igd_our_addr) if found.gateway else (lan[0] if lan else None)
    if where is None or where.kind == "vpn":
        return
    yield Advice(
        "vpn",
        Severity.WARNING,
        "A VPN takes the traffic of this machine",
        f"What leaves this machine goes through {default}, and the router is on {where}. A port that is opened there "
        "lets packets in, but the answers leave through the VPN, and do not arrive.",
        (
            "Switch the VPN off, or exclude your program from it (split tunnelling).",
            "Or have the port opened by the VPN provider instead of your router.",
            f"Use --interface {where.name} to see to it that the router is searched for at home.",
        ),
    )


# Search


def _vpn_without_next_hop(found: Findings) -> Iterator[Advice]:
    """The default route is a tunnel that names no router: as over WireGuard."""
    default = found.default_link
    if found.named or found.asked_for or found.next_hops or default is None or default.kind != "vpn":
        return
    yield Advice(
        "vpn-gateway",
        Severity.WARNING if found.valid_gateways else Severity.PROBLEM,
        "The VPN does not say which router is behind it",
        f"What leaves this machine goes through {default}, and that route has no next hop. PCP and NAT-PMP are "
        "spoken to one router only, which has to be known.",
        (
            "Name it, if your VPN provider forwards ports: --gateway 10.2.0.1 (as at Proton VPN), or the address that "
            "its pages name; in a program PortMapper(gateway=…).",
        ),
    )


def _multicast(found: Findings) -> Iterator[Advice]:
    if found.unicast_only:
        hop = host_of(found.gateway) if found.gateway else joined(sorted(found.next_hops))
        yield Advice(
            "multicast-dropped",
            Severity.WARNING,
            "A firewall drops multicast",
            f"The router at {hop} answers when it is asked itself, but not when all are asked (239.255.255.250, UDP "
            "port 1900). It was found nevertheless; other programs will not find it.",
            (
                "Let UDP from port 1900 of your router into this machine: the answers to a search come from there.",
                "On Linux: ufw allow proto udp from <router> port 1900, or firewall-cmd --add-service=ssdp-client.",
                "In a Wi-Fi router, switch off the isolation of clients, and any filter for multicast.",
            ),
        )


def _no_gateway(found: Findings) -> Iterator[Advice]:
    """No gateway on any interface, for one of several reasons."""
    if found.valid_gateways or not found.links or found.in_container:
        return
    if any(_port_closed(found)) or any(_vpn_without_next_hop(found)) or any(_refuses_us(found)):
        return
    at_hop = [each for each in found.devices if host_of(each) in found.next_hops]
    hops = joined(sorted(found.next_hops))
    if any(each.igd_status is IGDStatus.DISCONNECTED for each in found.devices):
        return
    unreadable = [each for each in found.devices if each.igd_status in _UNREADABLE and _claims_igd(each)]
    if unreadable:
        yield from _unreadable(unreadable[0])
    elif access_point := next((each for each in found.devices if _claims_igd(each)), None):
        yield Advice(
            "no-wan",
            Severity.PROBLEM,
            "The router is not the one that is connected to the internet",
            f"{name_and_host(access_point)} answers as a gateway, but has no "
            "internet connection to map ports on: it works as an access point or repeater.",
            (
                "Switch UPnP on in the router that has the internet connection.",
                "Or let this one work as a router again (its operation mode), if it is the only one.",
            ),
        )
    elif at_hop or found.router_is_there:
        says = (
            f"It answers as {device_name(at_hop[0])}, which is no gateway."
            if at_hop
            else "It is there, but does not answer any search."
        ) + _says_by_datagrams(found)
        yield Advice(
            "upnp-off",
            Severity.PROBLEM,
            "UPnP is switched off in the router",
            f"The router of this network is {hops}. {says}",
            (
                f"Open http://{sorted(found.next_hops)[0]}/ and switch UPnP on. Look for “UPnP”, “UPnP IGD”, “allow "
                "port sharing for this device” or “NAT-PMP/UPnP”, often under internet, NAT or advanced settings.",
                "If it is on: a firewall on this machine may keep the answers out (UDP from port 1900).",
                "Or forward the port by hand on the same pages.",
            ),
        )
    else:
        names = joined([str(link) for link in found.links])
        silent = f"and neither does the router of this network, {hops}" if found.next_hops else "and no default route"
        yield Advice(
            "no-gateway",
            Severity.PROBLEM,
            "No gateway on any interface",
            f"Searched on {names}. Nobody who answers is a gateway, {silent} answers."
            if found.next_hops
            else f"Searched on {names}. Nobody who answers is a gateway, {silent} leads to a router.",
            (
                "See whether this machine is in the network of the router, and not in one for guests.",
                "A mobile connection or a company's network has no router that opens ports.",
            ),
        )


def _says_by_datagrams(found: Findings) -> str:
    """Return what is to be said of PCP and NAT-PMP where there is no gateway, with a blank in front."""
    refused = [each.protocol for each in found.replies if each.said == "refused"]
    if found.replies and all(each.said == "closed" for each in found.replies):
        return f" Its port of {protocol_names(each.protocol for each in found.replies)} (UDP 5351) is closed."
    if refused:
        return f" By {protocol_names(refused)} it refuses."
    return ""


_UNREADABLE: Final = frozenset({IGDStatus.HTTP_ERROR, IGDStatus.HTTP_EMPTY, IGDStatus.UNKNOWN_DEVICE})


def _claims_igd(device: Device) -> bool:
    return "InternetGatewayDevice" in device.service_type or "WANIPConnection" in device.service_type


def _unreadable(device: Device) -> Iterator[Advice]:
    yield Advice(
        "description-unreadable",
        Severity.PROBLEM,
        "The router answers, but cannot be talked to",
        f"{host_of(device)} says that it is a gateway. Its description at "
        f"{printable(device.description_url, 120)} cannot be read ({device.igd_status.name}).",
        (
            "Restart the router: the UPnP service of many hangs at times.",
            "See whether a firewall on this machine keeps it from making TCP connections to the router.",
        ),
    )


# The router


def _several_gateways(found: Findings) -> Iterator[Advice]:
    gateways = found.valid_gateways
    if len(gateways) < 2:
        return
    others = [
        each
        for each in gateways
        if found.gateway is None or (host_of(each), each.udn) != (host_of(found.gateway), found.gateway.udn)
    ]
    names = joined([f"{name_and_host(each)}" for each in gateways])
    used = (
        f"{name_and_host(found.gateway)} is used"
        + (", as it is the router of the default route." if _is_next_hop(found.gateway, found) else ".")
        if found.gateway
        else "None of them is certain to be the right one."
    )
    yield Advice(
        "several-gateways",
        Severity.WARNING,
        f"There are {len(gateways)} gateways",
        f"{names} answered. {used}",
        (
            *(f"If that is the wrong one: {_option_for(each)}" for each in others[:3]),
            "Two routers in a row have to forward a port both: see double NAT, or make the inner one an access point.",
        ),
    )


def _option_for(device: Device) -> str:
    """Return the option by which a command uses a gateway."""
    if device.description_url:
        return f"--location {printable(device.description_url, 120)}"
    return f"--gateway {host_of(device)}"


def _other_network(found: Findings) -> Iterator[Advice]:
    """The gateway is asked to forward to an address of ours that is not in its network."""
    gateway = found.gateway
    link = None if gateway is None else found.link_of(gateway.igd_our_addr)
    if gateway is None or link is None or not link.prefix or link.kind == "loopback":
        return
    host, network = host_of(gateway), ip_interface(f"{link.address}/{link.prefix}").network
    try:
        is_there = ip_address(host).version != network.version or ip_address(host) in network
    except ValueError:
        return
    if is_there:
        return
    is_cut_off = found.in_container or link.kind == "virtual"
    here = "This is a container, in a network of its own" if found.in_container else f"This machine is in {network}"
    yield Advice(
        "other-network",
        Severity.PROBLEM if is_cut_off else Severity.WARNING,
        "The router cannot reach the address that ports are forwarded to"
        if is_cut_off
        else "The router may not reach the address that ports are forwarded to",
        f"{here}. Ports are forwarded to {link}, and the router is at {host}, outside {network}: it says yes, and what "
        "arrives from the internet leads nowhere, unless it has a route back.",
        (
            "Run the container in the host's network: docker run --network host, or network_mode: host.",
            "Or publish the port on the host, and forward to the host's address: lease(…, internal_client=…) in a "
            "program; many routers map ports only to the host that asks.",
        )
        if found.in_container
        else (
            "Use the router of this network, or have a route to it set up in the router.",
            "Or forward to a machine in the router's network: internal_client= in a program.",
        ),
    )


def _not_the_router(found: Findings) -> Iterator[Advice]:
    """The only gateway is not the router of the default route."""
    gateway = found.gateway
    if gateway is None or not found.next_hops or _is_next_hop(gateway, found) or len(found.valid_gateways) > 1:
        return
    link, default = found.link_of(gateway.igd_our_addr), found.default_link
    if link is not None and link.kind == "loopback":
        return
    if default is not None and default.kind == "vpn":
        return  # the rule for VPNs has it
    on = (
        f" It answers on {link}, and the default route is over {default}."
        if link and default and link != default
        else ""
    )
    yield Advice(
        "not-the-router",
        Severity.WARNING,
        "The gateway that answers is not the router that is used",
        f"{name_and_host(gateway)} answers, but packets to the internet go to {joined(sorted(found.next_hops))}.{on}",
        ("Switch UPnP on in the router that is used, or make the other one the default route.",),
    )


def _is_next_hop(device: Device, found: Findings) -> bool:
    return host_of(device) in found.next_hops


def _refused(found: Findings) -> Iterator[Advice]:
    trial = found.trial
    if trial is None or trial.result is UPnPResult.SUCCESS:
        return
    others = [each.protocol for each in found.replies if each.said == "served" and each.protocol != trial.protocol]
    if others:
        yield _others_serve(trial, others)
        return
    if trial.protocol != "upnp" and trial.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING:
        yield _other_port(trial)
        return
    if trial.protocol != "upnp" and any(each.said == "refused" for each in found.replies):
        return  # the rules for replies have it
    code = "" if trial.error_code is None else f", error {trial.error_code}"
    said = f"It was asked to open TCP port {trial.port}: {printable(trial.reason, 120)} ({trial.result.name}{code})."
    held = f" It holds {found.mappings} mappings." if found.mappings is not None else ""
    is_vague = trial.result in (UPnPResult.INVALID_ARGS, UPnPResult.ACTION_FAILED)
    if trial.result is UPnPResult.NO_PORT_MAPS_AVAILABLE or (is_vague and (found.mappings or 0) >= _LIKELY_FULL):
        yield _table_full(said + held)
    elif trial.result in (UPnPResult.HTTP_ERROR, UPnPResult.SOCKET_ERROR, UPnPResult.INVALID_RESPONSE):
        yield Advice(
            "router-broken",
            Severity.PROBLEM,
            "The router does not answer as it should",
            said,
            ("Restart the router: the UPnP service of many hangs at times.", "Look for an update of its firmware."),
        )
    elif not _has_public_address(found) and trial.result is UPnPResult.ACTION_FAILED:
        yield Advice(
            "refused",
            Severity.PROBLEM,
            "The router refuses to open ports",
            f"{said} Some do so as long as they have no public address of their own, and this one shows none.",
            ("See to its address first.",),
        )
    else:
        yield Advice(
            "refused",
            Severity.PROBLEM,
            "The router refuses to open ports",
            said,
            (
                "Look in its pages for a permission: many let only chosen devices open ports (on a FRITZ!Box: "
                "“allow port sharing for this device”; elsewhere “secure mode”, “UPnP read only”, or an access list).",
                "See that this machine has a fixed address there, and is not in the network for guests.",
                "Or forward the port by hand.",
            ),
        )


def _others_serve(trial: Trial, others: Sequence[ProtocolName]) -> Advice:
    refusing, serving = PROTOCOL_NAMES[trial.protocol], protocol_names(others)
    return Advice(
        "served-by-another",
        Severity.NOTE,
        f"The router refuses by {refusing}, and opens ports by {serving}",
        f"By {refusing}: {printable(trial.reason, 120)} ({trial.result.name}). The next protocol is asked by itself.",
        (f"It is a little faster at once: --via {','.join(others)}, or protocols= in a program.",),
    )


def _other_port(trial: Trial) -> Advice:
    name = PROTOCOL_NAMES[trial.protocol]
    return Advice(
        "other-port",
        Severity.WARNING,
        "The router chooses the external port by itself",
        f"By {name} it grants another port than the one that is asked for: {printable(trial.reason, 160)}.",
        ("Let it choose, and tell others the port that you got: lease(0), or on_conflict=“other_port”, in a program.",),
    )


def _by_pcp(found: Findings) -> Iterator[Advice]:
    """PCP is there, and refuses."""
    reply = found.reply_by("pcp")
    if reply is None or reply.said != "refused":
        return
    works = _is_served(found)
    said = printable(reply.reason, 160)
    if reply.error_code == _ADDRESS_MISMATCH:
        yield Advice(
            "another-nat",
            Severity.WARNING if works else Severity.PROBLEM,
            "Another NAT stands between this machine and the router",
            f"The PCP server sees requests come from another address than ours (ADDRESS_MISMATCH): {said}. "
            + (
                "This is a container." if found.in_container else "A second router, a container or a VPN is in between."
            ),
            (
                "Ask the nearer router: see which one this machine's default route leads to, or name it by --gateway.",
                "Run a container in the host's network: docker run --network host, or network_mode: host.",
            ),
        )
    elif _is_refused_by_upnp(found):
        return  # which says enough
    elif reply.error_code == _NOT_AUTHORIZED:
        yield Advice(
            "pcp-not-allowed",
            Severity.NOTE if works else Severity.PROBLEM,
            "The router speaks PCP, and allows this machine nothing by it",
            f"It refuses with NOT_AUTHORIZED: {said}.",
            (
                "Allow this device in the router's pages (on a FRITZ!Box: Internet, Permit Access, “permit independent "
                "port sharing for this device”, which is for PCP and UPnP).",
            ),
        )
    elif not works and reply.result is not UPnPResult.CONFLICT_WITH_OTHER_MAPPING:
        yield _refused_by(reply)


def _by_nat_pmp(found: Findings) -> Iterator[Advice]:
    """NAT-PMP is there, and refuses."""
    reply = found.reply_by("nat-pmp")
    if reply is None or reply.said != "refused" or _is_refused_by_upnp(found):
        return
    works = _is_served(found)
    if reply.error_code == _NETWORK_FAILURE:
        yield Advice(
            "nat-pmp-no-address",
            Severity.NOTE if works else Severity.PROBLEM,
            "The router says by NAT-PMP that it has no external address",
            f"{printable(reply.reason, 160)}. It has none yet, or a private one (behind another router, or its "
            "provider's NAT); miniupnpd says the same where its firewall takes no rule.",
            ("See on the router's pages whether it is connected and has a public address, then restart it.",),
        )
    elif not works and not _is_refused_by_pcp(found) and reply.result is not UPnPResult.CONFLICT_WITH_OTHER_MAPPING:
        yield _refused_by(reply)


def _refuses_us(found: Findings) -> Iterator[Advice]:
    yield from _by_pcp(found)
    yield from _by_nat_pmp(found)


def _refused_by(reply: Reply) -> Advice:
    return Advice(
        "refused",
        Severity.PROBLEM,
        "The router refuses to open ports",
        f"{printable(reply.reason, 160)} ({reply.result.name}).",
        ("Look in its pages for a permission, and for a table that is full.", "Or forward the port by hand."),
    )


def _port_closed(found: Findings) -> Iterator[Advice]:
    """A router that was named has nothing at the port of PCP."""
    if found.named and not found.valid_gateways and found.replies and all(r.said == "closed" for r in found.replies):
        yield Advice(
            "port-closed",
            Severity.PROBLEM,
            f"Nobody listens for {protocol_names(each.protocol for each in found.replies)} at {found.named}",
            "It says that the port is closed, or there is no way to it.",
            (
                "See whether this is the router (of a VPN: the gateway in the tunnel), and on which port it is asked.",
                "At a VPN provider: choose a server, and a profile, with port forwarding (NAT-PMP) switched on.",
            ),
        )


def _is_served(found: Findings) -> bool:
    """Return whether ports can be opened by any protocol."""
    is_by_trial = found.trial is not None and found.trial.result is UPnPResult.SUCCESS and found.trial.was_there
    return is_by_trial or any(each.said == "served" for each in found.replies)


def _is_refused_by_upnp(found: Findings) -> bool:
    trial = found.trial
    return trial is not None and trial.protocol == "upnp" and trial.result is not UPnPResult.SUCCESS


def _is_refused_by_pcp(found: Findings) -> bool:
    reply = found.reply_by("pcp")
    return reply is not None and reply.said == "refused"


def _table_full(why: str) -> Advice:
    return Advice(
        "table-full",
        Severity.PROBLEM,
        "The router's table of mappings is full",
        why,
        (
            "`aioigd list` shows what is in it; remove what nobody needs with `aioigd delete PORT`.",
            "Mappings that other hosts have left behind go with a restart of the router.",
            "Open ports with --for or --keep, so that they go by themselves.",
        ),
    )


def _false_success(found: Findings) -> Iterator[Advice]:
    trial = found.trial
    if trial is None or trial.result is not UPnPResult.SUCCESS or trial.was_there:
        return
    said = f"It said that TCP port {trial.port} was open, and does not have it in its table."
    if (found.mappings or 0) >= _LIKELY_FULL:
        yield _table_full(f"{said} It holds {found.mappings} mappings, and has no room for more.")
    else:
        yield Advice(
            "false-success",
            Severity.PROBLEM,
            "The router says yes, and does nothing",
            said,
            ("Look for an update of its firmware, and restart it.", "Or forward the port by hand on its pages."),
        )


def _terms(found: Findings) -> Iterator[Advice]:
    trial = found.trial
    if trial is None or trial.result is not UPnPResult.SUCCESS or not trial.was_there:
        return
    if trial.asked_duration and not trial.duration:
        yield Advice(
            "no-leases",
            Severity.NOTE,
            "The router grants no limit in time",
            f"Asked for {lease_time(trial.asked_duration)}, it took the port only for ever.",
            ("Ports stay open until they are deleted: `add --keep` does so at its end, also after Ctrl-C.",),
        )
    if trial.desc != trial.asked_desc and trial.protocol == "upnp":
        yield Advice(
            "descriptions",
            Severity.NOTE,
            "The router does not take every description",
            f"Of “{trial.asked_desc}” it took “{printable(trial.desc, 120)}”.",
            ("This makes no difference but on its own pages.",),
        )


# Connection to the internet


def _external_address(found: Findings) -> Iterator[Advice]:
    if found.gateway is None:
        return
    if found.gateway.protocol == "pcp" and (found.trial is None or _is_refused_by_pcp(found)):
        return  # PCP tells it with a mapping only
    address = found.external_address
    router = f"{name_and_host(found.gateway)}"
    if address is None:
        if found.is_connected is not False:
            yield Advice(
                "no-address",
                Severity.WARNING,
                "The router does not tell its address on the internet",
                f"{router} names none. It may have no connection, no IPv4 address of its own (DS-Lite), or one that is "
                "not public, behind another router (double NAT) or its provider's (CGNAT).",
                (
                    "See on its pages whether it has an IPv4 address. With DS-Lite it has none, and nobody can reach "
                    "you over IPv4: ask the provider for one, or use IPv6 (`aioigd pinhole`).",
                ),
            )
    elif isinstance(address, IPv4Address) and address in CARRIER_NAT:
        yield Advice(
            "cgnat",
            Severity.PROBLEM,
            "The provider shares one address among many customers (CGNAT)",
            f"{router} has {address} on its internet side. Addresses from 100.64.0.0 to 100.127.255.255 belong to "
            "providers: theirs is the router that the internet sees, and it opens no ports.",
            (
                "Ask the provider for a public IPv4 address; some give one for nothing, some for a fee.",
                "Or use IPv6, where no address is shared: `aioigd pinhole`.",
                "Or go through a server elsewhere: a VPN with port forwarding, or a relay.",
            ),
        )
    elif _has_private_address(found):
        yield Advice(
            "double-nat",
            Severity.PROBLEM,
            "The router is behind another router (double NAT)",
            f"{router} has {address} on its internet side. That is a private address: another router stands between it "
            "and the internet, and does not let anything through.",
            (
                f"Make your router an access point, or the other one a modem (bridge mode); the other one's pages "
                f"may be at http://{_first_of(address)}/.",
                f"Or forward the port in the other router as well, to {address}.",
            ),
        )


def _has_public_address(found: Findings) -> bool:
    return found.external_address is not None and found.external_address.is_global


def _has_private_address(found: Findings) -> bool:
    address = found.external_address
    return address is not None and (address.is_private or address.is_link_local)


def _first_of(address: IPv4Address | IPv6Address) -> str:
    """Return the likeliest address of the router in the network of an address."""
    return f"{str(address).rpartition('.')[0]}.1" if isinstance(address, IPv4Address) else f"[{address}]"


def _offline(found: Findings) -> Iterator[Advice]:
    denies = [each for each in found.devices if each.igd_status is IGDStatus.DISCONNECTED]
    if (found.is_connected is False and found.external_address is None) or (denies and not found.valid_gateways):
        device = found.gateway or denies[0]
        yield Advice(
            "offline",
            Severity.PROBLEM,
            "The router is not connected to the internet",
            f"{name_and_host(device)} says that its connection is down.",
            ("See to the connection: the modem, its cable, the provider.",),
        )


_RULES: Final[tuple[Callable[[Findings], Iterator[Advice]], ...]] = (
    _no_network,
    _container,
    _wrong_interface,
    _vpn_without_next_hop,
    _port_closed,
    _no_gateway,
    _refused,
    _by_pcp,
    _by_nat_pmp,
    _false_success,
    _offline,
    _external_address,
    _multicast,
    _vpn,
    _other_network,
    _not_the_router,
    _several_gateways,
    _terms,
)
