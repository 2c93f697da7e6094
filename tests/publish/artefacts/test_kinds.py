"""Every kind of artefact says where it is published, and which files it may have."""

from prisma.publish.artefacts.kinds import KINDS
from prisma.publish.unsafe import why_unsafe
from prisma.repository import DATASET, MODEL


def test_where_and_what() -> None:
    assert {name: kind.repository for name, kind in KINDS.items()} == {"dataset": DATASET, "tuned-lens": MODEL}
    good = {"dataset": "data/train-00000-of-00001.parquet", "tuned-lens": "tuned_lens.safetensors"}
    for name, kind in KINDS.items():
        assert kind.is_name(good[name]) and why_unsafe(good[name]) is None
        for other in ("README.md", "data/../x.parquet", "tuned_lens.bin", "model.safetensors", "", "x/tuned_lens.json"):
            assert not kind.is_name(other), other
