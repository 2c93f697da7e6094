"""The table of what was verified: whole, within its bars, and the page that shows it."""

import runpy
from pathlib import Path

from prisma.pretrained.verified import Proof, proofs, summary, versions
from tests.pretrained.matrix import cases
from tests.pretrained.proofs import TOLERANCE

ROOT = Path(__file__).parents[2]


def test_every_case_was_measured() -> None:
    measured = {(proof.library, proof.case) for proof in proofs()}
    assert measured == {(library, case) for library, case, _, _ in cases()}


def test_what_is_exact_is_within_the_bars() -> None:
    for proof in proofs():
        errors = (proof.float64, proof.float32)
        assert (proof.refused is None) == all(error is not None for error in errors)
        assert all((error or 0) <= bar for error, bar in zip(errors, TOLERANCE.values(), strict=True)), proof


def test_versions_are_noted() -> None:
    assert set(versions()) >= {"torch", "timm", "transformers", "open_clip_torch"}


def test_a_row_per_family() -> None:
    rows = [Proof("A", "x", "a", 1e-16, 1e-7), Proof("A", "x", "b", 3e-16, 0.0), Proof("A", "x", "c", refused="no")]
    assert summary(rows) == [
        {"library": "x", "family": "A", "exact": 2, "float64": 3e-16, "float32": 1e-7, "refused": 1}
    ]


def test_the_page_shows_the_table() -> None:
    page = runpy.run_path(str(ROOT / "tools/models.py"))["page"]()
    assert (ROOT / "docs/models.md").read_text() == page, "python tools/models.py writes it anew"
