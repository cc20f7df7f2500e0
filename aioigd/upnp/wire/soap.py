"""SOAP as UPnP uses it (UDA 1.1 section 3): requests of exactly one shape, replies in any.

The shape of a request is the one that the most routers understand: SOAP 1.1, the prefixes ``s`` and ``u``, no
white space between tags. A reply is an :class:`Answer`, a :class:`Fault` or :class:`InvalidReply`, and it is for
others to decide what follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Final

from lxml import etree

from ...errors import InvalidResponseError
from . import xml

__all__ = ["Answer", "Fault", "InvalidReply", "Reply", "build_request", "parse_reply", "soap_action"]

_MAX_VALUES: Final = 64
_MAX_FAULT_PARTS: Final = 64
"""Elements looked at in an answer and in a fault. Real ones have at most 17 and 8."""
_MAX_REMEMBERED: Final = 2048
"""Bytes of a reply that is remembered. Most replies to AddPortMapping have some 300, and one is like another."""
_CODE = re.compile(r"[+-]?\d{1,6}", re.ASCII)
_CODE_IN_WORDS = re.compile(r"(?<![\w.+-])[4-8]\d\d(?![\w.-])", re.ASCII)
"""A code among words, as in "Error 725" or in markup that was escaped."""
_MAX_WORDS: Final = 200
_CODE_NAMES: Final = ("errorcode", "faultcode")
_DESCRIPTION_NAMES: Final = ("errordescription", "faultstring")
"""Each in the order in which they are believed."""
_NUMBERED: Final = ("errorcode", *_DESCRIPTION_NAMES, "detail", "text")
"""Where a code may stand among words; ``text`` is the reason of a SOAP 1.2 fault."""
_CODE_OF_DESCRIPTION: Final = {
    "invalidaction": 401,
    "invalidargs": 402,
    "actionfailed": 501,
    "actionnotauthorized": 606,
    "specifiedarrayindexinvalid": 713,
    "nosuchentryinarray": 714,
    "wildcardnotpermittedinsrcip": 715,
    "wildcardnotpermittedinextport": 716,
    "conflictinmappingentry": 718,
    "sameportvaluesrequired": 724,
    "onlypermanentleasessupported": 725,
    "remotehostonlysupportswildcard": 726,
    "externalportonlysupportswildcard": 727,
    "noportmapsavailable": 728,
    "conflictwithothermechanisms": 729,
    "portmappingnotfound": 730,
    "wildcardnotpermittedinintport": 732,
    "inconsistentparameters": 733,
}
"""Error descriptions of the standard, for faults that carry the words and not the number."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The action was done. ``values`` are its output arguments, by their names in lower case."""

    values: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """The action was refused. ``code`` is the UPnP error code, None where the fault names none."""

    code: int | None
    description: str


@dataclass(frozen=True, slots=True)
class InvalidReply:
    """No answer to the action: ``reason`` says what came instead."""

    reason: str


Reply = Answer | Fault | InvalidReply


def soap_action(service_type: str, action: str) -> str:
    """Return the value of the SOAPAction header, quotes included."""
    return f'"{service_type}#{action}"'


def build_request(service_type: str, action: str, arguments: Mapping[str, str]) -> bytes:
    """Return the body of a request, its arguments in the order of the mapping."""
    inner = "".join([f"<{name}>{xml.escape(value)}</{name}>" for name, value in arguments.items()])
    return (
        '<?xml version="1.0"?>'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f'<s:Body><u:{action} xmlns:u="{service_type}">{inner}</u:{action}></s:Body></s:Envelope>'
    ).encode()


def parse_reply(document: bytes, action: str) -> Reply:
    """Return what a reply to an action says, whatever its HTTP status was; never raises."""
    if len(document) <= _MAX_REMEMBERED:
        return _parse_remembered(document, action)
    return _parse(document, action)


def _parse(document: bytes, action: str) -> Reply:
    if not document.strip(b" \t\r\n\0"):
        return InvalidReply("an empty reply")
    try:
        root = xml.parse(document)
    except InvalidResponseError as error:
        return InvalidReply(error.message)
    wanted = f"{action}Response".lower()
    found: dict[str, etree._Element] = {}
    for element in root.iter():
        name = xml.local_name(element)
        if name == wanted or name == "fault" or name == "upnperror" or name == "errorcode":
            found.setdefault(name, element)
    # A fault is believed before an answer in the same reply, a mere code is not.
    for name in ("fault", "upnperror", wanted, "errorcode"):
        if name in found:
            return _answer(found[name]) if name == wanted else _fault(found[name])
    if action.startswith("Get"):
        # By whatever name: what was asked for is there, or the reader of the values misses it. An echo of an action
        # that changes something is not so harmless.
        for element in root.iter():
            if any(xml.local_name(value).startswith("new") for value in islice(element, _MAX_VALUES)):
                return _answer(element)
    return InvalidReply(f"a reply without {action}Response or fault (its root is {xml.local_name(root)[:40]!r})")


_parse_remembered = lru_cache(maxsize=8)(_parse)


def _answer(element: etree._Element) -> Answer | InvalidReply:
    if not xml.is_finished(element):
        return InvalidReply("a reply that was cut off")
    values = {xml.local_name(value): xml.text_of(value) for value in islice(element, _MAX_VALUES)}
    return Answer(MappingProxyType(values))


def _fault(element: etree._Element) -> Fault:
    codes: dict[str, int] = {}
    words: dict[str, str] = {}
    for part in islice(element.iter(), _MAX_FAULT_PARTS):
        name, text = xml.local_name(part), xml.printable_line(xml.text_of(part), _MAX_WORDS)
        if name in _CODE_NAMES and _CODE.fullmatch(text):
            codes.setdefault(name, int(text))
        elif text:
            words.setdefault(name, text)
    # Real codes win over the SOAP faultcode, which some firmware abuses for the number.
    code = next((codes[name] for name in _CODE_NAMES if name in codes), None)
    if code is None:
        code = next(filter(None, map(_code_of_words, words.values())), None)
    if code is None:
        said = (_CODE_IN_WORDS.search(words.get(name, "")) for name in _NUMBERED)
        code = next((int(number[0]) for number in said if number), None)
    return Fault(code, next((words[name] for name in _DESCRIPTION_NAMES if name in words), ""))


def _code_of_words(text: str) -> int | None:
    letters = re.sub(r"[^a-z]", "", text.lower())
    return next((code for words, code in _CODE_OF_DESCRIPTION.items() if words in letters), None)
