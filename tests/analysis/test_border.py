"""What is not finite never becomes an answer: it is named, whichever analysis it would have gone into."""

import ast
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import prisma
from prisma import PrismaError, ViT
from prisma.analysis import border
from prisma.analysis.border import guarded
from prisma.errors import NotFiniteError
from prisma.metrics import KL
from tests.analyses import OF_IMAGES, OF_WEIGHTS
from tests.analysis.test_names import functions
from tests.test_structure import ROOT
from tests.variants import ids_of, images_of, model_of, tower_of

ELSEWHERE = {"segmentation", "map_scores", "read_tuned_lens", "attribute_network", "cluster_lesions_network"}
"""Those that take no model of Prisma."""


def test_every_public_analysis_is_guarded_and_tested_here() -> None:
    called = {name.split(" ")[0] for name in (*OF_IMAGES, *OF_WEIGHTS)}
    for name, function in functions().items():
        if name == "edge_result":  # makes a result from passes, whose callers are guarded
            continue
        assert function.__code__ is guarded(lambda: None).__code__, f"{name} is not @guarded"  # type: ignore[attr-defined]
        assert name in called | ELSEWHERE, f"{name} is not in tests/analyses.py"


def test_no_analysis_records_past_the_border() -> None:
    for path in (ROOT / "prisma" / "analysis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "prisma.runs" and path.name != "border.py":
                assert "record" not in {alias.name for alias in node.names}, f"{path}: use prisma.analysis.border"


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", OF_IMAGES)
def test_an_image_that_is_not_finite_is_named(name: str, value: float) -> None:
    model = model_of("base")
    images = images_of(model, 3)
    images[1, 0, 2, 3] = value
    with pytest.raises(PrismaError, match=rf"expected finite numbers in (images|clean); found {value} in image 1"):
        OF_IMAGES[name](model, images)


WEIGHTS = ["embed.positions", "blocks.0.attn.qkv.weight", "blocks.1.mlp.out.bias", "readout.head.weight"]


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
@pytest.mark.parametrize("name", [*OF_IMAGES, *OF_WEIGHTS])
def test_a_weight_that_is_not_finite_is_named(name: str, value: float) -> None:
    """Also where it cannot change the numbers: the head's weights, for rollout."""
    parameter = WEIGHTS[len(name) % len(WEIGHTS)]
    model = model_of("base")
    model.get_parameter(parameter).detach()[-1] = value
    with pytest.raises(PrismaError, match=rf"expected finite weights; found {value} in {re.escape(parameter)} \["):
        OF_IMAGES[name](model, images_of(model, 3)) if name in OF_IMAGES else OF_WEIGHTS[name](model)


@pytest.mark.parametrize("name", [name for name in OF_IMAGES if name != "embedding_scale"])
def test_a_run_that_overflows_is_named_by_image_and_site(name: str) -> None:
    """All images and weights are finite, and float16 has no larger number than 65504."""
    model = model_of("base", torch.float16)
    images = images_of(model, 3)
    images[2] = 60000 * images[2].sign()
    with pytest.raises(PrismaError, match=r"found (inf|-inf|nan) first at the site embed, in image 2") as raised:
        OF_IMAGES[name](model, images)
    assert "float16, whose largest number is 65504: use model.float() and images.float()" in str(raised.value)


def test_a_gradient_that_overflows_is_named_by_array() -> None:
    model, steep = model_of("base", torch.float16), lambda logits: 1e5 * logits.float()[:, 0]
    images = images_of(model, 2)
    with pytest.raises(NotFiniteError, match=r"in the result; found nan in \w+ \[.* too large for float32"):
        prisma.attribution_patching(model, images, images.roll(1, 0), steep)


def test_a_metric_that_is_not_finite_is_named() -> None:
    model = model_of("base")
    images = images_of(model, 3)
    reference = model(images).detach()
    reference[1, 2] = torch.nan
    with pytest.raises(NotFiniteError, match=r"in metric.reference; found nan"):
        prisma.ablation(model, images, "attn.z", KL(reference))
    values = torch.tensor([0.0, 0.0, torch.inf], dtype=torch.float64)
    with pytest.raises(NotFiniteError, match="expected a metric that is finite; found inf in image 2"):
        prisma.ablation(model, images, "attn.z", lambda logits: values)


def test_every_other_input_is_checked() -> None:
    model = model_of("base")
    images, maps = images_of(model, 3), torch.zeros(3, 1, 3, 3)
    bad, coverage = images.clone(), torch.zeros(3, 3, 3)
    bad[2] = torch.nan
    maps[1, 0, 2, 2] = torch.nan
    lens = prisma.train_tuned_lens(model, images, steps=1)
    lens.weight[1, 0, 0] = torch.nan
    refused: list[tuple[str, Callable[[], Any]]] = [
        ("in corrupt; found nan in image 2", lambda: prisma.patch(model, images, bad, "attn.z", lambda x: x[:, 0])),
        ("in reference; found nan in image 2", lambda: ablate(model, images, bad)),
        ("in maps; found nan in image 1", lambda: prisma.segmentation(maps, coverage)),
        ("in lens.weight; found nan", lambda: prisma.tuned_lens(model, lens, images)),
        ("in masks; found nan in image 0", lambda: prisma.head_scores(model, images, masks=coverage * torch.nan)),
    ]
    for message, call in refused:
        with pytest.raises(PrismaError, match=message):
            call()


def ablate(model: ViT, images: Tensor, reference: Tensor) -> prisma.Result:
    return prisma.ablation(model, images, "attn.z", lambda x: x[:, 0], by="mean", reference=reference)


def test_scores_that_are_masked_by_minus_infinity_are_welcome() -> None:
    tower, model = tower_of("base"), model_of("score_bias")  # a causal mask, and one among the weights
    ids, images = ids_of(tower, 3), images_of(model, 3)
    with torch.no_grad():
        model.get_parameter("blocks.0.attn.bias")[:, :, 1] = -torch.inf
    assert prisma.ablation(tower, ids, "attn.z", lambda x: x[:, 0]).values.isfinite().all()
    assert prisma.rollout(model, images).readout.isfinite().all()
    with torch.no_grad():
        model.get_parameter("blocks.0.attn.bias")[0, 0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match=r"found nan in blocks.0.attn.bias \[3, 10, 10\]"):
        prisma.rollout(model, images)


def test_an_image_without_the_keys_of_a_score_is_no_error() -> None:
    model, masks = model_of("base"), torch.zeros(2, 9)
    masks[0, 0] = 1
    scores = prisma.head_scores(model, images_of(model), "object", masks=masks).scores
    assert scores[0].isfinite().all() and scores[1].isnan().all()


def test_a_broken_result_is_said_without_a_model() -> None:
    with pytest.raises(NotFiniteError, match=r"found nan in result \[3\], at 2 of its first axis"):
        guarded(lambda: torch.tensor([0.0, 1.0, torch.nan]))()


def test_a_reference_in_which_a_class_has_no_probability_is_a_reference() -> None:
    model = model_of("base")
    clean, corrupt = images_of(model, 4).split(2)
    reference = prisma.run(model, clean)
    reference[:, 0] = -torch.inf
    found = prisma.patch(model, clean, corrupt, "attn.z", KL(reference))
    assert found.effect.isfinite().all()
    with pytest.raises(NotFiniteError, match=r"metric\.reference"):
        prisma.patch(model, clean, corrupt, "attn.z", KL(torch.full_like(reference, -torch.inf)))


@pytest.mark.parametrize("layers", [[0, 1], (0, 1), range(2), torch.arange(2), np.arange(2), [np.int64(0), 1]])
def test_whole_numbers_are_of_pythons_own_type(layers: Any) -> None:
    model = model_of("base")
    found = prisma.norm_weighted_attention(model, images_of(model, 1), layers=layers)
    assert found.metadata["layers"] == [0, 1] and {type(x) for x in found.metadata["layers"]} == {int}
    assert prisma.class_values(model, layers=layers).metadata["layers"] == [0, 1]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (0, r"layers to be several whole numbers, such as \[0, 1\]; found 0"),
        ("01", r"layers to be several whole numbers, such as \[0, 1\]; found '01'"),
        (torch.tensor(0), "layers to be several whole numbers, .*; found a torch.Tensor"),
        ([0.5], "layers to be a whole number; found 0.5"),
        (torch.tensor([0.0]), "layers to be a whole number; found 0.0"),
        ([True], "layers to be a whole number; found True"),
    ],
)
def test_what_is_no_sequence_of_whole_numbers_is_named(layers: Any, message: str) -> None:
    model = model_of("base")
    for call in (
        lambda: prisma.class_values(model, layers=layers),
        lambda: prisma.norm_weighted_attention(model, images_of(model, 1), layers=layers),
    ):
        with pytest.raises(PrismaError, match=f"^expected {message}"):
            call()


def test_groups_are_whole_numbers_too() -> None:
    model = model_of("base")
    images = images_of(model, 2)
    metric = prisma.Logit(0)
    tensor: Any = torch.tensor([[0], [1]])
    found = [
        prisma.patch(model, images, images.flip(0), "attn.z", metric, groups=groups) for groups in ([[0], [1]], tensor)
    ]
    assert torch.equal(found[0].values, found[1].values)
    mixed: Any = [[0], 1]
    with pytest.raises(PrismaError, match=r"^expected each of groups to be several whole numbers"):
        prisma.patch(model, images, images.flip(0), "attn.z", metric, groups=mixed)


def test_analyses_within_an_analysis_do_not_look_at_the_weights_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    real = border.are_finite
    monkeypatch.setattr(border, "are_finite", lambda tensors: looks.append(1) or real(tensors))
    model = model_of("base")
    for _ in range(2):
        prisma.memories(model, images_of(model, 2), torch.tensor([0, 1]))
    assert len(looks) == 2
    with pytest.raises(PrismaError):
        prisma.memories(model, site="none")
    model.embed.prefix.data.fill_(torch.nan)
    with pytest.raises(NotFiniteError, match=r"found nan in embed\.prefix"):
        prisma.memories(model)
