"""A library starts no process, writes no file but a lock file, blocks no event loop, and needs no netlink."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from aioigd.net.guard import VARIABLE
from aioigd.testing import EmulatedGateway

PROGRAM = """
import asyncio, os, sys
if "blocking" in sys.argv:
    from blockbuster import BlockBuster
import aioigd

seen = []
STARTS = ("subprocess.", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.system", "os.startfile", "pty.spawn")

def audit(event, args):
    if event.startswith(STARTS):
        seen.append(f"{event} {args}")
    elif event == "open":
        path, mode, flags = args
        if not isinstance(path, int) and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            seen.append(f"writes {path}")
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate"):
        seen.append(f"{event} {args}")

async def main():
    source = sys.argv[1] if sys.argv[1] != "none" else None
    options = {"source_address": source} if source else {"discovery_timeout": 0.3}
    async with aioigd.PortMapper(**options) as mapper:
        if source is None:
            try:
                await mapper.get_gateway()
            except aioigd.IGDError as error:
                print(error.result.name)
            return
        await mapper.add_port_mapping(8080)
        await mapper.query_external_address()
        await mapper.discover(0.3)
        async with mapper.lease(8081, desc="a server") as lease:
            assert lease.external_port == 8081
        await mapper.delete_port_mapping(8080)

if "blocking" in sys.argv:
    BlockBuster().activate()
else:
    sys.addaudithook(audit)
asyncio.run(main())
print(*seen, sep="\\n")
"""


def effects(*arguments: str, **variables: str) -> list[str]:
    environment = {**os.environ, VARIABLE: "1", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


@pytest.fixture
def private(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


async def effects_beside(gateway: EmulatedGateway, *arguments: str, **variables: str) -> list[str]:
    return await asyncio.to_thread(effects, gateway.address, *arguments, **variables)


async def test_no_process_is_started_and_no_file_written_but_the_lock_file(private: Path) -> None:
    async with EmulatedGateway(address=None) as gateway:
        seen = [line for line in await effects_beside(gateway, XDG_RUNTIME_DIR=str(private)) if line]
        assert len({*seen}) == 1, seen
        assert seen[0] == f"writes aioigd-{gateway.address}.lock"


@pytest.mark.skipif(find_spec("blockbuster") is None, reason="blockbuster is for CPython")
@pytest.mark.parametrize("folder", ["XDG_RUNTIME_DIR", "TMPDIR"])
async def test_nothing_blocks_the_event_loop(private: Path, folder: str) -> None:
    variables = {"XDG_RUNTIME_DIR": "", folder: str(private)}
    async with EmulatedGateway(address=None) as gateway:
        assert "".join(await effects_beside(gateway, "blocking", **variables)) == ""


def test_a_first_search_on_all_interfaces_has_no_effects_either(private: Path) -> None:
    """The guard of tests forbids to send; by then this machine was asked for its addresses and routes."""
    for mode in ([], ["blocking"]) if find_spec("blockbuster") else ([],):
        assert "".join(effects("none", *mode, XDG_RUNTIME_DIR=str(private))) == "SOCKET_ERROR"


COMMAND = """
import sys

seen = []
STARTS = ("subprocess.", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.system", "os.startfile", "pty.spawn")
sys.addaudithook(lambda event, args: seen.append((event, args)) if event.startswith(STARTS) else None)
from aioigd.cli import main

try:
    main()
except SystemExit:
    print(seen)
"""


@pytest.mark.parametrize("line", ["discover", "doctor", "discover --ipv6", "status --interface nothing"])
def test_the_command_starts_no_process_either(line: str) -> None:
    """The guard of tests forbids to send; by then this machine was asked for its addresses and routes."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *line.split(), "--timeout", "0.3"],
        env={**os.environ, VARIABLE: "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done


SANDBOX = """
import asyncio, ctypes, errno, platform, socket, struct, sys

def forbid(family):
    # As systemd's RestrictAddressFamilies= does it: socket() of that family fails with EAFNOSUPPORT.
    number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
    LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
    program = b"".join(struct.pack("HBBI", *step) for step in (
        (LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 3, number), (LOAD, 0, 0, 16), (JUMP_IF_EQUAL, 0, 1, family),
        (RETURN, 0, 0, 0x00050000 | errno.EAFNOSUPPORT), (RETURN, 0, 0, 0x7FFF0000),
    ))
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(program)
    filtered = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(held)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, filtered, 0, 0) == 0, ctypes.get_errno()

from aioigd.net import interfaces as module
before = module.all_addresses()
forbid(socket.AF_NETLINK)
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
except OSError as error:
    assert error.errno == errno.EAFNOSUPPORT
else:
    raise AssertionError("there is netlink")
assert [repr(one) for one in module.all_addresses()] == [repr(one) for one in before]

import aioigd

async def main():
    async with aioigd.PortMapper(source_address=sys.argv[1]) as mapper, mapper.lease(8080) as lease:
        print(lease.external_port)

asyncio.run(main())
module._ask_ioctl = list
assert module.all_addresses() == [], "ifaddr cannot tell either"
asyncio.run(main())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="numbers of system calls")
async def test_where_netlink_is_forbidden_all_goes_on(private: Path) -> None:
    async with EmulatedGateway(address=None) as gateway:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", SANDBOX, gateway.address],
            env={**os.environ, "XDG_RUNTIME_DIR": str(private)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.split() == ["8080", "8080"], done.stderr
