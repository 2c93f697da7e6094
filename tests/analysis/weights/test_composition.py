"""Composition scores: against whole matrices, on planted heads, and next to chance."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from prisma import PrismaError, circuits
from prisma.analysis.weights.composition import Composition, composition
from prisma.circuits import attentions, folded_out
from prisma.vit import ViT
from tests.variants import model_of


def pair_by_pair(model: ViT, kind: str, ln: str) -> Tensor:
    """The slow twin: whole matrices [d_model, d_model], a pair at a time."""
    c, layers = model.config, attentions(model.config)
    scores = torch.zeros(len(layers), c.n_heads, len(layers), c.n_heads, dtype=torch.float64)
    for (i, a), (j, b) in product(enumerate(layers), repeat=2):
        for g, h in product(range(c.n_heads), repeat=2):
            if i < j:
                written = circuits.ov(model, *a, ln=ln)[g]
                if ln == "folded":
                    for norm in norms_between(model, a, b):
                        written = folded_out(norm, written)
                of = circuits.ov if kind == "v" else circuits.qk
                read = of(model, *b, ln=ln)[h]
                product_ = written @ (read.T if kind == "k" else read)
                scores[i, g, j, h] = product_.norm() / (written.norm() * read.norm())
    return scores


def norms_between(model: ViT, a: tuple[int, str], b: tuple[int, str]) -> list[torch.nn.Module]:
    if model.config.norm != "post":
        return []
    return [model.blocks[layer].get_submodule(name) for layer in range(a[0], b[0]) for name in ("ln1", "ln2")]


@pytest.mark.parametrize("ln", circuits.LN)
@pytest.mark.parametrize(
    "variant",
    ["base", "norm_none", "norm_post", "attention_only_norm_post", "norm_res_post", "layer_scale", "rms", "sub_norms",
     "wide_heads", "divided", "divided_everything"],
)  # fmt: skip
def test_low_rank_scores_are_those_of_whole_matrices(variant: str, ln: str) -> None:
    model = model_of(variant, n_layers=3)
    of = ("v",) if model.config.qk_norm else ("q", "k", "v")
    found = composition(model, of=of, ln=ln)
    with torch.no_grad():
        for kind in of:
            torch.testing.assert_close(getattr(found, kind), pair_by_pair(model, kind, ln), rtol=1e-10, atol=1e-12)
    assert (found.v <= 1 + 1e-12).all()
    assert set(found.axes) == {*of, "baseline"}


def test_heads_wider_than_the_stream() -> None:
    model = model_of("base", d_head=20)
    with torch.no_grad():
        torch.testing.assert_close(composition(model).k, pair_by_pair(model, "k", "folded"), rtol=1e-10, atol=1e-12)


def test_a_planted_pair_stands_out() -> None:
    """Head 1 of layer 0 writes four numbers that nobody reads but the keys of head 2 of layer 1."""
    model = model_of("norm_none")
    with torch.no_grad():
        for block in model.blocks:
            w_qkv, w_out = block.attn.qkv.weight.view(3, 3, 4, 12), block.attn.out.weight.view(12, 3, 4)
            w_qkv[..., :4] = 0
            w_out[:4] = 0
        w_out = model.blocks[0].attn.out.weight.view(12, 3, 4)
        w_out[:, 1] = torch.eye(12, 4)
        model.blocks[1].attn.qkv.weight.view(3, 3, 4, 12)[1, 2] = torch.eye(4, 12)
    found = composition(model)
    assert found.k is not None
    assert found.k.argmax() == torch.arange(36).view(2, 3, 2, 3)[0, 1, 1, 2]
    assert found.q is not None
    assert found.q[0, 1].abs().max() == 0
    others = found.k[0, :, 1].clone()
    assert others[1, 2] > found.baseline.max()
    others[1, 2] = 0
    assert others[1].abs().max() < 1e-12


def test_random_heads_are_at_chance() -> None:
    model = model_of("norm_none", n_heads=8, d_model=64, n_layers=3, d_head=8)
    found = composition(model, samples=64)
    for kind in ("q", "k", "v"):
        assert getattr(found, kind)[0, :, 1:].mean().item() == pytest.approx(found.baseline.mean().item(), rel=0.05)
    assert torch.equal(found.baseline, composition(model, samples=64).baseline)
    assert not torch.equal(found.baseline, composition(model, samples=64, seed=1).baseline)


def test_an_idle_head_composes_with_nobody() -> None:
    model = model_of("base")
    with torch.no_grad():
        model.blocks[0].attn.out.weight.zero_()
    found = composition(model)
    assert found.q is not None
    assert (found.q == 0).all()


def test_half_precision_is_computed_in_single() -> None:
    model = model_of("base", dtype=torch.bfloat16)
    found = composition(model, ln="none")
    assert found.q is not None
    assert found.q.dtype == torch.float32
    torch.testing.assert_close(found.q, composition(model.float(), ln="none").q)


def test_result(tmp_path: Any) -> None:
    found = composition(model_of("divided"))
    assert found.metadata["attentions"] == ["blocks.0.time", "blocks.0.attn", "blocks.1.time", "blocks.1.attn"]
    again = Composition.from_npz(found.to_npz(tmp_path / "c.npz"))
    assert torch.equal(again.q, found.q)  # type: ignore[arg-type]
    panels = again.plot().axes[:3]
    assert [panel.get_title(loc="left") for panel in panels] == ["by q", "by k", "by v"]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["0", "1.time", "1"]
    few = composition(model_of("base"), of="v").plot().axes[0]
    assert [label.get_text() for label in few.get_yticklabels()] == ["0.0", "0.1", "0.2"]
    shown = again.plot("k").axes[0].get_images()[0].get_array()
    assert shown.shape == (9, 9)
    assert shown[3, 4] == pytest.approx(found.k[1, 0, 2, 1].item())  # type: ignore[index]
    assert [shown.mask[3 * a, 3 * b] for a in range(3) for b in range(3)] == [a > b for a in range(3) for b in range(3)]
    assert again.plot("baseline").axes[0].get_xlabel() == "sample"


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("qk_norm", {}, "qk_norm=False"),
        ("base", {"of": ("z",)}, "some of q, k, v"),
        ("base", {"of": ()}, "some of q, k, v"),
        ("base", {"samples": 0}, "at least 1 sample"),
        ("base", {"ln": "frozen"}, "expected ln to be none .*found 'frozen'"),
        ("one_layer", {}, "expected at least two attentions.*found 1"),
        ("no_layers", {}, "expected at least two attentions.*found 0"),
    ],
)
def test_what_cannot_be_done_is_said(variant: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        composition(model_of(variant), **options)
