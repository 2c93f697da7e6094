"""Key-value memories: planted ones, what the weights say, names, and the sprites mouse against its controls."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import prisma
from prisma import PrismaError
from prisma.analysis.class_space.class_values import class_values, values_of
from prisma.analysis.class_space.memories import Memories, memories
from prisma.circuits import neuron_weights
from prisma.data import task
from tests.variants import images_of, model_of


def planted() -> prisma.ViT:
    """Neuron 7 of the last layer is always the most active one, and writes along class 2."""
    model = model_of("norm_none").requires_grad_(False)
    mlp = model.blocks[1].mlp
    mlp.out.weight[:, 7] = 3 * model.readout.head.weight[2]
    mlp.pre.weight[7], mlp.pre.bias[7] = 0, 1000
    return model


def test_a_planted_memory_has_agreement_one_and_is_always_a_hit() -> None:
    model = planted()
    images = images_of(model, 3)
    found = memories(model, images, torch.full((3,), 2), top=1)
    assert found.agreement[1, 2].item() == pytest.approx(1)
    assert found.memory_of_class is not None and found.class_of_memory is not None
    assert (found.memory_of_class[:, 1] == 1).all() and (found.class_of_memory[:, 1] == 1).all()
    assert found.top_classes[1, 7, 0] == 2
    assert found.top_logits[1, 7, 0].item() == pytest.approx(3 * model.readout.head.weight[2].square().sum().item())
    assert found.listing(1, "abcde", most=1) == [(7, ["c"])]
    assert found.composed is not None and found.composition is not None
    assert (found.composed[:, 1] == 1).all()  # 3000 times E_2 is most of what the layer writes
    assert torch.equal(found.composition.sum(-1), torch.ones(3, 2, 10).double().float())
    other = memories(model, images, torch.zeros(3, dtype=torch.long), top=1)
    assert other.class_of_memory is not None and (other.class_of_memory[:, 1] == 0).all()


def test_a_layer_that_is_given_twice_is_read_once() -> None:
    model = planted()
    images, labels = images_of(model, 3), torch.tensor([2, 0, 1], dtype=torch.uint8)
    found, once = (memories(model, images, labels, layers=layers) for layers in ([1, 0, 1], [1, 0]))
    assert found.metadata == once.metadata and found.metadata["layers"] == [1, 0]
    assert {name: x.tolist() for name, x in found.arrays.items()} == {n: x.tolist() for n, x in once.arrays.items()}


def test_as_published_a_neuron_is_active_by_what_its_activation_reads() -> None:
    """Where GELU falls before it rises, the two have another order."""
    model = model_of("base").requires_grad_(False)
    images, labels = images_of(model, 3), torch.tensor([2, 0, 1])
    model.blocks[0].mlp.pre.bias.fill_(-2)
    found = memories(model, images, labels, ln="none", top=2, compat="vilas2023")
    before = prisma.record(model, images, "blocks.0.mlp.pre")[1]["blocks.0.mlp.pre"]
    value = values_of(model, 0, "mlp", ln="none")[0]
    active = before.topk(2, dim=-1).indices
    best = value.topk(2, dim=1).indices[labels]
    hit = (active[..., None] == best[:, None, None]).any(-1).any(-1)
    assert found.memory_of_class is not None and found.composition is not None
    assert torch.equal(found.memory_of_class[:, 0], hit.float())
    assert found.composition.sum(-1).max() > 1
    other = memories(model, images, labels, ln="none", top=2).memory_of_class
    assert other is not None and not torch.equal(other[:, 0], hit.float())


def test_the_effect_on_accuracy_is_a_difference_of_means() -> None:
    """Answers in a tie are right in part, and count in part."""
    hits = torch.tensor([[1.0], [0.0], [1.0], [0.0]])[..., None]
    some = {"agreement": torch.ones(1, 2), "top_classes": torch.ones(1, 1, 1), "top_logits": torch.ones(1, 1, 1)}
    metadata = {"layers": [0], "class_token": True, "prefix": 1}
    for correct, expected in (([1, 0, 1, 0], 1.0), ([1, 1, 0, 0], 0.0), ([0.5, 0, 1, 0.5], 0.5)):
        found = Memories(metadata=metadata, memory_of_class=hits, correct=torch.tensor(correct), **some)
        assert found.accuracy_effect()[0].item() == pytest.approx(expected)


def test_renaming_classes_and_neurons_changes_nothing() -> None:
    model, again = model_of("base").requires_grad_(False), model_of("base").requires_grad_(False)
    images, labels = images_of(model, 3), torch.tensor([4, 0, 1])
    order = torch.tensor([2, 0, 3, 4, 1])
    head, mlp = again.readout.head, again.blocks[0].mlp
    head.weight.copy_(head.weight[order]), head.bias.copy_(head.bias[order])
    neurons = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    mlp.pre.weight.copy_(mlp.pre.weight[neurons]), mlp.pre.bias.copy_(mlp.pre.bias[neurons])
    mlp.out.weight.copy_(mlp.out.weight[:, neurons])
    found = memories(model, images, labels, top=2)
    moved = memories(again, images, order.argsort()[labels], top=2)
    for name in ("memory_of_class", "class_of_memory", "class_of_memory_by_chance", "composed", "composition"):
        torch.testing.assert_close(getattr(moved, name), getattr(found, name))
    torch.testing.assert_close(moved.agreement, found.agreement[:, order])


@pytest.mark.parametrize("site", ["mlp", "attn"])
def test_without_images_it_is_what_the_weights_say(site: str, tmp_path: Path) -> None:
    model = model_of("layer_scale")
    found, values = memories(model, site=site, control=True), class_values(model)
    logits = values.neurons if site == "mlp" else values.heads.flatten(2)
    assert logits is not None and found.memory_of_class is None
    expected = values.agreement_neurons if site == "mlp" else values.agreement_heads
    torch.testing.assert_close(found.agreement.double(), expected)
    best = logits.topk(5, dim=1)
    assert torch.equal(found.top_classes, best.indices.mT)
    torch.testing.assert_close(found.top_logits.double(), best.values.mT)
    assert found.p_value().shape == (2,)
    again = Memories.from_npz(found.to_npz(tmp_path / "memories.npz"))
    assert torch.equal(again.top_classes, found.top_classes) and again.composed is None
    assert found.plot().axes[0].images


def test_values_have_the_gain_of_their_own_norm() -> None:
    """In a model with norm="res_post" what an MLP writes is multiplied by its norm's gain."""
    model = model_of("norm_res_post").requires_grad_(False)
    model.blocks[0].ln2.weight.zero_()
    model.blocks[0].ln2.weight[3] = 1
    assert neuron_weights(model, 0)[:, [i for i in range(12) if i != 3]].abs().max() == 0
    embedding = prisma.analysis.class_space.class_embeddings.class_embeddings(model)
    cosine = F.cosine_similarity(embedding, torch.eye(12).double()[3], dim=1)
    torch.testing.assert_close(memories(model, layers=[0]).agreement[0].double(), cosine.abs(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("site", ["attn", "mlp"])
def test_on_the_mouse_memories_of_the_class_are_active_more_often_than_of_others(site: str) -> None:
    images, labels = task("sprites").inputs("test", 100)
    found = memories(prisma.load("mice/sprites").model, images, labels, site=site, control=True)
    assert found.memory_of_class is not None and found.memory_of_class_by_chance is not None
    hits, chance = (x[..., 1:].mean(-1) for x in (found.memory_of_class, found.memory_of_class_by_chance))
    low = prisma.bootstrap_interval(lambda rows: (hits - chance)[rows].mean(0), 100)[0]
    assert low.max() > 0.02
    assert found.p_value().min() < 0.05
    difference, ends = found.accuracy_effect()
    assert difference.shape == (found.agreement.shape[0],) and ends.shape == (2, *difference.shape)
    assert len(found.plot().axes[0].lines) == 5


def test_what_it_refuses() -> None:
    model = model_of("base")
    images, labels = images_of(model), torch.tensor([0, 1])
    calls = {
        "expected site to be mlp or attn; found 'mlp.post'": lambda: memories(model, site="mlp.post"),
        "expected images with labels, or neither": lambda: memories(model, images),
        r"expected layers from 0 to 1; found \[\]": lambda: memories(model, layers=[]),
        "expected top of 1 or more; found 0": lambda: memories(model, top=0),
        "expected compat to be vilas2023 or none; found 'vilas'": lambda: memories(model, compat="vilas"),
        "expected ln='none' with compat='vilas2023'; found 'folded'": lambda: memories(model, compat="vilas2023"),
        "with an MLP": lambda: memories(model_of("attention_only")),
        r"expected a layer among \[0, 1\] and 5 names": lambda: memories(model).listing(0, "ab"),
        "expected memories of images": lambda: memories(model).accuracy_effect(),
        "expected a result with a control": lambda: memories(model).p_value(),
        "expected a class from 0 to 4": lambda: memories(model, images, labels + 9),
    }
    for message, call in calls.items():
        with pytest.raises(PrismaError, match=message):
            call()
