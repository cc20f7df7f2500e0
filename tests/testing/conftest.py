"""A gateway as the standard has it, for the tests of what the standard says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from aioigd.testing import EmulatedGateway


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(address=None) as running:
        yield running


@pytest_asyncio.fixture
async def gateway_v2() -> AsyncIterator[EmulatedGateway]:
    async with EmulatedGateway(address=None, version=2) as running:
        yield running
