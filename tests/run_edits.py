"""Runs as others may have left them."""

import hashlib
from pathlib import Path

from safetensors.torch import save_file

from prisma.checkpoint import read_tensors
from prisma.files import read_json, sha256, to_json, write_json
from prisma.ledger import write_hashes
from prisma.run_folder import HASHES, RECIPE, RESULTS, STATE


def accept_changes(run: Path) -> None:
    """Let the files of a finished run count as those that training wrote."""
    write_hashes(run, (run / RESULTS).read_bytes())


def without_hashes(run: Path) -> None:
    """A run as version 0.1.0 wrote it: no format in the recipe, no hashes."""
    recipe = read_json(run / RECIPE)
    del recipe["format"]
    write_json(run / RECIPE, recipe)
    (run / HASHES).unlink(missing_ok=True)
    tensors, header = read_tensors(run / STATE)
    save_file(tensors, run / STATE, metadata={name: header[name] for name in ("step", "run")})


def timeless(path: Path) -> str:
    """The hash of a file of a run, which does not depend on how long the run took."""
    if path.name not in (RESULTS, HASHES):
        return sha256(path)
    content = read_json(path)
    content.pop("seconds", None)
    content.get("files", {}).pop(RESULTS, None)
    return hashlib.sha256(to_json(content)).hexdigest()
