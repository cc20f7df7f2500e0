"""What is behind a description URL: which device, and on which of its services ports are mapped.

Nothing a device serves leads away from it: its description is read at the address that answered, and its
control URLs are taken at that same address.

A service is asked before it is chosen where there are several, or where it may be one of TR-064 (LAN-side
configuration): those of the DSL Forum have the same names, and want a password for every action. "Could not be asked"
is not "probably right": such a service is the last resort. Where several are asked, the next one is once the one before
has turned out not to be connected, or while it is silent: a slow gateway is not taken for one that hangs. If none of
them is known in time to be connected, as the gateway is slow, the choice is a guess (:attr:`ProbeResult.is_guess`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
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
_PATIENCE: Final = 0.5
"""Seconds for which such a service may be silent before the next one is asked beside it."""
_SILENCE: Final = 1.0
"""Seconds for which one may be silent where another one has answered before that; then it is asked once more."""
_WANTS_PASSWORD: Final = frozenset({401, 403})
"""HTTP statuses of a service that refuses to talk."""


class ProbeResult(NamedTuple):
    """A device as its description has it.

    ``failure``: why that could not be read, None where it could. ``is_guess``: it has several WAN connections, and is
    too slow to have said which of them is up.
    """

    device: Device
    description: Description | None = None
    failure: IGDError | None = None
    is_guess: bool = False

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
    choice, is_guess = await _choose(http, known, description, deadline, allowance)
    return ProbeResult(choice, description, is_guess=is_guess)


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
) -> tuple[Device, bool]:
    """Return the device with the service filled in on which ports are to be mapped, and whether that is a guess."""
    services = description.wan_connections
    controlled = [service for service in services if service.control_urls]
    if not services:
        return replace(device, igd_status=IGDStatus.NO_IGD), False
    if not controlled:
        named = any(service.control_reference for service in services)
        return replace(device, igd_status=IGDStatus.INVALID_CONTROL if named else IGDStatus.NO_URLS), False
    of_upnp = [service for service in controlled if not is_of_dsl_forum(service.service_type)]
    choices = [_controlled_by(device, service) for service in of_upnp or controlled]
    if of_upnp and len(choices) == 1:
        return choices[0], False
    return await _connected(http, choices[:_MOST_COMPARED], deadline, allowance)


async def _connected(
    http: HttpClient, choices: Sequence[Device], deadline: float, allowance: Allowance
) -> tuple[Device, bool]:
    """Return the choice that is connected to the internet, and whether that is a guess.

    It is the first certain one, or the first of the best.
    """
    asked: list[_Question] = []
    try:
        await _ask_all(
            [_Question(http, choice, is_alone=len(choices) == 1) for choice in choices], asked, deadline, allowance
        )
    finally:
        tasks = [task for question in asked for task in question.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    best = max(asked, key=lambda question: question.standing, default=None)
    if best is None:
        return replace(choices[0], igd_status=IGDStatus.DISCONNECTED), False
    if best.standing == REFUSES:
        return replace(best.choice, igd_status=IGDStatus.INVALID_CONTROL), False
    if best.standing > DISCONNECTED:
        return best.choice, False
    silent = [question.choice for question in asked if question.standing == UNREACHABLE]
    is_guess = bool(silent) and len(choices) > 1 and not any(question.was_prompt for question in asked)
    # Of a slow gateway, rather one that has not said it yet than one that says that it is not connected.
    return replace(silent[0] if is_guess else best.choice, igd_status=IGDStatus.DISCONNECTED), is_guess


async def _ask_all(
    questions: Sequence[_Question], asked: list[_Question], deadline: float, allowance: Allowance
) -> None:
    """Ask some services until one of them is connected, all have answered, or that time. ``asked`` takes who was."""
    loop = asyncio.get_running_loop()
    for question in questions:
        if not allowance.may_ask():
            break
        asked.append(question)
        question.ask(deadline)
        if await _one_is_connected(asked, min(deadline, loop.time() + _PATIENCE)):
            return
    if await _one_is_connected(asked, deadline):
        return
    is_prompt = any(question.was_prompt for question in asked)
    for question in asked:
        # It hung, or was cut because the gateway takes one connection at a time, and another was asked.
        is_lost = question.standing == UNREACHABLE and (question.was_cut or is_prompt)
        if is_lost and loop.time() < deadline and allowance.may_ask():
            question.ask(deadline)
            if await _one_is_connected(asked, deadline):
                return


async def _one_is_connected(asked: Sequence[_Question], until: float) -> bool:
    """Wait until one of some services is connected, all have answered, or that time; return whether one is."""
    loop = asyncio.get_running_loop()
    while True:
        if any(question.standing >= CONNECTED for question in asked):
            return True
        pending = [question for question in asked if not question.tasks[-1].done()]
        if pending and any(question.was_prompt for question in asked):
            until = min(until, max(question.asked_at for question in pending) + _SILENCE)
        if not pending or loop.time() >= until:
            return False
        tasks = [question.tasks[-1] for question in pending]
        await asyncio.wait(tasks, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)


class _Question:
    """How likely it is that a service leads to the internet; of one that ``is_alone``, whether it talks."""

    def __init__(self, http: HttpClient, choice: Device, *, is_alone: bool) -> None:
        self.choice = choice
        self.standing = UNREACHABLE
        """What is known of that so far."""
        self.tasks: list[asyncio.Task[None]] = []
        """That ask; all but the last have been given up."""
        self.asked_at = 0.0
        """On the loop's clock."""
        self.was_prompt = False
        """Whether it has answered before the next one was asked beside it."""
        self.was_cut = False
        self._client = SoapClient(http, choice, GatewayState())
        self._is_alone = is_alone

    def ask(self, deadline: float) -> None:
        """Begin to ask; what was asked before is given up."""
        for task in self.tasks:
            task.cancel()
        self.asked_at = asyncio.get_running_loop().time()
        op = Operation(max(0.0, deadline - self.asked_at))
        op.seconds_needed = op.timeout  # one request for all of the time: a slow gateway is not asked twice
        self.tasks.append(asyncio.create_task(self._ask(op)))

    async def _ask(self, op: Operation) -> None:
        try:
            is_up = wan_ip_connection.read_connection_status(
                await self._client.call(wan_ip_connection.GET_STATUS_INFO, op)
            )
        except (TransportError, DeadlineError) as error:
            self.was_cut = isinstance(error, TransportError)
            return
        except RefusedError as error:
            if error.result is UPnPResult.NOT_AUTHORIZED:
                self.standing = REFUSES
                return
            is_up = None
        except InvalidResponseError as error:
            if error.status in _WANTS_PASSWORD or is_of_dsl_forum(self.choice.igd_service_type):
                self.standing = REFUSES
                return
            is_up = None
        self.was_prompt = asyncio.get_running_loop().time() < self.asked_at + _PATIENCE
        if self._is_alone:
            self.standing = CONNECTED  # that it talks was the question: some deny that they are connected
            return
        self.standing = standing(is_up, None)
        if is_up is not False:
            with suppress(IGDError):
                values = await self._client.call(wan_ip_connection.GET_EXTERNAL_IP_ADDRESS, op)
                self.standing = standing(is_up, wan_ip_connection.read_external_address(values))


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
