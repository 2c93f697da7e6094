"""What a checkpoint's line says of weights and heads is what the analysis says of the checkpoint."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from prisma.analysis.attention.head_scores import head_scores
from prisma.checkpoint import read_checkpoint, read_tensors
from prisma.data import task
from prisma.data.task import coverage
from prisma.recipes import recipe
from prisma.run_folder import checkpoint_folder, read_metrics
from prisma.runs import record
from prisma.train import Recipe
from prisma.train.dynamics import KEPT, probed, weights_and_heads
from prisma.train.initial import initial_model
from prisma.train.order import batch
from prisma.train.probe import probe_images

NEW = {"weight_norm", "gradient_norm", "heads"}


@pytest.mark.parametrize("step", [0, 16, 70])
def test_a_checkpoint_s_line_is_what_its_weights_give(tiny: Recipe, whole: Path, step: int) -> None:
    line = read_metrics(whole / "metrics.jsonl")[step]
    model, digits = read_checkpoint(checkpoint_folder(whole, step)).model, task("digits")
    flat = torch.cat([p.flatten() for p in model.parameters()]).double()
    assert line["weight_norm"] == pytest.approx(flat.norm().item(), rel=1e-12)
    images, labels = batch(digits.splits["train"], digits.transform, tiny.training, step)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    F.cross_entropy(model(images), labels).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert line["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-5)
    probe = digits.transform.normalise(read_tensors(whole / "probe.safetensors")[0]["images"])
    _, acts = record(model, probe, "blocks.0.attn.pattern")
    pattern = acts["blocks.0.attn.pattern"].double()
    entropy = -(pattern * pattern.log2()).sum(-1).mean((0, 2))
    torch.testing.assert_close(torch.tensor(line["heads"]["entropy"][0]).double(), entropy, rtol=0, atol=2e-6)
    class_token = pattern[..., 0].mean((0, 2))
    torch.testing.assert_close(torch.tensor(line["heads"]["class_token"][0]).double(), class_token, rtol=0, atol=2e-6)


def test_they_are_in_the_lines_of_checkpoints_alone(whole: Path) -> None:
    for line in read_metrics(whole / "metrics.jsonl"):
        assert set(line) & NEW == (NEW if "test_loss" in line else set())
    assert "NaN" not in (whole / "metrics.jsonl").read_text()


EVERY = {"entropy", "class_token", "corner", "edge"}


@pytest.mark.parametrize(
    ("name", "scores"),
    [("induction", EVERY | {"induction"}), ("sprites", EVERY | {"object"}), ("circle", EVERY)],
)
def test_the_scores_of_a_task_follow_from_its_images(name: str, scores: set[str]) -> None:
    chosen, data = recipe(name), task(name)
    model, of = initial_model(chosen.model, 0), probed(name, chosen.model, "cpu")
    found = weights_and_heads(model, of)["heads"]
    assert set(found) == scores <= set(KEPT)
    probe = probe_images(data.splits["test"])
    masks = None if probe.masks is None else coverage(probe.masks, chosen.model.patch_sides)
    names = [score for score in found if score != "entropy"]
    images = data.transform.normalise(probe.images)
    expected = head_scores(model, images, names, masks=masks, content=of.content).mean
    for i, score in enumerate(names):
        torch.testing.assert_close(torch.tensor(found[score]), expected[i], rtol=0, atol=2e-6)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_content_of_an_induction_image_is_its_glyphs() -> None:
    """The centres are found again in the pixels: no other patch is called one of a glyph."""
    chosen = recipe("induction")
    content = probed("induction", chosen.model, "cpu").content
    probe = probe_images(task("induction").splits["test"])
    for image, shown, label in zip(probe.images[:, 0], content, probe.labels.tolist(), strict=True):
        lit = image.unfold(0, 8, 8).unfold(1, 8, 8).amax((-1, -2)).flatten() > 0
        kinds = shown[shown > 0]
        assert lit[shown > 0].all() and 1 <= len(kinds) <= 2
        if len(kinds) == 2:
            assert (kinds[0] == kinds[1]).item() == (label in (0, 2))


def test_a_model_without_layers_has_no_heads(tiny: Recipe) -> None:
    flat = tiny.override({"n_layers": "0"})
    found = weights_and_heads(initial_model(flat.model, 0), probed("digits", flat.model, "cpu"))
    assert found["heads"] == {} and found["weight_norm"] > 0
