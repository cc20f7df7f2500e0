"""SOAP on the side of the device (UDA 1.1 section 3): requests are parsed strictly, replies follow the standard.

Real routers are lenient; the emulator is strict, so that every request it accepts is valid.
"""

from __future__ import annotations

from typing import Final

from lxml import etree

from ..upnp.wire.xml import escape
from .errors import UPnPError
from .wan_connection import Outputs

__all__ = ["ENVELOPE", "build_answer", "build_fault", "parse_call", "parse_soap_action"]

ENVELOPE: Final = "http://schemas.xmlsoap.org/soap/envelope/"
ENCODING: Final = "http://schemas.xmlsoap.org/soap/encoding/"
_CONTROL: Final = "urn:schemas-upnp-org:control-1-0"
_PARSER: Final = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True)


def parse_soap_action(value: str) -> tuple[str, str] | None:
    """Return service type and action of a SOAPAction header, None unless it is ``"type#action"`` in quotes."""
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return None
    service_type, hash_sign, action = value[1:-1].rpartition("#")
    return (service_type, action) if hash_sign and service_type and action else None


def parse_call(body: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """Return service type, action and arguments of a request; raises ValueError, with the reason, for any other."""
    try:
        envelope = etree.fromstring(body, _PARSER)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"the body is not well-formed XML: {error}") from None
    if envelope.getroottree().docinfo.internalDTD is not None:
        raise ValueError("the body has a document type declaration")
    if envelope.tag != f"{{{ENVELOPE}}}Envelope":
        raise ValueError(f"the root is {envelope.tag}, not a SOAP 1.1 envelope")
    if envelope.get(f"{{{ENVELOPE}}}encodingStyle") != ENCODING:
        raise ValueError("the envelope has no encodingStyle, or another one")
    parts = [part for part in envelope if part.tag == f"{{{ENVELOPE}}}Body"]
    if len(parts) != 1 or len(parts[0]) != 1:
        raise ValueError("there is not exactly one action in the body")
    action = etree.QName(parts[0][0])
    arguments = []
    for argument in parts[0][0]:
        if len(argument) or etree.QName(argument).namespace:
            raise ValueError(f"the argument {argument.tag} has elements in it, or a namespace")
        arguments.append((str(argument.tag), argument.text or ""))
    return action.namespace or "", action.localname, arguments


def build_answer(service_type: str, action: str, outputs: Outputs) -> str:
    """Return the envelope of a successful reply (section 3.2)."""
    inner = "".join(f"<{name}>{_written(value)}</{name}>" for name, value in outputs.items())
    return _envelope(f'<u:{action}Response xmlns:u="{escape(service_type)}">{inner}</u:{action}Response>')


def build_fault(error: UPnPError) -> str:
    """Return the envelope of a fault (section 3.2)."""
    return _envelope(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        f'<UPnPError xmlns="{_CONTROL}"><errorCode>{error.code}</errorCode>'
        f"<errorDescription>{escape(error.description)}</errorDescription></UPnPError>"
        "</detail></s:Fault>"
    )


def _written(value: str) -> str:
    # XML in a value is written as CDATA: miniupnpc cannot read a port listing that is escaped.
    return f"<![CDATA[{value.replace(']]>', ']]]]><![CDATA[>')}]]>" if value.startswith("<") else escape(value)


def _envelope(body: str) -> str:
    return (
        '<?xml version="1.0"?>\r\n'
        f'<s:Envelope xmlns:s="{ENVELOPE}" s:encodingStyle="{ENCODING}">'
        f"<s:Body>{body}</s:Body></s:Envelope>\r\n"
    )
