"""What is left of a model's behaviour, against four runs made by hand."""

import pytest
import torch
import torch.nn.functional as F

import prisma
from prisma.errors import PrismaError
from prisma.sparse.behaviour import behaviour, scores
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of

SITE = "blocks.0.resid_post"


@pytest.mark.parametrize("site", [SITE, "blocks.1.attn.z"])
def test_the_raw_numbers_are_those_of_four_runs(site: str) -> None:
    model = model_of("base", torch.float32)
    images, labels = images_of(model, 6), torch.tensor([0, 1, 2, 3, 4, 0])
    clean, acts = prisma.record(model, images, site)
    x = acts[site]
    coder = random_coder("topk", 12, 20, 3, 0, sites=(site,)).float()
    mean = x.mean((0, 1), keepdim=True).expand_as(x)
    runs = {"clean": clean}
    for name, value in (("spliced", coder(x.flatten(2)).view_as(x)), ("zero", 0 * x), ("mean", mean)):
        runs[name] = prisma.run(model, images, {site: prisma.Set(value)})
    found = behaviour(coder, model, images, labels, batch=4)
    for name, logits in runs.items():
        assert found[f"ce_{name}"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    p = clean.softmax(-1)
    kl = {name: (p * (clean.log_softmax(-1) - x.log_softmax(-1))).sum(-1).mean().item() for name, x in runs.items()}
    assert all(found[f"kl_{name}"] == pytest.approx(kl[name], rel=1e-3) for name in ("spliced", "zero", "mean"))
    assert found["kl_score"] == pytest.approx(1 - kl["spliced"] / kl["zero"], rel=1e-3)
    ce = {name: F.cross_entropy(x, labels).item() for name, x in runs.items()}
    assert found["ce_score"] == pytest.approx((ce["zero"] - ce["spliced"]) / (ce["zero"] - ce["clean"]), rel=1e-3)
    assert found["agreement"] == (runs["spliced"].argmax(1) == clean.argmax(1)).float().mean()
    assert found["accuracy_clean"] == pytest.approx((clean.argmax(1) == labels).float().mean().item())


def test_only_some_tokens_are_replaced_and_a_score_of_no_change_is_none() -> None:
    model = model_of("base", torch.float32)
    coder, images = random_coder("topk", 12, 20, 3, 0, sites=("blocks.1.resid_post",)).float(), images_of(model, 4)
    patches = behaviour(
        coder, model, images, at=list(range(1, 10))
    )  # after the last block only the class token is read
    assert patches["kl_spliced"] == 0 and patches["kl_score"] is None and patches["agreement"] == 1
    assert behaviour(coder, model, images, at=[0])["kl_spliced"] == pytest.approx(
        behaviour(coder, model, images)["kl_spliced"]
    )


def test_above_one_a_coder_removes_noise_and_a_transcoder_is_run_at_its_target() -> None:
    logits = {
        name: torch.tensor([[0.0, x]]).double() for name, x in (("clean", 1), ("spliced", 2), ("zero", 0), ("mean", 0))
    }
    assert scores(logits, torch.tensor([1]))["ce_score"] > 1
    never = {name: torch.cat([x, torch.full((1, 1), -torch.inf)], 1) for name, x in logits.items()}
    assert scores(never, None) == pytest.approx(scores(logits, None))  # a class without probability adds nothing
    model = model_of("base", torch.float32)
    coder = random_coder(
        "topk", 12, 20, 3, 0, sites=("blocks.0.ln2.normalized",), target="blocks.0.mlp_out", d_out=12, centred=False
    )
    assert behaviour(coder.float(), model, images_of(model, 3))["kl_spliced"] > 0
    with pytest.raises(PrismaError, match="expected a model with classes to measure its behaviour; found n_classes=0"):
        behaviour(coder, model_of("base", torch.float32, n_classes=0), images_of(model, 3))
