"""The mice of 2023: equal to that architecture written anew, strict, and never a pickle that runs code."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prisma import PrismaError, ViTConfig
from prisma.pretrained.parity import randomise
from prisma.pretrained.vit_prisma import read_mouse

LIKE = ViTConfig(image_size=16, patch_size=2, channels=3, n_layers=7, d_model=32, n_heads=4, d_mlp=3, n_classes=9)


class OldAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Head by head."""
        width = x.shape[-1] // self.heads
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        heads = []
        for h in range(self.heads):
            mine = slice(h * width, (h + 1) * width)
            scores = (q[..., mine] * width**-0.5) @ k[..., mine].transpose(1, 2)
            heads.append(scores.softmax(-1) @ v[..., mine])
        return self.proj(torch.cat(heads, dim=-1))


class OldMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class OldBlock(nn.Module):
    def __init__(self, width: int, heads: int, attention_only: bool) -> None:
        super().__init__()
        self.attention = OldAttention(width, heads)
        self.mlp = None if attention_only else OldMLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x if self.mlp is None else x + self.mlp(x)


class OldViT(nn.Module):
    def __init__(
        self, *, image: int = 16, patch: int = 4, channels: int = 1, width: int = 24, heads: int = 4, layers: int = 2,
        attention_only: bool = False, global_pool: bool = False, classes: int = 5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch_embedding = nn.Module()
        self.patch_embedding.proj = nn.Conv2d(channels, width, patch, patch, bias=False)
        self.cls_token = None if global_pool else nn.Parameter(torch.zeros(1, 1, width))
        tokens = (image // patch) ** 2 + (0 if global_pool else 1)
        self.position_embedding = nn.Parameter(torch.zeros(1, tokens, width))
        self.blocks = nn.Sequential(*(OldBlock(width, heads, attention_only) for _ in range(layers)))
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embedding.proj(images).flatten(2).mT
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), 1, -1), x], dim=1)
        x = self.blocks(x + self.position_embedding)
        return self.head(x.mean(1) if self.cls_token is None else x[:, 0])


def old(**fields: Any) -> OldViT:
    model = OldViT(**fields).double()
    randomise(model)
    return model


def saved(path: Path, model: nn.Module, prefix: str = "") -> Path:
    """As their trainer saved it, Adam's moments with it."""
    optimizer = torch.optim.AdamW(model.parameters())
    sum(x.sum() for x in model.parameters()).backward()
    optimizer.step()
    weights = {prefix + name: x for name, x in model.state_dict().items()}
    torch.save({"model_state_dict": weights, "optimizer_state_dict": optimizer.state_dict(), "epoch": 3}, path)
    return path


CASES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 1},
    "base": {},
    "attention only": {"attention_only": True, "layers": 3},
    "colours": {"channels": 3, "classes": 7},
    "one pixel patches": {"image": 4, "patch": 1, "width": 8},
    "global pool": {"global_pool": True},
    "no layers": {"layers": 0},
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_old_architecture(case: str, dtype: torch.dtype, tolerance: float, tmp_path: Path) -> None:
    model, fields = old(**CASES[case]).to(dtype), CASES[case]
    side = fields.get("image", 16)
    found = read_mouse(saved(tmp_path / "old.pth", model), replace(LIKE, image_size=side, patch_size=1))
    assert not found.training
    assert next(found.parameters()).dtype == dtype
    images = torch.randn(3, fields.get("channels", 1), side, side, dtype=dtype)
    with torch.no_grad():
        expected = model(images)
        assert (found(images) - expected).abs().max() <= tolerance * expected.abs().max()


def test_every_parameter_of_theirs_changes_our_output(tmp_path: Path) -> None:
    model, images = old(), torch.randn(2, 1, 16, 16, dtype=torch.float64)

    def answer() -> Tensor:
        torch.save(model.state_dict(), tmp_path / "old.pth")
        return read_mouse(tmp_path / "old.pth", LIKE)(images)

    before = answer()
    for name, parameter in model.named_parameters():
        kept = parameter.data.clone()
        parameter.data += torch.randn_like(parameter)
        assert (answer() - before).abs().max() > 1e-6, name
        parameter.data = kept


def test_bare_weights_and_weights_of_several_gpus_are_read_too(tmp_path: Path) -> None:
    model, images = old(), torch.randn(2, 1, 16, 16, dtype=torch.float64)
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    saved(tmp_path / "parallel.pth", model, prefix="module.")
    bare = read_mouse(tmp_path / "bare.pth", LIKE)
    assert bare.config == read_mouse(tmp_path / "parallel.pth", LIKE).config
    with torch.no_grad():
        torch.save(model.state_dict(), tmp_path / "bare.pth")
        torch.testing.assert_close(read_mouse(tmp_path / "bare.pth", LIKE)(images), model(images))


@pytest.mark.parametrize("field", ["n_heads", "activation"])
def test_what_shapes_cannot_tell_is_as_told(field: str, tmp_path: Path) -> None:
    torch.save(old().state_dict(), tmp_path / "old.pth")
    told = {"n_heads": 3, "activation": "relu"}[field]
    config = read_mouse(tmp_path / "old.pth", replace(LIKE, d_model=36, d_head=0, **{field: told})).config
    assert getattr(config, field) == told
    assert (config.norm, config.qkv_bias, config.n_layers, config.d_mlp) == ("none", False, 2, 96)


def test_everything_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    weights = old().state_dict()
    del weights["blocks.1.mlp.fc1.weight"], weights["blocks.0.attention.qkv.weight"]
    weights["blocks.0.attention.proj.weight"] = torch.zeros(24, 23)
    weights["pre_head_norm.weight"] = torch.zeros(24)
    torch.save(weights, tmp_path / "old.pth")
    with pytest.raises(PrismaError) as error:
        read_mouse(tmp_path / "old.pth", LIKE)
    for complaint in (
        "blocks.1.mlp.pre.weight is missing (from blocks.1.mlp.fc1.weight)",
        "blocks.0.attn.qkv.weight is missing",
        "blocks.0.attn.out.weight is [24, 23] instead of [24, 24]",
        "pre_head_norm.weight is not used",
    ):
        assert complaint in str(error.value)


@dataclass
class TheirConfig:
    """A class that only their package has: what their ImageNet checkpoints hold."""

    n_heads: int = 4


def without(*names: str) -> Callable[[Path], None]:
    return lambda path: torch.save({k: x for k, x in old().state_dict().items() if k not in names}, path)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda path: None, "expected a checkpoint at .*old.pth; found no such file"),
    "a class": (
        lambda path: torch.save({"model_state_dict": old().state_dict(), "config": TheirConfig()}, path),
        r"nothing but tensors in .*old.pth; found the Python object .*TheirConfig, and restoring it would run code",
    ),
    "a function": (lambda path: torch.save({"x": print}, path), "found the Python object .*print"),
    "a whole model": (lambda path: torch.save(old(), path), "found the Python object .*OldViT"),
    "text": (lambda path: path.write_text("no weights"), "expected a file written by torch.save at .*; found some"),
    "empty": (lambda path: path.write_bytes(b""), "expected a file written by torch.save"),
    "cut": (
        lambda path: (torch.save(old().state_dict(), path), path.write_bytes(path.read_bytes()[:5000])),
        "expected a file written by torch.save",
    ),
    "one tensor": (lambda path: torch.save(torch.ones(3), path), "the tensors of a model in .*; found a Tensor"),
    "numbers": (lambda path: torch.save({"a": 1}, path), "expected the tensors of a model in .*; found a dict"),
    "nothing": (lambda path: torch.save({}, path), "expected the tensors of a model in"),
    "whole numbers": (lambda path: torch.save({"a": torch.ones(3).long()}, path), "expected the tensors of a model"),
    "another model": (
        lambda path: torch.save(nn.Linear(3, 3).state_dict(), path),
        "patch_embedding.proj.weight is missing; position_embedding is missing; head.weight is missing",
    ),
    "no positions": (without("position_embedding"), "position_embedding is missing"),
    "another size": (lambda path: torch.save(old(image=12).state_dict(), path), r"positions is \[9, 24\] instead of"),
    "another patch": (lambda path: torch.save(old(image=15, patch=5).state_dict(), path), "image_size=16 contradicts"),
    "other heads": (lambda path: torch.save(old(width=18, heads=3).state_dict(), path), "18 contradicts n_heads=4"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_old_mouse_is_refused(write: Callable[[Path], Any], sentence: str, tmp_path: Path) -> None:
    write(tmp_path / "old.pth")
    with pytest.raises(PrismaError, match=sentence) as error:
        read_mouse(tmp_path / "old.pth", LIKE)
    assert "\n" not in str(error.value)
