"""``--timeout`` bounds a whole run, and what was done until then is shown."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from aioigd import DeadlineError
from aioigd.cli.runner import Limit, outcomes
from aioigd.testing import EmulatedGateway, quirks
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import End, Response, Transmission

from ..support import odd
from .conftest import Outcome, Run, patient, there

OVER = r"\d+(\.\d)? s of --timeout are over"


def slow_but_for_the_first(count: int, action: str, seconds: float = 0.3) -> Any:
    """A gateway that answers the first requests for an action at once, and takes its time for the others."""
    seen = []

    def respond(exchange: Exchange, response: Response) -> Response:
        if exchange.action != action:
            return response
        seen.append(exchange)
        return response if len(seen) <= count else replace(response, delay=seconds)

    return odd(response=respond)


def silent_but_for_the_first(count: int, action: str) -> Any:
    """A gateway that does what the first requests for an action ask for, and never hears of the others."""
    seen = []

    def hang(exchange: Exchange) -> Transmission | None:
        if exchange.action != action:
            return None
        seen.append(exchange)
        return None if len(seen) <= count else Transmission((), End.HANG)

    return odd(intercept=hang)


@pytest.fixture
async def slow_table() -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(slow_but_for_the_first(2, "GetGenericPortMappingEntry"), address=None) as gateway:
        for port in range(8000, 8400):
            gateway.add_mapping(port)
        yield gateway


async def timed(run: Run, gateway: EmulatedGateway, *words: object, limit: float = 1.5) -> Outcome:
    """Run the command with a limit of some seconds; nobody is searched for, as that takes long on a busy machine."""
    return await run(*words, *there(gateway), "--location", gateway.location, "--timeout", patient(limit))


@pytest.mark.waits
class TestList:
    async def test_a_slow_table_is_shown_as_far_as_it_came(self, run: Run, slow_table: EmulatedGateway) -> None:
        outcome = await timed(run, slow_table, "list")
        assert outcome.code == 124
        assert "8001" in outcome.out
        assert re.search(r"forwards at least \d+ ports", outcome.out)
        assert re.search(rf"The list broke off: The {OVER}", outcome.err)

    async def test_programs_see_it_too(self, run: Run, slow_table: EmulatedGateway) -> None:
        outcome = await timed(run, slow_table, "list", "--json")
        assert outcome.code == 124
        assert 2 <= len(outcome.document["mappings"]) < 400
        assert re.fullmatch(f"the {OVER}", outcome.document["error"]["message"])


@pytest.mark.waits
class TestAdd:
    async def test_ports_for_which_there_is_no_time_are_not_opened(self, run: Run) -> None:
        async with EmulatedGateway(silent_but_for_the_first(5, "AddPortMapping"), address=None) as gateway:
            outcome = await timed(run, gateway, "add", "8000-8040")
            assert outcome.code == 124
            assert "TCP 8000-8004" not in outcome.err
            assert re.search(f"not opened: the {OVER}", outcome.err)
            assert f"{len(gateway.mappings)} open on Emulated gateway" in outcome.out

    async def test_programs_are_told_of_each_port(self, run: Run) -> None:
        async with EmulatedGateway(silent_but_for_the_first(5, "AddPortMapping"), address=None) as gateway:
            document = (await timed(run, gateway, "add", "8000-8040", "--json")).document
        assert 5 <= len(document["mappings"]) < 41
        assert len(document["mappings"]) + len(document["failures"]) == 41

    async def test_keeping_ends_if_it_cannot_begin_in_time(self, run: Run) -> None:
        def hang(exchange: Exchange) -> Transmission | None:
            is_silent = exchange.action in ("AddPortMapping", "GetSpecificPortMappingEntry")
            return Transmission((), End.HANG) if is_silent else None

        async with EmulatedGateway(odd(intercept=hang), address=None) as gateway:
            outcome = await timed(run, gateway, "add", "8000-8001", "--keep")
            assert outcome.code in (1, 124)  # the call's own limit is a little shorter
            assert gateway.mappings == []


@pytest.mark.waits
async def test_deleting_says_what_it_did_not_get_to(run: Run) -> None:
    async with EmulatedGateway(slow_but_for_the_first(2, "DeletePortMapping"), address=None) as gateway:
        for port in range(8000, 8400):
            gateway.add_mapping(port, proto="TCP")
        outcome = await timed(run, gateway, "delete", "8000-8399")
    assert outcome.code == 124
    assert "closed on Emulated gateway" in outcome.out
    assert "perhaps not closed" in outcome.err


@pytest.mark.waits
async def test_the_status_is_shown_without_what_was_silent(run: Run) -> None:
    async with EmulatedGateway(
        slow_but_for_the_first(0, "GetNATRSIPStatus", 5.0),
        address=None,
    ) as gateway:
        outcome = await timed(run, gateway, "status")
    assert outcome.code in (0, 124)
    assert "11.22.33.44" in outcome.out


@pytest.mark.waits
async def test_the_doctor_tells_what_it_has_found(run: Run) -> None:
    async with EmulatedGateway(slow_but_for_the_first(0, "GetGenericPortMappingEntry"), address=None) as gateway:
        for port in range(8000, 8400):
            gateway.add_mapping(port)
        outcome = await timed(run, gateway, "doctor")
    assert outcome.code == 124
    assert "11.22.33.44" in outcome.out
    assert "All is well" not in outcome.out
    assert "Not all was looked into" in outcome.err


@pytest.mark.parametrize("words", ["status", "list", "add 80", "delete 80", "pinhole list", "watch", "add 80 --keep"])
@pytest.mark.waits
async def test_a_description_that_never_comes_ends_every_command(run: Run, words: str) -> None:
    async with EmulatedGateway(quirks.silent, address=None) as gateway:
        outcome = await timed(run, gateway, *words.split(), limit=0.3)
    assert outcome.code in (1, 3, 124)
    assert "Traceback" not in outcome.err


class TestLimit:
    async def test_without_one_everything_is_done(self) -> None:
        limit = Limit(None)
        async with limit.step():
            await asyncio.sleep(0)
        assert not limit.is_over

    async def test_steps_share_it(self) -> None:
        limit = Limit(0.05)
        done = []
        for number in range(3):
            async with limit.step():
                await asyncio.sleep(0.01 if number == 0 else 10)
                done.append(number)
        assert done == [0]
        assert limit.is_over

    async def test_a_step_that_has_to_be_done_raises(self) -> None:
        with pytest.raises(DeadlineError, match=r"the 0\.01 s of --timeout are over"):
            async with Limit(0.01).whole_step():
                await asyncio.sleep(10)

    async def test_another_timeout_is_not_taken_for_it(self) -> None:
        with pytest.raises(TimeoutError):
            async with Limit(60).step():
                raise TimeoutError

    async def test_calls_that_do_not_come_to_begin_leave_nothing(self) -> None:
        limit = Limit(1e-9)

        async def call(number: int) -> int:
            return number

        assert await outcomes(limit, call, [1, 2]) == {}
        assert await outcomes(Limit(60), call, [2, 1]) == {2: 2, 1: 1}
