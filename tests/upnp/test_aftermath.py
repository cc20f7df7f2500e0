"""What calls leave behind that fail, or that nobody waits for: on gateways that do late what they were asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from aioigd import DeadlineError, IGDError, PortMapper
from aioigd.testing import EmulatedGateway, Quirk, UPnPError
from aioigd.testing.hooks import Exchange, Proceed
from aioigd.testing.http import End, Response, Transmission
from aioigd.testing.wan_connection import ActionCall, Outputs

from ..leases.virtual import run
from ..support import odd

ADD, DELETE = "AddPortMapping", "DeletePortMapping"


def done_late(seconds: float, *, is_busy: bool) -> Quirk[[]]:
    """A gateway that does so much later what it was asked for, then answers, and meanwhile, if busy, nothing else."""

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        if call.action != ADD:
            return proceed(call)
        asyncio.get_running_loop().call_later(seconds - 0.01, proceed, call)
        return {}

    def response(exchange: Exchange, response: Response) -> Response:
        is_slow = exchange.action == ADD or (is_busy and exchange.action)
        return response.delayed(seconds) if is_slow else response

    return odd(action=action, response=response)


@pytest.mark.parametrize(("is_busy", "overwrite"), [(True, True), (False, True), (False, False)])
def test_what_a_slow_gateway_does_after_the_deadline_is_taken_back(is_busy: bool, overwrite: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with EmulatedGateway(done_late(6.0, is_busy=is_busy), address=None) as gateway:
            async with PortMapper(source_address=gateway.address, timeout=5.0) as mapper:
                await mapper.get_gateway()
                began = loop.time()
                with pytest.raises(DeadlineError):
                    await mapper.add_port_mapping(8080, desc="x", duration=3600, overwrite=overwrite)
                assert loop.time() - began <= 5.5
            assert loop.time() - began <= 25.0
            await asyncio.sleep(60.0)
            assert gateway.mappings == [], "also not on other terms, which were asked for beside it"

    run(main(), debug=False)


def stubborn(end: End | None, *, is_secure: bool) -> Quirk[[]]:
    """A gateway that refuses to replace a mapping, lets it be deleted, and then neither makes the new one.

    ``end``: how it refuses that, with a fault if None. ``is_secure``: nor what leads to another host than the sender.
    """
    is_deleted = False

    def action(call: ActionCall, proceed: Proceed) -> Outputs:
        nonlocal is_deleted
        if call.action == DELETE:
            is_deleted = True
        if call.action == ADD:
            if not is_deleted:
                raise UPnPError(718)
            if call.arguments["NewPortMappingDescription"] != "before":
                raise UPnPError(501)
            if is_secure and call.arguments["NewInternalClient"] != call.sender:
                raise UPnPError(606)
        return proceed(call)

    def transmission(exchange: Exchange, transmission: Transmission) -> Transmission:
        is_new = exchange.arguments.get("NewPortMappingDescription") != "before"
        is_refused = exchange.action == ADD and is_deleted and is_new and end is not None
        return replace(transmission, steps=(), end=end) if is_refused and end is not None else transmission

    return odd(action=action, transmission=transmission)


@pytest.mark.parametrize("is_secure", [True, False])
@pytest.mark.parametrize("end", [None, End.RESET, End.HANG])
def test_what_was_deleted_in_vain_is_named_or_there_again(end: End | None, is_secure: bool) -> None:
    async def main() -> None:
        async with EmulatedGateway(stubborn(end, is_secure=is_secure), address=None) as gateway:
            gateway.add_mapping(8080, 81, desc="before", duration=7200)
            async with PortMapper(source_address=gateway.address) as mapper:
                await mapper.get_gateway()
                with pytest.raises(IGDError) as caught:
                    await mapper.add_port_mapping(8080, desc="new", duration=3600)
            assert [(one.desc, one.internal_port) for one in gateway.mappings] == [("before", 81)] * (not is_secure)
            is_there = end is None and not is_secure
            assert ("UDP port 8080 to" in caught.value.message) == (not is_there)

    run(main(), debug=False)


def test_a_mapping_of_this_program_that_made_room_in_vain_is_there_again() -> None:
    async def main() -> None:
        made = []

        def action(call: ActionCall, proceed: Proceed) -> Outputs:
            if call.action == ADD and call.arguments["NewInternalPort"] == "82" and DELETE not in made:
                raise UPnPError(718)
            made.append(call.action)
            return proceed(call)

        def response(exchange: Exchange, response: Response) -> Response:
            is_new = exchange.action == ADD and exchange.arguments["NewInternalPort"] == "82"
            return response.delayed(20.0) if is_new and DELETE in made else response

        async with EmulatedGateway(odd(action=action, response=response), address=None) as gateway:
            async with PortMapper(source_address=gateway.address, timeout=5.0) as mapper:
                await mapper.add_port_mapping(8080, 81, desc="before", duration=3600)
                call = asyncio.create_task(mapper.add_port_mapping(8080, 82, desc="new", duration=3600))
                await asyncio.sleep(0.5)
                assert [one.internal_port for one in gateway.mappings] == [82]
                call.cancel()
            assert [one.internal_port for one in gateway.mappings] == [81]

    run(main(), debug=False)
