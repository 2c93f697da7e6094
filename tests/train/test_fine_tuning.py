"""A trained model as the beginning of a run for another task: it computes what it did, and only parts change."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prisma.config import ViTConfig
from prisma.data import task
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.loaded import Loaded, load
from prisma.recipes import recipe
from prisma.run_folder import read_recipe
from prisma.train import train
from prisma.train.fine_tuning import fitted, repository_of
from prisma.vit import build

CONFIG = ViTConfig(image_size=8, patch_size=4, channels=1, n_layers=3, d_model=16, n_heads=2, d_mlp=32, n_classes=7)


def loaded(labels: tuple[str, ...], mean: float = 0.3, std: float = 0.2, **changes: object) -> Loaded:
    torch.manual_seed(0)
    config = replace(CONFIG, **changes)  # type: ignore[arg-type]
    model = build(config).double()
    for x in model.parameters():
        torch.nn.init.normal_(x, std=0.3)
    return Loaded(
        model, Transform(size=config.image_sides, mean=(mean,) * config.channels, std=(std,) * config.channels), labels
    )


def test_it_computes_the_same_from_the_pixels_of_the_task() -> None:
    data, start = task("digits"), loaded(tuple("abcdefg"))
    model = fitted(start, data, 0, "fan_in")
    images = torch.rand(5, 1, 8, 8)
    assert start.transform is not None
    expected, found = (
        of.encode(of.embed(transform.normalise(x)))
        for of, transform, x in ((start.model, start.transform, images.double()), (model, data.transform, images))
    )
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-4)
    assert model.config.n_classes == 10 and model(data.transform.normalise(images)).shape == (5, 10)
    assert start.model.config.n_classes == 7, "the model that was loaded stays as it is"


def test_a_head_of_the_same_classes_is_kept_and_another_is_drawn_by_the_seed() -> None:
    data = task("digits")
    same = loaded(data.labels, n_classes=10)
    kept = fitted(same, data, 0, "fan_in").readout.head
    torch.testing.assert_close(kept.weight.double(), same.model.readout.head.weight)
    drawn = [fitted(loaded(tuple("abcdefg")), data, seed, "fan_in").readout.head.weight for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(("changes", "words"), [({"image_size": 16}, "image_sides"), ({"channels": 3}, "channels")])
def test_other_images_are_a_sentence(changes: dict[str, int], words: str) -> None:
    with pytest.raises(PrismaError, match=rf"a model whose {words} are .* as in the task digits; found"):
        fitted(loaded((), **changes), task("digits"), 0, "fan_in")


def test_only_the_head_changes_and_a_resumed_run_has_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    data = task("digits")
    first = fitted(loaded(tuple("abcdefg")), data, 0, "fan_in")
    settings = {"steps": "12", "checkpoint_every": "4", "warmup": "2", "trained": "head", "ema": "0.9"}
    short = replace(recipe("digits").override(settings), model=first.config)

    class StoppedError(Exception):
        pass

    def stop(line: Mapping[str, object]) -> None:
        if line["step"] == 8:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(short, tmp_path / "parts", progress=False, first=first, watch=stop)
    train(short, tmp_path / "parts", progress=False, first=first, resume=True)
    train(short, tmp_path / "once", progress=False, first=first)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()
    before, after = first.state_dict(), load(tmp_path / "once").model.state_dict()
    changed = {name for name, x in after.items() if not torch.equal(x, before[name])}
    assert changed == {"readout.head.weight", "readout.head.bias"}
    assert read_recipe(tmp_path / "once")["first_weights"]["sha256"]


@pytest.mark.parametrize(
    ("ref", "repo"),
    [
        ("timm/vit_base_patch16_224.augreg_in21k", "timm/vit_base_patch16_224.augreg_in21k"),
        ("timm/vit_base_patch16_224", None),
        ("hf/facebook/dinov2-base", "facebook/dinov2-base"),
        ("open_clip/ViT-B-32:laion2b", None),
        ("open_clip/laion/CLIP-ViT-B-32", "laion/CLIP-ViT-B-32"),
        ("lab/digits@step-000004", "lab/digits"),
        ("mice/digits", None),
        ("tests", None),
    ],
)
def test_the_repository_of_a_model_is_named_where_it_is_on_the_hub(ref: str, repo: str | None) -> None:
    assert repository_of(ref) == repo
