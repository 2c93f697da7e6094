"""Every case of every library compared with that library; writes the table of verified conversions.

python -m tests.pretrained.matrix    # `make parity`
"""

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from prisma.errors import UnsupportedModelError
from prisma.files import write_atomic
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.family import Family
from prisma.pretrained.parity import compare, random_inputs, randomise
from prisma.pretrained.verified import TABLE, Proof
from tests.pretrained.open_clip import cases as open_clip_cases
from tests.pretrained.proofs import TOLERANCE
from tests.pretrained.timm import cases as timm_cases
from tests.pretrained.transformers import cases_clip, cases_images, cases_video

SOURCES: tuple[tuple[str, Any], ...] = (
    ("transformers", cases_clip),
    ("transformers", cases_images),
    ("transformers", cases_video),
    ("open_clip", open_clip_cases),
    ("timm", timm_cases),
)
"""(Library, module of its cases), in the order of the table."""
PACKAGES = ("torch", "timm", "transformers", "open_clip_torch")
Find = Callable[[nn.Module], Family]


def cases() -> Iterator[tuple[str, str, Callable[[], nn.Module], Mapping[str, Find]]]:
    """(library, case, builder, tower -> function that finds its family) of every case of every library."""
    for library, source in SOURCES:
        both = {"image": family_of, "text": text_family_of}
        for case, build in source.CASES.items():
            yield library, case, build, both if library == "open_clip" else {"image": family_of}
        for case, build in getattr(source, "TEXT_CASES", {}).items():
            yield library, case, build, {"text": text_family_of}


def prove(library: str, case: str, module: nn.Module, towers: Mapping[str, Find]) -> Iterator[Proof]:
    """A proof for each tower of a module."""
    randomise(module)
    for tower, find in towers.items():
        part: nn.Module = getattr(module, "text", module) if tower == "text" else module
        try:
            family = find(part)
            yield _measured(family, case, part)
        except UnsupportedModelError as error:
            yield Proof(f"{library}, {tower} towers of other forms", library, case, refused=str(error))


def _measured(family: Family, case: str, module: nn.Module) -> Proof:
    inputs = random_inputs(family.read(module).config)
    errors = {}
    for dtype in TOLERANCE:
        precise = inputs.to(dtype) if inputs.is_floating_point() else inputs
        errors[str(dtype).removeprefix("torch.")] = float(f"{compare(family, module.to(dtype), precise).largest:.1e}")
    return Proof(family.name, family.library, case, **errors)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    found = [
        proof
        for library, case, build, towers in tqdm(list(cases()), unit="case")
        for proof in prove(library, case, build(), towers)
    ]
    wrong = [
        p for p in found if p.refused is None and any((getattr(p, str(d)[6:]) or 0) > t for d, t in TOLERANCE.items())
    ]
    rows = [{name: value for name, value in asdict(proof).items() if value is not None} for proof in found]
    table = {"versions": {name: version(name) for name in PACKAGES}, "proofs": rows}
    if wrong:
        sys.exit(
            "\n".join(f"{p.library} {p.case}: {p.float64:.1e} in float64, {p.float32:.1e} in float32" for p in wrong)
        )
    lines = ",\n".join(json.dumps(row) for row in rows)
    text = json.dumps(table | {"proofs": []}, indent=2).replace('"proofs": []', f'"proofs": [\n{lines}\n]')
    write_atomic(TABLE, (text + "\n").encode())


if __name__ == "__main__":
    main()
