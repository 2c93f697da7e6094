"""Class embeddings: the readout itself, early branches, prompts."""

import pytest
import torch
import torch.nn.functional as F

from prisma import PrismaError
from prisma.analysis.class_space.class_embeddings import class_embeddings, has_class_embeddings
from prisma.circuits import folded_out, stream_norms
from prisma.pretrained.zero_shot import PromptHead
from tests.variants import model_of

LINEAR = ["base", "norm_none", "norm_post", "pool_mean", "pool_class_mean", "pool_distilled", "norm_pooled_mean", "rms",
          "divided_everything", "no_norm_final"]  # fmt: skip


@pytest.mark.parametrize("variant", LINEAR)
def test_class_embeddings_are_the_readout(variant: str) -> None:
    """logits of a stream whose tokens are all x = (E x) / (the divisor of x) + what biases add."""
    model = model_of(variant)
    x_BTM = torch.randn(4, 1, 12, dtype=torch.float64).expand(-1, model.config.n_tokens, -1)
    norm = model.readout.ln_final
    divisor, constant = torch.ones(()), torch.zeros(model.config.d_model, dtype=torch.float64)
    if norm is not None:
        centred = x_BTM[:, 0] - (x_BTM[:, 0].mean(-1, keepdim=True) if isinstance(norm, torch.nn.LayerNorm) else 0)
        divisor = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        constant = norm.bias if isinstance(norm, torch.nn.LayerNorm) else constant
    logits = x_BTM[:, 0] @ class_embeddings(model).mT / divisor
    logits = logits + class_embeddings(model, ln="none") @ constant + model.readout.head.bias
    torch.testing.assert_close(model.readout(x_BTM), logits)


def test_what_is_written_early_passes_the_norms_of_the_stream() -> None:
    model = model_of("norm_post", n_layers=3)
    written = torch.randn(12, dtype=torch.float64)
    for after in ((0, "attn"), (1, "mlp"), (2, "mlp")):
        x = written
        for norm in stream_norms(model, *after):
            x = folded_out(norm, x)
        torch.testing.assert_close(class_embeddings(model, after) @ written, class_embeddings(model) @ x)
    assert torch.equal(class_embeddings(model, (0, "attn"), ln="none"), model.readout.head.weight)


@pytest.mark.parametrize("projected", [True, False])
def test_prompts_are_classes(projected: bool) -> None:
    model = model_of("base", n_classes=12)
    projection = torch.nn.Linear(12, 7).double() if projected else torch.nn.Identity()
    directions = F.normalize(torch.randn(5, 7 if projected else 12, dtype=torch.float64), dim=-1)
    model.readout.head = PromptHead(projection, directions, 3.0, 0.5)
    x, step = torch.randn(12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    found = class_embeddings(model, ln="none") @ (step - x)
    features = projection(torch.stack([x, step]))
    expected = (features[1] - features[0]) @ directions.T * 3.0
    torch.testing.assert_close(found, expected)


def test_what_it_refuses() -> None:
    assert not has_class_embeddings(model_of("siglip"))
    with pytest.raises(PrismaError, match="found pool='attention' and n_classes=5"):
        class_embeddings(model_of("siglip"))
    with pytest.raises(PrismaError, match="expected ln to be none"):
        class_embeddings(model_of("base"), ln="live")
