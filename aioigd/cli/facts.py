"""What the library says, as JSON has it: the documented shapes, and the only place that knows them."""

from __future__ import annotations

from typing import Any

from ..models import Device, PortMapping

__all__ = ["device_facts", "mapping_facts"]


def device_facts(device: Device) -> dict[str, Any]:
    """Return a device."""
    return {
        "friendly_name": device.friendly_name,
        "manufacturer": device.manufacturer,
        "model_name": device.model_name,
        "description_url": device.description_url,
        "service_type": device.service_type,
        "igd_service_type": device.igd_service_type,
        "igd_control_url": device.igd_control_url,
        "igd_our_addr": device.igd_our_addr,
        "igd_status": device.igd_status.name,
        "is_valid_gateway": device.is_valid_gateway(),
        "udn": device.udn,
        "server": device.server,
    }


def mapping_facts(mapping: PortMapping) -> dict[str, Any]:
    """Return a mapping."""
    return {
        "proto": mapping.proto,
        "external_port": mapping.external_port,
        "internal_client": mapping.internal_client,
        "internal_port": mapping.internal_port,
        "remote_host": mapping.remote_host,
        "desc": mapping.desc,
        "duration": mapping.duration,
        "enabled": mapping.enabled,
    }
