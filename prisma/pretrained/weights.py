"""The weights of a folder or repository of another library: Prisma chooses the files, and the library gets no other.

Libraries choose for themselves, each by its own order, and some of them open a pickle, which can run code. So weights
are chosen here, among safetensors only, and no library is given a folder to search.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from prisma.checkpoint import names_in, read_tensors, to_safetensors, unwrapped, wrapper_of
from prisma.contents import LFS_POINTER, contents_of
from prisma.downloads import download, download_if_there, no_network
from prisma.errors import PrismaError, listed
from prisma.files import read_json

SUFFIX, INDEX = ".safetensors", ".safetensors.index.json"
_TORCH, _NUMPY, _TENSORFLOW = "PyTorch", "NumPy", "TensorFlow"
OTHERS = {
    ".bin": _TORCH, ".pt": _TORCH, ".pth": _TORCH, ".ckpt": _TORCH, ".torchscript": _TORCH, ".distcp": _TORCH,
    ".pkl": "Python", ".pickle": "Python", ".joblib": "Python", ".npz": _NUMPY, ".npy": _NUMPY,
    ".h5": _TENSORFLOW, ".keras": _TENSORFLOW, ".pb": _TENSORFLOW, ".tflite": _TENSORFLOW, ".index": _TENSORFLOW,
    ".msgpack": "Flax", ".onnx": "ONNX", ".gguf": "GGUF", ".ggml": "GGML", ".xml": "OpenVINO", ".mlmodel": "Core ML",
    ".engine": "TensorRT", ".ot": "Rust", ".tar": "an archive", ".gz": "an archive", ".zip": "an archive",
}  # fmt: skip
"""Endings of weights in other formats -> what writes them."""
NAMED = 3  # the largest number of files that a message names
NO_PICKLES = (
    "Prisma opens no other format, because most of them are pickles, which can run code when they are loaded: load "
    "the weights in the library that wrote them, save them as safetensors, and load that folder"
)


@dataclass(frozen=True)
class Weights:
    """One set of safetensors: a file, or shards and the index that names them."""

    files: tuple[Path, ...]
    index: Path | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, each in memory of its own, under their names without DataParallel and torch.compile.

        Raises:
            PrismaError: a file is absent, damaged or something else; a tensor is in two files, or in none of them.
        """
        found: dict[str, Tensor] = {}
        for file in self.files:
            tensors, _ = read_tensors(file)
            if twice := sorted(tensors.keys() & found.keys()):
                raise PrismaError(f"expected every tensor in one file; found {twice[0]} in {file} and in another shard")
            found |= tensors
        if self.index is not None and (missing := sorted(_weight_map(self.index).keys() - found.keys())):
            raise PrismaError(
                f"expected the tensors that {self.index} names; found no {', '.join(missing)} in its files"
            )
        return unwrapped(found)

    @contextmanager
    def as_file(self) -> Iterator[Path]:
        """The path of one safetensors file, for a library that reads one: of shards, or of a wrapped module, a copy."""
        for file in self.files:
            expect_safetensors_bytes(file)
        if self.index is None and not wrapper_of(names_in(self.files[0])):
            yield self.files[0]
            return
        with TemporaryDirectory() as folder:
            joined = Path(folder, f"model{SUFFIX}")
            joined.write_bytes(to_safetensors(self.tensors(), {}))
            yield joined


def weights_in(folder: Path, standard: Sequence[str], name: str = "") -> Weights:
    """The weights of a folder: those under a name that its library uses, else the only safetensors that there are.

    Args:
        standard: names of safetensors that the folder's library uses; an index of shards of such a name counts too.
        name: what messages call the folder, if not by its path.

    Raises:
        PrismaError: there are no safetensors, or several sets of them; the message names them.
    """
    indexes = sorted(folder.glob(f"*{INDEX}"))
    shards = {shard for index in indexes for shard in _weight_map(index).values()}
    files = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name not in shards)
    sets = {path.name: path for path in (*files, *indexes)}
    usual = [found for file in standard for found in (file, f"{file}.index.json") if found in sets]
    chosen = usual or list(sets)
    if not chosen:
        raise no_weights(folder, name)
    if len(chosen) > 1:
        raise PrismaError(
            f"expected one set of weights in {name or folder}; found {', '.join(chosen)}: keep the one that you mean, "
            f"as {standard[0]}"
        )
    path = sets[chosen[0]]
    return _of_index(path) if path in indexes else Weights((path,))


def weights_of(repo: str, standard: Sequence[str], revision: str | None = None) -> Weights:
    """The weights of a repository of the Hub, under the first of these names that it has, as a file or in shards.

    Raises:
        PrismaError: it has none of them, or they cannot be downloaded.
    """
    for name in standard:
        if (file := download_if_there(repo, name, revision)) is not None:
            return Weights((file,))
        if (index := download_if_there(repo, f"{name}.index.json", revision)) is not None:
            for shard in sorted(set(_weight_map(index).values())):
                download(repo, shard, revision)
            return _of_index(index)
    if (offline := no_network(repo, standard[0], revision)) is not None:
        raise PrismaError(f"{repo} is not in the Hub's cache ({standard[0]}), and {offline}")
    raise PrismaError(f"expected {' or '.join(standard)} in {repo}; found none of them on the Hub. {NO_PICKLES}")


def no_weights(folder: Path, name: str = "") -> PrismaError:
    """The error for a folder without safetensors: it names the weights that are there in other formats."""
    others = weights_of_others(folder)
    if renamed := [path.name for path in others if contents_of(path) == "safetensors"]:
        return PrismaError(
            f"expected safetensors weights in {name or folder}; found {renamed[0]}, which are safetensors under "
            f"another name: rename it to model{SUFFIX}"
        )
    return PrismaError(f"expected safetensors weights in {name or folder}; found {described(folder)}. {NO_PICKLES}")


def weights_of_others(folder: Path) -> list[Path]:
    """The files of a folder and of the folders in it whose endings are those of weights in other formats."""
    found = [path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern))]
    return [path for path in found if path.suffix.lower() in OTHERS and path.is_file()]


def described(folder: Path) -> str:
    """The weights in other formats that a folder has, with what wrote them: "a.onnx (ONNX)"; "none" without any."""
    names = [f"{path.relative_to(folder)} ({OTHERS[path.suffix.lower()]})" for path in weights_of_others(folder)]
    return listed(names, NAMED) or "none"


def expect_safetensors_bytes(path: Path) -> None:
    """Raise PrismaError, which says what the file is, unless it begins as safetensors do."""
    if not path.is_file():
        raise PrismaError(f"expected safetensors weights at {path}; found no such file")
    if (found := contents_of(path)) != "safetensors":
        raise PrismaError(f"expected safetensors in {path}; found {found or 'something else'}")


def _of_index(index: Path) -> Weights:
    names = sorted(set(_weight_map(index).values()))
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise PrismaError(f"expected the files that {index} names; found no {', '.join(missing)}")
    return Weights(tuple(index.parent / name for name in names), index)


def _weight_map(index: Path) -> Mapping[str, str]:
    """Tensor -> name of the file that has it. Raises PrismaError unless they are safetensors beside the index."""
    try:
        found = read_json(index)["weight_map"]
        plain = all(name == Path(name).name and name.endswith(SUFFIX) and "\\" not in name for name in found.values())
    except (PrismaError, KeyError, TypeError, AttributeError):
        found, plain = None, False
    if not found or not plain:
        what = contents_of(index)
        raise PrismaError(
            f"expected a weight_map with names of safetensors beside it in {index}; found "
            f"{what if what == LFS_POINTER else 'other names, or none'}"
        )
    weight_map: Mapping[str, str] = found
    return weight_map
