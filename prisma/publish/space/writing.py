"""The folder of a Space on this machine, to look at and to start with `python app.py`."""

import shutil
from pathlib import Path

from prisma.errors import PrismaError, listed
from prisma.files import CLUTTER, new_folder, read_json, sha256
from prisma.filesystem import move, partial_of, remove, unwritable
from prisma.publish.space.planning import LIST, MADE_BY, Plan

LEFT_BY_RUNNING = ("__pycache__", ".gradio")  # folders


def write(planned: Plan, out: Path) -> bool:
    """Make `out` the folder of a Space, whole or not at all. An earlier one there is replaced.

    Returns:
        Whether anything was written: False if the folder holds just these files.

    Raises:
        PrismaError: `out` is a file or a folder that holds something else, which is left as it is; or it could not be
            written.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise PrismaError(f"expected a new folder, or that of a Space, at {out}; found a file or a link")
    found = _files(out)
    if found:
        _expect_space(out, found)
        if {name: sha256(out / name) for name in found} == dict(planned.hashes):
            return False
    fresh = partial_of(out)
    with new_folder(fresh) as folder:
        for name, source in planned.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                path.write_bytes(source)
            else:
                shutil.copyfile(source, path)
            if sha256(path) != planned.hashes[name]:
                raise PrismaError(f"expected {source!s:.200} to stay as it was; found it changed")
    _exchange(fresh, out)
    return True


def _files(folder: Path) -> list[str]:
    """Names of the files in a folder, without what a file manager or a run of the app leaves there."""
    names = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        inside = path.relative_to(folder)
        ignored = set(inside.parts) & set(LEFT_BY_RUNNING) or path.name in CLUTTER
        if not ignored and (path.is_symlink() or not path.is_dir()):
            names.append(inside.as_posix())
    return names


def _expect_space(out: Path, found: list[str]) -> None:
    """Raise PrismaError unless a folder holds what `write` wrote, and nothing else."""
    facts = read_json(out / LIST) if LIST in found and not (out / LIST).is_symlink() else {}
    known = facts.get("files")
    if facts.get("made_by") != MADE_BY or not isinstance(known, dict):
        raise PrismaError(
            f"expected a new or empty folder, or that of a Space, at {out}; found {len(found)} other files"
        )
    odd = [n for n in found if n != LIST and ((out / n).is_symlink() or sha256(out / n) != known.get(n))]
    if odd:
        raise PrismaError(
            f"expected only files that `prisma space` wrote in {out}; found others, or changed ones: {listed(odd)}"
        )


def _exchange(fresh: Path, out: Path) -> None:
    """Put a finished folder in the place of `out`."""
    old = partial_of(out)
    try:
        if out.exists():
            move(out, old)
        move(fresh, out)
    except OSError as error:
        if old.exists() and not out.exists():
            move(old, out)
        raise unwritable(out, error) from error
    finally:
        remove(fresh)
    remove(old)
