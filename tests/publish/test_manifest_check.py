"""A manifest states a whole run, every step once; the faults of `faults` cover the rest."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prisma.files import read_json
from prisma.publish.manifest import Manifest, Yanked
from prisma.publish.manifest_check import is_published_name, manifest_findings
from prisma.repository import MANIFEST, Published
from prisma.run_folder import RECIPE
from tests.publish.places import found


@pytest.fixture
def manifest(hub: Path) -> Manifest:
    return Manifest.parse(Published("lab/tiny", hub).file(MANIFEST).read_bytes())


def test_a_whole_manifest_has_no_problem(manifest: Manifest, run: Path) -> None:
    assert list(manifest_findings(manifest, read_json(run / RECIPE))) == []
    assert list(manifest_findings(manifest, None)) == []


CHANGES: tuple[tuple[Callable[[Manifest], Manifest], str, str], ...] = (
    (lambda m: replace(m, run="x"), "main", "expected run x in recipe.json, as in checkpoints.json; found"),
    (lambda m: replace(m, steps=(0, 2, 1, 4, 6)), "main", "that begin at 0 or later and grow; found (0, 2, 1, 4, 6)"),
    (lambda m: replace(m, steps=(0, 1, 2, 4, 5, 6)), "step-000005", "expected step 5 of the schedule in the list"),
    (lambda m: replace(m, files=m.files[1:]), "main", "found no README.md"),
    (lambda m: replace(m, files=(*m.files, m.files[1])), "main", "expected each file that Prisma publishes once"),
    (
        lambda m: replace(m, checkpoints=(replace(m.checkpoints[0], sha256="0"), *m.checkpoints[1:])),
        "step-000000",
        "expected one SHA-256 and size of model.safetensors",
    ),
    (
        lambda m: replace(m, yanked=(Yanked(2, "step-000002", "yanked", "c", "why", "day"),)),
        "step-000002",
        "expected step 2 in checkpoints.json to be there or yanked; found both",
    ),
    (
        lambda m: replace(m, yanked=(Yanked(9, "step-000009", "main", "c", "why", "day"),)),
        "step-000009",
        "expected a label of its own for yanked weights; found main",
    ),
    (
        lambda m: replace(m, yanked=(Yanked(9, "step-000009", "old", "c", "why", "day"),)),
        "step-000009",
        "expected a yanked step of the schedule in checkpoints.json; found 9",
    ),
)


@pytest.mark.parametrize(("change", "revision", "words"), CHANGES)
def test_a_contradiction_is_found(
    manifest: Manifest, run: Path, change: Callable[[Manifest], Manifest], revision: str, words: str
) -> None:
    findings = list(manifest_findings(change(manifest), read_json(run / RECIPE)))
    assert found(findings, revision, words), findings


def test_the_names_that_are_published() -> None:
    names = ("README.md", "checkpoints.json", "curves/loss.svg", "curves/dynamics.png", "model.safetensors")
    assert all(is_published_name(name) for name in names)
    others = (
        "pytorch_model.bin",
        "curves/../x.png",
        "curves/a/b.png",
        "evil.html",
        "curves/loss.html",
        "README.md.exe",
    )
    assert not any(is_published_name(name) for name in others)
