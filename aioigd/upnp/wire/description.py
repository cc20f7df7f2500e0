"""Device descriptions (UDA 1.1 section 2.3): which services a device has, and where they are controlled.

Element names are compared without case or namespace, and services are found wherever they stand, because
routers put them on the root device, in another vendor's namespace, or lose a closing tag on the way.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final, NamedTuple

from lxml import etree

from ...errors import InvalidResponseError
from . import xml
from .url import HttpUrl, candidates

__all__ = ["Description", "Service", "parse_description", "udn_key"]

MAX_SERVICES: Final = 64
"""Services read. Real gateways have fewer than 20."""
_MAX_NAME: Final = 128
"""Characters of a name that is shown to people."""

_SERVICE_TYPE = re.compile(
    r"(?:urn:)?[\w.-]{1,64}:service:([A-Za-z0-9_-]{1,64})(?::(\d{1,3})?(?:[.a-z][\w.]{0,8})?)?",
    re.ASCII | re.IGNORECASE,
)
_WAN_CONNECTIONS: Final = ("wanipconnection", "wanpppconnection")
"""The names of the services that map ports, in lower case."""


class Service(NamedTuple):
    """One service of a device.

    ``service_type`` is spelled as in the description, as it has to be in requests; ``control_urls`` are the URLs
    where it may be controlled, the likeliest first, empty where the description has none that can be used;
    ``control_reference`` is the control URL as written in the description.
    """

    service_type: str
    control_reference: str
    control_urls: tuple[HttpUrl, ...]
    event_urls: tuple[HttpUrl, ...]

    @property
    def name(self) -> str:
        """The name in the service type in lower case, such as ``wanipconnection``."""
        match = _SERVICE_TYPE.fullmatch(self.service_type)
        return match.group(1).lower() if match else ""

    @property
    def version(self) -> int:
        """The version in the service type, 1 where it has none."""
        match = _SERVICE_TYPE.fullmatch(self.service_type)
        return int(match.group(2) or 1) if match else 1

    @property
    def is_wan_connection(self) -> bool:
        """Whether this is where ports are mapped: WANIPConnection or WANPPPConnection of any version."""
        return self.name in _WAN_CONNECTIONS


class Description(NamedTuple):
    """A device description: the device and its services."""

    device_type: str
    friendly_name: str
    manufacturer: str
    model_name: str
    model_number: str
    serial_number: str
    presentation_url: str
    udn: str
    services: tuple[Service, ...]

    @property
    def wan_connections(self) -> tuple[Service, ...]:
        """The services that map ports in document order; of one that is listed twice, the newer version."""
        found: dict[object, Service] = {}
        for service in self.services:
            if service.is_wan_connection:
                key = (service.name, service.control_urls[:1] or service.control_reference)
                known = found.get(key)
                if known is None or service.version > known.version:
                    found[key] = service
        return tuple(found.values())

    def service(self, name: str) -> Service | None:
        """Return the first service of a name (in lower case), None where the device has none."""
        return next((service for service in self.services if service.name == name), None)


def udn_key(name: str) -> str:
    """Return what all spellings of a UDN have in common, also of a USN that begins with it.

    Descriptions and replies of one device may have it in upper and lower case, with "uuid:", without it, or in braces.
    """
    text = name.partition("::")[0].strip().lower()
    while text.startswith("uuid:"):
        text = text[5:].strip()
    return text.strip("{}")


def parse_description(document: bytes, url: HttpUrl) -> Description:
    """Parse a device description; ``url`` is where it came from.

    A service in which the document was cut off is skipped. Raises InvalidResponseError for what is no device
    description.
    """
    root = xml.parse(document)
    base = xml.first_text(root, "urlbase")
    device = next(xml.iter_named(root, "device"), None)
    services = []
    for element in islice(xml.iter_named(root, "service"), MAX_SERVICES):
        service_type, control, event = xml.first_texts(element, "servicetype", "controlurl", "eventsuburl")
        if _SERVICE_TYPE.fullmatch(service_type) and xml.is_finished(element):
            services.append(
                Service(service_type, control, candidates(control, base, url), candidates(event, base, url))
            )
    if device is None and not services:
        raise InvalidResponseError("not a UPnP device description: it has neither a device nor a service in it")
    top = root if device is None else device
    return Description(
        device_type=_name(top, "devicetype"),
        friendly_name=_name(top, "friendlyname"),
        manufacturer=_name(top, "manufacturer"),
        model_name=_name(top, "modelname"),
        model_number=_name(top, "modelnumber"),
        serial_number=_name(top, "serialnumber"),
        presentation_url=_presentation_url(xml.first_text(top, "presentationurl"), base, url),
        udn=_name(top, "udn"),
        services=tuple(services),
    )


def _presentation_url(reference: str, base: str, url: HttpUrl) -> str:
    """Return the URL of the web page of the device, at the address that answered, as all of its URLs."""
    return next((one.with_zone for one in candidates(reference, base, url)), "") if reference else ""


def _name(element: etree._Element, name: str) -> str:
    return xml.printable_line(xml.first_text(element, name), _MAX_NAME)
