"""What is behind a description URL: which device, and on which of its services ports are mapped.

Nothing a device serves leads away from it: its description is read at the address that answered, and its
control URLs are taken at that same address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from ..core.calls import Operation
from ..errors import DeadlineError, IGDError, InvalidResponseError, TransportError
from ..models import Device
from ..results import IGDStatus
from .net.http import HttpClient
from .soap_client import GatewayState, SoapClient
from .wire import wan_ip_connection
from .wire.description import Description, Service, parse_description
from .wire.http_reply import HttpReply
from .wire.url import HttpUrl

__all__ = ["ProbeResult", "probe"]

_MOST_COMPARED: Final = 4
"""WAN connection services that are asked for their status; real gateways have one or two."""
_STATUS_TIME: Final = 2.0
"""Seconds for one such question: what does not answer by then is not what we look for."""

_SILENT, _DISCONNECTED, _UNKNOWN, _CERTAIN = -1, 0, 1, 3
"""Scores of a service: one point each for saying that it is connected and for having a public address."""


class ProbeResult(NamedTuple):
    """A device as its description has it. ``failure``: why that could not be read, None where it could."""

    device: Device
    description: Description | None = None
    failure: IGDError | None = None

    @property
    def is_usable(self) -> bool:
        """Whether ports may be mapped on it, if only as a last resort: some gateways deny that they are connected."""
        return bool(self.device.igd_control_url)


async def probe(
    http: HttpClient, url: HttpUrl, *, our_address: str, deadline: float, search_target: str = "", server: str = ""
) -> ProbeResult:
    """Read a description and return what the device is; failures of the device are a result, too.

    ``our_address`` is the local address to ask from, ``deadline`` a time of the loop's clock, ``search_target``
    and ``server`` what the device said of itself when it was found.
    """
    plain = Device(description_url=url.with_zone, service_type=search_target, igd_our_addr=our_address, server=server)
    try:
        reply = await http.request("GET", url, deadline=deadline, source=our_address)
        description = _read(reply, url)
    except InvalidResponseError as error:
        status = getattr(error, "igd_status", IGDStatus.UNKNOWN_DEVICE)
        return ProbeResult(replace(plain, igd_status=status), failure=error)
    except (TransportError, DeadlineError) as error:
        return ProbeResult(replace(plain, igd_status=IGDStatus.HTTP_ERROR), failure=error)
    known = Device(
        description_url=url.with_zone,
        service_type=search_target or description.device_type,
        igd_our_addr=our_address,
        friendly_name=description.friendly_name,
        manufacturer=description.manufacturer,
        model_name=description.model_name,
        udn=description.udn,
        device_type=description.device_type,
        serial_number=description.serial_number,
        model_number=description.model_number,
        presentation_url=description.presentation_url,
        server=server,
    )
    return ProbeResult(await _choose(http, known, description, deadline), description)


class _EmptyError(InvalidResponseError):
    igd_status = IGDStatus.HTTP_EMPTY


class _StatusError(InvalidResponseError):
    igd_status = IGDStatus.HTTP_ERROR


def _read(reply: HttpReply, url: HttpUrl) -> Description:
    if not reply.body.strip(b" \t\r\n\0"):
        raise _EmptyError(f"the description at {url} is empty (HTTP status {reply.status})", status=reply.status)
    try:
        return parse_description(reply.body, url)
    except InvalidResponseError as error:
        if 200 <= reply.status < 300 or reply.status == 0:
            raise
        raise _StatusError(f"no description at {url}: HTTP status {reply.status}", status=reply.status) from error


async def _choose(http: HttpClient, device: Device, description: Description, deadline: float) -> Device:
    """Return the device with the service filled in on which ports are to be mapped."""
    services = description.wan_connections
    controlled = [service for service in services if service.control_urls]
    if not services:
        return replace(device, igd_status=IGDStatus.NO_IGD)
    if not controlled:
        named = any(service.control_reference for service in services)
        return replace(device, igd_status=IGDStatus.INVALID_CONTROL if named else IGDStatus.NO_URLS)
    choices = [_controlled_by(device, service) for service in controlled]
    if len(choices) == 1:
        return choices[0]
    return await _connected(http, choices[:_MOST_COMPARED], deadline)


async def _connected(http: HttpClient, choices: Sequence[Device], deadline: float) -> Device:
    """Return the choice that is connected to the internet: the first certain one, or the first of the best."""
    best, best_score = choices[0], _SILENT - 1
    for choice in choices:
        score = await _score(http, choice, deadline)
        if score > best_score:
            best, best_score = choice, score
        if score >= _CERTAIN:
            break
    return best if best_score > _DISCONNECTED else replace(best, igd_status=IGDStatus.DISCONNECTED)


async def _score(http: HttpClient, choice: Device, deadline: float) -> int:
    """Return how likely it is that this service is the one that leads to the internet."""
    loop = asyncio.get_running_loop()
    client = SoapClient(http, choice, GatewayState())
    op = Operation(max(0.0, min(_STATUS_TIME, deadline - loop.time())))
    try:
        up = wan_ip_connection.read_connection_status(await client.call(wan_ip_connection.GET_STATUS_INFO, op))
    except (TransportError, DeadlineError):
        return _SILENT
    except IGDError:
        up = None
    if up is False:
        return _DISCONNECTED
    try:
        address = wan_ip_connection.read_external_address(
            await client.call(wan_ip_connection.GET_EXTERNAL_IP_ADDRESS, op)
        )
    except IGDError:
        return _UNKNOWN + bool(up)
    return _UNKNOWN + bool(up) + address.is_global


def _controlled_by(device: Device, service: Service) -> Device:
    first, *others = (url.with_zone for url in service.control_urls)
    return replace(
        device,
        igd_status=IGDStatus.OK,
        igd_control_url=first,
        igd_service_type=service.service_type,
        alternative_control_urls=tuple(others),
        event_urls=tuple(url.with_zone for url in service.event_urls),
    )
