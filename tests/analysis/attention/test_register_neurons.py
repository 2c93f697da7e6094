"""Register neurons: against loops, and one that is planted."""

import pytest
import torch

import prisma
from prisma import PrismaError
from tests.planted_registers import NEURON, PATCH, with_register_neuron
from tests.variants import images_of, model_of


@pytest.mark.parametrize("variant", ["base", "pool_class_mean", "no_class_token", "sub_norms", "parallel", "video"])
def test_scores_are_means_over_artifacts_and_then_over_images(variant: str) -> None:
    model = model_of(variant)
    images, prefix = images_of(model, n=5), model.config.n_prefix
    found = prisma.register_neurons(model, images, stage=1, factor=1.3, batch=2)
    _, acts = prisma.record(model, images, ["blocks.0.resid_post", "blocks.0.mlp.post"])
    norms = acts["blocks.0.resid_post"].double()[:, prefix:].norm(dim=-1)
    cutoff = 1.3 * norms.flatten().median()
    assert found.metadata["cutoff"] == pytest.approx(cutoff.item())
    score, elsewhere = [], []
    for image, of_patches in zip(acts["blocks.0.mlp.post"].double()[:, prefix:], norms, strict=True):
        artifacts = [p for p in range(len(of_patches)) if of_patches[p] > cutoff]
        if artifacts:
            score.append(torch.stack([image[p].abs() for p in artifacts]).mean(0))
            others = [image[p].abs() for p in range(len(of_patches)) if p not in artifacts]
            elsewhere.append(torch.stack(others).mean(0))
    assert len(score) > 0 and found.metadata["artifacts"] == int((norms > cutoff).sum())
    torch.testing.assert_close(found.score[0].double(), torch.stack(score).mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.elsewhere[0].double(), torch.stack(elsewhere).mean(0), rtol=1e-5, atol=1e-6)


def test_a_planted_neuron_comes_first() -> None:
    model = with_register_neuron()
    images = images_of(model, n=6)
    share = prisma.artifacts(model, images).artifacts[:, 1, model.config.n_prefix :]
    assert share.nonzero()[:, 1].unique().tolist() == [PATCH]
    found = prisma.register_neurons(model, images)
    assert found.top(1) == ((0, NEURON),)
    assert found.score[0, NEURON] > 10 * found.elsewhere[0, NEURON]
    assert [pair for pair in found.top(3) if pair[0] >= 2] == []


def test_images_of_artifacts_alone_do_not_count_elsewhere() -> None:
    model = model_of("base")
    images = images_of(model, 4)
    norms = prisma.artifacts(model, images).norms[:, 1, 1:]
    low, high = norms.amin(1), norms.amax(1)
    image = int(low.argmax())  # whose smallest patch is the largest: all of its patches are above, some of the others'
    cutoff = low[image].item() * (1 - 1e-6)
    above = norms > cutoff
    assert above.all(1).sum() == 1 and (above.any(1) & ~above.all(1)).any() and (high > cutoff).any()
    found = prisma.register_neurons(model, images, stage=1, cutoff=cutoff)
    sizes = prisma.record(model, images, "blocks.0.mlp.post")[1]["blocks.0.mlp.post"][:, 1:].abs()
    mixed = [b for b in range(4) if above[b].any() and not above[b].all()]
    expected = torch.stack([sizes[b][~above[b]].mean(0) for b in mixed]).mean(0)
    torch.testing.assert_close(found.elsewhere[0], expected)


def test_what_cannot_be_answered_is_said() -> None:
    model = model_of("base")
    images = images_of(model)
    with pytest.raises(PrismaError, match=r"expected patches whose norm after 2 blocks is above .*; found none in"):
        prisma.register_neurons(model, images, factor=50)
    with pytest.raises(PrismaError, match="expected a stage from 1 to 2, the number of blocks; found 3"):
        prisma.register_neurons(model, images, stage=3)
    with pytest.raises(PrismaError, match="expected a model whose blocks have MLPs; found 2 blocks with 0 neurons"):
        prisma.register_neurons(model_of("attention_only"), images)
    with pytest.raises(PrismaError, match="expected 1 to 20 neurons; found 21"):
        prisma.register_neurons(with_register_neuron(), images).top(21)
    for wrong in ("3", 1.5, True):
        with pytest.raises(PrismaError, match="expected n to be a whole number; found"):
            prisma.register_neurons(with_register_neuron(), images).top(wrong)  # type: ignore[arg-type]
