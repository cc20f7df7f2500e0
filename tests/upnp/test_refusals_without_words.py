"""A gateway that cuts the connection, or says nothing, each time, although it answers other requests: it refuses.

On an emulated gateway with real sockets, in virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

import pytest

from aioigd import DeadlineError, IGDError, PortMapper, RefusedError, TransportError
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import End, Response, Transmission

from ..leases.virtual import run
from ..support import odd

Part = Literal["lease", "description", "either"]
GRANTED = {"lease": ("my server", 0), "description": ("", 3600), "either": ("", 0)}
ADD = "AddPortMapping"


def ways(part: Part) -> list[Quirk[...]]:
    return [
        quirks.refuses_by_reset(part),
        quirks.refuses_by_reset(part, closes=True),
        quirks.refuses_by_silence(part),
    ]


WAYS = [(part, quirk) for part in GRANTED for quirk in ways(part)]  # type: ignore[arg-type]


def on(main: Coroutine[Any, Any, None]) -> None:
    run(main, debug=False)


async def asked(mapper: PortMapper, port: int = 8080) -> tuple[str, int]:
    mapping = await mapper.add_port_mapping(port, desc="my server", duration=3600)
    return mapping.desc, mapping.duration


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize(("part", "quirk"), WAYS, ids=repr)
def test_other_terms_are_tried_within_the_time_of_a_call(part: Part, quirk: Quirk[...], is_known: bool) -> None:
    async def main() -> None:
        async with EmulatedGateway(quirk, address=None) as gateway:
            async with PortMapper(source_address=gateway.address) as mapper:
                if is_known:
                    await mapper.get_gateway()
                assert await asked(mapper) == GRANTED[part]
                assert gateway.count("POST") <= 24
                assert gateway.search_rounds <= 1 + is_known, "it has not moved"
                before = gateway.count("POST")
                assert await asked(mapper, 8081) == GRANTED[part]
                assert gateway.count("POST") == before + 1, "that is remembered"
            assert len(gateway.mappings) == 2

    on(main())


@pytest.mark.parametrize(("part", "quirk"), WAYS, ids=repr)
def test_a_lease_is_had_as_well(part: Part, quirk: Quirk[...]) -> None:
    async def main() -> None:
        async with EmulatedGateway(quirk, address=None) as gateway:
            async with (
                PortMapper(source_address=gateway.address) as mapper,
                mapper.lease(8080, desc="my server", duration=3600) as lease,
            ):
                assert [(one.desc, one.duration) for one in lease.mappings] == [GRANTED[part]]
            assert gateway.mappings == []

    on(main())


@pytest.mark.parametrize("end", [End.RESET, End.HANG])
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_refused_whatever_the_terms_ends_within_the_limits(end: End, overwrite: bool) -> None:
    def intercept(exchange: Exchange) -> Transmission | None:
        return Transmission((), end) if exchange.action == ADD else None

    async def main() -> None:
        async with EmulatedGateway(odd(intercept=intercept), address=None) as gateway:
            async with PortMapper(source_address=gateway.address) as mapper:
                began = asyncio.get_running_loop().time()
                with pytest.raises(DeadlineError if end is End.HANG else TransportError):
                    await mapper.add_port_mapping(8080, desc="my server", duration=3600, overwrite=overwrite)
                assert asyncio.get_running_loop().time() - began <= 10.5
                assert gateway.count(ADD) <= 12
            assert gateway.count("POST") <= 60

    on(main())


def test_a_mapping_that_was_made_without_an_answer_is_not_made_on_other_terms() -> None:
    async def main() -> None:
        async with (
            EmulatedGateway(quirks.resets_after_doing(times=99), address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            assert await asked(mapper) == ("my server", 3600)
            assert {one.duration for one in gateway.mappings} == {3600}

    on(main())


@pytest.mark.parametrize("end", [End.RESET, End.HANG])
def test_where_there_is_nothing_to_dislike_nothing_else_is_tried(end: End) -> None:
    def intercept(exchange: Exchange) -> Transmission | None:
        return Transmission((), end) if exchange.action == ADD else None

    async def main() -> None:
        async with (
            EmulatedGateway(odd(intercept=intercept), address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            with pytest.raises(IGDError):
                await mapper.add_port_mapping(8080)
            terms = {request.arguments["NewLeaseDuration"] for request in gateway.requests if request.action == ADD}
            assert terms == {"0"}

    on(main())


def test_a_gateway_that_is_only_busy_is_not_asked_on_all_terms() -> None:
    def response(exchange: Exchange, response: Response) -> Response:
        return response.delayed(3.0) if exchange.purpose == "control" else response

    def intercept(exchange: Exchange) -> Transmission | None:
        return Transmission((), End.HANG) if exchange.action == ADD else None

    async def main() -> None:
        async with (
            EmulatedGateway(odd(response=response, intercept=intercept), address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            with pytest.raises(DeadlineError):
                await asked(mapper)
            terms = {request.arguments["NewLeaseDuration"] for request in gateway.requests if request.action == ADD}
            assert terms == {"3600"}

    on(main())


def test_what_is_lost_because_there_were_too_many_at_once_is_no_refusal() -> None:
    async def main() -> None:
        async with (
            EmulatedGateway(quirks.one_connection_or_reset, quirks.slow(0.05), address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            granted = await asyncio.gather(*(asked(mapper, port) for port in range(8000, 8040)))
            assert set(granted) == {("my server", 3600)}
            assert len(gateway.mappings) == 40

    on(main())


@pytest.mark.parametrize("quirk", [quirks.refuses_by_reset, quirks.refuses_by_silence], ids=repr)
def test_a_gateway_that_chooses_the_port_is_asked_on_other_terms_as_well(quirk: Quirk[...]) -> None:
    async def main() -> None:
        async with EmulatedGateway(quirk, address=None, version=2) as gateway:
            async with (
                PortMapper(source_address=gateway.address) as mapper,
                mapper.lease(0, 9000, "my server", "TCP") as lease,
            ):
                assert [one.desc for one in lease.mappings] == ["my server"]
                assert len(gateway.mappings) == 1
                assert gateway.count(ADD) == 0
            assert gateway.mappings == []

    on(main())


@pytest.mark.parametrize("quirk", [quirks.refuses_by_reset, quirks.refuses_by_silence], ids=repr)
@pytest.mark.parametrize("is_known", [False, True])
def test_one_that_wants_what_was_not_asked_for_and_refuses_other_terms_without_words_is_served(
    quirk: Quirk[...], is_known: bool
) -> None:
    async def main() -> None:
        async with (
            EmulatedGateway(quirk, quirks.refuses_empty_descriptions, address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            if is_known:
                await mapper.get_gateway()
            assert (await mapper.add_port_mapping(8080)).desc == "aioigd"
            assert gateway.count(ADD) <= 9
            assert [(one.desc, one.duration) for one in gateway.mappings] == [("aioigd", 0)]

    on(main())


@pytest.mark.parametrize("quirk", [quirks.refuses_by_reset, quirks.refuses_by_silence], ids=repr)
def test_what_is_in_the_way_of_other_terms_is_removed(quirk: Quirk[...]) -> None:
    async def main() -> None:
        async with (
            EmulatedGateway(quirk, quirks.never_overwrites, address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            await mapper.add_port_mapping(8080, 9090, desc="of last time")
            async with PortMapper(source_address=gateway.address) as another:
                assert await asked(another) == ("my server", 0)
            assert [(one.desc, one.internal_port) for one in gateway.mappings] == [("my server", 8080)]

    on(main())


@pytest.mark.parametrize("quirk", [quirks.refuses_by_reset, quirks.refuses_by_silence], ids=repr)
@pytest.mark.parametrize(
    ("other", "desc"), [(quirks.empty_answers, "my server"), (quirks.descriptions_break_it, "")], ids=repr
)
def test_what_it_says_to_other_terms_may_not_be_soap(quirk: Quirk[...], other: Quirk[...], desc: str) -> None:
    async def main() -> None:
        async with (
            EmulatedGateway(quirk, other, quirks.never_overwrites, address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            assert await asked(mapper) == (desc, 0)
            assert gateway.count("DeletePortMapping") == 0, "what an answer without words has made is no conflict"
            assert len(gateway.mappings) == 1
            assert gateway.count(ADD) <= 12

    on(main())


@pytest.mark.parametrize("quirk", [quirks.refuses_by_reset, quirks.refuses_by_silence], ids=repr)
def test_what_it_says_of_other_terms_is_told_where_they_could_not_help(quirk: Quirk[...]) -> None:
    async def main() -> None:
        async with (
            EmulatedGateway(quirk, quirks.ports_taken(8080, 8080), address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            with pytest.raises(RefusedError) as info:
                await asked(mapper)
            assert info.value.error_code == 729

    on(main())


def test_one_that_answers_nothing_any_more_is_searched_for_within_the_call() -> None:
    described: list[Exchange] = []

    def intercept(exchange: Exchange) -> Transmission | None:
        if exchange.purpose == "description":
            described.append(exchange)
        return Transmission((), End.HANG) if exchange.purpose == "control" and len(described) == 1 else None

    async def main() -> None:
        async with (
            EmulatedGateway(odd(intercept=intercept), address=None) as gateway,
            PortMapper(source_address=gateway.address) as mapper,
        ):
            await mapper.get_gateway()
            desc, _ = await asked(mapper)
            assert gateway.search_rounds == 2
            assert [one.desc for one in gateway.mappings] == [desc] == ["my server"]

    on(main())
