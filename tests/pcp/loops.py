"""Event loops that differ from the usual one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

__all__ = ["has_no_readers"]


def has_no_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the running loop have no readers for anybody but its own transports, as the proactor loop of Windows."""

    def add_reader(fd: Any, callback: Any, *args: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
