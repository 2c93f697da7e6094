"""Linear probes: scikit-learn's ridge, layers and kinds by hand, any batches, and the sprites mouse."""

import pytest
import torch
from sklearn.linear_model import Ridge

import prisma
from prisma import PrismaError, record
from prisma.analysis.class_space import project
from prisma.analysis.class_space.linear_probes import linear_probes, train_probes
from prisma.data import task
from tests.variants import images_of, model_of

LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])


@pytest.mark.parametrize("site", ["resid_post", "attn_out"])
@pytest.mark.parametrize("variant", ["base", "registers", "no_class_token"])
def test_every_probe_is_a_ridge_regression(variant: str, site: str) -> None:
    model = model_of(variant)
    images, tests, c = images_of(model, 8), images_of(model, 6, 3), model.config
    found = linear_probes(model, images, LABELS, tests, LABELS[:6], site=site, alpha=0.7, batch=3)
    trained, read = (record(model, x, f"blocks.*.{site}")[1] for x in (images, tests))
    tokens = {"class": range(int(c.class_token)), "registers": range(int(c.class_token), c.n_prefix),
              "patches": range(c.n_prefix, c.n_tokens)}  # fmt: skip
    kinds = {kind: list(places) for kind, places in tokens.items() if len(places)}
    assert found.metadata["kinds"] == list(kinds)
    for layer in range(2):
        at = f"blocks.{layer}.{site}"
        own = (project(model, read[at]).argmax(-1) == LABELS[:6, None]).double()
        for i, places in enumerate(kinds.values()):
            x, y = trained[at][:, places], torch.full((8, len(places), 5), -1.0)
            y.scatter_(2, LABELS[:, None, None].expand(8, len(places), 1), 1.0)
            ridge = Ridge(alpha=0.7).fit(x.detach().flatten(0, 1), y.flatten(0, 1))
            answers = torch.from_numpy(ridge.predict(read[at][:, places].detach().flatten(0, 1))).argmax(-1)
            expected = (answers.view(6, -1) == LABELS[:6, None]).double().mean(1)
            torch.testing.assert_close(found.probe[:, layer, i].double(), expected, rtol=0, atol=1e-6)
            torch.testing.assert_close(
                found.projection[:, layer, i].double(), own[:, places].mean(1), rtol=0, atol=1e-6
            )


def test_weights_are_those_of_ridge_in_any_batches_and_around_any_mean() -> None:
    model = model_of("base")
    with torch.no_grad():
        model.embed.prefix += 1000
    images = images_of(model, 8)
    x = record(model, images, "blocks.0.resid_post")[1]["blocks.0.resid_post"][:, 0].detach()
    y = torch.full((8, 5), -1.0).scatter(1, LABELS[:, None], 1.0)
    ridge = Ridge(alpha=1.0).fit(x, y)
    for batch in (1, 8):
        probes = train_probes(model, images, LABELS, batch=batch)
        torch.testing.assert_close(probes.weight[0, 0], torch.from_numpy(ridge.coef_).double(), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(probes.bias[0, 0], torch.from_numpy(ridge.intercept_).double(), rtol=1e-6, atol=1e-6)
    assert train_probes(model, images, LABELS, alpha=0).weight.isfinite().all()  # fewer samples than dimensions


def test_on_the_mouse_probes_find_the_class_before_the_readout_does() -> None:
    data = task("sprites")
    images, labels = data.inputs("train", 400)
    found = linear_probes(prisma.load("mice/sprites").model, images, labels, *data.inputs("test", 100))
    low = found.interval("difference")[0]
    patches = found.metadata["kinds"].index("patches")
    assert low[0, patches] > 0
    lines = [line.get_label() for line in found.plot().axes[0].lines]
    assert lines == ["probe: class", "probe: patches", "projection: class", "projection: patches", "chance"]
    assert len(found.plot("probe").axes[0].lines) == 3


def test_what_it_refuses() -> None:
    model = model_of("base")
    images = images_of(model, 8)
    rest = (images, LABELS)
    calls = {
        "at least as many training images as classes, 5; found 4": lambda: linear_probes(
            model, images[:4], LABELS[:4], *rest
        ),
        "of two classes or more; found one class": lambda: linear_probes(model, images, 0 * LABELS, *rest),
        "alpha of 0 or more; found -1": lambda: linear_probes(model, *rest, *rest, alpha=-1.0),
        "a site along the residual stream.*'attn.z'": lambda: linear_probes(model, *rest, *rest, site="attn.z"),
        "a class from 0 to 4; found 9": lambda: linear_probes(model, *rest, images, LABELS + 9 - LABELS),
        "n_classes=0": lambda: linear_probes(model_of("no_head"), *rest, *rest),
        "one of probe, projection": lambda: linear_probes(model, *rest, *rest).interval("both"),
    }
    for message, call in calls.items():
        with pytest.raises(PrismaError, match=message):
            call()
    with pytest.raises(PrismaError, match="has no array 'weights'"):
        linear_probes(model, *rest, *rest).plot("weights")
