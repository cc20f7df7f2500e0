"""What is behind a description URL: which device, and on which of its services ports are mapped.

Nothing a device serves leads away from it: its description is read at the address that answered, and its
control URLs are taken at that same address.

A service is asked before it is chosen where there are several, or where it may be one of TR-064 (LAN-side
configuration): those of the DSL Forum have the same names, and want a password for every action. "Could not be asked"
is not "probably right": such a service is the last resort.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from ..core.calls import Operation
from ..core.standing import CONNECTED, DISCONNECTED, REFUSES, UNREACHABLE, standing
from ..errors import DeadlineError, IGDError, InvalidResponseError, RefusedError, TransportError
from ..models import Device
from ..results import IGDStatus, UPnPResult
from .net.http import HttpClient
from .soap_client import GatewayState, SoapClient
from .wire import wan_ip_connection
from .wire.description import Description, Service, parse_description
from .wire.http_reply import HttpReply
from .wire.url import HttpUrl

__all__ = ["Allowance", "ProbeResult", "probe"]

_MOST_COMPARED: Final = 4
"""WAN connection services that are asked for their status; real gateways have one or two."""
_STATUS_TIME: Final = 2.0
"""Seconds for one such question: what does not answer by then is not what we look for."""
_WANTS_PASSWORD: Final = frozenset({401, 403})
"""HTTP statuses of a service that refuses to talk."""


class ProbeResult(NamedTuple):
    """A device as its description has it. ``failure``: why that could not be read, None where it could."""

    device: Device
    description: Description | None = None
    failure: IGDError | None = None

    @property
    def is_usable(self) -> bool:
        """Whether ports may be mapped on it, if only as a last resort: some gateways deny that they are connected."""
        return bool(self.device.igd_control_url)

    @property
    def quality(self) -> tuple[bool, bool, int, int]:
        """How good a gateway it is among the descriptions of one host; the higher the better.

        First whether it is connected, as far as it was asked, and talks; then whether its service is one of UPnP;
        then the versions of its service and device.
        """
        device = self.device
        version = service_version(device.igd_service_type)
        device_version = service_version(device.device_type)
        return device.igd_status is IGDStatus.OK, not is_of_dsl_forum(device.igd_service_type), version, device_version


class Allowance:
    """What reading one description may cost; this one sets no limit. A search has a budget for all of them."""

    def take(self, size: int) -> bool:
        """Return whether so many bytes may be parsed, and note that they are."""
        return True

    def may_ask(self) -> bool:
        """Return whether one more service may be asked for its status, and note that it is."""
        return True


async def probe(
    http: HttpClient,
    url: HttpUrl,
    *,
    our_address: str,
    deadline: float,
    search_target: str = "",
    server: str = "",
    allowance: Allowance = Allowance(),  # noqa: B008 - it has no state
) -> ProbeResult:
    """Read a description and return what the device is; failures of the device are a result, too.

    ``our_address`` is the local address to ask from, ``deadline`` a time of the loop's clock, ``search_target``
    and ``server`` what the device said of itself when it was found, ``allowance`` what it may cost.
    """
    plain = Device(description_url=url.with_zone, service_type=search_target, igd_our_addr=our_address, server=server)
    try:
        reply = await http.request("GET", url, deadline=deadline, source=our_address)
        if not allowance.take(len(reply.body)):
            raise InvalidResponseError(f"{url} is not read: the descriptions of this search are too long in all")
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
    return ProbeResult(await _choose(http, known, description, deadline, allowance), description)


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


async def _choose(
    http: HttpClient, device: Device, description: Description, deadline: float, allowance: Allowance
) -> Device:
    """Return the device with the service filled in on which ports are to be mapped."""
    services = description.wan_connections
    controlled = [service for service in services if service.control_urls]
    if not services:
        return replace(device, igd_status=IGDStatus.NO_IGD)
    if not controlled:
        named = any(service.control_reference for service in services)
        return replace(device, igd_status=IGDStatus.INVALID_CONTROL if named else IGDStatus.NO_URLS)
    of_upnp = [service for service in controlled if not is_of_dsl_forum(service.service_type)]
    choices = [_controlled_by(device, service) for service in of_upnp or controlled]
    if of_upnp and len(choices) == 1:
        return choices[0]
    return await _connected(http, choices[:_MOST_COMPARED], deadline, allowance)


async def _connected(http: HttpClient, choices: Sequence[Device], deadline: float, allowance: Allowance) -> Device:
    """Return the choice that is connected to the internet: the first certain one, or the first of the best."""
    best, best_standing = choices[0], UNREACHABLE - 1
    for choice in choices:
        if not allowance.may_ask():
            break
        found = await _standing(http, choice, deadline, is_alone=len(choices) == 1)
        if found > best_standing:
            best, best_standing = choice, found
        if found >= CONNECTED:
            break
    if best_standing == REFUSES:
        return replace(best, igd_status=IGDStatus.INVALID_CONTROL)
    return best if best_standing > DISCONNECTED else replace(best, igd_status=IGDStatus.DISCONNECTED)


async def _standing(http: HttpClient, choice: Device, deadline: float, *, is_alone: bool) -> int:
    """Return how likely it is that this service leads to the internet; of one that ``is_alone``, whether it talks."""
    loop = asyncio.get_running_loop()
    client = SoapClient(http, choice, GatewayState())
    op = Operation(max(0.0, min(_STATUS_TIME, deadline - loop.time())))
    try:
        is_up = wan_ip_connection.read_connection_status(await client.call(wan_ip_connection.GET_STATUS_INFO, op))
    except (TransportError, DeadlineError):
        return UNREACHABLE
    except RefusedError as error:
        if error.result is UPnPResult.NOT_AUTHORIZED:
            return REFUSES
        is_up = None
    except InvalidResponseError as error:
        if error.status in _WANTS_PASSWORD or is_of_dsl_forum(choice.igd_service_type):
            return REFUSES
        is_up = None
    if is_alone:
        return CONNECTED  # that it talks was the question: some deny that they are connected
    if is_up is False:
        return DISCONNECTED
    try:
        values = await client.call(wan_ip_connection.GET_EXTERNAL_IP_ADDRESS, op)
        address = wan_ip_connection.read_external_address(values)
    except IGDError:
        return standing(is_up, None)
    return standing(is_up, address)


def is_of_dsl_forum(device_or_service_type: str) -> bool:
    """Return whether a type is one of TR-064, or of a router that writes its own like that (Huawei)."""
    return "dslforum" in device_or_service_type.lower()


def service_version(device_or_service_type: str) -> int:
    """Return the version in a device or service type, 1 where it has none."""
    version = device_or_service_type.rpartition(":")[2]
    return int(version) if version.isascii() and version.isdigit() and len(version) < 4 else 1


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
