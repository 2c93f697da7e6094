"""Hits of active memories by loops, and the shares of a block's parts."""

import pytest
import torch

from prisma import record
from prisma.analysis.class_space import project
from prisma.analysis.class_space.class_values import values_of
from prisma.analysis.class_space.memory_hits import (
    SITES,
    HitReader,
    OwnMemories,
    composition,
    published_composition,
)
from prisma.analysis.class_space.passes import read_all
from tests.variants import images_of, model_of


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("variant", ["base", "norm_res_post", "gated_silu", "pool_mean", "divided", "relu"])
def test_hits_and_compositions_by_loops(variant: str, site: str) -> None:
    model, labels, k = model_of(variant).requires_grad_(False), torch.tensor([4, 1, 1]), 2
    images = images_of(model, 3)
    values = {layer: values_of(model, layer, site)[0] for layer in (1, 0)}
    own = {layer: OwnMemories.of(value, k) for layer, value in values.items()}
    reader = HitReader(model, labels, site, own, k)
    read_all(model, images, [reader], 2)
    found = reader.arrays()
    stream = "resid_time" if variant == "divided" else "resid_pre"
    acts = record(model, images, ["blocks.*.*", "blocks.*.attn.z", "blocks.*.mlp.post"])[1]
    for at, (layer, value) in enumerate(values.items()):
        block = f"blocks.{layer}"
        first = {s: project(model, acts[f"{block}.{s}"]).argmax(-1)
                 for s in (stream, "attn_out", "mlp_out", "resid_post")}  # fmt: skip
        for image, label in enumerate(labels.tolist()):
            for token in range(model.config.n_tokens):
                sizes = acts[f"{block}.{SITES[site]}"][image, token].flatten().topk(k)
                active = [m for size, m in zip(*map(torch.Tensor.tolist, sizes), strict=True) if size]
                of_class = [any(m in value[c].topk(k).indices.tolist() for m in active) for c in range(5)]
                of_memory = [any(c in value[:, m].topk(k).indices.tolist() for m in active) for c in range(5)]
                at_token = (image, at, token)
                for name, hits in {"memory_of_class": of_class, "class_of_memory": of_memory}.items():
                    assert found[name][at_token] == hits[label]
                    chance = (sum(hits) - hits[label]) / 4
                    assert found[f"{name}_by_chance"][at_token].item() == pytest.approx(chance)
                written = first[{"mlp": "mlp_out", "attn": "attn_out"}[site]][image, token].item()
                assert found["composed"][at_token] == (written in [value[:, m].argmax().item() for m in active])
                same = [bool(first[s][image, token] == first["resid_post"][image, token]) for s in list(first)[:3]]
                shares = [x / max(sum(same), 1) for x in same] + [float(not any(same))]
                assert found["composition"][at_token].tolist() == pytest.approx(shares)
    assert found["correct"].tolist() == (model(images).argmax(-1) == labels).float().tolist()


def test_what_has_no_coefficient_is_no_hit() -> None:
    """After a ReLU that lets nothing through, no neuron is active, whichever come first."""
    model, labels = model_of("relu").requires_grad_(False), torch.tensor([4, 1])
    for block in model.blocks:
        block.mlp.pre.bias.fill_(-1000)
    own = {0: OwnMemories.of(values_of(model, 0, "mlp")[0], 5)}
    reader = HitReader(model, labels, "mlp", own, 5)
    read_all(model, images_of(model), [reader], None)
    for name in ("memory_of_class", "class_of_memory", "class_of_memory_by_chance", "composed"):
        assert (reader.arrays()[name] == 0).all()


def test_the_published_shares_overlap_and_leave_the_mlp_out_of_none() -> None:
    first = {"stream": [0, 1, 2], "attention": [0, 2, 0], "mlp": [0, 3, 5], "output": [0, 3, 4]}
    found = published_composition({name: torch.tensor([classes]) for name, classes in first.items()})
    assert found[0].tolist() == [[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]]


def test_shares_sum_to_one_without_an_mlp() -> None:
    classes = torch.tensor([[0, 1, 2, 3]])
    first = {"stream": classes, "attention": torch.tensor([[0, 0, 2, 0]]), "output": torch.tensor([[0, 1, 5, 0]])}
    found = composition(first)
    assert found[0].tolist() == [[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
