"""The card of visualised features."""

import torch

from prisma.features.card import card
from prisma.features.objectives import Channel
from prisma.features.visualize import visualize
from tests.variants import images_of, model_of


def test_a_row_says_what_the_result_says_and_names_stay_text() -> None:
    model, second = model_of("base", torch.float32), model_of("registers", torch.float32)
    labels = ["a", "b | <b>", "c", "d", "e"]
    units = [Channel("logits", 1), Channel("blocks.0.mlp.post", 0)]
    data = images_of(model, 6).sigmoid()
    found = visualize(model, units, steps=2, data=data, second=second)
    text = card(found, labels, {"model": "x|y"}, "sheet.png")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0].startswith(
        "| unit | activation | largest of the data | percentile | path | natural | other | class |"
    )
    assert rows[2].startswith(f"| logits:1 (b \\| &lt;b>) | {found.activation[0]:.4g} |")
    assert found.second is not None and f"| {found.second[0]:.4g} |" in rows[2] and rows[3].count("|  |") == 1
    assert "- model: x\\|y" in text and "![Optimised" in text and "- image: FFT(decay=1.0, lr=0.05)" in text
    bare = card(visualize(model, units, steps=1), labels, {}, None)
    assert "percentile |" not in bare and "![" not in bare
