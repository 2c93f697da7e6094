"""What a file is, told by its first bytes: for messages about a file that is not what its name says."""

from pathlib import Path

from prisma.errors import PrismaError
from prisma.reading import open_file

LFS_POINTER = "a Git LFS pointer instead of the file itself: run `git lfs pull` in its folder"
BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", LFS_POINTER),
    (b"PK\x03\x04", "a zip archive, as torch.save writes pickles"),
    (b"\x80", "a pickle"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"%PDF", "a PDF"),
    (b"<!doctype html", "a web page: download the file itself"),
    (b"<html", "a web page: download the file itself"),
    (b"<svg", "a vector drawing (SVG)"),
    (b"<?xml", "XML"),
)
"""How a file begins (in small letters) -> what it is."""
_LENGTH = 64


def contents_of(path: Path) -> str | None:
    """What a file is, as a phrase for "found ..."; None if its first bytes do not tell.

    Safetensors begin with the length of their header and a brace.
    """
    try:
        with open_file(path) as file:
            start = file.read(_LENGTH)
    except PrismaError as error:
        return str(error).partition("; found ")[2]
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    if not start:
        return "an empty file"
    if is_safetensors(start):  # first: the length of a header may begin with any byte, also that of a pickle
        return "safetensors"
    return next((what for beginning, what in BEGINNINGS if start.lower().startswith(beginning.lower())), None)


def is_safetensors(start: bytes) -> bool:
    """Whether a file with these first bytes may be safetensors."""
    return start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") < 2**40
