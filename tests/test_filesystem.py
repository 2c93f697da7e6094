"""File systems that cannot do everything: work goes on with something weaker, which is said once."""

import errno
import fcntl
import inspect
import os
import shutil
import threading
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

import prisma
from prisma import PrismaError, filesystem
from prisma.data.pictures import pictures
from prisma.data.transform import opened
from prisma.files import exclusive, new_folder, write_atomic
from prisma.filesystem import given, link_or_copy, move, partial_of, remove, sentence, sentences, sync
from prisma.publish import audit, preview, publish
from prisma.recipes import recipe
from prisma.repository import published_in
from prisma.study.shards import DatasetAnalysis
from prisma.train import train
from tests.conftest import SMALL
from tests.run_edits import timeless


def refusing(number: int, of: Callable[[int], bool] = lambda _: True) -> Callable[..., None]:
    real = os.fsync

    def operation(first: int, *_: object, **__: object) -> None:
        if of(first):
            raise OSError(number, os.strerror(number))
        real(first)

    return operation


def is_folder(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").is_dir()


PACKAGES = (
    "", ".data", ".editing", ".features", ".language", ".mechanisms", ".publish", ".smallest", ".sparse",
    ".train",
)  # fmt: skip


def test_every_path_that_a_public_function_takes_may_be_text() -> None:
    wrong = []
    for package in PACKAGES:
        module = import_module(f"prisma{package}")
        for name in module.__all__:
            x = getattr(module, name)
            owned = [getattr(x, own) for own in vars(x) if own[0] != "_"] if inspect.isclass(x) else [x]
            for function in (x for x in owned if inspect.isfunction(x) or inspect.ismethod(x)):
                told = {n: str(p.annotation) for n, p in inspect.signature(function).parameters.items()}
                wrong += [f"{function.__qualname__}({n})" for n, of in told.items() if "Path" in of and "str" not in of]
    assert wrong == []


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(filesystem, "_said", set())


def messages(work: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        work()
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
@pytest.mark.parametrize("all_files", [False, True])
def test_a_run_is_trained_and_published_without_syncing(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, all_files: bool
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number, (lambda _: True) if all_files else is_folder))
    command = {"command": "prisma train digits", "progress": False}
    words = messages(lambda: train(recipe("digits").override(SMALL), tmp_path / "run", **command))
    words += messages(lambda: publish(tmp_path / "run", "lab/tiny", tmp_path / "hub", progress=False))
    wanted = ["this file system has no syncing of folders: after a loss of power, what was written last may be missing"]
    files = [words_.replace("folders", "files") for words_ in wanted] if all_files else []
    assert sorted(words) == files + wanted
    for name in ("model.safetensors", "metrics.jsonl", "state.safetensors", "results.json"):
        assert timeless(tmp_path / "run" / name) == timeless(finished_run / name)
    assert audit("lab/tiny", tmp_path / "hub") == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number))
    with pytest.raises(PrismaError, match=f"could not write .*file: {os.strerror(number)}; "):
        write_atomic(tmp_path / "file", b"data")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_may_not_be_opened_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "file").touch()
    monkeypatch.setattr("prisma.filesystem.os.open", closed)
    assert len(messages(lambda: (sync(tmp_path), sync(tmp_path)))) == 1
    with pytest.raises(PermissionError):
        sync(tmp_path / "file")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_without_links_a_hub_holds_copies(
    run: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "symlink", refusing(number))
    copies = tmp_path / "copies"
    words = messages(lambda: publish(run, "lab/tiny", copies, progress=False))
    assert words == ["this file system has no symbolic links: files are copied instead, which takes more space"]
    assert not [path for path in copies.rglob("*") if path.is_symlink()]
    assert audit("lab/tiny", copies) == audit("lab/tiny", hub) == []
    assert not publish(run, "lab/tiny", copies, progress=False).changed
    for revision in ("main", "step-000002"):
        ours, theirs = (prisma.load("lab/tiny", revision=revision, hub=folder).model for folder in (copies, hub))
        assert all((x == y).all() for x, y in zip(ours.parameters(), theirs.parameters(), strict=True))
    path = next((copies / "models--lab--tiny/snapshots").glob("*/probe.safetensors"))
    path.write_bytes(b"damaged")
    assert any("probe.safetensors changed" in finding.problem for finding in audit("lab/tiny", copies))
    assert publish(run, "lab/tiny", copies, progress=False).repaired == ("main",)
    assert audit("lab/tiny", copies) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_file_marks_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))

    def twice() -> None:
        for _ in range(2):
            refused = pytest.raises(PrismaError, match=r"another one: .*, or remove .*\.lock")
            with exclusive(tmp_path, "work"), refused, exclusive(tmp_path, "work"):
                pass

    (words,) = messages(twice)
    assert words.startswith("this file system has no locks: a file marks a folder as in use")
    assert not list(tmp_path.iterdir())


def test_a_folder_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(source: str, target: str, **_: object) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", across)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "file").write_text("1")
    (tmp_path / "a" / "folder").mkdir()
    (tmp_path / "a" / "folder" / "link").symlink_to("elsewhere")
    for name in ("file", "folder"):
        move(tmp_path / "a" / name, tmp_path / "b" / name)
    assert (tmp_path / "b" / "file").read_text() == "1"
    assert (tmp_path / "b" / "folder" / "link").readlink() == Path("elsewhere")
    assert not list((tmp_path / "a").iterdir()) and len(list((tmp_path / "b").iterdir())) == 2


def test_a_link_that_fails_for_another_reason_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "symlink", refusing(errno.ENOSPC))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="No space left"):
        link_or_copy(tmp_path / "link", Path("file"), tmp_path / "file")


def test_an_error_is_a_sentence_with_its_file(tmp_path: Path) -> None:
    read_only = OSError(errno.EROFS, "Read-only file system", "hub/blobs")
    words = "could not read or write hub/blobs: Read-only file system; choose a folder that can be written"
    assert sentence(read_only) == words
    with pytest.raises(PrismaError, match=r"^could not read or write out: Input/output"), sentences(Path("out")):
        raise OSError(errno.EIO, "Input/output error")
    long = tmp_path / ("x" * 300)
    with pytest.raises(PrismaError, match="File name too long; choose a shorter name"):
        write_atomic(long, b"")


def test_many_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    contents = [bytes([i]) * 200_000 for i in range(8)]
    threads = [threading.Thread(target=write_atomic, args=(tmp_path / "file", data)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    living = partial_of(tmp_path / "out")
    living.mkdir()
    with new_folder(tmp_path / "out"):
        pass
    assert living.is_dir()
    remove(living)
    remove(living)
    assert not living.exists()
    shutil.rmtree(tmp_path / "out")


READ_ONLY = ("open", "mkdir", "replace", "rename", "symlink", "unlink", "rmdir")


def test_a_hub_that_cannot_be_written_is_audited_and_found_up_to_date(
    run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guarded(name: str) -> Callable[..., object]:
        real = getattr(os, name)

        def operation(path: object, *arguments: object, **options: object) -> object:
            writes = name != "open" or int(str(arguments[0] if arguments else 0)) & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT
            )
            if writes and str(path).startswith(str(hub)):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real(path, *arguments, **options)

        return operation

    for name in READ_ONLY:
        monkeypatch.setattr(os, name, guarded(name))
    assert audit("lab/tiny", hub) == []
    assert not publish(run, "lab/tiny", hub, progress=False).changed
    with pytest.raises(PrismaError, match=r"could not write .*: Read-only file system; choose a folder that can be"):
        publish(run, "lab/other", hub, progress=False)


def test_a_path_is_expanded_and_checked_where_it_enters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given("~/a b/c") == given(Path("~/a b/c")) == tmp_path / "a b" / "c"
    assert given("a/~") == Path("a/~") and given("b\udce9") == Path("b\udce9")  # a name in Latin-1
    for path, why in {
        "a\0": "it has a NUL character",
        "a\ud800": "it has half of a character",
        "~nobody-here/a": "there is no such user",
    }.items():
        with pytest.raises(PrismaError, match=f"^expected a path that a file can have; found .*{why}"):
            given(path)
    with pytest.raises(PrismaError, match=r"^expected a path, as text or a Path; found 5$"):
        given(5)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_every_path_of_python_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    home = Path("~")
    train(recipe("induction").override(SMALL), home / "run", progress=False)
    publish(home / "run", "lab/tiny", home / "hub", progress=False)
    assert preview(home / "run", "lab/tiny").startswith("---")
    assert audit("lab/tiny", home / "hub") == [] and published_in(home / "hub") == ["lab/tiny"]
    loaded = prisma.load("lab/tiny", hub="~/hub")
    assert loaded.labels == prisma.load("~/run").labels
    some = pictures("induction", loaded.transform, loaded.config.input_shape)
    job = DatasetAnalysis("head_scores", loaded.model, some, {}, home / "x")
    assert job.out == tmp_path / "x"
    result = prisma.logit_lens(loaded.model, torch.zeros(1, *loaded.config.input_shape))
    assert result.to_npz("~/result.npz") == tmp_path / "result.npz"
    assert type(result).from_npz("~/result.npz").arrays.keys() == result.arrays.keys()
    (tmp_path / "pictures").mkdir()
    Image.new("L", (7, 7)).save(tmp_path / "pictures" / "one.png")
    with opened("~/pictures/one.png") as picture:
        assert picture.size == (7, 7)
    assert len(pictures("~/pictures", loaded.transform, loaded.config.input_shape)) == 1
    assert not (tmp_path / "~").exists()
