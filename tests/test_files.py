"""Files and folders that are whole or absent, whatever fails while they are written."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from prisma import PrismaError
from prisma.files import (
    LOCK,
    exclusive,
    expect_empty,
    expect_writable,
    new_folder,
    read_json,
    sha256,
    to_json,
    write_atomic,
    write_json,
)


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def failing(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    for data in (b"one", b"", b"three"):
        write_atomic(path, data)
        assert everything(tmp_path) == {"new": None, "new/folder": None, "new/folder/file.bin": data}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "file", b"old")
    monkeypatch.setattr(os, step, failing)
    with pytest.raises(PrismaError, match=r"could not write .*file: No space left on device"):
        write_atomic(tmp_path / "file", b"new")
    assert everything(tmp_path) == {"file": b"old"}


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """A real write error: the process may write 4096 bytes to a file and no more."""
    code = f"""
import resource, signal
from pathlib import Path
from prisma.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
write_atomic(Path({str(tmp_path)!r}) / "file", bytes(10_000))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert "PrismaError: could not write" in done.stderr
    assert "File too large" in done.stderr
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("name", ["file/below", "file/below/deeper"])
def test_a_parent_that_is_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"here")
    with pytest.raises(PrismaError, match="could not write"):
        write_atomic(tmp_path / name, b"data")
    with pytest.raises(PrismaError, match="could not write"), new_folder(tmp_path / name):
        pass
    assert everything(tmp_path) == {"file": b"here"}


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_bytes(b"a")
        assert not (tmp_path / "out").exists()
    assert everything(tmp_path) == {"out": None, "out/sub": None, "out/sub/a": b"a"}


def test_an_empty_folder_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_bytes(b"a")
    assert everything(tmp_path) == {"out": None, "out/a": b"a"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt(), PrismaError("no")])
def test_a_folder_that_fails_is_absent(error: BaseException, tmp_path: Path) -> None:
    expected = PrismaError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_bytes(b"a")
        raise error
    assert everything(tmp_path) == {}


def test_a_folder_that_cannot_be_synced_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing)
    with (
        pytest.raises(PrismaError, match=r"could not write .*out: No space left"),
        new_folder(tmp_path / "out") as folder,
    ):
        (folder / "a").write_bytes(b"a")
    assert everything(tmp_path) == {}


def test_what_a_kill_left_behind_is_cleared(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from prisma.files import new_folder
with new_folder(Path({str(tmp_path)!r}) / "out") as folder:
    (folder / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=240).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole").write_bytes(b"whole")
    assert everything(tmp_path) == {"out": None, "out/whole": b"whole"}


def test_a_folder_in_use_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"file")
    with (
        pytest.raises(PrismaError, match=r"new or empty folder at .*out; found 1 entries"),
        new_folder(tmp_path / "out"),
    ):
        pass
    with pytest.raises(PrismaError, match=r"new or empty folder at .*file; found a file"):
        expect_empty(tmp_path / "file")
    expect_empty(tmp_path / "absent")
    assert everything(tmp_path) == {"out": None, "out/mine": b"mine", "file": b"file"}


def test_json_objects_come_back_and_nothing_else_does(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"loss": 0.5, "of": [1, None]})
    assert read_json(tmp_path / "x.json") == {"loss": 0.5, "of": [1, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    (tmp_path / "half.json").write_text('{"loss": ')
    (tmp_path / "list.json").write_text("[1]")
    for name, found in {"half.json": "something else", "list.json": "found list"}.items():
        with pytest.raises(PrismaError, match=found):
            read_json(tmp_path / name)


def test_only_one_is_in_a_folder_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            exclusive(tmp_path, "work"),
            pytest.raises(PrismaError, match="expected to be the only process to work; found another one"),
            exclusive(tmp_path, "work"),
        ):
            pass
    assert everything(tmp_path) == {}


def test_a_lock_file_of_another_name_stays_and_is_locked(tmp_path: Path) -> None:
    def publishing() -> AbstractContextManager[Callable[[], None]]:
        return exclusive(tmp_path, "publish", "publish.lock")

    for _ in range(2):
        with publishing(), pytest.raises(PrismaError, match="to publish"), publishing():
            pass
        assert everything(tmp_path) == {"publish.lock": b""}


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_goes_before_it_is_locked_does_not_become_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    def late(lock: FileLock, **options: Any) -> object:
        shutil.rmtree(folder)
        if again:
            folder.mkdir()
        return acquire(lock, **options)

    acquire, folder = FileLock.acquire, tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(FileLock, "acquire", late)
    with suppress(PrismaError), exclusive(folder, "work") as expect_alone:
        expect_alone()
    assert everything(tmp_path) in ({}, {"run": None})


@pytest.mark.parametrize("taken", [False, True])
def test_who_loses_the_folder_writes_no_more_and_leaves_the_lock_of_the_next(tmp_path: Path, taken: bool) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with ExitStack() as other:
        with exclusive(folder, "work") as expect_alone:
            expect_alone()
            folder.rename(tmp_path / "gone")  # as long as the old lock file exists, a new one is another inode
            if taken:
                folder.mkdir()
                other.enter_context(exclusive(folder, "work"))
            with pytest.raises(PrismaError, match=r"expected to be the only process to work; found that .*removed or"):
                expect_alone()
        assert (folder / LOCK).exists() == taken
        if taken:
            with pytest.raises(PrismaError, match="found another one"), exclusive(folder, "work"):
                pass


def test_a_folder_that_cannot_be_made_is_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    for folder in (tmp_path, tmp_path / "new", tmp_path / "a" / "b" / "c", tmp_path / ("x" * 250)):
        expect_writable(folder)
    for name, sentence in {
        "file": r"expected a folder at .*/file; found a file$",
        "file/new": r"expected a folder at .*/file; found a file$",
        "lost": r"expected a folder at .*/lost; found a link to nothing",
        "lost/new": r"expected a folder at .*/lost; found a link to nothing",
        f"new/{'x' * 300}": r"could not write .*: File name too long; choose a shorter name",
    }.items():
        with pytest.raises(PrismaError, match=sentence):
            expect_writable(tmp_path / name)
    with pytest.raises(PrismaError, match="could not write /proc/new/folder: "):  # where root may not write either
        expect_writable(Path("/proc/new/folder"))
    changed = tmp_path.stat().st_mtime_ns
    expect_writable(tmp_path)
    assert tmp_path.stat().st_mtime_ns == changed  # a folder that is there is not touched
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PrismaError, match=r"could not write .*: Permission denied; choose a folder that you may read"):
        expect_writable(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_kill_frees_the_folder(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from prisma.files import exclusive
with exclusive(Path({str(tmp_path)!r}), "work"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=240).returncode == -signal.SIGKILL
    assert everything(tmp_path) == {LOCK: b""}
    expect_empty(tmp_path)
    with exclusive(tmp_path, "work"):
        pass
    assert everything(tmp_path) == {}


def test_windows_does_not_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a folder cannot be opened, and an empty one is not replaced by another."""

    def no_folder(path: Path, flags: int) -> int:
        assert not Path(path).is_dir() and flags == os.O_RDWR
        return open_(path, flags)

    open_ = os.open
    for module in ("files", "filesystem"):
        monkeypatch.setattr(f"prisma.{module}.ON_WINDOWS", True)
    monkeypatch.setattr("prisma.filesystem.os.open", no_folder)
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_bytes(b"a")
    assert everything(tmp_path) == {"out": None, "out/a": b"a"}


def test_what_a_file_manager_leaves_is_nothing(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_text("icons")
    expect_empty(tmp_path)
    with new_folder(tmp_path) as folder:
        (folder / "mine").write_text("1")
    assert everything(tmp_path) == {"mine": b"1"}
    (tmp_path / "mine").rename(tmp_path / ".mine")
    with pytest.raises(PrismaError, match="found 1 entries"):
        expect_empty(tmp_path)


def test_json_with_a_name_that_is_not_utf8_can_be_read_again(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "caf\udce9 é", "half": ["\ud800"], "\udcff": "😀"})
    assert read_json(tmp_path / "a.json") == {"name": r"caf\xe9 é", "half": [r"\ud800"], r"\xff": "😀"}
    assert to_json({"a": "é😀"}) == b'{\n  "a": "\\u00e9\\ud83d\\ude00"\n}\n'  # as before
