"""Every kind of artefact says where it is published, and which files it may have."""

from prisma.publish.artefacts.kinds import KINDS
from prisma.publish.unsafe import why_unsafe
from prisma.repository import DATASET, MODEL


def test_where_and_what() -> None:
    assert {name: kind.repository for name, kind in KINDS.items()} == {
        "dataset": DATASET, "sparse-coder": MODEL, "tuned-lens": MODEL, "edited-model": MODEL,
        "language-edit": MODEL,
    }  # fmt: skip
    assert {name: kind.names for name, kind in KINDS.items()} == {
        "dataset": ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        "sparse-coder": ("cfg.json", "sae_weights.safetensors", "recipe.json", "metrics.jsonl", "evaluation.json"),
        "tuned-lens": ("tuned_lens.json", "tuned_lens.safetensors"),
        "edited-model": (
            "config.json", "model.safetensors", "edit.safetensors", "before.safetensors", "measures.json",
        ),
        "language-edit": ("edit.safetensors", "measures.json"),
    }  # fmt: skip
    assert [why_unsafe(name) for kind in KINDS.values() for name in kind.names] == [None] * 16
