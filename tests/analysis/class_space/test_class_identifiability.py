"""Class identifiability: ranks by loops, chance for untrained models, and far above it for a trained mouse."""

import json
from pathlib import Path

import pytest
import torch

import prisma
from prisma import PrismaError
from prisma.analysis.class_space import project
from prisma.analysis.class_space.class_identifiability import ClassIdentifiability, class_identifiability
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.analysis.result import Effect
from prisma.data import task
from prisma.data.task import coverage
from tests.variants import WITH_CLASSES, images_of, model_of


@pytest.mark.parametrize("variant", WITH_CLASSES)
def test_ranks_and_scores_are_those_of_loops(variant: str) -> None:
    model, labels = model_of(variant), torch.tensor([4, 1])
    images, c = images_of(model), model.config
    found = class_identifiability(model, images, labels, batch=1)
    tokens = logit_lens(model, images).tokens
    assert tokens is not None
    assert found.rank.shape == tokens.shape[:3]
    for image, label in enumerate(labels.tolist()):
        for stage, of_stage in enumerate(tokens[image].tolist()):
            ranks = [sum(other > row[label] for other in row) for row in of_stage]
            assert found.rank[image, stage].tolist() == ranks
            patches = ranks[c.n_prefix :]
            expected = {
                "rate": sum(rank == 0 for rank in patches) / len(patches),
                "score": sum(1 - rank / 5 for rank in patches) / len(patches),
                "mrr": sum(1 / (1 + rank) for rank in patches) / len(patches),
            }
            for name, value in expected.items():
                assert found.of("patches", name)[image, stage].item() == pytest.approx(value)
            assert found.score[stage, image].tolist() == pytest.approx([1 - rank / 5 for rank in ranks])
            assert found.any_patch[image, stage].item() == (0 in patches)


def of_mouse(mouse: prisma.ViT) -> ClassIdentifiability:
    images, labels = task("sprites").inputs("test", 100)
    return class_identifiability(mouse, images, labels)


def test_a_trained_mouse_is_far_above_chance_and_the_class_token_leads() -> None:
    found = of_mouse(prisma.load("mice/sprites").model)
    assert found.metadata["chance"]["rate"] == 1 / 40
    rate = found.rate.mean(0)
    assert rate[0] < 0.1
    assert rate[-1] > 0.4
    assert ((found.rank[..., 0] == 0).double().mean(0)[1:] > rate[1:]).all()


def test_over_all_labels_of_an_image_the_mean_is_chance() -> None:
    model = model_of("base", n_classes=40)
    found = class_identifiability(model, images_of(model, n=1).expand(40, -1, -1, -1), torch.arange(40))
    chance = found.metadata["chance"]
    assert chance["rate"] == 0.025
    assert chance["score"] == pytest.approx(0.5125)
    for name, expected in chance.items():
        torch.testing.assert_close(found.of("patches", name).mean(0), torch.full((3,), expected).double())


def test_a_readout_of_zeros_has_exactly_the_numbers_of_chance() -> None:
    model = model_of("base")
    torch.nn.init.zeros_(model.readout.head.weight)
    torch.nn.init.zeros_(model.readout.head.bias)
    found = class_identifiability(model, images_of(model), torch.tensor([0, 4]))
    assert found.tied is not None and (found.tied == 5).all() and (found.rank == 2).all()
    for name, expected in found.metadata["chance"].items():
        torch.testing.assert_close(
            found.of("patches", name), torch.full((2, 3), expected, dtype=torch.float64), rtol=0, atol=1e-12
        )


def test_classes_that_tie_share_their_ranks(tmp_path: Path) -> None:
    """Classes 1 and 3 have the same logits: each comes first of the two in half of the orders."""
    model = model_of("base")
    for parameter in (model.readout.head.weight, model.readout.head.bias):
        parameter.data[3] = parameter.data[1]
    images, labels = images_of(model), torch.tensor([1, 3])
    found = class_identifiability(model, images, labels)
    tokens = logit_lens(model, images).tokens
    assert tokens is not None and found.tied is not None
    for image, label in enumerate(labels.tolist()):
        rows = tokens[image, :, 1:].tolist()
        above = torch.tensor([[sum(x > row[label] for x in row) for row in stage] for stage in rows]).double()
        expected = {
            "rate": (above == 0).double() / 2,
            "score": 1 - (above + 0.5) / 5,
            "mrr": (1 / (1 + above) + 1 / (2 + above)) / 2,
        }
        for name, values in expected.items():
            torch.testing.assert_close(found.of("patches", name)[image], values.mean(-1))
    saved = ClassIdentifiability.from_npz(found.to_npz(tmp_path / "ties.npz"))
    torch.testing.assert_close(saved.rate, found.rate)


def test_an_untrained_mouse_is_near_chance() -> None:
    torch.manual_seed(0)
    found = of_mouse(prisma.ViT(prisma.load("mice/sprites").config).eval())
    assert found.rate.mean(0).max() < 0.1
    assert (found.score[..., 1:].mean((1, 2)) - found.metadata["chance"]["score"]).abs().max() < 0.1


def test_it_is_a_result() -> None:
    model = model_of("base")
    found = class_identifiability(model, images_of(model), torch.tensor([0, 1]))
    said = json.loads(json.dumps(found.to_dict()))
    assert list(said["arrays"]) == ["rate", "score", "mrr", "any_patch", "rank"]
    assert said["arrays"]["rate"]["axes"] == ["image", "stage"]
    labels = [line.get_label() for line in found.plot().axes[0].lines]
    assert labels == [name + of for name in ("rate", "score", "mrr") for of in ("", " by chance")]
    assert len(found.plot("mrr").axes[0].lines) == 2
    assert found.plot("rank").axes[0].images[0].get_array().tolist() == found.rank.double().mean(0).tolist()
    with pytest.raises(PrismaError, match="has no array 'ranks'"):
        found.plot("ranks")


def test_one_patch_or_more_has_chance_and_a_control_beside_it() -> None:
    model, labels = model_of("base"), torch.tensor([0, 1, 4])
    images, masks = images_of(model, 3), torch.zeros(3, 3, 3)
    masks[:2, 0] = 1
    found = class_identifiability(model, images, labels, masks=masks, control=True)
    assert found.metadata["chance_any_patch"] == pytest.approx(1 - 0.8**9)
    for rank, any_patch in ((found.rank, found.any_patch), (found.control_rank, found.control_any_patch)):
        assert rank is not None and any_patch is not None
        assert torch.equal(any_patch, (rank[..., 1:] == 0).any(-1).double())
    of_object = found.of("object", "any")
    assert torch.equal(of_object[:2], (found.rank[:2, :, 1:4] == 0).any(-1).double()) and of_object[2].isnan().all()
    assert found.p_value("patches", "any").shape == (3,) and found.interval("patches", "any").shape == (2, 3)
    assert [line.get_label() for line in found.plot("any_patch").axes[0].lines] == [
        "any_patch",
        "random weights",
        "chance",
    ]
    bare = class_identifiability(model, images, labels)
    assert bare.control_any_patch is None and len(bare.plot("any_patch").axes[0].lines) == 2


def test_what_it_refuses() -> None:
    model, labels = model_of("base"), torch.tensor([0, 1])
    with pytest.raises(PrismaError, match=r"a label for each of 2 images; found \[1\]"):
        class_identifiability(model, images_of(model), labels[:1])
    with pytest.raises(PrismaError, match="expected batch to be at least 1; found 0"):
        class_identifiability(model, images_of(model), labels, batch=0)
    with pytest.raises(PrismaError, match="expected a class from 0 to 4; found 6"):
        class_identifiability(model, images_of(model), labels + 6)
    with pytest.raises(PrismaError, match="n_classes=0"):
        class_identifiability(model_of("no_head"), images_of(model), labels)


def test_kinds_and_the_control_on_the_mouse(tmp_path: Path) -> None:
    """Trained is far above random weights, which are at chance, and the class token leads the patches."""
    data = task("sprites")
    images, labels = data.inputs("test", 100)
    mouse, masks = prisma.load("mice/sprites").model, data.splits["test"].masks
    assert masks is not None
    found = class_identifiability(mouse, images, labels, masks=masks[:100], control=True)
    low = found.interval()[0]
    random = found.of("patches", control=True).mean(0)
    assert low[-1] > 10 * random[-1] and (random < 0.1).all()
    assert found.p_value()[-1] < 1e-6 and found.p_value("class", "rate").min() >= 0
    assert found.interval("class")[0, -1] > found.interval()[1, -1]
    covered = coverage(masks[:100], mouse.config.patch_size).flatten(1)
    shares = (found.rank[:, :, 1:] == 0).double()
    for kind, where in {"object": covered >= 0.5, "context": covered == 0}.items():
        expected = torch.stack([row[:, some].mean(-1) for row, some in zip(shares, where, strict=True)])
        torch.testing.assert_close(found.of(kind), expected, equal_nan=True)
    again = ClassIdentifiability.from_npz(found.to_npz(tmp_path / "kinds.npz"))
    torch.testing.assert_close(again.of("context", "mrr"), found.of("context", "mrr"), equal_nan=True)


class Flat(Effect):
    """An effect without layers."""

    per_image = torch.ones(3, 2)  # type: ignore[assignment]


def test_the_causal_partner_is_drawn_beside() -> None:
    model = model_of("base")
    images, labels, masks = images_of(model, 3), torch.tensor([0, 1, 2]), torch.zeros(3, 6, 6)
    masks[:, :2, :4] = 1
    found = class_identifiability(model, images, labels, masks=masks)
    cause = prisma.causal_tracing(model, images, masks[:, ::2, ::2], metric=prisma.Logit(labels), samples=1)
    panels = found.plot(cause=cause).axes
    assert [line.get_label() for line in panels[0].lines] == ["class", "patches", "object", "context", "chance"]
    assert list(cause.names[cause.axes["effect"][-1]]) == [line.get_label() for line in panels[1].lines]
    colours = {line.get_label(): line.get_color() for line in panels[0].lines}
    assert all(colours[line.get_label()] == line.get_color() for line in panels[1].lines)
    for i, line in enumerate(panels[1].lines):
        assert line.get_ydata() == pytest.approx(cause.change[:, i].tolist())
    with pytest.raises(PrismaError, match=r"expected an analysis with effects \[layer, ...\]"):
        found.plot(cause=Flat(metadata={}))


@pytest.mark.parametrize("norm", ["frozen", "folded", "none"])
def test_other_norms_are_those_of_the_projection(norm: str) -> None:
    model = model_of("base").requires_grad_(False)
    images, labels = images_of(model), torch.tensor([4, 1])
    found = class_identifiability(model, images, labels, norm=norm)
    acts = prisma.record(model, images, "blocks.*.resid_post")[1]
    last = acts["blocks.1.resid_post"]
    for layer in range(2):
        logits = project(model, acts[f"blocks.{layer}.resid_post"], norm=norm, last=last)
        own = logits.gather(-1, labels[:, None, None].expand(2, 10, 1))
        assert torch.equal(found.rank[:, layer + 1], (logits > own).sum(-1).to(found.rank))
