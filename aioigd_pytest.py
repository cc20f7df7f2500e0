"""The pytest plugin: emulated gateways as fixtures.

It is active as soon as the package is installed, and costs next to nothing where it is not used: that is why it stands
beside the package, as ``import aioigd.anything`` would import aiohttp and lxml in every run of pytest.

An asynchronous test that uses ``igd_gateway`` gets a running :class:`~aioigd.testing.EmulatedGateway` on a separate
loopback address::

    @pytest.mark.igd_quirks("refuses_leases")
    async def test_my_server_is_reachable_behind_a_router_that_refuses_leases(igd_gateway):
        async with MyServer(source_address=igd_gateway.address):
            assert [mapping.external_port for mapping in igd_gateway.mappings] == [8080]

Tests can run in parallel with pytest-xdist. The fixtures are asynchronous ones, of pytest-asyncio (in both
of its modes) where that is installed, otherwise of anyio, on its asyncio backend; a test of any other kind uses
``async with EmulatedGateway(address=None)`` itself.

``pytest --aioigd-loopback-only``, or ``aioigd_loopback_only = true`` in pytest's configuration, guards the network that
the tests run in: nothing that aioigd sends leaves loopback, and a test that forgot its ``source_address`` fails with a
:class:`~aioigd.errors.NoRouteError` that says so. It sets the environment variable ``AIOIGD_LOOPBACK_ONLY`` for the
run and all processes that it starts; a test that is meant to leave unsets it (``monkeypatch.delenv``).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aioigd.testing import EmulatedGateway, GatewayFactory, Quirk

__all__: list[str] = []

_GUARD = "AIOIGD_LOOPBACK_ONLY"
"""The variable of :mod:`aioigd.net.guard`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the guard."""
    text = "let nothing that aioigd sends leave loopback; a forgotten source_address is an error"
    parser.getgroup("aioigd").addoption("--aioigd-loopback-only", action="store_true", default=None, help=text)
    parser.addini("aioigd_loopback_only", text, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Register the fixtures and the marker, and set up the guard."""
    if config.getoption("--aioigd-loopback-only") or config.getini("aioigd_loopback_only"):
        patch = pytest.MonkeyPatch()
        patch.setenv(_GUARD, "1")
        config.add_cleanup(patch.undo)
    config.addinivalue_line(
        "markers",
        "igd_quirks(*quirks, **options): what the gateway of the fixture igd_gateway is like. Quirks, or their names "
        "in aioigd.testing.quirks.CATALOGUE; options are those of aioigd.testing.EmulatedGateway.",
    )
    config.pluginmanager.register(_fixtures(), "aioigd-fixtures")


def _fixtures() -> ModuleType:
    """Return a plugin that has the fixtures."""
    # In strict mode, pytest-asyncio handles its own fixtures only. By now it is imported, if this run uses it.
    pytest_asyncio: Any = sys.modules.get("pytest_asyncio")
    fixture = pytest.fixture if pytest_asyncio is None else pytest_asyncio.fixture
    plugin = ModuleType("aioigd_fixtures", "The fixtures of aioigd.")
    vars(plugin).update({each.__name__: fixture(each) for each in (igd_gateway, igd_gateway_factory)})
    return plugin


async def igd_gateway_factory() -> AsyncIterator[GatewayFactory]:
    """Return a function that starts emulated gateways, each on a separate loopback address."""
    from aioigd.testing import EmulatedGateway

    async with AsyncExitStack() as gateways:

        async def start(*quirks: Quirk[...] | str, **options: Any) -> EmulatedGateway:
            return await gateways.enter_async_context(EmulatedGateway(*quirks, **{"address": None, **options}))

        yield start


async def igd_gateway(request: pytest.FixtureRequest, igd_gateway_factory: GatewayFactory) -> EmulatedGateway:
    """Return a running emulated gateway, with the quirks of the test's ``igd_quirks`` markers, if it has any.

    The markers of module, class and test are combined in this order.
    """
    markers = list(request.node.iter_markers("igd_quirks"))[::-1]
    quirks = [quirk for marker in markers for quirk in marker.args]
    options = {name: value for marker in markers for name, value in marker.kwargs.items()}
    return await igd_gateway_factory(*quirks, **options)
