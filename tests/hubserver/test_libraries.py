"""One round trip each by the libraries that speak to the Hub, and by its command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from tests.hubserver.running import Hub

REPO = "lab/tiny"


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def test_transformers(server: Hub) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes)).eval()
    model.push_to_hub(REPO, token=server.token)
    server.api.create_branch(REPO, branch="step/1")
    loaded = AutoModelForImageClassification.from_pretrained(REPO, revision="step/1", token=server.token).eval()
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(images).logits, model(images).logits)
    assert server.asked("lfs_get")


def test_timm(server: Hub) -> None:
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}
    name = "vit_tiny_patch16_224"
    model = timm.create_model(name, **sizes).eval()
    server.api.create_repo(REPO)
    timm.models.push_to_hf_hub(model, REPO, model_args=sizes, safe_serialization=True, token=server.token)
    loaded = timm.create_model(f"hf-hub:{REPO}", pretrained=True).eval()
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(images), model(images))


def test_the_command(server: Hub, tmp_path: Path) -> None:
    def hf(*arguments: str) -> None:
        environment = {**os.environ, **server.environment(tmp_path / "home")}
        command = [sys.executable, "-m", "huggingface_hub.cli.hf", *arguments]
        subprocess.run(command, capture_output=True, check=True, env=environment)

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "w.bin").write_bytes(b"\0weights")
    hf("upload", REPO, str(tmp_path / "run"), "--revision", "step/1", "--private")
    assert server.api.model_info(REPO).private
    hf("download", REPO, "w.bin", "--revision", "step/1", "--local-dir", str(tmp_path / "back"))
    assert (tmp_path / "back" / "w.bin").read_bytes() == b"\0weights"
