"""The pytest plugin: emulated gateways as fixtures.

It is active as soon as the package is installed. An asynchronous test that uses ``igd_gateway`` gets a running
:class:`~aioigd.testing.EmulatedGateway` on a separate loopback address::

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

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from ..net.guard import VARIABLE

if TYPE_CHECKING:
    from .gateway import EmulatedGateway
    from .hooks import Quirk

    _fixture = pytest.fixture
else:
    try:
        # In strict mode, pytest-asyncio handles its own fixtures only.
        from pytest_asyncio import fixture as _fixture
    except ImportError:
        _fixture = pytest.fixture

__all__ = ["GatewayFactory", "igd_gateway", "igd_gateway_factory"]


class GatewayFactory(Protocol):
    """The type of the fixture ``igd_gateway_factory``: starts a gateway that is stopped after the test."""

    def __call__(self, *quirks: Quirk[...] | str, **options: Any) -> Awaitable[EmulatedGateway]:
        """Return a running gateway; the arguments are those of EmulatedGateway, but each has its own address."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the guard."""
    text = "let nothing that aioigd sends leave loopback; a forgotten source_address is an error"
    parser.getgroup("aioigd").addoption("--aioigd-loopback-only", action="store_true", default=None, help=text)
    parser.addini("aioigd_loopback_only", text, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and set up the guard."""
    if config.getoption("--aioigd-loopback-only") or config.getini("aioigd_loopback_only"):
        patch = pytest.MonkeyPatch()
        patch.setenv(VARIABLE, "1")
        config.add_cleanup(patch.undo)
    config.addinivalue_line(
        "markers",
        "igd_quirks(*quirks, **options): what the gateway of the fixture igd_gateway is like. Quirks, or their names "
        "in aioigd.testing.quirks.CATALOGUE; options are those of aioigd.testing.EmulatedGateway.",
    )


@_fixture
async def igd_gateway_factory() -> AsyncIterator[GatewayFactory]:
    """Return a function that starts emulated gateways, each on a separate loopback address."""
    from .gateway import EmulatedGateway

    async with AsyncExitStack() as gateways:

        async def start(*quirks: Quirk[...] | str, **options: Any) -> EmulatedGateway:
            return await gateways.enter_async_context(EmulatedGateway(*quirks, **{"address": None, **options}))

        yield start


@_fixture
async def igd_gateway(request: pytest.FixtureRequest, igd_gateway_factory: GatewayFactory) -> EmulatedGateway:
    """Return a running emulated gateway, with the quirks of the test's ``igd_quirks`` markers, if it has any.

    The markers of module, class and test are combined in this order.
    """
    markers = list(request.node.iter_markers("igd_quirks"))[::-1]
    quirks = [quirk for marker in markers for quirk in marker.args]
    options = {name: value for marker in markers for name, value in marker.kwargs.items()}
    return await igd_gateway_factory(*quirks, **options)
