"""`prisma.load_coder`: a sparse coder from a folder or the Hub, in our files or those of other libraries."""

from collections.abc import Callable, Mapping
from pathlib import Path

from prisma.downloads import download_if_there, no_network
from prisma.errors import PrismaError, listed, quoted, shown
from prisma.filesystem import given
from prisma.repo_names import is_repo_name
from prisma.sparse.coders import Coder
from prisma.sparse.files import CFG, WEIGHTS, read_coder
from prisma.sparse.layouts import (
    circuit_tracer,
    crosscoder,
    crosscoder_or_overcomplete,
    dictionary_learning,
    saev_or_overcomplete,
    sparsify,
    vit_prisma,
)

_Reader = Callable[[Path], Coder]
LAYOUTS: Mapping[tuple[str, ...], _Reader] = {
    (CFG, WEIGHTS): read_coder,
    (CFG, "sae.safetensors"): sparsify,
    (CFG, "cc_weights.pt"): crosscoder,
    ("ae.pt",): dictionary_learning,
    ("sae.pt",): saev_or_overcomplete,
    ("config.json", "model.safetensors"): crosscoder_or_overcomplete,
    ("config.json", "weights.pt"): vit_prisma,
}
"""The files by which a layout is known -> its reader."""
_MORE = ("config.json",)  # what some layouts have beside these files


def load_coder(ref: str | Path, *, layer: int | None = None, revision: str | None = None) -> Coder:
    """Load a sparse coder as it was trained: of raw activations, with the latents that its own library would choose.

    Ours and those of SAELens, sparsify, ViT-Prisma, saev, dictionary_learning, overcomplete (visaebench) and
    circuit-tracer, and two layouts of crosscoders. Nothing in a pickle is run. What a coder claims to reach is in its
    `metadata`; `prisma.sparse.evaluate` compares it with what it reaches on your images, which shows one of another
    site.

    Args:
        ref: a folder or file; or OWNER/NAME of a repository on the Hub, with a folder in it: OWNER/NAME/layers.3.
        layer: which coder of a set with one for each layer (circuit-tracer).
        revision: of a repository, a branch, a tag or a commit.

    Raises:
        PrismaError: no such coder, files of an unknown layout, weights that do not fit, or a property that no coder of
            raw activations has, such as a norm of each token.
    """
    path = given(ref)
    if not path.exists():
        path = _downloaded(str(ref), revision, layer)
    elif revision is not None:
        raise PrismaError(f"expected no revision for {path}; found {quoted(revision)}")
    if path.is_file():
        if path.suffix == ".pt" and path.name not in {name for names in LAYOUTS for name in names}:
            return _read(vit_prisma, path)
        path = path.parent
    if layer is not None:
        return circuit_tracer(path, layer)
    for names, read in LAYOUTS.items():
        if all((path / name).is_file() for name in names):
            return _read(read, path)
    if any(path.glob("n_images_*.pt")):
        return _read(vit_prisma, path)
    if (path / "config.yaml").is_file():
        raise PrismaError(f"expected layer=..., since {path} has a transcoder for each layer; found none")
    known = ", ".join(" and ".join(names) for names in LAYOUTS)
    there = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    raise PrismaError(f"expected a sparse coder at {path}, such as {known}; found {listed(there) or 'nothing'}")


def _read(read: _Reader, folder: Path) -> Coder:
    """The coder of a folder; whatever is missing or of another form in its files is an error of the user's."""
    try:
        return read(folder)
    except PrismaError:
        raise
    except KeyError as error:
        raise PrismaError(f"expected a whole sparse coder at {folder}; found one without {error}") from None
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise PrismaError(
            f"expected a whole sparse coder at {folder}; found files of another form ({shown(str(error), 200)})"
        ) from None


def _downloaded(ref: str, revision: str | None, layer: int | None) -> Path:
    """The folder on this machine with the files of a coder on the Hub."""
    parts = ref.split("/")
    repo, inside = "/".join(parts[:2]), "/".join(parts[2:])
    if not is_repo_name(repo) or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[2:]):
        raise PrismaError(
            f"expected a folder with a sparse coder, or OWNER/NAME/FOLDER on the Hub; found {quoted(ref)}"
        )
    start = f"{inside}/" if inside else ""
    hint = f"; there is no folder {ref} here either"
    wanted = [("config.yaml", f"layer_{layer}.safetensors")] if layer is not None else list(LAYOUTS)
    for names in wanted:
        found = [download_if_there(repo, start + name, revision, hint) for name in names]
        if all(found) and found[0] is not None:
            for name in _MORE:
                download_if_there(repo, start + name, revision)
            return found[0].parent
    where = f"{repo}/{inside}" if inside else repo
    why = no_network(repo, start + CFG, revision)
    none = f"found none in the cache, and {why}" if why else "found none of a known layout"
    raise PrismaError(f"expected a sparse coder in {where} on the Hub; {none}{hint}")
