"""A file is there as a whole or not at all, for its owner only, and nothing is written over or through."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioigd import UsageError
from aioigd.testing import ReplayedGateway, record
from aioigd.testing.conversation import Conversation
from aioigd.testing.new_file import check_place, write_file

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="making links takes a privilege there")


def everything_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
def test_it_is_the_owners_alone(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_file(tmp_path / "x.json", b"content\n")
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").read_bytes() == b"content\n"
    assert everything_in(tmp_path) == ["x.json"]
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o600
        assert (tmp_path / "x.json").stat().st_nlink == 1


def _file(path: Path) -> None:
    path.write_text("mine")


def _link(path: Path) -> None:
    (path.parent / "victim").write_text("mine")
    path.symlink_to(path.parent / "victim")


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _hard_link(path: Path) -> None:
    (path.parent / "victim").write_text("mine")
    os.link(path.parent / "victim", path)


TAKEN = [
    pytest.param(each, marks=needs_links if each is not _file else ()) for each in (_file, _link, _dangling, _hard_link)
]


@pytest.mark.parametrize("make", TAKEN)
def test_what_is_there_stays_and_is_an_error_that_names_it(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    make(path)
    names = everything_in(tmp_path)
    problem = r"something of this name already.*x\.json"
    with pytest.raises(FileExistsError, match=problem):
        check_place(path, overwrite=False)
    with pytest.raises(FileExistsError, match=problem):
        write_file(path, b"new")
    assert everything_in(tmp_path) == names
    for name in set(names) & {"victim", "x.json"}:
        assert not (tmp_path / name).exists() or (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("make", TAKEN)
def test_it_is_replaced_where_that_is_wanted_and_no_link_is_followed(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    make(path)
    write_file(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    assert not path.is_symlink()
    assert not (tmp_path / "nowhere").exists()
    if (tmp_path / "victim").exists():
        assert (tmp_path / "victim").read_text() == "mine"
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_place(overwrite: bool, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        check_place(tmp_path, overwrite=overwrite)
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path, b"", overwrite=overwrite)


def test_a_folder_that_is_not_there_is_named_by_the_path_that_was_given(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"such\.json"):
        check_place(tmp_path / "no" / "such.json", overwrite=False)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [False, True])
def test_where_writing_fails_nothing_is_left_and_nothing_is_lost(
    error: BaseException, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if overwrite:
        (tmp_path / "x.json").write_text("mine")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_file(tmp_path / "x.json", b"new", overwrite=overwrite)
    assert everything_in(tmp_path) == (["x.json"] if overwrite else [])
    if overwrite:
        assert (tmp_path / "x.json").read_text() == "mine"


@needs_links
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links_will_do(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any, **__: Any) -> None:
        raise OSError(code, "no hard links here")

    monkeypatch.setattr(os, "link", no_link)
    write_file(tmp_path / "x.json", b"new")
    assert (tmp_path / "x.json").read_bytes() == b"new"
    assert everything_in(tmp_path) == ["x.json"]


@needs_links
@pytest.mark.parametrize("has_links", [True, False])
def test_what_comes_between_looking_and_writing_stays(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    link = os.link

    def late(*arguments: Any, **options: Any) -> None:
        path.symlink_to(tmp_path / "nowhere")
        if not has_links:
            raise OSError(errno.EPERM, "no hard links here")
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(FileExistsError):
        write_file(path, b"new")
    assert path.is_symlink()
    assert everything_in(tmp_path) == ["x.json"]


def test_on_windows_a_rename_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There ``os.rename`` fails where the name is taken; here that is acted."""

    def rename(source: str, target: Path) -> None:
        raise FileExistsError(errno.EEXIST, "taken", str(target))

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(FileExistsError, match="something of this name already"):
        write_file(tmp_path / "x.json", b"new")
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800" * 2, b"x", 0, True, None, [], 1.5], ids=ascii)
async def test_what_is_no_path_is_a_usage_error(path: Any) -> None:
    if sys.platform == "win32" and isinstance(path, str) and "\ud800" in path:
        pytest.skip("names may have half a character there")
    with pytest.raises(UsageError, match="the path of a recording is"):
        ReplayedGateway(path)
    with pytest.raises(UsageError, match="the path of a recording is"):
        Conversation(()).save(path)
    with pytest.raises(UsageError, match="the path of a recording is"):
        async with record(path):
            pass
