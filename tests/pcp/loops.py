"""Event loops that differ from the usual one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

__all__ = ["has_coarse_clock", "has_no_readers", "tells_of_icmp_errors"]


def has_no_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the running loop have no readers for anybody but its own transports, as the proactor loop of Windows."""

    def add_reader(fd: Any, callback: Any, *args: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)


def has_coarse_clock(monkeypatch: pytest.MonkeyPatch, resolution: float) -> None:
    """Let the clock of the running loop tick every ``resolution`` seconds (Windows: 1/64), so timers fire early."""
    loop = asyncio.get_running_loop()
    fine = loop.time
    monkeypatch.setattr(loop, "time", lambda: fine() // resolution * resolution)
    monkeypatch.setattr(loop, "_clock_resolution", resolution)


def tells_of_icmp_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an ICMP error come to each datagram socket at once, as the proactor loop tells it: nothing, from nobody."""
    loop = asyncio.get_running_loop()
    real = loop.create_datagram_endpoint

    async def create_datagram_endpoint(*args: Any, **options: Any) -> Any:
        transport, protocol = await real(*args, **options)
        loop.call_soon(protocol.datagram_received, b"", None)
        return transport, protocol

    monkeypatch.setattr(loop, "create_datagram_endpoint", create_datagram_endpoint)
