"""The catalogue is complete, each quirk in it has its reason, its source and its proof, and they combine."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from aioigd.testing import EmulatedGateway, Hooks, Quirk, quirk, quirks
from aioigd.testing.hooks import Exchange
from aioigd.testing.http import Response
from aioigd.testing.quirks import CATALOGUE
from aioigd.upnp.wire.soap import Answer
from aioigd.upnp.wire.ssdp import parse_datagram

from . import (
    test_quirks_description,
    test_quirks_discovery,
    test_quirks_hostile,
    test_quirks_http,
    test_quirks_pcp,
    test_quirks_soap,
)
from .client import call, get, mapping, post, search, send
from .pcp_client import ask, pcp_request

DEFAULTS = [each for name, each in CATALOGUE.items() if name == each.name]


def test_every_quirk_has_its_proof() -> None:
    proven = {
        *test_quirks_discovery.proof,
        *test_quirks_description.proof,
        *test_quirks_description.MARKS,
        *test_quirks_http.proof,
        *test_quirks_soap.proof,
        *test_quirks_soap.REFUSALS,
        *test_quirks_soap.ADDRESSES,
        *test_quirks_soap.FAULTS,
        *test_quirks_soap.ANSWERS,
        "forgets_early",
        "refuses_ranges",
        "refuses_renewals",
        "renewals_keep_end",
        *test_quirks_hostile.proof,
        *test_quirks_hostile.DOCTYPES,
        *test_quirks_pcp.proof,
    }
    assert proven == {each.name for each in DEFAULTS}


@pytest.mark.parametrize("each", CATALOGUE.values(), ids=repr)
def test_a_quirk_says_what_it_does_and_why(each: Quirk[...]) -> None:
    assert each.summary.endswith(".")
    assert each.reason.endswith(".")
    assert each.source
    assert each.hooks() != Hooks()
    assert getattr(quirks, each.name).name == each.name


def test_names_are_those_of_the_functions_and_parameters_show_in_the_repr() -> None:
    assert quirks.refuses_leases.name == "refuses_leases"
    assert repr(quirks.refuses_leases) == "refuses_leases"
    assert repr(quirks.refuses_leases(402)) == "refuses_leases(code=402)"
    assert CATALOGUE["list_ends_with(code=501)"].name == "list_ends_with"
    assert {each.family for each in DEFAULTS} == {"discovery", "description", "http", "soap", "hostile", "pcp"}


def test_a_wrong_parameter_is_an_error_where_it_is_given() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        quirks.refuses_leases(nonsense=1)  # type: ignore[call-arg]


async def test_what_a_quirk_remembers_belongs_to_one_gateway() -> None:
    lost = quirks.first_searches_lost(1)
    for _ in range(2):
        async with EmulatedGateway(lost, address=None) as gateway:
            assert await search(gateway.address) == []
            assert await search(gateway.address) != []


async def test_a_new_quirk_is_a_function_of_a_few_lines() -> None:
    @quirk("http", reason="To show it.", source="this test")
    def polite(words: str = "please") -> Hooks:
        """Says something nice in every response."""
        return Hooks(response=lambda exchange, response: response.having("X-Words", words))

    async with EmulatedGateway(polite("thank you"), address=None) as gateway:
        assert b"X-Words: thank you" in (await send(gateway, get())).head


FAMILIES = {
    family: [each for each in DEFAULTS if each.family == family and not each.hopeless]
    for family in ("discovery", "description", "http", "soap")
}


@pytest.mark.parametrize("pair", list(itertools.combinations(FAMILIES, 2)), ids="-".join)
@pytest.mark.waits
async def test_quirks_of_different_families_combine(pair: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """Each quirk of one family with one of the other, in turn: none makes the gateway stumble."""
    one, other = (FAMILIES[family] for family in pair)
    for first, second in zip(one, itertools.cycle(other), strict=False):
        async with EmulatedGateway(first, second, address=None) as gateway:
            await search(gateway.address, patience=0.005)
            await send(gateway, get(), patience=0.005)
            await send(gateway, post("AddPortMapping", mapping(lease=60)), patience=0.005)
    assert caplog.records == []


async def test_quirks_of_pcp_combine(caplog: pytest.LogCaptureFixture) -> None:
    of_pcp = [each for each in DEFAULTS if each.family == "pcp" and not each.hopeless]
    for first, second in itertools.combinations(of_pcp, 2):
        async with EmulatedGateway(first, second, protocols=("pcp", "nat-pmp")) as gateway:
            for asked in (bytes(2), pcp_request(gateway.address), pcp_request(gateway.address)[:-1]):
                await ask(gateway, asked, patience=0)
    assert caplog.records == []


async def test_a_gateway_with_a_dozen_quirks_still_maps_a_port() -> None:
    dozen = (
        quirks.bare_lf_replies,
        quirks.lower_case_headers,
        quirks.duplicate_headers,
        quirks.replies_from_other_port,
        quirks.junk_before_replies,
        quirks.lower_case_tags,
        quirks.padded_values,
        quirks.trailing_nul,
        quirks.no_namespace,
        quirks.http_1_0,
        quirks.no_content_length,
        quirks.short_descriptions_only,
    )
    async with EmulatedGateway(*dozen, address=None) as gateway:
        replies = [parse_datagram(reply.payload) for reply in await search(gateway.address, "upnp:rootdevice")]
        assert gateway.location in [reply.location for reply in replies if reply]
        assert isinstance(await call(gateway, "AddPortMapping", mapping()), Answer)
        assert len(gateway.mappings) == 1


async def test_a_quirk_that_fails_is_reported_and_ends_the_connection() -> None:
    @quirk("http", reason="To show it.", source="this test")
    def broken() -> Hooks:
        """Fails at every response."""

        def response(exchange: Exchange, response: Response) -> Response:
            raise LookupError("a slip of its author")

        return Hooks(response=response)

    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
    async with EmulatedGateway(broken, address=None) as gateway:
        reply = await send(gateway, get())
    assert reply.received == b""
    assert [str(report) for report in reports] == ["a slip of its author"]
