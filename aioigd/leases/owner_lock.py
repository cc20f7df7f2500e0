"""Who deletes a mapping that several programs of this host keep? The last one: a lock file tells who that is.

There is a lock file for each gateway and user. Each port and protocol has one byte of it to lock, and another one for
pinholes to that port of this host, of which the same is true:

=======================  ============================================================================================
a program                does with the byte of a port
=======================  ============================================================================================
is about to add          locks it shared, together with any others
found it exclusive       another program is just deleting: tries again for ``PATIENCE``, then goes on without a lock
ends its lease           unlocks it, then tries to lock it exclusively, without waiting:
                         had: it was the last; deletes, holding the lock until that is done
                         not had: another program keeps the mapping; leaves it to that one
is killed                the kernel unlocks
=======================  ============================================================================================

It unlocks first because two that go from shared to exclusive at once would both fail, and nobody would delete.

Locks belong to open file descriptions (F_OFD_SETLK of Linux, LockFileEx of Windows), so two mappers in one process keep
each other out as two processes do, and one descriptor is enough for all ports of a mapper. Where the system has no such
locks, or no file can be had, every program takes itself for the last one, as it would without this module.

The file also says which descriptions programs of this host have given to the mapping of a port: one that shows another
description was made by somebody else in its place. These marks are only ever set, so programs that add at the same time
cannot overwrite each other's. The file is never deleted, as another program may be about to open it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto
from typing import Final, NamedTuple
from weakref import WeakSet
from zlib import crc32

from ..models import MappingKey, Proto
from ..text import get_logger

__all__ = ["PATIENCE", "ClaimKey", "OwnerLock", "Ownership", "PinholeKey"]

log = get_logger("aioigd.lease")

PATIENCE: Final = 5.0
"""Seconds for which a program waits for another that is deleting the mapping; longer than that takes a stopped one."""
_RETRY_PAUSE: Final = 0.05
"""Seconds between two tries."""
_PORTS: Final = 65_536
"""Bytes of the file for each protocol, one for each port: those of mappings come first, then those of pinholes."""
_MARKS: Final = 64
"""Bytes that are written for each port: a description sets one of them, so one in 64 others is taken for it."""
_LOCKS_AT: Final = 1 << 24
"""Offset of the bytes that are locked: behind those that are written, as Windows lets nobody write what is locked."""
_FILE_MODE: Final = 0o1600
"""Only for us. The sticky bit asks those who tidy up temporary files to leave it (XDG Base Directory Specification)."""


class PinholeKey(NamedTuple):
    """What a pinhole of a lease is claimed by: packets over IPv6 come straight to the internal port."""

    internal_port: int
    proto: Proto

    def __str__(self) -> str:
        return f"the pinhole for {self.proto} port {self.internal_port}"


ClaimKey = MappingKey | PinholeKey


class _Kind(Enum):
    SHARED = auto()
    EXCLUSIVE = auto()
    UNLOCKED = auto()


class OwnerLock:
    """The claims of one mapper on the ports of one gateway: one file, one descriptor, one byte for each port.

    The file is open while there are claims. Whatever is wrong with it is no error: then all goes on without a lock, as
    it does where there is no gateway ("").
    """

    def __init__(self, gateway_address: str) -> None:
        self._name = f"aioigd-{re.sub('[^0-9A-Za-z.-]', '_', gateway_address)}.lock" if gateway_address else ""
        self._descriptor: int | None = None
        self._does_without = False
        self._held: set[ClaimKey] = set()
        self._deleting: Counter[ClaimKey] = Counter()
        """How many tasks of this mapper are deleting what is claimed: one that was cancelled may still be ending."""
        self._waiting = 0

    def __del__(self) -> None:
        self._close_file()  # a mapper that nobody has closed

    @property
    def is_in_use(self) -> bool:
        """Whether there are claims, or there may be some soon."""
        return bool(self._held or self._deleting or self._waiting)

    def __contains__(self, key: ClaimKey) -> bool:
        return key in self._held

    def hold_now(self, key: ClaimKey) -> bool:
        """Claim a port together with others, unless somebody is deleting its mapping; return whether it is claimed."""
        if key in self._held:
            return True
        if key in self._deleting or not self._lock(key, _Kind.SHARED):
            return False
        self._held.add(key)
        return True

    async def hold(self, key: ClaimKey) -> bool:
        """Claim a port together with others, and return whether nobody was just deleting its mapping.

        Where somebody is, this waits for at most PATIENCE, and goes on without the claim.
        """
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            if self._descriptor is None and self._name and not self._does_without:
                await _make_folder()
            if self.hold_now(key):
                return True
            until = loop.time() + PATIENCE
            while loop.time() < until:
                await asyncio.sleep(_RETRY_PAUSE)
                if self.hold_now(key):
                    return False
        finally:
            self._waiting -= 1
        log.info("another program has been deleting %s for %.0f s, going on all the same", key, PATIENCE)
        return False

    def drop(self, key: ClaimKey) -> None:
        """Give up the claim on a port, if there is one."""
        if key in self._held:
            self._held.remove(key)
            self._unlock(key)

    @contextmanager
    def take_if_last(self, key: ClaimKey) -> Iterator[bool]:
        """Give up the claim on a port; yield whether nobody else has one, so that its mapping may be deleted.

        While it is deleted, in the block, nobody else gets a claim.
        """
        self.drop(key)
        if key not in self._deleting and not self._lock(key, _Kind.EXCLUSIVE):
            yield False
            return
        self._deleting[key] += 1
        try:
            yield True
        finally:
            self._deleting[key] -= 1
            if self._deleting[key] <= 0:
                del self._deleting[key]
                self._unlock(key)

    def mark(self, key: MappingKey, desc: str) -> None:
        """Note a description that a program of this host has given to a mapping."""
        descriptor = self._opened()
        if descriptor is not None:
            with suppress(OSError):
                os.lseek(descriptor, _mark_of(key, desc), os.SEEK_SET)
                os.write(descriptor, b"*")

    def is_marked(self, key: MappingKey, desc: str) -> bool:
        """Return whether a description was noted, or one that sets the same mark."""
        descriptor = self._opened()
        if descriptor is not None:
            with suppress(OSError):
                os.lseek(descriptor, _mark_of(key, desc), os.SEEK_SET)
                return os.read(descriptor, 1) == b"*"
        return False

    def close(self) -> None:
        """Give up all claims, and close the file; a later claim opens it again."""
        self._held.clear()
        self._deleting.clear()
        self._does_without = False
        self._close_file()

    def _lock(self, key: ClaimKey, kind: _Kind) -> bool:
        """Lock the byte of a port; False where somebody else's lock is in the way."""
        descriptor = self._opened()
        if descriptor is None:
            return True
        try:
            return _lock_byte(descriptor, _LOCKS_AT + _byte_of(key), kind)
        except OSError as error:
            self._do_without(error)
            return True

    def _unlock(self, key: ClaimKey) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                _lock_byte(self._descriptor, _LOCKS_AT + _byte_of(key), _Kind.UNLOCKED)

    def _opened(self) -> int | None:
        """Return the descriptor of the file, which is opened unless it is open; None where it cannot be had."""
        if self._descriptor is None and self._name and not self._does_without:
            try:
                self._descriptor = _open(self._name)
            except OSError as error:
                self._do_without(error)
            else:
                _open_locks.add(self)
        return self._descriptor

    def _do_without(self, error: OSError) -> None:
        log.info("no lock file, so a port is deleted whoever else on this host keeps it: %s", error)
        self._close_file()
        self._does_without = True

    def _close_file(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _open_locks.discard(self)
            os.close(descriptor)


class Ownership:
    """The claims of one mapper, each on the gateway on which it was made last.

    ``gateway_address`` tells the address of the gateway in use, "" for none. A claim moves when it is held again after
    the gateway has got another address.
    """

    def __init__(self, gateway_address: Callable[[], str]) -> None:
        self._gateway_address = gateway_address
        self._locks: dict[str, OwnerLock] = {}
        self._descs: dict[ClaimKey, set[str]] = {}

    async def hold(self, key: ClaimKey) -> bool:
        """Claim a port of the gateway in use, as :meth:`OwnerLock.hold` does."""
        lock = self._current()
        try:
            was_free = await lock.hold(key)
        finally:
            self._close_unused()
        self._drop_elsewhere(key, lock)
        return was_free

    def hold_now(self, key: ClaimKey) -> None:
        """Claim a port of the gateway in use, unless somebody is deleting its mapping."""
        lock = self._current()
        lock.hold_now(key)
        self._drop_elsewhere(key, lock)

    def drop(self, key: ClaimKey) -> None:
        """Give up the claim on a port, if there is one."""
        for lock in self._locks.values():
            lock.drop(key)
        self._close_unused()

    @contextmanager
    def take_if_last(self, key: ClaimKey) -> Iterator[bool]:
        """Give up the claim on a port; yield whether its mapping may be deleted, and keep others out meanwhile."""
        current = self._current()
        locks = [current, *(lock for lock in self._locks.values() if lock is not current and key in lock)]
        try:
            with ExitStack() as stack:
                taken = [stack.enter_context(lock.take_if_last(key)) for lock in locks]
                yield all(taken)
        finally:
            self._descs.pop(key, None)
            self._close_unused()

    def mark(self, key: MappingKey, desc: str) -> None:
        """Note a description that this mapper has given to a mapping, or that the gateway has made of it."""
        self._descs.setdefault(key, set()).add(desc)
        self._current().mark(key, desc)

    def is_marked(self, key: MappingKey, desc: str) -> bool:
        """Return whether a description is one that a program of this host has given to a mapping."""
        return desc in self._descs.get(key, ()) or self._current().is_marked(key, desc)

    def close(self) -> None:
        """Give up all claims."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()
        self._descs.clear()

    def _drop_elsewhere(self, key: ClaimKey, here: OwnerLock) -> None:
        if len(self._locks) > 1:
            for lock in self._locks.values():
                if lock is not here:
                    lock.drop(key)
            self._close_unused()

    def _current(self) -> OwnerLock:
        address = self._gateway_address()
        if address not in self._locks:
            self._locks[address] = OwnerLock(address)
        return self._locks[address]

    def _close_unused(self) -> None:
        for address, lock in tuple(self._locks.items()):
            if not lock.is_in_use:
                lock.close()
                del self._locks[address]


# The file


async def _make_folder() -> None:
    """Make the folder for lock files where it is missing, in a thread, as that has to be written to a disk."""
    folder = _missing_folder()
    if folder is None:
        return
    loop = asyncio.get_running_loop()
    made = asyncio.Event()

    def make() -> None:
        with suppress(OSError):
            os.mkdir(folder, 0o700)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(made.set)

    threading.Thread(target=make, name="aioigd lock folder", daemon=True).start()
    await made.wait()


def _open(name: str) -> int:
    """Open a lock file, and make it if need be. Raises OSError where there is no folder for it."""
    if not _CAN_LOCK:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    *others, last = _folders()
    for folder in others:
        with suppress(OSError):
            return _open_in(folder, name, is_private=False)
    return _open_in(last, name, is_private=True)


if sys.platform == "win32":  # pragma: no cover - the tests run on Linux
    _CAN_LOCK: Final = True
    """Whether the locks of this system belong to open file descriptions."""
    _LOCKFILE_FAIL_IMMEDIATELY: Final = 1
    """The flag of LockFileEx for not waiting."""
    _LOCKFILE_EXCLUSIVE_LOCK: Final = 2
    """The flag of LockFileEx for a lock that nobody shares."""
    _IN_THE_WAY: Final = frozenset({33, 997})
    """The error codes for a lock that somebody else has: ERROR_LOCK_VIOLATION, ERROR_IO_PENDING."""

    _OVERLAPPED: Final = struct.Struct("PPIIP")
    """OVERLAPPED of LockFileEx: two words of the system's, the offset and its upper half, and an event."""

    def _folders() -> list[str]:
        """Return where the lock file may be: the user's folder for temporary files."""
        # tempfile finds out by writing a file.
        for name in ("TMPDIR", "TEMP", "TMP"):
            if folder := os.environ.get(name):
                return [folder]
        import tempfile

        return [tempfile.gettempdir()]

    def _missing_folder() -> str | None:
        """Return the folder that has to be made first, None for none."""
        return None

    def _open_in(folder: str, name: str, *, is_private: bool) -> int:
        # The user's temporary folder is only the user's, and descriptors are not inherited.
        return os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_BINARY | os.O_NOINHERIT, 0o600)

    def _lock_byte(descriptor: int, offset: int, kind: _Kind) -> bool:
        """Lock one byte of a file, or unlock it, without waiting; False where somebody else's lock is in the way."""
        import ctypes  # which programs without leases do not need
        import msvcrt

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
        where = ctypes.create_string_buffer(_OVERLAPPED.pack(0, 0, offset, 0, 0))
        if kind is _Kind.UNLOCKED:
            done = kernel.UnlockFileEx(handle, 0, 1, 0, where)
        else:
            flags = _LOCKFILE_FAIL_IMMEDIATELY | (_LOCKFILE_EXCLUSIVE_LOCK if kind is _Kind.EXCLUSIVE else 0)
            done = kernel.LockFileEx(handle, flags, 0, 1, 0, where)
        if not done and ctypes.get_last_error() not in _IN_THE_WAY:
            raise ctypes.WinError(ctypes.get_last_error())
        return bool(done)

else:
    import fcntl

    _CAN_LOCK: Final = sys.platform.startswith(("linux", "android"))
    """Whether the locks of this system belong to open file descriptions."""
    _F_OFD_SETLK: Final = 37
    """The command of fcntl(2) for such a lock, without waiting; Python 3.11 has no name for it."""
    _FLOCK: Final = struct.Struct("hhqqi0q")
    """struct flock of fcntl(2): type, whence, start, length, and a process, which has to be 0."""
    _TYPES: Final = {_Kind.SHARED: fcntl.F_RDLCK, _Kind.EXCLUSIVE: fcntl.F_WRLCK, _Kind.UNLOCKED: fcntl.F_UNLCK}
    """What is to become of the lock, in the numbers of fcntl(2)."""

    def _folders() -> list[str]:
        """Return where the lock file may be; the first folder that is there, and only ours, is the one."""
        own = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"aioigd-{os.geteuid()}")  # noqa: S108 - it is checked
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        return [runtime, own] if os.path.isabs(runtime) else [own]

    def _missing_folder() -> str | None:
        """Return the folder that has to be made first, None for none."""
        folders = _folders() if _CAN_LOCK else []
        for folder in folders:
            with suppress(OSError):
                os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                return None
        return folders[-1] if folders else None

    def _open_in(folder: str, name: str, *, is_private: bool) -> int:
        """Open a file for reading and writing in a folder that is only ours; ``is_private``: make it, if need be.

        The folder for temporary files is everybody's: a link that somebody else has put there is not followed.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if is_private else 0)
        try:
            folder_descriptor = os.open(folder, flags)
        except FileNotFoundError:
            if not is_private:
                raise
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            folder_descriptor = os.open(folder, flags)
        try:
            status = os.fstat(folder_descriptor)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise PermissionError(errno.EPERM, "others may write there", folder)
            # Non-blocking, so that whatever it turns out to be never holds up the event loop.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(name, flags, _FILE_MODE, dir_fd=folder_descriptor)
        finally:
            os.close(folder_descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", os.path.join(folder, name))
        return descriptor

    def _lock_byte(descriptor: int, offset: int, kind: _Kind) -> bool:
        """Lock one byte of a file, or unlock it, without waiting; False where somebody else's lock is in the way."""
        try:
            fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(_TYPES[kind], os.SEEK_SET, offset, 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


def _byte_of(key: ClaimKey) -> int:
    first = _PORTS if key.proto == "UDP" else 0
    return first + (key.external_port if isinstance(key, MappingKey) else 2 * _PORTS + key.internal_port)


def _mark_of(key: MappingKey, desc: str) -> int:
    return _byte_of(key) * _MARKS + crc32(desc.encode("utf-8", "replace")) % _MARKS


# Forked children

_open_locks: WeakSet[OwnerLock] = WeakSet()


def _forget_claims() -> None:
    """Close what a forked child got from its parent: its claims would outlive it in the child."""
    for lock in tuple(_open_locks):
        lock.close()


if sys.platform != "win32":  # pragma: no branch - the tests run on Linux
    os.register_at_fork(after_in_child=_forget_claims)
