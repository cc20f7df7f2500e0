"""The device tree of a gateway, and its documents: the description and the service documents (SCPD).

A tree is frozen; a quirk that changes the structure returns another tree, one that changes the syntax edits the text
that the functions of this module return (UDA 1.1 sections 2.3 and 2.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Self
from urllib.parse import urljoin, urlsplit
from uuid import NAMESPACE_URL, uuid5

from ..upnp.wire.xml import escape
from .service_specs import ServiceSpec

__all__ = ["Device", "Service", "Site", "describe_device", "describe_service", "gateway_device"]

MAIN: Final = "main"
"""The name of the WAN connection that works; a service of any other name is a connection that is down."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a gateway can be reached at present; its port changes with a restart."""

    address: str
    port: int

    @property
    def base(self) -> str:
        """The URL of its root, without a slash at the end."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"

    @property
    def location(self) -> str:
        """The URL of its description."""
        return f"{self.base}/rootDesc.xml"

    def target(self, reference: str) -> str:
        """Return path and query of a URL in the description, read relative to it (UDA 1.1 section 2.3)."""
        parts = urlsplit(urljoin(self.location, reference))
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True, slots=True)
class Service:
    """A service in a device tree.

    ``name`` and ``version`` say what it can do, ``service_type`` how it is announced; ``connection`` is the WAN
    connection that it controls.
    """

    name: str
    version: int
    service_type: str
    service_id: str
    scpd_url: str
    control_url: str
    event_url: str
    connection: str = MAIN

    @classmethod
    def standard(cls, name: str, version: int, label: str, connection: str = MAIN) -> Self:
        """Return a service as the UPnP Forum's documents have it; ``label`` makes id and URLs unique."""
        return cls(
            name=name,
            version=version,
            service_type=f"urn:schemas-upnp-org:service:{name}:{version}",
            service_id=f"urn:upnp-org:serviceId:{label}",
            scpd_url=f"/scpd/{label}.xml",
            control_url=f"/ctl/{label}",
            event_url=f"/evt/{label}",
            connection=connection,
        )

    @property
    def is_wan_connection(self) -> bool:
        """Whether ports are mapped here."""
        return self.name in ("WANIPConnection", "WANPPPConnection")

    def answers_to(self, service_type: str) -> bool:
        """Return whether a request or search may use a type: its own, or a lower version of it (UDA 1.1)."""
        stem, _, version = self.service_type.rpartition(":")
        other, _, wanted = service_type.rpartition(":")
        return service_type == self.service_type or (
            stem == other and wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= int(version)
        )


@dataclass(frozen=True, slots=True)
class Device:
    """A device in a device tree, the root itself or an embedded one."""

    device_type: str
    udn: str
    friendly_name: str
    model_name: str = "Emulated Internet Gateway Device"
    manufacturer: str = "aioigd"
    services: tuple[Service, ...] = ()
    devices: tuple[Device, ...] = ()

    def __iter__(self) -> Iterator[Device]:
        """Iterate over the device itself and all embedded ones, in document order."""
        yield self
        for device in self.devices:
            yield from device

    def all_services(self) -> Iterator[Service]:
        """Return the services of the device and of all embedded ones, in document order."""
        for device in self:
            yield from device.services

    def with_each_device(self, change: Callable[[Device], Device]) -> Device:
        """Return the tree with a change made to every device, embedded ones first."""
        return change(replace(self, devices=tuple(device.with_each_device(change) for device in self.devices)))

    def with_each_service(self, change: Callable[[Service], Service | None]) -> Device:
        """Return the tree with a change made to every service; None drops it."""

        def changed(device: Device) -> Device:
            services = [change(service) for service in device.services]
            return replace(device, services=tuple(service for service in services if service is not None))

        return self.with_each_device(changed)


def gateway_device(version: int, identity: str, friendly_name: str) -> Device:
    """Return the tree of an InternetGatewayDevice of version 1 or 2; ``identity`` makes its UDNs unique."""

    def device(name: str, label: str, services: tuple[Service, ...], devices: tuple[Device, ...] = ()) -> Device:
        return Device(
            device_type=f"urn:schemas-upnp-org:device:{name}:{version}",
            udn=f"uuid:{uuid5(NAMESPACE_URL, f'{identity}/{name}')}",
            friendly_name=label,
            services=services,
            devices=devices,
        )

    connection = [Service.standard("WANIPConnection", version, "WANIPConn1")]
    if version > 1:
        connection.append(Service.standard("WANIPv6FirewallControl", 1, "WANIPv6FwCtrl1"))
    wan_connection = device("WANConnectionDevice", "WAN Connection Device", tuple(connection))
    wan = device(
        "WANDevice",
        "WAN Device",
        (Service.standard("WANCommonInterfaceConfig", 1, "WANCommonIFC1"),),
        (wan_connection,),
    )
    return device(
        "InternetGatewayDevice",
        friendly_name,
        (Service.standard("Layer3Forwarding", 1, "L3Forwarding1"),),
        (wan,),
    )


def describe_device(root: Device, site: Site, config_id: int) -> str:
    """Return the description of a device tree (UDA 1.1 section 2.3)."""
    presentation = f"\t\t<presentationURL>{site.base}/</presentationURL>\n"
    lines = _device_lines(root, "\t").rstrip()
    body = lines.removesuffix("\t</device>") + presentation + "\t</device>"
    return (
        '<?xml version="1.0"?>\n'
        f'<root xmlns="urn:schemas-upnp-org:device-1-0" configId="{config_id}">\n'
        "\t<specVersion>\n\t\t<major>1</major>\n\t\t<minor>1</minor>\n\t</specVersion>\n"
        f"{body}\n</root>\n"
    )


def describe_service(spec: ServiceSpec, config_id: int) -> str:
    """Return the service document of a service type (UDA 1.1 section 2.5)."""
    actions = "".join(
        f"\t\t<action>\n\t\t\t<name>{action.name}</name>\n"
        + (
            "\t\t\t<argumentList>\n"
            + "".join(
                f"\t\t\t\t<argument><name>{argument.name}</name><direction>{direction}</direction>"
                f"<relatedStateVariable>{argument.variable}</relatedStateVariable></argument>\n"
                for direction, arguments in (("in", action.inputs), ("out", action.outputs))
                for argument in arguments
            )
            + "\t\t\t</argumentList>\n"
            if action.inputs or action.outputs
            else ""
        )
        + "\t\t</action>\n"
        for action in spec.actions.values()
    )
    variables = "".join(
        f'\t\t<stateVariable sendEvents="{"yes" if variable.evented else "no"}">'
        f"<name>{name}</name><dataType>{variable.type}</dataType>"
        + (
            "<allowedValueList>"
            + "".join(f"<allowedValue>{value}</allowedValue>" for value in variable.allowed)
            + "</allowedValueList>"
            if variable.allowed
            else ""
        )
        + "</stateVariable>\n"
        for name, variable in spec.variables.items()
    )
    return (
        '<?xml version="1.0"?>\n'
        f'<scpd xmlns="urn:schemas-upnp-org:service-1-0" configId="{config_id}">\n'
        "\t<specVersion>\n\t\t<major>1</major>\n\t\t<minor>1</minor>\n\t</specVersion>\n"
        f"\t<actionList>\n{actions}\t</actionList>\n"
        f"\t<serviceStateTable>\n{variables}\t</serviceStateTable>\n"
        "</scpd>\n"
    )


def _device_lines(device: Device, indent: str) -> str:
    inner = indent + "\t"
    lines = [
        f"{indent}<device>",
        f"{inner}<deviceType>{escape(device.device_type)}</deviceType>",
        f"{inner}<friendlyName>{escape(device.friendly_name)}</friendlyName>",
        f"{inner}<manufacturer>{escape(device.manufacturer)}</manufacturer>",
        f"{inner}<manufacturerURL>http://192.0.2.1/</manufacturerURL>",
        f"{inner}<modelDescription>{escape(device.model_name)}</modelDescription>",
        f"{inner}<modelName>{escape(device.model_name)}</modelName>",
        f"{inner}<modelNumber>1</modelNumber>",
        f"{inner}<serialNumber>1</serialNumber>",
        f"{inner}<UDN>{escape(device.udn)}</UDN>",
    ]
    if device.services:
        lines.append(f"{inner}<serviceList>")
        for service in device.services:
            lines += [
                f"{inner}\t<service>",
                f"{inner}\t\t<serviceType>{escape(service.service_type)}</serviceType>",
                f"{inner}\t\t<serviceId>{escape(service.service_id)}</serviceId>",
                f"{inner}\t\t<SCPDURL>{escape(service.scpd_url)}</SCPDURL>",
                f"{inner}\t\t<controlURL>{escape(service.control_url)}</controlURL>",
                f"{inner}\t\t<eventSubURL>{escape(service.event_url)}</eventSubURL>",
                f"{inner}\t</service>",
            ]
        lines.append(f"{inner}</serviceList>")
    if device.devices:
        lines.append(f"{inner}<deviceList>")
        lines += [_device_lines(child, inner + "\t").rstrip("\n") for child in device.devices]
        lines.append(f"{inner}</deviceList>")
    lines.append(f"{indent}</device>")
    return "\n".join(lines) + "\n"
