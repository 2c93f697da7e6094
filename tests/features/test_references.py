"""Objectives beside another picture, against loops."""

import pytest
import torch

from prisma.analysis.readings import MAP, Activations
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.features.references import Caricature, Content, Distance, Style, TotalVariation, gram, total_variation
from prisma.features.subjects import subject_of
from tests.features.planted import small_cnn

SUBJECT = subject_of(small_cnn(), Transform((6, 8), (0.0,) * 3, (1.0,) * 3))
torch.manual_seed(0)
PICTURE, OTHERS = torch.rand(3, 6, 8), torch.rand(2, 3, 6, 8)
X = SUBJECT.read(torch.cat([PICTURE[None], OTHERS]), ["2"])


def features(i: int) -> torch.Tensor:
    return X["2"][i].flatten(1).T


def test_content_style_and_caricature() -> None:
    known, found = features(0), [features(i) for i in (1, 2)]
    acts = Activations({"2": X["2"][1:]}, {"2": MAP})
    content = [-(x - known).abs().mean().item() for x in found]
    style = [-(x.T @ x / len(x) - known.T @ known / len(known)).abs().mean().item() for x in found]
    dots = [(x.flatten() @ known.flatten() / known.norm()).item() for x in found]
    bound = {kind: kind("2", PICTURE).bound(SUBJECT.read) for kind in (Content, Style, Caricature)}
    assert bound[Content].value(acts).tolist() == pytest.approx(content)
    assert bound[Style].value(acts).tolist() == pytest.approx(style)
    assert bound[Caricature].value(acts).tolist() == pytest.approx(
        [dot * max(dot / x.norm().item(), 0.1) for dot, x in zip(dots, found, strict=True)]
    )
    same = Activations({"2": X["2"][:1]}, {"2": MAP})
    assert bound[Content].value(same).item() == pytest.approx(0, abs=1e-6) == bound[Style].value(same).item()
    with pytest.raises(PrismaError, match="expected an objective whose picture was read; found Style"):
        Style("2", PICTURE).value(acts)
    assert torch.allclose(gram(torch.eye(3)[None]), torch.eye(3) / 3)


def test_a_sum_binds_its_parts() -> None:
    both = Content("2", PICTURE) + 0.5 * Style("2", PICTURE)
    assert both.reads == ("2",)
    bound = both.bound(SUBJECT.read)
    assert bound.value(Activations({"2": X["2"][:1]}, {"2": MAP})).item() == pytest.approx(0, abs=1e-6)


def test_distance_and_total_variation() -> None:
    acts = {"pixels": OTHERS}
    assert Distance(PICTURE).value(acts).tolist() == pytest.approx(
        [(x - PICTURE).square().mean().sqrt().item() for x in OTHERS], rel=1e-4
    )
    checks = torch.zeros(1, 1, 4, 4)
    checks[..., ::2, :] = 1
    assert total_variation(checks).item() == 1 and TotalVariation().value({"pixels": checks}).item() == 1
