"""Write docs/models.md from the table that `make parity` measured.

python tools/models.py
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from prisma.pretrained.verified import Proof, proofs, summary, versions

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
INTRODUCTION = """# Pretrained models

`prisma.load` reads any model of the classes below: published weights by name, your own fine-tune from a folder, or a
live module. A reader looks at the module itself, never at its name, and refuses what it cannot have exactly.

```python
prisma.load("timm/vit_base_patch16_224.augreg_in21k")   # timm's names
prisma.load("hf/facebook/dinov2-base")                  # transformers, from the Hub or its cache
prisma.load("open_clip/ViT-B-32:laion2b_s34b_b79k")     # with its text tower: loaded.text
prisma.load("path/to/folder")                           # save_pretrained, save_for_hf, or open_clip's folders
prisma.load(module, image_size=384)                     # a live module; positions resampled by its own library
```

`prisma models` prints this table, `prisma models --check REF` measures the weights that you have.

Weights keep the precision in which their library loads them: that of a live module, what `config.json` says for
transformers, float32 for folders and names of timm and open_clip.

Two sources are had in other ways. IDEFICS (Flamingo-style) stays a model of transformers, read and edited through hooks
that leave nothing behind: `prisma.pretrained.idefics` has `sites`, `record` and `run` for its vision tower, resampler
and gated cross-attention. The mice that ViT-Prisma published in 2023 become checkpoint folders by
`prisma import OLD.pth --like RECIPE`.
"""
METHOD = """Every architecture was built small, with random weights (no parameter at zero or one), read, and compared
with its own library: the output and the residual stream after every layer. The figures are the largest differences
relative to the largest value there. Measured with {measured}."""


def page() -> str:
    found = proofs()
    measured = ", ".join(f"{name} {version}" for name, version in versions().items())
    exact = [
        (row["library"], row["family"], row["exact"], f"{row['float64']:.1e}", f"{row['float32']:.1e}")
        for row in summary(found)
        if row["exact"]
    ]
    parts = [
        INTRODUCTION.rstrip(),
        "## What was verified",
        METHOD.format(measured=measured),
        _table(("library", "family", "architectures or forms", "in float64", "in float32"), exact),
        "## What is refused, and why",
        "These forms are in the same libraries, and there is no exact reading of them.",
        _table(("library", "why", "forms"), _refusals(found)),
    ]
    return "\n\n".join(parts) + "\n"


def _refusals(found: Sequence[Proof]) -> Iterable[tuple[str, str, str]]:
    """(library, reason, the architectures), one row for each reason."""
    reasons = dict.fromkeys((proof.library, proof.refused) for proof in found if proof.refused is not None)
    for library, reason in reasons:
        names = [proof.case for proof in found if (proof.library, proof.refused) == (library, reason)]
        yield library, str(reason), ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
