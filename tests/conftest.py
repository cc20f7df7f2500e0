"""What all tests share: the event loops they run on, and the proof that a test leaves nothing behind.

Coroutines of the modules named here run twice, on asyncio and on uvloop, with asyncio's debug mode switched on; where
they make no sockets themselves, the default run has a sample of those on uvloop, and ``-m long`` the others. Those that
wait for the clock are marked ``waits``: they run in virtual time, and with ``-m long`` on the real loops, too; the
command that they run with the fixture ``run`` does so in the same virtual time, from a thread. A test
module that says ``pytestmark = pytest.mark.usefixtures("nothing_is_left")`` fails where a task, a socket or an
exception that nobody looked at is left.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings

from aioigd import PortMapper
from aioigd.net.guard import VARIABLE
from aioigd.testing import EmulatedGateway, loopback_address

from .leases.virtual import VirtualLoop
from .support import Canary, settled_loop, sockets

_ON_BOTH_LOOPS = (
    "core",
    "leases",
    "net",
    "pcp",
    "upnp",
    "test_mapper",
    "test_protocols",
    "test_functions",
    "test_cancellation",
)
_ALL_ON_UVLOOP = ("net", "pcp/test_client.py", "upnp/net", "test_functions.py")
"""Where the difference is: here nothing on uvloop is left for the long run."""
_ONE_IN = 4
"""How many of the other tests there are for one that runs on uvloop by default."""
_HERE = Path(__file__).parent

# asyncio's debug mode notes a stack of ten frames for each timer and callback, and the whole one for each future and
# task, as aiohttp does for what it makes: half of the time of the tests that have it. The innermost frame says enough.
asyncio.constants.DEBUG_STACK_DEPTH = 1  # type: ignore[attr-defined]
_walk_stack = traceback.walk_stack


def _innermost(f: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    return islice(_walk_stack(f), 1)


traceback.walk_stack = _innermost

settings.register_profile("quick", max_examples=100, deadline=None)
settings.register_profile("long", max_examples=5_000, deadline=None)


def _loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if sys.platform != "win32":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    part = item.path.relative_to(_HERE).parts[0] if _HERE in item.path.parents else ""
    if item.get_closest_marker("virtual_time") is not None:
        return {"virtual": VirtualLoop}
    on_both = part.removesuffix(".py") in _ON_BOTH_LOOPS and item.get_closest_marker("one_loop") is None
    real = _loop_factories() if on_both else {"asyncio": asyncio.new_event_loop}
    return {"virtual": VirtualLoop, **real} if _waits(item) else real


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless it is asked for: ``-m long``."""
    for item in items:
        if _is_repetition(item) or (_waits(item) and "[virtual" not in item.name):
            item.add_marker(pytest.mark.long)
    if "long" not in config.getoption("markexpr"):
        too_long = [item for item in items if item.get_closest_marker("long") is not None]
        config.hook.pytest_deselected(items=too_long)
        items[:] = [item for item in items if item not in too_long]


def pytest_collection_finish() -> None:
    """Let no collection of garbage look through the thousands of tests, which are there to the end."""
    gc.collect()
    gc.freeze()


def _asks_for_long(config: pytest.Config) -> bool:
    return "long" in config.getoption("markexpr").replace("not long", "")


def _waits(item: pytest.Item) -> bool:
    """Tell whether it waits for the clock; a program that it starts has one of its own, and does so in real time."""
    return item.get_closest_marker("waits") is not None and "start" not in getattr(item, "fixturenames", ())


def _is_repetition(item: pytest.Item) -> bool:
    """Tell whether a test says on uvloop what it says on asyncio, and is not in the sample: always the same one."""
    if "[uvloop" not in item.name or _HERE not in item.path.parents:
        return False
    path = item.path.relative_to(_HERE).as_posix()
    return not path.startswith(_ALL_ON_UVLOOP) and crc32(f"{path}:{item.name}".encode()) % _ONE_IN != 0


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in a job in the background of a shell: the programs that tests start would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("long" if _asks_for_long(config) else "quick")
    config.addinivalue_line("markers", "virtual_time: the clock of its loop jumps to the next timer")
    config.addinivalue_line(
        "markers", "waits: it waits for the clock: in virtual time by default, in real time if long"
    )
    config.addinivalue_line("markers", "one_loop: says nothing about event loops, so one of them is enough")


@pytest.fixture(scope="session", autouse=True)
def _runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the lock files of leases away from those of programs that run on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Python is told to keep nothing that it compiles, let the programs that tests start do it once, not each."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.getbasetemp().parent / "compiled"))
        yield


@pytest.fixture
async def nothing_is_left() -> AsyncIterator[None]:
    """Fail the test if it leaves a task, a socket, or an exception that nobody has looked at."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 10.0  # slow machines are not what is tested
    unseen: list[Mapping[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    tasks_before = asyncio.all_tasks()
    sockets_before = sockets()
    yield
    await settled_loop()  # transports that were told to close do so in the loop's next rounds
    tasks = asyncio.all_tasks() - tasks_before - {asyncio.current_task()}
    assert not tasks, "tasks are left"
    assert not sockets() - sockets_before, "sockets are left"
    assert not unseen, "something went wrong behind the test's back"


@pytest.fixture
async def gateway() -> AsyncIterator[EmulatedGateway]:
    """A gateway that keeps to the standard, on a loopback address of its own; all it was sent must be right."""
    async with EmulatedGateway(address=None) as gateway:
        yield gateway
        assert gateway.problems == []


@pytest.fixture
async def mapper(gateway: EmulatedGateway) -> AsyncIterator[PortMapper]:
    """A mapper that finds ``gateway``, and nothing else; slow machines get time before a second round of searching."""
    async with PortMapper(source_address=gateway.address, timeout=30, discovery_timeout=30) as mapper:
        yield mapper


@pytest.fixture
def beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the guard off, for a test that cannot reach a real network, although its addresses look like one."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def address() -> Iterator[str]:
    """A loopback address that nobody else uses."""
    with loopback_address() as address:
        yield address


@pytest.fixture
def canary() -> Iterator[Canary]:
    """A listener on another address, to which nobody may ever connect."""
    with loopback_address() as address:
        canary = Canary(address)
        yield canary
        assert not canary.is_touched
        canary.close()
