"""Artifact tokens and sinks: against loops, and where they are planted."""

from pathlib import Path

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.attention.artifacts import Artifacts, artifacts
from prisma.runs import record
from tests.planted_heads import planted
from tests.variants import WITH_LAYERS, images_of, model_of


@pytest.mark.parametrize("variant", WITH_LAYERS)
def test_norms_and_attention_received(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model, n=3)
    found = artifacts(model, images, factor=1.2, batch=2)
    c = model.config
    _, acts = record(model, images, ["blocks.*.resid_p*", "blocks.*.attn.pattern"])
    stages = [acts["blocks.0.resid_pre"], *(acts[f"blocks.{layer}.resid_post"] for layer in range(c.n_layers))]
    for stage, x in enumerate(stages):
        norms = [[sum(number**2 for number in token) ** 0.5 for token in image] for image in x.tolist()]
        torch.testing.assert_close(found.norms[:, stage], torch.tensor(norms, dtype=torch.float64))
        of_patches = sorted(norm for image in norms for norm in image[c.n_prefix :])
        cutoff = 1.2 * of_patches[(len(of_patches) - 1) // 2]
        assert found.cutoffs[stage].item() == pytest.approx(cutoff)
        assert found.share[stage].item() == pytest.approx(sum(n > cutoff for n in of_patches) / len(of_patches))
    for layer in range(c.n_layers):
        pattern = acts[f"blocks.{layer}.attn.pattern"].detach()
        expected = sum(pattern[:, :, q] for q in range(c.n_tokens)) / c.n_tokens
        torch.testing.assert_close(found.received[:, layer], expected)
    total = sum(found.attention_share.values())
    torch.testing.assert_close(total, torch.ones(c.n_layers, c.n_heads, dtype=torch.float64))


def test_a_planted_artefact_is_found_and_takes_what_it_takes() -> None:
    """Token 4 (the third patch) is 10 times as long as the others; a head gives it 0.7 and the register 0.2."""
    look = torch.zeros(11, 11)
    look[:, [4, 1, 0]] = torch.tensor([0.7, 0.2, 0.1])
    model = planted({(1, 0): look}, image_size=3, registers=1)
    with torch.no_grad():
        assert model.embed.positions is not None
        model.embed.positions[2] *= 10
        q, k, _ = model.blocks[1].get_submodule("attn").qkv.weight.view(3, 3, 11, 11)
        k[0, :, 4] /= 10  # its length does not count for the head
        q[0, :, 4] /= 10
    images = torch.zeros(4, 1, 3, 3, dtype=torch.float64)
    found = artifacts(model, images)
    assert found.artifacts.sum().item() == 4 * 3
    assert found.artifacts[:, :, 4].all()
    torch.testing.assert_close(found.share, torch.full((3,), 1 / 9))
    torch.testing.assert_close(found.cutoffs, torch.full((3,), 3, dtype=torch.float64))
    taken = {name: part[1, 0].item() for name, part in found.attention_share.items()}
    assert taken == pytest.approx({"artifacts": 0.7, "registers": 0.2, "class": 0.1, "patches": 0})
    sinks = found.sinks()
    assert sinks.nonzero().tolist() == [[1, 0, 4]] and sinks[1, 0, 4] == 1
    assert found.sinks(above=0.15)[1, 0].nonzero().flatten().tolist() == [1, 4]
    assert artifacts(model, images, cutoff=10.5).share.sum() == 0
    assert artifacts(model, images, cutoff=9.5).artifacts.sum() == 12


def test_prefix_tokens_are_no_artefacts() -> None:
    model = model_of("registers")
    with torch.no_grad():
        model.embed.prefix.mul_(1e6)
    found = artifacts(model, images_of(model))
    assert not found.artifacts[:, 0].any()


def test_a_file_holds_what_the_rest_follows_from(tmp_path: Path) -> None:
    model = model_of("registers")
    found = artifacts(model, images_of(model), factor=1.1)
    again = Artifacts.from_npz(found.to_npz(tmp_path / "artifacts.npz"))
    assert torch.equal(again.artifacts, found.artifacts)
    assert found.artifacts.any()
    assert again.plot("share").axes[0].get_xlabel() == "stage"


def test_the_picture_has_the_norms_and_the_cutoff() -> None:
    model = model_of("registers")
    found = artifacts(model, images_of(model), factor=1.1)
    (panel,) = found.plot().axes
    lines = {line.get_label(): torch.as_tensor(line.get_ydata()) for line in panel.lines}
    torch.testing.assert_close(lines["cutoff"], found.cutoffs)
    assert found.artifacts.any()
    assert sorted(lines["artifacts"].tolist()) == sorted(found.norms[found.artifacts].tolist())
    torch.testing.assert_close(lines["median patch"], found.norms[:, :, 4:].transpose(0, 1).flatten(1).quantile(0.5, 1))
    torch.testing.assert_close(lines["class token, mean"], found.norms[:, :, 0].mean(0))
    torch.testing.assert_close(lines["registers, mean"], found.norms[:, :, 1:4].mean((0, 2)))
    alone = model_of("no_class_token")
    (panel,) = artifacts(alone, images_of(alone), cutoff=1e-9).plot().axes  # all of them
    assert {line.get_label() for line in panel.lines} == {"cutoff", "median patch", "artifacts"}


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    for options in ({"factor": 0.0}, {"cutoff": -1.0}):
        with pytest.raises(PrismaError, match="expected a cutoff to be above 0"):
            artifacts(model, images_of(model), **options)
    none = model_of("no_layers")
    with pytest.raises(PrismaError, match="found n_layers=0"):
        artifacts(none, images_of(none))
