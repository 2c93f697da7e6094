"""Class similarity change: every comparison by hand, models of other forms, and the sprites mouse."""

import pytest
import torch

import prisma
from prisma import PrismaError, record
from prisma.analysis.class_space import project
from prisma.analysis.class_space.class_similarity_change import RATES, class_similarity_change
from prisma.data import task
from tests.variants import images_of, model_of

LABELS = torch.tensor([4, 0, 1])


@pytest.mark.parametrize("norm", ["final", "frozen"])
@pytest.mark.parametrize("variant", ["base", "norm_post", "pool_mean", "parallel", "attention_only", "divided"])
def test_every_comparison_by_hand(variant: str, norm: str) -> None:
    model = model_of(variant).requires_grad_(False)
    images = images_of(model, 3)
    found = class_similarity_change(model, images, LABELS, norm=norm, batch=2)
    acts = record(model, images, "blocks.*.*")[1]
    last = acts["blocks.1.resid_post"]

    def logit(site: str) -> torch.Tensor:
        return project(model, acts[site], norm=norm, last=last)[torch.arange(3), :, LABELS]

    for layer in range(2):
        b = f"blocks.{layer}"
        x, y, z, a = (logit(f"{b}.{s}") for s in ("resid_pre", "resid_mid", "resid_post", "attn_out"))
        reads = logit(f"{b}.resid_time") if model.config.attention == "divided" else x
        expected = {"block": z > x, "attn_added": y > reads, "attn_alone": a > reads}
        if model.config.d_mlp:
            m = logit(f"{b}.mlp_out")
            expected |= {
                "mlp_added": z > y,
                "mlp_alone": m > x,
                "mlp_alone_own": m > (x if model.config.parallel else y),
            }
        else:
            assert found.mlp is None and found.mlp_added is None and found.mlp_alone is None
        assert set(expected) == {rate for rate in RATES if rate in found.axes}
        for rate, rose in expected.items():
            assert torch.equal(getattr(found, rate)[:, layer], rose.float())
            of_patches = rose[:, model.config.n_prefix :].double().mean(1)
            torch.testing.assert_close(found.of("patches", rate)[:, layer], of_patches)


def test_equal_logits_are_a_coin_flip() -> None:
    model = model_of("base").requires_grad_(False)
    model.readout.head.weight.zero_()
    found = class_similarity_change(model, images_of(model, 3), LABELS)
    for rate in RATES:
        assert (getattr(found, rate) == 0.5).all()


def test_on_the_mouse_attention_builds_the_class() -> None:
    data = task("sprites")
    images, labels = data.inputs("test", 100)
    masks = data.splits["test"].masks
    assert masks is not None
    found = class_similarity_change(prisma.load("mice/sprites").model, images, labels, masks=masks[:100])
    low = found.interval("patches", "attn_added")[0]
    assert low.max() > 0.6
    assert found.of("object").shape == found.of("context").shape == (100, low.shape[0])
    assert [line.get_label() for line in found.plot().axes[0].lines] == [*RATES, "chance"]
    assert len(found.plot("mlp_alone", kind="object").axes[0].lines) == 2
    assert len(found.plot("stream").axes[0].lines[0].get_ydata()) == low.shape[0] + 1


def test_what_a_branch_causes_is_drawn_beside() -> None:
    model = model_of("base")
    images = images_of(model, 3)
    cause = prisma.ablation(model, images, "attn.z", metric=prisma.Logit(LABELS), axis="head")
    panels = class_similarity_change(model, images, LABELS).plot(cause=cause).axes
    assert [len(panel.lines) for panel in panels] == [len(RATES) + 1, 3]
    for i, line in enumerate(panels[1].lines):
        assert line.get_ydata() == pytest.approx(cause.effect[:, i].tolist())


def test_what_it_refuses() -> None:
    model = model_of("base")
    found = class_similarity_change(model, images_of(model, 3), LABELS)
    calls = {
        "expected one of block, attn_added.*; found 'rate'": lambda: found.of("patches", "rate"),
        "a kind of token that is here, class, patches; found 'object'": lambda: found.of("object"),
        "has no array 'blocks'": lambda: found.plot("blocks"),
        "found n_layers=0": lambda: class_similarity_change(model_of("no_layers"), images_of(model, 3), LABELS),
    }
    for message, call in calls.items():
        with pytest.raises(PrismaError, match=message):
            call()
