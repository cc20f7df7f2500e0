"""Writes a file whole or not at all, for its owner only, and not over another one."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import UsageError
from ..text import shown

__all__ = ["check_place", "checked_path", "write_file"]

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_LINKS: Final = frozenset(
    getattr(errno, name)
    for name in ("EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "EXDEV", "EINVAL")
    if hasattr(errno, name)
)
"""What a file system says that has no hard links."""


def checked_path(path: object) -> Path:
    """Return the whole path of a file, as the current folder may be another one later.

    Raises UsageError for what is no str or Path, or no path of a file on any system: a number would be taken for that
    of an open file.
    """
    is_path = issubclass(type(path), (str, Path))
    try:
        encoded = os.fsencode(path) if is_path else b""  # type: ignore[arg-type]
    except (TypeError, ValueError):
        encoded = b""
    if not encoded or b"\0" in encoded:
        raise UsageError(f"the path of a recording is a str or Path that names a file, not {shown(path)}")
    return Path(os.fsdecode(encoded)).absolute()


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise the OSError that :func:`write_file` would raise by what can be told before there is anything to write."""
    _check_free(path, overwrite=overwrite)
    descriptor, temporary = _temporary(path)
    os.close(descriptor)
    os.unlink(temporary)


def write_file(path: Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a file that only its owner may read (mode 0600).

    It is written under another name in the same folder, and gets its own name when it is complete; if that fails, or is
    interrupted, nothing is left. What has the name already, be it a link that leads nowhere, is an error
    (FileExistsError), or is replaced with ``overwrite``; a link itself then, not what it leads to. Raises OSError.
    """
    _check_free(path, overwrite=overwrite)
    descriptor, temporary = _temporary(path)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            _give_name(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _check_free(path: Path, *, overwrite: bool) -> None:
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, "this is a folder", str(path))
    if not overwrite and os.path.lexists(path):
        raise _taken(path)


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "there is something of this name already, and it stays as it is", str(path))


def _temporary(path: Path) -> tuple[int, str]:
    """Make a file in the folder of another one; return its descriptor and its name."""
    name = os.path.join(path.parent, f".aioigd-{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(name, _NEW, 0o600)
    except OSError as error:
        # The name that the caller knows is the one to be told.
        raise OSError(error.errno, error.strerror, str(path)) from error
    if sys.platform != "win32":
        with suppress(OSError):  # not all file systems have modes
            os.fchmod(descriptor, 0o600)  # the umask may have taken from it
    return descriptor, name


def _give_name(temporary: str, path: Path) -> None:
    """Rename a file, unless the name is taken."""
    if sys.platform == "win32":
        try:
            os.rename(temporary, path)  # which replaces nothing there
        except FileExistsError as error:
            raise _taken(path) from error
        return
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError as error:
        raise _taken(path) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LINKS:
            raise
        _claim(path)
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _claim(path: Path) -> None:
    """Make an empty file of a name that is not taken."""
    try:
        os.close(os.open(path, _NEW, 0o600))
    except FileExistsError as error:
        raise _taken(path) from error
