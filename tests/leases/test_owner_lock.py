"""Who is the last: locks of two mappers, of processes, of killed and stopped ones, and where no lock can be had."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aioigd.leases import owner_lock
from aioigd.leases.owner_lock import PATIENCE, ClaimKey, OwnerLock, Ownership, PinholeKey
from aioigd.models import MappingKey

from .virtual import run

pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.skipif(sys.platform != "linux", reason="open file description locks, and /proc to count descriptors"),
]

GATEWAY = "192.0.2.1"
KEY = MappingKey(8080, "TCP")
NOBODY = 65534
"""A user who is not the one that runs the tests."""

CHILD = """
import asyncio, os, sys
from aioigd.leases.owner_lock import OwnerLock
from aioigd.models import MappingKey

lock, key = OwnerLock("192.0.2.1"), MappingKey(8080, "TCP")
match sys.argv[1]:
    case "hold":
        asyncio.run(lock.hold(key))
        print(key in lock, flush=True)
        sys.stdin.read()
    case "delete":
        with lock.take_if_last(key) as is_last:
            print(is_last, flush=True)
            sys.stdin.read()
    case "fork":
        asyncio.run(lock.hold(key))
        child = os.fork()
        if child:
            os._exit(0)
        print(key in lock, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime folder of a test."""
    folder = tmp_path / "runtime"
    folder.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of a test that has no runtime folder."""
    folder = tmp_path / "temporary"
    folder.mkdir(0o777)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@contextmanager
def process(what: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has done what it was told, and lives until its input ends."""
    words = [sys.executable, "-c", CHILD, what]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        try:
            yield program
        finally:
            program.kill()


def said(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def held(*keys: MappingKey, gateway: str = GATEWAY) -> OwnerLock:
    lock = OwnerLock(gateway)
    assert all(lock.hold_now(key) for key in keys or (KEY,))
    return lock


def is_last(lock: OwnerLock, key: ClaimKey = KEY) -> bool:
    with lock.take_if_last(key) as taken:
        return taken


def lock_files() -> list[str]:
    """The lock files that this process has open."""
    descriptors = Path("/proc/self/fd").iterdir()
    return [name for one in descriptors if (name := os.readlink(one) if one.is_symlink() else "").endswith(".lock")]


# Claims


def test_of_two_mappers_in_one_process_the_second_to_leave_is_the_last() -> None:
    one, two = held(), held()
    assert not is_last(one)
    assert is_last(two)
    assert is_last(one)


def test_two_that_give_up_before_they_try_are_not_in_each_others_way() -> None:
    one, two = held(), held()
    one.drop(KEY)
    two.drop(KEY)
    with one.take_if_last(KEY) as first, two.take_if_last(KEY) as second:
        assert (first, second) == (True, False)


def test_ports_and_protocols_and_gateways_are_claimed_each_by_itself() -> None:
    one = held(KEY)
    two = held(MappingKey(8081, "TCP"), MappingKey(8080, "UDP"), MappingKey(65535, "TCP"), MappingKey(1, "UDP"))
    three = held(gateway="fe80::1%eth0")
    assert is_last(one)
    assert two.hold_now(PinholeKey(8080, "TCP"))
    assert is_last(OwnerLock(GATEWAY), PinholeKey(8080, "UDP"))
    assert not is_last(OwnerLock(GATEWAY), PinholeKey(8080, "TCP"))
    assert str(PinholeKey(8080, "TCP")) == "the pinhole for TCP port 8080"
    assert is_last(two, MappingKey(8081, "TCP"))
    assert is_last(two, MappingKey(65535, "TCP"))
    assert is_last(three)


def test_a_thousand_ports_take_one_descriptor() -> None:
    lock = held(*(MappingKey(port, "TCP") for port in range(1000, 2000)))
    assert len(lock_files()) == 1
    lock.close()
    assert lock_files() == []
    assert not lock.is_in_use


def test_who_is_killed_is_gone() -> None:
    with process("hold") as program:
        assert said(program) == "True"
        mine = held()
        assert not is_last(mine)
        program.send_signal(signal.SIGKILL)
        program.wait()
        assert is_last(mine)


def test_of_several_processes_the_last_one_is_the_last() -> None:
    mine = held()
    with process("hold") as one, process("hold") as two:
        assert said(one) == said(two) == "True"
        for program in (one, two):
            with process("delete") as third:
                assert said(third) == "False"
            program.communicate()
    assert is_last(mine)


def test_a_forked_child_keeps_no_claim_of_a_parent_that_is_gone() -> None:
    with process("fork") as program:
        assert said(program) == "False"
        program.wait()
        assert is_last(OwnerLock(GATEWAY))


def test_who_comes_while_a_mapping_is_deleted_waits_for_that() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        one, two = held(), OwnerLock(GATEWAY)
        with one.take_if_last(KEY) as is_last:
            assert is_last
            waiting = asyncio.ensure_future(two.hold(KEY))
            own = asyncio.ensure_future(one.hold(KEY))
            await asyncio.sleep(1.0)
            assert two.is_in_use
            assert not waiting.done()
            assert not own.done()
        assert await waiting is False
        assert await own is False
        assert loop.time() < 1.2
        assert KEY in one
        assert KEY in two
        assert await two.hold(KEY) is True

    run(main())


def test_who_finds_a_stopped_process_deleting_goes_on_after_five_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioigd.lease")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        lock = OwnerLock(GATEWAY)
        assert await lock.hold(KEY) is False
        assert PATIENCE <= loop.time() < PATIENCE + 0.1
        assert KEY not in lock
        assert not lock.is_in_use
        assert "deleting TCP port 8080 for 5 s" in caplog.text

    with process("delete") as program:
        assert said(program) == "True"
        program.send_signal(signal.SIGSTOP)
        run(main())


def test_two_tasks_of_a_mapper_may_delete_the_same() -> None:
    lock = held()
    with lock.take_if_last(KEY) as first:
        with lock.take_if_last(KEY) as second:
            assert (first, second) == (True, True)
        assert not is_last(OwnerLock(GATEWAY))
    assert is_last(OwnerLock(GATEWAY))


def test_what_was_closed_in_the_middle_stays_closed() -> None:
    lock = held()
    with lock.take_if_last(KEY):
        lock.close()
    lock.drop(KEY)
    assert lock_files() == []
    assert not lock.is_in_use


# Marks


def test_the_descriptions_of_this_host_are_known_to_all() -> None:
    one, two = OwnerLock(GATEWAY), OwnerLock(GATEWAY)
    assert not one.is_marked(KEY, "")
    one.mark(KEY, "a")
    assert two.is_marked(KEY, "a")
    two.mark(KEY, "ü\udc80")
    assert one.is_marked(KEY, "ü\udc80")
    assert one.is_marked(KEY, "a")
    assert not one.is_marked(KEY, "b")
    assert not one.is_marked(KEY._replace(proto="UDP"), "a")


def test_without_a_file_a_mapper_knows_its_own(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary / "missing"))
    one, two = Ownership(lambda: GATEWAY), Ownership(lambda: GATEWAY)
    one.mark(KEY, "a")
    assert one.is_marked(KEY, "a")
    assert not two.is_marked(KEY, "a")


# The file


def test_the_file_is_named_by_the_gateway_and_only_ours(runtime: Path) -> None:
    held()
    held(gateway="fe80::1%eth0/../x")
    assert sorted(path.name for path in runtime.iterdir()) == ["aioigd-192.0.2.1.lock", "aioigd-fe80__1_eth0_.._x.lock"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o1600 for path in runtime.iterdir())


def test_it_is_not_passed_on_to_programs_that_are_started() -> None:
    lock = held()
    assert lock._descriptor is not None
    assert not os.get_inheritable(lock._descriptor)


@pytest.mark.parametrize("value", [None, "", "relative", "missing", "foreign", "open to others"])
def test_without_a_runtime_folder_it_is_in_one_for_temporary_files(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    folder = tmp_path / "other"
    if value in ("foreign", "open to others"):
        folder.mkdir(0o700)
        if value == "foreign":
            give_away(folder)
        else:
            folder.chmod(0o770)
        value = str(folder)
    elif value == "missing":
        value = str(folder)
    if value is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    held()
    (own,) = temporary.iterdir()
    assert own.name == f"aioigd-{os.geteuid()}"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert [path.name for path in own.iterdir()] == ["aioigd-192.0.2.1.lock"]
    assert not folder.exists() or not list(folder.iterdir())


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(path, NOBODY, NOBODY)


def without_a_lock(caplog: pytest.LogCaptureFixture) -> None:
    """Each mapper takes itself for the last one, which is said once for each."""
    caplog.clear()
    caplog.set_level(logging.INFO, "aioigd.lease")
    one, two = held(), held()
    assert KEY in one
    assert is_last(one)
    assert is_last(two)
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 2
    assert lock_files() == []
    one.close()
    assert not one.is_in_use


@pytest.mark.parametrize("what", ["foreign", "open to others", "a link", "a file"])
def test_a_folder_that_somebody_else_may_have_put_there_is_not_used(
    tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    own = temporary / f"aioigd-{os.geteuid()}"
    target = tmp_path / "target"
    target.mkdir(0o700)
    match what:
        case "foreign":
            own.mkdir(0o700)
            give_away(own)
        case "open to others":
            own.mkdir()
            own.chmod(0o777)
        case "a link":
            own.symlink_to(target)
        case _:
            own.touch()
    without_a_lock(caplog)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("what", ["a link", "a pipe", "a folder"])
def test_a_lock_file_that_is_none_is_left_alone(
    tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    own = temporary / f"aioigd-{os.geteuid()}"
    own.mkdir(0o700)
    file, target = own / "aioigd-192.0.2.1.lock", tmp_path / "target"
    target.write_text("precious")
    match what:
        case "a link":
            file.symlink_to(target)
        case "a pipe":
            os.mkfifo(file)
        case _:
            file.mkdir()
    without_a_lock(caplog)
    assert target.read_text() == "precious"


def test_a_folder_in_which_nothing_can_be_made_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Root may write wherever the permissions forbid it, but not in /proc.
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc")
    monkeypatch.setenv("TMPDIR", "/proc")
    without_a_lock(caplog)


def test_nor_is_a_folder_that_may_only_be_read(
    runtime: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.open

    def read_only(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(os, "open", read_only)
    without_a_lock(caplog)


def test_nor_is_a_system_without_such_locks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(owner_lock, "_CAN_LOCK", False)
    without_a_lock(caplog)


def test_nor_a_file_system_without_them(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(owner_lock, "_F_OFD_SETLK", 0x7FFF)  # EINVAL
    without_a_lock(caplog)


# The claims of a mapper, whatever becomes of its gateway


def test_a_claim_goes_with_the_gateway() -> None:
    async def main() -> None:
        address = "192.0.2.1"
        claims = Ownership(lambda: address)
        assert await claims.hold(KEY)
        claims.hold_now(KEY)
        address = "192.0.2.2"
        assert is_last(OwnerLock("192.0.2.2"))
        assert not is_last(OwnerLock("192.0.2.1"))
        claims.hold_now(KEY)
        assert is_last(OwnerLock("192.0.2.1"))
        assert not is_last(OwnerLock("192.0.2.2"))
        address = "192.0.2.1"
        assert await claims.hold(KEY)
        assert is_last(OwnerLock("192.0.2.2"))
        assert len(lock_files()) == 1
        claims.drop(KEY)
        assert lock_files() == []

    run(main())


def test_who_has_moved_looks_at_both_places() -> None:
    async def main() -> None:
        address = ""
        claims = Ownership(lambda: address)
        for neighbour in ("192.0.2.1", "192.0.2.2"):
            address = "192.0.2.1"
            assert await claims.hold(KEY)
            address = "192.0.2.2"
            other = held(gateway=neighbour)
            with claims.take_if_last(KEY) as is_last:
                assert not is_last
            other.close()
            with claims.take_if_last(KEY) as is_last:
                assert is_last
            assert lock_files() == []

    run(main())


def test_closing_gives_up_everything() -> None:
    async def main() -> None:
        claims = Ownership(lambda: GATEWAY)
        for port in range(1, 100):
            await claims.hold(MappingKey(port, "UDP"))
        claims.mark(KEY, "a")
        assert claims.is_marked(KEY, "a")
        claims.close()
        assert lock_files() == []

    run(main())
