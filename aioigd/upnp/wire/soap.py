"""SOAP as UPnP uses it (UDA 1.1 section 3): requests of exactly one shape, replies in any.

The shape of a request is the one that the most routers understand: SOAP 1.1, the prefixes ``s`` and ``u``, no
white space between tags. A reply is an :class:`Answer`, a :class:`Fault` or :class:`InvalidReply`, and the
caller decides what follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Final, NamedTuple

from lxml import etree

from ...errors import InvalidResponseError
from . import xml
from .error_codes import UPnPErrorCode

__all__ = [
    "Action",
    "Answer",
    "Fault",
    "InvalidReply",
    "Reply",
    "build_request",
    "parse_reply",
    "read_flag",
    "read_number",
    "read_text",
    "soap_action",
]

_MAX_VALUES: Final = 64
"""Elements read in an answer. Real ones have at most 17."""
_MAX_FAULT_PARTS: Final = 64
"""Elements read in a fault. Real ones have at most 8."""
_MAX_CACHED: Final = 2048
"""Bytes of a reply that is cached. Replies to AddPortMapping have some 300, and are mostly identical."""
_CODE = re.compile(r"[+-]?\d{1,6}", re.ASCII)
_CODE_IN_TEXT = re.compile(r"(?<![\w.+-])[4-8]\d\d(?![\w.-])", re.ASCII)
"""A code in a text, as in "Error 725" or in markup that was escaped."""
_SPECIAL = re.compile("[&<>]")
"""What is escaped in a value."""
_MAX_FAULT_TEXT: Final = 200
"""Characters of a text in a fault."""
_MAX_TEXT: Final = 256
"""Characters of an output argument that is shown to people."""
_FALSE: Final = frozenset({"0", "false", "no", "off", "disabled"})
_TRUE: Final = frozenset({"1", "true", "yes", "on", "enabled"})
"""The spellings of a boolean, in lower case."""
_CODE_NAMES: Final = ("errorcode", "faultcode")
"""Elements of a fault with the code, in the order of precedence."""
_DESCRIPTION_NAMES: Final = ("errordescription", "faultstring")
"""Elements of a fault with the description, in the order of precedence."""
_NUMBERED: Final = ("errorcode", *_DESCRIPTION_NAMES, "detail", "text")
"""Elements whose text may have a code in it; ``text`` is the reason of a SOAP 1.2 fault."""
_CODE_OF_DESCRIPTION: Final = {
    "invalidaction": UPnPErrorCode.INVALID_ACTION,
    "invalidargs": UPnPErrorCode.INVALID_ARGS,
    "actionfailed": UPnPErrorCode.ACTION_FAILED,
    "actionnotauthorized": UPnPErrorCode.ACTION_NOT_AUTHORIZED,
    "specifiedarrayindexinvalid": UPnPErrorCode.SPECIFIED_ARRAY_INDEX_INVALID,
    "nosuchentryinarray": UPnPErrorCode.NO_SUCH_ENTRY_IN_ARRAY,
    "wildcardnotpermittedinsrcip": UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_SRC_IP,
    "wildcardnotpermittedinextport": UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_EXT_PORT,
    "conflictinmappingentry": UPnPErrorCode.CONFLICT_IN_MAPPING_ENTRY,
    "sameportvaluesrequired": UPnPErrorCode.SAME_PORT_VALUES_REQUIRED,
    "onlypermanentleasessupported": UPnPErrorCode.ONLY_PERMANENT_LEASES_SUPPORTED,
    "remotehostonlysupportswildcard": UPnPErrorCode.REMOTE_HOST_ONLY_SUPPORTS_WILDCARD,
    "externalportonlysupportswildcard": UPnPErrorCode.EXTERNAL_PORT_ONLY_SUPPORTS_WILDCARD,
    "noportmapsavailable": UPnPErrorCode.NO_PORT_MAPS_AVAILABLE,
    "conflictwithothermechanisms": UPnPErrorCode.CONFLICT_WITH_OTHER_MECHANISMS,
    "portmappingnotfound": UPnPErrorCode.PORT_MAPPING_NOT_FOUND,
    "wildcardnotpermittedinintport": UPnPErrorCode.WILDCARD_NOT_PERMITTED_IN_INT_PORT,
    "inconsistentparameters": UPnPErrorCode.INCONSISTENT_PARAMETERS,
}
"""Error descriptions of the standard, for faults that have the description and no code."""


class Action(NamedTuple):
    """An action with its input arguments, and whether it has output arguments."""

    name: str
    arguments: Mapping[str, str]
    has_output: bool = True

    def __hash__(self) -> int:
        return hash((self.name, self.has_output))  # a mapping has none


class Answer(NamedTuple):
    """The action was done. ``values`` are its output arguments, by their names in lower case."""

    values: Mapping[str, str]


class Fault(NamedTuple):
    """The action was refused. ``code`` is the UPnP error code, None where the fault names none."""

    code: int | None
    description: str


class InvalidReply(NamedTuple):
    """No answer to the action: ``reason`` says what came instead."""

    reason: str


Reply = Answer | Fault | InvalidReply


def soap_action(service_type: str, action: str) -> str:
    """Return the value of the SOAPAction header, quotes included."""
    return f'"{service_type}#{action}"'


def build_request(service_type: str, action: str, arguments: Mapping[str, str]) -> bytes:
    """Return the body of a request, its arguments in the order of the mapping."""
    parts = list(_template(service_type, action, tuple(arguments)))
    parts[1::2] = arguments.values() if arguments else ("",)
    if _SPECIAL.search("".join(parts[1::2])):
        parts[1::2] = map(xml.escape, parts[1::2])
    return "".join(parts).encode()


@lru_cache(maxsize=8)
def _template(service_type: str, action: str, names: tuple[str, ...]) -> Sequence[str]:
    """Return what is before the values and behind them, by turns with something for each value.

    In a batch all are the same, but for one or two values.
    """
    inner = "".join(f"<{name}>\0\0</{name}>" for name in names) or "\0\0"
    return (
        '<?xml version="1.0"?>'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f'<s:Body><u:{action} xmlns:u="{service_type}">{inner}</u:{action}></s:Body></s:Envelope>'
    ).split("\0")


def parse_reply(document: bytes, action: str) -> Reply:
    """Parse a reply to an action, whatever its HTTP status was; never raises."""
    if len(document) <= _MAX_CACHED:
        return _parse_cached(document, action)
    return _parse(document, action)


def read_number(values: Mapping[str, str], name: str, highest: int, *, default: int | None = None) -> int:
    """Return a number from 0 to ``highest``; ``default``, where given, for what is none."""
    text = values.get(name, "")
    if text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= highest:
        return int(text)
    if default is not None:
        return default
    raise InvalidResponseError(f"{name} is {text[:40]!r}, not a number from 0 to {highest}")


def read_text(values: Mapping[str, str], name: str) -> str:
    """Return a value as one printable line, empty where there is none."""
    return xml.printable_line(values.get(name, ""), _MAX_TEXT)


def read_flag(values: Mapping[str, str], name: str, *, default: bool | None = None) -> bool:
    """Return a boolean, however it is spelled (UDA 1.1 section 2.5); ``default``, where given, for what is none."""
    text = values.get(name, "").strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if default is not None:
        return default
    raise InvalidResponseError(f"{name} is {text[:40]!r}, neither true nor false")


def _parse(document: bytes, action: str) -> Reply:
    if not document.strip(b" \t\r\n\0"):
        return InvalidReply("an empty reply")
    try:
        root = xml.parse(document)
    except InvalidResponseError as error:
        return InvalidReply(error.message)
    wanted = f"{action}Response".lower()
    names = xml.names(root)
    # A fault takes precedence over an answer in the same reply, a code alone does not.
    for name in ("fault", "upnperror", wanted, "errorcode"):
        if name in names:
            element = xml.element_at(root, names.index(name))
            return _answer(element) if name == wanted else _fault(element)
    if action.startswith("Get"):
        # An answer by any name: the reader of the values notices if they are missing. For an action that changes
        # something it may be an echo of the request, which is no answer.
        index = next((index for index, name in enumerate(names) if name.startswith("new")), 0)
        if index:
            return _answer(next(xml.element_at(root, index).iterancestors()))
    return InvalidReply(f"a reply without {action}Response or fault (its root is {xml.local_name(root)[:40]!r})")


_parse_cached = lru_cache(maxsize=8)(_parse)


def _answer(element: etree._Element) -> Answer | InvalidReply:
    if not xml.is_finished(element):
        return InvalidReply("a reply that was cut off")
    values = {xml.local_name(value): xml.text_of(value) for value in islice(element, _MAX_VALUES)}
    return Answer(MappingProxyType(values))


def _fault(element: etree._Element) -> Fault:
    codes: dict[str, int] = {}
    words: dict[str, str] = {}
    for part in islice(element.iter(), _MAX_FAULT_PARTS):
        name, text = xml.local_name(part), xml.printable_line(xml.text_of(part), _MAX_FAULT_TEXT)
        if name in _CODE_NAMES and _CODE.fullmatch(text):
            codes.setdefault(name, int(text))
        elif text:
            words.setdefault(name, text)
    # errorCode takes precedence over the SOAP faultcode, in which some firmware puts the number.
    code = next((codes[name] for name in _CODE_NAMES if name in codes), None)
    if code is None:
        code = next(filter(None, map(_code_of_description, words.values())), None)
    if code is None:
        said = (_CODE_IN_TEXT.search(words.get(name, "")) for name in _NUMBERED)
        code = next((int(number[0]) for number in said if number), None)
    return Fault(code, next((words[name] for name in _DESCRIPTION_NAMES if name in words), ""))


def _code_of_description(text: str) -> int | None:
    letters = re.sub(r"[^a-z]", "", text.lower())
    return next((code.value for words, code in _CODE_OF_DESCRIPTION.items() if words in letters), None)
