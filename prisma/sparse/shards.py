"""Activations on disk: float16, a file for every few hundred images, written so that a stopped command continues.

    activations.json           sites and widths, roles of tokens, number of images, hashes of model and images
    shard-00000.safetensors    site -> [image, token, width], float16

A shard is written whole or not at all, so what exists is complete. Several processes share the shards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prisma.checkpoint import to_safetensors, weights_hash
from prisma.data.pictures import Pictures
from prisma.errors import NotFiniteError, PrismaError, quoted
from prisma.files import read_json, write_atomic, write_json
from prisma.filesystem import given
from prisma.launched import ALONE, Processes
from prisma.numbers import first_not_finite
from prisma.runs import Model
from prisma.sparse.activations import ROLES, source_of
from prisma.sparse.belonging import hash_of_model

INDEX = "activations.json"
FORMAT = "prisma-activations"


def shard_name(number: int) -> str:
    """The name of the file of a shard."""
    return f"shard-{number:05d}.safetensors"


@dataclass(frozen=True)
class Shards:
    """Activations that `write_activations` wrote, for `prisma.sparse.train`.

    Args:
        folder: where they are.
        tokens: which of the tokens are read: some of class, registers and patches.
        sites: which of the sites are read.
    """

    folder: Path
    index: Mapping[str, Any]
    tokens: tuple[str, ...] = ROLES
    sites: tuple[str, ...] | None = None  # those that are read; None: all

    @classmethod
    def at(cls, folder: str | Path) -> "Shards":
        """Those of a folder.

        Raises:
            PrismaError: there are none, or some are missing.
        """
        path = given(folder)
        index = read_json(path / INDEX)
        kinds = {"images": int, "shard_size": int, "roles": list, "widths": dict, "model_sha256": str}
        whole = all(type(index.get(name)) is kind for name, kind in kinds.items())
        whole = whole and all(role in (*ROLES, "pooled") for role in index["roles"])
        whole = whole and all(type(width) is int and width > 0 for width in index["widths"].values())
        if index.get("format") != FORMAT or not whole or min(index["images"], index["shard_size"]) < 1:
            raise PrismaError(f"expected activations with {INDEX} at {path}; found something else")
        count = -(-index["images"] // index["shard_size"])
        if missing := [i for i in range(count) if not (path / shard_name(i)).is_file()]:
            raise PrismaError(
                f"expected {count} shards of activations at {path}; found that {len(missing)} are missing, first "
                f"{shard_name(missing[0])}: the command that began them continues"
            )
        return cls(path, index)

    @property
    def _rows(self) -> list[int]:
        known = self.index["roles"]
        return [i for i, role in enumerate(known) if role in self.tokens or role not in ROLES]

    @property
    def widths(self) -> Mapping[str, int]:
        widths: Mapping[str, int] = self.index["widths"]
        return widths if self.sites is None else {site: widths[site] for site in self.sites}

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(self.index["roles"][i] for i in self._rows)

    def __len__(self) -> int:
        return int(self.index["images"])

    def expect(self, sites: Sequence[str], tokens: str | Sequence[str] = "all") -> "Shards":
        """The same activations, of some tokens. Raises PrismaError: a site or a kind of token is not there."""
        if missing := [site for site in sites if site not in self.index["widths"]]:
            raise PrismaError(
                f"expected activations of {missing[0]} in {self.folder}; found those of {', '.join(self.widths)}"
            )
        wanted = ROLES if tokens == "all" else (tokens,) if isinstance(tokens, str) else tuple(tokens)
        found = replace(self, tokens=wanted, sites=tuple(dict.fromkeys(sites)))
        if not set(wanted) <= set(ROLES) or not found.roles:
            known = ", ".join(dict.fromkeys(self.index["roles"]))
            raise PrismaError(f"expected tokens that are in {self.folder}, {known}; found {quoted(tokens)}")
        return found

    def read(self, images: Sequence[int]) -> dict[str, Tensor]:
        size, rows = self.index["shard_size"], torch.tensor(self._rows)
        parts: dict[str, list[Tensor]] = {site: [] for site in self.widths}
        start = 0
        while start < len(images):
            shard, end = images[start] // size, start + 1
            while end < len(images) and images[end] == images[end - 1] + 1 and images[end] // size == shard:
                end += 1  # neighbours in one file are read together
            for site, x in self._part(shard, images[start] - shard * size, end - start).items():
                parts[site].append(x[:, rows])
            start = end
        return {site: torch.cat(found) for site, found in parts.items()}

    def _part(self, shard: int, first: int, n: int) -> dict[str, Tensor]:
        """Some neighbours of a shard, all their tokens: site -> [image, token, width]."""
        path, size, found = self.folder / shard_name(shard), self.index["shard_size"], dict[str, Tensor]()
        count = min(size, len(self) - shard * size)
        try:
            with safe_open(path, framework="pt") as file:
                for site, width in self.widths.items():
                    part = file.get_slice(site)
                    wanted = [count, len(self.index["roles"]), width]
                    if part.get_shape() != wanted or part.get_dtype() != "F16":
                        raise PrismaError(
                            f"expected {wanted} numbers of float16 at {site} in {path}; found {part.get_shape()} of "
                            f"{part.get_dtype()}"
                        )
                    found[site] = part[first : first + n].float()
        except (OSError, SafetensorError) as error:
            raise PrismaError(f"expected a whole shard of activations at {path}; found none ({error})") from None
        for site, x in found.items():
            if (wrong := first_not_finite(x)) is not None:
                image = shard * size + first + wrong[0]
                raise NotFiniteError(f"expected finite activations at {site}; found {wrong[1]} in image {image}")
        return found


@torch.no_grad()
def write_activations(
    model: Model,
    images: Tensor | Pictures,
    out: str | Path,
    *,
    sites: Sequence[str],
    tokens: str | Sequence[str] = "all",
    shard_size: int = 256,
    batch: int | None = None,
    processes: Processes = ALONE,
) -> Shards:
    """Write the activations of a model at some sites, for trainings that read them instead of running the model.

    A stopped call continues with the first missing shard; other settings in the same folder are refused.

    Args:
        images: normalised [n, channel, height, width], or pictures.
        out: the folder; `Shards.at(out)` reads it.
        sites: names or globs, such as `blocks.9.resid_post`.
        tokens: which tokens: "all", or some of class, registers and patches.
        shard_size: images of a file.
        batch: images that run together.
        processes: those that share the work (`prisma.launched`).

    Raises:
        PrismaError: no such site, the folder has other activations, or a number is too large for float16.
    """
    folder, source = given(out), source_of(model, images, sites, tokens, batch)
    if shard_size < 1:
        raise PrismaError(f"expected shard_size to be at least 1; found {shard_size}")
    content = images.sha256 if isinstance(images, Pictures) else hash_of(images)
    index = {
        "format": FORMAT, "widths": dict(source.widths), "roles": list(source.roles), "images": len(source),
        "shard_size": shard_size, "model_sha256": hash_of_model(model), "images_sha256": content,
    }  # fmt: skip
    if (folder / INDEX).exists() and (there := read_json(folder / INDEX)) != index:
        other = next(name for name in index if there.get(name) != index[name])
        raise PrismaError(f"expected {folder} to have activations of the same {other}; found others: use a new folder")
    if processes.is_first:
        write_json(folder / INDEX, index)
    for number in range(processes.rank, -(-len(source) // shard_size), processes.count):
        if not (folder / shard_name(number)).exists():
            some = range(number * shard_size, min((number + 1) * shard_size, len(source)))
            tensors = {site: x.to(torch.float16) for site, x in source.read(some).items()}
            for site, x in tensors.items():
                if (wrong := first_not_finite(x)) is not None:
                    raise NotFiniteError(
                        f"expected activations that float16 can hold, at most 65,504; found larger ones at {site} in "
                        f"image {some[wrong[0]]}"
                    )
            write_atomic(folder / shard_name(number), to_safetensors(tensors, {}))
    processes.barrier()
    return Shards.at(folder)


def hash_of(images: Tensor) -> str:
    """A hash of images as they are."""
    return weights_hash({"images": images})
