"""Every quirk of the catalogue that leaves a router usable is served, alone and with any of another family."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from aioigd import IGDError, PortMapper
from aioigd.testing import EmulatedGateway, Quirk, quirks

from .served import USABLE, Served, pairs, serve, serve_all
from .table import PCP_HEAD, pcp_rows

pytestmark = pytest.mark.waits

SAMPLE = 150
QUICKER: dict[str, tuple[str | Quirk[...], float]] = {
    "hangs_at_first": ("hangs_at_first", 3.0),
    "refuses_by_reset": ("refuses_by_reset", 20.0),
    "refuses_by_silence": ("refuses_by_silence", 3.0),
    "slow_actions": (quirks.slow_actions(0.3), 20.0),
    "slow_add": (quirks.slow_add(0.2), 20.0),
    "slow_delete": (quirks.slow_delete(0.8), 20.0),
    "late_replies": (quirks.late_replies(0.5), 20.0),
}
"""Those that make everybody wait for seconds, with shorter waits, and the timeout of the mapper; as they are they are
served in the long run."""
TABLE = Path(__file__).parents[2] / "docs" / "routers.md"
HOPELESS = [name for name, each in quirks.CATALOGUE.items() if each.hopeless and each.family not in ("hostile", "pcp")]


async def unserved(combined: Sequence[Sequence[str]]) -> list[Served]:
    """Return the routers that are not served, not even when this machine has nothing else to do."""
    at_first = [each for each in await serve_all(combined) if each.problem]
    return [each for each in [await serve(*busy.names) for busy in at_first[:10]] if each.problem] + at_first[10:]


async def test_a_router_of_good_manners_takes_one_request_of_each_kind() -> None:
    served = await serve()
    assert served.problem == ""
    assert served.requests == (1, 1, 1)


@pytest.mark.parametrize("name", [name for name in USABLE if name not in QUICKER])
async def test_a_router_with_one_quirk_is_served(name: str) -> None:
    served = await serve(name)
    assert served.problem == ""
    assert served.posts <= 12


@pytest.mark.parametrize("name", QUICKER)
@pytest.mark.waits
async def test_a_router_that_makes_us_wait_a_little_is_served(name: str) -> None:
    quirk, timeout = QUICKER[name]
    served = await serve(quirk, timeout=timeout)
    assert served.problem == ""
    assert served.posts <= 12


@pytest.mark.long
@pytest.mark.parametrize("name", QUICKER)
@pytest.mark.virtual_time
async def test_a_router_that_makes_us_wait_for_seconds_is_served(name: str) -> None:
    served = await serve(name)
    assert served.problem == ""
    assert served.posts <= 12


@pytest.mark.waits
async def test_routers_with_two_quirks_are_served() -> None:
    """A sample, always the same, of those that do not make us wait; the long session tries all of them."""
    swift = [pair for pair in pairs() if not QUICKER.keys() & set(pair)]
    assert await unserved(random.Random(102).sample(swift, SAMPLE)) == []


@pytest.mark.long
@pytest.mark.virtual_time
async def test_routers_with_any_two_quirks_are_served() -> None:
    assert await unserved(pairs()) == []


@pytest.mark.parametrize("name", HOPELESS)
@pytest.mark.waits
async def test_a_router_that_cannot_be_used_is_an_error_of_ours_and_soon(name: str) -> None:
    async with EmulatedGateway(name, address=None) as gateway:
        async with PortMapper(source_address=gateway.address, timeout=3, discovery_timeout=1) as mapper:
            with pytest.raises(IGDError):
                await mapper.add_port_mapping(8080, desc="x", duration=60, verify=True)
        assert gateway.count("POST") <= 60


def test_the_table_of_the_documentation_has_every_quirk() -> None:
    """``python -m tests.compatibility.table`` writes it."""
    table = TABLE.read_text("utf-8")
    assert [name for name in USABLE if f"| `{name}` |" not in table] == []


async def test_the_table_of_pcp_and_nat_pmp_says_what_becomes_of_a_mapping() -> None:
    """Of each quirk, by each of the two; written by the same command."""
    assert TABLE.read_text("utf-8").partition(PCP_HEAD)[2] == await pcp_rows()


@pytest.mark.waits
async def test_an_answer_with_an_odd_status_may_show_late_in_the_table() -> None:
    assert not (await serve("answers_with_status", "late_table")).problem
