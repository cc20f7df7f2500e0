"""Pinholes from the command line, on an emulated IGD:2 at ``::1``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aioigd.testing import EmulatedGateway

from .conftest import Run


@pytest.fixture
async def gateway6() -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(address="::1", version=2) as gateway:
        yield gateway


def there(gateway: EmulatedGateway) -> tuple[str, str]:
    return "--location", gateway.location


async def test_a_pinhole_is_opened_seen_checked_and_closed(run: Run, gateway6: EmulatedGateway) -> None:
    added = await run("pinhole", "add", 8080, "--for", "1h", *there(gateway6))
    assert added.code == 0, added.err
    (hole,) = gateway6.firewall.pinholes
    assert (hole.internal_port, hole.proto, hole.duration) == (8080, "TCP", 3600)
    assert f"[::1]:8080 is open for 1 h: pinhole {hole.unique_id}" in added.out

    listed = await run("pinhole", "list", hole.unique_id, *there(gateway6))
    assert listed.code == 0
    assert "is on, and lets programs open pinholes" in listed.out
    assert f"pinhole {hole.unique_id}: open, 0 packets came through" in listed.out

    nothing = await run("pinhole", "check", hole.unique_id, *there(gateway6))
    assert nothing.code == 1
    assert "no packet has come yet" in nothing.out
    gateway6.firewall.let_through(hole.unique_id, 3)
    works = await run("pinhole", "check", hole.unique_id, *there(gateway6))
    assert works.code == 0
    assert "packets come through (3)" in works.out

    deleted = await run("pinhole", "delete", hole.unique_id, *there(gateway6))
    assert deleted.code == 0
    assert gateway6.firewall.pinholes == []
    again = await run("pinhole", "delete", hole.unique_id, *there(gateway6))
    assert again.code == 1


async def test_the_documents_have_their_shapes(run: Run, gateway6: EmulatedGateway) -> None:
    added = (await run("pinhole", "add", "8080-8081", "--both", "--json", *there(gateway6))).document
    assert added.keys() == {"gateway", "pinholes", "failures"}
    assert len(added["pinholes"]) == 4
    assert added["pinholes"][0].keys() == {
        "unique_id",
        "internal_client",
        "internal_port",
        "proto",
        "remote_host",
        "remote_port",
        "duration",
        "protocol",
    }
    number = added["pinholes"][0]["unique_id"]
    listed = (await run("pinhole", "list", number, 999, "--json", *there(gateway6))).document
    assert listed.keys() == {"gateway", "firewall", "pinholes"}
    assert listed["firewall"] == {"enabled": True, "pinholes_allowed": True}
    assert listed["pinholes"] == [
        {"unique_id": number, "is_open": True, "packets": 0},
        {"unique_id": 999, "is_open": False, "packets": None},
    ]
    checked = (await run("pinhole", "check", number, "--json", *there(gateway6))).document
    assert checked.keys() == {"gateway", "unique_id", "is_working", "packets"}
    assert checked["is_working"] is None
    deleted = (await run("pinhole", "delete", number, 999, "--json", *there(gateway6))).document
    assert deleted["deleted"] == [number]


async def test_a_firewall_that_allows_none_says_so(run: Run, gateway6: EmulatedGateway) -> None:
    gateway6.firewall.pinholes_allowed = False
    outcome = await run("pinhole", "add", 8080, *there(gateway6))
    assert outcome.code == 1
    assert "703" in outcome.err
    assert "lets nobody open pinholes" in (await run("pinhole", "list", *there(gateway6))).out


async def test_a_router_without_such_a_firewall_is_told_of(run: Run, gateway: EmulatedGateway) -> None:
    outcome = await run("pinhole", "list", "--source-address", gateway.address)
    assert outcome.code == 1
    assert "Traceback" not in outcome.err


async def test_a_wrong_address_is_usage(run: Run, gateway6: EmulatedGateway) -> None:
    for words in (("add", 8080, "--internal", "here"), ("check", 1, "--internal", "here")):
        assert (await run("pinhole", *words, *there(gateway6))).code == 2
