"""Write docs/models.md from the table that `make parity` measured.

python tools/models.py
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from prisma.pretrained.verified import Proof, proofs, summary, versions

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
INTRODUCTION = """# Pretrained models

`prisma.load` loads any model of the families below: published weights by name, your own fine-tune from a folder, or a
live module. The model is loaded by its own library and converted by looking at the module, never at its name. A model
that cannot be converted exactly is refused with `UnsupportedModelError`, which names the property.

```python
prisma.load("timm/vit_base_patch16_224.augreg_in21k")   # timm's names
prisma.load("hf/facebook/dinov2-base")                  # transformers, from the Hub or its cache
prisma.load("open_clip/ViT-B-32:laion2b_s34b_b79k")     # with its text tower: loaded.text
prisma.load("path/to/folder")                           # save_pretrained, save_for_hf, or open_clip's folders
prisma.load(module, image_size=384)                     # a live module; positions resampled by its own library
```

`prisma models` prints this table. `prisma models --check REF` compares Prisma with the model's own library on the
model's own weights.

Weights keep the precision in which their library loads them: for a live module, its own; for transformers, that of
`config.json`; for names and folders of timm and open_clip, float32.

Two kinds of models are not loaded by `prisma.load`:

- IDEFICS (in the style of Flamingo) is not converted. `prisma.pretrained.idefics` has `sites`, `record` and `run` for
  its vision tower, resampler and gated cross-attention; its hooks are removed after every call.
- The mice that ViT-Prisma published in 2023 become checkpoint folders by `prisma import OLD.pth --like RECIPE`.
"""
METHOD = """Every architecture was built small, with random weights (no parameter is 0 or 1), converted, and compared
with its own library: the output and the residual stream after every layer. The numbers are the largest differences,
divided by the largest value of the library's own result. Measured with {measured}."""


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
        _table(("library", "family", "architectures or variants", "in float64", "in float32"), exact),
        "## What is refused, and why",
        "These models of the same libraries cannot be converted exactly.",
        _table(("library", "why", "architectures or variants"), _refusals(found)),
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
