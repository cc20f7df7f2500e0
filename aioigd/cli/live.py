"""A screen that is redrawn while work goes on, in the event loop itself: no thread reads what a task is changing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from rich.console import RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from .output import Output

__all__ = ["busy", "live"]

_PER_SECOND: Final = 8


@asynccontextmanager
async def live(output: Output, screen: Callable[[], RenderableType]) -> AsyncIterator[None]:
    """Show a screen, again and again, while the block runs; nothing where nobody is looking."""
    if not output.is_live:
        yield
        return
    with Live(console=output.console, auto_refresh=False, transient=True, vertical_overflow="crop") as view:
        task = asyncio.get_running_loop().create_task(_redraw(view, screen))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@asynccontextmanager
async def busy(output: Output, text: str) -> AsyncIterator[None]:
    """Say what is being done while the block runs."""
    spinner = Spinner("dots", Text(f" {text} …", style="dim"), style="cyan")
    async with live(output, lambda: spinner):
        yield


async def _redraw(view: Live, screen: Callable[[], RenderableType]) -> None:
    while True:
        view.update(screen(), refresh=True)
        await asyncio.sleep(1 / _PER_SECOND)
