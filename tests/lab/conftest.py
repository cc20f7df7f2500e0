"""Fixtures: one network per test process, as new for each test. Without root or miniupnpd they skip.

AIOIGD_REQUIRE_LAB=1 turns that skip into a failure, so that CI cannot pass by leaving the lab out. The guard that keeps
the other tests on loopback is off: these namespaces lead nowhere.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .network import Lab
from .router import Router

_HERE = Path(__file__).parent
_COMMANDS = (
    "ip",
    "nft",
    "iptables-legacy",
    "iptables-legacy-restore",
    "ip6tables-legacy-restore",
    "miniupnpd",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)


def _missing() -> str | None:
    if sys.platform != "linux":
        return "network namespaces are a Linux thing"
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    absent = [command for command in _COMMANDS if shutil.which(command) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


@pytest.fixture(autouse=True)
def _not_guarded(beyond_loopback: None) -> None:
    pass


@pytest.fixture(scope="session")
def lab_is_possible() -> None:
    reason = _missing()
    if reason is None:
        return
    if os.environ.get("AIOIGD_REQUIRE_LAB") == "1":
        pytest.fail(f"AIOIGD_REQUIRE_LAB=1, but the lab cannot run: {reason}", pytrace=False)
    pytest.skip(f"the lab cannot run: {reason}")


@pytest.fixture(scope="session")
def _ipv4_network(lab_is_possible: None) -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def _dual_stack_network(lab_is_possible: None) -> Iterator[Lab]:
    with Lab(ipv6=True) as lab:
        yield lab


@pytest.fixture
def lab(_ipv4_network: Lab) -> Iterator[Lab]:
    yield _ipv4_network
    _ipv4_network.reset()


@pytest.fixture
def lab6(_dual_stack_network: Lab) -> Iterator[Lab]:
    """The same with global IPv6 addresses on both sides of the router."""
    yield _dual_stack_network
    _dual_stack_network.reset()


@pytest.fixture
def router(lab: Lab) -> Router:
    """An IGD v2 in secure mode; a test that needs another one calls `lab.start_router()` itself."""
    return lab.start_router()


@pytest.fixture
def inside_lan(lab: Lab) -> Iterator[None]:
    """The whole test, coroutine or not, runs on the LAN host."""
    with lab.inside("lan"):
        yield


@pytest.fixture
def inside_lan6(lab6: Lab) -> Iterator[None]:
    """The same on the LAN host that has IPv6 as well."""
    with lab6.inside("lan"):
        yield
