"""Quirks of the description: its structure, and its syntax."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..device_tree import Device, Service, Site
from ..errors import UPnPError
from ..hooks import Exchange, Hooks, Proceed, quirk
from ..http import Response
from ..wan_connection import ActionCall, Outputs

__all__ = [
    "absolute_urls",
    "absolute_urls_elsewhere",
    "absolute_urls_without_host",
    "access_point_mode",
    "blank_lines_first",
    "byte_order_mark",
    "cdata_values",
    "comments_everywhere",
    "control_characters",
    "cut_off",
    "empty_url_base",
    "garbage_after_root",
    "ip_and_ppp",
    "latin_1",
    "latin_1_as_utf_8",
    "long_description",
    "lower_case_tags",
    "newer_device_than_service",
    "no_common_config",
    "no_declaration",
    "no_namespace",
    "padded_values",
    "ppp_instead_of_ip",
    "raw_ampersand",
    "scpd_broken",
    "scpd_missing",
    "services_on_root",
    "several_connections",
    "status_missing",
    "status_says_disconnected",
    "trailing_nul",
    "unclosed_tags",
    "undeclared_prefix",
    "unknown_encoding",
    "url_base_without_port",
    "urls_with_query",
    "urls_without_slash",
    "utf_8_as_utf_16",
    "utf_16",
    "vendor_urns",
    "wrong_namespace",
    "wrong_url_base",
]

_LEAF: Final = re.compile(r"(<(?:\w+:)?(\w+)>)([^<>]+)(</(?:\w+:)?\2>)")
_TAG_NAME: Final = re.compile(r"(</?)([A-Za-z][\w.:-]*)")
_FOREIGN_BASE: Final = "http://127.66.66.66:80"


# The structure: which devices and services there are, and where they are controlled


@quirk("description", reason="The type says how to talk to it, and nothing else.", source="Huawei HG531: rust-igd#29")
def ppp_instead_of_ip() -> Hooks:
    """Has a WANPPPConnection and no WANIPConnection, as DSL routers have."""

    def change(service: Service) -> Service:
        if service.name != "WANIPConnection":
            return service
        return Service.standard("WANPPPConnection", 1, "WANPPPConn1")

    return Hooks(device=_each_service(change))


@quirk(
    "description",
    reason="Only one of the connections is up, and it is not the first.",
    source="WAG200G: libtorrent#6611",
)
def ip_and_ppp() -> Hooks:
    """Has a WANPPPConnection that is down beside the WANIPConnection that works, and names it first."""
    return Hooks(device=_beside(Service.standard("WANPPPConnection", 1, "WANPPPConn1", connection="ppp")))


@quirk(
    "description",
    reason="Only one of the connections is up, and it is not the first.",
    source="MikroTik CHR: tailscale#8364",
)
def several_connections(down: int = 2) -> Hooks:
    """Has several WANConnectionDevices, of which the last one is connected."""

    def change(device: Device, site: Site) -> Device:
        def with_more(parent: Device) -> Device:
            devices: list[Device] = []
            for child in parent.devices:
                if any(service.is_wan_connection for service in child.services):
                    devices += [_twin(child, number) for number in range(1, down + 1)]
                devices.append(child)
            return replace(parent, devices=tuple(devices))

        return device.with_each_device(with_more)

    return Hooks(device=change)


@quirk("description", reason="The tree is not always as deep as the standard has it.", source="Sagemcom: aioupnp#26")
def services_on_root() -> Hooks:
    """Has all its services directly on the root device, and no embedded devices."""
    return Hooks(device=lambda device, site: replace(device, services=tuple(device.all_services()), devices=()))


@quirk("description", reason="It is not needed to map a port.", source="DD-WRT: aioupnp#26")
def no_common_config() -> Hooks:
    """Has no WANCommonInterfaceConfig."""
    return Hooks(
        device=lambda device, site: device.with_each_service(
            lambda service: None if service.name == "WANCommonInterfaceConfig" else service
        )
    )


@quirk(
    "description",
    reason="It says it is a gateway and can map no port; another one may.",
    source="Orbi in AP mode: HA#72050",
    hopeless=True,
)
def access_point_mode() -> Hooks:
    """Has no WAN connection service."""
    return Hooks(
        device=lambda device, site: device.with_each_service(
            lambda service: None if service.is_wan_connection else service
        )
    )


@quirk("description", reason="Versions of device and service need not agree.", source="AmpliFi: rust-igd#29")
def newer_device_than_service() -> Hooks:
    """Says it is an InternetGatewayDevice of version 2, with the services of its own version."""

    def change(device: Device) -> Device:
        return replace(device, device_type=re.sub(r":\d+$", ":2", device.device_type))

    return Hooks(device=lambda device, site: device.with_each_device(change))


@quirk(
    "description",
    reason="The vendor's urn has to be used in requests as well.",
    source="Huawei: tailscale#10911, async_upnp_client#113",
)
def vendor_urns(domain: str = "dslforum-org") -> Hooks:
    """Has device and service types with another vendor's name in them, and answers to these only."""

    def change(device: Device) -> Device:
        services = [
            replace(service, service_type=service.service_type.replace("schemas-upnp-org", domain))
            for service in device.services
        ]
        device_type = device.device_type.replace("schemas-upnp-org", domain)
        return replace(device, device_type=device_type, services=tuple(services))

    return Hooks(device=lambda device, site: device.with_each_device(change))


@quirk("description", reason="Base and URL must not simply be joined.", source="Netgear: Open.NAT#22")
def absolute_urls() -> Hooks:
    """Names its control URLs in full, with scheme, host and port."""
    return Hooks(device=_urls(lambda url, site: site.base + url))


@quirk(
    "description",
    reason="Port and host in a control URL are right or wrong, the path is right.",
    source="routers behind NAT of their own: unnamed",
)
def absolute_urls_elsewhere() -> Hooks:
    """Names its control URLs in full, with a host that is not its own."""
    return Hooks(device=_urls(lambda url, site: f"http://127.66.66.66:{site.port}{url}"))


@quirk("description", reason="Port and path are right, and the host is known.", source="sloppy firmware")
def absolute_urls_without_host(host: str = "%s") -> Hooks:
    """Names its control URLs in full, with a placeholder for its host."""
    return Hooks(device=_urls(lambda url, site: f"http://{host}:{site.port}{url}"))


@quirk("description", reason="Such URLs are relative to the document (RFC 3986 section 5).", source="Open.NAT#22")
def urls_without_slash() -> Hooks:
    """Omits the slash at the beginning of its URLs."""
    return Hooks(device=_urls(lambda url, site: url.removeprefix("/")))


@quirk("description", reason="The query is part of what has to be asked for.", source="Open.NAT#22")
def urls_with_query() -> Hooks:
    """Has control URLs that differ in their query only."""
    return Hooks(device=_urls(lambda url, site: f"/upnp/control?service={url.rpartition('/')[2]}"))


@quirk("description", reason="A URLBase is often left over from another address.", source="WRT120N: syncthing#1187")
def wrong_url_base(base: str = _FOREIGN_BASE) -> Hooks:
    """Has a URLBase that names another host."""
    return Hooks(description=_with_url_base(lambda site: base))


@quirk("description", reason="An empty base is none.", source="syncthing#1187")
def empty_url_base() -> Hooks:
    """Has a URLBase with nothing in it."""
    return Hooks(description=_with_url_base(lambda site: ""))


@quirk("description", reason="The port of the description is meant.", source="WRT120N: syncthing#1187")
def url_base_without_port() -> Hooks:
    """Has a URLBase with its own address and without its port."""
    return Hooks(description=_with_url_base(lambda site: site.base.rpartition(":")[0]))


@quirk(
    "description",
    reason="16 KiB was too little for real routers.",
    source="ZTE, Sagemcom: miniupnp",
)
def long_description(kilobytes: int = 60) -> Hooks:
    """Has a description of many kilobytes, with the connection at its end."""

    def change(text: str, site: Site) -> str:
        filler = "<X_VENDOR_Feature>enabled</X_VENDOR_Feature>\n"
        return text.replace("<UDN>", filler * (kilobytes * 1024 // len(filler)) + "<UDN>", 1)

    return Hooks(description=change)


@quirk(
    "description", reason="Service documents are not needed to map a port.", source="Huawei LTE: async_upnp_client#113"
)
def scpd_missing() -> Hooks:
    """Answers 404 where its service documents should be."""

    def response(exchange: Exchange, response: Response) -> Response:
        return replace(response, status=404, body=b"") if exchange.purpose == "scpd" else response

    return Hooks(response=response)


@quirk(
    "description", reason="Service documents are not needed to map a port.", source="Huawei LTE: async_upnp_client#113"
)
def scpd_broken() -> Hooks:
    """Serves service documents that end in the middle."""
    return Hooks(service=lambda text: text[: len(text) // 3])


# The state of the connection


@quirk(
    "description", reason="The status is not to be trusted where there is no choice.", source="F@st5684: miniupnp#665"
)
def status_says_disconnected() -> Hooks:
    """Says that its connection is down, although it is up and ports can be mapped."""
    return Hooks(action=_says("GetStatusInfo", NewConnectionStatus="Disconnected", NewUptime="0"))


@quirk("description", reason="It must not be needed to map a port.", source="F@st5684: go-nat#39")
def status_missing() -> Hooks:
    """Does not know GetStatusInfo."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action == "GetStatusInfo":
            raise UPnPError(401)
        return proceed(call)

    return Hooks(action=action)


# The writing


@quirk("description", reason="Elements are to be told by their local names.", source="Huawei: async_upnp_client#113")
def no_namespace() -> Hooks:
    """Writes its description without any namespace."""
    return Hooks(description=lambda text, site: re.sub(r' xmlns="[^"]*"', "", text))


@quirk("description", reason="Elements are to be told by their local names.", source="Huawei: tailscale#10911")
def wrong_namespace() -> Hooks:
    """Writes its description in the namespace of another organization."""
    return Hooks(
        description=lambda text, site: text.replace("urn:schemas-upnp-org:device-1-0", "urn:dslforum-org:device-1-0")
    )


@quirk("description", reason="Strict parsers refuse the whole document.", source="various: upnpclient#9")
def undeclared_prefix() -> Hooks:
    """Writes its elements with a prefix that is not declared."""
    return Hooks(description=lambda text, site: _TAG_NAME.sub(r"\1igd:\2", text))


@quirk("description", reason="C programs send the end of their strings along.", source="async_upnp_client#63")
def trailing_nul() -> Hooks:
    """Sends NUL bytes behind its description."""
    return Hooks(encoded=lambda document: document + b"\0\0")


@quirk("description", reason="They are not allowed in XML 1.0 at all.", source="D-Link DSL-3900: async_upnp_client#67")
def control_characters() -> Hooks:
    """Has control characters in the names that it gives itself."""
    return Hooks(description=_in_model_name("Emulated\x01\x08 \x1bIGD\x0b"))


@quirk("description", reason="What follows the root is nobody's business.", source="async_upnp_client#63")
def garbage_after_root() -> Hooks:
    """Sends other text behind its description."""
    return Hooks(encoded=lambda document: document + b"\r\n0\r\n<!-- end --> </html> & so on\n")


@quirk("description", reason="A declaration may only stand at the very beginning.", source="async_upnp_client#67")
def blank_lines_first() -> Hooks:
    """Sends blank lines before the XML declaration."""
    return Hooks(encoded=lambda document: b"\r\n \r\n\n" + document)


@quirk("description", reason="Names are to be compared without their case.", source="upnpclient#9")
def lower_case_tags() -> Hooks:
    """Writes all element names in lower case."""
    return Hooks(description=lambda text, site: _TAG_NAME.sub(lambda tag: tag[1] + tag[2].lower(), text))


@quirk("description", reason="White space around a value is not part of it.", source="upnpclient#27")
def padded_values() -> Hooks:
    """Puts line breaks and blanks around every value."""
    return Hooks(description=lambda text, site: _LEAF.sub("\\1\r\n\t\t\\3 \n\t\\4", text))


@quirk("description", reason="CDATA is text like any other.", source="various")
def cdata_values() -> Hooks:
    """Writes every value as a CDATA section."""
    return Hooks(description=lambda text, site: _LEAF.sub(r"\1<![CDATA[\3]]>\4", text))


@quirk("description", reason="People give names to their routers.", source="kaklakariada/portmapper#110")
def raw_ampersand() -> Hooks:
    """Has a bare ``&`` in the names that it gives itself."""
    return Hooks(description=_in_model_name("Smith & Sons &c; R&D"))


@quirk("description", reason="A parser that repairs finds the services all the same.", source="various")
def unclosed_tags() -> Hooks:
    """Omits end tags, of elements that no client needs."""
    return Hooks(description=lambda text, site: re.sub(r"</(modelDescription|serialNumber|specVersion)>", "", text))


@quirk("description", reason="A description may end before its end, behind the services.", source="various")
def cut_off() -> Hooks:
    """Sends a description that ends before its closing tags."""
    return Hooks(encoded=lambda document: document[: document.rindex(b"</service>") + len(b"</service>\n")])


@quirk("description", reason="Comments and instructions are no elements.", source="common")
def comments_everywhere() -> Hooks:
    """Has comments and processing instructions between its elements."""
    return Hooks(
        description=lambda text, site: re.sub(r"(<(?:serviceList|device|service)>)", r"\1<!-- x --><?y z?>", text)
    )


@quirk("description", reason="It is optional in XML 1.0.", source="common")
def no_declaration() -> Hooks:
    """Has no XML declaration."""
    return Hooks(description=lambda text, site: text.partition("?>")[2].lstrip())


@quirk("description", reason="Old firmware knows no Unicode.", source="common in Europe")
def latin_1() -> Hooks:
    """Is written in ISO 8859-1, and says so."""
    return _encoded("iso-8859-1", "iso-8859-1")


@quirk("description", reason="Every parser of XML must know it (XML 1.0 section 4.3.3).", source="rare")
def utf_16() -> Hooks:
    """Is written in UTF-16, and says so."""
    return _encoded("utf-16", "utf-16")


@quirk("description", reason="What is declared is not always true.", source="common")
def latin_1_as_utf_8() -> Hooks:
    """Is written in ISO 8859-1, and says that it is UTF-8."""
    return _encoded("iso-8859-1", "utf-8")


@quirk("description", reason="What is declared is not always true.", source="rare")
def utf_8_as_utf_16() -> Hooks:
    """Is written in UTF-8, and says that it is UTF-16."""
    return _encoded("utf-8", "utf-16")


@quirk("description", reason="A name that no parser knows is no reason to give up.", source="rare")
def unknown_encoding() -> Hooks:
    """Says that it is written in an encoding that does not exist."""
    return _encoded("utf-8", "utf8mb4")


@quirk("description", reason="It is allowed, and naive checks for '<' at the start stumble over it.", source="common")
def byte_order_mark() -> Hooks:
    """Begins with a byte-order mark."""
    return Hooks(encoded=lambda document: b"\xef\xbb\xbf" + document)


def _each_service(change: Callable[[Service], Service | None]) -> Callable[[Device, Site], Device]:
    return lambda device, site: device.with_each_service(change)


def _urls(change: Callable[[str, Site], str]) -> Callable[[Device, Site], Device]:
    def changed(device: Device, site: Site) -> Device:
        return device.with_each_service(
            lambda service: replace(
                service,
                control_url=change(service.control_url, site),
                event_url=change(service.event_url, site),
                scpd_url=change(service.scpd_url, site),
            )
        )

    return changed


def _beside(another: Service) -> Callable[[Device, Site], Device]:
    """Put a service in front of the WAN connection, on the same device."""

    def change(device: Device) -> Device:
        if any(service.is_wan_connection for service in device.services):
            return replace(device, services=(another, *device.services))
        return device

    return lambda device, site: device.with_each_device(change)


def _twin(device: Device, number: int) -> Device:
    """Return a WANConnectionDevice like another, with a separate connection that is down."""

    def change(service: Service) -> Service:
        return replace(
            service,
            service_id=f"{service.service_id}.{number}",
            control_url=f"{service.control_url}.{number}",
            event_url=f"{service.event_url}.{number}",
            connection=f"down {number}",
        )

    twin = device.with_each_service(change)
    return replace(twin, udn=f"{device.udn}-{number}", friendly_name=f"{device.friendly_name} {number}")


def _says(name: str, **values: str) -> Callable[[ActionCall, Proceed], Outputs]:
    """Perform an action, and change its output arguments."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        outputs = proceed(call)
        return {**outputs, **values} if call.action == name else outputs

    return action


def _with_url_base(base: Callable[[Site], str]) -> Callable[[str, Site], str]:
    def change(text: str, site: Site) -> str:
        return text.replace("</specVersion>", f"</specVersion>\n\t<URLBase>{base(site)}</URLBase>", 1)

    return change


def _in_model_name(name: str) -> Callable[[str, Site], str]:
    return lambda text, site: re.sub(r"<(modelName|friendlyName)>[^<]*<", lambda tag: f"<{tag[1]}>{name}<", text)


def _encoded(real: str, declared: str) -> Hooks:
    def description(text: str, site: Site) -> str:
        text = _in_model_name("Geraet: Ger\u00e4t, caf\u00e9")(text, site)
        return text.replace('<?xml version="1.0"?>', f'<?xml version="1.0" encoding="{declared}"?>')

    return Hooks(description=description, encoded=lambda document: document.decode("utf-8").encode(real))
