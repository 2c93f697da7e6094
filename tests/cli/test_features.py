"""Feature visualisation at the command line."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from transformers import ConvNextConfig, ConvNextForImageClassification, ConvNextImageProcessor

from prisma.sparse import CoderConfig, write_coder
from prisma.sparse.coders import drawn
from tests.cli.running import Prisma, one_sentence

OF = ("features", "--model", "mice/digits", "--images", "digits", "--limit", "8", "--steps", "2", "--out", "out")


def test_units_are_visualised_and_the_same_command_goes_on(prisma: Prisma, tmp_path: Path) -> None:
    units = ("--unit", "logits:3", "--unit", "blocks.0.mlp.post:0-1", "--second", "mice/digits", "--by", "maco")
    code, out, _ = prisma(*OF, *units)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("logits:3: ") and "% of the data" in lines[0]
    assert lines[-1] == "Wrote 3 units to out: sheet.png, features.npz, README.md."
    assert "activation in the second model" in (tmp_path / "out" / "README.md").read_text()
    code, out, _ = prisma(*OF, *units, "--json")
    assert code == 0 and json.loads(out)["targets"] == ["logits:3", "blocks.0.mlp.post:0", "blocks.0.mlp.post:1"]


MINE = """
import torch
from torch import nn
from prisma.data.transform import Transform
from prisma.features import Network
def net():
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return Network(nn.Sequential(*parts).eval(), Transform((12, 10), (0.5,) * 3, (0.2,) * 3), ("cat", "dog"))
"""


def test_units_of_any_network_without_images(prisma: Prisma, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    of = ("features", "--model", "mine.py:net", "--steps", "3", "--out", "out", "--by", "maco")
    code, out, _ = prisma(*of, "--unit", "0:1-2", "--unit", "logits:dog", "--json")
    found = json.loads(out)
    assert code == 0 and found["targets"] == ["0:1", "0:2", "logits:1"] and found["percentile"] == [None] * 3
    card = (tmp_path / "out" / "README.md").read_text()
    assert "logits:1 (dog)" in card and "percentile |" not in card and "- data: 0" in card
    assert (tmp_path / "out" / "sheet.png").is_file()
    for unit, message in {
        "4:2": "expected a feature of 4 below 2; found 2",
        "44:0": "no site of this model is called '44'; the nearest are 4",
        "logits:dogs": "found 'dogs'; the nearest classes are dog, cat",
        "latent:0": "'latent'; latents need --coder",
    }.items():
        code, _, err = prisma(*of[:-2], "--out", "other", "--unit", unit)
        assert code == 1 and message in one_sentence(err)


def test_a_neuron_of_a_convnext_of_transformers(prisma: Prisma, tmp_path: Path) -> None:
    settings = ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, num_labels=2)
    ConvNextForImageClassification(settings).save_pretrained(tmp_path / "net")
    ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875).save_pretrained(tmp_path / "net")  # type: ignore[no-untyped-call]
    inside = "convnext.encoder.stages.1.layers.0"  # its neurons are 32, at 4 x 4 places
    of = ("features", "--model", "./net", "--steps", "2", "--out", "out")
    code, out, _ = prisma(*of, "--unit", f"{inside}.act:31", "--unit", "logits:LABEL_1", "--json")
    assert code == 0 and json.loads(out)["targets"] == [f"{inside}.act:31", "logits:1"]
    for unit, message in {
        f"{inside}.act:32": f"expected a feature of {inside}.act below 32; found 32",
        f"{inside}.drop_path:0": "it is not known which of the last three axes is that of channels",
        f"{inside}.acts:0": f"the nearest are {inside}.act",
    }.items():
        code, _, err = prisma(*of, "--out", "other", "--unit", unit)
        assert code == 1 and message in one_sentence(err)


def test_prompts_are_the_units_of_a_clip(prisma: Prisma, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vision = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
    config: dict[str, Any] = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {"layers": 1, "width": 8, "heads": 1}}
    (tmp_path / "clip").mkdir()
    save_file(open_clip.CLIP(**config).state_dict(), tmp_path / "clip" / "open_clip_model.safetensors")
    (tmp_path / "clip" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    of = ("features", "--model", "./clip", "--steps", "3", "--out", "out", "--prompts", "a cat, a red car")
    code, out, _ = prisma(*of, "--unit", "logits:a red car", "--json")
    assert code == 0 and json.loads(out)["targets"] == ["logits:1"] and json.loads(out)["answer"][0] in (0, 1)
    assert "logits:1 (a red car)" in (tmp_path / "out" / "README.md").read_text()
    code, _, err = prisma(*of, "--unit", "logits:a dog")
    assert code == 1 and "found 'a dog'; the nearest classes are a red car, a cat" in one_sentence(err)
    (tmp_path / "mine.py").write_text(MINE)
    code, _, err = prisma(*of[:2], "mine.py:net", *of[3:], "--unit", "logits:0")
    assert code == 1 and "expected a CLIP for --prompts; found a Sequential" in one_sentence(err)


def test_latents_of_a_coder_are_units(prisma: Prisma, tmp_path: Path) -> None:
    config = CoderConfig("topk", d=64, width=96, k=4, sites=("blocks.1.resid_post",))
    for seed in range(2):
        write_coder(tmp_path / f"coder{seed}", drawn(config, seed))
    latents = ("--coder", "coder0", "--unit", "latent:3-4", "--unit", "latent:3,token=0")
    code, out, _ = prisma(*OF, *latents, "--json")
    names = json.loads(out)["targets"]
    assert code == 0 and [name.partition(" of ")[0] for name in names] == ["latent:3", "latent:4", "latent:3,token=0"]
    code, _, err = prisma(*OF, "--coder", "coder1", *latents[2:])
    assert code == 1 and "holds features with units=" in one_sentence(err)
    other = drawn(config, 2)
    other.metadata["training"] = {"model_sha256": {"": "f" * 64}}
    write_coder(tmp_path / "other", other)
    code, _, err = prisma(*OF[:-1], "of-other", "--coder", "other", *latents[4:])
    assert code == 1 and "expected the model that this coder was trained on, with the weights ffff" in one_sentence(err)
    assert not (tmp_path / "of-other").exists()
    assert prisma(*OF[:-1], "of-other", "--coder", "other", *latents[4:], "--other-model")[0] == 0
    code, _, err = prisma(*OF, "--coder", "coder0", "--unit", "latent:96")
    assert code == 1 and "expected a latent from 0 to 95; found 96" in one_sentence(err)


def test_what_cannot_be_done_is_one_sentence(prisma: Prisma) -> None:
    for unit, message in {
        "blocks.0.mlp.pots:3": "no site of this model is called 'blocks.0.mlp.pots'; the nearest are blocks.0.mlp.post",
        "blocks.0.mlp.post:9999": "expected a feature of blocks.0.mlp.post below",
        "3": "expected a unit as SITE:INDEX",
    }.items():
        code, _, err = prisma(*OF, "--unit", unit)
        assert code == 1 and message in one_sentence(err)
