"""Causal tracing: against one forward for each cell, on planted models, and what it refuses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import prisma
from prisma import LogitDiff, PrismaError, Set
from prisma.analysis.patching.causal_tracing import CausalTracing, causal_tracing, embedding_scale
from prisma.data import task
from prisma.data.task import coverage
from prisma.edits import Add
from prisma.vit import ViT
from tests.variants import images_of, model_of


def objects(model: ViT, n: int) -> Tensor:
    """[n, patch], boolean: some patches, others in each image, and one without context."""
    generator = torch.Generator().manual_seed(7)
    chosen = torch.rand(n, model.config.n_patches, generator=generator) < 0.4
    chosen[:, 0] = True
    chosen[-1] = True
    return chosen


def one_forward_each(
    model: ViT, images: Tensor, chosen: Tensor, site: str, axis: str, window: int, sever: str | None, samples: int
) -> tuple[Tensor, Tensor]:
    """The slow twin: (indirect effect [image, layer, unit], corrupt [image]), by a whole forward for each."""
    c, layers = model.config, range(model.config.n_layers)
    logits, clean = prisma.record(model, images, "blocks.*")
    answer = logits.argmax(-1)
    sigma = 3 * embedding_scale(model, images)
    generator = torch.Generator().manual_seed(4)
    indirect, corrupt = [], []
    for i, image in enumerate(images):
        noise = torch.randn(samples, c.n_patches, c.d_model, generator=generator).to(images)
        runs = []
        for s in range(samples):
            added = F.pad(sigma * noise[s] * chosen[i, :, None], (0, 0, c.n_prefix, 0))
            of_object: dict[str, Any] = {"embed": Add(added)}
            probability = lambda edit, i=i, image=image: (  # noqa: E731
                prisma.run(model, image[None], edit).softmax(-1)[0, answer[i]].item()
            )
            was = prisma.record(model, image[None], "blocks.*", of_object)[1]
            cells = []
            for layer in layers:
                for mask in tokens_of_units(model, chosen[i], axis):
                    edit = dict(of_object)
                    for j in range(layer - window // 2, layer + (window + 1) // 2):
                        if j in layers:
                            name = f"blocks.{j}.{site}"
                            edit[name] = Set(clean[name][i]).where(mask[:, None])
                    for j in layers:
                        if sever and j >= layer - window // 2:
                            name = f"blocks.{j}.{sever}"
                            edit[name] = Set(was[name]).where(mask[:, None])
                    cells.append(probability(edit))
            runs.append([probability(of_object), *cells])
        mean = torch.tensor(runs, dtype=torch.float64).mean(0)
        corrupt.append(mean[0])
        indirect.append((mean[1:] - mean[0]).view(len(layers), -1))
    return torch.stack(indirect), torch.stack(corrupt)


def tokens_of_units(model: ViT, chosen: Tensor, axis: str) -> list[Tensor]:
    c = model.config
    if axis == "token":
        return [torch.arange(c.n_tokens) == t for t in range(c.n_tokens)]
    token, is_object = torch.arange(c.n_tokens), F.pad(chosen, (c.n_prefix, 0))
    roles = [is_object]
    if c.class_token:
        roles.append(token == 0)
    if c.registers:
        roles.append((token >= c.class_token) & (token < c.n_prefix))
    return [*roles, (token >= c.n_prefix) & ~is_object]


@pytest.mark.parametrize(
    ("variant", "site", "axis", "window", "sever"),
    [
        ("base", "resid_post", "role", 1, None),
        ("base", "resid_post", "token", 1, None),
        ("base", "mlp_out", "role", 2, None),
        ("base", "attn_out", "role", 3, None),
        ("base", "resid_post", "role", 1, "mlp_out"),
        ("base", "resid_post", "role", 1, "attn_out"),
        ("base", "attn_out", "role", 1, "mlp_out"),
        ("base", "mlp_out", "role", 2, "attn_out"),
        ("registers", "resid_post", "role", 2, "mlp_out"),
        ("registers_only", "mlp_out", "role", 1, None),
        ("siglip", "attn_out", "token", 1, None),
        ("attention_only", "resid_post", "role", 1, None),
        ("norm_post", "resid_post", "role", 1, "attn_out"),
        ("norm_post", "mlp_out", "role", 1, None),
        ("norm_res_post", "attn_out", "role", 1, None),
        ("parallel", "mlp_out", "role", 1, "attn_out"),
        ("everything_post", "resid_post", "role", 2, None),
        ("pool_distilled", "attn_out", "role", 1, None),
        ("video", "resid_post", "role", 1, None),
        ("divided", "resid_post", "role", 1, "time_out"),
        ("divided", "time_out", "role", 2, "attn_out"),
        ("divided_everything", "mlp_out", "role", 1, None),
    ],
)
def test_one_forward_for_each_cell(variant: str, site: str, axis: str, window: int, sever: str | None) -> None:
    model = model_of(variant, n_layers=3)
    images = images_of(model, 2)
    chosen = objects(model, 2)
    options: dict[str, Any] = {"site": site, "axis": axis, "window": window, "sever": sever, "samples": 2}
    found = causal_tracing(model, images, chosen, **options, seed=4, batch=5)
    with torch.no_grad():
        indirect, corrupt = one_forward_each(model, images, chosen, **options)
        logits = model(images)
    torch.testing.assert_close(found.indirect, indirect, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.corrupt, corrupt, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.clean, logits.softmax(-1).amax(-1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.effect, indirect.mean(0))
    assert found.indirect.abs().max() > 1e-4


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_batch_changes_nothing(batch: int) -> None:
    model = model_of("base")
    images, chosen = images_of(model, 5), objects(model_of("base"), 5)
    found = causal_tracing(model, images, chosen, samples=3, batch=batch)
    whole = causal_tracing(model, images, chosen, samples=3)
    torch.testing.assert_close(found.indirect, whole.indirect, rtol=1e-10, atol=1e-10)
    other = causal_tracing(model, images, chosen, samples=3, seed=1)
    assert (other.indirect - found.indirect).abs().max() > 1e-4


def test_restoring_every_token_restores_the_answer() -> None:
    """In an image that is all object, restoring the object in the last layer restores the answer of a mean pool."""
    model = model_of("registers_only", n_layers=2)
    images = images_of(model, 3)
    everything = torch.ones(3, model.config.n_patches)
    found = causal_tracing(model, images, everything, samples=2)
    assert found.metadata["units"] == ["object", "registers"]
    torch.testing.assert_close(found.indirect[:, 1, 0], found.clean - found.corrupt)


def test_what_a_token_that_nobody_reads_holds_has_no_effect() -> None:
    """A model whose attention writes nothing answers from the class token, which no patch can reach."""
    model = model_of("base")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.out.weight.zero_()
    images, chosen = images_of(model, 3), objects(model, 3)
    found = causal_tracing(model, images, chosen, samples=2, metric=LogitDiff(0, 1))
    assert found.indirect.abs().max() < 1e-12
    with pytest.raises(PrismaError, match="total effect of"):
        found.normalised()


def test_the_planted_route() -> None:
    """Layer 0 copies the object to the class token: its own patch counts before, the class token after."""
    model = model_of("attention_only_norm_none", n_layers=3, n_heads=1, seed=1)
    with torch.no_grad():
        for layer, block in enumerate(model.blocks):
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
            block.attn.out.bias.zero_()
            block.attn.out.weight.zero_()
            if layer == 1:
                block.attn.qkv.weight[2 * 12 :] = torch.eye(12)
                block.attn.out.weight.copy_(torch.eye(12) * 10)  # attention is even: a tenth of each token
    images, chosen = images_of(model, 4), objects(model, 4)
    found = causal_tracing(model, images, chosen, samples=3, metric=LogitDiff(0, 1))
    assert found.metadata["units"] == ["object", "class", "context"]
    share = found.normalised()
    expected = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(share, expected, rtol=1e-9, atol=1e-9)
    cut = causal_tracing(model, images, chosen, samples=3, metric=LogitDiff(0, 1), axis="token", site="attn_out")
    torch.testing.assert_close(cut.effect[:, 0], torch.stack([0 * cut.total, cut.total, 0 * cut.total]))
    assert cut.effect[:, 1:].abs().max() < 1e-9


def test_a_metric_sees_all_images_in_order() -> None:
    model = model_of("base")
    images, chosen = images_of(model, 5), objects(model, 5)
    seen: list[int] = []

    def metric(logits: Tensor) -> Tensor:
        seen.append(len(logits))
        return logits[torch.arange(5), [4, 3, 2, 1, 0]]

    found = causal_tracing(model, images, chosen, samples=2, metric=metric, batch=4)
    assert set(seen) == {5}
    torch.testing.assert_close(found.clean, model(images).detach()[torch.arange(5), [4, 3, 2, 1, 0]])
    part = causal_tracing(model, images[:2], chosen[:2], samples=2, metric=LogitDiff([4, 3], 0), scale=1.0)
    alone = causal_tracing(model, images[:1], chosen[:1], samples=2, metric=LogitDiff(4, 0), scale=1.0)
    torch.testing.assert_close(part.indirect[:1], alone.indirect)


def test_the_scale_is_that_of_the_patch_embeddings() -> None:
    model = model_of("registers")
    images = images_of(model, 5)
    x = prisma.record(model, images, "embed")[1]["embed"][:, model.config.n_prefix :]
    assert embedding_scale(model, images, batch=2) == pytest.approx(x.std(correction=0).item(), rel=1e-10)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_scale_of_embeddings_far_from_zero(batch: int) -> None:
    """The patches' bias is the same number everywhere, so it is no part of the deviation."""
    model = model_of("base", positions=False)
    images = images_of(model, 5)
    torch.nn.init.zeros_(model.embed.patch.bias)
    expected = embedding_scale(model, images)
    torch.nn.init.constant_(model.embed.patch.bias, 1e7)
    assert embedding_scale(model, images, batch=batch) == pytest.approx(expected, rel=1e-6)


def test_the_sprites_mouse_holds_the_object_early_in_its_patches_and_late_in_the_class_token() -> None:
    """The two-site picture: the answer moves from the object's patches to the class token, by way of no other patch."""
    mouse, sprites = prisma.load("mice/sprites").model, task("sprites")
    images, labels = sprites.inputs("test", first=64)
    masks = sprites.splits["test"].masks
    assert masks is not None
    with torch.no_grad():
        right = mouse(images).argmax(-1) == labels
    images, cover = images[right], coverage(masks[:64], mouse.config.patch_size)[right]
    found = causal_tracing(mouse, images, cover, samples=1)
    assert found.metadata["units"] == ["object", "class", "context"]
    assert found.clean.mean() > 0.9
    assert found.corrupt.mean() < 0.2
    share = found.normalised()
    of_object, of_class, of_context = share.unbind(1)
    assert of_object[0] > 0.5
    ahead = found.indirect[:, 0, 0] - found.indirect[:, 0, 1]  # by image: the object's patches against the class token
    assert prisma.bootstrap_interval(lambda rows: ahead[rows].mean(), len(ahead))[0] > 0
    assert (of_object[3:] < 0.15).all()
    assert (of_class[3:] > 0.65).all()
    assert (of_class.diff() > 0).all()
    assert of_context.abs().max() < 0.1
    assert share[-1].tolist() == pytest.approx([0, 1, 0], abs=1e-5)
    severed = causal_tracing(mouse, images, cover, samples=1, sever="mlp_out").normalised()
    assert severed[0, 0] < 0.7 * share[0, 0], "what the object holds early goes by way of its own MLPs"


def test_result_survives_a_file(tmp_path: Any) -> None:
    model = model_of("base")
    found = causal_tracing(model, images_of(model, 2), objects(model, 2).float(), samples=2)
    again = CausalTracing.from_npz(found.to_npz(tmp_path / "trace.npz"))
    assert again.axes["effect"] == ("layer", "role")
    torch.testing.assert_close(again.effect, found.effect)
    torch.testing.assert_close(again.stderr, found.stderr)
    panel = again.plot().axes[0]
    assert panel.get_xlabel() == "role"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["object", "class", "context"]


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("base", {"site": "attn.z"}, "expected a site among resid_post, attn_out, mlp_out, time_out"),
        ("base", {"site": "mlp_out", "sever": "mlp_out"}, "sever to be attn_out, mlp_out or time_out but not the site"),
        ("base", {"sever": "resid_post"}, "sever='resid_post'"),
        ("attention_only", {"site": "mlp_out"}, "no site of this model matches"),
        ("base", {"sever": "time_out"}, "no site of this model matches"),
        ("base", {"axis": "head"}, "axis to be role or token; found 'head'"),
        ("base", {"window": 0}, "expected a window and samples of at least 1"),
        ("base", {"samples": 0}, "expected a window and samples of at least 1"),
        ("base", {"noise": float("nan")}, "expected noise to be a finite number; found nan"),
        ("base", {"batch": 0}, "expected batch to be at least 1"),
        ("base", {"coverage": torch.ones(2, 8)}, r"\[2, 9\]; found \[2, 8\]"),
        ("base", {"coverage": torch.ones(3, 9)}, r"\[2, 9\]; found \[3, 9\]"),
        ("base", {"coverage": torch.ones(2, 9) * 2}, "from 0 to 1"),
        ("base", {"coverage": torch.eye(2, 9) * torch.tensor([[1], [0]])}, "found none in image 1"),
        ("base", {"metric": lambda x: x.sum()}, "one number per image"),
        ("no_layers", {}, "n_layers=0"),
        ("no_head", {}, "expected a metric for a model without classes"),
    ],
)
def test_what_cannot_be_done_is_said(variant: str, options: dict[str, Any], message: str) -> None:
    model = model_of(variant)
    options = {"coverage": torch.ones(2, model.config.n_patches), **options}
    with pytest.raises(PrismaError, match=message):
        causal_tracing(model, images_of(model), **options)
