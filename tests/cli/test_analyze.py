"""`prisma analyze`: its help, its results, a second run, and its error messages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import prisma as library
from prisma.analysis.clip_dissect import ClipDissect
from prisma.analysis.modularity.modularity import Modularity, modularity
from prisma.analysis.modularity.weight_graph import weight_graph
from prisma.analysis.patching.activation_patching import ActivationPatching, activation_patching
from prisma.checkpoint import write_checkpoint
from prisma.data import task
from prisma.pretrained.networks import load_network
from prisma.study.catalog import ANALYSES
from tests.cli.running import Prisma, one_sentence

CLIP = ("--set", "words=full/thesis.tex", "--set", "clip=mice/digits")  # which is none
DIGITS = ("--model", "mice/digits", "--images", "digits", "--limit", "5", "--device", "cpu")


def test_help_lists_every_analysis(prisma: Prisma) -> None:
    code, out, _ = prisma("analyze", "--help")
    assert code == 0
    for name, analysis in ANALYSES.items():
        assert f" {name} " in out
        assert " ".join(analysis.summary.split()[:4]) in " ".join(out.split())


def test_a_task_is_analysed_and_the_result_is_that_of_the_library(prisma: Prisma, tmp_path: Path) -> None:
    code, out, err = prisma(
        "analyze", "activation_patching", *DIGITS, "--shard-size", "2", "--metric", "logit", "--target", "3"
    )
    assert code == 0, err
    assert "values   image, layer, head  5x2x4" in out
    assert "5 images to runs/analyze-activation_patching: result.npz, plot.png, summary.json." in out
    folder = tmp_path / "runs" / "analyze-activation_patching"
    found = ActivationPatching.from_npz(folder / "result.npz")
    images = task("digits").inputs("test", 5)[0]
    model = library.load("mice/digits").model
    expected = activation_patching(model, images, images.roll(-1, 0), "attn.z", library.metrics.Logit(3))
    assert torch.allclose(found.values, expected.values, atol=1e-5)
    assert found.metadata["target"] == 3
    record = json.loads((folder / "analysis.json").read_text())
    assert (record["model"], record["source"], record["settings"]["images"]) == ("mice/digits", "digits", 5)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*z")}
    assert (
        prisma("analyze", "activation_patching", *DIGITS, "--shard-size", "2", "--metric", "logit", "--target", "3")[1]
        == out
    )
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*z")} == before


def test_a_name_with_dashes_writes_the_same_files(prisma: Prisma, tmp_path: Path) -> None:
    code, out, err = prisma("analyze", "logit-lens", *DIGITS, "--json")
    assert code == 0, err
    assert json.loads(out)["analysis"] == "logit_lens"
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["analyze-logit_lens"]


def test_a_folder_is_analysed(prisma: Prisma, tmp_path: Path) -> None:
    for i, name in enumerate(("cat", "dog", "hen")):
        (tmp_path / "pets").mkdir(exist_ok=True)
        Image.new("RGB", (20 + i, 30), (90 * i, 10, 200)).save(tmp_path / "pets" / f"{name}.jpg")
    code, out, err = prisma(
        "analyze", "head_scores", "--model", "mice/sprites", "--images", "pets", "--set", "scores=corner, sink",
        "--out", "mine", "--json", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / "mine" / "summary.json").read_text())
    assert summary["arrays"]["scores"]["axes"] == ["image", "score", "layer", "head"]
    assert summary["images"] == 3 and summary["options"]["scores"] == "corner, sink"
    assert json.loads((tmp_path / "mine" / "analysis.json").read_text())["images"] == ["cat.jpg", "dog.jpg", "hen.jpg"]


def test_a_target_may_be_a_name(prisma: Prisma) -> None:
    arguments = ("--model", "mice/sprites", "--images", "sprites", "--limit", "2", "--device", "cpu", "--json")
    label = task("sprites").labels[7]
    code, out, err = prisma("analyze", "relevance", *arguments, "--target", label)
    assert code == 0, err
    assert json.loads(out)["options"]["target"] == 7
    code, _, err = prisma("analyze", "relevance", *arguments, "--target", label[:-1])
    assert code == 1 and f"expected a class of the model; found '{label[:-1]}'; the nearest: {label}" in one_sentence(
        err
    )


@pytest.mark.parametrize(
    ("command", "expected", "found"),
    [
        (["nosuch", *DIGITS], "nearest", "'nosuch'"),
        (["rolout", *DIGITS], "rollout", "'rolout'"),
        (["rollout", *DIGITS, "--metric", "logit"], "rollout", "'metric'"),
        (["activation_patching", *DIGITS, "--metric", "loss"], "logit_diff", "'loss'"),
        (["activation_patching", *DIGITS, "--corrupt", "fog"], "blur", "'fog'"),
        (["activation_patching", *DIGITS, "--site", "attn.zz"], "attn.z", "attn.zz"),
        (["activation_patching", *DIGITS, "--target", "10"], "0 to 9", "10"),
        (["causal_tracing", *DIGITS], "sprites", "without masks"),
        (["activation_patching", *DIGITS, "--out", "full"], "--out", "full"),
        (["activation_patching", *DIGITS, "--device", "gpu"], "device", "'gpu'"),
        (["activation_patching", *DIGITS, "--prompts", "a cat, a dog"], "text side", "none"),
        (["clip_dissect", *DIGITS], "--set words=FILE", "none"),
        (["clip_dissect", *DIGITS, "--set", "words=nowhere.txt"], "a file at nowhere.txt", "no such file"),
        (["clip_dissect", *DIGITS, "--set", "words=full/thesis.tex"], "--set clip=REF", "none"),
        (["clip_dissect", *DIGITS, *CLIP, "--site", "blocks.7.mlp.post"], "blocks.7.mlp.post", "nearest"),
        (["clip_dissect", *DIGITS, *CLIP], "CLIP with its text side", "'mice/digits', which has none"),
        (["activation_patching", "--model", "mice/cat", "--images", "digits"], "digits", "mice/cat"),
        (["activation_patching", "--model", "mice/digits", "--images", "digts"], "digits", "digts"),
        (["activation_patching", "--model", "mice/sprites", "--images", "digits"], "[3, 28, 28]", "[1, 8, 8]"),
        (["activation_patching", "--model", "mice/digits", "--images", "full"], "pictures", "none"),
    ],
)
def test_mistakes_get_one_sentence(mistake: Callable[..., str], command: list[str], expected: str, found: str) -> None:
    err = mistake("analyze", *command)
    assert expected in err
    assert found in err


def test_units_of_a_site_get_words_by_a_clip_that_takes_larger_images(prisma: Prisma, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vision = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
    config: dict[str, Any] = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {"layers": 1, "width": 8, "heads": 1}}
    preprocess = {
        "size": 16,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (tmp_path / "clip").mkdir()
    save_file(open_clip.CLIP(**config).state_dict(), tmp_path / "clip" / "open_clip_model.safetensors")
    (tmp_path / "clip" / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    words = ["a ring", "a line", "a dot"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    of = ("--site", "blocks.0.mlp.post", "--set", "units=5,2", "--set", "top=3", "--set", "words=words.txt")
    code, out, err = prisma("analyze", "clip_dissect", *DIGITS, *of, "--set", "clip=./clip")
    assert code == 0, err
    assert "Words that a CLIP proposes for units of blocks.0.mlp.post, which need not fit:" in out
    found = ClipDissect.from_npz(tmp_path / "runs" / "analyze-clip_dissect" / "result.npz")
    model, images = library.load("mice/digits").model, task("digits").inputs("test", 5)[0]
    top = library.top_images(model, images, "blocks.0.mlp.post", None, 3)
    clip, shown = library.load(tmp_path / "clip"), task("digits").splits["test"].images[:5, 0].numpy()
    assert clip.transform is not None
    similarity = library.similarity_of(clip, torch.stack([clip.transform(image) for image in shown]), words)
    named = library.clip_dissect(top.images, similarity, words)
    assert found.metadata["words"] == [named[i].name for i in (5, 2)]
    assert torch.equal(found.images, top.images[[5, 2]])
    assert found.score.tolist() == pytest.approx([named[i].score for i in (5, 2)], abs=1e-4)
    assert f"2: {named[2].name} (score " in out


def test_wrong_usage_is_exit_code_2(prisma: Prisma) -> None:
    assert prisma("analyze", "activation_patching")[0] == 2
    assert prisma("analyze", "activation_patching", *DIGITS, "--set", "seed")[0] == 2
    assert prisma("analyze", "activation_patching", *DIGITS, "--shard-size", "0")[0] == 2


def test_other_settings_are_refused(prisma: Prisma) -> None:
    assert prisma("analyze", "rollout", *DIGITS)[0] == 0
    code, _, err = prisma("analyze", "rollout", *DIGITS, "--set", "residual=0.2")
    assert code == 1
    assert "residual=0.5; this one has 0.2" in one_sentence(err)


def test_several_analyses_take_their_own_options_and_folders(prisma: Prisma) -> None:
    names, words = "class_identifiability,memories", ["--set", "layer=attn", "--set", "bias=false", "--out", "both"]
    code, out, err = prisma("analyze", names, *DIGITS, *words)
    assert code == 0, err
    assert "Wrote class_identifiability over" in out and "Wrote memories over" in out
    found = {name: json.loads(Path("both", name, "summary.json").read_text())["options"] for name in names.split(",")}
    assert found["memories"]["layer"] == "attn" and found["class_identifiability"]["bias"] is False
    code, _, err = prisma("analyze", names, *DIGITS, "--set", "sigma=1")
    assert code == 1 and "expected an option of class_identifiability; found 'sigma'" in one_sentence(err)
    code, _, err = prisma("analyze", "rollout,rollout", *DIGITS)
    assert code == 1 and "expected each analysis once; found 'rollout,rollout'" in one_sentence(err)


def test_a_stop_says_how_to_continue(prisma: Prisma, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prisma.study.shards.run_dataset_analyses", stopped)
    code, _, err = prisma("analyze", "rollout", *DIGITS, "--out", "two words")
    assert code == 130
    command = f"prisma analyze rollout {' '.join(DIGITS)} --out 'two words'"
    assert one_sentence(err) == f"prisma: stopped; {command} continues from here"


def test_a_model_without_classes_needs_prompts(prisma: Prisma, tmp_path: Path) -> None:
    shape = {"image_size": 8, "patch_size": 4, "channels": 1, "n_classes": 0}
    model = library.ViT(library.ViTConfig(n_layers=1, d_model=8, n_heads=2, d_mlp=8, **shape))
    write_checkpoint(tmp_path / "bare", model)
    code, _, err = prisma("analyze", "activation_patching", "--model", "./bare", "--images", "digits", "--limit", "3")
    assert code == 1
    assert (
        "expected a model with classes, because a metric needs them; found none; for a CLIP, use --prompts"
        in one_sentence(err)
    )


CNN = """
import torch
from torch import nn
from prisma.data.transform import Transform
from prisma.features import Network
def net():
    torch.manual_seed(0)
    parts = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    return Network(nn.Sequential(*parts).eval(), Transform((8, 8), (0,), (1,)), ("a", "b", "c"))
"""


def test_the_modularity_of_a_cnn(prisma: Prisma, tmp_path: Path) -> None:
    (tmp_path / "cnn.py").write_text(CNN)
    of = ("analyze", "modularity", "--model", "cnn.py:net", "--set", "k=2", "--set", "null=3")
    code, out, _ = prisma(*of, "--out", "found")
    found = Modularity.from_npz(tmp_path / "found" / "result.npz")
    network = load_network(str(tmp_path / "cnn.py:net")).model
    assert code == 0 and "Wrote modularity of the weights to found" in out
    assert found.q == pytest.approx(modularity(weight_graph(network), 2, 3).q)
    assert found.metadata["layers"][1:] == ["0", "4"]
    code, _, err = prisma(*of, "--set", "graph=activations", "--images", "digits", "--limit", "3", "--out", "other")
    assert code == 1 and "expected a vision transformer of Prisma; found a Sequential" in one_sentence(err)
    code, _, err = prisma("analyze", "head_scores", "--model", "cnn.py:net", "--images", "digits", "--out", "other")
    assert code == 1 and "found 'cnn.py:net'" in one_sentence(err) and not (tmp_path / "other").exists()
