"""Replays what the recorded router said to a request of PCP or NAT-PMP.

A reply is recorded with the request before it to which it belongs. The same request gets it again, each of several
replies once and the last one for ever; where there is none for the same request, it is one to a request of its kind.
What is in a reply because it was in the request (nonce, protocol, ports, lifetime, options) is taken from the request
of now, and the epoch goes on with the time of now. A datagram to which nothing came is met by silence.

A recording decides what is said, and neither how much nor to whom: :data:`MAX_REPLIES` to a datagram, to its sender.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Final, Literal, NamedTuple, TypeVar

from ..pcp.wire import nat_pmp, pcp
from ..pcp.wire.common import Address
from .conversation import PcpEvent
from .pcp_messages import PcpDatagram

__all__ = ["MAX_REPLIES", "RecordedPcp"]

MAX_REPLIES: Final = 8
"""Datagrams with which one is answered."""
_MAX_DELAY: Final = 10.0
"""Seconds between a request and the last reply to it."""
_LONG_ERROR: Final = 1800
"""Seconds, the lifetime of an error that will stay (RFC 6887 section 8.2)."""
_PUBLIC: Final = (IPv4Network("198.51.100.0/24"), IPv4Network("203.0.113.0/24"))
_PUBLIC_NOW: Final = IPv4Address("192.88.99.0")
"""As for UPnP: what was public has to be public now, and is recorded as an address for documentation."""

_MAX_REQUEST: Final = 256
"""Bytes of the longest request that is looked at; none of this library has over 150."""

_Asked = pcp.Request | nat_pmp.Request
_Arguments = tuple[int, ...]


@dataclass(slots=True)
class _Reply:
    """A datagram that came; ``time`` is that of the recording."""

    time: float
    payload: bytes


@dataclass(slots=True)
class _Question:
    """A datagram that was sent, and what came of it."""

    time: float
    asked: _Asked
    arguments: _Arguments
    subject: _Subject
    replies: list[_Reply] = field(default_factory=list)


class _Kind(NamedTuple):
    """What is equal in requests for the same thing."""

    version: int
    what: Literal["look", "map", "delete"]
    family: int


class _Subject(NamedTuple):
    """By what a reply is known as one to a request."""

    version: int
    opcode: int
    which: bytes


class RecordedPcp:
    """The replies of a recorded router. ``unexpected`` gets the name of each request to which it has none."""

    def __init__(self, events: Sequence[PcpEvent], unexpected: list[str]) -> None:
        questions, refused = _questions(events)
        self.is_open = len(questions) > refused
        """Whether anything listens at its port: it was asked, and not each time told that nothing does."""
        self._unexpected = unexpected
        self._spoken = {reply.payload[0] for question in questions for reply in question.replies}
        self._left: dict[_Kind, list[_Question]] = {}
        for question in questions:
            self._left.setdefault(_kind(question.asked), []).append(question)
        self._last: dict[_Kind, _Question] = {}
        self._last_same: dict[tuple[_Kind, _Arguments], _Question] = {}
        self._ahead: float | None = None
        """The seconds by which the clock of now is ahead of that of the recording."""
        self._birth = 0.0
        """When the epoch of the last reply began, by the clock of the recording."""

    def answer(self, datagram: bytes, sender: str, now: float) -> list[PcpDatagram]:
        """Return what is sent to a sender at a time of the loop's clock."""
        asked = _asked(datagram)
        if asked is None:
            return []
        question = self._next(asked)
        if self._ahead is None:
            self._ahead = now - (question.time if question else 0.0)
        time = now - self._ahead
        if question is None:
            self._unexpected.append(f"{'PCP' if datagram[0] else 'NAT-PMP'} {_kind(asked).what}")
            return [PcpDatagram(each) for each in self._refusal(datagram, max(0, round(time - self._birth)))]
        sent = []
        for reply in question.replies:
            response = nat_pmp.parse_response(reply.payload) or pcp.parse_response(reply.payload)
            payload = reply.payload
            if response is not None:
                self._birth = reply.time - response.epoch
                response = replace(response, epoch=max(0, response.epoch + round(time - reply.time)))
                payload = _adapted(response, payload, question.asked, asked, sender)
            sent.append(PcpDatagram(payload, max(0.0, reply.time - question.time)))
        return sent

    def _next(self, asked: _Asked) -> _Question | None:
        """Return the question that was the same if there is one left, else one of its kind."""
        kind, arguments = _kind(asked), _arguments(asked)
        left = self._left.get(kind)
        if not left:
            return self._last_same.get((kind, arguments)) or self._last.get(kind)
        chosen = 0
        for size in (len(arguments), 2):  # if not all of them, then protocol and internal port
            same = (number for number, each in enumerate(left) if each.arguments[:size] == arguments[:size])
            if (found := next(same, None)) is not None:
                chosen = found
                break
        question = left.pop(chosen)
        self._last[kind] = self._last_same[kind, question.arguments] = question
        return question

    def _refusal(self, datagram: bytes, epoch: int) -> list[bytes]:
        """Return that it knows no such request, or no such version; nothing where it has never said a word."""
        version, opcode = datagram[0], datagram[1]
        if not self._spoken:
            return []
        is_known = version in self._spoken
        if (version == nat_pmp.VERSION) == is_known:
            code = nat_pmp.ResultCode.UNSUPPORTED_OPCODE if is_known else nat_pmp.ResultCode.UNSUPPORTED_VERSION
            return [nat_pmp.build_response(nat_pmp.Refusal(opcode, code, epoch))]
        result = pcp.ResultCode.UNSUPP_OPCODE if is_known else pcp.ResultCode.UNSUPP_VERSION
        return [pcp.build_refusal(datagram, result, lifetime=_LONG_ERROR, epoch=epoch)]


def _questions(events: Iterable[PcpEvent]) -> tuple[list[_Question], int]:
    """Return the datagrams that were sent with the replies to each, and to how many the port was closed."""
    sent = _Sent()
    refused = 0
    for event in sorted(events, key=lambda each: each.time):
        payload = event.datagram
        if event.failure:
            refused += 1
        elif len(payload) < 2:
            continue
        elif event.direction == "out":
            sent.add(event.time, payload)
        else:
            question = sent.answered_by(payload)
            is_in_time = question is not None and event.time - question.time <= _MAX_DELAY
            if question is not None and is_in_time and len(question.replies) < MAX_REPLIES:
                question.replies.append(_Reply(event.time, payload))
    return sent.questions, refused


class _Sent:
    """The datagrams that were sent up to some time, by what a reply may say of them. Each look-up is O(1)."""

    def __init__(self) -> None:
        self.questions: list[_Question] = []
        self._latest: dict[_Subject, _Question] = {}
        self._latest_by: dict[int, _Question] = {}
        self._open: dict[tuple[int, int], dict[_Subject, None]] = {}

    def add(self, time: float, datagram: bytes) -> None:
        """Note a datagram; one that is no request is of no interest."""
        asked = _asked(datagram)
        if asked is not None:
            subject = _subject(datagram)
            question = _Question(time, asked, _arguments(asked), subject)
            self.questions.append(question)
            self._latest[subject] = self._latest_by[subject.version] = question
            self._open.setdefault(subject[:2], {})[subject] = None

    def answered_by(self, reply: bytes) -> _Question | None:
        """Return the latest datagram of those to which a reply belongs; None if nothing was sent yet."""
        subject = _subject(reply)
        if reply[3:4] == bytes((pcp.ResultCode.UNSUPP_VERSION,)):  # the same in both protocols, and to the other one
            others = [group for group in _GROUPS if group[0] != subject.version]
            question = self._oldest(others) or self._latest_by.get(pcp.VERSION - subject.version)
        else:
            # Refusals do not say to what they are.
            question = self._latest.get(subject) or self._oldest([subject[:2]])
        if question is None:
            question = self.questions[-1] if self.questions else None
        if question is not None:
            self._open[question.subject[:2]].pop(question.subject, None)
        return question

    def _oldest(self, groups: Iterable[tuple[int, int]]) -> _Question | None:
        """Return the latest datagram for what has been waiting for a reply for longest."""
        subject = next((next(iter(self._open[group])) for group in groups if self._open.get(group)), None)
        return None if subject is None else self._latest[subject]


_GROUPS: Final = ((pcp.VERSION, 0), (pcp.VERSION, 1), (nat_pmp.VERSION, 0), (nat_pmp.VERSION, 1), (nat_pmp.VERSION, 2))
"""Versions and opcodes of requests."""


def _subject(datagram: bytes) -> _Subject:
    version, opcode = datagram[0], datagram[1] & 0x7F
    which = b""
    if version == pcp.VERSION and opcode:
        which = datagram[24:37] + datagram[40:42]  # nonce, protocol and internal port
    elif version == nat_pmp.VERSION and opcode:
        start = 8 if datagram[1] & 0x80 else 4
        which = datagram[start : start + 2]
    return _Subject(version, opcode, which)


def _asked(datagram: bytes) -> _Asked | None:
    """Return the request in a datagram, None where there is none."""
    if len(datagram) > _MAX_REQUEST:
        return None
    request = nat_pmp.parse_request(datagram) if datagram[:1] == b"\0" else pcp.parse_request(datagram)
    return request if isinstance(request, _Asked) else None


def _kind(asked: _Asked) -> _Kind:
    match asked:
        case nat_pmp.AddressRequest():
            return _Kind(nat_pmp.VERSION, "look", 4)
        case nat_pmp.MapRequest(lifetime=lifetime):
            return _Kind(nat_pmp.VERSION, "map" if lifetime else "delete", 4)
        case pcp.Request(client=client, lifetime=lifetime, mapping=mapping):
            what: Literal["map", "delete"] = "map" if lifetime else "delete"
            return _Kind(pcp.VERSION, "look" if mapping is None else what, client.version)


def _arguments(asked: _Asked) -> _Arguments:
    """Return the values by which two requests of one kind differ, without addresses."""
    match asked:
        case nat_pmp.MapRequest(proto, internal, external, lifetime):
            return (6 if proto == "TCP" else 17), internal, external, lifetime
        case pcp.Request(lifetime=lifetime, mapping=pcp.MapData() as data, options=options):
            codes = sorted(_code(option) for option in options)
            return data.protocol, data.internal_port, data.external_port, lifetime, *codes
    return ()


def _code(option: pcp.Option) -> int:
    match option:
        case pcp.ThirdParty():
            return pcp.OptionCode.THIRD_PARTY
        case pcp.PreferFailure():
            return pcp.OptionCode.PREFER_FAILURE
        case pcp.Filter():
            return pcp.OptionCode.FILTER
        case pcp.OtherOption(code):
            return code


def _adapted(
    response: pcp.Response | nat_pmp.Response, recorded: bytes, then: _Asked, asked: _Asked, sender: str
) -> bytes:
    """Return a response with what it took from the request that was recorded taken from the one of now."""
    opcode = asked.opcode if response.opcode == then.opcode else response.opcode
    match response, then, asked:
        case nat_pmp.AddressResponse(address=address), _, _:
            return nat_pmp.build_response(replace(response, address=_public_now(address)))
        case nat_pmp.MapResponse(), nat_pmp.MapRequest(), nat_pmp.MapRequest():
            if (response.proto, response.internal_port) != (then.proto, then.internal_port):
                return nat_pmp.build_response(response)
            port = _external_port(response.external_port, then, asked)
            lifetime = asked.lifetime if response.lifetime == then.lifetime else response.lifetime
            granted = nat_pmp.MapResponse(response.epoch, asked.proto, asked.internal_port, port, lifetime)
            return nat_pmp.build_response(granted)
        case nat_pmp.Refusal(), _, _:
            refusal = nat_pmp.build_response(replace(response, opcode=opcode))
            return refusal + recorded[len(refusal) :]
        case pcp.Response(), pcp.Request(), pcp.Request():
            built = pcp.build_response(_adapted_pcp(replace(response, opcode=opcode), then, asked, sender))
            # Behind an error is what the router has sent back of the request.
            return built + recorded[len(built) :] if response.result else built
        case pcp.Response(), _, _:
            return pcp.build_response(response)
        case _:
            return nat_pmp.build_response(response)


def _adapted_pcp(response: pcp.Response, then: pcp.Request, asked: pcp.Request, sender: str) -> pcp.Response:
    told, before, now = response.mapping, then.mapping, asked.mapping
    if told is None or before is None or now is None:
        return response
    if (told.nonce, told.protocol, told.internal_port) != (before.nonce, before.protocol, before.internal_port):
        return response
    address: Address = told.external_address
    mapping = replace(
        now,
        external_port=_external_port(told.external_port, before, now),
        # Through an IPv6 firewall a host has its own address.
        external_address=ip_address(sender.partition("%")[0]) if address == then.client else _public_now(address),
    )
    return replace(
        response,
        lifetime=asked.lifetime if response.lifetime == then.lifetime else response.lifetime,
        mapping=mapping,
        options=asked.options if response.options == then.options else response.options,
    )


def _external_port(told: int, then: nat_pmp.MapRequest | pcp.MapData, asked: nat_pmp.MapRequest | pcp.MapData) -> int:
    """Return the external port: the suggested one, the internal one, or another, as it was then."""
    if told == (then.external_port or then.internal_port):
        return asked.external_port or asked.internal_port
    return asked.internal_port if told == then.internal_port else told


_A = TypeVar("_A", IPv4Address, Address)


def _public_now(address: _A) -> _A:
    is_stand_in = isinstance(address, IPv4Address) and any(address in network for network in _PUBLIC)
    return _PUBLIC_NOW + address.packed[3] if is_stand_in else address
