"""Quirks of PCP and NAT-PMP: what is answered, granted, kept and announced.

They change nothing in a gateway that speaks UPnP only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, Final

from ...pcp.wire import nat_pmp, pcp
from ..hooks import Hooks, PcpProceed, quirk
from ..pcp_messages import PcpDatagram, PcpQuery, PcpReply

__all__ = [
    "adds_second_port",
    "announces_changes_only",
    "announces_nothing",
    "another_nat_between",
    "assigns_own_ports",
    "deleting_nothing_is_refused",
    "double_announcements",
    "epoch_counts_twice",
    "epoch_jumps",
    "epoch_stays_at_address_change",
    "errors_without_lifetime",
    "filters_nothing",
    "forged_replies_first",
    "grants_lifetime",
    "internal_port_only",
    "keeps_first_port",
    "longest_lifetime_is_none",
    "loses_datagrams",
    "loses_first_datagrams",
    "moves_second_port",
    "nat_pmp_errors_echo_request",
    "nat_pmp_maps_nothing",
    "no_address_at_first",
    "nonces_change_hands",
    "odd_lengths_are_nat_pmp",
    "pcp_from_other_address",
    "pcp_from_other_port",
    "pcp_ignored",
    "pcp_refuses_everything",
    "pcp_refuses_mappings",
    "private_address_is_none",
    "refuses_third_party",
    "repeats_replies",
    "silent_port",
    "slow_pcp",
    "strict_deletions",
    "unspecified_address_at_first",
]

_SHORT_ERRORS: Final = (
    pcp.ResultCode.NETWORK_FAILURE,
    pcp.ResultCode.NO_RESOURCES,
    pcp.ResultCode.USER_EX_QUOTA,
)
"""Those to which miniupnpd gives a lifetime."""
_ANNOUNCEMENTS: Final = 10
"""How often each is sent (RFC 6886 section 3.2.1)."""


@quirk(
    "pcp",
    reason="Renewed by a fixed interval, such mappings are gone most of the time; what was granted is what counts.",
    source="ProtonVPN (60 s), Verizon CR1000A (2400 s): transmission#1602, bitcoin#31663",
)
def grants_lifetime(seconds: int = 60) -> Hooks:
    """Grants this lifetime, whatever was asked for."""
    return Hooks(
        pcp_rules=lambda rules: replace(
            rules, shortest=seconds, longest=seconds, nat_pmp_shortest=seconds, nat_pmp_longest=seconds
        )
    )


@quirk(
    "pcp",
    reason="The end is in the past, because the sum of uptime and lifetime does not fit into 32 bits.",
    source="miniupnpd 2.3.1: measured",
)
def longest_lifetime_is_none() -> Hooks:
    """Grants a lifetime of 4294967295 by NAT-PMP, and drops the mapping at once."""

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        reply = proceed(query)
        if isinstance(query.request, nat_pmp.MapRequest) and query.request.lifetime == 0xFFFFFFFF:
            proceed(replace(query, request=replace(query.request, lifetime=0)))
        return reply

    return Hooks(pcp_action=act)


@quirk(
    "pcp",
    reason="The reply is a success with another port; who looks at the result only, announces the wrong one.",
    source="ProtonVPN and other VPN gateways; go-ethereum#26321",
)
def assigns_own_ports() -> Hooks:
    """Ignores suggestions, and chooses external ports itself, the same number for TCP and UDP."""
    return Hooks(pcp_rules=lambda rules: replace(rules, ports="own"))


@quirk("pcp", reason="Any other external port cannot be had.", source="some; npm's nat-api")
def internal_port_only() -> Hooks:
    """Maps a port to the same external number only."""
    return Hooks(pcp_rules=lambda rules: replace(rules, ports="internal"))


@quirk(
    "pcp",
    reason="A second external port for an internal one is a second mapping, and one deletion by NAT-PMP takes both.",
    source="miniupnpd 2.3.1: measured",
)
def adds_second_port() -> Hooks:
    """Makes another mapping where an internal port that is mapped is to have another external port."""
    return Hooks(pcp_rules=lambda rules: replace(rules, second_port="adds", nat_pmp_second_port="adds"))


@quirk("pcp", reason="The first external port is closed, silently.", source="read from RFC 6886 section 3.3")
def moves_second_port() -> Hooks:
    """Moves the mapping where an internal port that is mapped is to have another external port."""
    return Hooks(pcp_rules=lambda rules: replace(rules, second_port="moves", nat_pmp_second_port="moves"))


@quirk("pcp", reason="The external port of the reply is not the suggested one.", source="RFC 6887 section 11.3")
def keeps_first_port() -> Hooks:
    """Keeps the mapping where an internal port that is mapped is to have another external port."""
    return Hooks(pcp_rules=lambda rules: replace(rules, second_port="keeps", nat_pmp_second_port="keeps"))


@quirk(
    "pcp",
    reason="Another program can take the mapping over, and then this one can neither renew nor delete it.",
    source="miniupnpd 2.3.1: measured",
)
def nonces_change_hands() -> Hooks:
    """Lets a request with another nonce take over the mapping of the same ports."""
    return Hooks(pcp_rules=lambda rules: replace(rules, nonces_renewed=True, second_port="adds"))


@quirk(
    "pcp",
    reason="The port is open to everybody, and no reply says so.",
    source="miniupnpd to 2.3.11: source, measured",
)
def filters_nothing() -> Hooks:
    """Accepts FILTER, and lets everybody in."""
    return Hooks(pcp_rules=lambda rules: replace(rules, filters=False))


@quirk("pcp", reason="Ports of other hosts cannot be mapped.", source="miniupnpd without pcp_allow_thirdparty")
def refuses_third_party() -> Hooks:
    """Refuses THIRD_PARTY, as UNSUPP_OPTION."""
    return Hooks(pcp_rules=lambda rules: replace(rules, third_party=False))


@quirk(
    "pcp",
    reason="Who suggests the old port and address in a deletion is refused, and the port stays open.",
    source="RFC 6887 section 15.1, erratum 3621; tailscale#21363",
)
def strict_deletions() -> Hooks:
    """Refuses a deletion by PCP with an external port or address, as MALFORMED_REQUEST."""
    return Hooks(pcp_rules=lambda rules: replace(rules, strict_deletion=True))


@quirk(
    "pcp",
    reason="A deletion whose answer was lost is refused when it is sent again, and has been done all the same.",
    source="miniupnpd 2.3.1: measured",
)
def deleting_nothing_is_refused() -> Hooks:
    """Refuses to delete by PCP what is not there, as NO_RESOURCES."""
    made: set[tuple[str, int, int]] = set()

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        request = query.request
        if not isinstance(request, pcp.Request) or request.mapping is None:
            return proceed(query)
        owner = query.sender[0], request.mapping.protocol, request.mapping.internal_port
        if not request.lifetime and owner not in made:
            return proceed(replace(query, request=pcp.ResultCode.NO_RESOURCES))
        reply = proceed(query)
        if isinstance(reply, pcp.Response) and not reply.result:
            (made.add if request.lifetime else made.discard)(owner)
        return reply

    return Hooks(pcp_action=act)


@quirk(
    "pcp",
    reason="An error that says nothing of how long it lasts must not be asked for at once, again and again.",
    source="miniupnpd: source, measured",
)
def errors_without_lifetime() -> Hooks:
    """Gives errors a lifetime of 0, but for 30 s where there are no resources, no network, or a quota is used up."""

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        reply = proceed(query)
        if isinstance(reply, pcp.Response) and reply.result:
            return replace(reply, lifetime=30 if reply.result in _SHORT_ERRORS else 0)
        return reply

    return Hooks(pcp_action=act)


@quirk(
    "pcp",
    reason="PCP is there and of no use, while UPnP works; and each refusal in a log would fill it.",
    source="FRITZ!Box by default: tailscale#1525, #13145",
)
def pcp_refuses_mappings() -> Hooks:
    """Refuses every mapping by PCP, as NOT_AUTHORIZED."""
    return Hooks(pcp_action=_refusing(pcp.ResultCode.NOT_AUTHORIZED))


@quirk(
    "pcp",
    reason="It answers, and is of no use: it must not be taken for the way to map ports.",
    source="FRITZ!Box with a device that is not allowed: avm.de knowledge base 894",
)
def pcp_refuses_everything() -> Hooks:
    """Refuses every request of PCP, ANNOUNCE included, as NOT_AUTHORIZED."""

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        refused = isinstance(query.request, pcp.Request)
        return proceed(replace(query, request=pcp.ResultCode.NOT_AUTHORIZED) if refused else query)

    return Hooks(pcp_action=act)


@quirk(
    "pcp",
    reason="No PCP server behind another NAT can help, and the reply says why.",
    source="common behind a second NAT, Docker, VPNs: tailscale#3397",
)
def another_nat_between() -> Hooks:
    """Refuses every mapping by PCP, as ADDRESS_MISMATCH."""
    return Hooks(pcp_action=_refusing(pcp.ResultCode.ADDRESS_MISMATCH))


@quirk(
    "pcp",
    reason="The result that stands for a missing address is that of any failure, and may stay for ever.",
    source="miniupnpd: go-nat-pmp#11, inetaf/nat#4, miniupnp#54",
)
def nat_pmp_maps_nothing() -> Hooks:
    """Refuses every mapping by NAT-PMP with result 3."""

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        refused = query.protocol == "nat-pmp" and query.maps
        return proceed(replace(query, request=nat_pmp.ResultCode.NETWORK_FAILURE) if refused else query)

    return Hooks(pcp_action=act)


@quirk(
    "pcp",
    reason="A private WAN address is told by PCP, and no address at all by NAT-PMP.",
    source="miniupnpd behind another NAT: miniupnp#333, #433",
)
def private_address_is_none() -> Hooks:
    """Refuses to tell a private external address by NAT-PMP, with result 3."""
    return Hooks(pcp_rules=lambda rules: replace(rules, private_address=False))


@quirk("pcp", reason="A mapping for an address that is none is of no use yet.", source="after boot")
def unspecified_address_at_first(times: int = 3) -> Hooks:
    """Says 0.0.0.0 for the external address, with success, so many times."""
    left = times

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        nonlocal left
        reply = proceed(query)
        unspecified = _without_address(reply)
        if unspecified is None or left <= 0:
            return reply
        left -= 1
        return unspecified

    return Hooks(pcp_action=act)


@quirk(
    "pcp",
    reason="A client that gives up stays without a port for ever.",
    source="after boot: transmission#5464, go-libp2p#3224",
)
def no_address_at_first(times: int = 3) -> Hooks:
    """Answers so many requests with a network failure."""
    left = times

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        nonlocal left
        if left <= 0 or not (query.maps or isinstance(query.request, nat_pmp.AddressRequest)):
            return proceed(query)
        left -= 1
        results = pcp.ResultCode if query.protocol == "pcp" else nat_pmp.ResultCode
        return proceed(replace(query, request=results.NETWORK_FAILURE))

    return Hooks(pcp_action=act)


# Datagrams


@quirk(
    "pcp",
    reason="Who waits for PCP to fail before it tries NAT-PMP waits in vain.",
    source="routers with NAT-PMP only: libplum#54",
)
def pcp_ignored() -> Hooks:
    """Does not answer PCP, although it speaks NAT-PMP."""
    return Hooks(pcp_hears=lambda query: query.raw[:1] == bytes((nat_pmp.VERSION,)))


@quirk(
    "pcp",
    reason="Silence of these two must never delay a third.",
    source="most routers without them",
    hopeless=True,
)
def silent_port() -> Hooks:
    """Answers nothing at the port of PCP and NAT-PMP, not even that it is closed."""
    return Hooks(pcp_hears=lambda query: False)


@quirk(
    "pcp",
    reason="It is no reply (RFC 6887 section 8.3): who believes it believes anybody.",
    source="CARP and VRRP pairs, routers with several addresses: tailscale#5502, #6946",
    hopeless=True,
)
def pcp_from_other_address() -> Hooks:
    """Answers PCP and NAT-PMP from another address of its own."""
    return Hooks(pcp_datagrams=_each(lambda sent: replace(sent, other_address=True)))


@quirk(
    "pcp",
    reason="It is no reply (RFC 6887 section 8.3): who believes it believes anybody.",
    source="routers with several addresses; libplum believes them",
    hopeless=True,
)
def pcp_from_other_port() -> Hooks:
    """Answers PCP and NAT-PMP from another port."""
    return Hooks(pcp_datagrams=_each(lambda sent: replace(sent, other_port=True)))


@quirk("pcp", reason="It takes some time to write the rules of a firewall.", source="common")
def slow_pcp(seconds: float = 0.4) -> Hooks:
    """Answers PCP and NAT-PMP after a while, and every repetition, too."""
    return Hooks(pcp_datagrams=_each(lambda sent: replace(sent, delay=sent.delay + seconds)))


@quirk("pcp", reason="The second of two replies must not be taken for one to the next request.", source="seen on Wi-Fi")
def repeats_replies(times: int = 3) -> Hooks:
    """Sends each reply several times."""
    return Hooks(pcp_datagrams=lambda query, sent: [each for each in sent for _ in range(times)])


@quirk("pcp", reason="Radios and switch ports that sleep lose what comes first.", source="Wi-Fi")
def loses_first_datagrams(times: int = 2) -> Hooks:
    """Does not receive the first datagrams of PCP and of NAT-PMP."""
    heard = {"pcp": 0, "nat-pmp": 0}

    def hears(query: PcpQuery) -> bool:
        heard[query.protocol] += 1
        return heard[query.protocol] > times

    return Hooks(pcp_hears=hears)


@quirk(
    "pcp", reason="UDP may be lost either way; the mapping is then made, and the client does not know.", source="Wi-Fi"
)
def loses_datagrams(loss: float = 0.3, seed: int = 0) -> Hooks:
    """Loses this share of the datagrams of PCP and NAT-PMP each way, at random but always in the same way."""
    dice = random.Random(seed)  # noqa: S311 (it has to be repeatable, not secret)

    def datagrams(query: PcpQuery, sent: Sequence[PcpDatagram]) -> Iterable[PcpDatagram]:
        return [each for each in sent if dice.random() >= loss]

    return Hooks(pcp_hears=lambda query: dice.random() >= loss, pcp_datagrams=datagrams)


@quirk(
    "pcp",
    reason="The numbers behind the header of an error mean nothing; the result has to be looked at first.",
    source="miniupnpd: source, measured",
)
def nat_pmp_errors_echo_request() -> Hooks:
    """Sends errors of NAT-PMP with the ports and the lifetime of the request behind them."""

    def datagrams(query: PcpQuery, sent: Sequence[PcpDatagram]) -> Iterable[PcpDatagram]:
        if not isinstance(query.request, nat_pmp.MapRequest):
            return sent
        return [replace(each, payload=each.payload + query.raw[4:][: 16 - len(each.payload)]) for each in sent]

    return Hooks(pcp_datagrams=datagrams)


@quirk(
    "pcp",
    reason="It looks like NAT-PMP, which this router does not necessarily speak.",
    source="miniupnpd 2.3.1: measured",
)
def odd_lengths_are_nat_pmp() -> Hooks:
    """Answers messages of PCP of a wrong length by NAT-PMP, with opcode 0 and result 3."""

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        reply = proceed(query)
        if query.request is pcp.ResultCode.MALFORMED_REQUEST and reply is not None:
            return nat_pmp.Refusal(nat_pmp.Opcode.ADDRESS, nat_pmp.ResultCode.NETWORK_FAILURE, reply.epoch)
        return reply

    return Hooks(pcp_action=act)


@quirk(
    "pcp",
    reason="Whoever can send from the router's address can only guess the nonce; nothing else makes a reply true.",
    source="RFC 6887 section 18; libplum and npm's libraries look at less",
)
def forged_replies_first() -> Hooks:
    """Sends replies before its own that are not: of another length, opcode, version, nonce and internal port."""

    def datagrams(query: PcpQuery, sent: Sequence[PcpDatagram]) -> Iterable[PcpDatagram]:
        forged = [payload for each in sent for payload in _forge(each.payload)]
        return [*map(PcpDatagram, forged), *sent]

    return Hooks(pcp_datagrams=datagrams)


# Epochs and announcements


@quirk("pcp", reason="The router's clock may be wrong, and its mappings in order all the same.", source="RFC 6887 8.5")
def epoch_counts_twice() -> Hooks:
    """Counts two seconds of its epoch for each."""
    return Hooks(pcp_rules=lambda rules: replace(rules, epoch_rate=2.0))


@quirk(
    "pcp",
    reason="Each reply looks as if the router had restarted; one look is enough, not one for each mapping.",
    source="an attacker, or a broken clock",
)
def epoch_jumps(seconds: int = 1_000_000) -> Hooks:
    """Has an epoch that jumps far ahead with one reply, and back with the next."""
    ahead = False

    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        nonlocal ahead
        reply = proceed(query)
        if reply is None:
            return None
        ahead = not ahead
        return replace(reply, epoch=reply.epoch + seconds) if ahead else reply

    return Hooks(pcp_action=act)


@quirk(
    "pcp",
    reason="Only the address in a reply or announcement tells of the change.",
    source="miniupnpd before 2017: miniupnp#254",
)
def epoch_stays_at_address_change() -> Hooks:
    """Goes on with its epoch when the external address changes."""
    return Hooks(pcp_rules=lambda rules: replace(rules, address_resets_epoch=False))


@quirk(
    "pcp",
    reason="A restart without a change of address is noticed by the next renewal at the earliest.",
    source="miniupnpd before 2017: miniupnp#254",
)
def announces_changes_only() -> Hooks:
    """Announces another external address, and no start."""
    known: list[IPv4Address] = []
    left = 0

    def notices(sent: Sequence[PcpDatagram]) -> Iterable[PcpDatagram]:
        nonlocal left
        for each in sent:
            told = nat_pmp.parse_response(each.payload)
            if isinstance(told, nat_pmp.AddressResponse):
                if known and known[-1] != told.address:
                    left = _ANNOUNCEMENTS
                known[:] = [told.address]
        left -= 1
        return sent if left >= 0 else ()

    return Hooks(pcp_notices=notices)


@quirk("pcp", reason="A restart is noticed by the next renewal at the earliest.", source="several: miniupnp#254")
def announces_nothing() -> Hooks:
    """Sends no announcements."""
    return Hooks(pcp_notices=lambda sent: ())


@quirk("pcp", reason="Many announcements are one change, and cost one look.", source="two daemons on one router")
def double_announcements(times: int = 20) -> Hooks:
    """Sends every announcement many times."""
    return Hooks(pcp_notices=lambda sent: [each for each in sent for _ in range(times)])


def _forge(payload: bytes) -> list[bytes]:
    """Return replies that look like a true one and are not."""
    forged = [
        payload[:-4],
        payload + bytes(4),
        bytes((payload[0], payload[1] ^ 3)) + payload[2:],
        b"\x09" + payload[1:],
    ]
    reply = pcp.parse_response(payload)
    if reply is not None and reply.mapping is not None:
        mapping = reply.mapping
        wrong = (
            replace(mapping, nonce=bytes(pcp.NONCE_SIZE), external_port=666),
            replace(mapping, internal_port=mapping.internal_port ^ 1, external_port=666),
            replace(mapping, protocol=mapping.protocol ^ 0x17, external_port=666),
        )
        forged += [pcp.build_response(replace(reply, mapping=each)) for each in wrong]
    answer = nat_pmp.parse_response(payload)
    if isinstance(answer, nat_pmp.MapResponse):
        other = replace(answer, internal_port=answer.internal_port ^ 1, external_port=666)
        forged.append(nat_pmp.build_response(other))
    return [each for each in forged if each != payload]


def _without_address(reply: PcpReply | None) -> PcpReply | None:
    """Return a reply with 0.0.0.0 for its external address, None if it has none."""
    match reply:
        case nat_pmp.AddressResponse():
            return replace(reply, address=IPv4Address(0))
        case pcp.Response(result=0, mapping=pcp.MapData() as mapping):
            return replace(reply, mapping=replace(mapping, external_address=IPv4Address(0)))
    return None


def _refusing(result: pcp.ResultCode) -> Callable[[PcpQuery, PcpProceed], PcpReply | None]:
    def act(query: PcpQuery, proceed: PcpProceed) -> PcpReply | None:
        refused = query.protocol == "pcp" and query.maps
        return proceed(replace(query, request=result) if refused else query)

    return act


def _each(change: Callable[[PcpDatagram], PcpDatagram]) -> Callable[[Any, Sequence[PcpDatagram]], list[PcpDatagram]]:
    return lambda query, sent: [change(each) for each in sent]
