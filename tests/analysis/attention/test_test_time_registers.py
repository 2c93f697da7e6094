"""Test-time registers: against edits written by hand, and a planted neuron."""

import pytest
import torch

import prisma
from prisma import PrismaError, Set
from prisma.analysis.attention.test_time_registers import WAYS, move_to_registers, with_registers
from tests.planted_registers import NEURON, PATCH, with_register_neuron
from tests.variants import images_of, model_of


@pytest.mark.parametrize("variant", ["base", "pool_class_mean", "no_class_token", "dino_rotary", "pool_distilled"])
@pytest.mark.parametrize("n", [1, 2])
def test_neurons_move_as_edits_by_hand_move_them(variant: str, n: int) -> None:
    """Block after block, since the second block's neurons see what the first one's were moved to."""
    model = model_of(variant)
    added, images = with_registers(model, n), images_of(model)
    moved = {0: [1, 2], 1: [0, 7]}
    edits: dict[str, Set] = {}
    for layer, neurons in moved.items():
        site = f"blocks.{layer}.mlp.post"
        post = prisma.record(added, images, site, edits)[1][site].detach().clone()
        first, end = model.config.n_prefix, added.config.n_prefix
        for image in range(len(post)):
            for neuron in neurons:
                largest = max(post[image, end:, neuron].tolist(), key=abs)
                post[image, first:, neuron] = 0
                post[image, first:end, neuron] = largest
        edits[site] = Set(post)
    pairs = [(layer, neuron) for layer, neurons in moved.items() for neuron in neurons]
    ours = prisma.run(added, images, move_to_registers(added, pairs, n))
    torch.testing.assert_close(ours, prisma.run(added, images, edits), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["base", "pool_class_mean", "no_class_token", "dino_rotary", "pool_attention"])
def test_an_added_token_that_nobody_attends_to_changes_nothing(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    added = with_registers(model)
    assert added.config.n_prefix == model.config.n_prefix + 1 and model.config.n_tokens + 1 == added.config.n_tokens
    unseen = Set(-torch.inf).at(key=model.config.n_prefix)
    out = prisma.run(added, images, {"blocks.*.attn.scores": unseen})
    torch.testing.assert_close(out, model(images), rtol=1e-5, atol=1e-6)


def test_the_planted_artifact_moves_and_no_other_neuron_moves_it() -> None:
    model = with_register_neuron()
    images = images_of(model, n=6)
    found = prisma.register_neurons(model, images, stage=1)
    result = prisma.test_time_registers(model, images, found, n=1)
    share = dict(zip(WAYS, result.artifacts.mean(0).tolist(), strict=True))
    assert share["as it is"] == share["empty token"] == share["random neurons"] == pytest.approx(1 / 9)
    assert share["register neurons"] == 0
    assert (result.largest[:, 2] < 1).all() and (result.largest[:, [0, 1, 3]] > 1).all()
    added = with_registers(model)
    stream = prisma.record(added, images, "blocks.0.resid_post", move_to_registers(added, [(0, NEURON)]))[1]
    norms = stream["blocks.0.resid_post"].norm(dim=-1)
    assert result.norms is not None
    torch.testing.assert_close(result.norms[:, 2], norms[:, 2:])
    plain = prisma.record(model, images, "blocks.0.resid_post")[1]["blocks.0.resid_post"].norm(dim=-1)
    torch.testing.assert_close(result.norms[:, 0], plain[:, 1:])
    assert (norms[:, 1] > norms[:, 2 + PATCH]).all() and (norms[:, 1] > found.metadata["cutoff"]).all()


def test_attention_is_split_as_by_hand() -> None:
    model = with_register_neuron()
    images = images_of(model, n=3)
    result = prisma.test_time_registers(model, images, prisma.register_neurons(model, images, stage=1), n=1, batch=2)
    added = with_registers(model)
    edits = move_to_registers(added, [(0, NEURON)])
    _, acts = prisma.record(added, images, "blocks.*.attn.pattern", edits)
    for layer in range(2):
        received = acts[f"blocks.{layer}.attn.pattern"].mean((1, 2))  # [image, key]
        torch.testing.assert_close(result.on_added[:, 2, layer], received[:, 1])
        torch.testing.assert_close(result.on_artifacts[:, 2, layer], received[:, 2 + PATCH])
    torch.testing.assert_close(result.logits[:, 2], prisma.run(added, images, edits))
    assert (result.on_added[:, 0] == 0).all()


def test_what_cannot_be_answered_is_said() -> None:
    model = model_of("base")
    images = images_of(model)
    found = prisma.register_neurons(model, images, factor=0.9)
    with pytest.raises(PrismaError, match="expected the result of register_neurons; found None"):
        prisma.test_time_registers(model, images, None)  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match="expected at least one image; found none"):
        prisma.test_time_registers(model, images[:0], found)
    assert prisma.test_time_registers(model, images, found, n=20).metadata["random"] == []  # all are moved
    for variant, why in {
        "score_bias": "a bias of the scores",
        "pool_prefix": "a readout that includes the prefix",
    }.items():
        with pytest.raises(PrismaError, match=f"expected a model to which an empty token can be added; found {why}"):
            with_registers(model_of(variant))
    with pytest.raises(PrismaError, match="divided attention"):
        with_registers(model_of("divided"))
    with pytest.raises(PrismaError, match="expected to add at least one register; found 0"):
        with_registers(model_of("base"), 0)
    with pytest.raises(PrismaError, match=r"expected a layer below 2 and a neuron below 10; found \(2, 0\)"):
        move_to_registers(with_registers(model_of("base")), [(2, 0)])
    with pytest.raises(PrismaError, match="expected 1 to 0 of the model's registers; found 1: use with_registers"):
        move_to_registers(model_of("base"), [(0, 0)])
